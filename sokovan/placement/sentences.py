"""Why a session waits, in one plain sentence, with the numbers in units that people use."""

from collections.abc import Callable, Mapping
from typing import Any

from sokovan.domain.quantities import (
    DEVICE_SHARES,
    format_duration,
    format_milli,
    format_size,
)
from sokovan.domain.reasons import Wait, WaitReason
from sokovan.placement.looks import AGENTS_NAMED_MAX

Facts = Mapping[str, Any]


def sentence(wait: Wait, *, now: float | None = None) -> str:
    """Say in one plain sentence why a session waits, with the numbers in units that people use.

    Args:
        wait: The reason; facts may be missing.
        now: Seconds since the epoch, to say how long a time is away.
    """
    return _SENTENCES[wait.code](wait.facts, now)


def _held(facts: Facts, now: float | None) -> str:
    return "is held back; release it and it takes its place in the queue"


def _begin(facts: Facts, now: float | None) -> str:
    begin_at = facts.get("begin_at")
    if now is None or begin_at is None:
        return "waits for its begin time"
    return f"waits for its begin time, in {format_duration(max(0.0, begin_at - now))}"


def _dependency(facts: Facts, now: float | None) -> str:
    unmet = facts.get("unmet", [])
    named = ", ".join(f"{one['session_id']} ({one['kind']})" for one in unmet[:AGENTS_NAMED_MAX])
    more = len(unmet) - AGENTS_NAMED_MAX
    return (
        f"waits for other sessions to end: {named or 'not known'}"
        f"{f' and {more} more' if more > 0 else ''}"
    )


def _array_limit(facts: Facts, now: float | None) -> str:
    count = facts.get("running_max")
    if count is None:
        return "waits until another task of its array has ended"
    are = "task of its array is" if count == 1 else "tasks of its array are"
    return f"waits for a place: {count} {are} running or about to, its most at once"


def _old_kernels(facts: Facts, now: float | None) -> str:
    agents = ", ".join(facts.get("agents", [])) or "its old agent"
    return f"waits until {agents} confirms that the kernels of its last attempt are gone"


def _retry(facts: Facts, now: float | None) -> str:
    retry_at = facts.get("retry_at")
    if now is None or retry_at is None:
        return "waits a while after a failed attempt"
    return (
        f"waits a while after a failed attempt: tries again in"
        f" {format_duration(max(0.0, retry_at - now))}"
    )


def _not_examined(facts: Facts, now: float | None) -> str:
    agents = ", ".join(facts.get("agents", []))
    if agents:
        return f"has not been looked at yet; there is room for it on {agents}"
    return "has not been looked at yet"


def _no_agents(facts: Facts, now: float | None) -> str:
    return "waits for an agent: its scaling group has none"


def _not_alive(facts: Facts, now: float | None) -> str:
    agents = ", ".join(facts.get("agents", []))
    more = facts.get("lost", 0) - len(facts.get("agents", []))
    return (
        f"waits for an agent that is lost: only {agents or 'such an agent'}"
        f"{f' and {more} more' if more > 0 else ''} could take it"
    )


def _drained(facts: Facts, now: float | None) -> str:
    agents, reasons = facts.get("agents", []), facts.get("reasons", {})
    named = [f"{name} ({reasons[name]})" if name in reasons else name for name in agents]
    more = facts.get("drained", 0) - len(agents)
    lost = facts.get("lost", 0)
    return (
        f"waits for an agent that is drained: only {', '.join(named) or 'such an agent'}"
        f"{f' and {more} more' if more > 0 else ''}"
        f" could take it{f', or one of {lost} that are lost' if lost else ''}"
    )


def _short(facts: Facts, now: float | None) -> str:
    if "requested" not in facts:
        return "waits for room on an agent"
    which = "with the most free" if facts["best_has_most"] else "that comes closest"
    also = "".join(f", and {_ALSO[code]}" for code in facts["also"])
    return (
        f"waits for {_asked(facts)}: the agent {which}, {facts['best_agent']},"
        f" has {_has(facts)}{also}"
    )


def _unmet(facts: Facts, now: float | None) -> str:
    return "waits for an agent that it may go on"


def _other(facts: Facts) -> str:
    """The session that is in the way, as people call it."""
    named = f" ({facts['name']})" if facts.get("name") else ""
    return f"{facts['session_id']}{named}" if "session_id" in facts else "another"


def _reserved(facts: Facts, now: float | None) -> str:
    starts_at = facts.get("starts_at")
    when = ""
    if now is not None and starts_at is not None:
        when = f", in {format_duration(max(0.0, starts_at - now))}"
    return (
        f"could start now, but would still run when {_other(facts)}, which is ahead of it,"
        f" is to start on what it would use{when}"
    )


def _behind(facts: Facts, now: float | None) -> str:
    return f"waits its turn: {_other(facts)} is ahead of it, and nobody overtakes in this group"


def _not_all(facts: Facts, now: float | None) -> str:
    if "form" in facts:
        return f"waits for room for all its {facts['kernels']} kernels {facts['form']}"
    if "next" not in facts:
        return "waits for room for all its kernels at once"
    inner = Wait(WaitReason(facts["next"]["code"]), facts["next"]["facts"])
    return (
        f"waits for room for all its {facts['kernels']} kernels at once:"
        f" {facts['fit']} would fit, the next {sentence(inner, now=now)}"
    )


