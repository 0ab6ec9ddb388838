"""From a handler's report to moves: every rule of the semantics, with plain values."""

import pytest

from sokovan.domain.cluster import ScalingGroup
from sokovan.domain.reasons import Wait, WaitReason
from sokovan.domain.sessions import Limit
from sokovan.domain.statuses import KernelStatus, SessionStatus
from sokovan.scheduler import stages
from sokovan.scheduler.moves import Outcome
from sokovan.scheduler.results import (
    NOTHING,
    SessionExecutionResult,
    SessionTransitionInfo,
    each,
)
from sokovan.scheduler.settle import StageLoad, backoff_s, expires_at, phase_of, settle
from sokovan.scheduler.stages import TransitionStatus
from tests.build import (
    NOW,
    S1,
    S2,
    S3,
    a_load,
    a_session,
    a_wait,
    an_assignment,
    attempts_of,
)

S = SessionStatus


def aged(session_id, status, age_s, **changes):
    return a_session(session_id, status, status_since=NOW - age_s, **changes)


def failed(*sessions, reason="agent-failed", **changes):
    infos = [info._replace(**changes) for info in each(sessions, reason, "no answer")]
    return SessionExecutionResult(failures=infos)


def skipped(*sessions, reason="not-scheduled-this-cycle"):
    return SessionExecutionResult(skipped=each(sessions, reason))


def succeeded(*sessions, reason="done"):
    return SessionExecutionResult(successes=each(sessions, reason))


# --- successes ------------------------------------------------------------------------------------


def test_a_success_moves_along_the_success_of_the_stage():
    session = a_session(S1, S.SCHEDULED, status_seq=7)

    (move,) = settle(
        stages.CHECK_PRECONDITION, a_load(session), succeeded(session, reason="passed")
    )

    assert move.outcome is Outcome.SUCCESS
    assert move.to == TransitionStatus(S.PREPARING, KernelStatus.PREPARING)
    assert move.to_status is S.PREPARING
    assert (move.from_status, move.status_seq) == (S.SCHEDULED, 7)
    assert move.reason == "passed"
    assert move.stage == "check-precondition"


def test_a_success_takes_its_assignment_and_its_detail_along():
    session = a_session(S1)
    info = SessionTransitionInfo(
        S1, S.PENDING, "scheduled", "on a1", assignment=an_assignment(session)
    )

    (move,) = settle(
        stages.SCHEDULE_SESSIONS, a_load(session), SessionExecutionResult(successes=[info])
    )

    assert move.assignment == an_assignment(session)
    assert move.detail == "on a1"


def test_a_success_wins_over_the_limit_of_the_phase():
    session = aged(S1, S.SCHEDULED, 901)

    (move,) = settle(stages.CHECK_PRECONDITION, a_load(session), succeeded(session))

    assert move.outcome is Outcome.SUCCESS


def test_a_success_of_a_stage_without_a_target_moves_nothing():
    session = a_session(S1, S.TERMINATING)

    assert settle(stages.TERMINATE_SESSIONS, a_load(session), succeeded(session)) == []


def test_a_success_of_a_stage_without_a_target_does_not_stop_the_clock():
    session = aged(S1, S.TERMINATING, 900)

    (move,) = settle(stages.TERMINATE_SESSIONS, a_load(session), succeeded(session))

    assert move.outcome is Outcome.EXPIRED
    assert move.to_status is S.TERMINATED


# --- failures -------------------------------------------------------------------------------------


def test_a_failure_counts_one_attempt_and_the_session_stays():
    session = a_session(S1, S.SCHEDULED)

    (move,) = settle(stages.CHECK_PRECONDITION, a_load(session), failed(session))

    assert move.outcome is Outcome.NEED_RETRY
    assert move.to is None
    assert move.to_status is None
    assert move.reason == "agent-failed"
    assert move.detail == "no answer"
    assert move.attempts.count == 1
    assert move.attempts.last_at == NOW
    assert move.attempts.retry_at == NOW + 1


def test_the_fifth_failure_is_the_last_of_five():
    fourth, fifth = (
        a_session(S1, S.SCHEDULED, attempts=attempts_of(stages.CHECK_PRECONDITION, count))
        for count in (3, 4)
    )

    (stays,) = settle(stages.CHECK_PRECONDITION, a_load(fourth), failed(fourth))
    (leaves,) = settle(stages.CHECK_PRECONDITION, a_load(fifth), failed(fifth))

    assert stays.outcome is Outcome.NEED_RETRY
    assert leaves.outcome is not Outcome.NEED_RETRY


def test_exhausted_attempts_give_up_where_the_stage_can():
    session = a_session(S1, attempts=attempts_of(stages.SCHEDULE_SESSIONS, 4))

    (move,) = settle(stages.SCHEDULE_SESSIONS, a_load(session), failed(session))

    assert move.outcome is Outcome.GIVE_UP
    assert move.to == TransitionStatus(S.DEPRIORITIZING, None)
    assert move.reason == "agent-failed"


