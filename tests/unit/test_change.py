"""What one transaction does to one session: moves, reports, lost agents and users' requests."""

import itertools
from dataclasses import replace

import pytest

from sokovan.domain.reasons import EndReason, MoveReason
from sokovan.domain.resources import Request
from sokovan.domain.sessions import Attempts, KernelAssignment, Limit
from sokovan.domain.statuses import KernelStatus, SessionResult, SessionStatus
from sokovan.scheduler import stages
from sokovan.scheduler.change import SessionChange
from sokovan.scheduler.ledger import submission_lines
from sokovan.scheduler.moves import Move, Outcome
from sokovan.scheduler.stages import both
from tests.build import (
    A1,
    A2,
    GIB,
    NOW,
    S1,
    a_kernel,
    a_move,
    a_session,
    an_assignment,
    attempts_of,
)

S, K = SessionStatus, KernelStatus
REQUEUES_MAX = 5
PLACED = (S.SCHEDULED, S.PREPARING, S.PREPARED, S.CREATING, S.RUNNING)


def a_change(session, *, now=NOW):
    return SessionChange(session, now)


def moved(session, stage, to=None, outcome=Outcome.SUCCESS, *, requeues_max=REQUEUES_MAX, **given):
    change = a_change(session)
    names = (f"new{number}" for number in itertools.count())
    change.move(a_move(session, stage, to, outcome, **given), lambda: next(names), requeues_max)
    return change


def ended(change, index=0, exit_code=0, **given):
    facts = {"ran": True, "exit_code": exit_code, "reason": None} | given
    change.kernel_gone(index, **facts)
    return change


def path(change, kernel_id=None):
    """Return the statuses that history shows, without notes."""
    lines = [line for line in change.lines if line.kernel_id == kernel_id]
    steps = [line for line in lines if line.from_status != line.to_status]
    for one, other in itertools.pairwise(steps):
        assert one.to_status == other.from_status, "history has a gap"
    return [str(status) for line in steps[:1] for status in [line.from_status]] + [
        str(line.to_status) for line in steps
    ]


def end_of(change):
    return change.session.status, change.session.result, change.session.reason


# --- what a stage decided -------------------------------------------------------------------------


def test_a_success_takes_session_and_kernels_to_the_next_status():
    change = moved(a_session(S1, S.SCHEDULED, kernels=2), stages.CHECK_PRECONDITION)

    assert change.session.status is S.PREPARING
    assert {kernel.status for kernel in change.session.kernels} == {K.PREPARING}
    assert change.session.status_seq == 1
    assert change.session.status_since == NOW
    assert [line.to_status for line in change.lines] == ["PREPARING"] * 3


def test_a_move_holds_only_while_status_and_number_are_as_it_saw_them():
    session = a_session(S1, S.SCHEDULED, status_seq=3)
    change = a_change(session)

    assert change.still_holds(a_move(session, stages.CHECK_PRECONDITION))
    assert not change.still_holds(a_move(replace(session, status_seq=2), stages.CHECK_PRECONDITION))
    assert not change.still_holds(
        a_move(replace(session, status=S.PENDING), stages.CHECK_PRECONDITION)
    )


def test_placing_gives_every_kernel_an_agent_a_token_and_a_hold():
    session = a_session(S1, kernels=2)
    devices = ((0, 500),)
    assignment = (
        KernelAssignment(session.kernels[0].kernel_id, A1, devices),
        KernelAssignment(session.kernels[1].kernel_id, A2),
    )

    change = moved(session, stages.SCHEDULE_SESSIONS, assignment=assignment)

    main, sub = change.session.kernels
    assert (main.agent_id, main.token, main.devices) == (A1, "new0", devices)
    assert (sub.agent_id, sub.token, sub.devices) == (A2, "new1", ())
    assert {kernel.status for kernel in change.session.kernels} == {K.SCHEDULED}
    assert [(hold.token, hold.agent_id, hold.cpu_milli, hold.mem_bytes, hold.devices)
            for hold in change.added] == [
        ("new0", A1, 1000, GIB, devices),
        ("new1", A2, 1000, GIB, ()),
    ]  # fmt: skip


def test_a_failed_attempt_is_recorded_and_moves_nothing():
    session = a_session(S1, S.SCHEDULED)
    attempts = attempts_of(stages.CHECK_PRECONDITION, 1, last_at=NOW)["check-precondition"]

    change = moved(
        session,
        stages.CHECK_PRECONDITION,
        outcome=Outcome.NEED_RETRY,
        reason="agent-failed",
        detail="no answer",
        attempts=attempts,
    )

    assert change.session.status_seq == session.status_seq
    assert change.session.attempts == {"check-precondition": attempts}
    (line,) = change.lines
    assert (line.from_status, line.to_status) == (S.SCHEDULED, S.SCHEDULED)
    assert (line.reason, line.detail, line.stage) == (
        "agent-failed",
        "no answer",
        "check-precondition",
    )


