"""The only reader of time.

Time is seconds since the epoch as `float`. `SystemClock` reads the wall once, when it is made, and
counts on from there with the boot-time clock: a step of the machine's clock, or a suspended laptop,
moves no deadline backwards and expires nothing early.
"""

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """What the rest of Sokovan knows of time."""

    def now(self) -> float:
        """Return seconds since the epoch; never goes backwards within one process."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Let `seconds` pass."""
        ...


class SystemClock:
    """The machine's time, immune to steps of the wall clock after it was made."""

    def __init__(self) -> None:
        self._offset_s = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)

    def now(self) -> float:
        """Return seconds since the epoch."""
        return self._offset_s + time.clock_gettime(time.CLOCK_BOOTTIME)

    async def sleep(self, seconds: float) -> None:
        """Wait, leaving the event loop to others."""
        await asyncio.sleep(seconds)


class ManualClock:
    """Time that passes only when it is told to; for tests and the simulator."""

    def __init__(self, now: float = 1_000_000_000.0) -> None:
        self._now = now

    def now(self) -> float:
        """Return the time it was last set to."""
        return self._now

    async def sleep(self, seconds: float) -> None:
        """Move the clock forward and let others run once."""
        self.advance(seconds)
        await asyncio.sleep(0)

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass at once."""
        assert seconds >= 0, "time does not run backwards"
        self._now += seconds
