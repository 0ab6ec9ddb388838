"""Lines of JSON on a Unix socket: the same for the agent and for whoever talks to it."""

import asyncio
import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

SOCKET = "agent.sock"
FRAME_BYTES_MAX = 64 * 1024 * 1024
"""Longest line that either side reads."""

Frame = Mapping[str, Any]


class FrameStream(asyncio.Protocol):
    """One end of a connection: cuts what comes in into lines.

    Args:
        received: Takes each line, without its end.
        lost: Called once, when the connection is closed by either side.
        greeting: Sent first of all.
    """

    def __init__(
        self,
        received: Callable[["FrameStream", bytes], None],
        lost: Callable[["FrameStream"], None],
        greeting: Frame | None = None,
    ) -> None:
        self._received = received
        self._lost = lost
        self._greeting = greeting
        self._buffer = bytearray()
        self._searched = 0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if self._greeting is not None:
            self.send(self._greeting)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost(self)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        begin = 0
        while (end := buffer.find(b"\n", max(begin, self._searched))) >= 0:
            if self._transport is None or self._transport.is_closing():
                return
            self._received(self, bytes(buffer[begin:end]))
            begin = end + 1
        del buffer[:begin]
        self._searched = len(buffer)
        if len(buffer) > FRAME_BYTES_MAX:
            self.send({"id": None, "error": "not understood: the frame is too long"})
            self.close()

    def send(self, frame: Frame) -> None:
        """Send one frame; what is sent to a closed connection is lost."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(json.dumps(frame, separators=(",", ":")).encode() + b"\n")

    def unread_bytes(self) -> int:
        """Return how much the other side has not read yet."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def close(self) -> None:
        """Send what is still to be sent, and close."""
        if self._transport is not None:
            self._transport.close()


@contextlib.contextmanager
def at_directory(directory: Path) -> Iterator[str]:
    """Give a short name for a directory, for as long as is needed to bind or connect.

    The path of a Unix socket may have 107 bytes; that of a home may be longer.
    """
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)
