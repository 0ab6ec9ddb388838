"""TERMINATING: ask the agents to stop what is left of a session."""

from collections.abc import Sequence

from sokovan.domain.sessions import SessionWithKernels, ids_of
from sokovan.scheduler import stages
from sokovan.scheduler.handlers.base import LifecycleHandler
from sokovan.scheduler.ports import SchedulerRepository, SessionTerminator
from sokovan.scheduler.results import NOTHING, SessionExecutionResult


class TerminateSessionsLifecycleHandler(LifecycleHandler):
    """Send the stops and report nothing: a session is over when its agents have said so.

    Raises:
        AgentError: An agent refused; the coordinator counts its sessions as failed.
    """

    stage = stages.TERMINATE_SESSIONS

    def __init__(self, terminator: SessionTerminator, repository: SchedulerRepository) -> None:
        self._terminator = terminator
        self._repository = repository

    async def execute(
        self, scaling_group: str, sessions: Sequence[SessionWithKernels]
    ) -> SessionExecutionResult:
        if not sessions:
            return NOTHING
        terminating = await self._repository.get_terminating_sessions_by_ids(ids_of(sessions))
        if terminating:
            await self._terminator.terminate_sessions_for_handler(terminating)
        return NOTHING
