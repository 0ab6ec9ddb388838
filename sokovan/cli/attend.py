"""Stay with a session: show its output as it appears, hear signals, until it has ended.

The main thread waits for events and for nothing else: signal handlers may put one there at any
moment. Each stream has a thread that copies it, and one thread watches the session. Each has a
client of its own, which brings the server back when it dies, and goes on at the same offset.
"""

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any, NamedTuple

from sokovan.cli import exits
from sokovan.cli.describe import short
from sokovan.cli.options import Call
from sokovan.cli.progress import Progress, status_line
from sokovan.cli.streams import STREAMS, Sink
from sokovan.cli.text import on_one_line, print_json
from sokovan.client import Client, ServerStoppedError
from sokovan.domain.errors import OutputUnavailableError, SokovanError
from sokovan.domain.reasons import EndReason
from sokovan.domain.statuses import FINAL

View = dict[str, Any]

ECHO_S = 0.3
"""A second signal so soon is the first one's echo: timeout(1) signals us, and our whole group."""
READ_WAIT_S = 10.0
RETRY_S = 0.5
FAILURES_MAX = 20
"""How often in a row an ended session's output may fail to be read before that is all."""
ORDINARY = frozenset({EndReason.SELF_TERMINATED, EndReason.KERNEL_FAILED})
"""Reasons that the exit code tells well enough."""


class Event(NamedTuple):
    """Something that the main thread is to hear of."""

    what: str
    value: Any = None


class Attendance:
    """One session that is attended to its end."""

    def __init__(self, call: Call, client: Client, session: View) -> None:
        self._call = call
        self._client = client
        self._session = session
        self._ref = short(session["id"])
        self._events: SimpleQueue[Event] = SimpleQueue()
        self._is_over = threading.Event()
        self._cancelled_by: int | None = None
        self._cancelled_at = 0.0
        line = None if call.quiet else status_line()
        self._sink = Sink(json=call.json, prefixed=len(session["kernels"]) > 1, line=line)

    def until_it_ends(self) -> int:
        """Return the exit code: the session's, or that of the signal which cancelled it.

        Raises:
            SokovanError: The server cannot be brought back, or was stopped on purpose.
        """
        copying = 0
        ended: View | None = None
        with _signals(self._events.put), _closing_line(self._sink):
            for kernel in self._session["kernels"]:
                for stream in STREAMS:
                    self._start(self._copy, kernel["index"], stream)
                    copying += 1
            self._start(self._watch)
            while copying or ended is None:
                event = self._events.get()
                if event.what == "ended":
                    ended = event.value
                    self._is_over.set()
                elif event.what == "copied":
                    copying -= 1
                elif event.what == "failed":
                    raise event.value
                elif event.what == "unread":
                    self._cancel(signal.SIGPIPE)
                elif event.what == "signal" and (code := self._heed(event.value)) is not None:
                    return code
        return self._say_end(ended)

    # --- the other threads ------------------------------------------------------------------------

    def _start(self, work: Callable[..., None], *given: Any) -> None:
        """Run `work` in a thread that does not keep the program alive."""

        def guarded() -> None:
            try:
                with self._call.client() as client:
                    work(client, *given)
            except SokovanError as error:
                self._events.put(Event("failed", self._explained(error)))
            except Exception as error:  # noqa: BLE001 - the main thread must hear of anything
                self._events.put(Event("failed", error))

        threading.Thread(target=guarded, daemon=True).start()

    def _watch(self, client: Client) -> None:
        """Wait for the session's end, and say why it has not begun."""
        if self._call.quiet:
            ended = client.wait(self._session["id"])
        else:
            progress = Progress(self._sink.status, self._sink.note)
            ended = progress.until_it_ends(client, self._session["id"])
        self._events.put(Event("ended", ended))

    def _copy(self, client: Client, kernel: int, stream: str) -> None:
        """Copy one stream of one kernel until the kernel is over."""
        try:
            copy_stream(
                client,
                self._session["id"],
                self._sink,
                kernel=kernel,
                stream=stream,
                is_over=self._is_over.is_set,
            )
        except BrokenPipeError:
            self._events.put(Event("unread"))
        except OutputUnavailableError as error:
            self._sink.note(f"{self._ref}: its {stream} is not complete: {error.message}")
        self._events.put(Event("copied"))

    # --- signals ----------------------------------------------------------------------------------

    def _heed(self, number: int) -> int | None:
        """Do what a signal asks for; return an exit code when that is to leave."""
        if self._is_over.is_set():
            return exits.SIGNAL_BASE + number
        if self._cancelled_by is not None and time.perf_counter() - self._cancelled_at < ECHO_S:
            return None
        if self._cancelled_by is not None:
            self._sink.note(f"{self._ref}: killing it")
            self._client.cancel(self._session["id"], force=True)
            return None
        if number == signal.SIGINT and sys.stdin.isatty() and sys.stderr.isatty():
            choice = self._ask()
            if choice == "d":
                self._sink.note(f"{self._ref} goes on without you")
                self._call.hint(f"sokovan logs -f {self._ref}")
                return exits.SIGNAL_BASE + number
            if choice != "c":
                return None
        self._cancel(number)
        return None

    def _cancel(self, number: int) -> None:
        if self._cancelled_by is None:
            self._cancelled_by = number
            self._cancelled_at = time.perf_counter()
            self._client.cancel(self._session["id"])

    def _ask(self) -> str:
        """Ask what Ctrl-C was to mean: `d` to detach, `c` to cancel, anything else to stay."""
        with self._sink.silence():
            handler = signal.signal(signal.SIGINT, signal.default_int_handler)
            try:
                sys.stderr.write(
                    f"\nsokovan: [d]etach and let {self._ref} go on, [c]ancel it (or Ctrl-C again),"
                    " Enter to stay: "
                )
                sys.stderr.flush()
                return sys.stdin.readline().strip().lower()[:1]
            except KeyboardInterrupt:
                sys.stderr.write("\n")
                return "c"
            finally:
                signal.signal(signal.SIGINT, handler)

    # --- the end ----------------------------------------------------------------------------------

    def _say_end(self, session: View | None) -> int:
        assert session is not None
        if self._call.json:
            print_json(session)
        elif (
            session["reason"] not in ORDINARY
            and self._cancelled_by is None
            and not self._call.quiet
        ):
            self._sink.note(f"{self._ref}: {end_of(session)}")
        if self._cancelled_by is not None:
            return exits.SIGNAL_BASE + self._cancelled_by
        return exits.of_session(session)

    def _explained(self, error: SokovanError) -> SokovanError:
        if isinstance(error, ServerStoppedError):
            return ServerStoppedError(
                f"the server was stopped; {self._ref} goes on without it, and"
                f" `sokovan logs -f {self._ref}` starts a new one"
            )
        return error