def test_failures_that_agents_reported_while_a_stage_was_at_work_are_not_forgotten():
    """The stage saw none, an agent reported two since, and the stage's own is the third."""
    session = a_session(S1, S.PREPARED, attempts=attempts_of(stages.START_SESSIONS, 2))
    attempts = attempts_of(stages.START_SESSIONS, 1, last_at=NOW)["start-sessions"]

    change = moved(session, stages.START_SESSIONS, outcome=Outcome.NEED_RETRY, attempts=attempts)

    assert change.session.attempts["start-sessions"].count == 3


def test_a_noted_waiting_reason_is_remembered_until_the_next_phase():
    session = a_session(S1)
    noted = moved(
        session, stages.SCHEDULE_SESSIONS, outcome=Outcome.SKIPPED, reason="TOO_LITTLE_CPU"
    )

    assert noted.session.noted_reason == "TOO_LITTLE_CPU"
    assert noted.session.attempts == {}
    assert moved(noted.session, stages.SCHEDULE_SESSIONS).session.noted_reason is None


def test_kernels_that_were_never_placed_are_final_in_the_same_move():
    change = moved(
        a_session(S1, kernels=2),
        stages.SWEEP_SESSIONS,
        both("TERMINATING"),
        reason=EndReason.PENDING_TIMEOUT_EXCEEDED,
    )

    assert end_of(change) == (S.TERMINATED, SessionResult.FAILURE, "PENDING_TIMEOUT_EXCEEDED")
    assert path(change) == ["PENDING", "TERMINATING", "TERMINATED"]
    for kernel in change.session.kernels:
        assert path(change, kernel.kernel_id) == ["PENDING", "TERMINATING", "TERMINATED"]
    assert change.released == change.left_over == []


def test_a_session_over_its_walltime_terminates_and_waits_for_its_kernels():
    change = moved(
        a_session(S1, S.RUNNING),
        stages.ENFORCE_WALLTIME,
        both("TERMINATING"),
        reason=EndReason.WALLTIME_EXCEEDED,
    )

    assert end_of(change) == (S.TERMINATING, SessionResult.FAILURE, "WALLTIME_EXCEEDED")
    assert change.session.main.status is K.TERMINATING
    assert change.session.ended_at is None


def test_a_termination_that_takes_too_long_leaves_its_kernels_over():
    session = a_session(S1, S.TERMINATING, reason="USER_REQUESTED", result=SessionResult.FAILURE)

    change = moved(
        session, stages.TERMINATE_SESSIONS, both("TERMINATED"), reason="TERMINATION_TIMEOUT"
    )

    assert end_of(change) == (S.TERMINATED, SessionResult.FAILURE, "USER_REQUESTED")
    assert change.session.main.status is K.TERMINATED
    assert change.session.ended_at == NOW
    assert change.left_over == [session.main.token]
    assert change.released == []


def test_a_kernel_that_is_given_up_says_so_whatever_failed_last():
    session = a_session(S1, S.TERMINATING, reason="USER_REQUESTED", result=SessionResult.FAILURE)

    change = moved(session, stages.TERMINATE_SESSIONS, both("TERMINATED"), reason="agent-failed")

    assert change.session.main.reason == EndReason.TERMINATION_TIMEOUT


def test_giving_up_a_termination_leaves_the_kernels_alone_that_are_gone():
    kernels = [a_kernel(0, K.TERMINATED, exit_code=0), a_kernel(1, K.TERMINATING)]
    session = a_session(S1, S.TERMINATING, kernels=kernels, reason="SELF_TERMINATED")

    change = moved(
        session, stages.TERMINATE_SESSIONS, both("TERMINATED"), reason="TERMINATION_TIMEOUT"
    )

    assert change.left_over == [kernels[1].token]
    assert change.session.kernels[0] == kernels[0]


def test_giving_up_a_placement_deprioritizes_and_leaves_the_kernels_as_they_are():
    session = a_session(S1, kernels=2)

    change = moved(session, stages.SCHEDULE_SESSIONS, stages.SCHEDULE_SESSIONS.give_up)

    assert change.session.status is S.DEPRIORITIZING
    assert change.session.kernels == session.kernels


def test_a_bounce_through_deprioritizing_does_not_restart_the_pending_timeout():
    session = a_session(S1, S.DEPRIORITIZING, pending_since=NOW - 500, requeues=2)

    change = moved(session, stages.DEPRIORITIZE_SESSIONS)

    assert change.session.status is S.PENDING
    assert change.session.pending_since == NOW - 500
    assert change.session.requeues == 2


# --- attempts -------------------------------------------------------------------------------------


def test_attempts_are_kept_from_what_a_stage_takes_to_what_it_awaits():
    session = a_session(
        S1,
        S.SCHEDULED,
        attempts=attempts_of(stages.CHECK_PRECONDITION, 2)
        | attempts_of(stages.SCHEDULE_SESSIONS, 3),
    )

    change = moved(session, stages.CHECK_PRECONDITION)

    assert change.session.attempts == attempts_of(stages.CHECK_PRECONDITION, 2)


