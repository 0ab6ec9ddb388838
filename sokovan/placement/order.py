"""Who is looked at first. A new order is one function and one entry in `ORDERS`.

Every order goes by descending effective priority first: the priority plus 1 for each `ageing_s`
waited. Waiting is counted in whole steps of the clock, so that who comes before whom never changes
while both wait. The bound: a session of priority p is never behind one of priority q that began to
wait more than (q - p + 1) x `ageing_s` after it, whatever the order among equals.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sokovan.domain.cluster import QueueOrder
from sokovan.domain.resources import Hold, Request
from sokovan.domain.sessions import SessionWithKernels

if TYPE_CHECKING:
    from sokovan.placement.queue import Entry, Lane


class Line:
    """How far a pass has come in a lane.

    Attributes:
        demand: What all sessions in it ask for.
        owner: Whose they are, when the order asks for it.
        head: The next session, with its place; `None` when the pass is done with the lane.
    """

    __slots__ = ("_at", "_entries", "demand", "head", "owner")

    def __init__(self, lane: "Lane") -> None:
        self.demand = lane.demand
        self.owner = lane.owner
        self._entries = lane.entries
        self._at = 0
        self.head: Entry | None = lane.entries[0]

    def next(self) -> None:
        """Go on to the next session."""
        self._at += 1
        self.head = self._entries[self._at] if self._at < len(self._entries) else None

    def close(self) -> None:
        """Be done with the lane: none of the others finds room either."""
        self.head = None


class Shares:
    """What each owner holds, and their dominant shares, while a pass places sessions.

    The dominant share is the largest part of any one slot (cpu, mem, gpu) of the group's agents
    that an owner's sessions hold on these same agents. Shares are compared exactly, as whole
    numbers over one denominator.

    Source: Ghodsi et al., "Dominant Resource Fairness", NSDI 2011.
    """

    def __init__(self, totals: Mapping[str, int]) -> None:
        cpu, mem, gpu = (totals[slot] or 1 for slot in ("cpu", "mem", "gpu"))
        self._weights = (mem * gpu, cpu * gpu, cpu * mem)
        self._present = tuple(bool(totals[slot]) for slot in ("cpu", "mem", "gpu"))
        self._held: dict[str, list[int]] = {}

    def add(self, owner: str, requests: Iterable[Request]) -> None:
        """Count what an owner holds from now on."""
        held = self._held.setdefault(owner, [0, 0, 0])
        for request in requests:
            held[0] += request.cpu_milli
            held[1] += request.mem_bytes
            held[2] += request.gpu_shares

    def add_hold(self, owner: str, hold: Hold) -> None:
        """Count what an owner holds already."""
        held = self._held.setdefault(owner, [0, 0, 0])
        held[0] += hold.cpu_milli
        held[1] += hold.mem_bytes
        held[2] += sum(part for _, part in hold.devices)

    def dominant(self, owner: str) -> int:
        """Return an owner's dominant share as a numerator; all have the same denominator."""
        held = self._held.get(owner)
        if held is None:
            return 0
        parts = zip(held, self._weights, self._present, strict=True)
        return max(amount * weight if present else 0 for amount, weight, present in parts)


Walk = Callable[[Sequence[Line], Shares], Iterator[Line]]
"""Yields the line whose head is next. Between two, the pass places it, or closes the line.

A session's id ends what its entry is compared by: no two entries are equal up to there.
"""


def by_place(lines: Sequence[Line], shares: Shares) -> Iterator[Line]:
    """In order of rank, then of number."""
    heap = [(line.head, line) for line in lines if line.head]
    heapq.heapify(heap)
    while heap:
        line = heap[0][1]
        yield line
        if line.head is None:
            heapq.heappop(heap)
        else:
            heapq.heapreplace(heap, (line.head, line))


def by_dominant_share(lines: Sequence[Line], shares: Shares) -> Iterator[Line]:
    """In order of rank, then the owner with the smallest dominant share, by progressive filling.

    Equal shares go to the owner whose session came first.
    """
    of_owner: dict[str, list[tuple[Entry, Line]]] = {}
    for line in lines:
        if line.head:
            of_owner.setdefault(line.owner, []).append((line.head, line))
    owners = []
    for owner, heap in of_owner.items():
        heapq.heapify(heap)
        rank, *place = heap[0][0]
        owners.append((rank, shares.dominant(owner), place, owner))
    heapq.heapify(owners)
    while owners:
        *_, owner = owners[0]
        heap = of_owner[owner]
        line = heap[0][1]
        yield line
        if line.head is None:
            heapq.heappop(heap)
        else:
            heapq.heapreplace(heap, (line.head, line))
        if heap:
            rank, *place = heap[0][0]
            heapq.heapreplace(owners, (rank, shares.dominant(owner), place, owner))
        else:
            heapq.heappop(owners)


@dataclass(frozen=True, slots=True)
class Order:
    """How a queue is gone through.

    Attributes:
        walk: Yields whose turn it is.
        newest_first: Whether among equals the one accepted last comes first.
        by_owner: Whether it matters who owns a session.
    """

    walk: Walk
    newest_first: bool = False
    by_owner: bool = False


ORDERS: Mapping[QueueOrder, Order] = {
    QueueOrder.FIFO: Order(by_place),
    QueueOrder.LIFO: Order(by_place, newest_first=True),
    QueueOrder.DRF: Order(by_dominant_share, by_owner=True),
}


def effective_rank(session: SessionWithKernels, ageing_s: float) -> int:
    """Return the priority less the age at birth: as good as priority plus age, and it stays.

    A session waits since it was submitted, or since its begin time where that is later.
    """
    if not ageing_s:
        return session.priority
    return session.priority - int(max(session.created_at, session.begin_at or 0.0) // ageing_s)
