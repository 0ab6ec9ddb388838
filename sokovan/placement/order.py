"""Who is looked at first. A new order is one function and one entry in `ORDERS`."""

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter

from sokovan.domain.cluster import QueueOrder
from sokovan.domain.sessions import SessionWithKernels
from sokovan.placement.snapshot import Snapshot

Order = Callable[[Snapshot], Sequence[SessionWithKernels]]

_number = attrgetter("number", "session_id")
_priority = attrgetter("priority")


def fifo(snapshot: Snapshot) -> Sequence[SessionWithKernels]:
    """Higher priority first, then as accepted."""
    queue = sorted(snapshot.pending, key=_number)
    queue.sort(key=_priority, reverse=True)
    return queue


ORDERS: Mapping[QueueOrder, Order] = {
    QueueOrder.FIFO: fifo,
}
