"""Sessions: submitted, listed, looked at, read, ended."""

from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Annotated, Literal

from fastapi import Query, Request
from pydantic import AfterValidator
from starlette.responses import Response, StreamingResponse

from sokovan.api import answers
from sokovan.api.asked import Stopping, WaitS, Who, body_of, json_of
from sokovan.api.models import CancelBody, SessionBody, SessionsBody, read_cancel, read_submission
from sokovan.api.operation import Operation
from sokovan.api.service import Service
from sokovan.api.texts import NAME_LENGTH_MAX, Cursor, printable
from sokovan.config import ApiConfig
from sokovan.domain.access import Role
from sokovan.domain.errors import InvalidRequestError
from sokovan.scheduler.messages import OutputChunk

FOLLOW_WAIT_S = 15.0
"""How often a stream without anything to send looks whether its reader is still there."""
PAGE_SESSIONS = 1000
"""Sessions in a page when the request does not say."""
CHUNK_BYTES_MAX = 1 << 20

Offset = Annotated[int, Query(ge=-(2**53), le=2**53)]
Name = Annotated[str | None, Query(max_length=NAME_LENGTH_MAX), AfterValidator(printable)]
Sort = Literal[
    "-number", "number", "-priority", "priority", "-status_since", "status_since", "-name", "name"
]
SUBMITTED = (SessionBody, SessionsBody)
OUTPUT_HEADERS = {
    "x-sokovan-offset": ("where the answer begins", "integer", True),
    "x-sokovan-size": ("how long the stream is by now; not with `follow`", "integer", False),
    "x-sokovan-ended": ("whether nothing follows that; not with `follow`", "boolean", False),
}
OUTPUT = {
    "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    "headers": {
        header: {"description": meaning, "required": required, "schema": {"type": kind}}
        for header, (meaning, kind, required) in OUTPUT_HEADERS.items()
    },
}


