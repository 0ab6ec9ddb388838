"""`conservative`: everybody who is blocked has a reservation, and nobody delays any of them."""

from bisect import bisect_left
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from sokovan.placement.backfill import MakePlacer, Slot
from sokovan.placement.fit import fitting
from sokovan.placement.needs import Demand
from sokovan.placement.placer import Placer, Places
from sokovan.placement.releases import Releases
from sokovan.placement.room import Room, smaller

MOMENTS_MAX = 64
"""With more releases, some are left out: they then count late, never early. The same holds for the
ends of sessions that start now."""
RESERVATIONS_MAX = 100
"""So many blocked sessions have a reservation; those behind them have none yet."""

Rows = slice | NDArray[np.intp]
EVERY = slice(None)


class Conservative:
    """What is free from now on, with the reservations taken out.

    The moments stand in a room with one more axis: what is free on each row from each moment to the
    next, from the last one for ever. The first moment is now, when what should have been released
    already counts as released; what is free in fact has a room of its own.

    Args:
        now: The first moment.
        placer: Of the room that is free now.
        releases: What should be released, what this pass has placed included.
        placer_of: Makes a placer for another room.
        kept: Moments to be among those looked at in any case.
    """

    def __init__(
        self,
        now: float,
        placer: Placer,
        releases: Releases,
        placer_of: MakePlacer,
        kept: Iterable[float] = (),
    ) -> None:
        self._now = placer
        self._placer_of = placer_of
        self._kernels_max = placer.machines.kernels_max
        moments = releases.moments
        step = -(-len(moments) // MOMENTS_MAX) or 1
        chosen = {now, *moments[step - 1 :: step], *moments[-1:], *kept}
        self._moments = sorted(moment for moment in chosen if moment >= now)
        rooms = [releases.until(moment, placer.room) for moment in self._moments]
        self._then = Room(
            np.stack([room.cpu for room in rooms]),
            np.stack([room.mem for room in rooms]),
            np.stack([room.shares for room in rooms]),
            np.stack([room.kernels for room in rooms]),
        )
        self._limits: dict[float, Placer] = {}
        """By the last moment at which what they may take must be free."""
        self._changed: list[int] = []
        """The row of every change to `_then`, in order."""
        self._seen: dict[float, int] = {}
        """How many of these changes each of `_limits` has taken over."""

    # --- who may start now ------------------------------------------------------------------------

    def limited(self, ends_at: float) -> Placer:
        """Return the placer for a session that would start now and end then.

        What it takes is taken from its own room only, until `started` is told.
        """
        count = max(1, bisect_left(self._moments, ends_at))
        upto = self._moments[count - 1]
        placer = self._limits.get(upto)
        if placer is None:
            room = smaller(self._now.room, self._least(0, count))
            placer = self._limits[upto] = self._placer_of(room)
        else:
            rows = np.unique(self._changed[self._seen[upto] :]).astype(np.intp)
            if len(rows):
                placer.room.put_rows(rows, self._now.room, self._least(0, count, rows))
        self._seen[upto] = len(self._changed)
        placer.cursor = self._now.cursor
        return placer

    def started(self, demand: Demand, places: Places, ends_at: float) -> None:
        """Take what a session uses that starts now, after `limited(ends_at)` has placed it."""
        self._now.cursor = places[-1].row
        for need, place in zip(demand.needs, places, strict=True):
            self._now.room.take(place.row, need.cpu, need.mem, place.devices)
        # Its end is a moment that others may wait for.
        if len(self._moments) < 2 * MOMENTS_MAX or ends_at > self._moments[-1]:
            last = self._split(ends_at)
        else:
            last = bisect_left(self._moments, ends_at)
        self._change(demand, places, 0, max(1, last), sign=-1)

    # --- who is to start later --------------------------------------------------------------------

    def take_out(self, slot: Slot) -> bool:
        """Reserve it, if all of it is free from its start to its end."""
        first, last = self._span(slot)
        self._change(slot.demand, slot.places, first, last, sign=-1)
        then = self._then
        for place in slot.places:
            at = slice(first, last), place.row
            lowest = min(then.cpu[at].min(), then.mem[at].min())
            for position, _ in place.devices:
                lowest = min(lowest, then.shares[(*at, position)].min())
            too_many = self._kernels_max is not None and then.kernels[at].max() > self._kernels_max
            if lowest < 0 or too_many:
                self._change(slot.demand, slot.places, first, last, sign=1)
                return False
        return True

    def put_back(self, slot: Slot) -> None:
        """Undo `take_out`."""
        self._change(slot.demand, slot.places, *self._span(slot), sign=1)

    def reserve(
        self, demand: Demand, walltime_s: float, kept: Slot | None, not_before: float = 0.0
    ) -> Slot | None:
        """Reserve for a blocked session at the first moment from which it has room to its end.

        Args:
            demand: What it asks for.
            walltime_s: For how long.
            kept: What it was promised, and is not taken out at present; it gets nothing later.
            not_before: It is to start no earlier.

        Returns:
            `None` if it never has room, whatever is released: it waits for something else.
        """
        for index in self._candidates(demand, walltime_s):
            starts_at = self._moments[index]
            if starts_at < not_before:
                continue
            if kept is not None and starts_at >= kept.starts_at:
                break
            last = max(index + 1, bisect_left(self._moments, starts_at + walltime_s))
            places = self._placer_of(self._least(index, last)).place(demand)
            if places is not None:
                kept = Slot(demand, places, starts_at, starts_at + walltime_s)
                break
        if kept is not None:
            taken = self.take_out(kept)
            assert taken, "what was just found is free, and so is what was taken out before"
        return kept

    def _candidates(self, demand: Demand, walltime_s: float) -> list[int]:
        """Find the moments from which some row has room for each kernel alone until its end."""
        moments = np.array(self._moments)
        first = np.arange(len(moments))
        last = np.maximum(np.searchsorted(moments, moments + walltime_s), first + 1)
        able = np.ones(len(moments), bool)
        machines = self._now.machines
        for need in dict.fromkeys(demand.needs):
            fits = fitting(need, machines, self._then, machines.usable(need.filter))
            lacking = np.zeros((len(moments) + 1, fits.shape[1]), np.int32)
            np.cumsum(~fits, axis=0, out=lacking[1:])
            able &= (lacking[last] == lacking[first]).any(axis=1)
        return np.flatnonzero(able).tolist()

    # --- moments ----------------------------------------------------------------------------------

    def _least(self, first: int, last: int, rows: Rows = EVERY) -> Room:
        """Return a room of its own with the least that is free in a span of moments."""
        then, span = self._then, slice(first, last)
        return Room(
            then.cpu[span, rows].min(axis=0),
            then.mem[span, rows].min(axis=0),
            then.shares[span, rows].min(axis=0),
            then.kernels[span, rows].max(axis=0),
        )

    def _span(self, slot: Slot) -> tuple[int, int]:
        """Return the moments during which a slot is used, made if need be."""
        first = self._split(slot.starts_at)
        return first, max(first + 1, self._split(slot.ends_at))

    def _split(self, at: float) -> int:
        """Return the index of a moment, made if need be."""
        index = bisect_left(self._moments, at)
        if index == len(self._moments) or self._moments[index] != at:
            self._moments.insert(index, at)
            self._then = self._then.repeated(index - 1)
        return index

    def _change(self, demand: Demand, places: Places, first: int, last: int, *, sign: int) -> None:
        then, rows = self._then, {place.row for place in places}
        for need, place in zip(demand.needs, places, strict=True):
            at = slice(first, last), place.row
            then.cpu[at] += sign * need.cpu
            then.mem[at] += sign * need.mem
            then.kernels[at] -= sign
            for position, part in place.devices:
                then.shares[(*at, position)] += sign * part
        for row in rows if any(place.devices for place in places) else ():
            then.sum_up((slice(first, last), row))
        self._changed += rows
