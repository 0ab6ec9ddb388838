"""When a session should start: what is reserved for it, else an estimate, else why nobody knows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from sokovan.domain.cluster import Backfill
from sokovan.domain.quantities import format_duration
from sokovan.domain.reasons import Wait, WaitReason
from sokovan.domain.sessions import Assignment, SessionId, SessionWithKernels
from sokovan.placement.conservative import RESERVATIONS_MAX
from sokovan.placement.engine import Pass, run
from sokovan.placement.looks import label
from sokovan.placement.promises import Reservation
from sokovan.placement.sentences import sentence
from sokovan.placement.snapshot import Snapshot

AHEAD_MAX = RESERVATIONS_MAX
"""With more waiting sessions than this ahead of it, no start is estimated for a session."""
IF = "if nothing else comes in and all run to the end of their walltime"


def eta(snapshot: Snapshot, session_id: SessionId, done: Pass | None = None) -> dict[str, Any]:
    """Say when a waiting session should start. JSON-able.

    Args:
        snapshot: What is known.
        session_id: The session.
        done: A pass over it; left out, the last one, or a new one if something has changed since.

    Returns:
        `starts_at` and `ends_at` in seconds since the epoch and `agents`, `None` and empty when it
        is not known; `reserved`, whether that is kept free for it, or only an estimate;
        `not_before`, for one that asked to begin later; and all that in one `sentence`.
    """
    done = run(snapshot) if done is None else done
    now = snapshot.now
    session = snapshot.queue.get(session_id)
    wait = done.plan.waits.get(session_id)
    if session is None:
        return unknown("it has not been looked at yet")
    if wait is None:
        return unknown("") | {"starts_at": now, "sentence": "is about to start"}
    if wait.code is WaitReason.BEGIN_TIME_NOT_REACHED:
        return unknown(f"it {sentence(wait, now=now)}") | {"not_before": session.begin_at}
    if wait.code is WaitReason.NEVER_FITS or snapshot.queue.lane_of(session_id) is None:
        return unknown(f"it {sentence(wait, now=now)}")
    kept = _reserved(done, session_id)
    if kept is not None:
        when = _when(kept.starts_at, now)
        said = f"is to start {when}: what it needs is reserved for it then, and may be earlier"
        return told(kept, done) | {"reserved": True, "not_before": None, "sentence": said}
    return _estimate(snapshot, session, done)


@dataclass(frozen=True, slots=True)
class Turn:
    """A waiting session, and when it should start."""

    session: SessionWithKernels
    position: int | None
    """In the queue, from 1 on; `None` for one that may not be placed whatever is free."""
    starts_at: float | None
    reserved: bool
    """Whether what it needs is kept free for it, or the start is an estimate."""


def turns(snapshot: Snapshot, count: int) -> list[Turn]:
    """Tell whose turn comes next, the first `count`, and then of those who stand aside."""
    done = run(snapshot)
    skipped = {*done.placed, *snapshot.waiting_for_old}
    entries = (entry[3] for entry in done.in_order() if entry[2] not in skipped)
    line = list(islice(entries, count))
    starts: dict[SessionId, tuple[float, bool]] = {}
    able = [session for session in line if session.session_id not in done.plan.never_fits]
    if able:
        _, kept = _forecast(snapshot, able[:-1], able[-1])
        starts = {session_id: (one.starts_at, False) for session_id, one in kept.items()}
    if done.reserves:
        done.reserve_all()
        starts |= {i: (one.starts_at, True) for i, one in done.reservations.items()}
    aside = islice(snapshot.queue.aside.values(), count - len(line))
    places: list[tuple[int | None, SessionWithKernels]] = [*enumerate(line, 1)]
    places += [(None, session) for session in aside]
    found = []
    for position, session in places:
        at, reserved = starts.get(session.session_id, (None, False))
        found.append(Turn(session, position, at, reserved))
    return found


def unknown(why: str) -> dict[str, Any]:
    """Say that no start is known, and why."""
    return {
        "starts_at": None,
        "ends_at": None,
        "agents": [],
        "reserved": False,
        "not_before": None,
        "sentence": f"not known: {why}",
    }


def reservation(done: Pass, session_id: SessionId, wait: Wait | None) -> dict[str, Any]:
    """Tell what is reserved for a session, if anything is, and why. JSON-able."""
    kept = None
    if wait is not None and done.snapshot.queue.lane_of(session_id) is not None:
        kept = _reserved(done, session_id)
    if kept is None:
        return {"reservation": None, "reservation_because": _why_none(done, session_id, wait)}
    because = "every session that finds no room has one"
    if done.group.backfill is Backfill.EASY:
        because = "it is the first in the queue that finds no room"
    return {"reservation": told(kept, done), "reservation_because": because}


def told(kept: Reservation, done: Pass) -> dict[str, Any]:
    """Tell when and where a session is to start. JSON-able."""
    return {
        "starts_at": kept.starts_at,
        "ends_at": kept.ends_at,
        "agents": on_agents(kept.assignment, done),
    }


def on_agents(assignment: Assignment, done: Pass) -> list[dict[str, Any]]:
    """Tell where each kernel goes. JSON-able."""
    agents, row_of = done.machines.agents, done.machines.row_of
    return [
        {
            "agent_id": one.agent_id,
            "agent": label(agents[row_of[one.agent_id]]),
            "devices": [list(pair) for pair in one.devices],
        }
        for one in assignment
    ]


def _reserved(done: Pass, session_id: SessionId) -> Reservation | None:
    if not (done.reserves and _is_tried(done, session_id)):
        return None
    done.reserve_all()
    return done.reservations.get(session_id)


def _is_tried(done: Pass, session_id: SessionId) -> bool:
    """Whether a reservation is sought for a session, should nobody ahead of it find one."""
    return any(session.session_id == session_id for session in done.bookings.blocked)


def _why_none(done: Pass, session_id: SessionId, wait: Wait | None) -> str:
    if wait is None:
        return "it need not wait"
    if wait.code is WaitReason.NEVER_FITS:
        return "it can never start here"
    queue, old = done.snapshot.queue, done.snapshot.waiting_for_old
    if queue.lane_of(session_id) is None or session_id in old:
        return "it may not be placed yet"
    if done.group.backfill is Backfill.NONE:
        return "nothing is reserved in this group: whoever fits starts"
    if done.group.backfill is Backfill.STRICT:
        return "nothing need be reserved in this group: nobody overtakes"
    easy = done.group.backfill is Backfill.EASY
    if _is_tried(done, session_id) and not (easy and done.reservations):
        return "it waits for something that no running session will release"
    if easy:
        return "only the first in the queue that finds no room has one in this group"
    return f"only the first {RESERVATIONS_MAX} that find no room have one"


def _estimate(snapshot: Snapshot, session: SessionWithKernels, done: Pass) -> dict[str, Any]:
    ahead = _ahead(done, session)
    if len(ahead) > AHEAD_MAX:
        return unknown(f"more than {AHEAD_MAX} sessions that wait are ahead of it")
    plan, kept = _forecast(snapshot, ahead, session)
    mine = kept.get(session.session_id)
    if mine is None:
        if plan.group.backfill is Backfill.STRICT:
            for other in ahead:
                if other.session_id not in kept:
                    return unknown(f"{other.session_id}, which is ahead of it, may never start")
        return unknown("what it waits for is released by no session that runs")
    about = _when(mine.starts_at, snapshot.now).replace("in ", "in about ")
    said = f"{about}, {IF}: an estimate, nothing is reserved for it"
    return told(mine, plan) | {"reserved": False, "not_before": None, "sentence": said}


def _forecast(
    snapshot: Snapshot, ahead: Sequence[SessionWithKernels], session: SessionWithKernels
) -> tuple[Pass, Mapping[SessionId, Reservation]]:
    """Plan as if every session up to this one had a reservation, in order; tell those."""
    strict = snapshot.group.backfill is Backfill.STRICT
    policy = Backfill.STRICT if strict else Backfill.CONSERVATIVE
    apart = snapshot.apart(group=replace(snapshot.group, backfill=policy), promises={})
    plan = Pass(apart, session)
    plan.run()
    plan.reserve_all()
    not_before = snapshot.now
    demand_of, reserve_next = snapshot.queue.demand_of, plan.bookings.reserve_next
    kept = dict(plan.reservations)
    for other in ahead if strict else ():  # nobody overtakes: each starts after the one before it
        found = kept.get(other.session_id)
        found = found or reserve_next(other, demand_of(other), not_before)
        if found is None:
            return plan, kept
        kept[other.session_id] = found
        not_before = found.starts_at
    mine = reserve_next(session, demand_of(session), not_before)
    if mine is not None:
        kept[session.session_id] = mine
    return plan, kept


def _when(starts_at: float, now: float) -> str:
    if starts_at <= now:  # who is late may end at any moment
        return "at any moment"
    return f"in {format_duration(starts_at - now)}"


def _ahead(done: Pass, session: SessionWithKernels) -> list[SessionWithKernels]:
    """Those that wait for room before it, one more than `AHEAD_MAX` at most."""
    skipped = {*done.placed, *done.plan.never_fits, *done.snapshot.waiting_for_old}
    found: list[SessionWithKernels] = []
    for *_, session_id, other in done.in_order():
        if session_id == session.session_id:
            break
        if session_id not in skipped:
            found.append(other)
            if len(found) > AHEAD_MAX:
                break
    return found
