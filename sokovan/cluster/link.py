"""The manager's end of a connection to one agent process."""

import asyncio
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sokovan.agent.frames import SOCKET, Frame, FrameStream, at_directory, parts
from sokovan.agent.wire import WireError, decode_hello, field_of
from sokovan.domain.errors import AgentError
from sokovan.scheduler.messages import AgentHello

log = logging.getLogger(__name__)


class Link:
    """One connection: questions and answers by number, and what the agent says unasked.

    Make one with `open_link`.

    Attributes:
        hello: How the agent introduced itself.
        config: What it was started with.
        is_silent: Whether a question was given up, and nothing has been heard since.
        told: Set when there is something in `take`, or the connection is lost.
    """

    def __init__(self) -> None:
        self.hello: AgentHello
        self.config: Frame = {}
        self.told = asyncio.Event()
        self._stream = FrameStream(self._received, self._lost)
        self._loop = asyncio.get_running_loop()
        self._greeted: asyncio.Future[None] = self._loop.create_future()
        self._questions: dict[int, asyncio.Future[Any]] = {}
        self._number = 0
        self._frames: list[Frame] = []
        self._is_lost = False
        self.is_silent = False

    @property
    def is_lost(self) -> bool:
        """Whether the connection is closed."""
        return self._is_lost

    async def connect(self, directory: Path) -> None:
        """Connect, and hear the agent's hello.

        Raises:
            OSError: Nobody listens there.
            AgentError: Whoever listens is no agent.
        """
        with at_directory(directory) as short:
            await self._loop.create_unix_connection(lambda: self._stream, f"{short}/{SOCKET}")
        await self._greeted

    async def ask(self, op: str, **fields: Any) -> Any:
        """Ask a question and wait for its answer, however long; the caller sets the limit.

        Raises:
            AgentError: The agent refuses, or the connection is lost.
        """
        if self._is_lost:
            raise AgentError("the connection to the agent is lost")
        self._number += 1
        number = self._number
        answer = self._questions[number] = self._loop.create_future()
        try:
            self._stream.send({"id": number, "op": op, **fields})
            return await answer
        finally:
            self._questions.pop(number, None)

    def welcome(self, incarnation: int) -> None:
        """Become the agent's manager; from now on it reports."""
        self._stream.send({"op": "welcome", "incarnation": incarnation})

    def acknowledge(self, rows: Sequence[Any]) -> None:
        """Say that these reports, as they came, are written down."""
        for part in parts(rows):
            self._stream.send({"op": "ack", "reports": part})

    def seen(self) -> None:
        """Say that a heartbeat was heard."""
        self._stream.send({"op": "seen"})

    def take(self) -> list[Frame]:
        """Take what the agent has said unasked since the last time."""
        frames, self._frames = self._frames, []
        self.told.clear()
        return frames

    def close(self) -> None:
        """Hang up; the agent goes on."""
        if not self._is_lost:
            self._stream.close()

    def _received(self, stream: FrameStream, line: bytes) -> None:
        self.is_silent = False
        try:
            frame = json.loads(line)
            if not isinstance(frame, dict):
                raise WireError("a frame is an object")
            if "op" not in frame:
                self._answered(frame)
            elif frame["op"] == "hello":
                self.hello = decode_hello(field_of(frame, "hello", dict))
                self.config = field_of(frame, "config", dict)
                if not self._greeted.done():
                    self._greeted.set_result(None)
            else:
                self._frames.append(frame)
                self.told.set()
        except (ValueError, RecursionError) as error:
            log.warning("what an agent said is not understood: %s", error)
            if not self._greeted.done():
                self._greeted.set_exception(AgentError(f"not an agent: {error}"))
            self.close()

    def _answered(self, frame: Frame) -> None:
        answer = self._questions.get(field_of(frame, "id", int, 0))
        if answer is None or answer.done():
            return  # whoever asked has given up
        if "error" in frame:
            answer.set_exception(AgentError(str(frame["error"])))
        else:
            answer.set_result(frame.get("ok"))

    def _lost(self, stream: FrameStream) -> None:
        self._is_lost = True
        self.told.set()
        for future in (self._greeted, *self._questions.values()):
            if not future.done():
                future.set_exception(AgentError("the connection to the agent is lost"))


async def open_link(directory: Path) -> Link:
    """Connect to the agent of a directory.

    Raises:
        OSError: Nobody listens there.
        AgentError: Whoever listens is no agent.
    """
    link = Link()
    try:
        await link.connect(directory)
    except BaseException:
        link.close()
        raise
    return link
