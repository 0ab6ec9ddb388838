"""Why a session waits, for people: one plain sentence, and the facts behind it."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sokovan.domain.quantities import (
    DEVICE_SHARES,
    format_duration,
    format_milli,
    format_size,
)
from sokovan.domain.reasons import Wait, WaitReason
from sokovan.domain.resources import Hold, Request
from sokovan.domain.sessions import AgentId, SessionId
from sokovan.placement.admit import admission
from sokovan.placement.binding import AGENTS_NAMED_MAX, Look, label, look, refused_by
from sokovan.placement.engine import Pass, Plan, Refused
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


def _not_all(facts: Facts, now: float | None) -> str:
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


def _asked(facts: Facts) -> str:
    """The requested amount with what it is an amount of."""
    requested = facts["requested"]
    if facts["slot"] == "cpu":
        return f"{format_milli(requested)} {'core' if requested == DEVICE_SHARES else 'cores'}"
    if facts["slot"] == "mem":
        return f"{_bare(facts, 'requested')} of memory"
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
    done = Pass(snapshot)
    plan = done.run()
    names = {agent.agent_id: label(agent) for agent in snapshot.agents}
    on = dict.fromkeys(names[one.agent_id] for one in plan.placed.get(session_id, ()))
    unseen = Wait(WaitReason.NOT_EXAMINED_YET, {"agents": list(on)})
    wait = plan.waits.get(session_id, unseen)
    refused = next((r for r in done.refused.values() if session_id in r.session_ids), None)
    looks = _looks(done, refused)
    holders = _holders(snapshot, plan, looks)
    return {
        "session_id": session_id,
        "code": wait.code.value,
        "sentence": sentence(wait, now=snapshot.now),
        "facts": wait.facts,
        **_standing(snapshot, session_id),
        "agents": [_agent(one) for one in looks[:AGENTS_NAMED_MAX]],
        "agents_total": len(looks),
        "refused_by": refused_by(looks),
        "drained_for": _drained_for(looks),
        "holders": holders[:HOLDERS_NAMED_MAX],
        "holders_total": len(holders),
    }


def _standing(snapshot: Snapshot, session_id: SessionId) -> dict[str, Any]:
    queue = [
        one for one in ORDERS[snapshot.group.order](snapshot) if admission(one, snapshot) is None
    ]
    ids = [one.session_id for one in queue]
    if session_id not in ids:
        return {"position": None, "ahead": None, "queue_length": len(queue)}
    ahead = queue[: ids.index(session_id)]
    higher = sum(one.priority > queue[len(ahead)].priority for one in ahead)
    return {
        "position": len(ahead) + 1,
        "ahead": {
            "total": len(ahead),
            "by_higher_priority": higher,
            "by_earlier_submission": len(ahead) - higher,
        },
        "queue_length": len(queue),
    }


def _looks(done: Pass, refused: Refused | None) -> tuple[Look, ...]:
    """What each agent lacks for the kernel that found no place, the closest first."""
    if refused is None or refused.packing is None or refused.packing.lacking is None:
        return ()
    packing = refused.packing
    looks = look(refused.packing.lacking, done.agents, {**done.free, **packing.free})
    return tuple(sorted(looks, key=lambda one: (not one.able, not one.takes_kernels, one.distance)))


def _drained_for(looks: Sequence[Look]) -> dict[str, int]:
    reasons = Counter(one.agent.drain_reason for one in looks if one.agent.is_drained)
    return dict(sorted(reasons.items()))


def _agent(one: Look) -> dict[str, Any]:
    return {
        "agent_id": one.agent.agent_id,
        "agent": label(one.agent),
        "status": one.agent.status.value,
        "drained": one.agent.is_drained,
        "code": one.refusal.code.value,
        "lacks": [
            {
                "code": refusal.code.value,
                "slot": refusal.slot,
                "requested": refusal.requested,
                "free": refusal.free,
                "total": refusal.total,
            }
            for refusal in one.short
        ],
    }


def _holders(snapshot: Snapshot, plan: Plan, looks: Sequence[Look]) -> list[dict[str, Any]]:
    """Who holds the slots that are short on the agents that could take the kernel."""
    wanted = {
        one.agent.agent_id: {"gpu" if r.slot == "gpu_mem" else r.slot for r in one.short}
        for one in looks
        if one.able and one.takes_kernels
    }
    names = {one.agent.agent_id: label(one.agent) for one in looks}
    found: dict[tuple[str, str, bool], dict[str, Any]] = {}
    for hold in (*snapshot.holds, *_new_holds(snapshot, plan)):
        held = {
            "cpu": hold.cpu_milli,
            "mem": hold.mem_bytes,
            "gpu": sum(shares for _, shares in hold.devices),
        }
        agent_id = AgentId(hold.agent_id)
        if not any(held[slot] for slot in wanted.get(agent_id, ())):
            continue
        entry = found.setdefault(
            (hold.agent_id, hold.session_id, hold.is_leftover),
            {
                "session_id": hold.session_id,
                "agent_id": hold.agent_id,
                "agent": names[agent_id],
                "leftover": hold.is_leftover,
                "cpu_milli": 0,
                "mem_bytes": 0,
                "gpu_shares": 0,
            },
        )
        entry["cpu_milli"] += held["cpu"]
        entry["mem_bytes"] += held["mem"]
        entry["gpu_shares"] += held["gpu"]
    closest = {agent_id: place for place, agent_id in enumerate(wanted)}
    return sorted(found.values(), key=lambda one: (closest[one["agent_id"]], one["session_id"]))


def _new_holds(snapshot: Snapshot, plan: Plan) -> list[Hold]:
    """What the sessions that this pass places will hold."""
    requests: dict[str, Request] = {
        kernel.kernel_id: kernel.request
        for session in snapshot.pending
        if session.session_id in plan.placed
        for kernel in session.kernels
    }
    return [
        Hold(
            token="",
            session_id=session_id,
            kernel_id=one.kernel_id,
            agent_id=one.agent_id,
            cpu_milli=requests[one.kernel_id].cpu_milli,
            mem_bytes=requests[one.kernel_id].mem_bytes,
            devices=one.devices,
        )
        for session_id, assignment in plan.placed.items()
        for one in assignment
    ]
