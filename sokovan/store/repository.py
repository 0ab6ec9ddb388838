"""`SqlRepository`: what the scheduler asks of the store, on any database.

Writing goes through `ChangeSet`; loading for stages through `Live`, the shadow of what is alive.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sqlalchemy import update

from sokovan.clock import Clock
from sokovan.domain.cluster import Agent, AgentStatus, ScalingGroup
from sokovan.domain.reasons import EndReason, Wait
from sokovan.domain.sessions import AgentId, SessionId, SessionSpec, SessionWithKernels
from sokovan.domain.statuses import SessionStatus
from sokovan.identity import IdSource
from sokovan.scheduler.messages import AgentHello, KernelReport
from sokovan.scheduler.moves import Applied, Move, Moved
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
from sokovan.store.agents import register, save_status, what_follows
from sokovan.store.answers import to_prepare, to_start, to_terminate
from sokovan.store.changes import (
    BY_DEPENDENCY,
    ChangeSet,
    load_specs,
)
from sokovan.store.engine import Database, Transaction
from sokovan.store.leases import check_leases, read_live, take_leases
from sokovan.store.live import Live
from sokovan.store.reports import record
from sokovan.store.rows import spec_of
from sokovan.store.submissions import accept
from sokovan.store.tables import scaling_groups


class SqlRepository:
    """The store as the scheduler sees it.

    Args:
        database: Runs the transactions.
        clock: Stamps what is written.
        ids: Mints sessions and tokens.
        groups: The scaling groups by name, with their configured policy.
        holder: Names this process in the leases.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        ids: IdSource,
        groups: Mapping[str, ScalingGroup],
        *,
        holder: str = "",
    ) -> None:
        self._database = database
        self._clock = clock
        self._ids = ids
        self._groups = dict(groups)
        self._holder = holder
        self._fencing: dict[str, int] = {}
        self.taken_over_at = 0.0
        self.live = Live()

    # --- taking over ----------------------------------------------------------------------------

    async def take_over(self) -> None:
        """Become the one writer of every group, and read what is alive."""
        names = list(self._groups)
        fencing, cursors = await self._database.write(
            lambda tx: take_leases(tx, names, self._holder)
        )
        self._fencing = fencing
        for name in fencing:  # a group that was taken out of the settings is driven to its end
            group = self._groups.get(name) or ScalingGroup(name)
            self._groups[name] = replace(group, last_agent_id=cursors.get(name))
        await self.refresh()
        self.taken_over_at = now = self._clock.now()  # while nobody listened, no agent was silent
        self.live.put_agents(
            replace(
                agent,
                last_seen_at=now,
                lost_since=None if agent.lost_since is None else now,
            )
            for agent in list(self.live.agents.values())
        )

    async def refresh(self) -> None:
        """Read what is alive again, so that a shadow gone astray is put right."""

        def job(tx: Transaction) -> None:
            found = read_live(tx)
            tx.after_commit(lambda: self.live.become(found))

        await self._database.write(job)

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

    async def lower_session_priority(
        self, session_ids: list[SessionId], amount: int, min_priority: int
    ) -> None:
        def job(tx: Transaction) -> None:
            self._check_leases(tx)
            changes = self._changes(tx)
            changes.load(session_ids)
            for change in changes:
                session = change.session
                lowered_already = session.lowered_seq == session.status_seq
                if session.status is SessionStatus.DEPRIORITIZING and not lowered_already:
                    change.session = replace(
                        session,
                        priority=max(session.priority - amount, min_priority),
                        lowered_seq=session.status_seq,
                    )
            changes.save()

        await self._database.write(job)

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

    async def apply(self, moves: Sequence[Move]) -> Applied:
        """Make moves: status, assignment, tokens, holds and history in one transaction.

        A move whose session has changed since is SUPERSEDED; one whose agents have no room any more
        is REJECTED. Both change nothing.

        Raises:
            LeaseLostError: Another manager has taken over.
            StoreUnavailableError: Nothing was written.
        """

        def job(tx: Transaction) -> Applied:
            self._check_leases(tx)
            changes = self._changes(tx)
            verdicts = changes.apply(moves, self._groups.__getitem__)
            self._keep_cursor(tx, changes)
            return changes.save(verdicts)

        return await self._database.write(job)

    def _keep_cursor(self, tx: Transaction, changes: ChangeSet) -> None:
        """Remember where the last kernel went, so that a restart goes on from there."""
        last = {
            change.session.scaling_group: AgentId(change.added[-1].agent_id)
            for change in changes
            if change.added
        }
        for name, agent_id in last.items():
            tx.execute(
                update(scaling_groups)
                .where(scaling_groups.c.name == name)
                .values(last_agent_id=agent_id)
            )

        def shadow() -> None:
            for name, agent_id in last.items():
                self._groups[name] = replace(self._groups[name], last_agent_id=agent_id)

        tx.after_commit(shadow)

    async def record_reports(
        self, agent_id: AgentId, incarnation: int, reports: Sequence[KernelReport]
    ) -> Applied:
        """Record what an agent says of its kernels; what is out of date changes nothing."""

        def job(tx: Transaction) -> Applied:
            self._check_leases(tx)
            changes = self._changes(tx)
            agent = self.live.agents.get(agent_id)
            if agent is not None and agent.incarnation == incarnation:
                found = changes.load_holds([report.token for report in reports])
                on_agent = {t: hold for t, hold in found.items() if hold.agent_id == agent_id}
                changes.load(SessionId(hold.session_id) for hold in on_agent.values())
                record(changes, reports, on_agent, self._groups)
            return changes.save()

        return await self._database.write(job)

    async def request_termination(
        self, session_ids: Sequence[SessionId], *, force: bool, detail: str
    ) -> Applied:
        """End sessions for a user; wins over whatever stage is at work on them."""

        def job(tx: Transaction) -> Applied:
            changes = self._changes(tx)
            changes.load(session_ids)
            for change in changes:
                change.request_termination(
                    force=force, reason=EndReason.USER_REQUESTED, detail=detail
                )
            return changes.save()

        return await self._database.write(job)

    async def submit(self, specs: Sequence[SessionSpec]) -> tuple[list[SessionId], Applied]:
        """Accept sessions, all or none; they are durable when this returns.

        Raises:
            CreationConflictError: A creation id was used before for something else.
            InvalidRequestError: A dependency is unknown or cyclic.
        """

        def job(tx: Transaction) -> tuple[list[SessionId], Applied]:
            answer, made, failed = accept(tx, specs, self._ids, self._clock.now())
            tx.after_commit(lambda: self.live.put_sessions(made))
            changes = self._changes(tx)
            changes.load(failed)
            for change in changes:
                change.request_termination(
                    force=False,
                    reason=EndReason.DEPENDENCY_FAILED,
                    detail=failed[change.session.session_id],
                    stage=BY_DEPENDENCY,
                )
            applied = changes.save()
            new = tuple(Moved(s.session_id, s.scaling_group, None, s.status) for s in made)
            return answer, replace(applied, moved=new + applied.moved)

        return await self._database.write(job)

    async def set_held(self, session_id: SessionId, *, held: bool) -> Applied | None:
        """Hold a waiting session back or release it; return None when it does not wait."""

        def job(tx: Transaction) -> Applied | None:
            changes = self._changes(tx)
            changes.load([session_id])
            change = changes.get(session_id)
            if change is None or change.session.status is not SessionStatus.PENDING:
                return None
            change.session = replace(change.session, held=held)
            applied = changes.save()
            return replace(applied, freed=frozenset({change.session.scaling_group}))

        return await self._database.write(job)

    # --- agents ---------------------------------------------------------------------------------

    async def register_agent(self, hello: AgentHello) -> Agent:
        """Take an agent in, with a new incarnation."""

        def job(tx: Transaction) -> Agent:
            agent = register(tx, hello, self._clock.now())
            tx.after_commit(lambda: self.live.introduce(agent))
            return agent

        return await self._database.write(job)

    async def set_agent_status(self, agent_id: AgentId, status: AgentStatus) -> Applied:
        """Note that an agent is back, lost, or given up, and do what follows for its sessions.

        LOST: what has not reached CREATING goes back to PENDING. GONE: the rest counts as gone.
        """

        def job(tx: Transaction) -> Applied:
            self._check_leases(tx)
            seen_at = self.live.agents[agent_id].last_seen_at
            now = self._clock.now()
            agent = save_status(tx, agent_id, status, now=now, last_seen_at=seen_at)
            tx.after_commit(lambda: self.live.put_agents([agent]))
            changes = self._changes(tx)
            what_follows(tx, changes, agent, self._groups)
            return changes.save()

        return await self._database.write(job)

    def heard_of(self, agent_id: AgentId) -> None:
        """Note in memory that an agent is alive: a heartbeat is not worth a write."""
        agent = self.live.agents.get(agent_id)
        if agent is not None:
            self.live.put_agents([replace(agent, last_seen_at=self._clock.now())])

    def _check_leases(self, tx: Transaction) -> None:
        check_leases(tx, self._fencing)

    def _changes(self, tx: Transaction) -> ChangeSet:
        return ChangeSet(tx, self.live, self._ids, self._clock.now())


def _backs_off(session: SessionWithKernels, stage: Stage, now: float) -> bool:
    attempts = session.attempts.get(stage.name)
    return attempts is not None and attempts.retry_at > now
