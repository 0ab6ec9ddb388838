"""What endpoints share: who asks, how a body is read, how an answer is written."""

import asyncio
from collections.abc import Awaitable
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Query, Request
from pydantic_core import to_json
from starlette.responses import Response

from sokovan.api.problems import ServerStoppingError
from sokovan.domain.access import Caller
from sokovan.domain.errors import InvalidRequestError

WAIT_S_MAX = 3600.0
"""Longest that one request may wait for something to happen."""
SMALL_BODY_BYTES_MAX = 64 * 1024

T = TypeVar("T")


async def caller_of(request: Request) -> Caller:
    """Return who makes a request, as the guard has found. Asynchronous: else it takes a thread."""
    caller: Caller = request.state.caller
    return caller


Who = Annotated[Caller, Depends(caller_of)]
WaitS = Annotated[float, Query(ge=0, le=WAIT_S_MAX)]


class BodyTooLargeError(InvalidRequestError):
    """More was sent than is taken at once."""

    http_status = 413


async def body_of(request: Request, bytes_max: int = SMALL_BODY_BYTES_MAX) -> bytes:
    """Read a body, and no more of it than is allowed.

    Raises:
        BodyTooLargeError: There is more.
    """
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > bytes_max:
            raise BodyTooLargeError(
                f"the body is larger than the {bytes_max} bytes that are taken at once; send less"
            )
        parts.append(part)
    return b"".join(parts)


def json_of(view: Any, *, status: int = 200) -> Response:
    """Answer with a view as JSON."""
    content = to_json(view, inf_nan_mode="null")
    return Response(content, status_code=status, media_type="application/json")


class Stopping:
    """Says whether the server was told to stop: requests that wait then end at once."""

    def __init__(self) -> None:
        self.told = asyncio.Event()

    async def unless(self, asked: Awaitable[T]) -> T:
        """Await `asked`, but not beyond the moment at which the server is told to stop.

        Raises:
            ServerStoppingError: It was.
        """
        work = asyncio.ensure_future(asked)
        stop = asyncio.ensure_future(self.told.wait())
        try:
            await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise ServerStoppingError
            return work.result()
        finally:
            stop.cancel()
            work.cancel()
