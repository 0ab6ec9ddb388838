"""DEPRIORITIZING to PENDING: let others go first."""

from collections.abc import Sequence

from sokovan.domain.sessions import (
    DEPRIORITIZE_AMOUNT,
    SESSION_PRIORITY_MIN,
    SessionWithKernels,
    ids_of,
)
from sokovan.scheduler import stages
from sokovan.scheduler.handlers.base import LifecycleHandler
from sokovan.scheduler.ports import SchedulerRepository
from sokovan.scheduler.results import NOTHING, SessionExecutionResult, each


class DeprioritizeSessionsLifecycleHandler(LifecycleHandler):
    """Lower the priority of every session by `DEPRIORITIZE_AMOUNT` and report it as a success."""

    stage = stages.DEPRIORITIZE_SESSIONS

    def __init__(self, repository: SchedulerRepository) -> None:
        self._repository = repository

    async def execute(
        self, scaling_group: str, sessions: Sequence[SessionWithKernels]
    ) -> SessionExecutionResult:
        if not sessions:
            return NOTHING
        await self._repository.lower_session_priority(
            ids_of(sessions), DEPRIORITIZE_AMOUNT, SESSION_PRIORITY_MIN
        )
        return SessionExecutionResult(successes=each(sessions, "deprioritized-for-rescheduling"))
