"""The state machine: one row for each actor. Read this file first.

A stage is given the sessions in the statuses it takes; its handler acts and reports; `settle`
turns the report into moves along the row's outcomes. The sessions in the statuses it awaits are
watched by the clock alone. Promotions and detection have no handler: they follow from what kernels
report, inside the transaction that records it.
"""

from dataclasses import dataclass

from sokovan.domain.sessions import Limit
from sokovan.domain.statuses import FINAL, KernelStatus, SessionStatus

S = SessionStatus


@dataclass(frozen=True, slots=True)
class TransitionStatus:
    """Where an outcome leads; `kernel=None` leaves the kernels as they are."""

    session: SessionStatus
    kernel: KernelStatus | None = None


def both(name: str) -> TransitionStatus:
    """Move the session and its kernels to the status of this name."""
    return TransitionStatus(SessionStatus(name), KernelStatus(name))


NO_LIMIT = Limit()
EXPIRE_AT_ONCE = Limit(attempts_max=None, phase_s_max=0)
"""A reported failure expires, however young its phase; the clock alone expires nothing."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Who looks at which status, and where each outcome leads. `None`: record, do not move."""

    name: str
    takes: frozenset[SessionStatus] = frozenset()
    """The handler is given the sessions in these."""
    awaits: frozenset[SessionStatus] = frozenset()
    """The clock alone acts on the sessions in these."""
    success: TransitionStatus | None = None
    expired: TransitionStatus | None = None
    give_up: TransitionStatus | None = None
    limit: Limit = NO_LIMIT
    expired_reason: str = "phase-timeout"
    limit_is_walltime: bool = False
    """The phase may last as long as the session's own walltime."""


CHECK_PRECONDITION = Stage(
    name="check-precondition",
    takes=frozenset({S.SCHEDULED}),
    awaits=frozenset({S.PREPARING}),
    success=both("PREPARING"),
    expired=both("PENDING"),
    limit=Limit(attempts_max=5, phase_s_max=900),
)
SCHEDULE_SESSIONS = Stage(
    name="schedule-sessions",
    takes=frozenset({S.PENDING}),
    success=both("SCHEDULED"),
    expired=both("TERMINATING"),
    give_up=TransitionStatus(S.DEPRIORITIZING, None),
    limit=Limit(attempts_max=5),
)
START_SESSIONS = Stage(
    name="start-sessions",
    takes=frozenset({S.PREPARED}),
    awaits=frozenset({S.CREATING}),
    success=both("CREATING"),
    expired=both("PENDING"),
    limit=Limit(attempts_max=5, phase_s_max=600),
)
TERMINATE_SESSIONS = Stage(
    name="terminate-sessions",
    takes=frozenset({S.TERMINATING}),
    awaits=frozenset({S.TERMINATING}),
    expired=both("TERMINATED"),
    give_up=both("TERMINATED"),
    limit=Limit(phase_s_max=900),
    expired_reason="TERMINATION_TIMEOUT",
)
DEPRIORITIZE_SESSIONS = Stage(
    name="deprioritize-sessions",
    takes=frozenset({S.DEPRIORITIZING}),
    success=TransitionStatus(S.PENDING, None),
)
SWEEP_SESSIONS = Stage(
    name="sweep-sessions",
    takes=frozenset({S.PENDING}),
    expired=both("TERMINATING"),
    limit=EXPIRE_AT_ONCE,
)
ENFORCE_WALLTIME = Stage(
    name="enforce-walltime",
    awaits=frozenset({S.RUNNING}),
    expired=both("TERMINATING"),
    expired_reason="WALLTIME_EXCEEDED",
    limit_is_walltime=True,
)

STALE_SWEPT = frozenset({KernelStatus.CREATING, KernelStatus.RUNNING, KernelStatus.TERMINATING})
SWEEP_STALE_KERNELS = Stage(
    name="sweep-stale-kernels",
    takes=frozenset(S(status.value) for status in STALE_SWEPT),
)
"""Asks the agents after the kernels in `STALE_SWEPT`; their answers are reports like any other."""

STAGES = (
    CHECK_PRECONDITION,
    SCHEDULE_SESSIONS,
    START_SESSIONS,
    TERMINATE_SESSIONS,
    DEPRIORITIZE_SESSIONS,
    SWEEP_SESSIONS,
    ENFORCE_WALLTIME,
    SWEEP_STALE_KERNELS,
)
"""The stages with sessions to take or await."""


@dataclass(frozen=True, slots=True)
class Promotion:
    """A move that follows from the kernels' statuses alone."""

    name: str
    takes: frozenset[SessionStatus]
    to: SessionStatus
    when: str
    reason: str


PROMOTE_TO_PREPARED = Promotion(
    "promote-to-prepared",
    frozenset({S.PREPARING}),
    S.PREPARED,
    "no kernel is pre_prepared and one is not final",
    "kernels-prepared",
)
PROMOTE_TO_RUNNING = Promotion(
    "promote-to-running",
    frozenset({S.CREATING}),
    S.RUNNING,
    "no kernel is pre_running and one is not final",
    "kernels-running",
)
PROMOTE_TO_TERMINATED = Promotion(
    "promote-to-terminated",
    frozenset({S.TERMINATING}),
    S.TERMINATED,
    "every kernel is final",
    "kernels-ended",
)
DETECT_TERMINATION = Promotion(
    "detect-termination",
    frozenset({S.SCHEDULED, S.PREPARING, S.PREPARED, S.CREATING, S.RUNNING}),
    S.TERMINATING,
    "the end policy is met by kernels that are final",
    "",
)
PROMOTIONS = (
    DETECT_TERMINATION,
    PROMOTE_TO_PREPARED,
    PROMOTE_TO_RUNNING,
    PROMOTE_TO_TERMINATED,
)
"""In the order in which they are checked: termination before promotion."""

ENDED_BY_REPORTS = frozenset({S.RUNNING})
"""No stage drives these onward: the end of a kernel does, and every kernel alive is asked after."""

WORK_AFTER = {
    S.PENDING: SCHEDULE_SESSIONS,
    S.TERMINATED: SCHEDULE_SESSIONS,
    S.CANCELLED: SCHEDULE_SESSIONS,
    S.SCHEDULED: CHECK_PRECONDITION,
    S.PREPARED: START_SESSIONS,
    S.TERMINATING: TERMINATE_SESSIONS,
    S.DEPRIORITIZING: DEPRIORITIZE_SESSIONS,
}
"""The stage that has work after a move to a status."""

assert set(WORK_AFTER) | {S.PREPARING, S.CREATING, S.RUNNING} == set(S)
assert not any((stage.takes | stage.awaits) & FINAL for stage in STAGES)


LIMITED = tuple(s.name for s in STAGES if s.expired and s.limit not in (NO_LIMIT, EXPIRE_AT_ONCE))
"""The stages whose limits can be set, for a group or for a session."""


def limit_of(stage: Stage, *overrides: Limit | None) -> Limit:
    """Return the stage's limit, each part replaced by the first override that sets it."""
    limit = stage.limit
    for override in reversed(overrides):
        if override is not None:
            limit = Limit(
                limit.attempts_max if override.attempts_max is None else override.attempts_max,
                limit.phase_s_max if override.phase_s_max is None else override.phase_s_max,
            )
    return limit
