"""What follows from the statuses of kernels: the end policy, and promotions after it."""

import pytest

from sokovan.domain.reasons import EndReason
from sokovan.domain.statuses import KernelStatus, SessionResult, SessionStatus
from sokovan.scheduler.promote import end_of, has_run, next_promotion
from sokovan.scheduler.stages import (
    DETECT_TERMINATION,
    PROMOTE_TO_PREPARED,
    PROMOTE_TO_RUNNING,
    PROMOTE_TO_TERMINATED,
)
from tests.build import NOW, S1, a_kernel, a_session

S, K = SessionStatus, KernelStatus


def kernels(*statuses, **changes):
    return tuple(a_kernel(index, status, **changes) for index, status in enumerate(statuses))


def ended(index=0, exit_code=0, **changes):
    return a_kernel(index, K.TERMINATED, exit_code=exit_code, **changes)


def running(index=0):
    return a_kernel(index, K.RUNNING)


# --- the end policy -------------------------------------------------------------------------------


def test_nothing_ends_while_every_kernel_runs():
    assert end_of((running(0), running(1))) is None


def test_a_main_kernel_that_ends_with_0_ends_the_session_as_a_success():
    end = end_of((ended(0), running(1)))

    assert (end.reason, end.result) == (EndReason.SELF_TERMINATED, SessionResult.SUCCESS)


def test_a_sub_kernel_that_ends_with_0_ends_nothing():
    assert end_of((running(0), ended(1))) is None


@pytest.mark.parametrize("index", [0, 1])
def test_any_kernel_that_ends_with_a_code_ends_the_session_as_a_failure(index):
    kernels = [running(0), running(1)]
    kernels[index] = ended(index, exit_code=3)

    end = end_of(tuple(kernels))

    assert (end.reason, end.result) == (EndReason.KERNEL_FAILED, SessionResult.FAILURE)
    assert end.detail == f"kernel {index} ended with code 3"


@pytest.mark.parametrize("index", [0, 1])
def test_any_kernel_that_vanishes_ends_the_session_abnormally(index):
    kernels = [running(0), running(1)]
    kernels[index] = ended(index, exit_code=None)

    end = end_of(tuple(kernels))

    assert (end.reason, end.result) == (EndReason.ABNORMAL_TERMINATION, SessionResult.FAILURE)
    assert end.detail == f"kernel {index}: vanished"


def test_a_kernel_unknown_to_its_agent_has_vanished():
    end = end_of((ended(0, exit_code=None, reason=EndReason.STALE_KERNEL),))

    assert end.reason == EndReason.ABNORMAL_TERMINATION
    assert end.detail == "kernel 0: STALE_KERNEL"


@pytest.mark.parametrize(
    "reason",
    [EndReason.AGENT_LOST, EndReason.EXIT_STATUS_LOST, EndReason.COMMAND_NOT_FOUND],
)
def test_an_end_without_a_code_keeps_the_reason_that_its_agent_gave(reason):
    end = end_of((ended(0, exit_code=None, reason=reason, error="no such file"),))

    assert (end.reason, end.result) == (reason, SessionResult.FAILURE)
    assert end.detail == f"kernel 0: {reason}: no such file"


def test_a_main_kernel_that_succeeds_does_not_make_up_for_a_sub_kernel_that_failed():
    end = end_of((ended(0), ended(1, exit_code=1)))

    assert (end.reason, end.result) == (EndReason.KERNEL_FAILED, SessionResult.FAILURE)


def test_the_main_kernel_names_the_reason_when_several_failed():
    end = end_of((ended(0, exit_code=7), ended(1, exit_code=None)))

    assert end.reason == EndReason.KERNEL_FAILED
    assert end.detail == "kernel 0 ended with code 7"


def test_every_kernel_ended_with_0_is_a_success():
    assert end_of((ended(0), ended(1), ended(2))).result is SessionResult.SUCCESS


# --- promotions -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "status", [S.SCHEDULED, S.PREPARING, S.PREPARED, S.CREATING, S.RUNNING], ids=str
)
def test_termination_is_detected_in_every_placed_status(status):
    session = a_session(S1, status, kernels=[ended(0, exit_code=1), running(1)])

    assert next_promotion(session) is DETECT_TERMINATION


@pytest.mark.parametrize(
    "status", [S.PENDING, S.DEPRIORITIZING, S.TERMINATED, S.CANCELLED], ids=str
)
def test_nothing_follows_in_a_status_without_kernels_on_agents(status):
    assert next_promotion(a_session(S1, status)) is None


@pytest.mark.parametrize(
    ("statuses", "due"),
    [
        ([K.PREPARED], True),
        ([K.PREPARED, K.PREPARED], True),
        ([K.PREPARED, K.RUNNING], True),
        ([K.PREPARED, K.PULLING], False),
        ([K.PREPARED, K.PREPARING], False),
        ([K.SCHEDULED], False),
    ],
)
def test_prepared_when_no_kernel_is_pre_prepared_and_one_is_not_final(statuses, due):
    session = a_session(S1, S.PREPARING, kernels=kernels(*statuses))

    assert next_promotion(session) is (PROMOTE_TO_PREPARED if due else None)


@pytest.mark.parametrize(
    ("statuses", "due"),
    [
        ([K.RUNNING], True),
        ([K.RUNNING, K.RUNNING], True),
        ([K.RUNNING, K.CREATING], False),
        ([K.RUNNING, K.PREPARED], False),
    ],
)
def test_running_when_no_kernel_is_pre_running_and_one_is_not_final(statuses, due):
    session = a_session(S1, S.CREATING, kernels=kernels(*statuses))

    assert next_promotion(session) is (PROMOTE_TO_RUNNING if due else None)


def test_a_sub_kernel_that_has_ended_well_does_not_hold_up_the_others():
    session = a_session(S1, S.CREATING, kernels=[running(0), ended(1)])

    assert next_promotion(session) is PROMOTE_TO_RUNNING


@pytest.mark.parametrize("status", [S.SCHEDULED, S.PREPARED, S.RUNNING], ids=str)
def test_no_promotion_is_due_where_a_stage_must_act_first(status):
    assert next_promotion(a_session(S1, status, kernels=[running(0)])) is None


def test_terminated_when_every_kernel_is_final():
    gone, left = ended(0), a_kernel(1, K.TERMINATING)

    assert next_promotion(a_session(S1, S.TERMINATING, kernels=[gone, left])) is None
    assert next_promotion(a_session(S1, S.TERMINATING, kernels=[gone])) is PROMOTE_TO_TERMINATED


def test_termination_is_checked_before_promotion():
    kernels = [running(0), ended(1, exit_code=1)]

    assert next_promotion(a_session(S1, S.CREATING, kernels=kernels)) is DETECT_TERMINATION


def test_a_kernel_has_run_when_it_runs_or_was_started():
    assert has_run(running())
    assert has_run(ended(started_at=NOW))
    assert not has_run(ended())
