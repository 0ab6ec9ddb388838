"""`SqlRepository`: what the scheduler asks of the store, on any database.

Writing goes through `ChangeSet`; loading for stages through `Live`, the shadow of what is alive.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from sqlalchemy import update

from sokovan.clock import Clock
from sokovan.domain.cluster import Agent, AgentStatus, ScalingGroup
from sokovan.domain.errors import CommitUnknownError, StoreUnavailableError
from sokovan.domain.reasons import EndReason
from sokovan.domain.sessions import AgentId, SessionId, SessionSpec
from sokovan.domain.statuses import SessionStatus
from sokovan.identity import IdSource
from sokovan.scheduler.messages import AgentHello, KernelReport
from sokovan.scheduler.moves import Applied, Move, Moved
from sokovan.store.agents import (
    register,
    remove,
    save_drained,
    save_labels,
    save_status,
    what_follows,
)
from sokovan.store.changes import BY_DEPENDENCY, ChangeSet
from sokovan.store.engine import Database, Job, T, Transaction
from sokovan.store.leases import check_leases, live_ids, read_cursors, read_live, take_leases
from sokovan.store.loads import Loads
from sokovan.store.reports import record
from sokovan.store.set_clocks import pulled_back, shifted
from sokovan.store.submissions import accept
from sokovan.store.tables import scaling_groups


class SqlRepository(Loads):
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
        super().__init__(database, clock, groups)
        self._ids = ids
        self._holder = holder
        self._fencing: dict[str, int] = {}
        self.is_in_doubt = False
        """Whether a commit may have taken place that the shadow does not show."""

    # --- taking over ----------------------------------------------------------------------------

    async def take_over(self) -> None:
        """Become the one writer of every group, and read what is alive."""
        names = list(self._groups)
        self._fencing = await self._write(lambda tx: self._take_leases(tx, names))
        for name in self._fencing:  # one that was taken out of the settings is driven to its end
            self._groups.setdefault(name, ScalingGroup(name))
        await self.refresh()
        await self._pull_back(self._clock.now())
        self.taken_over_at = now = self._clock.now()  # while nobody listened, no agent was silent
        self.live.put_agents(
            replace(
                agent,
                last_seen_at=now,
                lost_since=None if agent.lost_since is None else now,
            )
            for agent in list(self.live.agents.values())
        )

    def _take_leases(self, tx: Transaction, names: Sequence[str]) -> dict[str, int]:
        """Take the leases; when the clock was set since the last manager, no age is to change."""
        fencing, steps = take_leases(tx, names, self._holder, self._clock.origin)
        if steps:
            changes = self._changes(tx)
            changes.load(live_ids(tx))
            for change in changes:
                if step_s := steps.get(change.session.scaling_group):
                    change.session = shifted(change.session, step_s)
            changes.save()
        return fencing

    async def _pull_back(self, now: float) -> None:
        """Have nothing begin in the future, whatever the clock was before the machine started."""
        ahead = [i for i, s in self.live.sessions.items() if pulled_back(s, now) != s]
        if not ahead:
            return

        def job(tx: Transaction) -> None:
            changes = self._changes(tx)
            changes.load(ahead)
            for change in changes:
                change.session = pulled_back(change.session, now)
            changes.save()

        await self._write(job)

    async def refresh(self) -> None:
        """Read what is alive again, so that a shadow gone astray is put right."""

        def job(tx: Transaction) -> None:
            found, cursors = read_live(tx), read_cursors(tx)

            def shadow() -> None:
                self.live.become(found)
                for name, group in self._groups.items():
                    self._groups[name] = replace(group, last_agent_id=cursors.get(name))

            tx.after_commit(shadow)

        await self._database.write(job)

    async def _write(self, job: Job[T]) -> T:
        """Run `job` in a transaction, never on a shadow that a commit in doubt has left behind."""
        await self._resolve_doubt()
        try:
            return await self._database.write(job)
        except CommitUnknownError:
            self.is_in_doubt = True
            with suppress(StoreUnavailableError):
                await self._resolve_doubt()
            raise

    async def _resolve_doubt(self) -> None:
        """After a commit of which it is not known whether it took place: see what is true."""
        if self.is_in_doubt:
            await self.refresh()
            self.is_in_doubt = False

    # --- moves and requests ---------------------------------------------------------------------

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

        await self._write(job)

    async def apply(self, moves: Sequence[Move]) -> Applied:
        """Make moves: status, assignment, tokens, holds and history in one transaction.

        A move whose session has changed since is SUPERSEDED; one whose agents have no room any more
        is REJECTED. Both change nothing.

        Raises:
            LeaseLostError: Another manager has taken over.
            StoreUnavailableError: Nothing was written, unless it is a `CommitUnknownError`.
        """

        def job(tx: Transaction) -> Applied:
            self._check_leases(tx)
            changes = self._changes(tx)
            verdicts = changes.apply(moves, self._groups.__getitem__)
            self._keep_cursor(tx, changes)
            return changes.save(verdicts)

        return await self._write(job)

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

        return await self._write(job)

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

        return await self._write(job)

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

        return await self._write(job)

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

        return await self._write(job)

    # --- agents ---------------------------------------------------------------------------------

    async def register_agent(self, hello: AgentHello) -> Agent:
        """Take an agent in, with a new incarnation."""

        def job(tx: Transaction) -> Agent:
            agent = register(tx, hello, self._clock.now())
            tx.after_commit(lambda: self.live.introduce(agent))
            return agent

        return await self._write(job)

    async def set_agent_status(self, agent_id: AgentId, status: AgentStatus) -> Applied:
        """Note that an agent is back, lost, or given up, and do what follows for its sessions.

        LOST: what has not reached CREATING goes back to PENDING. GONE: the rest counts as gone.
        Neither happens to an agent that is heard of before it can be written.
        """
        known = self.live.agents[agent_id].last_seen_at

        def job(tx: Transaction) -> Applied:
            self._check_leases(tx)
            seen_at = self.live.agents[agent_id].last_seen_at
            if status is not AgentStatus.ALIVE and seen_at > known:
                return Applied()
            now = self._clock.now()
            agent = save_status(tx, agent_id, status, now=now, last_seen_at=seen_at)
            tx.after_commit(lambda: self.live.put_agents([agent]))
            changes = self._changes(tx)
            what_follows(tx, changes, agent, self._groups)
            return changes.save()

        return await self._write(job)

    async def set_drained(self, agent_id: AgentId, *, drained: bool, reason: str = "") -> Applied:
        """Give an agent no new kernels, or give it some again; its kernels go on.

        Raises:
            AgentNotFoundError: There is no such agent.
        """

        def job(tx: Transaction) -> Applied:
            now = self._clock.now()
            agent = save_drained(tx, agent_id, drained=drained, reason=reason, now=now)
            tx.after_commit(lambda: self.live.put_drained(agent))
            return Applied(freed=frozenset({agent.scaling_group}))

        return await self._write(job)

    async def set_labels(self, agent_id: AgentId, changes: Mapping[str, str | None]) -> Applied:
        """Change what an administrator says of an agent; `None` takes a label away.

        Raises:
            AgentNotFoundError: There is no such agent.
            InvalidRequestError: It would have too many labels.
        """

        def job(tx: Transaction) -> Applied:
            agent = save_labels(tx, agent_id, changes)

            def shadow() -> None:  # what only memory knows of the agent is kept
                known = self.live.agents.get(agent_id, agent)
                self.live.put_agents([replace(known, labels=agent.labels)])

            tx.after_commit(shadow)
            return Applied(freed=frozenset({agent.scaling_group}))

        return await self._write(job)

    async def remove_agent(self, agent_id: AgentId, *, force: bool = False) -> Applied:
        """Forget an agent that is GONE, with `force` its leftovers too.

        Raises:
            AgentNotFoundError: There is no such agent.
            IllegalStateError: It is not GONE, or it has leftovers.
        """

        def job(tx: Transaction) -> Applied:
            self._check_leases(tx)
            changes = self._changes(tx)
            remove(tx, changes, agent_id, self._groups, force=force)
            applied = changes.save()
            tx.after_commit(lambda: self.live.forget_agent(agent_id))
            return applied

        return await self._write(job)

    def heard_of(self, agent_id: AgentId) -> None:
        """Note in memory that an agent is alive: a heartbeat is not worth a write."""
        agent = self.live.agents.get(agent_id)
        if agent is not None:
            self.live.put_agents([replace(agent, last_seen_at=self._clock.now())])

    def _check_leases(self, tx: Transaction) -> None:
        check_leases(tx, self._fencing)

    def _changes(self, tx: Transaction) -> ChangeSet:
        return ChangeSet(tx, self.live, self._ids, self._clock.now())
