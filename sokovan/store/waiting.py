"""Which of the sessions that wait a scheduling pass has news for: not all of them, every time."""

from collections import deque
from collections.abc import Iterator, Mapping
from itertools import islice
from math import inf

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
    """Remembers which of those that wait are to be looked at again, and when.

    Attributes:
        again_at: Seconds since the epoch: when the next ones are.
    """

    def __init__(self) -> None:
        self.again_at = float("-inf")
        self._all_at = float("-inf")
        """When all that wait are to be looked through."""
        self._more_at = float("-inf")
        """Before then, nobody is taken off the list: the last ones were many."""
        self._again: deque[tuple[float, SessionId]] = deque()
        """Those with news, a full cycle later: their reason has held for so long, or they never
        fit and another attempt counts."""

    def with_news(
        self, snapshot: Snapshot, noted: Mapping[SessionId, NotedWait], every_s: float
    ) -> list[SessionWithKernels]:
        """Return those that came in, changed or can be placed; at times, all with a new reason.

        Those with a limit on how long they may wait are always among them: the clock ends that.

        Args:
            snapshot: What a pass works on.
            noted: Why each waited so far.
            every_s: How long a full cycle is.
        """
        now, queue = snapshot.now, snapshot.queue
        plan = place(snapshot)
        limited = queue if SCHEDULE_SESSIONS.name in snapshot.group.limits else queue.limited
        news = dict.fromkeys((*plan.placed, *sorted(queue.news)))
        queue.news.clear()
        if now >= self._all_at:
            snapshot.memory.pop("pass", None)  # time alone may have moved a reservation
            plan = place(snapshot)
            changed = list(islice(_changed(snapshot, plan, noted), NOTED_MAX))
            news |= dict.fromkeys((*plan.placed, *changed))
            self._all_at = now + (NOTED_EVERY_S if len(changed) == NOTED_MAX else every_s)
        due = self._due(snapshot, plan)
        repeated = (i for i in due if i in plan.never_fits)
        self._again.extend((now + every_s, i) for i in (*news, *repeated))
        if len(due) == NOTED_MAX:
            self._more_at = now + NOTED_EVERY_S
        first = max(self._again[0][0], self._more_at) if self._again else inf
        self.again_at = min(self._all_at, first)
        return [queue[i] for i in news | dict.fromkeys((*due, *sorted(limited)))]

    def _due(self, snapshot: Snapshot, plan: Plan) -> list[SessionId]:
        """Take those off the list whose time has come, some at a time."""
        due: list[SessionId] = []
        if snapshot.now < self._more_at:
            return due
        while self._again and self._again[0][0] <= snapshot.now and len(due) < NOTED_MAX:
            _, session_id = self._again.popleft()
            if session_id in snapshot.queue and session_id not in plan.placed:
                due.append(session_id)
        return due


def _changed(
    snapshot: Snapshot, plan: Plan, noted: Mapping[SessionId, NotedWait]
) -> Iterator[SessionId]:
    """Yield those who wait for another reason than was noted."""
    for lane in snapshot.queue.lanes():
        code = None
        for *_, session_id, _ in lane.entries:
            if session_id in plan.placed:
                continue
            if session_id in snapshot.waiting_for_old:
                own = plan.waits[session_id].code
            else:
                own = code = code or plan.waits[session_id].code
            before = noted.get(session_id)
            if before is None or before.code != own:
                yield session_id
    for session_id in snapshot.queue.aside:
        before = noted.get(session_id)
        if before is None or before.code != plan.waits[session_id].code:
            yield session_id
