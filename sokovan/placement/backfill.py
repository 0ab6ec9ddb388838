"""Reservations: what a blocked session will use and when, and who may start before it.

Time is a list of moments from now on, each with what will be free then: a release when a running
session should end, a reservation taken out for as long as it lasts. Whoever is to start now may use
the least that is free at any moment before its own end. So it never delays a reservation, on any
slot and any device; what a reservation does not need may be used without regard to it.

Source of the idea: Lifka, "The ANL/IBM SP Scheduling System", 1995 (EASY); Mu'alem and Feitelson,
"Utilization, Predictability, Workloads, and User Runtime Estimates", 2001 (conservative).
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from sokovan.domain.cluster import ScalingGroup
from sokovan.domain.resources import DeviceShares, Hold
from sokovan.domain.sessions import Assignment, SessionId, SessionWithKernels
from sokovan.domain.statuses import SessionStatus
from sokovan.placement.fit import Placer, Places
from sokovan.placement.machines import Machines, Room, smaller
from sokovan.placement.needs import Demand

MOMENTS_MAX = 64
"""With more, `conservative` leaves some out: a release then counts late, never early."""
RESERVATIONS_MAX = 100
"""Under `conservative`, so many blocked sessions have a reservation; those behind have none yet."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """What a blocked session will use, and when.

    Attributes:
        starts_at: Seconds since the epoch; when all that it waits for should have ended.
        ends_at: When it should end itself.
        assignment: The agents and devices that it will use.
    """

    session_id: SessionId
    starts_at: float
    ends_at: float
    assignment: Assignment


def walltime_of(session: SessionWithKernels, group: ScalingGroup) -> float:
    """Return how long a session is expected to run, in seconds."""
    return group.walltime_default_s if session.walltime_s is None else session.walltime_s


def expected_end(session: SessionWithKernels, group: ScalingGroup, now: float) -> float:
    """Return when a session on agents should end; one that is late may end at any moment."""
    if session.status is SessionStatus.TERMINATING:
        return now + session.grace_s
    since = session.started_at if session.started_at is not None else session.status_since
    return max(now, since + walltime_of(session, group))


def held_until(
    hold: Hold, session: SessionWithKernels | None, group: ScalingGroup, now: float
) -> float:
    """Say when a hold should be released; a leftover, when its agent's grace has passed."""
    if session is None or hold.is_leftover:
        return max(now, (hold.leftover_since or now) + group.agent_grace_s)
    return expected_end(session, group, now)


Release = tuple[float, int, int, int, DeviceShares]
"""When, on which row, milli-cores, bytes, positions and shares that should be free again."""


def releases_of(
    machines: Machines,
    sessions: Mapping[SessionId, SessionWithKernels],
    group: ScalingGroup,
    now: float,
) -> "Releases":
    """Say what all that is held should release, and when."""
    found: list[Release] = []
    for hold in machines.holds.values():
        row = machines.row_of.get(hold.agent_id)  # type: ignore[call-overload]
        if row is not None:
            at = held_until(hold, sessions.get(hold.session_id), group, now)  # type: ignore[call-overload]
            devices = machines.positions_of(row, hold.devices) if hold.devices else ()
            found.append((at, row, hold.cpu_milli, hold.mem_bytes, devices))
    return Releases(found)


class Releases:
    """Releases in order of time, as arrays."""

    def __init__(self, releases: Iterable[Release]) -> None:
        at, rows, cpu, mem, devices = tuple(zip(*releases, strict=True)) or ((),) * 5
        self._times = np.array(at, np.float64)
        self._amounts = np.array([rows, cpu, mem], np.int64)
        self._count = np.array([len(of_one) for of_one in devices], np.int64)
        self._parts = np.array([pair for of_one in devices for pair in of_one], np.int64)
        self._parts = self._parts.reshape(-1, 2)
        self._sort()

    def plus(self, releases: Iterable[Release]) -> "Releases":
        """Return these and some more."""
        both, more = Releases(()), Releases(releases)
        both._times = np.concatenate([self._times, more._times])
        both._amounts = np.concatenate([self._amounts, more._amounts], axis=1)
        both._count = np.concatenate([self._count, more._count])
        both._parts = np.concatenate([self._parts, more._parts])
        both._sort()
        return both

    def _sort(self) -> None:
        order = np.argsort(self._times, kind="stable")
        whose = np.repeat(np.arange(len(order)), self._count)
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        self._times, self._amounts = self._times[order], self._amounts[:, order]
        self._count, self._parts = (
            self._count[order],
            self._parts[np.argsort(place[whose], kind="stable")],
        )
        self.moments: list[float] = np.unique(self._times).tolist()

    def until(self, at: float, room: Room) -> Room:
        """Return `room` with all that should be released by then."""
        count = int(np.searchsorted(self._times, at, side="right"))
        rows, amounts = self._amounts[0, :count], self._amounts[:, :count]
        cpu, mem, shares = room.cpu.copy(), room.mem.copy(), room.shares.copy()
        kernels = room.kernels.copy()
        np.add.at(cpu, rows, amounts[1])
        np.add.at(mem, rows, amounts[2])
        np.add.at(kernels, rows, -1)
        held = self._count[:count]
        parts = self._parts[: held.sum()]
        np.add.at(shares, (np.repeat(rows, held), parts[:, 0]), parts[:, 1])
        return Room(cpu, mem, shares, kernels)


