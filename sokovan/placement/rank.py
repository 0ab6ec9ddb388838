"""Which of the agents that fit is taken. A new ranking: one function, one entry in `RANKINGS`.

A ranking returns a key; the agent with the smallest is taken. Every key ends with the agent's id,
so that ties are decided the same everywhere.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sokovan.domain.cluster import Agent, AgentRanking
from sokovan.domain.resources import Request, Usage
from sokovan.domain.sessions import AgentId

Key = tuple[int | str, ...]
Ranking = Callable[[Request, Agent, Usage, AgentId | None], Key]
"""From a request, an agent that fits it, what is free there, and the agent that was taken last."""


def concentrated(request: Request, agent: Agent, free: Usage, last: AgentId | None) -> Key:
    """Least free first: GPUs, then cpu, then memory, so that whole agents and GPUs stay free."""
    return sum(free.shares.values()), free.cpu_milli, free.mem_bytes, agent.agent_id


def dispersed(request: Request, agent: Agent, free: Usage, last: AgentId | None) -> Key:
    """Most free first: GPUs when some are asked for, then cpu, then memory.

    Without a request for GPUs, the agents with the fewest of them are taken among equals.
    """
    shares = sum(free.shares.values())
    if request.gpu_shares:
        return -shares, -free.cpu_milli, -free.mem_bytes, agent.agent_id
    return -free.cpu_milli, -free.mem_bytes, shares, agent.agent_id


def round_robin(request: Request, agent: Agent, free: Usage, last: AgentId | None) -> Key:
    """The next agent by id after the one taken last, then from the beginning."""
    return last is not None and agent.agent_id <= last, agent.agent_id


RANKINGS: Mapping[AgentRanking, Ranking] = {
    AgentRanking.CONCENTRATED: concentrated,
    AgentRanking.DISPERSED: dispersed,
    AgentRanking.ROUND_ROBIN: round_robin,
}


@dataclass(frozen=True, slots=True)
class Preference:
    """How one session's agents are chosen among those that fit."""

    ranking: Ranking = concentrated
    avoid: tuple[AgentId, ...] = ()
    """Taken only when nothing else fits."""
    last: AgentId | None = None
    """The agent that was taken last."""

    def key(self, request: Request, agent: Agent, free: Usage, last: AgentId | None) -> Key:
        """The place of `agent` in the ranking, the avoided ones last."""
        return agent.agent_id in self.avoid, *self.ranking(request, agent, free, last)
