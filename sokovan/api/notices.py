"""Who is woken when a session changes, or when anything does."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from sokovan.domain.sessions import SessionId
from sokovan.scheduler.moves import Applied

RECHECK_S = 30.0
"""A waiter looks again after so long, so that a lost notice only delays it."""


class Notices:
    """Wakes those who wait for a session to change. A post-processor of the coordinator."""

    def __init__(self) -> None:
        self._waiters: dict[SessionId, list[asyncio.Event]] = defaultdict(list)
        self._readers: list[asyncio.Event] = []

    def __call__(self, applied: Applied) -> None:
        for event in self._readers if applied.wrote else ():
            event.set()
        for moved in applied.moved:
            for event in self._waiters.get(moved.session_id, ()):
                event.set()

    @asynccontextmanager
    async def of(self, session_id: SessionId) -> AsyncIterator[asyncio.Event]:
        """Give an event that is set whenever the session changes."""
        event = asyncio.Event()
        self._waiters[session_id].append(event)
        try:
            yield event
        finally:
            self._waiters[session_id].remove(event)
            if not self._waiters[session_id]:
                del self._waiters[session_id]

    @asynccontextmanager
    async def of_history(self) -> AsyncIterator[asyncio.Event]:
        """Give an event that is set whenever history has new lines."""
        event = asyncio.Event()
        self._readers.append(event)
        try:
            yield event
        finally:
            self._readers.remove(event)


async def at_most(seconds: float, event: asyncio.Event) -> None:
    """Wait until an event is set, but no longer than that."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
