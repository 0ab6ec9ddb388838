"""TerminateSessionsLifecycleHandler, scenario by scenario."""

from unittest.mock import AsyncMock

import pytest

from sokovan.scheduler import (
    KernelStatus,
    SchedulerRepository,
    SessionId,
    SessionStatus,
    SessionTerminator,
    SessionWithKernels,
    TerminateSessionsLifecycleHandler,
    TerminatingSessionData,
    TransitionStatus,
)

TERMINATING, TERMINATED = SessionStatus.TERMINATING, SessionStatus.TERMINATED
s1, s2 = SessionId("s1"), SessionId("s2")


@pytest.fixture
def repository():
    return AsyncMock(spec=SchedulerRepository)


@pytest.fixture
def terminator():
    return AsyncMock(spec=SessionTerminator)


@pytest.fixture
def handler(terminator, repository):
    return TerminateSessionsLifecycleHandler(terminator=terminator, repository=repository)


def test_the_status_transitions_are_those_of_the_document(handler):
    ended = TransitionStatus(session=TERMINATED, kernel=KernelStatus.TERMINATED)

    assert handler.stage.success is None
    assert handler.stage.expired == ended
    assert handler.stage.give_up == ended


async def test_sc_ts_001_sessions_trigger_termination_rpc_returns_empty_result(
    handler, repository, terminator
):
    terminating_sessions = [TerminatingSessionData(s1), TerminatingSessionData(s2)]
    repository.get_terminating_sessions_by_ids.return_value = terminating_sessions
    terminator.terminate_sessions_for_handler.return_value = None
    sessions = [
        SessionWithKernels(s1, status=TERMINATING),
        SessionWithKernels(s2, status=TERMINATING),
    ]

    result = await handler.execute("default", sessions)

    assert len(result.successes) == 0
    assert len(result.failures) == 0
    repository.get_terminating_sessions_by_ids.assert_called_once_with([s1, s2])
    terminator.terminate_sessions_for_handler.assert_called_once()
    terminator.terminate_sessions_for_handler.assert_called_once_with(terminating_sessions)


async def test_sc_ts_002_no_terminating_sessions_returns_empty_result(
    handler, repository, terminator
):
    repository.get_terminating_sessions_by_ids.return_value = []

    result = await handler.execute("default", [SessionWithKernels(s1, status=TERMINATING)])

    assert len(result.successes) == 0
    assert len(result.failures) == 0
    terminator.terminate_sessions_for_handler.assert_not_called()


async def test_sc_ts_003_empty_session_list_returns_empty_result(handler, repository):
    result = await handler.execute("default", [])

    assert len(result.successes) == 0
    repository.get_terminating_sessions_by_ids.assert_not_called()
