"""What `doctor` looks at: one function a check, which yields what it found.

A check looks at the real thing, by doing what the server or an agent would do where that can be
undone, and changes nothing that stays.
"""

import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from sokovan.clock import Clock, SystemClock

ASK_S_MAX = 5.0
"""How long another program may take to answer."""


class State(StrEnum):
    """What a finding means."""

    OK = "ok"
    WARNING = "warning"
    """Sokovan works, with something less than it could have."""
    PROBLEM = "problem"
    """Something does not work, or will be lost."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found."""

    state: State
    says: str
    """What is there, and what it means."""
    mend: str = ""
    """What to do about it."""


def ask(argv: Sequence[str]) -> str | None:
    """Return what a program prints, or `None` when it is not there or fails."""
    try:
        done = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=ASK_S_MAX,
            check=True,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


@dataclass(frozen=True, slots=True)
class Ground:
    """The machine that is looked at; a test puts another one in its place."""

    home: Path
    root: Path = Path("/")
    """What `/proc`, `/sys`, `/dev`, `/run` and `/var` are below."""
    ask: Callable[[Sequence[str]], str | None] = ask
    clock: Clock = SystemClock()

    def text(self, path: str) -> str:
        """Return what a file says, "" where it says nothing."""
        try:
            return (self.root / path).read_text(errors="replace")
        except OSError:
            return ""


Check = Callable[[Ground], Iterator[Finding]]


def ok(says: str) -> Finding:
    """Return the finding that all is well."""
    return Finding(State.OK, says)


def warning(says: str, mend: str) -> Finding:
    """Return a finding that one may live with."""
    return Finding(State.WARNING, says, mend)


def problem(says: str, mend: str) -> Finding:
    """Return a finding that one may not live with."""
    return Finding(State.PROBLEM, says, mend)
