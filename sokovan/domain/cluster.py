"""Agents, scaling groups and their policies as values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from sokovan.domain.resources import Capacity
from sokovan.domain.sessions import AgentId, Limit


class AgentStatus(StrEnum):
    """Whether an agent is heard of."""

    ALIVE = "ALIVE"
    LOST = "LOST"
    """Silent for too long: gets no new kernels."""
    GONE = "GONE"
    """Lost beyond its grace: its kernels are given up."""


class AgentRanking(StrEnum):
    """Which of the agents that fit is taken."""

    CONCENTRATED = "concentrated"
    """The fullest first: keeps whole agents free."""
    DISPERSED = "dispersed"
    """The emptiest first: spreads load and heat."""
    ROUND_ROBIN = "round_robin"
    """The one after the last taken, by agent id."""


class QueueOrder(StrEnum):
    """Who is looked at first among equal priorities."""

    FIFO = "fifo"


@dataclass(frozen=True, slots=True)
class Agent:
    """What runs kernels on one machine."""

    agent_id: AgentId
    name: str = ""
    scaling_group: str = "default"
    status: AgentStatus = AgentStatus.ALIVE
    incarnation: int = 0
    """Given at registration, larger each time; reports of an older one are ignored."""
    address: str = ""
    architecture: str = ""
    version: str = ""
    boot_id: str = ""
    capacity: Capacity = Capacity()
    last_seen_at: float = 0.0
    lost_since: float | None = None
    drained_since: float | None = None
    """Set while somebody has taken it out of service: it gets no new kernels."""
    drain_reason: str = ""
    """What that somebody said."""

    @property
    def is_drained(self) -> bool:
        """Whether somebody has taken it out of service."""
        return self.drained_since is not None

    @property
    def takes_kernels(self) -> bool:
        """Whether it gets new kernels."""
        return self.status is AgentStatus.ALIVE and not self.is_drained


@dataclass(frozen=True, slots=True)
class ScalingGroup:
    """A named pool of agents with its own policy."""

    name: str = "default"
    order: QueueOrder = QueueOrder.FIFO
    ranking: AgentRanking = AgentRanking.CONCENTRATED
    limits: Mapping[str, Limit] = field(default_factory=dict)
    """Limits by stage name, where they differ from the stage table."""
    pending_timeout_s: float | None = None
    requeues_max: int = 5
    kernels_max: int = 64
    """Most kernels one session may have."""
    agent_grace_s: float = 300.0
    """From LOST until an agent's kernels count as gone."""
    last_agent_id: AgentId | None = None
    """Where the last kernel was placed: the round-robin cursor."""
