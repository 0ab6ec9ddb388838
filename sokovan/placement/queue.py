"""The sessions of a group that wait, in lanes of equal demands, kept between passes.

Inside a lane nothing but the order tells sessions apart: when the first finds no room, none does.
So a pass looks at as many sessions as it places and as there are lanes, not at all that wait.
"""

import heapq
from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping

from sokovan.domain.cluster import ScalingGroup
from sokovan.domain.sessions import SessionId, SessionWithKernels
from sokovan.placement.needs import Demand, Demands
from sokovan.placement.order import ORDERS, effective_rank

Entry = tuple[int, int, SessionId, SessionWithKernels]
"""Minus the effective rank, the number (or minus that: last in, first out), and the session."""


class Lane:
    """Sessions of one demand (and of one owner, where the order asks for it), in order."""

    __slots__ = ("demand", "entries", "owner")

    def __init__(self, demand: Demand, owner: str) -> None:
        self.demand = demand
        self.owner = owner
        self.entries: list[Entry] = []


class Queue(Mapping[SessionId, SessionWithKernels]):
    """All PENDING sessions of a group by id.

    A session that may not be placed whatever is free (held, dependencies, a limit of its array) is
    `aside`; one whose time has not come (begin time, back-off) is aside until then.

    Attributes:
        version: Raised by whatever may change what the next pass does.
        news: Those that were put, or whose time came, since somebody took them off here.
        limited: Those with limits of their own.
    """

    def __init__(self, group: ScalingGroup) -> None:
        self._group = group
        self._order = ORDERS[group.order]
        self._sessions: dict[SessionId, SessionWithKernels] = {}
        self._demands = Demands()
        self._lanes: dict[tuple[Demand, str], Lane] = {}
        self._in_lane: dict[SessionId, tuple[Lane, Entry]] = {}
        self.aside: dict[SessionId, SessionWithKernels] = {}
        self._times: list[tuple[float, SessionId]] = []
        self._until: dict[SessionId, float] = {}
        self.news: set[SessionId] = set()
        self.limited: set[SessionId] = set()
        self.version = 1

    def __getitem__(self, session_id: SessionId) -> SessionWithKernels:
        return self._sessions[session_id]

    def __iter__(self) -> Iterator[SessionId]:
        return iter(self._sessions)

    def __len__(self) -> int:
        return len(self._sessions)

    def under(self, group: ScalingGroup) -> "Queue":
        """Return the same sessions in the order of another policy."""
        queue = Queue(group)
        for session_id, session in self._sessions.items():
            queue.put(session, self.until(session_id))
        queue.news = set(self.news)
        queue.version = self.version + 1
        return queue

    def put(self, session: SessionWithKernels, not_before: float = 0.0) -> None:
        """Take over a waiting session as it is now; it is aside until `not_before`."""
        session_id = session.session_id
        before = self._sessions.get(session_id)
        until = max(not_before, session.begin_at or 0.0)
        if before is session and self._until.get(session_id, 0.0) == until:
            return
        self.drop(session_id)
        self._sessions[session_id] = session
        self.news.add(session_id)
        if session.limits:
            self.limited.add(session_id)
        self.version += 1
        if until:
            self._until[session_id] = until
            heapq.heappush(self._times, (until, session_id))
            self.aside[session_id] = session
        elif _is_kept_back(session):
            self.aside[session_id] = session
        else:
            self._line_up(session)

    def drop(self, session_id: SessionId) -> None:
        """Forget a session; it need not be known."""
        session = self._sessions.pop(session_id, None)
        if session is None:
            return
        self.version += 1
        self.news.discard(session_id)
        self.limited.discard(session_id)
        self.aside.pop(session_id, None)
        self._until.pop(session_id, None)
        found = self._in_lane.pop(session_id, None)
        if found is None:
            return
        lane, entry = found
        del lane.entries[bisect_left(lane.entries, entry)]
        if not lane.entries:
            del self._lanes[lane.demand, lane.owner]
        self._demands.drop(session)

    def open_gates(self, now: float) -> None:
        """Line up the sessions whose time has come."""
        while self._times and self._times[0][0] <= now:
            until, session_id = heapq.heappop(self._times)
            if self._until.get(session_id) != until:
                continue  # it has changed since
            del self._until[session_id]
            self.news.add(session_id)
            session = self._sessions[session_id]
            if not _is_kept_back(session):
                del self.aside[session_id]
                self._line_up(session)
                self.version += 1

    def lanes(self) -> Iterator[Lane]:
        """Iterate over all lanes; each has a session."""
        return iter(self._lanes.values())

    def lane_of(self, session_id: SessionId) -> Lane | None:
        """Return the lane that a session is in; `None` for one that is aside."""
        found = self._in_lane.get(session_id)
        return found[0] if found else None

    def has_come(self, session_id: SessionId) -> bool:
        """Say whether a session is here and not backing off after a failed attempt."""
        session = self._sessions.get(session_id)
        return session is not None and self.until(session_id) <= (session.begin_at or 0.0)

    def until(self, session_id: SessionId) -> float:
        """Return until when a session is aside; 0 when no time is set."""
        return self._until.get(session_id, 0.0)

    def entry_of(self, session_id: SessionId) -> Entry | None:
        """Return a session's place in its lane."""
        found = self._in_lane.get(session_id)
        return found[1] if found else None

    def demand_of(self, session: SessionWithKernels) -> Demand:
        """Return the demand of those here that ask for the same, else a new one."""
        return self._demands.find(session)

    def lane_for(self, session: SessionWithKernels) -> Lane:
        """Return a lane of its own for a session, which need not be here, at its place.

        If it is here, this one comes right after it: no two entries are equal up to the id.
        """
        lane = Lane(self.demand_of(session), session.owner if self._order.by_owner else "")
        rank, number, session_id, _ = self._entry(session)
        lane.entries.append((rank, number, SessionId(f"{session_id}\0"), session))
        return lane

    def _line_up(self, session: SessionWithKernels) -> None:
        demand = self._demands.take(session)
        owner = session.owner if self._order.by_owner else ""
        lane = self._lanes.get((demand, owner))
        if lane is None:
            lane = self._lanes[demand, owner] = Lane(demand, owner)
        entry = self._entry(session)
        insort(lane.entries, entry, key=_place)
        self._in_lane[session.session_id] = lane, entry

    def _entry(self, session: SessionWithKernels) -> Entry:
        number = -session.number if self._order.newest_first else session.number
        rank = effective_rank(session, self._group.ageing_s)
        return -rank, number, session.session_id, session


def _is_kept_back(session: SessionWithKernels) -> bool:
    return bool(session.held or session.unmet or session.array_waits)


def _place(entry: Entry) -> tuple[int, int, SessionId]:
    return entry[:3]
