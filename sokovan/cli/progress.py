"""Where a session stands, told while one waits for it: its place, its reason, its start.

On a terminal one line is kept up to date; elsewhere a line is written when the reason changes.
"""

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from sokovan.cli.describe import UNSTARTED, short
from sokovan.cli.screen import can_move, cut, paint, width_of
from sokovan.cli.text import epoch, plain
from sokovan.client import Client
from sokovan.domain.quantities import format_duration
from sokovan.domain.statuses import FINAL, SessionStatus

View = Mapping[str, Any]

PATIENCE_S = 1.0
"""How long a session may take to start, or to end, before anything is said of it."""
REFRESH_S = 2.0
"""How often the line on a terminal is brought up to date."""
REMINDER_S = 15.0
"""How often to look whether the reason has changed, where there is no such line."""
SHARE_OF_SERVER = 20
"""An answer that takes the server long is asked for seldom: it works on this for one part of so
many of its time."""
RUNS_S = 3600.0
"""How long to wait for the end of what runs, when nothing more is told of it."""


class StatusLine:
    """A line at the bottom of a terminal; whoever else writes there clears it first."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._shown = False

    def show(self, text: str) -> None:
        """Write the line over the one before."""
        fitting = cut(plain(text), width_of(self._stream) - 1)
        self._stream.write(f"\r\x1b[K{paint(fitting, 'dim', self._stream)}")
        self._stream.flush()
        self._shown = True

    def clear(self) -> None:
        """Take the line away."""
        if self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._shown = False


def status_line() -> StatusLine | None:
    """Return a line on this process's terminal, if it has one that can do that."""
    return StatusLine(sys.stderr) if can_move(sys.stderr) else None


class Progress:
    """Tells where one session stands.

    Args:
        show: Shows the line; `None` where there is none.
        note: Writes a sentence.
        while_it_runs: Go on when it has started.
    """

    def __init__(
        self,
        show: Callable[[str], None] | None,
        note: Callable[[str], None],
        *,
        while_it_runs: bool = False,
    ) -> None:
        self._show = show
        self._note = note
        self._while_it_runs = while_it_runs
        self._told = ""
        self._asking_s = 0.0

    def until_it_ends(
        self, client: Client, ref: str, timeout_s: float | None = None
    ) -> dict[str, Any]:
        """Return the session once it has ended, or as it is after `timeout_s`."""
        left_s = timeout_s
        slice_s = PATIENCE_S
        while True:
            asked_s = slice_s if left_s is None else min(slice_s, left_s)
            began = time.perf_counter()
            session = client.wait(ref, timeout_s=asked_s)
            if session["status"] in FINAL:
                return session
            ref = session["id"]  # what `@` means may have changed meanwhile
            if session["status"] in UNSTARTED or (self._while_it_runs and self._show):
                self._tell(client, ref)
                slice_s = self._pause_s()
            else:
                slice_s = RUNS_S
            if left_s is not None:
                left_s -= max(asked_s, time.perf_counter() - began)
                if left_s <= 0:
                    return session

    def _tell(self, client: Client, ref: str) -> None:
        from sokovan.cli.sessions import now_of

        began = time.perf_counter()
        answer = client.eta(ref)
        self._asking_s = time.perf_counter() - began
        session = answer["session"]
        if session["status"] in FINAL:
            return
        if self._show is not None:
            self._show(f"{short(session['id'])}: {standing(answer, now_of(client))}")
        elif session["status"] in UNSTARTED and (code := code_of(session)) != self._told:
            self._told = code
            self._note(f"{short(session['id'])}: {reason(answer, now_of(client))}")

    def _pause_s(self) -> float:
        least = REMINDER_S if self._show is None else REFRESH_S
        return max(least, SHARE_OF_SERVER * self._asking_s)


def code_of(session: View) -> str:
    """Return what a new line is written for when it changes."""
    wait = session["wait"]
    return str(wait["code"] if wait else session["status"])


def standing(answer: View, now: float) -> str:
    """Say where a session stands, what matters most first: the rest may be cut off."""
    session = answer["session"]
    if session["status"] == SessionStatus.RUNNING:
        return running(session, answer["ends_at"], now)
    place = _place(answer, now)
    return f"{place}; {_sentence(answer)}" if place else _sentence(answer)


def reason(answer: View, now: float) -> str:
    """Say why a session waits, and then its place."""
    place = _place(answer, now)
    return f"{_sentence(answer)} ({place})" if place else _sentence(answer)


def running(session: View, ends_at: str | None, now: float) -> str:
    """Say where and for how long a session runs, and for how much longer it may."""
    words = f"runs on {', '.join(session['agents'])}"
    if session["started_at"]:
        words += f" for {_duration(now - epoch(session['started_at']))}"
    return f"{words}, {_duration(epoch(ends_at) - now)} left at most" if ends_at else words


def start(starts_at: str | None, now: float, *, reserved: bool) -> str:
    """Say when a session should start, if that is known."""
    if starts_at is None:
        return ""
    left_s = epoch(starts_at) - now
    if left_s < 1:
        return "starts at any moment"
    return f"starts in {'' if reserved else 'about '}{_duration(left_s)}"


def _place(answer: View, now: float) -> str:
    parts = []
    if answer.get("position") is not None:  # a server of before does not tell
        parts.append(f"place {answer['position']} of {answer['queue_length']}")
    if answer["session"]["status"] == SessionStatus.PENDING:
        parts.append(start(answer["starts_at"], now, reserved=answer["reserved"]))
    return ", ".join(part for part in parts if part)


def _sentence(answer: View) -> str:
    wait = answer["session"]["wait"]
    return str(wait["sentence"] if wait else answer["sentence"])


def _duration(seconds: float) -> str:
    return format_duration(max(0, int(seconds)))
