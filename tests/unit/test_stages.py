"""The stage table is sound, and says what the semantics say, row by row."""

import pytest

from sokovan.domain.reasons import EndReason, MoveReason
from sokovan.domain.sessions import Limit
from sokovan.domain.statuses import (
    FINAL,
    KERNEL_FINAL,
    KERNEL_PATH,
    KERNEL_RANK,
    PRE_PREPARED,
    PRE_RUNNING,
    SESSION_PATH,
    WAITING,
    KernelStatus,
    SessionStatus,
)
from sokovan.scheduler import stages
from sokovan.scheduler.stages import (
    ENDED_BY_REPORTS,
    PROMOTIONS,
    STAGES,
    WORK_AFTER,
    Stage,
    TransitionStatus,
    limit_of,
)

S, K = SessionStatus, KernelStatus

TERMINATING, TERMINATED = "TERMINATING/TERMINATING", "TERMINATED/TERMINATED"
LOWERED = "DEPRIORITIZING/unchanged"

ROWS = {
    # name: takes, awaits, success, expired, give up, attempts, phase limit in seconds
    "check-precondition": (
        *("SCHEDULED", "PREPARING"),
        *("PREPARING/PREPARING", "PENDING/PENDING", ""),
        *(5, 900),
    ),
    "schedule-sessions": (
        *("PENDING", ""),
        *("SCHEDULED/SCHEDULED", TERMINATING, LOWERED),
        *(5, None),
    ),
    "start-sessions": (
        *("PREPARED", "CREATING"),
        *("CREATING/CREATING", "PENDING/PENDING", ""),
        *(5, 600),
    ),
    "terminate-sessions": (
        *("TERMINATING", "TERMINATING"),
        *("", TERMINATED, TERMINATED),
        *(None, 900),
    ),
    "deprioritize-sessions": ("DEPRIORITIZING", "", "PENDING/unchanged", "", "", None, None),
    "sweep-sessions": ("PENDING", "", "", TERMINATING, "", None, 0),
    "enforce-walltime": ("", "RUNNING", "", TERMINATING, "", None, None),
    "sweep-stale-kernels": ("CREATING RUNNING TERMINATING", "", "", "", "", None, None),
}

PROMOTION_ROWS = {
    "promote-to-prepared": ("PREPARING", "PREPARED"),
    "promote-to-running": ("CREATING", "RUNNING"),
    "promote-to-terminated": ("TERMINATING", "TERMINATED"),
    "detect-termination": ("SCHEDULED PREPARING PREPARED CREATING RUNNING", "TERMINATING"),
}

ON_THEIR_WAY = set(S) - FINAL


def statuses(names: str) -> set[SessionStatus]:
    return {S(name) for name in names.split()}


def target(text: str) -> TransitionStatus | None:
    if not text:
        return None
    session, kernel = text.split("/")
    return TransitionStatus(S(session), None if kernel == "unchanged" else K(kernel))


def targets(stage: Stage) -> list[TransitionStatus]:
    return [to for to in (stage.success, stage.expired, stage.give_up) if to is not None]


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_every_stage_is_the_row_that_the_semantics_give_it(stage):
    takes, awaits, success, expired, give_up, attempts_max, phase_s_max = ROWS[stage.name]

    assert stage.takes == statuses(takes)
    assert stage.awaits == statuses(awaits)
    assert stage.success == target(success)
    assert stage.expired == target(expired)
    assert stage.give_up == target(give_up)
    assert stage.limit == Limit(attempts_max, phase_s_max)


def test_the_table_has_exactly_the_stages_of_the_semantics():
    assert [stage.name for stage in STAGES] == list(ROWS)


@pytest.mark.parametrize("promotion", PROMOTIONS, ids=lambda promotion: promotion.name)
def test_every_promotion_is_the_row_that_the_semantics_give_it(promotion):
    takes, to = PROMOTION_ROWS[promotion.name]

    assert promotion.takes == statuses(takes)
    assert promotion.to is S(to)


def test_termination_is_checked_before_any_promotion():
    assert PROMOTIONS[0] is stages.DETECT_TERMINATION
    assert {promotion.name for promotion in PROMOTIONS} == PROMOTION_ROWS.keys()


def test_only_walltime_is_limited_by_the_session_itself():
    limited = [stage for stage in STAGES if stage.limit_is_walltime]

    assert limited == [stages.ENFORCE_WALLTIME]
    assert stages.ENFORCE_WALLTIME.expired_reason == "WALLTIME_EXCEEDED"


