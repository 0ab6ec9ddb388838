"""What handlers and the coordinator ask of the store: answered from the shadow, without a query."""

import functools
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from sokovan.clock import Clock
from sokovan.domain.cluster import ScalingGroup
from sokovan.domain.reasons import Wait, WaitReason
from sokovan.domain.sessions import SessionId, SessionWithKernels
from sokovan.domain.statuses import SessionStatus
from sokovan.placement.engine import Plan, place
from sokovan.placement.machines import Machines
from sokovan.placement.snapshot import Snapshot
from sokovan.scheduler.ports import (
    PendingTimeoutSessionData,
    SchedulingData,
    SessionQuerier,
    SessionsForPullResult,
    SessionsWithUserResult,
    TerminatingSessionData,
)
from sokovan.scheduler.settle import StageLoad
from sokovan.scheduler.stages import SCHEDULE_SESSIONS, SWEEP_SESSIONS, Stage
from sokovan.store.answers import to_prepare, to_start, to_terminate
from sokovan.store.engine import Database
from sokovan.store.live import Live
from sokovan.store.loading import load_specs
from sokovan.store.waiting import Waiting


class Loads:
    """The reading half of `SqlRepository`.

    Args:
        database: For what only the database knows: what users submitted.
        clock: The time.
        groups: The scaling groups by name, with their configured policy.
    """

    def __init__(
        self, database: Database, clock: Clock, groups: Mapping[str, ScalingGroup]
    ) -> None:
        self._database = database
        self._clock = clock
        self._groups = dict(groups)
        self._waiting: dict[str, Waiting] = defaultdict(Waiting)
        self._taken_over_at: dict[str, float] = {}
        self.live = Live()

    # --- what handlers ask ----------------------------------------------------------------------

    async def get_sessions_for_pull_by_ids(
        self, session_ids: list[SessionId]
    ) -> SessionsForPullResult:
        return SessionsForPullResult([to_prepare(s) for s in self._live_ones(session_ids)])

    async def get_scheduling_data(self, scaling_group: str) -> SchedulingData | None:
        snapshot = self.snapshot(scaling_group)
        return SchedulingData(snapshot.group, snapshot=snapshot) if snapshot else None

    async def search_sessions_with_kernels_and_user(
        self, querier: SessionQuerier
    ) -> SessionsWithUserResult:
        ids = list(querier.session_ids)
        specs = await self._database.read(lambda tx: load_specs(tx, ids))
        return SessionsWithUserResult(
            [
                to_start(session, specs[session.session_id])
                for session in self._live_ones(ids)
                if session.session_id in specs
            ]
        )

    async def get_terminating_sessions_by_ids(
        self, session_ids: list[SessionId]
    ) -> list[TerminatingSessionData]:
        return [
            to_terminate(session)
            for session in self._live_ones(session_ids)
            if session.status is SessionStatus.TERMINATING
        ]

    async def get_pending_timeout_sessions_by_ids(
        self, session_ids: list[SessionId]
    ) -> list[PendingTimeoutSessionData]:
        now = self._clock.now()
        late = []
        for session in self._live_ones(session_ids):
            timeout_s = self.pending_timeout_of(session)
            if timeout_s is not None and now - session.pending_since >= timeout_s:
                waited_s = now - session.pending_since
                late.append(PendingTimeoutSessionData(session.session_id, waited_s, timeout_s))
        return late

    def pending_timeout_of(self, session: SessionWithKernels) -> float | None:
        """Return how long a session may stay PENDING: its own limit, else its group's."""
        if session.pending_timeout_s is not None:
            return session.pending_timeout_s
        return self._groups[session.scaling_group].pending_timeout_s

    def _live_ones(self, session_ids: Sequence[SessionId]) -> list[SessionWithKernels]:
        return [self.live.sessions[i] for i in session_ids if i in self.live.sessions]

    # --- what the coordinator asks --------------------------------------------------------------

    @property
    def groups(self) -> Mapping[str, ScalingGroup]:
        """The scaling groups by name, with their round-robin cursor."""
        return self._groups

    def taken_over_at(self, scaling_group: str) -> float:
        """Return since when this manager has been driving a group; 0 when that is not known."""
        return self._taken_over_at.get(scaling_group, 0.0)

    def load_for_stage(self, scaling_group: str, stage: Stage, note_after_s: float) -> StageLoad:
        """Return the sessions a stage takes and those it awaits. Costs no query."""
        now = self._clock.now()
        taken: list[SessionWithKernels] = []
        backing_off: list[SessionWithKernels] = []
        for session in self._to_look_at(scaling_group, stage, note_after_s):
            (backing_off if _backs_off(session, stage, now) else taken).append(session)
        awaited = self.live.in_statuses(scaling_group, stage.awaits)
        if stage.limit_is_walltime:
            awaited = (session for session in awaited if session.walltime_s is not None)
        return StageLoad(
            tuple(taken),
            tuple(backing_off),
            tuple(awaited),
            now,
            self._groups[scaling_group],
            self.live.waits,
            note_after_s,
            self.taken_over_at(scaling_group),
            self._waiting[scaling_group].again_at if stage is SCHEDULE_SESSIONS else None,
        )

    def _to_look_at(
        self, scaling_group: str, stage: Stage, note_after_s: float
    ) -> Iterable[SessionWithKernels]:
        """Return those of the sessions a stage takes for which it may have something to do."""
        if stage is SCHEDULE_SESSIONS:
            snapshot = self.snapshot(scaling_group)
            assert snapshot is not None
            return self._waiting[scaling_group].with_news(snapshot, self.live.waits, note_after_s)
        sessions = self.live.in_statuses(scaling_group, stage.takes)
        if stage is SWEEP_SESSIONS:
            return [s for s in sessions if self.pending_timeout_of(s) is not None]
        return sessions

    def snapshot(self, scaling_group: str) -> Snapshot | None:
        """Return what placement works on now; `None` when there is no such group."""
        group = self._groups.get(scaling_group)
        return self.live.snapshot(group, self._clock.now()) if group else None

    def machines_of(self, scaling_group: str) -> Machines:
        """Return the agents of a group as placement knows them; none where there is no group."""
        snapshot = self.snapshot(scaling_group)
        return snapshot.machines if snapshot else Machines(())

    def wait_of(self, session: SessionWithKernels) -> Wait:
        """Return why a PENDING session waits, as a pass would find it now."""
        return self.waits_now()(session)

    def waits_now(self) -> Callable[[SessionWithKernels], Wait]:
        """Return what says of any number of sessions why they wait, for use at once."""
        plan_of = functools.cache(self._plan_now)

        def wait_of(session: SessionWithKernels) -> Wait:
            plan = plan_of(session.scaling_group)
            wait = plan.waits.get(session.session_id) if plan else None
            if wait is None:
                return Wait(WaitReason.NOT_EXAMINED_YET)
            noted = self.live.facts.get(session.session_id)
            if noted is not None and noted.code is wait.code is WaitReason.WAITING_FOR_RETRY:
                return Wait(wait.code, {**noted.facts, **wait.facts})
            return wait

        return wait_of

    def _plan_now(self, scaling_group: str) -> Plan | None:
        snapshot = self.snapshot(scaling_group)
        return place(snapshot) if snapshot else None

    def note_waits(self, waits: Mapping[SessionId, Wait]) -> None:
        """Keep the present waiting reason of each session that was left alone, and since when."""
        self.live.put_waits(waits, self._clock.now())


def _backs_off(session: SessionWithKernels, stage: Stage, now: float) -> bool:
    attempts = session.attempts.get(stage.name)
    return attempts is not None and attempts.retry_at > now
