"""What a handler reports: which sessions succeeded, failed or were left alone, and why."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from sokovan.domain.reasons import Wait
from sokovan.domain.sessions import Assignment, SessionId, SessionWithKernels
from sokovan.domain.statuses import SessionStatus


class SessionTransitionInfo(NamedTuple):
    """One session's part of a report. A pass makes one for every session that waits."""

    session_id: SessionId
    from_status: SessionStatus
    reason: str
    detail: str = ""
    assignment: Assignment | None = None
    """Where its kernels go, when the stage placed it."""
    wait: Wait | None = None
    """Why it waits, when it was skipped and more is known than the reason."""
    counted_every_s: float | None = None
    """A failure that counts at most once in so many seconds and is not backed off."""


@dataclass(frozen=True, slots=True)
class SessionExecutionResult:
    """What became of the sessions of a handler; those it does not name were only looked at."""

    successes: list[SessionTransitionInfo] = field(default_factory=list)
    failures: list[SessionTransitionInfo] = field(default_factory=list)
    skipped: list[SessionTransitionInfo] = field(default_factory=list)


NOTHING = SessionExecutionResult()
"""The report of a handler that had nothing to do. Shared: nobody changes a report."""


def each(
    sessions: Iterable[SessionWithKernels], reason: str, detail: str = ""
) -> list[SessionTransitionInfo]:
    """Report the same for every session."""
    return [SessionTransitionInfo(s.session_id, s.status, reason, detail) for s in sessions]
