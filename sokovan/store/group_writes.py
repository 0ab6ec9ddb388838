"""What is written about scaling groups: that there are some, and what is set of their policy."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import func, select, update

from sokovan.domain.access import Caller
from sokovan.domain.cluster import ScalingGroup
from sokovan.domain.errors import GroupNotFoundError, IllegalStateError
from sokovan.policies import Policy, changed
from sokovan.scheduler.moves import Applied
from sokovan.store.engine import Transaction
from sokovan.store.leading import Leading
from sokovan.store.leases import read_policies, take_leases
from sokovan.store.parts import dumps
from sokovan.store.tables import IS_LIVE, agents, scaling_groups, sessions

Check = Callable[[ScalingGroup], None]
NAMED_MAX = 5
"""So many agents does a refusal name."""


class GroupWrites(Leading):
    """The part of the repository that is about scaling groups."""

    @property
    def configured(self) -> Mapping[str, ScalingGroup]:
        """The groups of the settings, as those have them."""
        return self._configured

    @property
    def policies(self) -> Mapping[str, Policy]:
        """What an administrator has set, by group; of one that they made, at least `{}`."""
        return self._policies

    async def create_group(
        self, name: str, policy: Policy, *, check: Check, by: Caller | None = None
    ) -> Applied:
        """Make a group, and become its writer.

        Raises:
            IllegalStateError: There is one of that name.
            InvalidRequestError: The policy makes no sense.
        """

        def job(tx: Transaction) -> Applied:
            self._check_leases(tx)
            if name in self._groups or name in read_policies(tx):
                raise IllegalStateError(
                    f"there is a group {name} already; `sokovan groups set {name}` changes it"
                )
            fencing, _ = take_leases(tx, [name], self._holder, self._clock.origin)
            tx.after_commit(lambda: self._lead_new(fencing))
            self._note(tx, by, "group create", name, _words(policy))
            return self._put_policy(tx, name, changed({}, policy), check)

        return await self._write(job)

    async def set_policy(
        self, name: str, changes: Policy, *, check: Check, by: Caller | None = None
    ) -> Applied:
        """Set some of a group's policy, whatever the settings say; `None` takes that back.

        Raises:
            GroupNotFoundError: There is no such group.
            InvalidRequestError: The policy makes no sense.
        """

        def job(tx: Transaction) -> Applied:
            self._check_leases(tx)
            said = read_policies(tx).get(name)
            if said is None:
                self._require_group(name)
            self._note(tx, by, "group set", name, _words(changes))
            return self._put_policy(tx, name, changed(said or {}, changes), check)

        return await self._write(job)

    async def remove_group(self, name: str, *, by: Caller | None = None) -> Applied:
        """Forget a group that an administrator has made, and that nothing is left of.

        Raises:
            GroupNotFoundError: There is no such group.
            IllegalStateError: It is in the settings, or has agents or live sessions.
        """

        def job(tx: Transaction) -> Applied:
            self._check_leases(tx)
            self._require_group(name)
            self._require_unused(tx, name)
            self._note(tx, by, "group remove", name)
            tx.execute(
                update(scaling_groups).where(scaling_groups.c.name == name).values(policy=None)
            )

            def shadow() -> None:
                self._policies.pop(name, None)
                self._groups.pop(name, None)

            tx.after_commit(shadow)
            tx.news.groups = True
            return Applied(policies=frozenset({name}))

        return await self._write(job)

    def _put_policy(
        self, tx: Transaction, name: str, said: dict[str, Any], check: Check
    ) -> Applied:
        """Write what is set of a group; of one of the settings, nothing at all is no word."""
        group = self._with_policy(name, said)
        check(group)
        is_said = bool(said) or name not in self._configured
        policy = dumps(said) if is_said else None
        tx.execute(
            update(scaling_groups).where(scaling_groups.c.name == name).values(policy=policy)
        )

        def shadow() -> None:
            before = self._groups.get(name, group)
            self._groups[name] = replace(group, last_agent_id=before.last_agent_id)
            if is_said:
                self._policies[name] = said
            else:
                self._policies.pop(name, None)

        tx.after_commit(shadow)
        tx.news.groups = True
        return Applied(policies=frozenset({name}))

    def _require_group(self, name: str) -> None:
        if name not in self._groups:
            raise GroupNotFoundError(
                f"there is no group {name!r}; `sokovan groups` lists them, `sokovan groups create`"
                " makes one"
            )

    def _require_unused(self, tx: Transaction, name: str) -> None:
        if name in self._configured:
            raise IllegalStateError(
                f"the group {name} is in the settings; take it out of config.toml, and start the"
                " server again"
            )
        names = tx.execute(
            select(agents.c.name).where(agents.c.scaling_group == name).order_by(agents.c.name)
        )
        if found := list(names.scalars()):
            some = ", ".join(found[:NAMED_MAX]) + " …" * (len(found) > NAMED_MAX)
            raise IllegalStateError(
                f"the group {name} has agents: {some}; put them into another one in config.toml,"
                " and `sokovan agents remove` those that are GONE"
            )
        live = select(func.count()).select_from(sessions)
        live = live.where(sessions.c.scaling_group == name, IS_LIVE)
        if count := tx.execute(live).scalar():
            raise IllegalStateError(
                f"{count} sessions of the group {name} have not ended; wait for them, or cancel"
                f" them: `sokovan ls --group {name}` lists them"
            )


def _words(policy: Policy) -> str:
    return " ".join(f"{key}={'' if value is None else value}" for key, value in policy.items())