@pytest.mark.parametrize(
    ("status", "stage"),
    [(S.PENDING, stages.SCHEDULE_SESSIONS), (S.DEPRIORITIZING, stages.DEPRIORITIZE_SESSIONS)],
)
def test_attempts_are_forgotten_in_a_new_phase(status, stage):
    session = a_session(S1, status, attempts=attempts_of(stage, 2))

    assert moved(session, stage).session.attempts == {}


def test_attempts_are_forgotten_when_a_session_comes_to_the_next_stage():
    kernels = [a_kernel(0, K.PREPARING)]
    session = a_session(
        S1, S.PREPARING, kernels=kernels, attempts=attempts_of(stages.CHECK_PRECONDITION, 4)
    )
    change = a_change(session)

    change.kernel_prepared(0, K.PREPARED)

    assert change.session.status is S.PREPARED
    assert change.session.attempts == {}


# --- back to PENDING ------------------------------------------------------------------------------


def requeued(session, **given):
    return moved(session, stages.START_SESSIONS, both("PENDING"), Outcome.EXPIRED, **given)


def test_a_requeue_forgets_the_assignment_and_leaves_over_what_may_still_exist():
    session = a_session(S1, S.PREPARED, kernels=2)

    change = requeued(session, reason="phase-timeout")

    assert change.session.status is S.PENDING
    assert change.session.requeues == 1
    assert change.session.pending_since == NOW
    assert change.left_over == [kernel.token for kernel in session.kernels]
    assert change.released == []
    for kernel in change.session.kernels:
        assert kernel.status is K.PENDING
        assert kernel.agent_id is kernel.token is None
        assert kernel.devices == ()
        assert path(change, kernel.kernel_id) == ["PREPARED", "PENDING"]


def test_a_requeue_remembers_each_agent_once():
    kernels = [a_kernel(0, K.PREPARED), a_kernel(1, K.PREPARED, agent_id=A2)]
    session = a_session(S1, S.PREPARED, kernels=kernels, avoid=(A2,))

    assert requeued(session).session.avoid == (A2, A1)


def test_a_requeue_leaves_nothing_over_of_a_kernel_that_is_gone():
    kernels = [a_kernel(0, K.RUNNING), a_kernel(1, K.TERMINATED, exit_code=0, started_at=NOW)]
    session = a_session(S1, S.CREATING, kernels=kernels)

    change = requeued(session)

    assert change.left_over == [kernels[0].token]
    again = change.session.kernels[1]
    assert again.status is K.PENDING
    assert again.exit_code is again.started_at is again.ended_at is None


def test_a_requeue_leaves_a_kernel_as_it_is_that_was_never_placed():
    kernels = [a_kernel(0, K.PREPARED), a_kernel(1, K.PENDING)]

    change = requeued(a_session(S1, S.PREPARED, kernels=kernels))

    assert change.left_over == [kernels[0].token]
    assert path(change, kernels[1].kernel_id) == []


def test_a_kernel_without_a_token_holds_nothing_that_could_be_released():
    kernels = [a_kernel(0, K.RUNNING), a_kernel(1, K.RUNNING, token=None)]

    change = ended(a_change(a_session(S1, S.RUNNING, kernels=kernels)), 1)

    assert change.session.kernels[1].status is K.TERMINATED
    assert change.released == []


def test_the_requeue_limit_terminates_instead():
    session = a_session(S1, S.PREPARED, requeues=5)

    change = requeued(session, reason="phase-timeout")

    assert end_of(change) == (S.TERMINATING, SessionResult.FAILURE, "REQUEUE_LIMIT_EXCEEDED")
    assert change.left_over == []
    assert change.session.main.status is K.TERMINATING
    assert "phase-timeout" in change.lines[0].detail


def test_a_requeue_limit_of_zero_terminates_at_once():
    assert requeued(a_session(S1, S.PREPARED), requeues_max=0).session.status is S.TERMINATING


# --- what agents report ---------------------------------------------------------------------------


def test_a_session_is_prepared_when_its_last_kernel_is():
    change = a_change(a_session(S1, S.PREPARING, kernels=2))

    change.kernel_prepared(0, K.PREPARED)
    assert change.session.status is S.PREPARING
    change.kernel_prepared(1, K.PULLING)
    assert change.session.status is S.PREPARING
    change.kernel_prepared(1, K.PREPARED)

    assert change.session.status is S.PREPARED
    assert path(change, change.session.kernels[1].kernel_id) == [
        "PREPARING",
        "PULLING",
        "PREPARED",
    ]


def test_a_session_runs_when_its_last_kernel_does():
    change = a_change(a_session(S1, S.CREATING, kernels=2))

    change.kernel_running(0)
    assert change.session.status is S.CREATING
    change.kernel_running(1)

    assert change.session.status is S.RUNNING
    assert change.session.started_at == NOW
    assert change.session.main.started_at == NOW


