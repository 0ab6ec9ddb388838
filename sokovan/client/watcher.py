"""One thread that brings futures their results, however many there are.

Results are files, so a look at one directory finds those of any number of futures. The server is
asked less often, in pages: which sessions run, and which are over without a result.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sokovan.client.calls import SessionFuture
from sokovan.client.errors import CallError, RemoteTraceback, SessionDiedError
from sokovan.client.fields import View
from sokovan.client.spool import Spool, unpickled
from sokovan.client.sync_client import Client
from sokovan.domain.errors import SessionNotFoundError, SokovanError
from sokovan.domain.reasons import EndReason
from sokovan.domain.statuses import FINAL, PRE_CREATING, WAITING, SessionStatus

log = logging.getLogger(__name__)

LOOK_S = 0.05
"""How soon results are looked for again after some were found; later, up to `LOOK_S_MAX`."""
LOOK_S_MAX = 0.5
ASK_S = 1.0
"""How often the server is asked about a few sessions."""
ASK_EACH_S = 0.005
"""How much less often for each: it takes a while to list them."""
LATE_LOOKS = 3
"""How often a result is looked for after its session ended well: other machines' files are late."""
STDERR_BYTES = 4000
STDERR_LINES = 20
UNSTARTED = WAITING | PRE_CREATING | {SessionStatus.CREATING}


@dataclass(eq=False, slots=True)
class Pending:
    """A call whose result is awaited."""

    key: str
    session_id: str
    name: str
    """The session's, by which it is listed."""
    future: SessionFuture[Any] = field(repr=False)
    late_looks: int = 0


