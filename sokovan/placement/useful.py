"""Ranks agents by what typical requests of the group lose there; see `fragmentation`.

What is typical is learned from the sessions that wait and run, never from those to come. It is
learned anew whenever their number has changed by half, so that keys can be kept in between: an
agent's key for a need changes only when something is taken from the agent or released there.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from sokovan.domain.quantities import DEVICE_SHARES
from sokovan.domain.statuses import SessionStatus
from sokovan.placement.filters import Filter
from sokovan.placement.fragmentation import (
    Ask,
    Bool,
    Free,
    Int,
    Typical,
    least_worth_lost,
    published_fgd,
)
from sokovan.placement.machines import Machines
from sokovan.placement.needs import Need
from sokovan.placement.queue import Lane
from sokovan.placement.ranking import CONCENTRATED, Ranking, concentrated
from sokovan.placement.room import Ints, Room
from sokovan.placement.snapshot import Snapshot
from sokovan.placement.typical import Shape, Usual, frequent, generic, weighed

NEAREST = 128
"""So many of the fullest rows with room are compared; of equal losses, the fullest is taken."""
NEAREST_OF_KIND = 16
"""So many at least of each kind of agents that the same typical requests may use."""
TIES = 2**12
"""More than rows are ever compared."""
LAST = 2**61
NEEDS_KEPT_MAX = 256
"""For so many needs are keys kept between passes."""

WITHOUT_AGENTS = {SessionStatus.PENDING, SessionStatus.DEPRIORITIZING}

Score = Callable[[Ask, Free, Bool, Typical, Bool | None], tuple[Int, Int]]
"""See `fragmentation.published_fgd`."""


def usual_of(snapshot: Snapshot) -> Usual:
    """Return what is typical; the snapshot keeps it until it is to be learned anew."""
    waiting = sum(len(lane.entries) for lane in _sound(snapshot))
    sessions = waiting + int(snapshot.machines.free.kernels.sum())
    if snapshot.usual.is_due(sessions):
        snapshot.usual = _learned(snapshot, sessions)
    return snapshot.usual


def _sound(snapshot: Snapshot) -> Iterator[Lane]:
    return (lane for lane in snapshot.queue.lanes() if lane.demand.problem is None)


def _learned(snapshot: Snapshot, made_from: int) -> Usual:
    counts: Counter[Shape] = Counter()
    waiting = (
        (lane.demand.where, lane.demand.requests, len(lane.entries)) for lane in _sound(snapshot)
    )
    running = (
        (session.where, [kernel.request for kernel in session.kernels], 1)
        for session in snapshot.running.values()
        if session.scaling_group == snapshot.group.name and session.status not in WITHOUT_AGENTS
    )
    for where, requests, count in chain(waiting, running):
        conditions = tuple(c for c in where.constraints if c.is_of_devices)
        for request in requests:
            ask = Ask(request.cpu_milli, request.mem_bytes, request.gpu_shares)
            counts[ask, Filter(conditions, gpu_mem_bytes_min=request.gpu_mem_bytes_min)] += count
    ordered = sorted(counts.items(), key=lambda item: (-item[1], repr(item[0])))
    return Usual(made_from, tuple(ordered))


class ByLoss:
    """A ranking by what typical requests lose, with keys kept while rows stay as they are.

    Args:
        machines: Whose rows they are.
        usual: What is typical.
        score: How the loss is measured.
    """

    rotates = False
    minds_devices = False
    of = None

    def __init__(self, machines: Machines, usual: Usual, score: Score) -> None:
        self._machines = machines
        self._score = score
        self._typical, self._allowed = _table(machines, usual)
        kinds, kind = np.unique(self._allowed, axis=0, return_inverse=True)
        self._kind: NDArray[np.intp] = kind.reshape(-1)
        self._of_each = max(NEAREST // len(kinds), NEAREST_OF_KIND)
        self._kept: dict[Need, tuple[Ints, Ints, Ints]] = {}

    def keys(self, need: Need, room: Room, rows: NDArray[np.intp]) -> Ints:
        free: Ints = concentrated(need.gpu > 0, room.gpu[rows], room.cpu[rows], room.mem[rows])
        fullest = self._fullest(free, self._kind[rows])
        keys: Ints = np.full(len(rows), LAST, np.int64)
        losses = self._losses(need, room, rows[fullest])
        keys[fullest] = losses * TIES + np.arange(len(fullest))
        return keys

    def _fullest(self, free: Ints, kinds: NDArray[np.intp]) -> NDArray[np.intp]:
        """Choose rows of every kind, the fullest first; a kind is what may take what."""
        order = np.lexsort((free, kinds))
        sorted_kinds = kinds[order]
        within = np.arange(len(order)) - np.searchsorted(sorted_kinds, sorted_kinds)
        chosen = order[within < self._of_each]
        found: NDArray[np.intp] = chosen[np.argsort(free[chosen], kind="stable")]
        return found

    def _losses(self, need: Need, room: Room, rows: NDArray[np.intp]) -> Ints:
        keys, devices, stamps = self._of(need)
        stale = rows[stamps[rows] != room.stamp[rows]]
        if len(stale):
            allowed = self._machines.eligible(need.filter).devices
            keys[stale], devices[stale] = self._score(
                Ask(need.cpu, need.mem, need.gpu),
                Free(room.cpu[stale], room.mem[stale], np.maximum(room.shares[stale], 0)),
                self._allowed[stale],
                self._typical,
                None if allowed is None else allowed[stale],
            )
            stamps[stale] = room.stamp[stale]
        found: Ints = keys[rows]
        return found

    def position(self, need: Need, room: Room, row: int, positions: list[int]) -> int | None:
        self._losses(need, room, np.array([row]))
        return int(self._of(need)[1][row])

    def _of(self, need: Need) -> tuple[Ints, Ints, Ints]:
        kept = self._kept.get(need)
        if kept is None:
            if len(self._kept) >= NEEDS_KEPT_MAX:
                del self._kept[next(iter(self._kept))]
            count = len(self._machines.agents)
            kept = self._kept[need] = (
                np.zeros(count, np.int64),
                np.zeros(count, np.int64),
                np.zeros(count, np.int64),
            )
        return kept


def _table(machines: Machines, usual: Usual) -> tuple[Typical, Bool]:
    """Lay out the typical requests, and say which rows have devices that each may take.

    Typical are those with the largest weights, see `weighed`: a shape that is seldom asked for, but
    may take few of the devices, is as much worth to keep room for as a frequent one.
    """
    shares = np.maximum(machines.shares_total, 0)
    whole = max(1, int(shares.sum()))
    reached: dict[Shape, Bool] = {}
    parts: dict[Shape, float] = {}
    for shape, _ in usual.counts:
        if shape[0].count:
            devices = machines.eligible(shape[1]).devices
            rows = (shares if devices is None else np.where(devices, shares, 0)).sum(axis=1) > 0
            if rows.any():
                reached[shape], parts[shape] = rows, int(shares[rows].sum()) / whole
    counts = {shape: count for shape, count in usual.counts if shape in reached}
    shapes = frequent({shape: count / parts[shape] for shape, count in counts.items()})
    if shapes:
        asks, weights = [ask for ask, _ in shapes], [counts[shape] for shape in shapes]
        typical = weighed(asks, weights, [parts[shape] for shape in shapes])
        return typical, np.array([reached[shape] for shape in shapes]).T
    devices_total = max(1, whole // DEVICE_SHARES)
    totals = machines.totals()
    typical = generic(totals["cpu"] // devices_total, totals["mem"] // devices_total)
    return typical, np.ones((len(shares), len(typical.weight)), bool)


def by_loss(score: Score) -> Callable[[Snapshot], Ranking]:
    """Return what makes a ranking for a snapshot; the same one while nothing typical changes.

    Agents without any devices have nothing to lose in this sense: the fullest come first.
    """

    def ranking(snapshot: Snapshot) -> Ranking:
        usual, machines = usual_of(snapshot), snapshot.machines
        if not (machines.shares_total > 0).any():
            return CONCENTRATED
        made_for = id(machines), machines.agents_version, usual, score
        kept = snapshot.memory.get("by loss")
        if kept is None or kept[0] != made_for:
            kept = snapshot.memory["by loss"] = made_for, ByLoss(machines, usual, score)
        found: ByLoss = kept[1]
        return found

    return ranking


USEFUL = by_loss(least_worth_lost)
FRAGMENTATION = by_loss(published_fgd)