def test_a_report_that_comes_before_the_move_it_answers_is_kept_by_the_move():
    change = a_change(a_session(S1, S.SCHEDULED))
    change.kernel_prepared(0, K.PREPARED)
    assert change.session.status is S.SCHEDULED

    after = moved(change.session, stages.CHECK_PRECONDITION)

    assert after.session.main.status is K.PREPARED
    assert path(after) == ["SCHEDULED", "PREPARING", "PREPARED"]
    assert path(change, after.session.main.kernel_id) == ["SCHEDULED", "PREPARING", "PREPARED"]


def test_a_kernel_that_pulls_before_the_move_shows_every_status_on_the_way():
    change = a_change(a_session(S1, S.SCHEDULED))

    change.kernel_prepared(0, K.PULLING)

    assert path(change, change.session.main.kernel_id) == ["SCHEDULED", "PREPARING", "PULLING"]


def test_a_kernel_that_runs_before_the_move_runs_with_its_session_after_it():
    change = a_change(a_session(S1, S.PREPARED))
    change.kernel_running(0)
    assert change.session.status is S.PREPARED

    after = moved(change.session, stages.START_SESSIONS)

    assert path(after) == ["PREPARED", "CREATING", "RUNNING"]
    assert path(change, after.session.main.kernel_id) == ["PREPARED", "CREATING", "RUNNING"]


@pytest.mark.parametrize("reported", [K.PULLING, K.PREPARED], ids=str)
@pytest.mark.parametrize("status", [K.PREPARED, K.CREATING, K.RUNNING, K.TERMINATING], ids=str)
def test_a_report_never_takes_a_kernel_backwards(status, reported):
    session = a_session(S1, S.RUNNING, kernels=[a_kernel(0, status), a_kernel(1, K.RUNNING)])
    change = a_change(session)

    change.kernel_prepared(0, reported)

    assert change.is_empty


@pytest.mark.parametrize("status", [K.RUNNING, K.TERMINATING, K.TERMINATED], ids=str)
def test_a_repeated_start_changes_nothing(status):
    change = a_change(a_session(S1, S.TERMINATING, kernels=[a_kernel(0, status), a_kernel(1)]))

    change.kernel_running(0)

    assert change.is_empty


def test_a_repeated_end_changes_nothing():
    session = a_session(
        S1, S.RUNNING, kernels=[a_kernel(0, K.RUNNING), a_kernel(1, K.TERMINATED, exit_code=0)]
    )

    change = ended(a_change(session), 1, exit_code=9)

    assert change.is_empty


def test_what_cannot_be_killed_is_remembered_with_the_kernel():
    change = a_change(a_session(S1, S.TERMINATING))

    change.kernel_running(0, error="cannot be killed: pids 12")

    assert change.session.main.error == "cannot be killed: pids 12"
    assert change.session.main.status is K.TERMINATING
    assert not change.is_empty


def test_a_main_kernel_that_ends_well_ends_the_session_as_a_success():
    change = ended(a_change(a_session(S1, S.RUNNING)))

    assert end_of(change) == (S.TERMINATED, SessionResult.SUCCESS, "SELF_TERMINATED")
    assert path(change) == ["RUNNING", "TERMINATING", "TERMINATED"]
    assert path(change, change.session.main.kernel_id) == ["RUNNING", "TERMINATING", "TERMINATED"]
    assert change.released == [change.session.main.token]
    assert change.session.ended_at == change.session.main.ended_at == NOW


def test_the_other_kernels_are_stopped_when_the_main_one_ends():
    change = ended(a_change(a_session(S1, S.RUNNING, kernels=2)))

    assert change.session.status is S.TERMINATING
    assert change.session.kernels[1].status is K.TERMINATING
    assert change.released == [change.session.main.token]


def test_a_sub_kernel_that_ends_well_ends_nothing():
    change = ended(a_change(a_session(S1, S.RUNNING, kernels=2)), 1)

    assert change.session.status is S.RUNNING
    assert change.released == [change.session.kernels[1].token]


def test_exits_that_follow_our_own_stop_are_recorded_and_not_counted():
    change = ended(a_change(a_session(S1, S.RUNNING, kernels=2)))

    ended(change, 1, exit_code=143)

    assert end_of(change) == (S.TERMINATED, SessionResult.SUCCESS, "SELF_TERMINATED")
    assert change.session.kernels[1].exit_code == 143


def test_the_first_reason_and_the_first_result_stay():
    change = ended(a_change(a_session(S1, S.RUNNING, kernels=2)), 1, exit_code=3)

    change.request_termination(force=True, reason="USER_REQUESTED")
    ended(change, 0, exit_code=0)

    assert end_of(change) == (S.TERMINATED, SessionResult.FAILURE, "KERNEL_FAILED")


def test_later_reasons_go_to_history():
    change = ended(a_change(a_session(S1, S.RUNNING, kernels=2)), 1, exit_code=3)

    change.request_termination(force=True, reason="USER_REQUESTED")

    assert change.lines[-1].reason == "USER_REQUESTED"


