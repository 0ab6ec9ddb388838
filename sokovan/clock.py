"""The only reader of time.

Time is seconds since the epoch as `float`. `SystemClock` reads the wall once, when it is made, and
counts on from there with the boot-time clock: a step of the machine's clock, or a suspended laptop,
moves no deadline backwards and expires nothing early.
"""

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Origin:
    """What a clock counts from: two of one boot differ by what the wall clock was set meanwhile."""

    boot_id: str = ""
    """Names the time since the machine was started; empty when it is not known."""
    wall_s: float = 0.0
    """When that was, by the wall clock as it stood when the counting began."""


class Clock(Protocol):
    """What the rest of Sokovan knows of time."""

    def now(self) -> float:
        """Return seconds since the epoch; never goes backwards within one process."""
        ...

    @property
    def origin(self) -> Origin:
        """What it counts from."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Let `seconds` pass."""
        ...


class SystemClock:
    """The machine's time, immune to steps of the wall clock after it was made."""

    def __init__(self) -> None:
        wall_s = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        self.origin = Origin(boot_id(), wall_s)

    def now(self) -> float:
        """Return seconds since the epoch."""
        return self.origin.wall_s + time.clock_gettime(time.CLOCK_BOOTTIME)

    async def sleep(self, seconds: float) -> None:
        """Wait, leaving the event loop to others."""
        await asyncio.sleep(seconds)


class ManualClock:
    """Time that passes only when it is told to; for tests and the simulator."""

    origin = Origin()

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


def boot_id() -> str:
    """Return what names this run of the machine; empty when the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
