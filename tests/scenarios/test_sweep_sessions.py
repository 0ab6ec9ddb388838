"""SweepSessionsLifecycleHandler, scenario by scenario."""

from unittest.mock import AsyncMock

import pytest

from sokovan.scheduler import (
    KernelStatus,
    PendingTimeoutSessionData,
    SchedulerRepository,
    SessionId,
    SessionStatus,
    SessionWithKernels,
    SweepSessionsLifecycleHandler,
    TransitionStatus,
)

PENDING, TERMINATING = SessionStatus.PENDING, SessionStatus.TERMINATING
s1, s2, s3 = SessionId("s1"), SessionId("s2"), SessionId("s3")


@pytest.fixture
def repository():
    return AsyncMock(spec=SchedulerRepository)


@pytest.fixture
def handler(repository):
    return SweepSessionsLifecycleHandler(repository=repository)


def test_the_status_transitions_are_those_of_the_document(handler):
    stage = handler.stage

    assert stage.success is None
    assert stage.expired == TransitionStatus(session=TERMINATING, kernel=KernelStatus.TERMINATING)


async def test_sc_sw_001_timed_out_sessions_returned_as_failures(handler, repository):
    repository.get_pending_timeout_sessions_by_ids.return_value = [
        PendingTimeoutSessionData(session_id=s1)
    ]
    sessions = [SessionWithKernels(s1, status=PENDING), SessionWithKernels(s2, status=PENDING)]

    result = await handler.execute("default", sessions)

    assert len(result.successes) == 0
    assert len(result.failures) == 1
    assert result.failures[0].session_id == s1
    assert result.failures[0].from_status == SessionStatus.PENDING
    assert result.failures[0].reason == "PENDING_TIMEOUT_EXCEEDED"
    repository.get_pending_timeout_sessions_by_ids.assert_called_once_with([s1, s2])


async def test_sc_sw_002_no_timed_out_sessions_returns_empty_result(handler, repository):
    repository.get_pending_timeout_sessions_by_ids.return_value = []

    result = await handler.execute("default", [SessionWithKernels(s1, status=PENDING)])

    assert len(result.successes) == 0
    assert len(result.failures) == 0


async def test_sc_sw_003_empty_session_list_returns_empty_result(handler, repository):
    result = await handler.execute("default", [])

    assert len(result.successes) == 0
    assert len(result.failures) == 0
    repository.get_pending_timeout_sessions_by_ids.assert_not_called()


async def test_a_session_that_was_not_asked_about_is_no_failure(handler, repository):
    repository.get_pending_timeout_sessions_by_ids.return_value = [PendingTimeoutSessionData(s3)]

    result = await handler.execute("default", [SessionWithKernels(s1, status=PENDING)])

    assert result.failures == []