@pytest.mark.parametrize("status", [S.PREPARED, S.CREATING, S.RUNNING], ids=str)
def test_a_kernel_that_ended_before_its_start_was_recorded_shows_every_status(status):
    session = a_session(S1, status)

    change = ended(a_change(session))

    full = ["PREPARED", "CREATING", "RUNNING", "TERMINATING", "TERMINATED"]
    assert path(change) == full[full.index(status) :]
    assert path(change, session.main.kernel_id) == full[full.index(status) :]
    assert end_of(change) == (S.TERMINATED, SessionResult.SUCCESS, "SELF_TERMINATED")
    assert status is S.RUNNING or change.session.started_at == NOW


def test_a_session_shows_running_only_when_every_kernel_was_started():
    session = a_session(S1, S.PREPARED, kernels=2)

    change = ended(a_change(session), 0, exit_code=1)

    assert path(change) == ["PREPARED", "CREATING", "TERMINATING"]


def test_a_kernel_that_never_ran_shows_no_start():
    session = a_session(S1, S.CREATING)

    change = ended(
        a_change(session),
        ran=False,
        exit_code=None,
        reason=EndReason.COMMAND_NOT_FOUND,
        error="no such file",
    )

    assert end_of(change) == (S.TERMINATED, SessionResult.FAILURE, "COMMAND_NOT_FOUND")
    assert path(change) == ["CREATING", "TERMINATING", "TERMINATED"]
    assert path(change, session.main.kernel_id) == ["CREATING", "TERMINATED"]
    assert change.session.started_at is change.session.main.started_at is None
    assert change.session.main.error == "no such file"


def test_a_kernel_that_was_stopped_before_its_start_was_known_has_run_all_the_same():
    session = a_session(S1, S.TERMINATING, kernels=[a_kernel(0, K.TERMINATING, started_at=None)])

    change = ended(a_change(session), exit_code=143)

    assert change.session.main.started_at == NOW
    assert path(change, session.main.kernel_id) == ["TERMINATING", "TERMINATED"]


def test_the_end_of_a_kernel_keeps_the_trouble_it_had_before():
    change = a_change(a_session(S1, S.TERMINATING, kernels=[a_kernel(0, K.TERMINATING, error="x")]))

    assert ended(change).session.main.error == "x"


# --- failed pulls and starts ----------------------------------------------------------------------


def start_failed(change, failures, index=0, **given):
    facts = {"reason": "start-failed", "error": "no room", "group_limit": None} | given
    change.kernel_failed(
        index, stages.START_SESSIONS, failures=failures, requeues_max=REQUEUES_MAX, **facts
    )
    return change


def test_a_failed_start_counts_an_attempt_and_leaves_the_kernel_where_it_is():
    change = start_failed(a_change(a_session(S1, S.CREATING)), 1)

    assert change.session.status is S.CREATING
    assert change.session.main.status is K.CREATING
    assert change.session.main.error == "no room"
    assert change.session.attempts["start-sessions"].count == 1
    (line,) = change.lines
    assert (line.from_status, line.to_status, line.reason) == (
        "CREATING",
        "CREATING",
        "start-failed",
    )


def test_a_repeated_failure_is_counted_once():
    change = start_failed(a_change(a_session(S1, S.CREATING)), 2)
    lines = list(change.lines)

    start_failed(start_failed(change, 2), 1)

    assert change.session.attempts["start-sessions"].count == 2
    assert change.lines == lines


def test_failures_of_several_kernels_add_up():
    change = a_change(a_session(S1, S.CREATING, kernels=2))

    start_failed(start_failed(change, 2, 0), 2, 1)

    assert change.session.attempts["start-sessions"].count == 4


def test_the_fifth_failure_of_a_start_sends_the_session_back():
    session = a_session(S1, S.CREATING)

    change = start_failed(a_change(session), 5)

    assert change.session.status is S.PENDING
    assert change.session.avoid == (A1,)
    assert change.left_over == [session.main.token]


def test_failures_that_the_launcher_saw_count_too():
    session = a_session(S1, S.CREATING, attempts=attempts_of(stages.START_SESSIONS, 4))

    assert start_failed(a_change(session), 1).session.status is S.PENDING


@pytest.mark.parametrize(
    ("session_limit", "group_limit"), [(Limit(1), None), (None, Limit(1)), (Limit(1), Limit(9))]
)
def test_failures_are_limited_by_the_session_then_by_the_group(session_limit, group_limit):
    limits = {"start-sessions": session_limit} if session_limit else {}
    change = a_change(a_session(S1, S.CREATING, limits=limits))

    start_failed(change, 1, group_limit=group_limit)

    assert change.session.status is S.PENDING


def test_a_session_may_fail_without_end_when_it_has_no_limit():
    change = a_change(a_session(S1, S.TERMINATING))

    change.kernel_failed(
        0,
        stages.TERMINATE_SESSIONS,
        failures=50,
        reason="start-failed",
        error="x",
        group_limit=None,
        requeues_max=5,
    )

    assert change.session.status is S.TERMINATING


