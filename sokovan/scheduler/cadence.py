"""When each piece of work is due: on a hint, at a known moment, and every full cycle anyway."""

import math
from collections.abc import Hashable, Mapping


class Cadence:
    """Keeps the time of work that never overlaps with itself.

    Args:
        every_s: How often each piece of work runs without a hint.
    """

    def __init__(self, every_s: Mapping[Hashable, float]) -> None:
        self._every_s = dict(every_s)
        self._due_at: dict[Hashable, float] = dict.fromkeys(every_s, 0.0)
        self._in_flight: set[Hashable] = set()
        self._rests_until: dict[Hashable, float] = {}
        self._next_at: float | None = None
        """What `next_at` returned, as long as it is true."""

    def add(self, key: Hashable, every_s: float) -> None:
        """Keep the time of another piece of work; it is due now."""
        self._every_s[key] = every_s
        self._due_at[key] = 0.0
        self._next_at = None

    def drop(self, key: Hashable) -> None:
        """Forget a piece of work; it need not be known, and may be under way."""
        self._every_s.pop(key, None)
        self._due_at.pop(key, None)
        self._next_at = None

    def wake_at(self, key: Hashable, at: float) -> None:
        """Have `key` run at `at`, unless it is due earlier anyway."""
        if at < self._due_at.get(key, -math.inf):  # one that was dropped is not due any more
            self._due_at[key] = at
            self._next_at = None

    def hint(self, key: Hashable) -> None:
        """Have `key` run as soon as it can."""
        self.wake_at(key, 0.0)

    def due(self, now: float) -> list[Hashable]:
        """Return what is due and not under way, in a fixed order."""
        if self.next_at() > now:
            return []
        return [
            key
            for key, at in self._due_at.items()
            if at <= now and key not in self._in_flight and self._rests_until.get(key, 0.0) <= now
        ]

    def begin(self, key: Hashable, now: float) -> None:
        """Note that `key` runs; a hint from now on means another run."""
        self._in_flight.add(key)
        if key in self._every_s:  # else it was dropped since it was found to be due
            self._due_at[key] = now + self._every_s[key]
        self._next_at = None

    def end(self, key: Hashable, *, rest_until: float = 0.0) -> None:
        """Note that `key` is over, and is not to run again before `rest_until`."""
        self._in_flight.discard(key)
        self._rests_until[key] = rest_until
        self._next_at = None

    def next_at(self) -> float:
        """Return when something will be due that is not under way."""
        if self._next_at is None:
            waiting = (
                max(at, self._rests_until.get(key, 0.0))
                for key, at in self._due_at.items()
                if key not in self._in_flight
            )
            self._next_at = min(waiting, default=math.inf)
        return self._next_at
