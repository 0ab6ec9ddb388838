"""PREPARED to CREATING: ask the agents to start kernels."""

from collections.abc import Sequence

from sokovan.domain.sessions import SessionWithKernels, ids_of
from sokovan.scheduler import stages
from sokovan.scheduler.handlers.base import LifecycleHandler
from sokovan.scheduler.ports import SchedulerRepository, SessionLauncher, SessionQuerier
from sokovan.scheduler.results import NOTHING, SessionExecutionResult, each


class StartSessionsLifecycleHandler(LifecycleHandler):
    """Ask for kernels to be started and report every session as a success.

    A success means *asked*, not *running*: the agents report each kernel's start.

    Raises:
        AgentError: An agent refused; the coordinator counts its sessions as failed.
    """

    stage = stages.START_SESSIONS

    def __init__(self, launcher: SessionLauncher, repository: SchedulerRepository) -> None:
        self._launcher = launcher
        self._repository = repository

    async def execute(
        self, scaling_group: str, sessions: Sequence[SessionWithKernels]
    ) -> SessionExecutionResult:
        if not sessions:
            return NOTHING
        querier = SessionQuerier(ids_of(sessions))
        found = await self._repository.search_sessions_with_kernels_and_user(querier)
        await self._launcher.start_sessions_for_handler(found.sessions, found.image_configs)
        return SessionExecutionResult(successes=each(sessions, "triggered-by-scheduler"))
