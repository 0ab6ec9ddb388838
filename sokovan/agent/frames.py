"""Lines of JSON on a Unix socket: the same for the agent and for whoever talks to it."""

import asyncio
import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

SOCKET = "agent.sock"
FRAME_BYTES_MAX = 64 * 1024 * 1024
"""Longest line that either side reads."""
PART_BYTES_MAX = 16 * 1024 * 1024
"""Most that is put into one frame of what fits into several.

The largest thing that there is is an order: it takes less than 12 MiB, even where each byte of its
command and environment, which have less than 2 MiB together, is escaped to six.
"""

Frame = Mapping[str, Any]
T = TypeVar("T")


def address_at(directory: Path) -> str:
    """Return where an agent with this directory is found: its machine, and the directory there."""
    return f"{os.uname().nodename}:{directory}"


def directory_of(address: str) -> Path | None:
    """Return the directory of an agent on this machine; `None` when it is on another one."""
    machine, _, directory = address.partition(":")
    is_here = machine == os.uname().nodename and directory.startswith("/")
    return Path(directory) if is_here else None


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
            self._transport.write(encode(frame) + b"\n")

    def unread_bytes(self) -> int:
        """Return how much the other side has not read yet."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def close(self) -> None:
        """Send what is still to be sent, and close."""
        if self._transport is not None:
            self._transport.close()


_WRITER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)
"""Made once: `json.dumps` makes one for each value."""


def encode(value: object) -> bytes:
    """Write a value as JSON in UTF-8, on one line."""
    return _WRITER.encode(value).encode(errors="surrogatepass")  # as `json.loads` reads it


def parts(items: Sequence[T], count_max: int | None = None) -> Iterator[Sequence[T]]:
    """Cut a list into parts of which each fits into one frame.

    Args:
        items: What is to be sent; each of them must fit.
        count_max: Most of them in one part; no limit if left out.
    """
    begin, size = 0, 0
    for end, item in enumerate(items):
        item_bytes = len(encode(item)) + 1
        if end > begin and (size + item_bytes > PART_BYTES_MAX or end - begin == count_max):
            yield items[begin:end]
            begin, size = end, 0
        size += item_bytes
    if items:
        yield items[begin:]


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
