"""Where the output of kernels goes: this process's stdout and stderr, or lines of JSON."""

import codecs
import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

from sokovan.client.fields import Output

if TYPE_CHECKING:
    from sokovan.cli.progress import StatusLine

STREAMS = ("stdout", "stderr")
LINE_BYTES_MAX = 64 * 1024
"""A line longer than this is printed in pieces, each with its prefix."""


class Sink:
    """Writes what several threads bring, one piece at a time.

    Args:
        json: Write objects, one on a line: `kernel, stream, offset, text`.
        prefixed: Write whole lines, each with the number of its kernel before it.
        source: What is numbered, where that is not kernels.
        line: What says where things stand, on a terminal, while there is nothing else to write.
    """

    def __init__(
        self,
        *,
        json: bool,
        prefixed: bool,
        line: "StatusLine | None" = None,
        source: str = "kernel",
    ) -> None:
        self._json = json
        self._prefixed = prefixed
        self._line = line
        self._source = source
        self._turn = threading.Lock()
        self._decoders: dict[tuple[int, str], codecs.IncrementalDecoder] = {}
        self._unfinished: dict[tuple[int, str], bytes] = {}

    def write(self, kernel: int, stream: str, piece: Output) -> None:
        """Write a piece of a kernel's output.

        Raises:
            BrokenPipeError: Nobody reads it any more.
        """
        if not piece.data:
            return
        with self._turn:
            self._clear()
            if self._json:
                self._write_json(kernel, stream, piece.offset, piece.data)
            elif self._prefixed:
                self._write_lines(kernel, stream, piece.data)
            else:
                _put(stream, piece.data)

    def end(self, kernel: int, stream: str) -> None:
        """Write what was kept back for want of a line's end."""
        with self._turn:
            rest = self._unfinished.pop((kernel, stream), b"")
            if rest:
                self._clear()
                _put(stream, b"[%d] %s\n" % (kernel, rest))

    def note(self, sentence: str) -> None:
        """Say something of our own, on stderr."""
        with self._turn:
            self._clear()
            print(f"sokovan: {sentence}", file=sys.stderr, flush=True)

    @property
    def status(self) -> Callable[[str], None] | None:
        """What shows where things stand until something is written; `None` without a terminal."""
        return None if self._line is None else self._show

    def _show(self, text: str) -> None:
        with self._turn:
            if self._line is not None:
                self._line.show(f"sokovan: {text}")

    def close_line(self) -> None:
        """Take away what says where things stand, for good."""
        with self._turn:
            self._clear()
            self._line = None

    def _clear(self) -> None:
        if self._line is not None:
            self._line.clear()

    @contextmanager
    def silence(self) -> Iterator[None]:
        """Keep everything back meanwhile."""
        with self._turn:
            self._clear()
            yield

    def _write_json(self, kernel: int, stream: str, offset: int, data: bytes) -> None:
        key = (kernel, stream)
        if key not in self._decoders:
            self._decoders[key] = codecs.getincrementaldecoder("utf-8")(errors="replace")
        item = {
            self._source: kernel,
            "stream": stream,
            "offset": offset,
            "text": self._decoders[key].decode(data),
        }
        print(json.dumps(item, ensure_ascii=False), flush=True)

    def _write_lines(self, kernel: int, stream: str, data: bytes) -> None:
        kept = self._unfinished.get((kernel, stream), b"") + data
        *lines, rest = kept.split(b"\n")
        if len(rest) > LINE_BYTES_MAX:
            lines.append(rest)
            rest = b""
        self._unfinished[kernel, stream] = rest
        _put(stream, b"".join(b"[%d] %s\n" % (kernel, line) for line in lines))


def _put(stream: str, data: bytes) -> None:
    out: BinaryIO = sys.stdout.buffer if stream == "stdout" else sys.stderr.buffer
    out.write(data)
    out.flush()