class SessionEndpoints:
    """What is asked about sessions."""

    operations = (
        Operation(
            "POST",
            "/sessions",
            "submit",
            (answers.Session, answers.Sessions),
            SUBMITTED,
            Role.USER,
            status=201,
            may_conflict=True,
        ),
        Operation(
            "POST",
            "/sessions/dry-run",
            "dry_run",
            (answers.DryRun, answers.DryRuns),
            SUBMITTED,
        ),
        Operation("GET", "/sessions", "sessions", (answers.Page,), names_one=True),
        Operation("GET", "/sessions/{ref}", "session", (answers.Session,), names_one=True),
        Operation("GET", "/sessions/{ref}/history", "history", (answers.History,), names_one=True),
        Operation("GET", "/sessions/{ref}/why", "why", (answers.Why,), names_one=True),
        Operation("GET", "/sessions/{ref}/eta", "eta", (answers.Eta,), names_one=True),
        Operation("GET", "/sessions/{ref}/wait", "wait", (answers.Session,), names_one=True),
        Operation("GET", "/sessions/{ref}/output", "output", content=OUTPUT, names_one=True),
        Operation(
            "POST",
            "/sessions/{ref}/cancel",
            "cancel",
            (answers.Cancelled,),
            (CancelBody,),
            Role.USER,
            body_may_be_empty=True,
            names_one=True,
        ),
        Operation(
            "POST",
            "/sessions/{ref}/hold",
            "hold",
            (answers.Session,),
            needs=Role.USER,
            names_one=True,
        ),
        Operation(
            "POST",
            "/sessions/{ref}/release",
            "release",
            (answers.Session,),
            needs=Role.USER,
            names_one=True,
        ),
    )

    def __init__(self, service: Service, config: ApiConfig, stopping: Stopping) -> None:
        self._service = service
        self._config = config
        self._stopping = stopping

    async def submit(self, request: Request, caller: Who) -> Response:
        """Accept one session, or several under `sessions`: all or none; answers when on disk."""
        body = await body_of(request, self._config.body_bytes_max)
        specs, many = read_submission(
            body, owner=caller.user, sessions_max=self._config.submit_sessions_max
        )
        views = await self._service.submit(specs, caller=caller)
        return json_of({"sessions": views} if many else views[0], status=201)

    async def dry_run(self, request: Request, caller: Who, suggest: bool = False) -> Response:
        """Say what would become of sessions, were they submitted together; changes nothing."""
        body = await body_of(request, self._config.body_bytes_max)
        specs, many = read_submission(
            body, owner=caller.user, sessions_max=self._config.submit_sessions_max
        )
        views = await self._service.dry_run(specs, caller=caller, suggest=suggest)
        return json_of({"sessions": views} if many else views[0])

    async def sessions(
        self,
        caller: Who,
        *,
        live_only: bool | None = None,
        status: Annotated[list[str] | None, Query(max_length=20)] = None,
        owner: Name = None,
        name: Name = None,
        group: Name = None,
        array: Name = None,
        tasks: bool = True,
        limit: Annotated[int | None, Query(ge=1)] = None,
        cursor: Cursor | None = None,
        sort: Sort = "-number",
    ) -> Response:
        """List sessions, newest first; only live ones, unless `status` or `live_only` says else.

        `sort` says by what else, and whether from the greatest (`-`) or from the least.
        With `array` only tasks of that array, or of a part of it; with `tasks=false` none at all.
        """
        most = self._config.page_sessions_max
        if limit is not None and limit > most:
            raise InvalidRequestError(
                f"limit: {limit} is more than the {most} that a page may have; follow next_cursor",
                field="limit",
            )
        page = await self._service.sessions(
            caller=caller,
            live_only=not status if live_only is None else live_only,
            statuses=status or (),
            owner=owner,
            name=name,
            scaling_group=group,
            array=array,
            tasks=tasks,
            limit=limit or min(PAGE_SESSIONS, most),
            cursor=cursor,
            sort=sort,
        )
        return json_of(page)

    async def session(self, ref: str, caller: Who) -> Response:
        """Return one session."""
        return json_of(await self._service.session(ref, caller=caller))

    async def history(self, ref: str, caller: Who) -> Response:
        """Return every recorded change of a session and its kernels, oldest first."""
        return json_of({"items": await self._service.history(ref, caller=caller)})

    async def why(self, ref: str, caller: Who, suggest: bool = False) -> Response:
        """Explain where a session stands: a sentence, a code, and the numbers behind it."""
        return json_of(await self._service.why(ref, caller=caller, suggest=suggest))

    async def eta(self, ref: str, caller: Who) -> Response:
        """Say when a session should start, or has started."""
        return json_of(await self._service.eta(ref, caller=caller))

    async def wait(self, ref: str, caller: Who, timeout_s: WaitS = 30.0) -> Response:
        """Return the session once it has ended, or as it is after `timeout_s`."""
        asked = self._service.wait(ref, caller=caller, timeout_s=timeout_s)
        return json_of(await self._stopping.unless(asked))

    async def output(
        self,
        request: Request,
        ref: str,
        caller: Who,
        *,
        kernel: Annotated[int, Query(ge=0, le=2**31)] = 0,
        stream: Literal["stdout", "stderr"] = "stdout",
        offset: Offset = 0,
        bytes_max: Annotated[int, Query(ge=1, le=CHUNK_BYTES_MAX)] = CHUNK_BYTES_MAX,
        wait_s: WaitS = 0.0,
        follow: bool = False,
    ) -> Response:
        """Return a piece of a kernel's output; with `follow`, all until the kernel is over."""

        async def read(offset: int, wait_s: float) -> OutputChunk:
            return await self._stopping.unless(
                self._service.output(
                    ref,
                    caller=caller,
                    kernel_index=kernel,
                    stream=stream,
                    offset=offset,
                    bytes_max=bytes_max,
                    wait_s=wait_s,
                )
            )

        chunk = await read(offset, wait_s)
        headers = {
            "x-sokovan-offset": str(chunk.offset),
            "x-sokovan-size": str(chunk.size),
            "x-sokovan-ended": "true" if chunk.ended else "false",
        }
        if not follow:
            return Response(chunk.data, headers=headers, media_type="application/octet-stream")
        return StreamingResponse(
            _follow(request, chunk, partial(read, wait_s=FOLLOW_WAIT_S)),
            headers={"x-sokovan-offset": str(chunk.offset)},
            media_type="application/octet-stream",
        )

    async def cancel(self, request: Request, ref: str, caller: Who) -> Response:
        """Ask for a session's end."""
        how = read_cancel(await body_of(request))
        return json_of(await self._service.cancel(ref, caller=caller, force=how.force))

    async def hold(self, ref: str, caller: Who) -> Response:
        """Hold a waiting session back."""
        return json_of(await self._service.set_held(ref, caller=caller, held=True))

    async def release(self, ref: str, caller: Who) -> Response:
        """Let a held session take part again."""
        return json_of(await self._service.set_held(ref, caller=caller, held=False))


async def _follow(
    request: Request, chunk: OutputChunk, read: Callable[[int], Awaitable[OutputChunk]]
) -> AsyncIterator[bytes]:
    """Send a kernel's output as it appears, until the kernel is over and all of it was sent."""
    while True:
        if chunk.data:
            yield chunk.data
        after = chunk.offset + len(chunk.data)
        if chunk.ended and after >= chunk.size:
            return
        if await request.is_disconnected():
            return
        chunk = await read(after)