def test_every_status_has_a_way_out():
    driven = set().union(*(stage.takes | stage.awaits for stage in STAGES)) | ENDED_BY_REPORTS

    assert driven == ON_THEIR_WAY


def test_every_status_has_a_clock_or_a_report_that_is_bound_to_come():
    has_clock = {
        status
        for stage in STAGES
        if stage.expired is not None and stage.limit.phase_s_max
        for status in stage.takes | stage.awaits
    }
    moved_by_its_stage = {
        status
        for stage in STAGES
        if stage.success is not None
        for status in stage.takes
        if status in WAITING  # its handler needs no agent: it succeeds, or the session waits
    }

    assert has_clock | moved_by_its_stage | ENDED_BY_REPORTS == ON_THEIR_WAY


def test_what_runs_is_asked_after_so_that_its_end_is_heard_of():
    assert stages.SWEEP_STALE_KERNELS.takes >= ENDED_BY_REPORTS
    assert {K.CREATING, K.RUNNING, K.TERMINATING} == stages.STALE_SWEPT


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_a_stage_leads_out_of_what_it_looks_at_and_never_into_a_loop_with_itself(stage):
    for to in targets(stage):
        assert to.session not in stage.takes
        assert to.session not in stage.awaits or to == stage.success


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_no_stage_looks_at_what_has_ended(stage):
    assert not (stage.takes | stage.awaits) & FINAL


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_a_success_goes_one_step_forward_or_back_to_waiting(stage):
    if stage.success is None or stage.success.session in WAITING:
        return
    (taken,) = stage.takes

    assert SESSION_PATH.index(stage.success.session) == SESSION_PATH.index(taken) + 1


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_an_accident_leads_back_to_waiting_or_to_the_end(stage):
    for to in (stage.expired, stage.give_up):
        assert to is None or to.session in WAITING | {S.TERMINATING} | FINAL


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_session_and_kernels_go_to_the_same_status_or_the_kernels_stay(stage):
    for to in targets(stage):
        assert to.kernel is None or to.kernel == to.session


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_whoever_has_a_limit_has_a_target_for_it(stage):
    limited = stage.limit != Limit() or stage.limit_is_walltime

    assert not limited or stage.expired is not None


def test_every_status_that_a_stage_takes_from_a_move_has_work_after_it():
    """A move into a status that a stage drives hints at that stage."""
    for status, stage in WORK_AFTER.items():
        assert status in stage.takes or (status in FINAL and stage is stages.SCHEDULE_SESSIONS)
    assert set(WORK_AFTER) >= {
        S.PENDING,
        S.TERMINATED,
        S.CANCELLED,
        S.SCHEDULED,
        S.PREPARED,
        S.TERMINATING,
        S.DEPRIORITIZING,
    }


def test_kernel_statuses_are_grouped_as_the_semantics_say():
    assert {K.PENDING, K.SCHEDULED, K.PREPARING, K.PULLING} == PRE_PREPARED
    assert PRE_PREPARED | {K.PREPARED, K.CREATING} == PRE_RUNNING
    assert {K.TERMINATED, K.CANCELLED} == KERNEL_FINAL
    assert set(KERNEL_RANK) == set(K)
    assert list(KERNEL_PATH) == [status for status in K if status is not K.CANCELLED]


def test_both_names_the_same_status_twice():
    assert stages.both("PENDING") == TransitionStatus(session=S.PENDING, kernel=K.PENDING)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ((), Limit(5, 900)),
        ((None, None), Limit(5, 900)),
        ((Limit(attempts_max=2),), Limit(2, 900)),
        ((Limit(phase_s_max=30),), Limit(5, 30)),
        ((Limit(attempts_max=2), Limit(3, 30)), Limit(2, 30)),
        ((None, Limit(3, 30)), Limit(3, 30)),
        ((Limit(1, 10), Limit(3, 30)), Limit(1, 10)),
    ],
)
def test_the_first_override_that_sets_a_part_of_a_limit_wins(overrides, expected):
    assert limit_of(stages.CHECK_PRECONDITION, *overrides) == expected


def test_every_reason_of_the_table_is_one_that_the_reference_explains():
    known = {*EndReason, *MoveReason, ""}

    assert {stage.expired_reason for stage in stages.STAGES} <= known
    assert {promotion.reason for promotion in stages.PROMOTIONS} <= known
