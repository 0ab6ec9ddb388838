"""How often callers may ask: so much a second on average, and more than that for a moment."""

import hashlib
import math
from functools import lru_cache
from ipaddress import IPv6Address, ip_address

from sokovan.api.guard import Identify
from sokovan.clock import Clock
from sokovan.domain.access import Caller
from sokovan.domain.errors import TooManyRequestsError

BURST_S = 5.0
"""So many seconds' worth of requests may come at once."""
FAILURES_PER_S = 20.0
"""So many requests without a good token may come from one address."""
REMEMBERED_MAX = 10_000
"""So many users, addresses and tokens are remembered, the last to ask."""


class Buckets:
    """A bucket of requests for each key: every request takes one, and time fills it again.

    Args:
        clock: Fills them.
        per_s: How many requests a second they are filled with.
    """

    def __init__(self, clock: Clock, per_s: float) -> None:
        self._clock = clock
        self._per_s = per_s
        self._size = max(1.0, per_s * BURST_S)
        self._left: dict[str, tuple[float, float]] = {}
        """What was left and when, the key that was used last at the end."""

    def __len__(self) -> int:
        return len(self._left)

    def pause_s(self, key: str) -> float:
        """Return how long a key has to wait for its next request; 0 is not at all."""
        return max(0.0, (1.0 - self._level(key)) / self._per_s)

    def take(self, key: str) -> float:
        """Take a request; return 0, or how long to wait for one when there is none to be had."""
        pause_s = self.pause_s(key)
        level = self._level(key) - (0.0 if pause_s else 1.0)
        self._left.pop(key, None)
        self._left[key] = level, self._clock.now()
        if len(self._left) > REMEMBERED_MAX:  # most likely it is full again
            del self._left[next(iter(self._left))]
        return pause_s

    def _level(self, key: str) -> float:
        now = self._clock.now()
        level, at = self._left.get(key, (self._size, now))
        return min(self._size, level + (now - at) * self._per_s)


class Limiter:
    """Finds out who asks, and lets nobody ask too often. An `Identify` around another.

    A user may ask so often, with however many tokens. Whoever has no good token may try so often
    from one address; beyond that, only tokens that were good there before are looked at, so that
    nobody can guess quickly, and nobody who guesses keeps others on the same machine out.

    Args:
        identify: Says whose a token is.
        clock: The time.
        requests_per_s_max: For each user; 0 is no limit.
    """

    def __init__(self, identify: Identify, clock: Clock, requests_per_s_max: int) -> None:
        self._identify = identify
        self._users = Buckets(clock, requests_per_s_max) if requests_per_s_max else None
        self._failures = Buckets(clock, FAILURES_PER_S)
        self._good: dict[tuple[str, bytes], None] = {}
        """Digests of tokens that were good, by where from, the last to be used at the end."""

    def __call__(self, given: bytes, address: str) -> Caller | None:
        """Say whose a token is.

        Raises:
            TooManyRequestsError: Its user, or its address, has asked too often.
        """
        place = _place(address)
        token = place, hashlib.sha256(given).digest()
        if token not in self._good and (pause_s := self._failures.pause_s(place)):
            raise _too_many("there are too many requests without a good token from here", pause_s)
        self._good.pop(token, None)
        caller = self._identify(given, address)
        if caller is None:
            self._failures.take(place)
            return None
        self._good[token] = None
        if len(self._good) > REMEMBERED_MAX:
            del self._good[next(iter(self._good))]
        if self._users is not None and (pause_s := self._users.take(caller.user)):
            raise _too_many(f"{caller.user} asks too often", pause_s)
        return caller


def _too_many(sentence: str, pause_s: float) -> TooManyRequestsError:
    after_s = max(1, math.ceil(pause_s))
    error = TooManyRequestsError(f"{sentence}; try again in {after_s} s")
    error.retry_after_s = after_s
    return error


@lru_cache(maxsize=1024)
def _place(address: str) -> str:
    """Return what one machine may not have many of: an address, or the network of an IPv6 one."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return parsed.exploded[:19]  # 64 bits: one machine has as many of the others as it likes
