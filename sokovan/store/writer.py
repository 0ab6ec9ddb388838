"""What writing takes: the leases, a shadow in step with the store, no commit left in doubt."""

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from sokovan.clock import Clock
from sokovan.domain.access import Caller
from sokovan.domain.cluster import ScalingGroup
from sokovan.domain.errors import CommitUnknownError, LeaseLostError, StoreUnavailableError
from sokovan.domain.reasons import EndReason
from sokovan.domain.sessions import SessionId, SessionWithKernels
from sokovan.identity import IdSource
from sokovan.policies import Policy, with_policy
from sokovan.scheduler.duty import Duty
from sokovan.scheduler.moves import Applied, Moved
from sokovan.store.audit import note
from sokovan.store.changes import BY_DEPENDENCY, ChangeSet
from sokovan.store.engine import Database, Job, T, Transaction
from sokovan.store.leases import (
    check_leases,
    every_group,
    lease_lost,
    read_cursors,
    read_live,
    read_policies,
)
from sokovan.store.live import Live
from sokovan.store.loads import Loads
from sokovan.store.others import Others


class Writer(Loads):
    """The one writer of its groups.

    Args:
        database: Runs the transactions.
        clock: Stamps what is written.
        ids: Mints sessions and tokens.
        groups: The scaling groups by name, with their configured policy; an administrator may have
            made others, and may have set other policies.
        holder: Names this manager in the leases, whatever process it is.
        lease_s: How long a lease is good that is not renewed; for ever, where nobody else may be.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        ids: IdSource,
        groups: Mapping[str, ScalingGroup],
        *,
        holder: str = "",
        lease_s: float = math.inf,
    ) -> None:
        super().__init__(database, clock, groups)
        self._ids = ids
        self._holder = holder
        self._configured = dict(groups)
        self._policies: dict[str, dict[str, Any]] = {}
        """What an administrator has set, by group; of one that they made, at least `{}`."""
        self._lease_s = lease_s
        self._fencing: dict[str, int] = {}
        """The groups that this manager drives, with the token that it names in every apply."""
        self.others = Others(holder, lease_s)
        self._leads_until = 0.0
        """From then on, somebody else may, and this manager has to have renewed its leases."""
        self.is_in_doubt = False
        """Whether a commit may have taken place that the shadow does not show."""

    async def refresh(self) -> None:
        """Read what is alive again, so that a shadow gone astray is put right."""

        def job(tx: Transaction) -> None:
            found, cursors, policies = read_live(tx), read_cursors(tx), read_policies(tx)
            names = every_group(tx, self._configured)

            def shadow() -> None:
                self.live.become(found)
                self._hear_of_others(self.live)
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
        except LeaseLostError as error:
            self._lose(error.groups)
            raise
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

    def leads(self, scaling_group: str) -> bool:
        """Say whether this manager drives a group now, and no other may.

        What is left in a group that there is no more is seen to by whoever drives any.
        """
        is_ours = scaling_group in self._fencing or scaling_group not in self._groups
        return is_ours and self._clock.now() < self._leads_until

    def duty(self, scaling_group: str) -> Duty:
        """Say what this manager is to a group."""
        if self.leads(scaling_group):
            return Duty.LEADS
        if scaling_group not in self._fencing:
            return Duty.NONE
        return Duty.UNSURE if self.others.were_there() else Duty.ALONE

    def _check_leases(self, tx: Transaction, groups: Iterable[str] = ()) -> None:
        """Make sure that nobody has taken over since, and that `groups` are this manager's.

        Raises:
            LeaseLostError: Somebody has, or they are not.
        """
        check_leases(tx, self._fencing)
        others = {name for name in groups if name in self._groups} - self._fencing.keys()
        if others:
            raise lease_lost(others)

    def _lose(self, groups: Iterable[str]) -> None:
        """Drive groups no more: others do, and what they find alive is shown as they have it."""
        for name in list(groups):
            self._fencing.pop(name, None)
            self._taken_over_at.pop(name, None)
        self._hear_of_others(self.live)

    def _hear_of_others(self, live: Live) -> None:
        """Take the store's word for agents that introduce themselves to other managers."""
        live.hear(a for a in live.agents.values() if a.scaling_group not in self._fencing)

    def _take_in(
        self,
        tx: Transaction,
        made: Sequence[SessionWithKernels],
        failed: Mapping[SessionId, str],
    ) -> Applied:
        """Remember sessions that were accepted, and end those whose dependencies have failed."""
        tx.after_commit(lambda: self.live.put_sessions(made))
        tx.news.sessions.update(session.session_id for session in made)
        new = tuple(Moved(s.session_id, s.scaling_group, None, s.status) for s in made)
        if not failed:
            return Applied(new, wrote=bool(made))
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
        return replace(applied, moved=new + applied.moved)

    def _changes(self, tx: Transaction) -> ChangeSet:
        return ChangeSet(tx, self.live, self._ids, self._clock.now())
