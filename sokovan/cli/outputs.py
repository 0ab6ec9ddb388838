"""`logs`: what a session's kernels have written."""

import threading
from typing import TYPE_CHECKING, Annotated

import typer

from sokovan.cli.options import Call, Home, Json, Ref, call_of
from sokovan.domain.errors import IsAnArrayError

if TYPE_CHECKING:
    from sokovan.cli.streams import Sink
    from sokovan.client import Client

TAIL_BYTES = 64 * 1024


def logs(
    ctx: typer.Context,
    ref: Ref,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the session is over.")
    ] = False,
    tail: Annotated[
        int | None,
        typer.Option("--tail", metavar="N", min=0, help="Only the last N lines of each stream."),
    ] = None,
    kernel: Annotated[
        int | None,
        typer.Option("--kernel", "-k", metavar="N", min=0, help="Only this kernel, from 0 on."),
    ] = None,
    stream: Annotated[
        str | None, typer.Option("--stream", metavar="NAME", help="Only stdout, or only stderr.")
    ] = None,
    json: Json = False,
    home: Home = None,
) -> int:
    """Print a session's output: its stdout to stdout, its stderr to stderr.

    With several kernels, each line has its kernel's number before it. Of an array, the tasks follow
    each other, and each line has its task's index before it.
    """
    from sokovan.cli.arrays import print_logs
    from sokovan.cli.exits import UsageError
    from sokovan.cli.streams import STREAMS, Sink

    if stream not in {None, *STREAMS}:
        raise UsageError(f"--stream: {stream!r} is neither stdout nor stderr", field="stream")
    call = call_of(ctx, home, json)
    with call.client() as client:
        try:
            session = client.get(ref)
        except IsAnArrayError:
            if tail is not None:
                raise
            streams = [name for name in STREAMS if stream in {None, name}]
            print_logs(call, client, ref, kernel=kernel or 0, streams=streams, follow=follow)
            return 0
        count = len(session["kernels"])
        if kernel is not None and kernel >= count:
            raise UsageError(
                f"--kernel: {session['id']} has {count} kernels, from 0 on", field="kernel"
            )
        sink = Sink(json=call.json, prefixed=count > 1 and kernel is None)
        sources = [
            (index, name)
            for index in (range(count) if kernel is None else [kernel])
            for name in STREAMS
            if stream in {None, name}
        ]
        starts = {
            source: 0 if tail is None else _tail_offset(client, session["id"], source, tail)
            for source in sources
        }
        if follow:
            _follow(call, session["id"], sink, starts)
        else:
            for (index, name), offset in starts.items():
                print_stream(client, session["id"], sink, index, name, offset)
    return 0


def print_stream(
    client: "Client", session_id: str, sink: "Sink", kernel: int, stream: str, offset: int
) -> None:
    """Print what there is of one stream."""
    while True:
        piece = client.read_output(session_id, kernel=kernel, stream=stream, offset=offset)
        sink.write(kernel, stream, piece)
        offset = piece.end
        if not piece.data or offset >= piece.size:
            sink.end(kernel, stream)
            return


def _follow(call: Call, session_id: str, sink: "Sink", starts: dict[tuple[int, str], int]) -> None:
    """Print several streams at once until each is over."""
    from queue import SimpleQueue

    from sokovan.cli.attend import copy_stream

    done: SimpleQueue[BaseException | None] = SimpleQueue()

    def copy(kernel: int, stream: str, offset: int) -> None:
        try:
            with call.client() as client:
                copy_stream(client, session_id, sink, kernel=kernel, stream=stream, offset=offset)
            done.put(None)
        except Exception as error:  # noqa: BLE001 - raised below, in the main thread
            done.put(error)

    for (kernel, stream), offset in starts.items():
        threading.Thread(target=copy, args=(kernel, stream, offset), daemon=True).start()
    for _ in starts:
        error = done.get()
        if error is not None:
            raise error


def _tail_offset(client: "Client", session_id: str, source: tuple[int, str], lines: int) -> int:
    """Return where the last `lines` lines of a stream begin."""
    asked = TAIL_BYTES
    while True:
        data, start = _last_bytes(client, session_id, source, asked)
        if lines == 0:
            return start + len(data)
        # A line's end at the very end of the stream ends the last line and begins no other.
        ends = [at for at, byte in enumerate(data[:-1]) if byte == ord("\n")]
        if len(ends) >= lines:
            return start + ends[-lines] + 1
        if start == 0:
            return 0
        asked *= 4


def _last_bytes(
    client: "Client", session_id: str, source: tuple[int, str], count: int
) -> tuple[bytes, int]:
    """Return the last `count` bytes of a stream, or all there are, and where they begin."""
    kernel, stream = source
    piece = client.read_output(session_id, kernel=kernel, stream=stream, offset=-count)
    start, data = piece.offset, piece.data
    while piece.data and piece.end < piece.size:
        piece = client.read_output(session_id, kernel=kernel, stream=stream, offset=piece.end)
        data += piece.data
    return data, start
