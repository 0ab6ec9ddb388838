"""The numbers behind `why`, in words."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sokovan.cli.describe import amounts, short
from sokovan.domain.quantities import format_milli, format_size
from sokovan.domain.reasons import WaitReason

View = Mapping[str, Any]

AGENTS_SHOWN_MAX = 5
HOLDERS_SHOWN_MAX = 10


def why_lines(answer: View) -> Iterator[str]:
    """Yield what `sokovan why` says: a sentence, the place in the queue, what agents lack."""
    yield f"{short(answer['session']['id'])}: {answer['sentence']}"
    facts = answer["facts"]
    if facts.get("position") is not None:
        yield f"  place {facts['position']} of {facts['queue_length']} in the queue{_ahead(facts)}"
    agents = facts.get("agents") or ()
    if agents and isinstance(agents[0], Mapping):
        yield "  agents:"
        yield from (f"    {_agent(agent)}" for agent in agents[:AGENTS_SHOWN_MAX])
        yield from _more(facts.get("agents_total", len(agents)), AGENTS_SHOWN_MAX)
    for reason, count in facts.get("drained_for", {}).items():
        who = "1 agent is" if count == 1 else f"{count} agents are"
        yield f"  {who} drained{f': {reason}' if reason else ''}"
    holders = facts.get("holders") or ()
    if holders:
        yield "  what it waits for is held by:"
        yield from (f"    {_holder(holder)}" for holder in holders[:HOLDERS_SHOWN_MAX])
        yield from _more(facts.get("holders_total", len(holders)), HOLDERS_SHOWN_MAX)


def _ahead(facts: View) -> str:
    ahead = facts["ahead"]
    parts = [
        f"{ahead[key]} by {words}"
        for key, words in (
            ("by_higher_priority", "higher priority"),
            ("by_earlier_submission", "earlier submission"),
        )
        if ahead[key]
    ]
    return f"; before it: {', '.join(parts)}" if parts else ""


def _agent(agent: View) -> str:
    lacks = "; ".join(
        f"{lack['slot'].replace('_', ' ')}: {_amount(lack, 'requested')} asked,"
        f" {_amount(lack, 'free')} of {_amount(lack, 'total')} free"
        for lack in agent["lacks"]
    )
    drained = ", drained" if agent.get("drained") else ""
    refuses = "has room" if agent["code"] == WaitReason.AGENT_DRAINED else agent["code"]
    return f"{agent['agent']} ({agent['status']}{drained}): {lacks or refuses}"


def _holder(holder: View) -> str:
    kind = ", a leftover that is being stopped" if holder["leftover"] else ""
    return f"{short(holder['session_id'])} on {holder['agent']}: {amounts(holder)}{kind}"


def _amount(lack: View, key: str) -> str:
    return format_size(lack[key]) if "mem" in lack["slot"] else format_milli(lack[key])


def _more(total: int, shown: int) -> Sequence[str]:
    return [f"    and {total - shown} more (--json names them)"] if total > shown else []
