"""What is to happen later: one queue of callbacks, driven by a clock and by nothing else.

The agent process drives it with `run()`. Tests and the simulator advance a `ManualClock` and call
`run_due()`, so that a simulated agent is deterministic.
"""

import asyncio
import heapq
import logging
import math
from collections.abc import Callable, Coroutine
from typing import Any

from sokovan.clock import Clock

log = logging.getLogger(__name__)

IDLE_S = 3600.0
"""Longest sleep of an empty queue."""


class Timer:
    """One callback that is still to come, unless it is cancelled."""

    __slots__ = ("at", "call", "order")

    def __init__(self, at: float, order: int, call: Callable[[], object] | None) -> None:
        self.at = at
        self.order = order
        self.call = call

    def __lt__(self, other: "Timer") -> bool:
        return (self.at, self.order) < (other.at, other.order)

    def cancel(self) -> None:
        """Never call; harmless when it has been called."""
        self.call = None


class Timers:
    """Callbacks by the time they are due; those of one moment run in the order they were set."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._heap: list[Timer] = []
        self._set = 0
        self._earlier = asyncio.Event()

    def after(self, seconds: float, call: Callable[[], object]) -> Timer:
        """Have `call` called once when `seconds` have passed."""
        self._set += 1
        timer = Timer(self._clock.now() + seconds, self._set, call)
        heapq.heappush(self._heap, timer)
        if self._heap[0] is timer:
            self._earlier.set()
        return timer

    def due_at(self) -> float:
        """Return when the next callback is due: never, when there is none."""
        while self._heap and self._heap[0].call is None:
            heapq.heappop(self._heap)
        return self._heap[0].at if self._heap else math.inf

    def run_due(self) -> None:
        """Call whatever is due by now; what that sets for now waits for the next call."""
        now = self._clock.now()
        if self.due_at() > now:
            return
        due = []
        while self.due_at() <= now:
            due.append(heapq.heappop(self._heap))
        due.reverse()
        try:
            while due:
                timer = due.pop()
                call, timer.call = timer.call, None
                if call is not None:
                    call()
        finally:  # one that fails does not lose the others
            for timer in due:
                heapq.heappush(self._heap, timer)

    async def run(self) -> None:
        """Call everything when it is due, for ever."""
        while True:
            try:
                self.run_due()
            except Exception:
                log.exception("something that was due failed")
            self._earlier.clear()
            wait_s = min(self.due_at() - self._clock.now(), IDLE_S)
            if wait_s > 0:
                await first_of(self._clock.sleep(wait_s), self._earlier.wait())
            else:
                await asyncio.sleep(0)


async def first_of(*waits: Coroutine[Any, Any, object]) -> None:
    """Wait until one of `waits` is over; cancel the others."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
