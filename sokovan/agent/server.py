"""An agent behind a Unix socket: one JSON value on each line, in both directions.

The agent speaks first: `{"op": "hello", "hello": …, "config": …}`. A manager answers
`{"op": "welcome", "incarnation": N}` and is the agent's manager from then on; the one before, which
has a lower number, is shown out. Who asks without having said so is answered, and no more.
Now the agent sends what there is to say, when it comes and again at every heartbeat:

    {"op": "reports", "reports": […]}
    {"op": "heartbeat", "tokens": […], "reports": […]}

and the manager, once it has written that down, `{"op": "ack", "reports": […]}` and
`{"op": "seen"}`.
Questions carry an `id`, and so does their answer, `ok` or `error`; they may overlap.
Nothing that comes in can end the agent: what is not understood is answered with an error.
"""

import asyncio
import base64
import contextlib
import json
import logging
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sokovan.agent.agent import Agent
from sokovan.agent.frames import SOCKET, Frame, FrameStream, at_directory, parts
from sokovan.agent.timers import Timers
from sokovan.agent.wire import (
    WireError,
    decode_prepare,
    decode_report,
    decode_start,
    decode_stop,
    encode_hello,
    encode_report,
    field_of,
    token_of,
)
from sokovan.domain.errors import SokovanError
from sokovan.scheduler.messages import KernelReport

log = logging.getLogger(__name__)

COALESCE_S = 0.002
"""How long a report waits for others to share its frame."""
UNREAD_BYTES_MAX = 4 * 1024 * 1024
"""A manager that has so much still to read gets no more heartbeats for the time being."""


