"""Reservations: what a blocked session will use and when, and who may start before it.

Time is a list of moments from now on, each with what will be free from then to the next: more when
a running session should end, less while a reservation lasts. Whoever is to start now may use the
least that is free at any moment before its own end. So it never delays a reservation, on any slot
and any device; what a reservation does not need may be used without regard to it.

A reservation is a promise: the next pass keeps it or moves it to an earlier moment. Later it moves
only when what it counts on does not happen (a session runs for longer than it said, an agent is
lost or drained), when an administrator changes something, and when somebody comes who is ranked
higher: then those behind are planned anew. Promises live as long as the snapshot that has them; a
manager that starts again makes new ones.

Source of the idea: Lifka, "The ANL/IBM SP Scheduling System", 1995 (EASY); Mu'alem and Feitelson,
"Utilization, Predictability, Workloads, and User Runtime Estimates", 2001 (conservative).
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sokovan.domain.sessions import AgentId, Assignment, SessionId
from sokovan.placement.fit import Place, Placer, Places
from sokovan.placement.machines import Machines, Room, smaller
from sokovan.placement.needs import Demand
from sokovan.placement.releases import Releases

MOMENTS_MAX = 64
"""With more, `conservative` leaves some out: a release then counts late, never early."""
RESERVATIONS_MAX = 100
"""Under `conservative`, so many blocked sessions have a reservation; those behind have none yet."""
TRIED_MAX = 16
"""Under `easy`, for so many blocked sessions in turn is a reservation sought; those that wait for
something that no running session will release have none."""


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


@dataclass(frozen=True, slots=True)
class Promise:
    """What a pass found for a blocked session, which later passes are to keep.

    Attributes:
        demand: What it was found for.
        reservation: `None`: the session waits for something that nobody should release.
    """

    demand: Demand
    reservation: Reservation | None


@dataclass(frozen=True, slots=True)
class Slot:
    """Places for a session, and from when to when it uses them."""

    demand: Demand
    places: Places
    starts_at: float
    ends_at: float


def slot_of(
    promise: Promise | None, demand: Demand, machines: Machines, now: float, walltime_s: float
) -> Slot | None:
    """Return what was promised as rows and positions, from now on at the earliest.

    `None` when the session asks for something else by now, or an agent may not be used any more.
    """
    if promise is None or promise.reservation is None:
        return None
    made_for, reservation = promise.demand, promise.reservation
    if made_for.requests != demand.requests or made_for.where != demand.where:
        return None
    places = []
    for need, one in zip(demand.needs, reservation.assignment, strict=True):
        row = machines.row_of.get(AgentId(one.agent_id))
        if row is None:
            return None
        usable = machines.usable(need.filter)
        devices = machines.positions_of(row, one.devices)
        if len(devices) < len(one.devices) or not (usable is None or usable[row]):
            return None
        places.append(Place(row, devices))
    starts_at = max(now, reservation.starts_at)
    return Slot(demand, tuple(places), starts_at, starts_at + walltime_s)


def has_room_for(slot: Slot, room: Room, kernels_max: int | None) -> bool:
    """Say whether a room has all that a slot uses."""
    needs, short = slot.demand.needs, False
    for need, place in zip(needs, slot.places, strict=True):
        short |= any(room.shares[place.row, position] < part for position, part in place.devices)
        room.take(place.row, need.cpu, need.mem, place.devices)
        row = place.row
        short |= room.cpu.item(row) < 0 or room.mem.item(row) < 0
        short |= kernels_max is not None and room.kernels.item(row) > kernels_max
    for need, place in zip(needs, slot.places, strict=True):
        room.give_back(place.row, need.cpu, need.mem, place.devices)
    return not short


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
        self._is_spread_out = False

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
            placer = self._limits[count] = self._placer_of(self._least(0, count))
        placer.cursor = self._now.cursor
        return placer

    def started(self, demand: Demand, places: Places, ends_at: float) -> None:
        """Take what a session uses that starts now, after `limited(ends_at)` has placed it."""
        by = self.limited(ends_at)
        self._now.cursor = places[-1].row
        if self._is_spread_out:
            # What it gives back at its end is new: a moment of its own, for those who wait for it.
            by.give_back(demand.needs, places)
            self._split(ends_at)
            self._take(demand, places, 0, max(1, bisect_left(self._moments, ends_at)))
            return
        count = bisect_left(self._moments, ends_at)
        for need, place in zip(demand.needs, places, strict=True):
            for room in self._rooms[: max(1, count)]:
                if room is not by.room:
                    room.take(place.row, need.cpu, need.mem, place.devices)
            for upto, placer in self._limits.items():
                if placer is not by:
                    for room in self._rooms[:upto]:
                        placer.room.lower_to(place.row, placer.room, room)

    # --- easy: one reservation, for the first -----------------------------------------------------

    def reserve_first(self, demand: Demand, kept: Slot | None) -> tuple[float, Places] | None:
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

        low, high = 0, len(moments) - 1
        if not moments or not fits(high):
            return self._keep_first(kept)
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if fits(middle) else (middle + 1, high)
        if kept is not None and kept.starts_at < moments[low] and self._keep_first(kept):
            return kept.starts_at, kept.places
        room, places = found[low]
        self._moments.append(moments[low])
        self._rooms.append(room)
        return moments[low], places

    def _keep_first(self, kept: Slot | None) -> tuple[float, Places] | None:
        """Keep what was promised, where looking for room anew does worse; see `Placer`."""
        if kept is None:
            return None
        room = self._releases.until(kept.starts_at, self._rooms[0])
        if not has_room_for(kept, room, self._now.machines.kernels_max):
            return None
        self._moments.append(kept.starts_at)
        self._rooms.append(room)
        self._take(kept.demand, kept.places, 1, 2)
        return kept.starts_at, kept.places

    # --- conservative: many -----------------------------------------------------------------------

    def spread_out(self, kept: Iterable[float] = ()) -> None:
        """Make a moment of every release; of some only, when there are too many.

        What should have been released already has a moment of its own, which is now.

        Args:
            kept: Moments to be among them in any case.
        """
        now = self._moments[0]
        moments = self._releases.moments
        step = -(-len(moments) // MOMENTS_MAX) or 1
        chosen = {now, *moments[step - 1 :: step], *moments[-1:], *kept}
        for moment in sorted(moment for moment in chosen if moment >= now):
            self._moments.append(moment)
            self._rooms.append(self._releases.until(moment, self._rooms[0]))
        self._is_spread_out = True

    def has_room_for(self, slot: Slot) -> bool:
        """Say whether all that a slot uses is free from its start to its end."""
        first, last = self._span(slot)
        room = self._least(first, last)
        return has_room_for(slot, room, self._now.machines.kernels_max)

    def take_out(self, slot: Slot) -> None:
        """Reserve it."""
        self._take(slot.demand, slot.places, *self._span(slot))

    def put_back(self, slot: Slot) -> None:
        """Undo `take_out`."""
        first, last = self._span(slot)
        for need, place in zip(slot.demand.needs, slot.places, strict=True):
            for room in self._rooms[first:last]:
                room.give_back(place.row, need.cpu, need.mem, place.devices)
        self._limits.clear()

    def reserve(self, demand: Demand, walltime_s: float, kept: Slot | None) -> Slot | None:
        """Reserve for a blocked session at the first moment from which it has room to its end.

        Args:
            demand: What it asks for.
            walltime_s: For how long.
            kept: What it was promised, and is not taken out at present; it gets nothing later.
        """
        needs = dict.fromkeys(demand.needs)
        for index in range(1, len(self._moments)):
            starts_at = self._moments[index]
            if kept is not None and starts_at >= kept.starts_at:
                break
            alone = self._placer_of(self._rooms[index])
            if not all(alone.has_room(need) for need in needs):
                continue
            last = max(index + 1, bisect_left(self._moments, starts_at + walltime_s))
            places = self._placer_of(self._least(index, last)).place(demand)
            if places is not None:
                kept = Slot(demand, places, starts_at, starts_at + walltime_s)
                break
        if kept is not None:
            self.take_out(kept)
        return kept

    # --- moments ----------------------------------------------------------------------------------

    def _least(self, first: int, last: int) -> Room:
        """Return a room of its own with the least that is free in a span of moments."""
        least = self._rooms[first].copy()
        for room in self._rooms[first + 1 : last]:
            least = smaller(least, room)
        return least

    def _span(self, slot: Slot) -> tuple[int, int]:
        """Return the moments during which a slot is used, made if need be; never the first.

        The first is what is free now in fact; a reservation for now begins with the second.
        """
        first = 1 if slot.starts_at <= self._moments[0] else self._split(slot.starts_at)
        return first, max(first + 1, self._split(slot.ends_at))

    def _split(self, at: float) -> int:
        """Return the index of a moment, made if need be."""
        index = bisect_left(self._moments, at)
        if index == len(self._moments) or self._moments[index] != at:
            self._moments.insert(index, at)
            self._rooms.insert(index, self._rooms[index - 1].copy())
            self._limits.clear()
        return index

    def _take(self, demand: Demand, places: Places, first: int, last: int) -> None:
        for need, place in zip(demand.needs, places, strict=True):
            for room in self._rooms[first:last]:
                room.take(place.row, need.cpu, need.mem, place.devices)
        self._limits.clear()
