"""What writing takes: the leases, a shadow in step with the store, no commit left in doubt."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from sokovan.clock import Clock
from sokovan.domain.access import Caller
from sokovan.domain.cluster import ScalingGroup
from sokovan.domain.errors import CommitUnknownError, StoreUnavailableError
from sokovan.domain.reasons import EndReason
from sokovan.domain.sessions import SessionId, SessionWithKernels
from sokovan.identity import IdSource
from sokovan.policies import Policy, with_policy
from sokovan.scheduler.moves import Applied, Moved
from sokovan.store.audit import note
from sokovan.store.changes import BY_DEPENDENCY, ChangeSet
from sokovan.store.engine import Database, Job, T, Transaction
from sokovan.store.leases import (
    check_leases,
    every_group,
    live_ids,
    read_cursors,
    read_live,
    read_policies,
    take_leases,
)
from sokovan.store.loads import Loads
from sokovan.store.set_clocks import pulled_back, shifted


class Writer(Loads):
    """The one writer of its groups.

    Args:
        database: Runs the transactions.
        clock: Stamps what is written.
        ids: Mints sessions and tokens.
        groups: The scaling groups by name, with their configured policy; an administrator may have
            made others, and may have set other policies.
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
        self._configured = dict(groups)
        self._policies: dict[str, dict[str, Any]] = {}
        """What an administrator has set, by group; of one that they made, at least `{}`."""
        self._fencing: dict[str, int] = {}
        self.is_in_doubt = False
        """Whether a commit may have taken place that the shadow does not show."""

    # --- taking over ----------------------------------------------------------------------------

    async def take_over(self) -> None:
        """Become the one writer of every group, and read what is alive."""
        self._fencing = await self._write(self._take_leases)
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

    def _take_leases(self, tx: Transaction) -> dict[str, int]:
        """Take the leases; when the clock was set since the last manager, no age is to change."""
        names = every_group(tx, self._configured)
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
            found, cursors, policies = read_live(tx), read_cursors(tx), read_policies(tx)
            names = every_group(tx, self._configured)

            def shadow() -> None:
                self.live.become(found)
                self._policies = policies
                for name in self._groups.keys() - set(names):
                    del self._groups[name]
                for name in names:
                    group = self._with_policy(name, policies.get(name, {}))
                    self._groups[name] = replace(group, last_agent_id=cursors.get(name))

            tx.after_commit(shadow)

        await self._database.write(job)

    async def touch(self) -> None:
        """Go through a transaction that writes nothing, and find out whether one can be had.

        Raises:
            LeaseLostError: Another manager has taken over.
            StoreUnavailableError: It cannot.
        """
        await self._write(self._check_leases)

    def _with_policy(self, name: str, said: Policy) -> ScalingGroup:
        """Return a group of the settings, or one that is not in them, with what is set of it.

        One that was taken out of the settings is driven to its end with the defaults.
        """
        return with_policy(self._configured.get(name, ScalingGroup(name)), said)

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

    def _note(
        self, tx: Transaction, by: Caller | None, action: str, target: str, detail: str = ""
    ) -> None:
        note(tx, self._clock.now(), by, action, target, detail)

    def _check_leases(self, tx: Transaction) -> None:
        check_leases(tx, self._fencing)

    def _take_in(
        self,
        tx: Transaction,
        made: Sequence[SessionWithKernels],
        failed: Mapping[SessionId, str],
    ) -> Applied:
        """Remember sessions that were accepted, and end those whose dependencies have failed."""
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
        wrote = applied.wrote or bool(made)
        return replace(applied, moved=new + applied.moved, wrote=wrote)

    def _changes(self, tx: Transaction) -> ChangeSet:
        return ChangeSet(tx, self.live, self._ids, self._clock.now())
