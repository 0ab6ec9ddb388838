"""What handlers and the coordinator ask of the store: answered from the shadow, without a query."""

from collections.abc import Mapping, Sequence

from sokovan.clock import Clock
from sokovan.domain.cluster import AgentStatus, ScalingGroup
from sokovan.domain.reasons import Wait
from sokovan.domain.sessions import AgentId, SessionId, SessionWithKernels
from sokovan.domain.statuses import SessionStatus
from sokovan.scheduler.ports import (
    PendingTimeoutSessionData,
    SchedulingData,
    SessionQuerier,
    SessionsForPullResult,
    SessionsWithUserResult,
    TerminatingSessionData,
)
from sokovan.scheduler.settle import NotedWait, StageLoad
from sokovan.scheduler.stages import SCHEDULE_SESSIONS, Stage
from sokovan.store.answers import to_prepare, to_start, to_terminate
from sokovan.store.changes import load_specs
from sokovan.store.engine import Database
from sokovan.store.live import Live
from sokovan.store.rows import spec_of


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
        self.taken_over_at = 0.0
        self.live = Live()

    # --- what handlers ask ----------------------------------------------------------------------

    async def get_sessions_for_pull_by_ids(
        self, session_ids: list[SessionId]
    ) -> SessionsForPullResult:
        return SessionsForPullResult([to_prepare(s) for s in self._live_ones(session_ids)])

    async def get_scheduling_data(self, scaling_group: str) -> SchedulingData | None:
        group = self._groups.get(scaling_group)
        if group is None:
            return None
        now = self._clock.now()
        on = self.live.agents_to_place_on(scaling_group)
        pending = self.live.in_statuses(scaling_group, SCHEDULE_SESSIONS.takes)
        return SchedulingData(
            group,
            tuple(on),
            tuple(hold for agent in on for hold in self.live.holds_on(agent.agent_id)),
            tuple(s for s in pending if not _backs_off(s, SCHEDULE_SESSIONS, now)),
            frozenset(
                SessionId(hold.session_id)
                for hold in self.live.leftovers()
                if self._may_still_run(AgentId(hold.agent_id))
            ),
            now,
        )

    def _may_still_run(self, agent_id: AgentId) -> bool:
        agent = self.live.agents.get(agent_id)
        return agent is not None and agent.status is not AgentStatus.GONE

    async def search_sessions_with_kernels_and_user(
        self, querier: SessionQuerier
    ) -> SessionsWithUserResult:
        ids = list(querier.session_ids)
        texts = await self._database.read(lambda tx: load_specs(tx, ids))
        return SessionsWithUserResult(
            [
                to_start(session, spec_of(texts[session.session_id]))
                for session in self._live_ones(ids)
                if session.session_id in texts
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

    def load_for_stage(self, scaling_group: str, stage: Stage, note_after_s: float) -> StageLoad:
        """Return the sessions a stage takes and those it awaits. Costs no query."""
        now = self._clock.now()
        taken: list[SessionWithKernels] = []
        backing_off: list[SessionWithKernels] = []
        for session in self.live.in_statuses(scaling_group, stage.takes):
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
            self.taken_over_at,
        )

    def note_waits(self, waits: Mapping[SessionId, Wait]) -> None:
        """Keep the present waiting reason of each session that was left alone, and since when."""
        now = self._clock.now()
        noted = self.live.waits
        for session_id, wait in waits.items():
            before = noted.get(session_id)
            if before is None or before.code != wait.code:
                noted[session_id] = NotedWait(wait.code.value, now)
        self.live.facts.update(waits)
        for session_id in waits.keys() - self.live.sessions.keys():  # they ended meanwhile
            self.live.forget_wait(session_id)


def _backs_off(session: SessionWithKernels, stage: Stage, now: float) -> bool:
    attempts = session.attempts.get(stage.name)
    return attempts is not None and attempts.retry_at > now
