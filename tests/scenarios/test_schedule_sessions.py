"""ScheduleSessionsLifecycleHandler, scenario by scenario."""

from unittest.mock import AsyncMock

import pytest

from sokovan.scheduler import (
    KernelStatus,
    ScheduledSessionData,
    ScheduleResult,
    SchedulerRepository,
    ScheduleSessionsLifecycleHandler,
    SchedulingData,
    SessionId,
    SessionProvisioner,
    SessionStatus,
    SessionTransitionInfo,
    SessionWithKernels,
    TransitionStatus,
)

PENDING, SCHEDULED, TERMINATING, DEPRIORITIZING = (
    SessionStatus.PENDING,
    SessionStatus.SCHEDULED,
    SessionStatus.TERMINATING,
    SessionStatus.DEPRIORITIZING,
)
s1, s2 = SessionId("s1"), SessionId("s2")


@pytest.fixture
def repository():
    return AsyncMock(spec=SchedulerRepository)


@pytest.fixture
def provisioner():
    return AsyncMock(spec=SessionProvisioner)


@pytest.fixture
def handler(provisioner, repository):
    return ScheduleSessionsLifecycleHandler(provisioner=provisioner, repository=repository)


def test_the_status_transitions_are_those_of_the_document(handler):
    stage = handler.stage

    assert stage.success == TransitionStatus(session=SCHEDULED, kernel=KernelStatus.SCHEDULED)
    assert stage.expired == TransitionStatus(session=TERMINATING, kernel=KernelStatus.TERMINATING)
    assert stage.give_up == TransitionStatus(session=DEPRIORITIZING, kernel=None)


async def test_sc_ss_001_sessions_successfully_scheduled_via_provisioner(
    handler, repository, provisioner
):
    scheduling_data = SchedulingData()
    repository.get_scheduling_data.return_value = scheduling_data
    provisioner.schedule_scaling_group.return_value = ScheduleResult(
        scheduled_sessions=[
            ScheduledSessionData(session_id=s1),
            ScheduledSessionData(session_id=s2),
        ]
    )
    sessions = [SessionWithKernels(s1, status=PENDING), SessionWithKernels(s2, status=PENDING)]

    result = await handler.execute("default", sessions)

    assert len(result.successes) == 2
    assert result.successes[0].session_id == s1
    assert result.successes[0].from_status == SessionStatus.PENDING
    assert len(result.failures) == 0
    repository.get_scheduling_data.assert_called_once_with("default")
    provisioner.schedule_scaling_group.assert_called_once()
    provisioner.schedule_scaling_group.assert_called_once_with("default", scheduling_data)


async def test_sc_ss_002_no_scheduling_data_returns_all_sessions_as_skipped(
    handler, repository, provisioner
):
    repository.get_scheduling_data.return_value = None
    sessions = [SessionWithKernels(s1, status=PENDING), SessionWithKernels(s2, status=PENDING)]

    result = await handler.execute("default", sessions)

    assert len(result.successes) == 0
    assert len(result.failures) == 0
    assert len(result.skipped) == 2
    assert result.skipped[0].session_id == s1
    assert result.skipped[0].reason == "no-scheduling-data"
    assert result.skipped[1].session_id == s2
    repository.get_scheduling_data.assert_called_once_with("default")
    provisioner.schedule_scaling_group.assert_not_called()


async def test_sc_ss_003_provisioner_partial_success(handler, repository, provisioner):
    repository.get_scheduling_data.return_value = SchedulingData()
    provisioner.schedule_scaling_group.return_value = ScheduleResult(
        scheduled_sessions=[ScheduledSessionData(session_id=s1)]
    )
    sessions = [SessionWithKernels(s1, status=PENDING), SessionWithKernels(s2, status=PENDING)]

    result = await handler.execute("default", sessions)

    assert len(result.successes) == 1
    assert result.successes[0].session_id == s1
    assert len(result.failures) == 0
    assert len(result.skipped) == 1
    assert result.skipped[0].session_id == s2
    assert result.skipped[0].from_status == SessionStatus.PENDING
    assert result.skipped[0].reason == "not-scheduled-this-cycle"


async def test_sc_ss_004_empty_session_list_returns_empty_result(handler, repository):
    result = await handler.execute("default", [])

    assert len(result.successes) == 0
    assert len(result.skipped) == 0
    repository.get_scheduling_data.assert_not_called()


async def test_sc_ss_005_insufficient_resources_all_sessions_skipped(
    handler, repository, provisioner
):
    repository.get_scheduling_data.return_value = SchedulingData()
    provisioner.schedule_scaling_group.return_value = ScheduleResult(scheduled_sessions=[])
    sessions = [SessionWithKernels(s1, status=PENDING), SessionWithKernels(s2, status=PENDING)]

    result = await handler.execute("default", sessions)

    assert len(result.successes) == 0
    assert len(result.failures) == 0
    assert len(result.skipped) == 2
    assert result.skipped[0].session_id == s1
    assert result.skipped[0].reason == "not-scheduled-this-cycle"
    assert result.skipped[1].session_id == s2
    assert result.skipped[1].reason == "not-scheduled-this-cycle"
    repository.get_scheduling_data.assert_called_once_with("default")
    provisioner.schedule_scaling_group.assert_called_once()


async def test_a_failure_of_the_provisioner_is_neither_success_nor_skipped(
    handler, repository, provisioner
):
    repository.get_scheduling_data.return_value = SchedulingData()
    failure = SessionTransitionInfo(s1, PENDING, "NEVER_FITS")
    provisioner.schedule_scaling_group.return_value = ScheduleResult(failures=[failure])

    result = await handler.execute("default", [SessionWithKernels(s1, status=PENDING)])

    assert result.failures == [failure]
    assert result.successes == result.skipped == []


async def test_a_session_that_was_not_asked_about_is_left_for_the_next_pass(
    handler, repository, provisioner
):
    repository.get_scheduling_data.return_value = SchedulingData()
    provisioner.schedule_scaling_group.return_value = ScheduleResult(
        scheduled_sessions=[ScheduledSessionData(session_id=s2)],
        failures=[SessionTransitionInfo(s2, PENDING, "NEVER_FITS")],
    )

    result = await handler.execute("default", [SessionWithKernels(s1, status=PENDING)])

    assert result.successes == result.failures == []
    assert [info.session_id for info in result.skipped] == [s1]
