"""All that decides one scheduling pass of a group, as one value."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from sokovan.domain.cluster import Agent, ScalingGroup
from sokovan.domain.quantities import DEVICE_SHARES
from sokovan.domain.resources import Hold, Usage, used_by
from sokovan.domain.sessions import AgentId, SessionId, SessionWithKernels


class Known(Protocol):
    """What is known of a group at one moment, whoever knows it; see `Snapshot`."""

    @property
    def group(self) -> ScalingGroup: ...
    @property
    def agents(self) -> Iterable[Agent]: ...
    @property
    def holds(self) -> Iterable[Hold]: ...
    @property
    def pending(self) -> Iterable[SessionWithKernels]: ...
    @property
    def waiting_for_old(self) -> frozenset[SessionId]: ...
    @property
    def now(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A group at one moment. Made by `snapshot_of`; equal values give equal plans."""

    group: ScalingGroup
    agents: tuple[Agent, ...]
    """By agent id."""
    holds: tuple[Hold, ...]
    """Everything that occupies these agents: TERMINATING kernels and leftovers too."""
    pending: tuple[SessionWithKernels, ...]
    waiting_for_old: frozenset[SessionId]
    """Sessions that may not be placed again until their leftovers are gone."""
    now: float
    free: Mapping[AgentId, Usage] = field(repr=False)
    """What `holds` leave of each agent; an index, it adds nothing to the value."""


def snapshot_of(known: Known) -> Snapshot:
    """Take a snapshot of what is known; the order of agents, holds and sessions does not matter."""
    agents = tuple(sorted(known.agents, key=lambda agent: agent.agent_id))
    holds = tuple(known.holds)
    by_agent: defaultdict[str, list[Hold]] = defaultdict(list)
    for hold in holds:
        by_agent[hold.agent_id].append(hold)
    return Snapshot(
        group=known.group,
        agents=agents,
        holds=holds,
        pending=tuple(known.pending),
        waiting_for_old=known.waiting_for_old,
        now=known.now,
        free={a.agent_id: free_on(a, by_agent.get(a.agent_id, ())) for a in agents},
    )


def free_on(agent: Agent, holds: Iterable[Hold] = ()) -> Usage:
    """What `holds` leave of an agent; never below 0, should its capacity have shrunk under them."""
    used = used_by(holds)
    capacity = agent.capacity
    return Usage(
        max(0, capacity.cpu_milli - used.cpu_milli),
        max(0, capacity.mem_bytes - used.mem_bytes),
        {
            device.index: max(0, DEVICE_SHARES - used.shares.get(device.index, 0))
            for device in capacity.devices
        },
    )
