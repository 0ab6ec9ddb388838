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

    USEFUL = "useful"
    """The one where the typical requests of the group lose least room."""
    FRAGMENTATION = "fragmentation"
    """The one that stays most useful for the typical requests of the group."""

    CONCENTRATED = "concentrated"
    """The fullest first: keeps whole agents free."""
    DISPERSED = "dispersed"
    """The emptiest first: spreads load and heat."""
    ROUND_ROBIN = "round_robin"
    """The one after the last taken, by agent id."""


class QueueOrder(StrEnum):
    """Who is looked at first among equal priorities."""

    FIFO = "fifo"
    """First in, first out."""
    LIFO = "lifo"
    """Last in, first out."""
    DRF = "drf"
    """The owner with the smallest dominant share first (dominant resource fairness)."""


class Backfill(StrEnum):
    """What those behind a blocked session may do."""

    NONE = "none"
    """A blocked session does not block others: whoever fits starts."""
    STRICT = "strict"
    """The first that does not fit stops the pass: nobody overtakes it."""
    EASY = "easy"
    """The first that does not fit has a reservation, which nobody who overtakes it may delay."""
    CONSERVATIVE = "conservative"
    """Every session that does not fit has a reservation."""


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
    labels: Mapping[str, str] = field(default_factory=dict)
    """What constraints may name: an administrator's word, and else that of its settings."""

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
    ranking: AgentRanking = AgentRanking.USEFUL
    limits: Mapping[str, Limit] = field(default_factory=dict)
    """Limits by stage name, where they differ from the stage table."""
    pending_timeout_s: float | None = None
    requeues_max: int = 5
    kernels_max: int = 64
    """Most kernels one session may have."""
    agent_grace_s: float = 300.0
    """From LOST until an agent's kernels count as gone."""
    backfill: Backfill = Backfill.EASY
    walltime_default_s: float = 86_400.0
    """How long a session is expected to run that names no walltime; it may run longer."""
    ageing_s: float = 3_600.0
    """Waiting for so long raises the effective priority by 1; 0: never."""
    agent_kernels_max: int | None = None
    """Most kernels on one agent; `None`: any number."""
    last_agent_id: AgentId | None = None
    """Where the last kernel was placed: the round-robin cursor."""
