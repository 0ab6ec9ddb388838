"""What `why`, `eta` and a dry run say, in words."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sokovan.cli.describe import amounts, short
from sokovan.cli.text import local_time
from sokovan.domain.quantities import format_duration, format_milli, format_size
from sokovan.domain.reasons import EndReason, WaitReason

View = Mapping[str, Any]

AGENTS_SHOWN_MAX = 5
HOLDERS_SHOWN_MAX = 10
OLD_PLACE = "; in its present place alone: submitted anew, it would wait"


def why_lines(answer: View, now: float) -> Iterator[str]:
    """Yield what `sokovan why` says: a sentence, its place, the agents, who holds what, and help.

    Args:
        answer: What the API says.
        now: By the clock of the server, in seconds since the epoch.
    """
    yield f"{short(answer['session']['id'])}: {answer['sentence']}"
    yield from _details(answer, now)


def eta_lines(answer: View, now: float) -> Iterator[str]:
    """Yield what `sokovan eta` says."""
    yield f"{short(answer['session']['id'])}: {answer['sentence']}"
    yield from _start(answer, now)


def dry_run_lines(answer: View, now: float) -> Iterator[str]:
    """Yield what `sokovan submit --dry-run` says."""
    if answer["starts_now"]:
        yield answer["sentence"]
        for index, one in enumerate(answer["agents"]):
            devices = ",".join(str(device) for device, _ in one["devices"])
            yield f"  kernel {index} on {one['agent']}{f', devices {devices}' if devices else ''}"
        return
    if not answer["accepted"]:
        yield f"would be refused, unless --allow-infeasible is said: it {answer['sentence']}"
    elif answer["code"] == EndReason.DEPENDENCY_FAILED:
        yield answer["sentence"]
    else:
        yield f"would wait: it {answer['sentence']}"
    yield from _details(answer, now)
    if answer["eta"] and answer["code"] != WaitReason.NEVER_FITS:
        yield f"  start: {answer['eta']['sentence']}"


def _details(answer: View, now: float) -> Iterator[str]:
    facts = answer["facts"]
    if facts.get("position") is not None:
        if facts.get("examined") is False:
            yield f"  not examined in the last pass, because {facts['not_examined_because']}"
        yield f"  place {facts['position']} of {facts['queue_length']} in the queue{_ahead(facts)}"
        if "reservation" in facts and answer["code"] != WaitReason.NEVER_FITS:
            yield f"  {_reservation(facts, now)}"
    yield from _agents(facts)
    for reason, count in facts.get("drained_for", {}).items():
        who = "1 agent is" if count == 1 else f"{count} agents are"
        yield f"  {who} drained{f': {reason}' if reason else ''}"
    holders = facts.get("holders") or ()
    if holders:
        yield "  what it waits for is held by:"
        yield from (f"    {_holder(holder, now)}" for holder in holders[:HOLDERS_SHOWN_MAX])
        yield from _more(facts.get("holders_total", len(holders)), HOLDERS_SHOWN_MAX)
    suggestions = answer.get("suggestions")
    if suggestions:
        yield "  to start it now, any one of these is enough:"
        yield from (f"    {_suggestion(one)}" for one in suggestions)
    elif suggestions is not None and facts.get("position") is not None:
        yield "  no single change would start it now"


def _reservation(facts: View, now: float) -> str:
    kept = facts["reservation"]
    if kept is None:
        return f"no reservation: {facts['reservation_because']}"
    names = ", ".join(dict.fromkeys(one["agent"] for one in kept["agents"]))
    return f"reserved: {names}, in {_in(kept['starts_at'], now)}: {facts['reservation_because']}"


def _start(answer: View, now: float) -> Iterator[str]:
    """The moment as the clock on the wall shows it, and where."""
    at = answer["starts_at"] or answer["not_before"]
    if at is None:
        return
    names = ", ".join(dict.fromkeys(one["agent"] for one in answer["agents"]))
    before = "" if answer["starts_at"] else "not before "
    when = f"{before}{local_time(at)}"
    until = f", until {local_time(answer['ends_at'])}" if answer["ends_at"] else ""
    yield f"  {when}{until}{f', on {names}' if names else ''}"


def _agents(facts: View) -> Iterator[str]:
    """Each agent, where they are few; else each kind."""
    agents, kinds = facts.get("agents") or (), facts.get("kinds") or ()
    total = facts.get("agents_total", len(agents))
    if agents and isinstance(agents[0], Mapping) and (total <= AGENTS_SHOWN_MAX or not kinds):
        yield "  agents:"
        yield from (f"    {_agent(agent)}" for agent in agents[:AGENTS_SHOWN_MAX])
        yield from _more(total, AGENTS_SHOWN_MAX)
    elif kinds:
        yield "  agents, by kind:"
        yield from (f"    {_kind(kind)}" for kind in kinds[:AGENTS_SHOWN_MAX])
        yield from _more(facts["kinds_total"], AGENTS_SHOWN_MAX)


def _kind(kind: View) -> str:
    has = [f"{format_milli(kind['cpu_milli'])} cpu", f"{format_size(kind['mem_bytes'])} mem"]
    has += [
        f"{one['count']} gpu of {format_size(one['mem_bytes'])}"
        f"{' (' + one['model'] + ')' if one['model'] else ''}"
        for one in kind["devices"]
    ]
    said = [f"{count} {code}" for code, count in kind["refused_by"].items()]
    said += [f"{kind['with_room']} with room"] if kind["with_room"] else []
    lacks = _lacks(kind["closest"])
    closest = f"; the closest, {kind['closest']['agent']}: {lacks}" if lacks else ""
    return f"{kind['agents']} with {', '.join(has)}: {', '.join(said)}{closest}"


def _suggestion(one: View) -> str:
    return f"{one['change']}{'' if one['as_new'] else OLD_PLACE}"


def _ahead(facts: View) -> str:
    ahead = facts["ahead"]
    parts = [
        f"{ahead[key]} by {words}"
        for key, words in (
            ("by_higher_priority", "higher priority"),
            ("by_earlier_submission", "earlier submission"),
            ("by_later_submission", "later submission"),
            ("by_smaller_share", "smaller share"),
        )
        if ahead.get(key)
    ]
    return f"; before it: {', '.join(parts)}" if parts else ""


def _agent(agent: View) -> str:
    drained = ", drained" if agent.get("drained") else ""
    refuses = "has room" if agent["code"] == WaitReason.AGENT_DRAINED else agent["code"]
    return f"{agent['agent']} ({agent['status']}{drained}): {_lacks(agent) or refuses}"


def _lacks(agent: View) -> str:
    return "; ".join(
        f"{lack['slot'].replace('_', ' ')}: {_amount(lack, 'requested')} asked,"
        f" {_amount(lack, 'free')} of {_amount(lack, 'total')} free"
        for lack in agent["lacks"]
    )


def _holder(holder: View, now: float) -> str:
    if holder["leftover"]:
        ends = "a leftover that is being stopped"
    elif holder["until"] > now:
        ends = f"should end in {_in(holder['until'], now)}"
    else:
        ends = "may end at any moment"
    return f"{short(holder['session_id'])} on {holder['agent']}: {amounts(holder)}, {ends}"


def _in(at: float, now: float) -> str:
    return format_duration(max(0, int(at - now)))


def _amount(lack: View, key: str) -> str:
    if lack["slot"] == "kernels":
        return str(lack[key])
    return format_size(lack[key]) if "mem" in lack["slot"] else format_milli(lack[key])


def _more(total: int, shown: int) -> Sequence[str]:
    return [f"    and {total - shown} more (--json names them)"] if total > shown else []