@pytest.mark.parametrize("status", [S.SCHEDULED, S.PREPARING, S.TERMINATING], ids=str)
def test_a_failed_start_that_comes_late_changes_nothing(status):
    assert start_failed(a_change(a_session(S1, status)), 1).is_empty


def test_a_start_that_failed_after_it_was_taken_for_running_is_counted_and_given_up():
    change = a_change(a_session(S1, S.RUNNING))

    start_failed(change, 4)
    assert change.session.status is S.RUNNING
    assert change.session.kernels[0].error

    start_failed(change, 5)
    assert change.session.status is S.PENDING
    assert change.left_over


def test_only_the_agent_that_failed_is_avoided():
    kernels = [a_kernel(0, K.RUNNING), a_kernel(1, K.CREATING, agent_id=A2)]
    change = a_change(a_session(S1, S.CREATING, kernels=kernels))

    start_failed(change, 5, 1)

    assert change.session.avoid == (A2,)


# --- lost agents ----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [S.CREATING, S.RUNNING], ids=str)
def test_a_session_on_an_agent_that_is_given_up_ends_with_agent_lost(status):
    session = a_session(S1, status)
    change = a_change(session)

    change.agent_given_up(A1, REQUEUES_MAX)

    assert end_of(change) == (S.TERMINATED, SessionResult.FAILURE, "AGENT_LOST")
    assert change.session.main.reason == "AGENT_LOST"
    assert change.left_over == [session.main.token]
    assert change.released == []


def test_the_kernels_on_other_agents_are_stopped_when_one_agent_is_given_up():
    kernels = [a_kernel(0, K.RUNNING), a_kernel(1, K.RUNNING, agent_id=A2)]
    change = a_change(a_session(S1, S.RUNNING, kernels=kernels))

    change.agent_given_up(A1, REQUEUES_MAX)

    assert change.session.status is S.TERMINATING
    assert [kernel.status for kernel in change.session.kernels] == [K.TERMINATED, K.TERMINATING]


@pytest.mark.parametrize("status", [S.CREATING, S.RUNNING], ids=str)
def test_a_session_that_may_be_requeued_goes_back_when_its_agent_is_given_up(status):
    session = a_session(S1, status, requeue=True)
    change = a_change(session)

    change.agent_given_up(A1, REQUEUES_MAX)

    assert change.session.status is S.PENDING
    assert change.session.reason is None
    assert change.session.result is SessionResult.UNDEFINED
    assert change.session.avoid == (A1,)
    assert change.left_over == [session.main.token]


@pytest.mark.parametrize("requeue", [True, False])
@pytest.mark.parametrize("status", [S.SCHEDULED, S.PREPARING, S.PREPARED], ids=str)
def test_a_session_that_has_not_reached_creating_always_goes_back(status, requeue):
    change = a_change(a_session(S1, status, requeue=requeue))

    change.agent_given_up(A1, REQUEUES_MAX)

    assert change.session.status is S.PENDING


@pytest.mark.parametrize("status", [S.SCHEDULED, S.PREPARING, S.PREPARED], ids=str)
def test_a_session_that_has_not_reached_creating_leaves_an_agent_that_is_lost(status):
    session = a_session(S1, status)
    change = a_change(session)

    change.agent_lost(A1, REQUEUES_MAX)

    assert change.session.status is S.PENDING
    assert change.session.avoid == (A1,)
    assert change.left_over == [session.main.token]


@pytest.mark.parametrize("status", [S.PENDING, S.CREATING, S.RUNNING, S.TERMINATING], ids=str)
def test_any_other_session_stays_on_an_agent_that_is_lost(status):
    change = a_change(a_session(S1, status))

    change.agent_lost(A1, REQUEUES_MAX)

    assert change.is_empty


def test_a_session_elsewhere_does_not_care_for_an_agent_that_is_lost():
    change = a_change(a_session(S1, S.PREPARED))

    change.agent_lost(A2, REQUEUES_MAX)

    assert change.is_empty


def test_only_the_agents_that_hold_up_the_others_are_avoided_after_a_timeout():
    kernels = [a_kernel(0, K.RUNNING), a_kernel(1, K.CREATING, agent_id=A2)]

    change = requeued(a_session(S1, S.CREATING, kernels=kernels))

    assert change.session.avoid == (A2,)


def test_only_the_agent_that_was_lost_is_avoided():
    kernels = [a_kernel(0, K.RUNNING), a_kernel(1, K.RUNNING, agent_id=A2)]
    change = a_change(a_session(S1, S.RUNNING, kernels=kernels, requeue=True))

    change.agent_given_up(A2, REQUEUES_MAX)

    assert change.session.avoid == (A2,)


def test_a_session_requeued_too_often_does_not_wait_for_the_agent_that_was_given_up():
    session = a_session(S1, S.RUNNING, requeue=True, requeues=5)
    change = a_change(session)

    change.agent_given_up(A1, REQUEUES_MAX)

    assert end_of(change) == (S.TERMINATED, SessionResult.FAILURE, "REQUEUE_LIMIT_EXCEEDED")
    assert change.left_over == [session.main.token]