def copy_stream(
    client: Client,
    session_id: str,
    sink: Sink,
    *,
    kernel: int,
    stream: str,
    offset: int = 0,
    is_over: Callable[[], bool] = lambda: False,
) -> None:
    """Copy what a kernel writes, from `offset` on, until the kernel is over.

    Args:
        client: Of this thread alone.
        session_id: The session.
        sink: Where it goes.
        kernel: The kernel's index.
        stream: `stdout` or `stderr`.
        offset: Where to begin.
        is_over: Says whether the session has ended: a kernel that never began ends its stream then.

    Raises:
        OutputUnavailableError: The session has ended, and its agent does not answer.
    """
    failures = 0
    while True:
        was_over = is_over()
        try:
            piece = client.read_output(
                session_id, kernel=kernel, stream=stream, offset=offset, wait_s=READ_WAIT_S
            )
        except OutputUnavailableError:
            failures += 1
            if failures >= FAILURES_MAX and client.get(session_id)["status"] in FINAL:
                raise
            time.sleep(RETRY_S)
            continue
        failures = 0
        if piece.size < offset:  # it was requeued, and began again with an empty stream
            offset = 0
            continue
        sink.write(kernel, stream, piece)
        offset = piece.end
        if piece.is_last or (was_over and offset >= piece.size):
            sink.end(kernel, stream)
            return


def end_of(session: View) -> str:
    """Say in a sentence how a session ended that did not simply run to its end."""
    sentence = f"ended with {session['reason'] or session['status']}"
    errors = (kernel["error"] for kernel in session["kernels"])
    error = next((error for error in errors if error), None)
    return on_one_line(f"{sentence}: {error}" if error else sentence)


@contextmanager
def _closing_line(sink: Sink) -> Iterator[None]:
    """Leave nothing on the terminal that says where the session stood."""
    try:
        yield
    finally:
        sink.close_line()


@contextmanager
def _signals(put: Callable[[Event], None]) -> Iterator[None]:
    """Turn SIGINT and SIGTERM into events."""
    before = {
        number: signal.signal(number, lambda n, _: put(Event("signal", n)))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
