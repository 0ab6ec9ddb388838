"""PENDING for too long: report the sessions whose pending timeout has passed."""

from collections.abc import Sequence

from sokovan.domain.quantities import format_duration
from sokovan.domain.sessions import SessionWithKernels, ids_of
from sokovan.scheduler import stages
from sokovan.scheduler.handlers.base import LifecycleHandler
from sokovan.scheduler.ports import SchedulerRepository
from sokovan.scheduler.results import NOTHING, SessionExecutionResult, SessionTransitionInfo


class SweepSessionsLifecycleHandler(LifecycleHandler):
    """Report every session that waited longer than it wanted to as a failure, which expires it."""

    stage = stages.SWEEP_SESSIONS

    def __init__(self, repository: SchedulerRepository) -> None:
        self._repository = repository

    async def execute(
        self, scaling_group: str, sessions: Sequence[SessionWithKernels]
    ) -> SessionExecutionResult:
        if not sessions:
            return NOTHING
        statuses = {session.session_id: session.status for session in sessions}
        timed_out = await self._repository.get_pending_timeout_sessions_by_ids(ids_of(sessions))
        return SessionExecutionResult(
            failures=[
                SessionTransitionInfo(
                    late.session_id,
                    statuses[late.session_id],
                    "PENDING_TIMEOUT_EXCEEDED",
                    f"waited {format_duration(late.waited_s)},"
                    f" its limit is {format_duration(late.timeout_s)}",
                )
                for late in timed_out
                if late.session_id in statuses
            ]
        )
