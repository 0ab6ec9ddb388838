"""A session's turn in a pass, at which it may be asked whether it would start with a change."""

from collections.abc import Callable
from dataclasses import replace

from sokovan.domain.sessions import SessionWithKernels
from sokovan.placement.engine import Pass
from sokovan.placement.placer import Places
from sokovan.placement.snapshot import Snapshot

LAST = 2**60
"""The number of a session that would be submitted now."""


class Turn:
    """The moment of a pass at which it is a session's turn.

    Args:
        snapshot: What the pass is over.
        session: Whose turn; it need not be in the queue.
        like: Another turn at the same moment, which saves work.
    """

    def __init__(
        self, snapshot: Snapshot, session: SessionWithKernels, like: "Turn | None" = None
    ) -> None:
        self.snapshot = snapshot
        self.done: Pass = Pass(snapshot, session, like=like.done if like else None)
        self.done.run()
        self._last: dict[int, Turn] = {}

    def places(self, changed: SessionWithKernels) -> Places | None:
        """Say where the session would go, changed in whatever leaves its turn alone."""
        return self.done.would_start(changed) if self.done.turn_came else None

    def starts(self, changed: SessionWithKernels) -> bool:
        """Say whether it would start, changed in whatever leaves its turn alone."""
        return self.places(changed) is not None

    def at_priority(self, changed: SessionWithKernels) -> bool:
        """Say whether it would start with another priority."""
        return Turn(self.snapshot, changed, self).starts(changed)

    def starts_as_new(self, changed: SessionWithKernels) -> bool:
        """Say whether it would start if it were submitted only now, in its own stead."""
        last = self._last.get(changed.priority)
        if last is None:
            new = replace(changed, number=LAST, created_at=self.snapshot.now, begin_at=None)
            last = self._last[changed.priority] = Turn(self.snapshot, new, self)
        return last.starts(changed)


def largest(least: int, most: int, starts: Callable[[int], bool]) -> int | None:
    """Return the largest number of a range that starts; if one does, so do all below it."""
    if least > most or not starts(least):
        return None
    while least < most:
        middle = (least + most + 1) // 2
        least, most = (middle, most) if starts(middle) else (least, middle - 1)
    return least


def smallest(least: int, most: int, starts: Callable[[int], bool]) -> int | None:
    """Return the smallest number of a range that starts; if one does, so do all above it."""
    found = largest(-most, -least, lambda number: starts(-number))
    return None if found is None else -found
