"""`sokovan.AsyncClient`: what a program with an event loop asks of the server, one method each.

`sync_client.py`, with `sokovan.Client`, is written from this file by `scripts/sync_client.py`.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, Unpack

from sokovan.client.addresses import (
    DRY_RUN,
    SESSIONS,
    WAIT_SLICE_S,
    completed,
    items_of,
    sent_once,
    session_path,
    sessions_of,
)
from sokovan.client.async_arrays import AsyncArrays
from sokovan.client.async_connection import AsyncConnection
from sokovan.client.async_events import AsyncEvents
from sokovan.client.connection import output_of, place_of, view_of
from sokovan.client.fields import (
    EditOptions,
    Output,
    RedoOptions,
    SessionFields,
    SessionOptions,
    View,
    Views,
    captured,
)
from sokovan.client.tries import RETRY_S
from sokovan.domain.statuses import FINAL


class AsyncClient(AsyncArrays, AsyncEvents):
    """What a program asks of one server. Not for several threads at a time: give each its own.

    What is left out is taken from the environment, and what that leaves out from the home:

    Args:
        home: The server's home; left out, SOKOVAN_HOME, or `~/.sokovan`.
        url: Where the server listens; left out, SOKOVAN_URL unless a home was named, or what the
            home's `server.json` says.
        token: Left out, SOKOVAN_TOKEN, or what the home's file `token` holds.
        ca_file: Whose certificates a server at `https:` may have: a PEM file. Left out,
            SOKOVAN_CA_FILE, or those that this machine trusts.
        timeout_s: How long an answer may take, beside what a request asked to wait.
        retry_s: How long a request may pause, all together, before it is sent again where the
            server is busy or its store unavailable; 0: never. A cut connection is retried once,
            at once. Every request may be sent twice: submissions carry a creation id.
        revive: Called when no server answers, to start one; the request is then sent again.
    """

    def __init__(
        self,
        home: Path | str | None = None,
        *,
        url: str | None = None,
        token: str | None = None,
        ca_file: Path | str | None = None,
        timeout_s: float = 30.0,
        retry_s: float = RETRY_S,
        revive: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        place = place_of(home, url=url, token=token, ca_file=ca_file)
        self.home = place.home
        self._connection = AsyncConnection(
            place, timeout_s=timeout_s, retry_s=retry_s, revive=revive
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections; the next request opens new ones."""
        await self._connection.close()

    @property
    def server_time(self) -> float | None:
        """The server's clock at its last answer, in seconds since the epoch."""
        return self._connection.server_time

    # --- submitting -------------------------------------------------------------------------------

    async def submit(self, command: Sequence[str], **options: Unpack[SessionOptions]) -> View:
        """Submit one session; it is on the server's disk when this returns."""
        session: SessionFields = {"command": command, **options}
        return await self._ask("POST", SESSIONS, body=completed(session, captured()))

    async def submit_many(self, sessions: Iterable[SessionFields]) -> Views:
        """Submit sessions, all or none, and return them in the same order."""
        here = captured()
        body = {"sessions": [completed(session, here) for session in sessions]}
        answer = await self._ask("POST", SESSIONS, body=body)
        return sessions_of(answer)

    async def dry_run(
        self, command: Sequence[str], *, suggest: bool = False, **options: Unpack[SessionOptions]
    ) -> View:
        """Say what would become of a session, were it submitted now; nothing changes.

        `accepted`, `starts_now`, `agents`; else `sentence`, `code`, `facts`, `eta`, `suggestions`.

        Args:
            command: As for `submit`, and so are the options.
            suggest: Find what would start it now.
        """
        session: SessionFields = {"command": command, **options}
        body = completed(session, captured())
        return await self._ask("POST", DRY_RUN, body=body, params={"suggest": suggest})

    async def dry_run_many(
        self, sessions: Iterable[SessionFields], *, suggest: bool = False
    ) -> Views:
        """Say the same of sessions that would be submitted together, in the same order."""
        here = captured()
        body = {"sessions": [completed(session, here) for session in sessions]}
        answer = await self._ask("POST", DRY_RUN, body=body, params={"suggest": suggest})
        return sessions_of(answer)

    # --- one session ------------------------------------------------------------------------------
    # `ref` is an id, a prefix that only one id has, `@` for the last submitted session, or `@~2`
    # for the one two before it.

    async def get(self, ref: str) -> View:
        """Return one session."""
        return await self._ask("GET", session_path(ref))

    async def history(self, ref: str) -> Views:
        """Return every recorded change of a session and its kernels, oldest first."""
        return items_of(await self._ask("GET", session_path(ref, "history")))

    async def why(self, ref: str, *, suggest: bool = False) -> View:
        """Explain where a session stands: `session`, `sentence`, `code` and `facts`.

        Args:
            ref: The session.
            suggest: Find what would start it now: `suggestions`.
        """
        return await self._ask(
            "GET", session_path(ref, "why"), params={"suggest": True} if suggest else None
        )

    async def eta(self, ref: str) -> View:
        """Say when a session should start, or has started, and its `position` in the queue."""
        return await self._ask("GET", session_path(ref, "eta"))

    async def wait(self, ref: str, timeout_s: float | None = None) -> View:
        """Return the session once it has ended, or as it is after `timeout_s`."""
        left = timeout_s
        while True:
            slice_s = WAIT_SLICE_S if left is None else min(left, WAIT_SLICE_S)
            path = session_path(ref, "wait")
            session = await self._ask("GET", path, wait_s=slice_s, params={"timeout_s": slice_s})
            if session["status"] in FINAL:
                return session
            ref = session["id"]  # what `@` means may have changed meanwhile
            if left is not None:
                left -= slice_s
                if left <= 0:
                    return session

    async def cancel(self, ref: str, *, force: bool = False) -> View:
        """Ask for a session's end; `outcome` is `cancelled`, `terminating` or `already-ended`.

        Args:
            ref: The session.
            force: Kill its kernels at once, without the grace.
        """
        return await self._ask("POST", session_path(ref, "cancel"), body={"force": force})

    async def edit(self, ref: str, **changes: Unpack[EditOptions]) -> View:
        """Change what was submitted of a session that waits; of one that runs, its walltime."""
        return await self._ask("PATCH", session_path(ref), body=changes)

    async def redo(self, ref: str, **changes: Unpack[RedoOptions]) -> View:
        """Submit again what a session was, for its owner; return the new session."""
        return await self._ask("POST", session_path(ref, "redo"), body=sent_once(changes))

    async def hold(self, ref: str) -> View:
        """Hold a waiting session back."""
        return await self._ask("POST", session_path(ref, "hold"))

    async def release(self, ref: str) -> View:
        """Let a held session take part again."""
        return await self._ask("POST", session_path(ref, "release"))

    # --- output -----------------------------------------------------------------------------------

    async def read_output(
        self,
        ref: str,
        *,
        kernel: int = 0,
        stream: str = "stdout",
        offset: int = 0,
        wait_s: float = 0.0,
    ) -> Output:
        """Read one piece of a kernel's output.

        Args:
            ref: The session.
            kernel: The kernel's index.
            stream: `stdout` or `stderr`.
            offset: Where to begin; a negative one counts from the end.
            wait_s: How long to wait for something to appear there.
        """
        params = {"kernel": kernel, "stream": stream, "offset": offset, "wait_s": wait_s}
        response = await self._connection.send(
            "GET", session_path(ref, "output"), params=params, wait_s=wait_s
        )
        return output_of(response)

    async def output(
        self,
        ref: str,
        *,
        kernel: int = 0,
        stream: str = "stdout",
        offset: int = 0,
        follow: bool = False,
    ) -> AsyncIterator[bytes]:
        """Yield a kernel's output from `offset` on: what there is, or with `follow` all of it.

        A stream that was followed ends when the kernel is over and everything was yielded. When the
        server dies meanwhile and `revive` brings it back, it goes on where it was.
        """
        session = await self.get(ref)
        ref = session["id"]
        wait_s = WAIT_SLICE_S if follow else 0.0
        while True:
            piece = await self.read_output(
                ref, kernel=kernel, stream=stream, offset=offset, wait_s=wait_s
            )
            if piece.data:
                yield piece.data
            if piece.is_last or not (follow or piece.end < piece.size):
                return
            offset = piece.end

    # --- all of it --------------------------------------------------------------------------------

    async def list(
        self,
        *,
        live_only: bool = True,
        status: Sequence[str] = (),
        owner: str | None = None,
        name: str | None = None,
        group: str | None = None,
        array: str | None = None,
        tasks: bool = True,
        limit: int | None = None,
        sort: str | None = None,
    ) -> Views:
        """List sessions, newest first: at most `limit` of them, all when it is left out.

        With `array` only tasks of that one, or of a part of it; without `tasks`, none of any.
        `sort` is `number`, `priority`, `status_since` or `name`; `-priority` from the greatest.
        """
        params: dict[str, Any] = {"live_only": live_only, "status": [*status]}
        if not tasks:
            params["tasks"] = False
        named = {"owner": owner, "name": name, "group": group, "array": array, "sort": sort}
        params |= {key: value for key, value in named.items() if value is not None}
        return await self._pages(SESSIONS, params, limit)

    async def status(self) -> View:
        """Return the server's pid, version, address, uptime and counts."""
        return await self._ask("GET", "/v1/status")

    async def ping(self) -> None:
        """Return when the server answers.

        Raises:
            ServerUnreachableError: It does not.
        """
        await self._connection.send("GET", "/healthz")

    async def shut_down(self) -> int:
        """Ask the server to stop, and return its pid; kernels are not touched."""
        answer = await self._ask("POST", "/v1/shutdown")
        return int(answer["pid"])

    # --- how it is asked --------------------------------------------------------------------------

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        params: Mapping[str, Any] | None = None,
        wait_s: float = 0.0,
        once: bool = False,
    ) -> View:
        """Send a request, and return what it is answered with; `AsyncConnection.send` says more."""
        response = await self._connection.send(
            method, path, body=body, params=params, wait_s=wait_s, once=once
        )
        return view_of(response)
