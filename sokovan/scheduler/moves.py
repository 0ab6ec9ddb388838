"""A move: one guarded status change together with its history line."""

from dataclasses import dataclass
from enum import StrEnum

from sokovan.domain.reasons import MoveReason
from sokovan.domain.sessions import Assignment, Attempts, KernelId, SessionId
from sokovan.domain.statuses import SessionStatus
from sokovan.domain.values import quickly_made
from sokovan.scheduler.stages import TransitionStatus


class Outcome(StrEnum):
    """How `settle` classified a session."""

    SUCCESS = "success"
    NEED_RETRY = "need-retry"
    EXPIRED = "expired"
    GIVE_UP = "give-up"
    SKIPPED = "skipped"


@quickly_made
@dataclass(frozen=True, slots=True)
class Move:
    """What is to change for one session, and the state that this was decided on.

    It applies only while the session still has `from_status` and `status_seq`.
    """

    session_id: SessionId
    from_status: SessionStatus
    status_seq: int
    stage: str
    outcome: Outcome
    to: TransitionStatus | None
    """`None`: nothing but the attempts and the history change."""
    reason: str
    detail: str = ""
    assignment: Assignment | None = None
    attempts: Attempts | None = None
    """What the stage's counter becomes, when the session stays."""

    @property
    def to_status(self) -> SessionStatus | None:
        """The session status this leads to, or `None`."""
        return None if self.to is None else self.to.session


@quickly_made
@dataclass(frozen=True, slots=True)
class HistoryLine:
    """One line of a session's history: a change of the session or of a kernel, or a note.

    A note has the same status on both sides, and so has an edit, which is a step nevertheless.
    """

    session_id: SessionId
    kernel_id: KernelId | None
    status_seq: int
    from_status: str | None
    to_status: str
    reason: str
    detail: str
    stage: str
    at: float

    @property
    def is_step(self) -> bool:
        """Whether it raised the `status_seq`."""
        return self.from_status != self.to_status or self.reason == MoveReason.EDITED


class Verdict(StrEnum):
    """What became of a move."""

    APPLIED = "applied"
    SUPERSEDED = "superseded"
    """The session had moved on: the move was dropped."""
    REJECTED = "rejected"
    """The agents chosen have no room for it any more: counted as a failed attempt."""


@quickly_made
@dataclass(frozen=True, slots=True)
class Moved:
    """A session whose status changed, or that freed something on an agent."""

    session_id: SessionId
    scaling_group: str
    from_status: SessionStatus | None
    to_status: SessionStatus


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of a batch of moves, reports or requests."""

    moved: tuple[Moved, ...] = ()
    verdicts: tuple[tuple[Move, Verdict], ...] = ()
    freed: frozenset[str] = frozenset()
    """Scaling groups in which something was freed without a status change."""
    policies: frozenset[str] = frozenset()
    """Scaling groups that came, went, or have another policy."""
    left_over: bool = False
    """Whether kernels were left over that are now to be stopped."""
    wrote: bool = False
    """Whether history has new lines."""
