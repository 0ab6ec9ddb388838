"""All at a glance: what `sokovan top` shows."""

from collections.abc import Iterator, Mapping
from heapq import nlargest
from typing import NamedTuple

from sokovan.api.service import View
from sokovan.domain.cluster import Agent, AgentStatus
from sokovan.domain.quantities import DEVICE_SHARES
from sokovan.domain.resources import used_by
from sokovan.domain.sessions import SessionWithKernels
from sokovan.domain.statuses import WAITING
from sokovan.placement.eta import Turn, turns
from sokovan.store.queries import stamp
from sokovan.store.repository import SqlRepository


class Glance(NamedTuple):
    """What is to be shown of everything."""

    amounts: View
    """`capacity` and `held` of all agents that are there."""
    agents: list[Agent]
    """The first ones by name."""
    placed: list[SessionWithKernels]
    """Sessions that have a place, the newest first."""
    turns: list[Turn]
    """Those that wait for one, in the order of their turns."""
    queue_lengths: Mapping[str, int]
    """How many stand in line, by group."""


def glance(repository: SqlRepository, limit: int) -> Glance:
    """Look at what placement works on; changes nothing.

    Args:
        repository: Whose snapshots these are.
        limit: Most sessions and agents of each kind.
    """
    live = repository.live
    found: list[Turn] = []
    lengths: dict[str, int] = {}
    for name in sorted(repository.groups):
        snapshot = repository.snapshot(name)
        if snapshot is not None and snapshot.queue:
            found += turns(snapshot, limit)
            lengths[name] = len(snapshot.queue) - len(snapshot.queue.aside)
    found.sort(key=lambda turn: (turn.position is None, turn.position or 0))
    placed = (session for session in live.sessions.values() if session.status not in WAITING)
    return Glance(
        _amounts(repository),
        sorted(live.agents.values(), key=lambda agent: (agent.name, agent.agent_id))[:limit],
        nlargest(limit, placed, key=lambda session: (session.status_since, session.number)),
        found[:limit],
        lengths,
    )


def turn_views(seen: Glance, views: Mapping[str, View]) -> Iterator[View]:
    """Yield each turn with its session as users see it, where there still is one."""
    for turn in seen.turns:
        view = views.get(turn.session.session_id)
        if view is not None:
            yield {
                "session": view,
                "position": turn.position,
                "queue_length": seen.queue_lengths[turn.session.scaling_group],
                "starts_at": stamp(turn.starts_at),
                "reserved": turn.reserved,
            }


def _amounts(repository: SqlRepository) -> View:
    """Add up the agents that are there."""
    capacity = dict.fromkeys(("cpu_milli", "mem_bytes", "gpu_shares"), 0)
    held = dict(capacity)
    for agent in repository.live.agents.values():
        if agent.status is not AgentStatus.ALIVE:
            continue
        capacity["cpu_milli"] += agent.capacity.cpu_milli
        capacity["mem_bytes"] += agent.capacity.mem_bytes
        capacity["gpu_shares"] += DEVICE_SHARES * len(agent.capacity.devices)
        used = used_by(repository.live.holds_on(agent.agent_id))
        held["cpu_milli"] += used.cpu_milli
        held["mem_bytes"] += used.mem_bytes
        held["gpu_shares"] += sum(used.shares.values())
    return {"capacity": capacity, "held": held}
