"""Which of the sessions that wait a scheduling pass has news for: not all of them, every time."""

from collections.abc import Iterator, Mapping

from sokovan.domain.sessions import SessionId, SessionWithKernels
from sokovan.placement.engine import Plan, place
from sokovan.placement.snapshot import Snapshot
from sokovan.scheduler.settle import NotedWait
from sokovan.scheduler.stages import SCHEDULE_SESSIONS

NOTED_MAX = 500
"""So many waiting sessions at most are looked at for their history by one pass: writing lines must
not keep a session from starting."""
NOTED_EVERY_S = 5.0
"""The others follow after so long."""


class Waiting:
    """Remembers when all that wait are to be looked through.

    Attributes:
        again_at: Seconds since the epoch.
    """

    def __init__(self) -> None:
        self.again_at = float("-inf")

    def with_news(
        self, snapshot: Snapshot, noted: Mapping[SessionId, NotedWait], every_s: float
    ) -> list[SessionWithKernels]:
        """Return those that came in, changed or can be placed; at times, all with a new reason.

        Those with a limit on how long they may wait are always among them: the clock ends that.

        Args:
            snapshot: What a pass works on.
            noted: Why each waited so far.
            every_s: How often all are looked through.
        """
        plan = place(snapshot)
        queue = snapshot.queue
        ids = dict.fromkeys((*plan.placed, *sorted(queue.news | queue.limited)))
        if SCHEDULE_SESSIONS.name in snapshot.group.limits:
            ids |= dict.fromkeys(queue)
        queue.news.clear()
        if snapshot.now >= self.again_at:
            snapshot.memory.pop("pass", None)  # time alone may have moved a reservation
            plan = place(snapshot)
            found = list(_due(snapshot, plan, noted))
            ids |= dict.fromkeys((*plan.placed, *found[:NOTED_MAX]))
            pause_s = every_s if len(found) <= NOTED_MAX else min(every_s, NOTED_EVERY_S)
            self.again_at = snapshot.now + pause_s
        return [queue[session_id] for session_id in ids]


def _due(
    snapshot: Snapshot, plan: Plan, noted: Mapping[SessionId, NotedWait]
) -> Iterator[SessionId]:
    """Yield those whose reason has changed or is not in their history."""
    yield from plan.never_fits
    for lane in snapshot.queue.lanes():
        code = None
        for *_, session_id, session in lane.entries:
            if session_id in plan.placed:
                continue
            if session_id in snapshot.waiting_for_old:
                own = plan.waits[session_id].code
            else:
                own = code = code or plan.waits[session_id].code
            if _is_new(session, own, noted.get(session_id)):
                yield session_id
    for session_id, session in snapshot.queue.aside.items():
        if _is_new(session, plan.waits[session_id].code, noted.get(session_id)):
            yield session_id


def _is_new(session: SessionWithKernels, code: str, before: NotedWait | None) -> bool:
    return before is None or before.code != code or session.noted_reason != code
