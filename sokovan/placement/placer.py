"""Finds places for all kernels of a session at once, on the rows that rank first."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sokovan.domain.resources import DeviceShares
from sokovan.domain.sessions import Assignment, KernelAssignment, SessionWithKernels
from sokovan.domain.where import ClusterMode
from sokovan.placement.fit import choose_devices, fits_on, fitting
from sokovan.placement.machines import Machines
from sokovan.placement.needs import Demand, Need, amounts_of, total
from sokovan.placement.ranking import CONCENTRATED, Ranking
from sokovan.placement.room import Ints, Room

NO_ROOM = 2**62
"""The key of a row that a kernel does not fit on."""
GROWN_FEW = 8
"""So many rows are faster looked at one by one."""


class Place(NamedTuple):
    """Where one kernel goes: a row, and positions of devices."""

    row: int
    devices: DeviceShares


Places = tuple[Place, ...]
"""One for each kernel, in the order of the demand."""


def assignment_of(session: SessionWithKernels, places: Places, machines: Machines) -> Assignment:
    """Turn places into agents and devices, kernel by kernel."""
    return tuple(
        KernelAssignment(
            kernel.kernel_id,
            machines.agents[place.row].agent_id,
            machines.index_of(place.row, place.devices),
        )
        for kernel, place in zip(session.kernels, places, strict=True)
    )


class Placer:
    """Finds places in one room, and takes them from it.

    Args:
        machines: Whose rows they are.
        room: What is free; it shrinks.
        ranking: Which rows come first.
        cursor: The row taken last, for rankings that rotate.
        rows_of_sessions: The rows on which kernels of a session are, by its name and id.
        lasting: The room is what is free on the machines: a need that finds no row there need look
            only at the rows that grow from then on.
        serving_only: Take only agents that get new kernels at present.
    """

    def __init__(
        self,
        machines: Machines,
        room: Room,
        ranking: Ranking,
        cursor: int = -1,
        rows_of_sessions: Mapping[str, Iterable[int]] | None = None,
        *,
        lasting: bool = False,
        serving_only: bool = True,
    ) -> None:
        self.machines, self.room, self.ranking, self.cursor = machines, room, ranking, cursor
        # Not `or {}`: it would ask how many there are, and so have them all looked up.
        self.rows_of_sessions = {} if rows_of_sessions is None else rows_of_sessions
        self._lasting, self._serving_only = lasting, serving_only
        self._base: dict[bool, Ints] = {}
        self._usable: dict[Need, NDArray[np.bool_] | None] = {}
        self._seen = len(room.touched)

    def place(self, demand: Demand) -> Places | None:
        """Find a place for every kernel and take it; `None`, and nothing is taken, if one has none.

        Several kernels may stand in each other's way when each goes where the ranking likes it
        best; then they are packed tightly. So whoever fits an empty cluster is placed on it: the
        same is asked for `never_fits`.

        The demand must make sense.
        """
        needs = demand.needs
        if len(needs) == 1:
            if demand.is_choosy:
                return self._together(demand)
            row = self._best(self.keys(needs[0]))
            return None if row is None else (self._take(needs[0], row),)
        places = self._together(demand)
        if places is None and self.ranking is not CONCENTRATED:
            tight = Placer(
                self.machines,
                self.room,
                CONCENTRATED,
                rows_of_sessions=self.rows_of_sessions,
                serving_only=self._serving_only,
            )
            places = tight.place(demand)
            if places is not None:
                self.cursor = places[-1].row
        return places

    def _together(self, demand: Demand) -> Places | None:
        needs, where = demand.needs, demand.where
        tiers = self._tiers(demand)
        if where.mode is ClusterMode.SINGLE_NODE and len(needs) > 1:
            return self._on_one_row(needs, tiers)
        most = where.kernels_per_agent_max
        if not where.same or len(needs) == 1:
            return self._anywhere(needs, tiers, most, None)
        for within in self._domains(needs[0], where.same, tiers):
            places = self._anywhere(needs, tiers, most, within)
            if places is not None:
                return places
        return None

    def beside(self, room: Room) -> "Placer":
        """Return a placer of another room that is otherwise the same."""
        return Placer(self.machines, room, self.ranking, self.cursor, self.rows_of_sessions)

    def keys(self, need: Need) -> Ints | None:
        """Return the key of every row, `NO_ROOM` where a kernel does not fit; `None`: nowhere."""
        machines, room, ranking = self.machines, self.room, self.ranking
        if self._lasting and need.refused_at and not self._fits_where_grown(need):
            return None
        fits = fitting(need, machines, room, self._usable_rows(need))
        if ranking.of is None:
            rows = np.flatnonzero(fits)
            keys: Ints = np.full(len(fits), NO_ROOM, np.int64)
            keys[rows] = ranking.keys(need, room, rows)
        else:
            keys = np.where(fits, self._base_keys(with_devices=need.gpu > 0), NO_ROOM)
        return keys

    def has_room(self, need: Need) -> bool:
        """Say whether some row takes a kernel, and remember if none does."""
        keys = self.keys(need)
        if keys is not None and bool((keys < NO_ROOM).any()):
            return True
        if self._lasting:
            need.refused_at = self.machines.version
        return False

    def _fits_where_grown(self, need: Need) -> bool:
        machines = self.machines
        grown = machines.grown_since(need.refused_at)
        if grown is None or len(grown) > GROWN_FEW:
            return True
        usable = self._usable_rows(need)
        return any(
            (usable is None or usable[row]) and fits_on(need, machines, self.room, row)
            for row in grown.tolist()
        )

    def _usable_rows(self, need: Need) -> NDArray[np.bool_] | None:
        """What `Machines.usable` says, remembered for as long as this placer lives."""
        try:
            return self._usable[need]
        except KeyError:
            rows = self.machines.usable(need.filter, serving_only=self._serving_only)
            self._usable[need] = rows
            return rows

    def _base_keys(self, *, with_devices: bool) -> Ints:
        """The keys by what is free alone, kept in step with what is taken from the room."""
        room, of = self.room, self.ranking.of
        assert of is not None
        if len(room.touched) != self._seen:
            for row in set(room.touched[self._seen :]):
                free = room.gpu.item(row), room.cpu.item(row), room.mem.item(row)
                for devices, keys in self._base.items():
                    keys[row] = of(devices, *free)
            self._seen = len(room.touched)
        with_devices &= self.ranking.minds_devices
        found = self._base.get(with_devices)
        if found is None:
            found = self._base[with_devices] = of(with_devices, room.gpu, room.cpu, room.mem)
        return found

    def give_back(self, needs: Sequence[Need], places: Sequence[Place]) -> None:
        """Undo what `place` took."""
        for need, place in zip(needs, places, strict=True):
            self.room.give_back(place.row, need.cpu, need.mem, place.devices)

    def partly(self, demand: Demand) -> tuple[dict[int, Place], Need | None]:
        """Take as many kernels as possible, in order; return them and the first without a place."""
        places: dict[int, Place] = {}
        used: Counter[int] = Counter()
        lacking: dict[Need, None] = {}
        for number, need in enumerate(demand.needs):
            if need in lacking:
                continue
            row = self._next(
                need, self._tiers(demand), demand.where.kernels_per_agent_max, used, None
            )
            if row is None:
                lacking[need] = None
            else:
                places[number] = self._take(need, row)
                used[row] += 1
        return places, next(iter(lacking), None)

    # --- several kernels --------------------------------------------------------------------------

    def _anywhere(
        self,
        needs: Sequence[Need],
        tiers: Ints | None,
        most: int | None,
        within: NDArray[np.bool_] | None,
    ) -> Places | None:
        """Kernel by kernel as given; if one is left out, once more with the largest first."""
        given = range(len(needs))
        places = self._in_turn(given, needs, tiers, most, within)
        if places is None and len(set(needs)) > 1:
            largest_first = sorted(
                given, key=lambda number: amounts_of(needs[number].request), reverse=True
            )
            places = self._in_turn(largest_first, needs, tiers, most, within)
        return places

    def _in_turn(
        self,
        order: Iterable[int],
        needs: Sequence[Need],
        tiers: Ints | None,
        most: int | None,
        within: NDArray[np.bool_] | None,
    ) -> Places | None:
        places: dict[int, Place] = {}
        used: Counter[int] = Counter()
        cursor = self.cursor
        for number in order:
            row = self._next(needs[number], tiers, most, used, within)
            if row is None:
                self.give_back([needs[n] for n in places], list(places.values()))
                self.cursor = cursor
                return None
            places[number] = self._take(needs[number], row)
            used[row] += 1
        return tuple(places[number] for number in range(len(needs)))

    def _next(
        self,
        need: Need,
        tiers: Ints | None,
        most: int | None,
        used: Counter[int],
        within: NDArray[np.bool_] | None,
    ) -> int | None:
        keys = self.keys(need)
        if keys is None:
            return None
        full = [row for row, count in used.items() if most is not None and count >= most]
        if full or within is not None:
            keys[full] = NO_ROOM
            if within is not None:
                keys[~within] = NO_ROOM
        return self._best_of_tiers(keys, tiers)

    def _on_one_row(self, needs: Sequence[Need], tiers: Ints | None) -> Places | None:
        every = total([need.request for need in needs])
        where = min((need.filter for need in needs), key=lambda f: f.gpu_mem_bytes_min)
        fits = np.ones(len(self.machines.agents), bool)
        for need in set(needs):
            keys = self.keys(need)
            if keys is None:
                return None
            fits &= keys < NO_ROOM
        as_one = Need(every, where)
        fits = fitting(as_one, self.machines, self.room, fits)
        keys = np.full(len(fits), NO_ROOM, np.int64)
        rows = np.flatnonzero(fits)
        keys[rows] = self.ranking.keys(as_one, self.room, rows)
        while (row := self._best_of_tiers(keys, tiers)) is not None:
            places = self._all_on(row, needs)
            if places is not None:
                return places
            keys[row] = NO_ROOM
        return None

    def _all_on(self, row: int, needs: Sequence[Need]) -> Places | None:
        """Put all kernels on one row, those first that want large devices, then whole ones."""
        places: dict[int, Place] = {}
        cursor = self.cursor

        def wants(number: int) -> tuple[int, int, int]:
            need = needs[number]
            return need.filter.gpu_mem_bytes_min, need.whole, need.part

        for number in sorted(range(len(needs)), key=wants, reverse=True):
            if not fits_on(needs[number], self.machines, self.room, row):
                self.give_back([needs[n] for n in places], list(places.values()))
                self.cursor = cursor
                return None
            places[number] = self._take(needs[number], row)
        return tuple(places[number] for number in range(len(needs)))

    def _domains(self, need: Need, label: str, tiers: Ints | None) -> Iterator[NDArray[np.bool_]]:
        """Yield the rows of each value of a label, the one with the best row first."""
        keys = self.keys(need)
        if keys is None:
            return
        best: dict[str, int] = {}
        for row in np.lexsort((keys,) if tiers is None else (keys, tiers)).tolist():
            value = self.machines.agents[row].labels.get(label)
            if keys[row] < NO_ROOM and value is not None:
                best.setdefault(value, row)
        for value in best:
            yield np.array([agent.labels.get(label) == value for agent in self.machines.agents])

    # --- one row ----------------------------------------------------------------------------------

    def _take(self, need: Need, row: int) -> Place:
        devices = choose_devices(need, self.machines, self.room, row, self.ranking)
        self.room.take(row, need.cpu, need.mem, devices)
        self.cursor = row
        return Place(row, devices)

    def _best(self, keys: Ints | None) -> int | None:
        if keys is None or not len(keys):
            return None
        if self.ranking.rotates:
            after = np.flatnonzero(keys[self.cursor + 1 :] < NO_ROOM)
            if len(after):
                return int(after[0]) + self.cursor + 1
        row = int(keys.argmin())
        return None if keys.item(row) == NO_ROOM else row

    def _best_of_tiers(self, keys: Ints, tiers: Ints | None) -> int | None:
        if tiers is None:
            return self._best(keys)
        for tier in np.unique(tiers).tolist():
            row = self._best(np.where(tiers == tier, keys, NO_ROOM))
            if row is not None:
                return row
        return None

    def _tiers(self, demand: Demand) -> Ints | None:
        """Which rows are to be taken before others: 0 preferred, 1, 2 spread from, 3 avoided."""
        if not demand.is_choosy:
            return None
        where = demand.where
        tiers: Ints = np.ones(len(self.machines.agents), np.int64)
        for row, agent in enumerate(self.machines.agents if where.prefer else ()):
            if agent.name in where.prefer or agent.agent_id in where.prefer:
                tiers[row] = 0
        for name in where.pack_with:
            tiers[list(self.rows_of_sessions.get(name, ()))] = 0
        for name in where.spread_with:
            tiers[list(self.rows_of_sessions.get(name, ()))] = 2
        tiers[self.machines.rows_of(demand.avoid)] = 3
        return tiers
