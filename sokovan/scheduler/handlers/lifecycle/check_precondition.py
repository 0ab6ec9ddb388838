"""SCHEDULED to PREPARING: ask the chosen agents to pull images."""

from collections.abc import Sequence

from sokovan.domain.sessions import SessionWithKernels, ids_of
from sokovan.scheduler import stages
from sokovan.scheduler.handlers.base import LifecycleHandler
from sokovan.scheduler.ports import SchedulerRepository, SessionLauncher
from sokovan.scheduler.results import NOTHING, SessionExecutionResult, each


class CheckPreconditionLifecycleHandler(LifecycleHandler):
    """Ask for image pulls and report every session as a success.

    A success means *asked*, not *pulled*: the agents report the end of each pull later.

    Raises:
        AgentError: An agent refused; the coordinator counts its sessions as failed.
    """

    stage = stages.CHECK_PRECONDITION

    def __init__(self, launcher: SessionLauncher, repository: SchedulerRepository) -> None:
        self._launcher = launcher
        self._repository = repository

    async def execute(
        self, scaling_group: str, sessions: Sequence[SessionWithKernels]
    ) -> SessionExecutionResult:
        if not sessions:
            return NOTHING
        found = await self._repository.get_sessions_for_pull_by_ids(ids_of(sessions))
        await self._launcher.trigger_image_pulling(found.sessions, found.image_configs)
        return SessionExecutionResult(successes=each(sessions, "passed-preconditions"))
