"""`SqlRepository`: what the scheduler asks of the store, on any database.

Writing goes through `ChangeSet`; loading for stages through `Live`, the shadow of what is alive.
"""

from collections.abc import Sequence
from dataclasses import replace

from sokovan.domain.access import Caller
from sokovan.domain.reasons import EndReason
from sokovan.domain.sessions import AgentId, SessionId, SessionSpec, SessionWithKernels
from sokovan.domain.statuses import SessionStatus
from sokovan.scheduler.messages import Answer, KernelReport
from sokovan.scheduler.moves import Applied, Move
from sokovan.store.accepting import Submission, accept, in_turn
from sokovan.store.array_writes import ArrayWrites
from sokovan.store.audit import note_all
from sokovan.store.bulk import Update
from sokovan.store.changes import ChangeSet
from sokovan.store.edits import Again, edit
from sokovan.store.engine import JointJob, Transaction
from sokovan.store.group_writes import GroupWrites
from sokovan.store.prune_writes import PruneWrites
from sokovan.store.reports import record
from sokovan.store.tables import scaling_groups

_KEEP_CURSOR = Update(scaling_groups, "name", ["last_agent_id"])


class SqlRepository(ArrayWrites, GroupWrites, PruneWrites):
    """The store as the scheduler sees it; `Writer` says what it is made of."""

    async def lower_session_priority(
        self, session_ids: list[SessionId], amount: int, min_priority: int
    ) -> None:
        def job(tx: Transaction) -> None:
            changes = self._changes(tx)
            changes.load(session_ids)
            self._check_leases(tx, {change.session.scaling_group for change in changes})
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

    async def apply(self, moves: Sequence[Move], answers: Sequence[Answer] = ()) -> Applied:
        """Make moves: status, assignment, tokens, holds and history in one transaction.

        What agents answered while these were decided is recorded before. A move whose session has
        changed since is SUPERSEDED; one whose agents have no room any more is REJECTED. Both change
        nothing.

        Raises:
            LeaseLostError: Another manager has taken over.
            StoreUnavailableError: Nothing was written, unless it is a `CommitUnknownError`.
        """

        def job(tx: Transaction) -> Applied:
            changes = self._changes(tx)
            groups = {self._record(changes, answer) for answer in answers}
            changes.load(move.session_id for move in moves)
            groups.update(change.session.scaling_group for change in changes)
            self._check_leases(tx, groups)
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
        if last:
            rows = [{"at_id": name, "last_agent_id": agent_id} for name, agent_id in last.items()]
            tx.execute(_KEEP_CURSOR, rows)

        def shadow() -> None:
            for name, agent_id in last.items():
                self._groups[name] = replace(self._groups[name], last_agent_id=agent_id)

        tx.after_commit(shadow)

    async def record_reports(
        self, agent_id: AgentId, incarnation: int, reports: Sequence[KernelReport]
    ) -> Applied:
        """Record what an agent says of its kernels; what is out of date changes nothing."""

        def job(tx: Transaction) -> Applied:
            changes = self._changes(tx)
            self._check_leases(tx, [self._record(changes, Answer(agent_id, incarnation, reports))])
            return changes.save()

        return await self._write(job)

    def _record(self, changes: ChangeSet, said: Answer) -> str:
        """Change sessions as an agent says; return its group, whose lease is to be checked."""
        agent = self.live.agents.get(said.agent_id)
        if agent is None:
            return ""
        if agent.incarnation == said.incarnation:
            found = changes.load_holds([report.token for report in said.reports])
            on_agent = {t: hold for t, hold in found.items() if hold.agent_id == said.agent_id}
            changes.load(SessionId(hold.session_id) for hold in on_agent.values())
            record(changes, said.reports, on_agent, self._groups)
        return agent.scaling_group

    async def request_termination(
        self,
        session_ids: Sequence[SessionId],
        *,
        force: bool,
        detail: str,
        by: Caller | None = None,
    ) -> Applied:
        """End sessions for a user; wins over whatever stage is at work on them."""

        def job(tx: Transaction) -> Applied:
            changes = self._changes(tx)
            changes.load(session_ids)
            for change in changes:
                change.request_termination(
                    force=force, reason=EndReason.USER_REQUESTED, detail=detail
                )
            self._note(tx, by, "cancel", " ".join(session_ids), "forced" if force else "")
            return changes.save()

        return await self._write(job)

    async def submit(
        self,
        specs: Sequence[SessionSpec],
        *,
        by: Caller | None = None,
        again: Again | None = None,
    ) -> tuple[list[SessionId], Applied]:
        """Accept sessions, all or none; they are durable when this returns.

        Args:
            specs: What is submitted.
            by: Who asked.
            again: Which session `specs`, of one, is submitted again from.

        Raises:
            CreationConflictError: A creation id was used before for something else.
            InvalidRequestError: A dependency is unknown or cyclic.
        """
        return await self._write(JointJob(self._submit, Submission(specs, by, again)))

    def _submit(
        self, tx: Transaction, submissions: Sequence[Submission]
    ) -> list[tuple[list[SessionId], Applied] | Exception]:
        now = self._clock.now()
        outcomes: list[tuple[list[SessionId], Applied] | Exception] = []
        notes = []
        for part in in_turn(submissions):
            accepted = accept(tx, part, self._ids, now)
            for asked, found in zip(part, accepted, strict=True):
                if isinstance(found, Exception):
                    outcomes.append(found)
                    continue
                if asked.again is not None:
                    asked.again.note(tx, found.made, asked.by)
                outcomes.append((found.answer, self._take_in(tx, found.made, found.failed)))
                if found.made:
                    notes.append(asked.note(found.made))
        note_all(tx, now, notes)
        return outcomes

    async def set_held(
        self, session_id: SessionId, *, held: bool, by: Caller | None = None
    ) -> Applied | None:
        """Hold a waiting session back or release it; return None when it does not wait."""

        def job(tx: Transaction) -> Applied | None:
            changes = self._changes(tx)
            changes.load([session_id])
            change = changes.get(session_id)
            if change is None or not change.set_held(held=held):
                return None
            self._note(tx, by, "hold" if held else "release", session_id)
            applied = changes.save()
            return replace(applied, freed=applied.freed | {change.session.scaling_group})

        return await self._write(job)

    async def edit(
        self,
        decided_on: SessionWithKernels,
        before: SessionSpec,
        after: SessionSpec,
        *,
        by: Caller,
    ) -> Applied | None:
        """Change what a session was submitted as, and the session with it.

        Whatever a stage has decided on the session as it was holds no more.

        Args:
            decided_on: The session as it was when this was found to be allowed.
            before: What it was submitted as, then.
            after: What it is to have been submitted as.
            by: Who asked.

        Returns:
            `None`, and nothing has changed, when the session has moved on since.
        """

        def job(tx: Transaction) -> Applied | None:
            changes = self._changes(tx)
            changes.load([decided_on.session_id])
            change = changes.get(decided_on.session_id)
            if change is None or change.session.status_seq != decided_on.status_seq:
                return None
            said = edit(tx, change, before, after, self._clock.now(), by.user)
            self._note(tx, by, "edit", decided_on.session_id, said)
            return changes.save()

        return await self._write(job)
