"""DeprioritizeSessionsLifecycleHandler, scenario by scenario."""

from unittest.mock import AsyncMock

import pytest

from sokovan.scheduler import (
    DEPRIORITIZE_AMOUNT,
    SESSION_PRIORITY_MIN,
    DeprioritizeSessionsLifecycleHandler,
    SchedulerRepository,
    SessionId,
    SessionStatus,
    SessionWithKernels,
    TransitionStatus,
)

DEPRIORITIZING, PENDING = SessionStatus.DEPRIORITIZING, SessionStatus.PENDING
s1, s2 = SessionId("s1"), SessionId("s2")


@pytest.fixture
def repository():
    return AsyncMock(spec=SchedulerRepository)


@pytest.fixture
def handler(repository):
    return DeprioritizeSessionsLifecycleHandler(repository=repository)


def test_the_status_transitions_are_those_of_the_document(handler):
    assert handler.stage.success == TransitionStatus(session=PENDING, kernel=None)
    assert handler.stage.expired is handler.stage.give_up is None


async def test_sc_dp_001_sessions_successfully_deprioritized(handler, repository):
    repository.lower_session_priority.return_value = None
    sessions = [
        SessionWithKernels(s1, status=DEPRIORITIZING),
        SessionWithKernels(s2, status=DEPRIORITIZING),
    ]

    result = await handler.execute("default", sessions)

    assert len(result.successes) == 2
    assert result.successes[0].session_id == s1
    assert result.successes[0].from_status == SessionStatus.DEPRIORITIZING
    assert result.successes[0].reason == "deprioritized-for-rescheduling"
    assert len(result.failures) == 0
    repository.lower_session_priority.assert_called_once_with([s1, s2], 10, SESSION_PRIORITY_MIN)
    assert DEPRIORITIZE_AMOUNT == 10


async def test_sc_dp_002_empty_session_list_returns_empty_result(handler, repository):
    result = await handler.execute("default", [])

    assert len(result.successes) == 0
    repository.lower_session_priority.assert_not_called()
