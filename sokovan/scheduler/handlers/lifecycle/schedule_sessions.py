"""PENDING to SCHEDULED: let the provisioner choose agents."""

from collections.abc import Sequence

from sokovan.domain.sessions import SessionWithKernels
from sokovan.scheduler import stages
from sokovan.scheduler.handlers.base import LifecycleHandler
from sokovan.scheduler.ports import SchedulerRepository, SessionProvisioner
from sokovan.scheduler.results import (
    NOTHING,
    SessionExecutionResult,
    SessionTransitionInfo,
    each,
)


class ScheduleSessionsLifecycleHandler(LifecycleHandler):
    """Report the sessions that the provisioner placed as successes, the others as skipped.

    Waiting for free resources is no failure: nothing is counted against a skipped session. A
    session that the provisioner names but that was not asked about (it came in meanwhile) is left
    for the next pass.
    """

    stage = stages.SCHEDULE_SESSIONS

    def __init__(self, provisioner: SessionProvisioner, repository: SchedulerRepository) -> None:
        self._provisioner = provisioner
        self._repository = repository

    async def execute(
        self, scaling_group: str, sessions: Sequence[SessionWithKernels]
    ) -> SessionExecutionResult:
        if not sessions:
            return NOTHING
        asked = {session.session_id: session for session in sessions}
        data = await self._repository.get_scheduling_data(scaling_group)
        if data is None:
            return SessionExecutionResult(skipped=each(sessions, "no-scheduling-data"))
        result = await self._provisioner.schedule_scaling_group(scaling_group, data)
        successes = [
            SessionTransitionInfo(
                placed.session_id,
                asked[placed.session_id].status,
                "scheduled",
                assignment=placed.assignment,
            )
            for placed in result.scheduled_sessions
            if placed.session_id in asked
        ]
        failures = [failure for failure in result.failures if failure.session_id in asked]
        named = {info.session_id for info in (*successes, *failures)}
        skipped = [
            SessionTransitionInfo(
                session_id,
                session.status,
                "not-scheduled-this-cycle",
                wait=result.waits.get(session_id),
            )
            for session_id, session in asked.items()
            if session_id not in named
        ]
        return SessionExecutionResult(successes, failures, skipped)
