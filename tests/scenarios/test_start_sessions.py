"""StartSessionsLifecycleHandler, scenario by scenario."""

from unittest.mock import AsyncMock

import pytest

from sokovan.scheduler import (
    AgentError,
    KernelStatus,
    SchedulerRepository,
    SessionDataForStart,
    SessionId,
    SessionLauncher,
    SessionQuerier,
    SessionStatus,
    SessionsWithUserResult,
    SessionWithKernels,
    StartSessionsLifecycleHandler,
    TransitionStatus,
)

PREPARED, CREATING, PENDING = (
    SessionStatus.PREPARED,
    SessionStatus.CREATING,
    SessionStatus.PENDING,
)
s1, s2 = SessionId("s1"), SessionId("s2")


@pytest.fixture
def repository():
    return AsyncMock(spec=SchedulerRepository)


@pytest.fixture
def launcher():
    return AsyncMock(spec=SessionLauncher)


@pytest.fixture
def handler(launcher, repository):
    return StartSessionsLifecycleHandler(launcher=launcher, repository=repository)


def test_the_status_transitions_are_those_of_the_document(handler):
    assert handler.stage.success == TransitionStatus(session=CREATING, kernel=KernelStatus.CREATING)
    assert handler.stage.expired == TransitionStatus(session=PENDING, kernel=KernelStatus.PENDING)
    assert handler.stage.give_up is None


async def test_sc_st_001_all_sessions_start_successfully(handler, repository, launcher):
    session1_data, session2_data = SessionDataForStart(s1), SessionDataForStart(s2)
    repository.search_sessions_with_kernels_and_user.return_value = SessionsWithUserResult(
        sessions=[session1_data, session2_data], image_configs={"python:3.11": {}}
    )
    launcher.start_sessions_for_handler.return_value = None
    sessions = [SessionWithKernels(s1, status=PREPARED), SessionWithKernels(s2, status=PREPARED)]

    result = await handler.execute("default", sessions)

    assert len(result.successes) == 2
    assert result.successes[0].session_id == s1
    assert result.successes[0].from_status == SessionStatus.PREPARED
    assert result.successes[0].reason == "triggered-by-scheduler"
    assert len(result.failures) == 0
    repository.search_sessions_with_kernels_and_user.assert_called_once()
    repository.search_sessions_with_kernels_and_user.assert_called_once_with(
        SessionQuerier([s1, s2])
    )
    launcher.start_sessions_for_handler.assert_called_once()
    launcher.start_sessions_for_handler.assert_called_once_with(
        [session1_data, session2_data], {"python:3.11": {}}
    )


async def test_sc_st_002_empty_session_list_returns_empty_result(handler, repository, launcher):
    result = await handler.execute("default", [])

    assert len(result.successes) == 0
    assert len(result.failures) == 0
    launcher.start_sessions_for_handler.assert_not_called()
    repository.search_sessions_with_kernels_and_user.assert_not_called()


async def test_sc_st_003_launcher_exception_propagated(handler, repository, launcher):
    repository.search_sessions_with_kernels_and_user.return_value = SessionsWithUserResult(
        sessions=[SessionDataForStart(s1)]
    )
    launcher.start_sessions_for_handler.side_effect = AgentError("Connection failed")

    with pytest.raises(AgentError, match="Connection failed"):
        await handler.execute("default", [SessionWithKernels(s1, status=PREPARED)])
