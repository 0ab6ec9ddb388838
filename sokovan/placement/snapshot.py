"""All that decides one scheduling pass of a group, as one value."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sokovan.domain.cluster import Agent, ScalingGroup
from sokovan.domain.resources import DEVICE_SHARES, Hold, Usage, used_by
from sokovan.domain.sessions import AgentId, SessionId, SessionWithKernels


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


def snapshot_of(
    group: ScalingGroup,
    agents: Iterable[Agent],
    holds: Iterable[Hold],
    pending: Iterable[SessionWithKernels],
    *,
    waiting_for_old: frozenset[SessionId] = frozenset(),
    now: float = 0.0,
) -> Snapshot:
    """Build a snapshot; the order of what is given does not matter."""
    agents = tuple(sorted(agents, key=lambda agent: agent.agent_id))
    holds = tuple(holds)
    by_agent: defaultdict[str, list[Hold]] = defaultdict(list)
    for hold in holds:
        by_agent[hold.agent_id].append(hold)
    free = {agent.agent_id: free_on(agent, by_agent.get(agent.agent_id, ())) for agent in agents}
    return Snapshot(group, agents, holds, tuple(pending), waiting_for_old, now, free)


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
