"""The whole picture of a session that waits, for people: where it stands, who is in its way."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from heapq import nsmallest
from itertools import takewhile
from typing import Any

import numpy as np

from sokovan.domain.cluster import QueueOrder
from sokovan.domain.reasons import Wait, WaitReason
from sokovan.domain.sessions import SessionId
from sokovan.placement.engine import Pass, run
from sokovan.placement.eta import reservation
from sokovan.placement.kinds import KINDS_NAMED_MAX, agents_told, kinds_of, kinds_told
from sokovan.placement.looks import AGENTS_NAMED_MAX, REASONS, Looks, label
from sokovan.placement.order import ORDERS
from sokovan.placement.queue import Entry
from sokovan.placement.sentences import sentence
from sokovan.placement.snapshot import Snapshot

HOLDERS_NAMED_MAX = 50
"""How many holders an explanation names at most."""
HELD_AGENTS_MAX = 50
"""On so many agents, those that come closest, are holders looked for."""
AHEAD_NAMED_MAX = 5
"""How many of those ahead are named, the first ones."""


def explain(snapshot: Snapshot, session_id: SessionId, done: Pass | None = None) -> dict[str, Any]:
    """Explain where a pending session stands, as a pass over `snapshot` leaves it. JSON-able.

    Args:
        snapshot: What is known.
        session_id: Whom to explain.
        done: The pass; left out, the last one, or a new one if something has changed since.

    Returns:
        `session_id, code, sentence, facts`; `examined` and why not; `position` in the queue from 1
        and who is `ahead`, `None` for a session that may not be placed whatever is free;
        `agents`, the closest first, with what each lacks, `refused_by`, their number by reason,
        and the same by `kinds`; `drained_for`, the number of those that are drained, by what was
        said of it; `holders` of what it waits for, and until when; its `reservation`. A session
        that the snapshot does not have is NOT_EXAMINED_YET.
    """
    done = run(snapshot) if done is None else done
    found = done.plan.waits.get(session_id)
    wait = found or _unseen(done, session_id)
    looks = _looks(done, session_id)
    rows = _closest_first(looks)
    holders = _holders(done, looks, rows)
    return {
        "session_id": session_id,
        "code": wait.code.value,
        "sentence": sentence(wait, now=snapshot.now),
        "facts": wait.facts,
        **_examined(done, session_id, wait),
        **place_in_queue(done, session_id),
        "agents": agents_told(looks, rows[:AGENTS_NAMED_MAX]) if looks else [],
        "agents_total": len(rows),
        "refused_by": looks.counted() if looks else {},
        **_kinds(done, session_id, looks, wait),
        "drained_for": _drained_for(done, looks),
        "holders": holders[:HOLDERS_NAMED_MAX],
        "holders_total": len(holders),
        **reservation(done, session_id, found),
    }


def _unseen(done: Pass, session_id: SessionId) -> Wait:
    placed = done.plan.placed.get(session_id, ())
    rows = done.machines.rows_of(one.agent_id for one in placed)
    on = dict.fromkeys(label(done.machines.agents[row]) for row in rows)
    return Wait(WaitReason.NOT_EXAMINED_YET, {"agents": list(on)})


def _examined(done: Pass, session_id: SessionId, wait: Wait) -> dict[str, Any]:
    """Say whether the pass compared the session, or one that asks for the same, with the agents."""
    if wait.code is WaitReason.BEHIND_ANOTHER:
        because = (
            f"the pass ended at {wait.facts['session_id']}, which is ahead of it and finds no room"
        )
    elif wait.code is WaitReason.NOT_EXAMINED_YET and session_id not in done.placed:
        because = "it came in after the pass began"
    elif session_id in {*done.snapshot.queue.aside, *done.snapshot.waiting_for_old}:
        because = "it may not be placed yet, whatever is free"
    else:
        return {"examined": True, "not_examined_because": None}
    return {"examined": False, "not_examined_because": because}


# --- its place ------------------------------------------------------------------------------------


def place_in_queue(done: Pass, session_id: SessionId) -> dict[str, Any]:
    """Tell a session's place in the order in which the pass went through the queue. JSON-able."""
    queue = done.snapshot.queue
    mine = queue.entry_of(session_id)
    lined_up = len(queue) - len(queue.aside) - sum(1 for _ in _set_apart(done))
    if mine is None or session_id in done.snapshot.waiting_for_old:
        return {"position": None, "ahead": None, "ahead_first": [], "queue_length": lined_up}
    if done.placed and ORDERS[done.group.order].by_owner:
        total, higher, first = _ahead_by_walking(done, mine)
    else:
        total, higher, first = _ahead_by_lane(done, mine)
    apart = [entry for entry in _set_apart(done) if _is_ahead(done, entry, mine)]
    total -= len(apart)
    higher -= sum(entry[0] < mine[0] for entry in apart)
    by = AHEAD_BY[done.group.order]
    return {
        "position": total + 1,
        "ahead": {"total": total, "by_higher_priority": higher, by: total - higher},
        "ahead_first": [
            {
                "session_id": entry[2],
                "name": entry[3].name,
                "priority": entry[3].priority,
                "by": "by_higher_priority" if entry[0] < mine[0] else by,
            }
            for entry in first
            if entry[2] not in done.snapshot.waiting_for_old
        ][:AHEAD_NAMED_MAX],
        "queue_length": lined_up,
    }


AHEAD_BY: Mapping[QueueOrder, str] = {
    QueueOrder.FIFO: "by_earlier_submission",
    QueueOrder.LIFO: "by_later_submission",
    QueueOrder.DRF: "by_smaller_share",
}
"""What puts one session before another of the same effective priority."""


