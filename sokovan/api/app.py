"""The HTTP interface: `/v1`, JSON, one token.

Requests are checked for their shape here and for their meaning by the service. Answers are sent as
the service gives them.
"""

import asyncio
import os
import pwd
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic_core import to_json
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.responses import Response, StreamingResponse

from sokovan import __version__
from sokovan.api import contract
from sokovan.api.guard import Guard
from sokovan.api.models import Cursor, read_cancel, read_drain, read_labels, read_submission
from sokovan.api.problems import ServerStoppingError, invalid, problem_response
from sokovan.api.service import Service
from sokovan.config import ApiConfig
from sokovan.domain.errors import InvalidRequestError, SokovanError
from sokovan.scheduler.messages import OutputChunk

WAIT_S_MAX = 3600.0
"""Longest that one request may wait for something to happen."""
FOLLOW_WAIT_S = 15.0
"""How often a stream without anything to send looks whether its reader is still there."""
PAGE_SESSIONS = 1000
"""Sessions in a page when the request does not say."""
CHUNK_BYTES_MAX = 1 << 20
SMALL_BODY_BYTES_MAX = 64 * 1024

T = TypeVar("T")

Owner = Annotated[str | None, Query(max_length=255)]
WaitS = Annotated[float, Query(ge=0, le=WAIT_S_MAX)]
Offset = Annotated[int, Query(ge=-(2**53), le=2**53)]


