"""What users and administrators do with scaling groups."""

from collections import Counter
from collections.abc import Callable
from functools import partial

from sokovan.api.lookup import Lookup
from sokovan.api.service import View
from sokovan.clock import Clock
from sokovan.config import FILE_NAME, Config
from sokovan.domain.access import Caller
from sokovan.domain.cluster import AgentStatus, ScalingGroup
from sokovan.domain.errors import (
    ConfigError,
    GroupNotFoundError,
    IllegalStateError,
    InvalidRequestError,
)
from sokovan.domain.quantities import DEVICE_SHARES
from sokovan.domain.resources import used_by
from sokovan.domain.statuses import FINAL, WAITING, SessionStatus
from sokovan.policies import Policy, check_grace, check_name, policy_of
from sokovan.scheduler.moves import Applied
from sokovan.sources import DEFAULT, written_in
from sokovan.store.engine import Database
from sokovan.store.repository import SqlRepository

SET = "groups set"
"""The source of what an administrator has set."""
CREATED = "groups create"
TAKEN_OUT = "live sessions"
"""The source of a group that was taken out of the settings, and still has sessions."""
_PLACED = frozenset(SessionStatus) - WAITING - FINAL


class Groups(Lookup):
    """Shows scaling groups, makes them, and sets their policy.

    Args:
        repository: Writes, and knows what is alive.
        database: Reads.
        clock: The time.
        tell: Takes what a request has changed.
        config: Which groups the settings have, and which agents are in which group.
    """

    def __init__(
        self,
        repository: SqlRepository,
        database: Database,
        clock: Clock,
        tell: Callable[[Applied], None],
        config: Config,
    ) -> None:
        super().__init__(repository, database, clock, tell)
        self._config = config
        self._lines = written_in(config.home / FILE_NAME)

    async def groups(self) -> list[View]:
        """Return every group, by name."""
        return [self._group_view(name) for name in sorted(self._repository.groups)]

    async def group(self, name: str) -> View:
        """Return one group.

        Raises:
            GroupNotFoundError: There is no such group.
        """
        if name not in self._repository.groups:
            raise GroupNotFoundError(f"there is no group {name!r}; `sokovan groups` lists them")
        return self._group_view(name)

    async def create(self, name: str, policy: Policy, *, caller: Caller) -> View:
        """Make a group; return it.

        Raises:
            IllegalStateError: There is one of that name.
            InvalidRequestError: Its name or its policy makes no sense.
        """
        check_name(name)
        create = partial(self._repository.create_group, check=self._check, by=caller)
        self._tell(await create(name, policy))
        return self._group_view(name)

    async def set_policy(self, name: str, changes: Policy, *, caller: Caller) -> View:
        """Set some of a group's policy, whatever the settings say; `None` takes that back.

        Raises:
            GroupNotFoundError: There is no such group.
            InvalidRequestError: The policy makes no sense.
        """
        write = partial(self._repository.set_policy, check=self._check, by=caller)
        self._tell(await write(name, changes))
        return self._group_view(name)

    async def remove(self, name: str, *, caller: Caller) -> View:
        """Forget a group that nothing is left of; return what it was.

        Raises:
            GroupNotFoundError: There is no such group.
            IllegalStateError: It is in the settings, or has agents or live sessions.
        """
        view = await self.group(name)
        for agent in self._config.agents:
            if agent.scaling_group == name:
                raise IllegalStateError(
                    f"config.toml puts the agent {agent.name} into the group {name}; put it into"
                    " another one, and start the server again"
                )
        self._tell(await self._repository.remove_group(name, by=caller))
        return view

    def _check(self, group: ScalingGroup) -> None:
        """Make sure that the agents of the settings fit a policy."""
        try:
            check_grace(self._config, group)
        except ConfigError as error:
            raise InvalidRequestError(
                f"agent_grace_s: {error.message}", field="policy.agent_grace_s"
            ) from None

    def _group_view(self, name: str) -> View:
        live, group = self._repository.live, self._repository.groups[name]
        agents = [a for a in live.agents_of(name) if a.status is not AgentStatus.GONE]
        capacity: Counter[str] = Counter(cpu_milli=0, mem_bytes=0, gpu_shares=0)
        held: Counter[str] = Counter(capacity)
        for agent in agents:
            has, used = agent.capacity, used_by(live.holds_on(agent.agent_id))
            capacity["cpu_milli"] += has.cpu_milli
            capacity["mem_bytes"] += has.mem_bytes
            capacity["gpu_shares"] += len(has.devices) * DEVICE_SHARES
            held["cpu_milli"] += used.cpu_milli
            held["mem_bytes"] += used.mem_bytes
            held["gpu_shares"] += sum(used.shares.values())
        return {
            "name": name,
            "source": self._source_of(name),
            "agents": len(agents),
            "capacity": dict(capacity),
            "held": dict(held),
            "waiting": live.count(name, WAITING),
            "running": live.count(name, _PLACED),
            "policy": {
                key: {"value": value, "source": self._source_of(name, key)}
                for key, value in policy_of(group).items()
            },
        }

    def _source_of(self, name: str, key: str = "") -> str:
        """Say where a group, or a setting of its policy, comes from."""
        said = self._repository.policies.get(name)
        if key and key in (said or {}):
            return SET
        line = self._lines.get(f"groups.{name}.{key}" if key else f"groups.{name}")
        if name in self._repository.configured:
            return f"{FILE_NAME}:{line}" if line else DEFAULT
        if key:
            return DEFAULT
        return TAKEN_OUT if said is None else CREATED
