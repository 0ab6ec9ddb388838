"""Why a session waits, for people: one plain sentence, and the facts behind it."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from typing import Any

import numpy as np

from sokovan.domain.cluster import QueueOrder
from sokovan.domain.quantities import (
    DEVICE_SHARES,
    format_duration,
    format_milli,
    format_size,
)
from sokovan.domain.reasons import Wait, WaitReason
from sokovan.domain.sessions import AgentId, SessionId
from sokovan.placement.binding import AGENTS_NAMED_MAX, CODES, Looks, label
from sokovan.placement.engine import Pass, run
from sokovan.placement.order import ORDERS
from sokovan.placement.snapshot import Snapshot

HOLDERS_NAMED_MAX = 50
"""How many holders an explanation names at most."""

Facts = Mapping[str, Any]

# --- one sentence ---------------------------------------------------------------------------------


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

# --- the whole picture ----------------------------------------------------------------------------


def explain(snapshot: Snapshot, session_id: SessionId) -> dict[str, Any]:
    """Explain where a pending session stands, as a pass over `snapshot` would leave it. JSON-able.

    Returns:
        `session_id, code, sentence, facts`; `position` in the queue from 1 and who is `ahead`,
        `None` for a session that may not be placed whatever is free; `agents`, the closest first,
        with what each lacks, and `refused_by`, their number by reason; `drained_for`, the number
        of those that are drained, by what was said of it; `holders` of what it waits for. A session
        that the snapshot does not have is NOT_EXAMINED_YET.
    """
    done = run(snapshot)
    on = dict.fromkeys(
        label(done.machines.agents[row])
        for row in done.machines.rows_of(
            one.agent_id for one in done.plan.placed.get(session_id, ())
        )
    )
    unseen = Wait(WaitReason.NOT_EXAMINED_YET, {"agents": list(on)})
    wait = done.plan.waits.get(session_id, unseen)
    looks = _looks(done, session_id)
    rows = _closest_first(looks)
    holders = _holders(done, looks, rows)
    return {
        "session_id": session_id,
        "code": wait.code.value,
        "sentence": sentence(wait, now=snapshot.now),
        "facts": wait.facts,
        **_standing(done, session_id),
        "agents": [_agent(looks, row) for row in rows[:AGENTS_NAMED_MAX] if looks],
        "agents_total": len(rows),
        "refused_by": looks.counted() if looks else {},
        "drained_for": _drained_for(done, looks),
        "holders": holders[:HOLDERS_NAMED_MAX],
        "holders_total": len(holders),
    }


def _standing(done: Pass, session_id: SessionId) -> dict[str, Any]:
    """The place in the order in which the pass went through the queue."""
    queue = done.snapshot.queue
    mine = queue.entry_of(session_id)
    old = done.snapshot.waiting_for_old
    lined_up = len(queue) - len(queue.aside) - sum(queue.entry_of(i) is not None for i in old)
    if mine is None or session_id in old:
        return {"position": None, "ahead": None, "queue_length": lined_up}
    if ORDERS[done.group.order].by_owner:
        ahead = list(takewhile(lambda entry: entry[2] != session_id, done.in_order()))
    else:
        entries = (entry for lane in queue.lanes() for entry in lane.entries)
        ahead = [entry for entry in entries if entry[:3] < mine[:3]]
    ahead = [entry for entry in ahead if entry[2] not in old]
    higher = sum(entry[0] < mine[0] for entry in ahead)
    return {
        "position": len(ahead) + 1,
        "ahead": {
            "total": len(ahead),
            "by_higher_priority": higher,
            AHEAD_BY[done.group.order]: len(ahead) - higher,
        },
        "queue_length": lined_up,
    }


AHEAD_BY: Mapping[QueueOrder, str] = {
    QueueOrder.FIFO: "by_earlier_submission",
    QueueOrder.LIFO: "by_later_submission",
    QueueOrder.DRF: "by_smaller_share",
}
"""What puts one session before another of the same effective priority."""


def _looks(done: Pass, session_id: SessionId) -> Looks | None:
    """What each agent lacks for the kernel that found no place."""
    lane = done.snapshot.queue.lane_of(session_id)
    if lane is None or lane.demand.problem is not None or session_id in done.plan.placed:
        return None
    room = done.placer.room.copy()
    _, lacking = done.placer.beside(room).partly(lane.demand)
    return None if lacking is None else Looks(lacking, done.machines, room)


def _closest_first(looks: Looks | None) -> list[int]:
    if looks is None:
        return []
    order = np.lexsort((looks.distance, ~looks.serving, ~looks.able))
    return [int(row) for row in order]


def _drained_for(done: Pass, looks: Looks | None) -> dict[str, int]:
    agents = done.machines.agents if looks else []
    reasons = Counter(agent.drain_reason for agent in agents if agent.is_drained)
    return dict(sorted(reasons.items()))


def _agent(looks: Looks, row: int) -> dict[str, Any]:
    agent = looks.agent(row)
    lacks = []
    for slot in looks.short_on(row):
        requested, free, total = looks.numbers(slot, row)
        lacks.append(
            {
                "code": CODES[slot].value,
                "slot": slot,
                "requested": requested,
                "free": free,
                "total": total,
            }
        )
    return {
        "agent_id": agent.agent_id,
        "agent": label(agent),
        "status": agent.status.value,
        "drained": agent.is_drained,
        "code": looks.code_of(row).value,
        "lacks": lacks,
    }


def _holders(done: Pass, looks: Looks | None, rows: Sequence[int]) -> list[dict[str, Any]]:
    """Who holds the slots that are short on the agents that could take the kernel, until when."""
    if looks is None:
        return []
    wanted = {
        row: {"gpu" if slot == "gpu_mem" else slot for slot in looks.short_on(row)}
        for row in rows
        if looks.able[row] and looks.serving[row]
    }
    found: dict[tuple[str, str, bool], dict[str, Any]] = {}
    for hold in (*done.machines.holds.values(), *done.new_holds()):
        held = {
            "cpu": hold.cpu_milli,
            "mem": hold.mem_bytes,
            "gpu": sum(shares for _, shares in hold.devices),
            "kernels": 1,
        }
        agent_id = AgentId(hold.agent_id)
        row = done.machines.row_of.get(agent_id, -1)
        if not any(held[slot] for slot in wanted.get(row, ())):
            continue
        entry = found.setdefault(
            (hold.agent_id, hold.session_id, hold.is_leftover),
            {
                "session_id": hold.session_id,
                "agent_id": hold.agent_id,
                "agent": label(looks.agent(row)),
                "leftover": hold.is_leftover,
                "until": done.until(hold),
                "cpu_milli": 0,
                "mem_bytes": 0,
                "gpu_shares": 0,
            },
        )
        entry["cpu_milli"] += held["cpu"]
        entry["mem_bytes"] += held["mem"]
        entry["gpu_shares"] += held["gpu"]
    closest = {looks.agent(row).agent_id: place for place, row in enumerate(wanted)}
    return sorted(found.values(), key=lambda one: (closest[one["agent_id"]], one["session_id"]))