def test_exhausted_attempts_expire_where_the_stage_cannot_give_up():
    session = a_session(S1, S.PREPARED, attempts=attempts_of(stages.START_SESSIONS, 4))

    (move,) = settle(stages.START_SESSIONS, a_load(session), failed(session))

    assert move.outcome is Outcome.EXPIRED
    assert move.to_status is S.PENDING
    assert move.reason == "agent-failed"


def test_giving_up_comes_before_expiring():
    session = aged(
        S1,
        S.PENDING,
        100,
        attempts=attempts_of(stages.SCHEDULE_SESSIONS, 4),
        limits={"schedule-sessions": Limit(phase_s_max=10)},
    )

    (move,) = settle(stages.SCHEDULE_SESSIONS, a_load(session), failed(session))

    assert move.outcome is Outcome.GIVE_UP


def test_a_failure_in_an_old_phase_expires_with_the_reason_of_the_failure():
    session = aged(S1, S.PREPARED, 600)

    (move,) = settle(stages.START_SESSIONS, a_load(session), failed(session))

    assert move.outcome is Outcome.EXPIRED
    assert move.to_status is S.PENDING
    assert move.reason == "agent-failed"


def test_a_phase_is_over_exactly_at_its_limit():
    young, old = aged(S1, S.PREPARED, 599.9), aged(S2, S.PREPARED, 600)

    moves = settle(stages.START_SESSIONS, a_load(young, old), NOTHING)

    assert [(move.session_id, move.outcome) for move in moves] == [(S2, Outcome.EXPIRED)]


def test_a_swept_session_expires_however_young_its_phase_is():
    session = a_session(S1)
    report = SessionExecutionResult(failures=each([session], "PENDING_TIMEOUT_EXCEEDED"))

    (move,) = settle(stages.SWEEP_SESSIONS, a_load(session), report)

    assert move.outcome is Outcome.EXPIRED
    assert move.to_status is S.TERMINATING
    assert move.reason == "PENDING_TIMEOUT_EXCEEDED"


def test_sweeping_expires_nothing_that_was_not_reported():
    session = aged(S1, S.PENDING, 10_000_000)

    assert settle(stages.SWEEP_SESSIONS, a_load(session), NOTHING) == []


def test_a_stage_without_limits_tries_for_ever():
    session = aged(
        S1,
        S.DEPRIORITIZING,
        10_000_000,
        attempts=attempts_of(stages.DEPRIORITIZE_SESSIONS, 5_000),
    )

    (move,) = settle(stages.DEPRIORITIZE_SESSIONS, a_load(session), failed(session))

    assert move.outcome is Outcome.NEED_RETRY
    assert move.attempts.count == 5_001
    assert move.attempts.retry_at == NOW + 60


@pytest.mark.parametrize(
    ("attempts", "pause_s"),
    [(1, 1), (2, 2), (3, 4), (4, 8), (5, 16), (6, 32), (7, 60), (8, 60), (100_000, 60)],
)
def test_the_pause_doubles_from_one_second_to_a_minute(attempts, pause_s):
    assert backoff_s(attempts) == pause_s


def test_a_failure_that_counts_once_a_minute_is_not_backed_off():
    session = a_session(S1)

    (move,) = settle(
        stages.SCHEDULE_SESSIONS,
        a_load(session),
        failed(session, reason="NEVER_FITS", counted_every_s=60.0),
    )

    assert move.outcome is Outcome.NEED_RETRY
    assert move.attempts.count == 1
    assert move.attempts.retry_at <= NOW


def test_a_failure_that_counts_once_a_minute_is_not_counted_again_within_it():
    counted = attempts_of(stages.SCHEDULE_SESSIONS, 1, last_at=NOW - 59)
    session = a_session(S1, attempts=counted)

    moves = settle(stages.SCHEDULE_SESSIONS, a_load(session), failed(session, counted_every_s=60.0))

    assert moves == []


def test_a_failure_that_counts_once_a_minute_is_counted_again_after_it():
    counted = attempts_of(stages.SCHEDULE_SESSIONS, 1, last_at=NOW - 60)
    session = a_session(S1, attempts=counted)

    (move,) = settle(
        stages.SCHEDULE_SESSIONS, a_load(session), failed(session, counted_every_s=60.0)
    )

    assert move.attempts.count == 2


def test_the_fifth_failure_that_counts_once_a_minute_gives_up():
    counted = attempts_of(stages.SCHEDULE_SESSIONS, 4, last_at=NOW - 60)
    session = a_session(S1, attempts=counted)

    (move,) = settle(
        stages.SCHEDULE_SESSIONS, a_load(session), failed(session, counted_every_s=60.0)
    )

    assert move.outcome is Outcome.GIVE_UP