class Server:
    """Serves one agent below its directory.

    Args:
        agent: The agent; its `on_news` is taken over.
        directory: Where the socket is made.
        timers: Runs the heartbeat.
        heartbeat_s: How often that is.
        config: What the agent was started with, told to managers as it is.
        leave: Called when the agent is to end, with the reason.
    """

    def __init__(
        self,
        agent: Agent,
        directory: Path,
        *,
        timers: Timers,
        heartbeat_s: float,
        config: Frame,
        leave: Callable[[str], None],
    ) -> None:
        self._agent = agent
        self._directory = directory
        self._timers = timers
        self._heartbeat_s = heartbeat_s
        self._leave = leave
        self._manager: FrameStream | None = None
        self._incarnation = 0
        self._flush: asyncio.TimerHandle | None = None
        self._listener: asyncio.Server | None = None
        self._socket_inode = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._greeting = {"op": "hello", "hello": encode_hello(agent.hello), "config": config}
        agent.on_news = self._on_news

    async def open(self) -> None:
        """Listen, and begin to beat."""
        self._loop = asyncio.get_running_loop()
        await self._listen()
        self._timers.after(self._heartbeat_s, self._beat)

    async def close(self) -> None:
        """Stop listening and talking."""
        if self._listener is not None:
            self._listener.close()
        if self._flush is not None:
            self._flush.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._manager is not None:
            self._manager.close()

    async def _listen(self) -> None:
        if self._listener is not None:
            self._listener.close()
        path = self._directory / SOCKET
        path.unlink(missing_ok=True)
        with at_directory(self._directory) as short:
            listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            listening.bind(f"{short}/{SOCKET}")
        path.chmod(0o600)
        self._socket_inode = path.stat().st_ino
        self._listener = await self._loop.create_unix_server(self._connection, sock=listening)

    def _connection(self) -> FrameStream:
        return FrameStream(self._received, self._lost, self._greeting)

    # --- to the manager ---------------------------------------------------------------------------

    def _on_news(self) -> None:
        if self._flush is None and self._manager is not None:
            self._flush = self._loop.call_later(COALESCE_S, self._send_news)

    def _send_news(self) -> None:
        self._flush = None
        if self._manager is not None and (news := self._agent.news()):
            for part in parts(_rows(news)):
                self._manager.send({"op": "reports", "reports": part})

    def _beat(self) -> None:
        self._timers.after(self._heartbeat_s, self._beat)
        self._send_heartbeat()
        self._look_after_socket()

    def _send_heartbeat(self) -> None:
        manager = self._manager
        if manager is None or manager.unread_bytes() > UNREAD_BYTES_MAX:
            return
        *before, last = list(parts(_rows(self._agent.unacknowledged()))) or [[]]
        for part in before:
            manager.send({"op": "reports", "reports": part})
        manager.send({"op": "heartbeat", "tokens": self._agent.live_tokens(), "reports": last})

    def _look_after_socket(self) -> None:
        """Listen again when somebody removed the socket; end when there is nothing to stay for."""
        path = self._directory / SOCKET
        with contextlib.suppress(OSError):
            if path.stat().st_ino == self._socket_inode:
                return
        if self._directory.is_dir():
            log.warning("the socket is gone; it is made again")
            self._run(self._listen())
        elif not self._agent.live_tokens():
            self._leave("its directory is gone")

    # --- from the manager -------------------------------------------------------------------------

    def _lost(self, connection: FrameStream) -> None:
        if self._manager is connection:
            self._manager = None
            log.info("the manager is gone")

    def _received(self, connection: FrameStream, line: bytes) -> None:
        if connection is self._manager and self._agent.is_cut_off:
            log.warning("what was asked before this machine stood still is too old to be done")
            connection.close()
            return
        number: object = None
        try:
            frame = json.loads(line)
            if not isinstance(frame, dict):
                raise WireError("a frame is an object")
            number = frame.get("id")
            op = field_of(frame, "op", str)
            if op == "welcome":
                self._welcomed(connection, field_of(frame, "incarnation", int, 0))
            elif op == "ack":
                reports = field_of(frame, "reports", list)
                self._agent.acknowledge([decode_report(row) for row in reports])
            elif op != "seen":
                self._run(self._answer(connection, number, op, frame))
            if connection is self._manager:
                self._agent.heard()
        except (ValueError, RecursionError) as error:
            log.warning("a frame is refused: %s", error)
            connection.send({"id": number, "error": f"not understood: {error}"})

    def _welcomed(self, connection: FrameStream, incarnation: int) -> None:
        if self._manager is not None and incarnation < self._incarnation:
            log.warning("a manager has come that is no more; it is shown out")
            connection.close()
            return
        before, self._manager, self._incarnation = self._manager, connection, incarnation
        if before is not None and before is not connection:
            log.warning("another manager has come; the one before is shown out")
            before.close()
        self._send_heartbeat()

    async def _answer(self, connection: FrameStream, number: object, op: str, frame: Frame) -> None:
        try:
            connection.send({"id": number, "ok": await self._do(op, frame)})
        except (WireError, SokovanError) as error:
            connection.send({"id": number, "error": str(error)})
        except Exception as error:
            log.exception("%s failed", op)
            connection.send({"id": number, "error": f"{type(error).__name__}: {error}"})

    async def _do(self, op: str, frame: Frame) -> object:
        if op == "start":
            return _rows(await self._agent.start([decode_start(k) for k in _kernels(frame)]))
        if op == "prepare":
            return _rows(await self._agent.prepare([decode_prepare(k) for k in _kernels(frame)]))
        if op == "stop":
            return _rows(await self._agent.stop([decode_stop(k) for k in _kernels(frame)]))
        if op == "states":
            tokens = [token_of(token) for token in field_of(frame, "tokens", list)]
            return _rows(await self._agent.states(tokens))
        if op == "read":
            chunk = await self._agent.read_output(
                token_of(frame.get("token")),
                field_of(frame, "stream", str),
                offset=field_of(frame, "offset", int),
                bytes_max=field_of(frame, "bytes_max", int),
                wait_s=field_of(frame, "wait_s", float),
            )
            data = base64.b64encode(chunk.data).decode()
            return [data, chunk.offset, chunk.size, chunk.ended]
        if op == "exit":
            live = len(self._agent.live_tokens())
            goes = not (live and field_of(frame, "if_idle", bool))
            if goes:
                self._loop.call_soon(self._leave, "a manager asked it to")
            return [live, goes]
        raise WireError(f"{op!r}: no such question")

    def _run(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _kernels(frame: Frame) -> list[Frame]:
    kernels = field_of(frame, "kernels", list)
    if not all(isinstance(kernel, dict) for kernel in kernels):
        raise WireError("kernels: expected a list of objects")
    return kernels


def _rows(reports: Sequence[KernelReport]) -> list[list[Any]]:
    return [encode_report(report) for report in reports]
