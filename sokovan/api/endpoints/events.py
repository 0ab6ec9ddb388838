"""Events: read page by page, or streamed as they come."""

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Query, Request
from pydantic import AfterValidator
from pydantic_core import to_json
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from sokovan.api.asked import Stopping, WaitS, Who, json_of
from sokovan.api.event_models import EVENT_STREAM, PAGE_EVENTS_MAX
from sokovan.api.event_models import Events as EventsPage
from sokovan.api.event_operations import EventOperations, Following
from sokovan.api.operation import Operation
from sokovan.api.problems import ServerStoppingError
from sokovan.api.texts import NAME_LENGTH_MAX, printable
from sokovan.config import ApiConfig
from sokovan.domain.errors import InvalidRequestError, TooManyRequestsError
from sokovan.domain.events import KINDS
from sokovan.store.events import EventFilter, Events

RETRY_MS = 1000
"""A browser whose stream is cut comes again after so long."""
BUSY_S = 5.0
ID_MAX = 2**53
PAGE_EVENTS = 1000

After = Annotated[int | None, Query(ge=0, le=ID_MAX)]
Text = Annotated[str | None, Query(max_length=NAME_LENGTH_MAX), AfterValidator(printable)]
Kinds = Annotated[list[str] | None, Query(max_length=len(KINDS))]


@dataclass(frozen=True, slots=True)
class Asked:
    """Which events a request is about."""

    session: str | None
    filter: EventFilter


async def asked_of(  # a plain function would be sent to a thread
    session: Text = None,
    owner: Text = None,
    group: Text = None,
    name: Text = None,
    kind: Kinds = None,
) -> Asked:
    """Read which events a request is about."""
    return Asked(session, EventFilter(owner=owner, group=group, name=name, kinds=kind or ()))


Which = Annotated[Asked, Depends(asked_of)]


class EventEndpoints:
    """What is asked about events."""

    operations = (
        Operation("GET", "/events", "events", (EventsPage,), names_one=True, may_be_gone=True),
        Operation(
            "GET",
            "/events/stream",
            "event_stream",
            content=EVENT_STREAM,
            names_one=True,
            may_be_gone=True,
        ),
    )

    def __init__(self, events: EventOperations, config: ApiConfig) -> None:
        self._events = events
        self._config = config
        self._open = 0

    async def events(
        self,
        request: Request,
        caller: Who,
        asked: Which,
        *,
        after: After = None,
        last: Annotated[int | None, Query(ge=1, le=PAGE_EVENTS_MAX)] = None,
        limit: Annotated[int, Query(ge=1, le=PAGE_EVENTS_MAX)] = PAGE_EVENTS,
        wait_s: WaitS = 0.0,
    ) -> Response:
        """Return the events behind `after`, or the `last` ones; with neither, where they stand.

        With `wait_s`, it answers as soon as there is one, or when that time is over.
        """
        if last is not None and after is not None:
            raise InvalidRequestError("last: it goes without after; leave one out", field="last")
        wanted = await self._events.filter(asked.filter, asked.session, caller=caller)
        if last is not None:
            return _page(await self._events.last(wanted, last, caller=caller))
        if after is None and not wait_s:
            return _page(Events((), await self._events.newest(None), more=False))
        here = await self._events.newest(after)
        page = self._events.page(wanted, here, limit, caller=caller, wait_s=wait_s)
        return _page(await _stopping(request).unless(page))

    async def event_stream(
        self,
        request: Request,
        caller: Who,
        asked: Which,
        *,
        after: After = None,
        last_event_id: Annotated[str | None, Header(max_length=20)] = None,
    ) -> Response:
        """Stream events as they come: those behind `after`, or behind `Last-Event-ID`, which wins.

        With neither, only new ones. After an hour it ends: come again with `Last-Event-ID`.
        """
        if self._open >= self._config.event_streams_max:
            busy = TooManyRequestsError(
                f"{self._open} event streams are open, and more are not allowed; close one, ask"
                " again later, or have api.event_streams_max raised"
            )
            busy.retry_after_s = BUSY_S
            raise busy
        if last_event_id:
            after = _event_id(last_event_id)
        wanted = await self._events.filter(asked.filter, asked.session, caller=caller)
        here = await self._events.newest(after)
        following = self._events.following(wanted, here, caller=caller)
        return _Stream(self, _lines(following, here, request))

    def opened(self, change: int) -> None:
        """Count the streams that are open."""
        self._open += change


class _Stream(StreamingResponse):
    """Counts while it is open, and ends what it reads from at once when its reader goes."""

    def __init__(self, endpoints: EventEndpoints, lines: AsyncGenerator[bytes, None]) -> None:
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        super().__init__(lines, media_type="text/event-stream", headers=headers)
        self._endpoints = endpoints
        self._lines = lines

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._endpoints.opened(+1)
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._endpoints.opened(-1)
            await self._lines.aclose()


async def _lines(
    opened: AbstractAsyncContextManager[Following], here: int, request: Request
) -> AsyncGenerator[bytes, None]:
    """Write events as Server-Sent Events; a block without one tells where the stream stands."""
    stopping = _stopping(request)
    yield b"retry: %d\n:\nid: %d\n\n" % (RETRY_MS, here)
    async with opened as following:
        while not following.is_over:
            try:
                piece = await stopping.unless(following.piece())
            except ServerStoppingError:
                return
            for_each = (
                b"id: %d\nevent: %s\ndata: %s\n\n"
                % (event["id"], event["kind"].encode(), to_json(event))
                for event in piece.items
            )
            yield b"".join(for_each) or b":\nid: %d\n\n" % piece.after


def _event_id(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) <= ID_MAX):
        raise InvalidRequestError(
            f"Last-Event-ID: {text!r} is no event's id; send the id of the last one you had",
            field="Last-Event-ID",
        )
    return int(text)


def _page(found: Events) -> Response:
    return json_of({"items": found.items, "next_after": found.after, "more": found.more})


def _stopping(request: Request) -> Stopping:
    stopping: Stopping = request.app.state.stopping
    return stopping