def test_a_terminating_session_is_over_when_its_agent_is_given_up():
    session = a_session(S1, S.TERMINATING, requeue=True, reason="USER_REQUESTED")
    change = a_change(session)

    change.agent_given_up(A1, REQUEUES_MAX)

    assert change.session.status is S.TERMINATED
    assert change.session.reason == "USER_REQUESTED"
    assert change.left_over == [session.main.token]


def test_a_session_elsewhere_does_not_care_for_an_agent_that_is_given_up():
    change = a_change(a_session(S1, S.RUNNING))

    change.agent_given_up(A2, REQUEUES_MAX)

    assert change.is_empty


def test_a_kernel_that_ended_before_does_not_care_for_its_agent():
    kernels = [a_kernel(0, K.RUNNING, agent_id=A2), a_kernel(1, K.TERMINATED, exit_code=0)]
    change = a_change(a_session(S1, S.RUNNING, kernels=kernels))

    change.agent_given_up(A1, REQUEUES_MAX)

    assert change.is_empty


def cut_off(session, exit_code=None):
    change = a_change(session)
    change.kernel_lost(0, exit_code=exit_code, error="cut off", requeues_max=REQUEUES_MAX)
    return change


def test_a_kernel_that_its_agent_stopped_when_it_was_cut_off_goes_back_and_leaves_nothing_over():
    session = a_session(S1, S.RUNNING, requeue=True, kernels=2)

    change = cut_off(session)

    assert change.session.status is S.PENDING
    assert change.session.avoid == (A1,)
    assert change.released == [session.main.token]
    assert change.left_over == [session.kernels[1].token]


def test_a_kernel_without_an_agent_that_was_cut_off_leaves_nothing_over():
    kernels = [a_kernel(0, K.RUNNING, agent_id=None, token=None)]

    change = cut_off(a_session(S1, S.RUNNING, requeue=True, kernels=kernels))

    assert change.session.status is S.PENDING
    assert change.session.avoid == change.session.agent_ids == ()
    assert change.released == change.left_over == []


@pytest.mark.parametrize("exit_code", [None, 143])
def test_a_session_cut_off_too_often_ends(exit_code):
    session = a_session(S1, S.RUNNING, requeue=True, requeues=REQUEUES_MAX)

    change = cut_off(session, exit_code)

    assert end_of(change) == (S.TERMINATED, SessionResult.FAILURE, "REQUEUE_LIMIT_EXCEEDED")
    assert change.released == [session.main.token]


def test_a_session_cut_off_while_it_terminates_just_ends():
    session = a_session(S1, S.TERMINATING, requeue=True, reason="USER_REQUESTED")

    change = cut_off(session, 137)

    assert change.session.status is S.TERMINATED
    assert change.session.reason == "USER_REQUESTED"
    assert change.released == [session.main.token]


def test_a_session_that_must_not_be_requeued_ends_when_it_was_cut_off():
    change = cut_off(a_session(S1, S.RUNNING))

    assert end_of(change) == (S.TERMINATED, SessionResult.FAILURE, "AGENT_LOST")


# --- what users ask for ---------------------------------------------------------------------------


@pytest.mark.parametrize("status", [S.PENDING, S.DEPRIORITIZING], ids=str)
def test_a_waiting_session_is_cancelled_at_once(status):
    change = a_change(a_session(S1, status, kernels=2))

    assert change.request_termination(force=False, reason="USER_REQUESTED", detail="by ann")

    assert end_of(change) == (S.CANCELLED, SessionResult.UNDEFINED, "USER_REQUESTED")
    assert {kernel.status for kernel in change.session.kernels} == {K.CANCELLED}
    assert change.session.ended_at == NOW
    assert change.lines[-1].detail == "by ann"


@pytest.mark.parametrize("status", PLACED, ids=str)
def test_a_placed_session_terminates_and_waits_for_its_agents(status):
    change = a_change(a_session(S1, status))

    assert change.request_termination(force=False, reason="USER_REQUESTED")

    assert end_of(change) == (S.TERMINATING, SessionResult.FAILURE, "USER_REQUESTED")
    assert change.session.main.status is K.TERMINATING
    assert change.left_over == change.released == []


@pytest.mark.parametrize("status", [S.TERMINATED, S.CANCELLED], ids=str)
@pytest.mark.parametrize("force", [True, False])
def test_a_session_that_has_ended_stays_as_it_is(status, force):
    change = a_change(a_session(S1, status))

    assert not change.request_termination(force=force, reason="USER_REQUESTED")
    assert change.is_empty


def test_asking_again_changes_nothing():
    change = a_change(a_session(S1, S.TERMINATING))

    assert not change.request_termination(force=False, reason="USER_REQUESTED")
    assert change.is_empty