def _never(facts: Facts, now: float | None) -> str:
    if "problem" in facts:
        return f"can never start: {facts['problem']}"
    if "unmet" in facts:
        return f"can never start here: {_no_agent_meets(facts)}"
    if "form" in facts:
        return (
            f"can never start here: there would be no room for its {facts['kernels']} kernels"
            f" {facts['form']} if all agents were empty"
        )
    if "slot" not in facts:
        return "can never start here: no agent of its scaling group could take it"
    if "kernels" in facts:
        return (
            f"can never start here: only {facts['fit']} of its {facts['kernels']} kernels would fit"
            f" at once if all agents were empty; the next asks for {_asked(facts)}, and the agent"
            f" that comes closest, {facts['best_agent']}, would have {_has(facts)}"
        )
    if facts["largest"] >= facts["requested"]:
        return (
            f"can never start here: no agent has all that it asks for; it needs {_asked(facts)},"
            f" and the agent that comes closest, {facts['best_agent']},"
            f" has {_bare(facts, 'best_total')}"
        )
    return (
        f"can never start here: it asks for {_asked(facts)}, and the agent with the most,"
        f" {facts['largest_agent']}, has {_bare(facts, 'largest')}"
    )


def _no_agent_meets(facts: Facts) -> str:
    if facts["by"] == WaitReason.AGENT_NOT_CHOSEN.value:
        return f"none of the agents that it may go on is in its scaling group: {facts['most']}"
    if facts["by"] == WaitReason.AGENT_EXCLUDED.value:
        return "every agent of its scaling group is excluded"
    return f"no agent of its scaling group meets all of {', '.join(facts['unmet'])}"


def _asked(facts: Facts) -> str:
    """The requested amount with what it is an amount of."""
    requested = facts["requested"]
    if facts["slot"] == "cpu":
        return f"{format_milli(requested)} {'core' if requested == DEVICE_SHARES else 'cores'}"
    if facts["slot"] == "mem":
        return f"{_bare(facts, 'requested')} of memory"
    if facts["slot"] == "kernels":
        return "an agent with fewer kernels"
    memory = facts["gpu_mem_bytes_min"]
    suffix = f" with at least {format_size(memory)}" if memory else ""
    if facts["slot"] == "gpu" and requested < DEVICE_SHARES:
        return f"{format_milli(requested)} of a GPU{suffix}"
    return f"{facts['devices']} {'GPU' if facts['devices'] == 1 else 'GPUs'}{suffix}"


def _has(facts: Facts) -> str:
    """What the agent has free, of how much."""
    if facts["slot"] == "gpu" and facts["requested"] < DEVICE_SHARES:
        return f"at most {format_milli(facts['best_free'])} of one free"
    return f"{_bare(facts, 'best_free')} of {_bare(facts, 'best_total')} free"


def _bare(facts: Facts, key: str) -> str:
    """The number alone; bytes in full where rounding would make two amounts look alike."""
    if facts["slot"] == "kernels":
        return str(facts[key])
    if facts["slot"] in {"cpu", "gpu"}:
        return format_milli(facts[key])
    if facts["slot"] == "gpu_mem":
        return f"{facts['devices']} with {format_size(facts[key])}"
    amounts = {facts[other] for other in _AMOUNTS if other in facts}
    if len({format_size(amount) for amount in amounts}) < len(amounts):
        return f"{facts[key]} bytes"
    return format_size(facts[key])


_AMOUNTS = ("requested", "best_free", "best_total", "largest")
_ALSO = {
    WaitReason.TOO_LITTLE_CPU.value: "too little cpu",
    WaitReason.TOO_LITTLE_MEM.value: "too little memory",
    WaitReason.TOO_FEW_GPUS.value: "too few GPUs",
    WaitReason.TOO_MANY_KERNELS.value: "as many kernels as it may",
}
_SENTENCES: Mapping[WaitReason, Callable[[Facts, float | None], str]] = {
    WaitReason.NOT_EXAMINED_YET: _not_examined,
    WaitReason.HELD: _held,
    WaitReason.BEGIN_TIME_NOT_REACHED: _begin,
    WaitReason.WAITING_FOR_DEPENDENCY: _dependency,
    WaitReason.ARRAY_LIMIT: _array_limit,
    WaitReason.WAITING_FOR_OLD_KERNELS: _old_kernels,
    WaitReason.WAITING_FOR_RETRY: _retry,
    WaitReason.NO_AGENTS: _no_agents,
    WaitReason.NEVER_FITS: _never,
    WaitReason.AGENT_NOT_ALIVE: _not_alive,
    WaitReason.AGENT_DRAINED: _drained,
    WaitReason.TOO_LITTLE_CPU: _short,
    WaitReason.TOO_LITTLE_MEM: _short,
    WaitReason.TOO_FEW_GPUS: _short,
    WaitReason.GPU_MEM_TOO_SMALL: _short,
    WaitReason.NOT_ALL_KERNELS_FIT: _not_all,
    WaitReason.TOO_MANY_KERNELS: _short,
    WaitReason.CONSTRAINT_NOT_MET: _unmet,
    WaitReason.AGENT_NOT_CHOSEN: _unmet,
    WaitReason.AGENT_EXCLUDED: _unmet,
    WaitReason.RESERVED_FOR_ANOTHER: _reserved,
    WaitReason.BEHIND_ANOTHER: _behind,
}
