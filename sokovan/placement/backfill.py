"""Reservations: what a blocked session will use and when, and who may start before it.

Whoever is to start now may use the least that is free at any moment before its own end: more is
free when a running session should end, less while a reservation lasts. So it never delays a
reservation, on any slot and any device; what a reservation does not need may be used without regard
to it.

A reservation is a promise: the next pass keeps it or moves it to an earlier moment. Later it moves
only when what it counts on does not happen (a session runs for longer than it said, an agent is
lost or drained), when an administrator changes something, and when somebody comes who is ranked
higher: then those behind are planned anew. Promises live as long as the snapshot that has them; a
manager that starts again makes new ones.

Source of the idea: Lifka, "The ANL/IBM SP Scheduling System", 1995 (EASY); Mu'alem and Feitelson,
"Utilization, Predictability, Workloads, and User Runtime Estimates", 2001 (conservative).
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from sokovan.domain.sessions import AgentId
from sokovan.placement.machines import Machines
from sokovan.placement.needs import Demand
from sokovan.placement.placer import Place, Placer, Places
from sokovan.placement.promises import Promise
from sokovan.placement.releases import Releases
from sokovan.placement.room import Room, smaller

TRIED_MAX = 16
"""Under `easy`, for so many blocked sessions in turn is a reservation sought; those that wait for
something that no running session will release have none."""


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


class Easy:
    """What is free now and when the one reservation begins, with the reservation taken out.

    Later on no less is free than at that moment, so no other has to be looked at.

    Args:
        now: Seconds since the epoch.
        placer: Of the room that is free now.
        releases: What should be released, what this pass has placed included.
        placer_of: Makes a placer for another room.
    """

    def __init__(
        self, now: float, placer: Placer, releases: Releases, placer_of: MakePlacer
    ) -> None:
        self._now = placer
        self._placer_of = placer_of
        self._releases = releases
        self._starts_at = inf
        self._then: Room | None = None
        self._limited: Placer | None = None

    def limited(self, ends_at: float) -> Placer:
        """Return the placer for a session that would start now and end then.

        What it takes is taken from its own room only: `started` says so to all others.
        """
        if self._then is None or ends_at <= self._starts_at:
            return self._now
        if self._limited is None:
            self._limited = self._placer_of(smaller(self._now.room, self._then))
        self._limited.cursor = self._now.cursor
        return self._limited

    def started(self, demand: Demand, places: Places, ends_at: float) -> None:
        """Take what a session uses that starts now, after `limited(ends_at)` has placed it."""
        by, now, then = self.limited(ends_at), self._now, self._then
        now.cursor = places[-1].row
        assert then is not None
        for need, place in zip(demand.needs, places, strict=True):
            if by is not now:
                now.room.take(place.row, need.cpu, need.mem, place.devices)
                then.take(place.row, need.cpu, need.mem, place.devices)
            elif self._limited is not None:
                self._limited.room.lower_to(place.row, now.room, then)

    def reserve(self, demand: Demand, walltime_s: float, kept: Slot | None) -> Slot | None:
        """Reserve for the first blocked session, exactly: as soon as enough should be released.

        Args:
            demand: What it asks for.
            walltime_s: For how long.
            kept: What it was promised; it gets nothing later, if that can be had.

        Returns:
            `None` when it has no room, whatever is released: it waits for something else.
        """
        moments = self._releases.moments
        found: dict[int, tuple[Room, Places]] = {}

        def fits(index: int) -> bool:
            room = self._releases.until(moments[index], self._now.room)
            places = self._placer_of(room).place(demand)
            if places is not None:
                found[index] = room, places
            return places is not None

        low, high = 0, len(moments) - 1
        if not moments or not fits(high):
            return self._keep(kept)
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if fits(middle) else (middle + 1, high)
        if kept is not None and kept.starts_at < moments[low] and self._keep(kept):
            return kept
        self._starts_at = moments[low]
        self._then, places = found[low]
        return Slot(demand, places, self._starts_at, self._starts_at + walltime_s)

    def _keep(self, kept: Slot | None) -> Slot | None:
        """Keep what was promised, where looking anew finds no room for all kernels as early."""
        if kept is None:
            return None
        room = self._releases.until(kept.starts_at, self._now.room)
        if not has_room_for(kept, room, self._now.machines.kernels_max):
            return None
        for need, place in zip(kept.demand.needs, kept.places, strict=True):
            room.take(place.row, need.cpu, need.mem, place.devices)
        self._starts_at, self._then = kept.starts_at, room
        return kept