def test_force_skips_the_grace_of_a_termination_under_way_once():
    change = a_change(a_session(S1, S.TERMINATING))

    assert change.request_termination(force=True, reason="USER_REQUESTED")
    assert change.session.force
    assert change.session.status is S.TERMINATING
    assert not change.request_termination(force=True, reason="USER_REQUESTED")
    assert not change.request_termination(force=False, reason="USER_REQUESTED")
    assert change.session.force


def test_force_still_waits_for_the_agents():
    change = a_change(a_session(S1, S.RUNNING))

    change.request_termination(force=True, reason="USER_REQUESTED")

    assert change.session.force
    assert change.session.status is S.TERMINATING


def test_a_report_after_a_cancellation_ends_the_session_as_a_failure():
    change = a_change(a_session(S1, S.RUNNING))
    change.request_termination(force=False, reason="USER_REQUESTED")

    ended(change, 0, exit_code=0)

    assert end_of(change) == (S.TERMINATED, SessionResult.FAILURE, "USER_REQUESTED")


# --- bookkeeping ----------------------------------------------------------------------------------


def test_nothing_done_is_nothing_to_save():
    assert a_change(a_session(S1)).is_empty


def test_absorbing_goes_on_where_the_other_change_ended():
    session = a_session(S1)
    change, attempt = a_change(session), a_change(session)
    attempt.move(
        a_move(session, stages.SCHEDULE_SESSIONS, assignment=an_assignment(session)),
        lambda: "new",
        REQUEUES_MAX,
    )

    change.absorb(attempt)

    assert change.before is session
    assert change.session is attempt.session
    assert change.lines == attempt.lines
    assert change.added == attempt.added


def test_a_session_that_has_ended_is_never_moved_again():
    session = a_session(S1, S.TERMINATED)

    with pytest.raises(AssertionError, match="is over"):
        moved(session, stages.CHECK_PRECONDITION)


def test_a_session_without_kernels_that_terminates_is_over():
    session = a_session(S1, S.TERMINATING, kernels=[])
    change = a_change(session)

    change.follow()

    assert end_of(change) == (S.TERMINATED, SessionResult.FAILURE, MoveReason.KERNELS_ENDED)


def test_the_first_lines_of_history_say_that_session_and_kernels_were_submitted():
    session = a_session(S1, kernels=2)

    lines = list(submission_lines(session))

    assert [line.kernel_id for line in lines] == [None, "s1.0", "s1.1"]
    assert {(line.from_status, line.to_status, line.reason) for line in lines} == {
        (None, "PENDING", "submitted")
    }


def test_a_hold_is_exactly_what_the_kernel_asks_for():
    request = Request(cpu_milli=500, mem_bytes=7, gpu_shares=500)
    session = a_session(S1, kernels=[a_kernel(0, request=request)])

    change = moved(session, stages.SCHEDULE_SESSIONS, assignment=an_assignment(session))

    (hold,) = change.added
    assert (hold.cpu_milli, hold.mem_bytes) == (500, 7)


def test_a_failed_attempt_of_one_stage_leaves_those_of_another_as_they_were():
    before = {"schedule-sessions": Attempts(3, last_at=NOW)}
    session = a_session(S1, S.PENDING, attempts=before)
    change = a_change(session)

    change.move(
        Move(
            S1,
            S.PENDING,
            session.status_seq,
            "sweep-sessions",
            Outcome.NEED_RETRY,
            None,
            "agent-failed",
            attempts=Attempts(1, last_at=NOW),
        ),
        lambda: "unused",
        5,
    )

    assert change.session.attempts["schedule-sessions"].count == 3
    assert change.session.attempts["sweep-sessions"].count == 1


# --- starts that nobody will carry out ------------------------------------------------------------


def test_a_start_that_its_agent_has_forgotten_sends_the_session_back():
    change = a_change(a_session(S1, S.CREATING, kernels=2))

    assert change.start_forgotten(1, error="no space", requeues_max=REQUEUES_MAX)

    assert change.session.status is S.PENDING
    assert change.session.requeues == 1
    assert change.lines[-1].reason == MoveReason.START_FAILED
    assert change.lines[-1].detail == "kernel 1 was never started: no space"
    assert len(change.released) == 1, "nothing is left of it"
    assert len(change.left_over) == 1, "the other one may have been started"


def test_a_start_that_was_forgotten_too_often_ends_the_session():
    change = a_change(replace(a_session(S1, S.CREATING), requeues=REQUEUES_MAX))

    assert not change.start_forgotten(0, error="", requeues_max=REQUEUES_MAX)

    assert change.session.status is S.TERMINATING
    assert change.session.reason == EndReason.REQUEUE_LIMIT_EXCEEDED


@pytest.mark.parametrize("status", [S.RUNNING, S.TERMINATING])
def test_what_ran_or_is_to_end_is_not_started_again(status):
    change = a_change(a_session(S1, status))

    assert not change.start_forgotten(0, error="", requeues_max=REQUEUES_MAX)
    assert change.is_empty
