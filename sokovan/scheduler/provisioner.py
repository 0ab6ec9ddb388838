"""Scheduling passes: from what the store knows to a plan, and from the plan to a result."""

from sokovan.domain.reasons import WaitReason
from sokovan.domain.sessions import SESSION_PRIORITY_MIN
from sokovan.domain.statuses import SessionStatus
from sokovan.placement.engine import place
from sokovan.placement.sentences import sentence
from sokovan.placement.snapshot import snapshot_of
from sokovan.scheduler.ports import ScheduledSessionData, ScheduleResult, SchedulingData
from sokovan.scheduler.results import SessionTransitionInfo


class PlacementProvisioner:
    """Asks the placement engine, and reports requests that can never be met as failures.

    Args:
        full_cycle_s: Such a failure counts at most once in so many seconds.
    """

    def __init__(self, full_cycle_s: float) -> None:
        self._full_cycle_s = full_cycle_s

    async def schedule_scaling_group(
        self, scaling_group: str, scheduling_data: SchedulingData
    ) -> ScheduleResult:
        """Place what can be placed; give a reason for everything that waits."""
        snapshot = snapshot_of(scheduling_data)
        plan = place(snapshot)
        never = {
            session_id: plan.waits[session_id]
            for session_id in sorted(plan.never_fits)
            if snapshot.queue[session_id].priority > SESSION_PRIORITY_MIN
        }
        reasons = {id(wait): wait for wait in never.values()}  # who asks for the same has the same
        sentences = {key: sentence(wait) for key, wait in reasons.items()}
        return ScheduleResult(
            scheduled_sessions=[
                ScheduledSessionData(session_id, assignment)
                for session_id, assignment in plan.placed.items()
            ],
            failures=[
                SessionTransitionInfo(
                    session_id,
                    SessionStatus.PENDING,
                    WaitReason.NEVER_FITS.value,
                    detail=sentences[id(wait)],
                    wait=wait,
                    counted_every_s=self._full_cycle_s,
                )
                for session_id, wait in never.items()
            ],
            waits=plan.waits,
        )