def test_a_failure_that_is_not_counted_is_noted_like_a_waiting_reason():
    counted = attempts_of(stages.SCHEDULE_SESSIONS, 1, last_at=NOW - 10)
    session = a_session(S1, attempts=counted)
    load = a_load(session, waits={S1: a_wait("NEVER_FITS", held_s=60)})

    (move,) = settle(stages.SCHEDULE_SESSIONS, load, failed(session, counted_every_s=60.0))

    assert move.outcome is Outcome.SKIPPED
    assert move.reason == "NEVER_FITS"


def test_a_failure_that_is_not_counted_does_not_stop_the_clock():
    session = aged(
        S1,
        S.PENDING,
        100,
        attempts=attempts_of(stages.SCHEDULE_SESSIONS, 1, last_at=NOW - 10),
        limits={"schedule-sessions": Limit(phase_s_max=100)},
    )

    (move,) = settle(
        stages.SCHEDULE_SESSIONS, a_load(session), failed(session, counted_every_s=60.0)
    )

    assert move.outcome is Outcome.EXPIRED


# --- the clock ------------------------------------------------------------------------------------


def test_an_awaited_session_expires_when_its_phase_is_as_old_as_the_limit():
    session = aged(S1, S.PREPARING, 900)

    (move,) = settle(stages.CHECK_PRECONDITION, StageLoad(awaited=(session,), now=NOW), NOTHING)

    assert move.outcome is Outcome.EXPIRED
    assert move.to_status is S.PENDING
    assert move.reason == "phase-timeout"


def test_an_awaited_session_in_a_young_phase_is_left_alone():
    session = aged(S1, S.PREPARING, 899)

    load = StageLoad(awaited=(session,), now=NOW)

    assert settle(stages.CHECK_PRECONDITION, load, NOTHING) == []


def test_a_session_that_is_backing_off_expires_all_the_same():
    session = aged(S1, S.SCHEDULED, 900)

    (move,) = settle(stages.CHECK_PRECONDITION, StageLoad(backing_off=(session,), now=NOW), NOTHING)

    assert move.outcome is Outcome.EXPIRED


def test_a_session_skipped_in_an_old_phase_expires():
    session = aged(S1, S.PENDING, 10, limits={"schedule-sessions": Limit(phase_s_max=10)})

    (move,) = settle(stages.SCHEDULE_SESSIONS, a_load(session), skipped(session))

    assert move.outcome is Outcome.EXPIRED
    assert move.to_status is S.TERMINATING


def test_a_stage_that_takes_and_awaits_the_same_status_judges_a_session_once():
    session = aged(S1, S.TERMINATING, 900)
    load = StageLoad(taken=(session,), awaited=(session,), now=NOW)

    (move,) = settle(stages.TERMINATE_SESSIONS, load, NOTHING)

    assert move.outcome is Outcome.EXPIRED
    assert move.to_status is S.TERMINATED
    assert move.reason == "TERMINATION_TIMEOUT"


def test_a_running_session_expires_when_its_walltime_is_over():
    over, short_of_it = (
        aged(session_id, S.RUNNING, age_s, walltime_s=60.0)
        for session_id, age_s in ((S1, 60), (S2, 59))
    )
    load = StageLoad(awaited=(over, short_of_it), now=NOW)

    (move,) = settle(stages.ENFORCE_WALLTIME, load, NOTHING)

    assert move.session_id == S1
    assert move.to_status is S.TERMINATING
    assert move.reason == "WALLTIME_EXCEEDED"


def test_a_running_session_without_a_walltime_never_expires():
    session = aged(S1, S.RUNNING, 10_000_000)

    load = StageLoad(awaited=(session,), now=NOW)

    assert settle(stages.ENFORCE_WALLTIME, load, NOTHING) == []


# --- limits ---------------------------------------------------------------------------------------


def test_the_limits_of_the_group_replace_those_of_the_table():
    group = ScalingGroup(limits={"start-sessions": Limit(attempts_max=1)})
    session = a_session(S1, S.PREPARED)

    (move,) = settle(stages.START_SESSIONS, a_load(session, group=group), failed(session))

    assert move.outcome is Outcome.EXPIRED


def test_the_limits_of_the_session_replace_those_of_the_group():
    group = ScalingGroup(limits={"start-sessions": Limit(attempts_max=1, phase_s_max=30)})
    session = aged(S1, S.PREPARED, 29, limits={"start-sessions": Limit(attempts_max=2)})

    (move,) = settle(stages.START_SESSIONS, a_load(session, group=group), failed(session))

    assert move.outcome is Outcome.NEED_RETRY
    assert phase_of(stages.START_SESSIONS, session, group, NOW).limit == Limit(2, 30)