class Watcher:
    """Watches calls until each future has its result.

    Its thread lives while something is awaited, and so keeps the program from ending before.

    Args:
        spool: Where results appear.
        client: What only the watcher's thread asks.
        when_idle: Called when nothing is awaited any more.
    """

    def __init__(self, spool: Spool, client: Client, when_idle: Callable[[], None]) -> None:
        self._spool = spool
        self._client = client
        self._when_idle = when_idle
        self._turn = threading.Condition()
        self._pending: dict[str, Pending] = {}
        self._thread: threading.Thread | None = None
        self._is_cut_off = False

    def add(self, call: Pending) -> None:
        """Watch a call, too."""
        with self._turn:
            self._pending[call.key] = call
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="sokovan-executor")
                self._thread.start()
            self._turn.notify_all()

    def take(self, key: str) -> Pending | None:
        """Stop watching a call; `None` when its future has its result, or soon will.

        Whoever takes a call, and nobody else, ends its future.
        """
        with self._turn:
            return self._pending.pop(key, None)

    def take_unstarted(self, key: str) -> Pending | None:
        """Do the same, unless it is known to run."""
        with self._turn:
            call = self._pending.get(key)
            return None if call is None or call.future.running() else self._pending.pop(key)

    def awaited(self) -> list[Pending]:
        """Return the calls that are watched now."""
        with self._turn:
            return list(self._pending.values())

    def close(self) -> None:
        """Close the connections, once nothing is awaited any more and nothing will be."""
        self._client.close()

    def join(self) -> None:
        """Return when nothing is awaited any more."""
        with self._turn:
            if threading.current_thread() is not self._thread:  # a future's callback may ask, too
                self._turn.wait_for(lambda: self._thread is None)

    def _run(self) -> None:
        try:
            self._watch()
        except Exception as error:  # a bug, or the spool is gone: nobody is to wait for ever
            log.exception("the watcher of %s failed", self._spool.root)
            with self._turn:
                lost, self._pending = self._pending, {}
                self._thread = None
            for call in lost.values():
                call.future.set_exception(error)
        self._when_idle()
        with self._turn:
            self._turn.notify_all()

    def _watch(self) -> None:
        look_s, unasked_s = LOOK_S, 0.0
        while True:
            found = self.look()
            if unasked_s >= ASK_S + ASK_EACH_S * len(self._pending):
                unasked_s = 0.0
                self.ask()
            with self._turn:
                if not self._pending:
                    self._thread = None
                    return
                if self._turn.wait(look_s):
                    found = 1
                else:
                    unasked_s += look_s
            look_s = LOOK_S if found else min(look_s * 1.5, LOOK_S_MAX)

    # --- results ----------------------------------------------------------------------------------

    def look(self) -> int:
        """End the futures whose results have come, and return how many these are."""
        found = 0
        for key in self._spool.results():
            call = self.take(key)
            if call is not None:  # otherwise its submission was not answered yet
                found += 1
                self._bring(call)
        return found

    def _bring(self, call: Pending) -> None:
        try:
            head, pickled = self._spool.take_result(call.key)
            if head["kind"] == "returned":
                call.future.set_result(unpickled(pickled, what="the result"))
                return
            if head["kind"] == "raised":
                error: BaseException = unpickled(pickled, what="the exception")
            else:
                error = _call_error(call, head["sentence"])
            if "traceback" in head:
                error.__cause__ = RemoteTraceback(head["traceback"])
        except CallError as unread:
            error = _call_error(call, unread.message)
            error.__cause__ = unread.__cause__
        call.future.set_exception(error)

    # --- sessions ---------------------------------------------------------------------------------

    def ask(self) -> None:
        """Ask the server which sessions run, and end the futures of those that died."""
        awaited = self.awaited()  # before the list is made: what is missing in it is over
        try:
            names = sorted({call.name for call in awaited})
            live = {view["id"]: view for name in names for view in self._client.list(name=name)}
            for call in awaited:
                view = live.get(call.session_id)
                if view is None:
                    self._look_into(call)
                elif view["status"] not in UNSTARTED:
                    self._mark_running(call)
        except SokovanError as error:
            if not self._is_cut_off:
                log.warning("%d results are awaited, and nothing is known: %s", len(awaited), error)
            self._is_cut_off = True
        else:
            self._is_cut_off = False

    def _mark_running(self, call: Pending) -> None:
        with self._turn:
            if call.key in self._pending and not call.future.running():
                call.future.set_running_or_notify_cancel()

    def _look_into(self, call: Pending) -> None:
        """End the future of a session that is over and has left no result."""
        try:
            view = self._client.get(call.session_id)
        except SessionNotFoundError as error:
            died = SessionDiedError(error.message, session_id=call.session_id)
        else:
            if view["status"] not in FINAL or self._spool.has_result(call.key):
                return
            if view["exit_code"] in {0, 1} and call.late_looks < LATE_LOOKS:
                call.late_looks += 1
                return
            died = self._died(view)
        if self.take(call.key) is not None:
            self._spool.forget(call.key)
            call.future.set_exception(died)

    def _died(self, view: View) -> SessionDiedError:
        stderr = self._end_of_stderr(view) if view["started_at"] else ""
        reason, code = view["reason"], view["exit_code"]
        sentence = f"session {view['id']} ({view['name']}) ended before its function did: {reason}"
        if reason in MEANINGS:
            sentence += f", {MEANINGS[reason]}"
        if code is not None:
            sentence += f" (exit code {code})"
        errors = {kernel["error"] for kernel in view["kernels"] if kernel["error"]}
        sentence += "".join(f"; {error}" for error in sorted(errors))
        if stderr:
            sentence += f"; the end of its stderr:\n{stderr}"
        return SessionDiedError(
            sentence, session_id=view["id"], reason=reason, exit_code=code, stderr=stderr
        )

    def _end_of_stderr(self, view: View) -> str:
        try:
            piece = self._client.read_output(view["id"], stream="stderr", offset=-STDERR_BYTES)
        except SokovanError:  # it went with its agent
            return ""
        lines = piece.data.decode(errors="replace").splitlines()
        return "\n".join(lines[-STDERR_LINES:])


MEANINGS = {
    EndReason.USER_REQUESTED: "somebody cancelled it",
    EndReason.WALLTIME_EXCEEDED: "it ran for as long as its `time`",
    EndReason.AGENT_LOST: "its agent was lost",
    EndReason.EXIT_STATUS_LOST: "it, or its machine, was killed",
}
"""What needs more words than its name."""


def _call_error(call: Pending, sentence: str) -> CallError:
    return CallError(f"session {call.session_id} ({call.name}): {sentence}")
