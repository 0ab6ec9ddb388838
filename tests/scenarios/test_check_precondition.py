"""CheckPreconditionLifecycleHandler, scenario by scenario."""

from unittest.mock import AsyncMock

import pytest

from sokovan.scheduler import (
    AgentError,
    CheckPreconditionLifecycleHandler,
    KernelStatus,
    SchedulerRepository,
    SessionDataForPull,
    SessionId,
    SessionLauncher,
    SessionsForPullResult,
    SessionStatus,
    SessionWithKernels,
    TransitionStatus,
)

SCHEDULED, PREPARING, PENDING = (
    SessionStatus.SCHEDULED,
    SessionStatus.PREPARING,
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
    return CheckPreconditionLifecycleHandler(launcher=launcher, repository=repository)


def test_the_status_transitions_are_those_of_the_document(handler):
    assert handler.stage.success == TransitionStatus(
        session=PREPARING, kernel=KernelStatus.PREPARING
    )
    assert handler.stage.expired == TransitionStatus(session=PENDING, kernel=KernelStatus.PENDING)
    assert handler.stage.give_up is None


async def test_sc_cp_001_all_sessions_trigger_image_pulling(handler, repository, launcher):
    session1_data, session2_data = SessionDataForPull(s1), SessionDataForPull(s2)
    repository.get_sessions_for_pull_by_ids.return_value = SessionsForPullResult(
        sessions=[session1_data, session2_data], image_configs={"python:3.11": {}}
    )
    launcher.trigger_image_pulling.return_value = None
    sessions = [SessionWithKernels(s1, status=SCHEDULED), SessionWithKernels(s2, status=SCHEDULED)]

    result = await handler.execute("default", sessions)

    assert len(result.successes) == 2
    assert result.successes[0].session_id == s1
    assert result.successes[0].from_status == SessionStatus.SCHEDULED
    assert result.successes[0].reason == "passed-preconditions"
    assert len(result.failures) == 0
    repository.get_sessions_for_pull_by_ids.assert_called_once_with([s1, s2])
    launcher.trigger_image_pulling.assert_called_once()
    launcher.trigger_image_pulling.assert_called_once_with(
        [session1_data, session2_data], {"python:3.11": {}}
    )


async def test_sc_cp_002_empty_session_list_returns_empty_result(handler, repository, launcher):
    result = await handler.execute("default", [])

    assert len(result.successes) == 0
    assert len(result.failures) == 0
    repository.get_sessions_for_pull_by_ids.assert_not_called()
    launcher.trigger_image_pulling.assert_not_called()


async def test_sc_cp_003_launcher_exception_propagated(handler, repository, launcher):
    repository.get_sessions_for_pull_by_ids.return_value = SessionsForPullResult(
        sessions=[SessionDataForPull(s1)]
    )
    launcher.trigger_image_pulling.side_effect = AgentError("Connection failed")

    with pytest.raises(AgentError, match="Connection failed"):
        await handler.execute("default", [SessionWithKernels(s1, status=SCHEDULED)])