def build_app(
    service: Service,
    token: str,
    config: ApiConfig,
    *,
    shutdown: Callable[[], None],
) -> FastAPI:
    """Build the API in front of `service`.

    Whoever stops the server sets `app.state.stopping`, an `asyncio.Event`: requests that wait then
    end at once.

    Args:
        service: What does the work.
        token: What every request but `/healthz` must carry.
        config: The limits on what is taken at once.
        shutdown: Called once after `POST /v1/shutdown` was answered.
    """
    app = FastAPI(
        title="Sokovan",
        version=__version__,
        openapi_url="/v1/openapi.json",
        docs_url=None,  # these pages would be fetched from far away, and without the token
        redoc_url=None,
        separate_input_output_schemas=False,
        redirect_slashes=False,  # nobody is sent, with the token, to what the Host header says
    )
    app.state.stopping = asyncio.Event()
    api = Api(service, config, stopping=app.state.stopping, shutdown=shutdown)
    app.include_router(_routes(api))
    app.add_api_route(
        "/healthz", api.healthz, response_class=Response, methods=["GET"], **contract.healthz()
    )
    app.add_exception_handler(SokovanError, _sokovan_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_middleware(Guard, token=token)
    app.openapi = partial(_openapi, app, app.openapi)  # type: ignore[method-assign]
    return app


class Api:
    """The requests, one method each."""

    def __init__(
        self,
        service: Service,
        config: ApiConfig,
        *,
        stopping: asyncio.Event,
        shutdown: Callable[[], None],
    ) -> None:
        self._service = service
        self._config = config
        self._stopping = stopping
        self._shutdown = shutdown
        self._owner = server_user()

    async def healthz(self) -> Response:
        """Answer that the server is there; needs no token and tells nothing."""
        return Response("ok\n", media_type="text/plain")

    async def submit(self, request: Request) -> Response:
        """Accept one session, or several under `sessions`: all or none; answers when on disk."""
        body = await _read(request, self._config.body_bytes_max)
        specs, many = read_submission(
            body, owner=self._owner, sessions_max=self._config.submit_sessions_max
        )
        views = await self._service.submit(specs)
        return _json({"sessions": views} if many else views[0], status=201)

    async def dry_run(self, request: Request, suggest: bool = False) -> Response:
        """Say what would become of sessions, were they submitted together; changes nothing."""
        body = await _read(request, self._config.body_bytes_max)
        specs, many = read_submission(
            body, owner=self._owner, sessions_max=self._config.submit_sessions_max
        )
        views = await self._service.dry_run(specs, suggest=suggest)
        return _json({"sessions": views} if many else views[0])

    async def sessions(
        self,
        live_only: bool | None = None,
        status: Annotated[list[str] | None, Query(max_length=20)] = None,
        owner: Owner = None,
        name: Annotated[str | None, Query(max_length=255)] = None,
        group: Annotated[str | None, Query(max_length=255)] = None,
        limit: Annotated[int | None, Query(ge=1)] = None,
        cursor: Cursor | None = None,
    ) -> Response:
        """List sessions, newest first; only live ones, unless `status` or `live_only` says else."""
        most = self._config.page_sessions_max
        if limit is not None and limit > most:
            raise InvalidRequestError(
                f"limit: {limit} is more than the {most} that a page may have; follow next_cursor",
                field="limit",
            )
        page = await self._service.sessions(
            live_only=not status if live_only is None else live_only,
            statuses=status or (),
            owner=owner,
            name=name,
            scaling_group=group,
            limit=limit or min(PAGE_SESSIONS, most),
            cursor=cursor,
        )
        return _json(page)

    async def session(self, ref: str, owner: Owner = None) -> Response:
        """Return one session."""
        return _json(await self._service.session(ref, owner=owner or self._owner))

    async def history(self, ref: str, owner: Owner = None) -> Response:
        """Return every recorded change of a session and its kernels, oldest first."""
        return _json({"items": await self._service.history(ref, owner=owner or self._owner)})

    async def why(self, ref: str, owner: Owner = None, suggest: bool = False) -> Response:
        """Explain where a session stands: a sentence, a code, and the numbers behind it."""
        return _json(await self._service.why(ref, owner=owner or self._owner, suggest=suggest))

    async def eta(self, ref: str, owner: Owner = None) -> Response:
        """Say when a session should start, or has started."""
        return _json(await self._service.eta(ref, owner=owner or self._owner))

    async def wait(self, ref: str, owner: Owner = None, timeout_s: WaitS = 30.0) -> Response:
        """Return the session once it has ended, or as it is after `timeout_s`."""
        owner = owner or self._owner
        return _json(
            await self._unless_stopping(self._service.wait(ref, owner=owner, timeout_s=timeout_s))
        )

    async def output(
        self,
        request: Request,
        ref: str,
        *,
        owner: Owner = None,
        kernel: Annotated[int, Query(ge=0, le=2**31)] = 0,
        stream: Literal["stdout", "stderr"] = "stdout",
        offset: Offset = 0,
        bytes_max: Annotated[int, Query(ge=1, le=CHUNK_BYTES_MAX)] = CHUNK_BYTES_MAX,
        wait_s: WaitS = 0.0,
        follow: bool = False,
    ) -> Response:
        """Return a piece of a kernel's output; with `follow`, all until the kernel is over."""

        async def read(offset: int, wait_s: float) -> OutputChunk:
            return await self._unless_stopping(
                self._service.output(
                    ref,
                    owner=owner or self._owner,
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

    async def cancel(self, request: Request, ref: str, owner: Owner = None) -> Response:
        """Ask for a session's end."""
        how = read_cancel(await _read(request, SMALL_BODY_BYTES_MAX))
        return _json(await self._service.cancel(ref, owner=owner or self._owner, force=how.force))

    async def hold(self, ref: str, owner: Owner = None) -> Response:
        """Hold a waiting session back."""
        return _json(await self._service.set_held(ref, owner=owner or self._owner, held=True))

    async def release(self, ref: str, owner: Owner = None) -> Response:
        """Let a held session take part again."""
        return _json(await self._service.set_held(ref, owner=owner or self._owner, held=False))

    async def agents(self) -> Response:
        """Return every agent: what it has, what is held, what is free."""
        return _json({"items": await self._service.agents()})

    async def drain(self, request: Request, agent_id: str) -> Response:
        """Give an agent no new kernels, until `undrain`; those it has go on."""
        why = read_drain(await _read(request, SMALL_BODY_BYTES_MAX))
        return _json(await self._service.set_drained(agent_id, drained=True, reason=why.reason))

    async def undrain(self, agent_id: str) -> Response:
        """Give an agent new kernels again."""
        return _json(await self._service.set_drained(agent_id, drained=False))

    async def label(self, request: Request, agent_id: str) -> Response:
        """Set labels of an agent, and take those away that are null; its settings lose to this."""
        labels = read_labels(await _read(request, SMALL_BODY_BYTES_MAX))
        return _json(await self._service.set_labels(agent_id, labels))

    async def remove(self, agent_id: str, force: bool = False) -> Response:
        """Forget an agent that is GONE, with `force` also the kernels that may still run there."""
        return _json(await self._service.remove_agent(agent_id, force=force))

    async def status(self) -> Response:
        """Return pid, version, address, uptime and counts."""
        return _json(await self._service.status())

    async def stop(self) -> Response:
        """Stop the server; kernels are not touched."""
        already = self._stopping.is_set()
        self._stopping.set()
        task = None if already else BackgroundTask(self._stop)
        return Response(
            to_json({"pid": os.getpid()}), media_type="application/json", background=task
        )

    async def _stop(self) -> None:
        self._shutdown()

    async def _unless_stopping(self, asked: Awaitable[T]) -> T:
        """Await `asked`, but not beyond the moment at which the server is told to stop."""
        work = asyncio.ensure_future(asked)
        stop = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise ServerStoppingError
            return work.result()
        finally:
            stop.cancel()
            work.cancel()


def server_user() -> str:
    """Return the name of the user whose server this is: the owner of what comes without one."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # a container may run as a number that has no name
        return str(os.geteuid())


def _routes(api: Api) -> APIRouter:
    """Say which address leads to which method."""
    routes = APIRouter(prefix="/v1", default_response_class=Response)
    for method, path, name in (
        ("POST", "/sessions", "submit"),
        ("POST", "/sessions/dry-run", "dry_run"),
        ("GET", "/sessions", "sessions"),
        ("GET", "/sessions/{ref}", "session"),
        ("GET", "/sessions/{ref}/history", "history"),
        ("GET", "/sessions/{ref}/why", "why"),
        ("GET", "/sessions/{ref}/eta", "eta"),
        ("GET", "/sessions/{ref}/wait", "wait"),
        ("GET", "/sessions/{ref}/output", "output"),
        ("POST", "/sessions/{ref}/cancel", "cancel"),
        ("POST", "/sessions/{ref}/hold", "hold"),
        ("POST", "/sessions/{ref}/release", "release"),
        ("GET", "/agents", "agents"),
        ("POST", "/agents/{agent_id}/drain", "drain"),
        ("POST", "/agents/{agent_id}/undrain", "undrain"),
        ("POST", "/agents/{agent_id}/label", "label"),
        ("DELETE", "/agents/{agent_id}", "remove"),
        ("GET", "/status", "status"),
        ("POST", "/shutdown", "stop"),
    ):
        routes.add_api_route(
            path,
            getattr(api, name),
            methods=[method],
            **contract.operation(name),
        )
    return routes


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


async def _read(request: Request, bytes_max: int) -> bytes:
    """Read a body, and no more of it than is allowed."""
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


class BodyTooLargeError(InvalidRequestError):
    """More was sent than is taken at once."""

    http_status = 413


def _json(view: Any, *, status: int = 200) -> Response:
    content = to_json(view, inf_nan_mode="null")
    return Response(content, status_code=status, media_type="application/json")


def _openapi(app: FastAPI, generate: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Complete the document once."""
    if app.openapi_schema is None:
        contract.complete(generate())
    assert app.openapi_schema is not None
    return app.openapi_schema


async def _sokovan_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, SokovanError)
    return problem_response(error)


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    places = [{**found, "loc": found["loc"][1:]} for found in error.errors()]  # not: query, path
    return problem_response(invalid(places))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    nowhere = InvalidRequestError(f"{request.method} {request.scope['path']}: {error.detail}")
    return problem_response(nowhere, http_status=error.status_code, headers=error.headers)
