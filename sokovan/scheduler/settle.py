"""From a handler's report to moves. Pure: no I/O, no clock.

Every session that a stage takes or awaits is looked at once; first match wins:

- in `successes`: the stage's success, if it has one.
- in `failures`: one more attempt, then *give up* when the attempts are used up, *expired* when the
  phase is as old as its limit, otherwise *need retry*: it stays, and the stage leaves it alone for
  a while.
- otherwise, skipped or not named: *expired* when the phase is as old as its limit.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sokovan.domain.cluster import ScalingGroup
from sokovan.domain.sessions import Attempts, Limit, SessionId, SessionWithKernels
from sokovan.scheduler.moves import Move, Outcome
from sokovan.scheduler.results import SessionExecutionResult, SessionTransitionInfo
from sokovan.scheduler.stages import STAGES, Stage, TransitionStatus, limit_of

BACKOFF_S_MAX = 60.0


@dataclass(frozen=True, slots=True)
class Phase:
    """How far a session is with a stage: failed attempts, seconds in its present status, limits."""

    attempts: int
    age_s: float
    limit: Limit = Limit()


@dataclass(frozen=True, slots=True)
class NotedWait:
    """Why a session waits, and since when for this reason."""

    code: str
    since: float


@dataclass(frozen=True, slots=True)
class StageLoad:
    """The sessions that a stage takes and those it awaits, and what judges them.

    Attributes:
        taken: Given to the handler.
        backing_off: In a status the stage takes, but left alone until their next attempt is due.
        awaited: Watched by the clock alone.
        now: Seconds since the epoch.
        group: The policy they are under.
        waits: The present waiting reason of those that were skipped before.
        taken_over_at: Since when somebody is here to see phases end; none grew older before.
        note_after_s: How long a waiting reason must hold before history has it.
        again_at: When the stage is to be run again, whatever the sessions' own times.
    """

    taken: tuple[SessionWithKernels, ...] = ()
    backing_off: tuple[SessionWithKernels, ...] = ()
    awaited: tuple[SessionWithKernels, ...] = ()
    now: float = 0.0
    group: ScalingGroup = field(default_factory=ScalingGroup)
    waits: Mapping[SessionId, NotedWait] = field(default_factory=dict)
    note_after_s: float = 60.0
    taken_over_at: float = 0.0
    again_at: float | None = None

    def __bool__(self) -> bool:
        return bool(self.taken or self.backing_off or self.awaited)


def phase_of(
    stage: Stage,
    session: SessionWithKernels,
    group: ScalingGroup,
    now: float,
    taken_over_at: float = 0.0,
) -> Phase:
    """Return a session's phase with a stage.

    The phase began when the session came into its present status; its attempts were reset then,
    unless it came from what the same stage takes. While no manager ran it did not grow older:
    nobody could hear what would have ended it. Only a walltime goes on.
    """
    limit = limit_of(stage, session.limits.get(stage.name), group.limits.get(stage.name))
    if stage.limit_is_walltime:
        limit = Limit(limit.attempts_max, session.walltime_s)
    attempts = session.attempts.get(stage.name)
    age_s = now - _began_at(stage, session, taken_over_at)
    return Phase(attempts.count if attempts else 0, age_s, limit)


def expires_at(
    stage: Stage, session: SessionWithKernels, group: ScalingGroup, taken_over_at: float = 0.0
) -> float | None:
    """Return when the clock alone will expire the session, or `None` when it never will."""
    limit_s = phase_of(stage, session, group, 0.0).limit.phase_s_max
    if not limit_s or stage.expired is None:
        return None
    return _began_at(stage, session, taken_over_at) + limit_s


def _began_at(stage: Stage, session: SessionWithKernels, taken_over_at: float) -> float:
    if stage.limit_is_walltime:
        return session.status_since
    return max(session.status_since, taken_over_at)


def backoff_s(attempts: int) -> float:
    """Return the pause after so many failed attempts: 1, 2, 4 … 60 seconds."""
    return min(2.0 ** min(attempts - 1, 10), BACKOFF_S_MAX)


def settle(stage: Stage, load: StageLoad, report: SessionExecutionResult) -> Sequence[Move]:
    """Decide what becomes of every loaded session."""
    return list(_moves(stage, load, report))


def _moves(stage: Stage, load: StageLoad, report: SessionExecutionResult) -> Iterator[Move]:
    successes = {info.session_id: info for info in report.successes}
    failures = {info.session_id: info for info in report.failures}
    skipped = {info.session_id: info for info in report.skipped}
    usual = limit_of(stage, load.group.limits.get(stage.name))
    clock_matters = stage.expired is not None and bool(usual.phase_s_max or stage.limit_is_walltime)
    judged: set[SessionId] = set()
    for session in (*load.taken, *load.backing_off, *load.awaited):
        session_id = session.session_id
        if session_id in judged:  # a stage may take and await the same status
            continue
        judged.add(session_id)
        if stage.success is not None and (info := successes.get(session_id)):
            yield _move(
                stage, session, Outcome.SUCCESS, stage.success, info.reason, info.detail, info
            )
        elif (info := failures.get(session_id)) and _counts(stage, session, info, load.now):
            yield from _failed(stage, load, session, info)
        elif (clock_matters or (session.limits and stage.expired)) and _is_expired(
            phase_of(stage, session, load.group, load.now, load.taken_over_at)
        ):
            yield _move(stage, session, Outcome.EXPIRED, stage.expired, stage.expired_reason)
        elif info := failures.get(session_id) or skipped.get(session_id):
            yield from _note(stage, load, session, info)


def _counts(
    stage: Stage, session: SessionWithKernels, info: SessionTransitionInfo, now: float
) -> bool:
    """Say whether a failure counts: some do so only once in a while, and are a wait in between."""
    before = session.attempts.get(stage.name, Attempts())
    return not before.count or now - before.last_at >= (info.counted_every_s or 0.0)


def caught_up(move: Move, session: SessionWithKernels, group: ScalingGroup) -> Move:
    """Return what a counted failure leads to, with those that agents have reported since.

    Together they may be too many, although the move was decided when they were not.
    """
    if move.attempts is None:
        return move
    stage = next(stage for stage in STAGES if stage.name == move.stage)
    phase = phase_of(stage, session, group, 0.0)
    count, most = max(move.attempts.count, phase.attempts + 1), phase.limit.attempts_max
    if most is None or count < most:
        return move
    outcome, target = _out_of_attempts(stage)
    return replace(move, outcome=outcome, to=target, attempts=None)


def _out_of_attempts(stage: Stage) -> tuple[Outcome, TransitionStatus | None]:
    """Where no target is set for giving up, used-up attempts expire."""
    if stage.give_up is not None:
        return Outcome.GIVE_UP, stage.give_up
    return Outcome.EXPIRED, stage.expired


def _failed(
    stage: Stage, load: StageLoad, session: SessionWithKernels, info: SessionTransitionInfo
) -> Iterator[Move]:
    phase = phase_of(stage, session, load.group, load.now, load.taken_over_at)
    count = phase.attempts + 1
    limit = phase.limit
    if limit.attempts_max is not None and count >= limit.attempts_max:
        outcome, target = _out_of_attempts(stage)
        yield _move(stage, session, outcome, target, info.reason, info.detail)
    elif limit.phase_s_max is not None and phase.age_s >= limit.phase_s_max:
        yield _move(stage, session, Outcome.EXPIRED, stage.expired, info.reason, info.detail)
    else:
        pause_s = 0.0 if info.counted_every_s is not None else backoff_s(count)
        yield Move(
            session.session_id,
            session.status,
            session.status_seq,
            stage.name,
            Outcome.NEED_RETRY,
            None,
            info.reason,
            info.detail,
            attempts=Attempts(count, last_at=load.now, retry_at=load.now + pause_s),
        )


def _note(
    stage: Stage, load: StageLoad, session: SessionWithKernels, info: SessionTransitionInfo
) -> Iterator[Move]:
    """History hears of a waiting reason once per phase, when it has held for a full cycle."""
    wait = load.waits.get(session.session_id)
    if wait is None or wait.code == session.noted_reason:
        return
    if load.now - wait.since >= load.note_after_s:
        yield _move(stage, session, Outcome.SKIPPED, None, wait.code, info.detail)


def _is_expired(phase: Phase) -> bool:
    """A limit of 0 is for reported failures; the clock alone expires nothing then."""
    return bool(phase.limit.phase_s_max) and phase.age_s >= (phase.limit.phase_s_max or 0)


def _move(
    stage: Stage,
    session: SessionWithKernels,
    outcome: Outcome,
    to: TransitionStatus | None,
    reason: str,
    detail: str = "",
    info: SessionTransitionInfo | None = None,
) -> Move:
    return Move(
        session.session_id,
        session.status,
        session.status_seq,
        stage.name,
        outcome,
        to,
        reason,
        detail,
        assignment=info.assignment if info else None,
    )