MakePlacer = Callable[[Room], Placer]


class Profile:
    """What is free from now on, moment by moment, with the reservations taken out.

    Args:
        now: The first moment.
        placer: Of the room that is free now; what it takes must be said to `started`.
        releases: What should be released, what this pass has placed included.
        placer_of: Makes a placer for another room.
    """

    def __init__(
        self, now: float, placer: Placer, releases: Releases, placer_of: MakePlacer
    ) -> None:
        self._now = placer
        self._placer_of = placer_of
        self._releases = releases
        self._moments: list[float] = [now]
        self._rooms: list[Room] = [placer.room]
        self._limits: dict[int, Placer] = {}

    # --- who may start now ------------------------------------------------------------------------

    def limited(self, ends_at: float) -> Placer:
        """Return the placer for a session that would start now and end then.

        What it takes is taken from its own room only: `started` says so to all others.
        """
        count = bisect_left(self._moments, ends_at)
        if count <= 1:
            return self._now
        placer = self._limits.get(count)
        if placer is None:
            room = self._rooms[0]
            for later in self._rooms[1:count]:
                room = smaller(room, later)
            placer = self._limits[count] = self._placer_of(room)
        return placer

    def started(self, demand: Demand, places: Places, ends_at: float) -> None:
        """Take what a session uses that starts now, after `limited(ends_at)` has placed it."""
        by = self.limited(ends_at)
        count = bisect_left(self._moments, ends_at)
        for need, place in zip(demand.needs, places, strict=True):
            for room in self._rooms[: max(1, count)]:
                if room is not by.room:
                    room.take(place.row, need.cpu, need.mem, place.devices)
            for upto, placer in self._limits.items():
                if placer is not by:
                    for room in self._rooms[:upto]:
                        placer.room.lower_to(place.row, placer.room, room)
        self._now.cursor = by.cursor

    # --- who is to start later --------------------------------------------------------------------

    def reserve_first(self, demand: Demand, walltime_s: float) -> tuple[float, Places] | None:
        """Reserve for the first blocked session, exactly: as soon as enough should be released.

        `None` when that is not enough, whatever is released: it waits for something else.
        """
        moments = self._releases.moments
        found: dict[int, tuple[Room, Places]] = {}

        def fits(index: int) -> bool:
            room = self._releases.until(moments[index], self._rooms[0])
            places = self._placer_of(room).place(demand)
            if places is not None:
                found[index] = room, places
            return places is not None

        if not moments or not fits(len(moments) - 1):
            return None
        low, high = 0, len(moments) - 1
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if fits(middle) else (middle + 1, high)
        room, places = found[low]
        self._moments.append(moments[low])
        self._rooms.append(room)
        return moments[low], places

    def reserve(
        self, demand: Demand, walltime_s: float, not_before: float = 0.0
    ) -> tuple[float, Places] | None:
        """Reserve for a blocked session at the first moment from which it has room to its end."""
        if len(self._moments) == 1:
            self._spread_out()
        for index in range(max(1, bisect_left(self._moments, not_before)), len(self._moments)):
            starts_at = self._moments[index]
            last = bisect_left(self._moments, starts_at + walltime_s)
            room = self._rooms[index]
            for later in self._rooms[index + 1 : last]:
                room = smaller(room, later)
            places = self._placer_of(room.copy()).place(demand)
            if places is not None:
                self._take_out(demand, places, index, starts_at + walltime_s)
                return starts_at, places
        return None

    def _spread_out(self) -> None:
        """Make a moment of every release; of some only, when there are too many."""
        moments = [moment for moment in self._releases.moments if moment > self._moments[0]]
        step = -(-len(moments) // MOMENTS_MAX) or 1
        chosen = sorted({*moments[step - 1 :: step], *moments[-1:]})
        for moment in chosen:
            self._moments.append(moment)
            self._rooms.append(self._releases.until(moment, self._rooms[0]))

    def _take_out(self, demand: Demand, places: Places, index: int, ends_at: float) -> None:
        last = bisect_left(self._moments, ends_at)
        if last == len(self._moments) or self._moments[last] != ends_at:
            self._moments.insert(last, ends_at)
            self._rooms.insert(last, self._rooms[last - 1].copy())
        for need, place in zip(demand.needs, places, strict=True):
            for room in self._rooms[index:last]:
                room.take(place.row, need.cpu, need.mem, place.devices)
        self._limits.clear()
