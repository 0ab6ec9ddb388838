"""What would become of sessions, were they submitted now: they come, are looked at, and go."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from sokovan.domain.sessions import SessionWithKernels
from sokovan.placement.engine import Pass
from sokovan.placement.snapshot import Snapshot


@contextmanager
def visited(snapshot: Snapshot, visitors: Iterable[SessionWithKernels]) -> Iterator[Pass]:
    """Give a pass over a snapshot in whose queue some more sessions stand, for as long as it takes.

    The snapshot is then as it was, whatever happens, and so is what earlier passes found. Nobody
    may `run` a pass that lasts meanwhile.

    Args:
        snapshot: Any, also one that is kept from pass to pass.
        visitors: Sessions that may be placed, numbered behind all others.
    """
    queue = snapshot.queue
    version = queue.version
    queued = [replace(visitor, begin_at=None) for visitor in visitors]  # it has come, or is not set
    try:
        for visitor in queued:
            queue.put(visitor)
        done = Pass(snapshot.apart())
        done.run()
        yield done
    finally:
        for visitor in queued:
            queue.drop(visitor.session_id)
        queue.version = version