def test_limits_of_another_stage_change_nothing():
    session = aged(S1, S.PREPARED, 100, limits={"check-precondition": Limit(1, 1)})

    (move,) = settle(stages.START_SESSIONS, a_load(session), failed(session))

    assert move.outcome is Outcome.NEED_RETRY


def test_attempts_of_another_stage_count_nothing():
    session = a_session(S1, S.PREPARED, attempts=attempts_of(stages.CHECK_PRECONDITION, 4))

    (move,) = settle(stages.START_SESSIONS, a_load(session), failed(session))

    assert move.attempts.count == 1


def test_a_phase_expires_when_its_limit_has_passed_since_it_began():
    session = aged(S1, S.PREPARING, 100)

    at = expires_at(stages.CHECK_PRECONDITION, session, ScalingGroup())

    assert at == NOW - 100 + 900


@pytest.mark.parametrize("stage", [stages.SCHEDULE_SESSIONS, stages.SWEEP_SESSIONS])
def test_a_phase_without_a_limit_or_with_a_limit_of_zero_never_expires_by_itself(stage):
    assert expires_at(stage, a_session(S1), ScalingGroup()) is None


# --- skipped --------------------------------------------------------------------------------------


def test_a_skipped_session_is_charged_nothing():
    session = a_session(S1)

    assert settle(stages.SCHEDULE_SESSIONS, a_load(session), skipped(session)) == []


def test_history_hears_of_a_waiting_reason_that_has_held_for_a_full_cycle():
    session = a_session(S1)
    load = a_load(session, waits={S1: a_wait("TOO_LITTLE_CPU", held_s=60)})

    (move,) = settle(stages.SCHEDULE_SESSIONS, load, skipped(session))

    assert move.outcome is Outcome.SKIPPED
    assert move.to is None
    assert move.attempts is None
    assert move.reason == "TOO_LITTLE_CPU"


def test_history_does_not_hear_of_a_waiting_reason_that_is_young():
    session = a_session(S1)
    load = a_load(session, waits={S1: a_wait("TOO_LITTLE_CPU", held_s=59)})

    assert settle(stages.SCHEDULE_SESSIONS, load, skipped(session)) == []


def test_history_hears_of_a_waiting_reason_once():
    session = a_session(S1, noted_reason="TOO_LITTLE_CPU")
    load = a_load(session, waits={S1: a_wait("TOO_LITTLE_CPU", held_s=600)})

    assert settle(stages.SCHEDULE_SESSIONS, load, skipped(session)) == []


def test_history_hears_of_the_next_waiting_reason():
    session = a_session(S1, noted_reason="TOO_LITTLE_CPU")
    load = a_load(session, waits={S1: a_wait("TOO_LITTLE_MEM", held_s=60)})

    (move,) = settle(stages.SCHEDULE_SESSIONS, load, skipped(session))

    assert move.reason == "TOO_LITTLE_MEM"


def test_how_long_a_waiting_reason_must_hold_is_the_length_of_a_full_cycle():
    session = a_session(S1)
    load = a_load(session, waits={S1: a_wait("TOO_LITTLE_CPU", held_s=5)}, note_after_s=5.0)

    assert len(settle(stages.SCHEDULE_SESSIONS, load, skipped(session))) == 1


# --- whole batches --------------------------------------------------------------------------------


def test_a_report_that_names_a_session_that_was_not_loaded_moves_nothing():
    stranger = a_session(S2, S.SCHEDULED)
    report = SessionExecutionResult(each([stranger], "x"), each([stranger], "x"))

    assert settle(stages.CHECK_PRECONDITION, a_load(a_session(S1, S.SCHEDULED)), report) == []


def test_every_session_of_a_batch_is_judged_by_its_own_part_of_the_report():
    ok, bad, old = (
        a_session(S1, S.SCHEDULED),
        a_session(S2, S.SCHEDULED),
        aged(S3, S.PREPARING, 900),
    )
    report = SessionExecutionResult(each([ok], "passed"), each([bad], "agent-failed"))

    moves = settle(stages.CHECK_PRECONDITION, a_load(ok, bad, awaited=(old,)), report)

    assert {move.session_id: move.outcome for move in moves} == {
        S1: Outcome.SUCCESS,
        S2: Outcome.NEED_RETRY,
        S3: Outcome.EXPIRED,
    }


def test_a_load_is_empty_only_when_nothing_is_taken_left_alone_or_awaited():
    session = a_session(S1)

    assert not StageLoad()
    assert StageLoad(taken=(session,))
    assert StageLoad(backing_off=(session,))
    assert StageLoad(awaited=(session,))


def test_a_report_may_say_more_of_why_a_session_waits():
    info = SessionTransitionInfo(
        S1, S.PENDING, "not-scheduled-this-cycle", wait=Wait(WaitReason.TOO_LITTLE_CPU)
    )

    assert info.wait.facts == {}
