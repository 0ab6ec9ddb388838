"""What happens, told in order: what there is, and what comes."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

from sokovan.api.lookup import Lookup, shapes_of_lines
from sokovan.api.notices import Notices
from sokovan.clock import Clock
from sokovan.domain.access import Caller
from sokovan.domain.events import check_kinds
from sokovan.scheduler.moves import Applied
from sokovan.store.engine import Database
from sokovan.store.events import (
    EventFilter,
    Events,
    check_kept,
    events_after,
    horizon,
    last_events,
)
from sokovan.store.repository import SqlRepository

HEARTBEAT_S = 15.0
"""A stream with nothing to tell says so every so often."""
GATHER_S = 0.1
"""Whoever was woken waits so long for more: what comes thick and fast is read together."""
STREAM_S_MAX = 3600.0
"""A stream ends after so long, so that its reader comes again with a token that is still good."""
STREAM_EVENTS_MAX = 500
"""Most events of a stream that are in memory at once."""


class EventOperations(Lookup):
    """What is asked about events.

    Args:
        repository: Knows what is alive.
        database: Reads.
        clock: The time.
        tell: Takes what a request has changed.
        notices: Wakes those who wait.
    """

    def __init__(
        self,
        repository: SqlRepository,
        database: Database,
        clock: Clock,
        tell: Callable[[Applied], None],
        notices: Notices,
    ) -> None:
        super().__init__(repository, database, clock, tell)
        self._notices = notices

    async def filter(
        self, asked: EventFilter, session: str | None, *, caller: Caller
    ) -> EventFilter:
        """Return the filter with the session that is meant, its kinds checked."""
        kinds = check_kinds(asked.kinds, field="kind")
        session_id = None if session is None else await self._resolve(session, caller)
        return replace(asked, kinds=kinds, session_id=session_id)

    async def newest(self, after: int | None) -> int:
        """Return where to go on: behind `after`, or behind all that there is.

        Raises:
            EventsGoneError: What follows `after` is not there.
        """
        if after is None:
            return await self._database.read(horizon)
        await self._database.read(lambda tx: check_kept(tx, after))
        return after

    async def last(self, asked: EventFilter, limit: int, *, caller: Caller) -> Events:
        """Return the last events."""
        found = await self._database.read(lambda tx: last_events(tx, asked, limit))
        return _seen_by(caller, found)

    async def page(
        self, asked: EventFilter, after: int, limit: int, *, caller: Caller, wait_s: float = 0.0
    ) -> Events:
        """Return the first events behind `after`; wait for one when there is none."""
        until = self._clock.now() + wait_s
        async with self._notices.of_history() as written:
            while True:
                written.clear()
                found = await self._read(asked, after, limit, caller)
                left_s = until - self._clock.now()
                if found.items or (left_s <= 0 and not found.more):
                    return found
                after = found.after
                if not found.more:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(left_s):
                            await written.wait()
                            await asyncio.sleep(GATHER_S)

    @asynccontextmanager
    async def following(
        self, asked: EventFilter, after: int, *, caller: Caller
    ) -> AsyncIterator["Following"]:
        """Give what reads the events behind `after` as they come."""

        async def read(after: int) -> Events:
            return await self._read(asked, after, STREAM_EVENTS_MAX, caller)

        async with self._notices.of_history() as written:
            yield Following(read, after, written, self._clock)

    async def _read(self, asked: EventFilter, after: int, limit: int, caller: Caller) -> Events:
        found = await self._database.read(lambda tx: events_after(tx, asked, after, limit))
        return _seen_by(caller, found)


class Following:
    """One reader's way through the events; holds one piece at a time."""

    def __init__(
        self,
        read: Callable[[int], Awaitable[Events]],
        after: int,
        written: asyncio.Event,
        clock: Clock,
    ) -> None:
        self._read = read
        self._at = Events((), after, more=True)
        self._written = written
        self._clock = clock
        self._until = clock.now() + STREAM_S_MAX

    @property
    def is_over(self) -> bool:
        """Whether it has gone on for so long that its reader is to come again."""
        return self._clock.now() >= self._until

    async def piece(self) -> Events:
        """Return the next events; without any after a while in which there were none."""
        try:
            async with asyncio.timeout(HEARTBEAT_S):
                while True:
                    if not self._at.more:
                        await self._written.wait()
                        await asyncio.sleep(GATHER_S)
                    self._written.clear()
                    self._at = await self._read(self._at.after)
                    if self._at.items:
                        return self._at
        except TimeoutError:
            return replace(self._at, items=())


def _seen_by(caller: Caller, found: Events) -> Events:
    """Leave out what the caller may not see of others' sessions."""
    items: Sequence[dict[str, object]] = [
        event if caller.may_read(event["owner"]) else shapes_of_lines([event])[0]
        for event in found.items
    ]
    return replace(found, items=items)