def _set_apart(done: Pass) -> Iterator[Entry]:
    """Those that stand in lanes, but may not be placed: their old kernels may still run."""
    entries = map(done.snapshot.queue.entry_of, done.snapshot.waiting_for_old)
    return (entry for entry in entries if entry is not None)


def _is_ahead(done: Pass, entry: Entry, mine: Entry) -> bool:
    return _rank(done, entry) < _rank(done, mine)


def _rank(done: Pass, entry: Entry) -> tuple[Any, ...]:
    if not ORDERS[done.group.order].by_owner:
        return entry[:3]
    return entry[0], done.shares.dominant(entry[3].owner), *entry[1:3]


def _ahead_by_lane(done: Pass, mine: Entry) -> tuple[int, int, list[Entry]]:
    """Count who is ahead, and by priority, without looking at all of them; name the first."""
    by_owner = ORDERS[done.group.order].by_owner
    shares: dict[str, Any] = {}
    share = done.shares.dominant(mine[3].owner) if by_owner else 0
    total = higher = 0
    heads: list[tuple[Any, ...]] = []
    for lane in done.snapshot.queue.lanes():
        before: tuple[Any, ...] = mine[:3]
        other = share
        if by_owner:
            if lane.owner not in shares:
                shares[lane.owner] = done.shares.dominant(lane.owner)
            other = shares[lane.owner]
            if other != share:
                before = (mine[0] + 1,) if other < share else (mine[0],)
        entries = lane.entries
        if entries[0] < before:
            total += bisect_left(entries, before)
            higher += bisect_left(entries, (mine[0],))
            rank, number, session_id, _ = entries[0]
            heads.append((rank, other, number, session_id, lane))
    # The first ones are in the lanes whose heads come first, at most one of each before another's.
    lanes = [head[-1] for head in nsmallest(FIRST, heads)]
    first = [entry for lane in lanes for entry in lane.entries[:FIRST] if entry[2] != mine[2]]
    first = [entry for entry in first if _is_ahead(done, entry, mine)]
    return total, higher, nsmallest(FIRST, first, key=lambda entry: _rank(done, entry))


FIRST = 2 * AHEAD_NAMED_MAX
"""Some of the first may not be placed at all."""


def _ahead_by_walking(done: Pass, mine: Entry) -> tuple[int, int, list[Entry]]:
    """The same where shares have changed during the pass, because it placed some."""
    ahead = list(takewhile(lambda entry: entry[2] != mine[2], done.in_order()))
    return len(ahead), sum(entry[0] < mine[0] for entry in ahead), ahead[:FIRST]


# --- the agents -----------------------------------------------------------------------------------


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
    rows: list[int] = order.tolist()
    return rows


def _kinds(done: Pass, session_id: SessionId, looks: Looks | None, wait: Wait) -> dict[str, Any]:
    """The agents by kind; those that have room are refused where that is reserved for another."""
    lane = done.snapshot.queue.lane_of(session_id)
    is_reserved = wait.code is WaitReason.RESERVED_FOR_ANOTHER
    if looks is None and is_reserved and lane is not None:
        looks = Looks(lane.demand.needs[0], done.machines, done.placer.room)
    if looks is None or not done.machines.agents:
        return {"kinds": [], "kinds_total": 0}
    codes = looks.codes()
    if is_reserved:
        codes[codes < 0] = REASONS.index(WaitReason.RESERVED_FOR_ANOTHER)
    kinds = kinds_of(done.snapshot)
    told = kinds_told(looks, codes, kinds)
    total = len(told) if len(told) < KINDS_NAMED_MAX else len(np.unique(kinds))
    return {"kinds": told, "kinds_total": total}


def _drained_for(done: Pass, looks: Looks | None) -> dict[str, int]:
    if looks is None:
        return {}
    out = (looks.agent(row) for row in np.flatnonzero(~looks.serving).tolist())
    return dict(sorted(Counter(a.drain_reason for a in out if a.is_drained).items()))


# --- what it waits for ----------------------------------------------------------------------------


def _holders(done: Pass, looks: Looks | None, rows: Sequence[int]) -> list[dict[str, Any]]:
    """Who holds the slots that are short on the closest agents that could take it, until when."""
    if looks is None:
        return []
    could = [row for row in rows[:HELD_AGENTS_MAX] if looks.able[row] and looks.serving[row]]
    wanted: dict[str, set[str]] = {
        looks.agent(row).agent_id: {"gpu" if s == "gpu_mem" else s for s in looks.short_on(row)}
        for row in could
    }
    names: dict[str, str] = {looks.agent(row).agent_id: label(looks.agent(row)) for row in could}
    found: dict[tuple[str, str, bool], dict[str, Any]] = {}
    holds = [hold for hold in done.machines.holds.values() if hold.agent_id in wanted]
    holds += [hold for hold in done.new_holds() if hold.agent_id in wanted]
    for hold in holds:
        held = {
            "cpu": hold.cpu_milli,
            "mem": hold.mem_bytes,
            "gpu": sum(shares for _, shares in hold.devices),
            "kernels": 1,
        }
        if not any(held[slot] for slot in wanted[hold.agent_id]):
            continue
        entry = found.setdefault(
            (hold.agent_id, hold.session_id, hold.is_leftover),
            {
                "session_id": hold.session_id,
                "agent_id": hold.agent_id,
                "agent": names[hold.agent_id],
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
    closest = {agent_id: place for place, agent_id in enumerate(wanted)}
    return sorted(found.values(), key=lambda one: (closest[one["agent_id"]], one["session_id"]))
