"""Driving groups: a lease for each, renewed while its holder lives, taken over when nobody does.

Clocks of different machines are never compared. Whoever holds a lease raises its `renewals`; who
sees them stand still for the length of a lease, by a clock of its own, takes over with a higher
fencing token. The holder itself counts from before its last renewal, so that it stops first; and
should it write all the same, late, the token that it names inside the transaction is refused.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from sokovan.store.engine import Transaction
from sokovan.store.leases import (
    Lease,
    every_group,
    give_up,
    live_ids,
    read_leases,
    renew,
    take_leases,
)
from sokovan.store.managers import KnownManager, forget_managers, read_managers, say_present
from sokovan.store.set_clocks import pulled_back, shifted
from sokovan.store.writer import Writer


@dataclass(frozen=True, slots=True)
class _Found:
    """What one look at the leases has led to."""

    kept: frozenset[str]
    taken: Mapping[str, int]
    leases: Mapping[str, Lease]
    managers: tuple[KnownManager, ...]


class Leading(Writer):
    """The part of the repository that says which groups this manager drives."""

    async def take_over(self) -> None:
        """Become the one writer of every group, whoever was it before, and read what is alive."""
        began_at = self._clock.now()

        def job(tx: Transaction) -> Mapping[str, int]:
            return self._take_leases(tx, every_group(tx, self._configured))

        await self._begin_to_lead(await self._write(job), began_at)

    async def keep_leases(self, myself: KnownManager | None = None) -> frozenset[str]:
        """Renew the leases that are held, and take those that nobody renews any more.

        Args:
            myself: What others are to know of this manager.

        Returns:
            The groups that this manager drives from now on, and did not just before.
        """
        began_at = self._clock.now()
        had_lapsed = began_at >= self._leads_until
        held, groups = dict(self._fencing), list(self._groups)  # both may change meanwhile

        def job(tx: Transaction) -> _Found:
            leases = read_leases(tx)
            kept = frozenset(
                name
                for name, token in held.items()
                if name in leases and leases[name].fencing_token == token
            )
            renew(tx, kept)
            free = [
                name
                for name in groups
                if name not in kept and self.others.is_free(leases.get(name), began_at)
            ]
            if myself is not None:
                say_present(tx, myself)
            forget_managers(tx, self.others.long_gone(began_at))
            return _Found(kept, self._take_leases(tx, free), leases, tuple(read_managers(tx)))

        found = await self._write(job)
        self.others.look(found.leases, found.managers, self._clock.now())  # it may have taken long
        self._lose(held.keys() - found.kept)
        if found.kept:
            self._leads_until = began_at + self._lease_s
        if found.taken:
            await self._begin_to_lead(found.taken, began_at)
        return frozenset(found.taken) | (found.kept if had_lapsed else frozenset())

    async def give_up_leases(self) -> None:
        """Drive nothing any more, and have others take over at once."""
        held = dict(self._fencing)

        def job(tx: Transaction) -> None:
            give_up(tx, held)
            forget_managers(tx, [self._holder])
            tx.news.leases = True

        await self._write(job)
        self._lose(held)

    @property
    def manager_id(self) -> str:
        """What this manager is called in leases."""
        return self._holder

    @property
    def led(self) -> frozenset[str]:
        """The groups that this manager drives."""
        return frozenset(name for name in self._fencing if self.leads(name))

    # --- beginning --------------------------------------------------------------------------------

    def _take_leases(self, tx: Transaction, names: Iterable[str]) -> Mapping[str, int]:
        """Take leases; when the clock was set since the last manager, no age is to change."""
        fencing, steps = take_leases(tx, names, self._holder, self._clock.origin)
        if steps:
            changes = self._changes(tx)
            changes.load(live_ids(tx))
            for change in changes:
                if step_s := steps.get(change.session.scaling_group):
                    change.session = shifted(change.session, step_s)
            changes.save()
        return fencing

    def _lead_new(self, fencing: Mapping[str, int]) -> None:
        """Drive groups that did not exist before."""
        now = self._clock.now()
        if not self._fencing:
            self._leads_until = now + self._lease_s
        self._fencing.update(fencing)

    async def _begin_to_lead(self, fencing: Mapping[str, int], began_at: float) -> None:
        """Read what is alive, and begin: while nobody listened, no agent was silent."""
        await self.refresh()
        await self._pull_back(fencing, self._clock.now())
        now = self._clock.now()
        self._fencing.update(fencing)
        self._leads_until = began_at + self._lease_s
        self._taken_over_at.update(dict.fromkeys(fencing, now))
        self.live.unhear(fencing)
        self.live.put_agents(
            replace(
                agent,
                last_seen_at=now,
                lost_since=None if agent.lost_since is None else now,
            )
            for agent in list(self.live.agents.values())
            if agent.scaling_group in fencing or agent.scaling_group not in self._groups
        )

    async def _pull_back(self, groups: Iterable[str], now: float) -> None:
        """Have nothing begin in the future, whatever the clock was before the machine started."""
        ahead = [
            i
            for i, session in self.live.sessions.items()
            if session.scaling_group in groups and pulled_back(session, now) != session
        ]
        if not ahead:
            return

        def job(tx: Transaction) -> None:
            changes = self._changes(tx)
            changes.load(ahead)
            for change in changes:
                change.session = pulled_back(change.session, now)
            changes.save()

        await self._write(job)
