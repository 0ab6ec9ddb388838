"""The one reason for which a session waits, chosen from all the refusals it met."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sokovan.domain.cluster import Agent, AgentStatus
from sokovan.domain.reasons import Wait, WaitReason
from sokovan.domain.resources import Request, Usage
from sokovan.domain.sessions import AgentId
from sokovan.placement.fit import (
    Packing,
    Refusal,
    amounts_of,
    offered,
    out_of_service,
    pack,
    shortages,
    worst,
)
from sokovan.placement.rank import Preference
from sokovan.placement.snapshot import free_on

AGENTS_NAMED_MAX = 20
"""How many agents a list in the facts names at most."""


@dataclass(frozen=True, slots=True)
class Look:
    """What one agent has to say to one request that it does not take."""

    agent: Agent
    short: tuple[Refusal, ...]
    """Every slot of which it has too little; empty for one out of service that has room."""

    @property
    def takes_kernels(self) -> bool:
        """Whether the agent gets kernels at present."""
        return self.agent.takes_kernels

    @property
    def able(self) -> bool:
        """Whether the request would fit, were the agent empty."""
        return not any(refusal.for_ever for refusal in self.short)

    @property
    def refusal(self) -> Refusal:
        """What `fit.refusal` says: the binding one."""
        return worst(self.short) if self.takes_kernels else out_of_service(self.agent)

    @property
    def distance(self) -> tuple[float, AgentId]:
        """How far the agent is from taking the request: the sum of all missing parts."""
        return sum(refusal.missing for refusal in self.short), self.agent.agent_id

    @property
    def distance_when_empty(self) -> tuple[float, AgentId]:
        """The same for the empty agent."""
        parts = (1 - r.total / r.requested for r in self.short if r.for_ever)
        return sum(parts), self.agent.agent_id


def look(
    request: Request, agents: Iterable[Agent], free: Mapping[AgentId, Usage]
) -> tuple[Look, ...]:
    """Ask every agent about `request`."""
    return tuple(Look(agent, shortages(request, agent, free[agent.agent_id])) for agent in agents)


def binding(
    requests: Sequence[Request],
    packing: Packing,
    agents: Sequence[Agent],
    free: Mapping[AgentId, Usage],
) -> Wait:
    """Say why a session waits that `packing` could not place.

    Args:
        requests: What its kernels ask for.
        packing: The best that was found for them on what is free now.
        agents: Those of the group, except the GONE.
        free: What is free on each of them.
    """
    assert packing.lacking is not None
    if not agents:
        return Wait(WaitReason.NO_AGENTS)
    looks = look(packing.lacking, agents, {**free, **packing.free})
    if not any(one.able for one in looks):
        return _never_alone(packing.lacking, looks)
    if len(requests) == 1:
        return _short(packing.lacking, looks)
    never = _never_several(requests, agents)
    if never is not None:
        return never
    missed = _missed(requests, agents)
    wait = _out_of_service(missed, looks) if missed else _short(packing.lacking, looks)
    if not packing.places:
        return wait
    return Wait(
        WaitReason.NOT_ALL_KERNELS_FIT,
        {"kernels": len(requests), "fit": len(packing.places), "next": _as_facts(wait)},
    )


def never_fits(requests: Sequence[Request], agents: Iterable[Agent]) -> Wait | None:
    """Say why the kernels of one session could not run at once on these agents, were all empty.

    Agents that are LOST or drained may return and count; GONE ones do not. Without any agent
    nothing is known, and nothing is said.
    """
    problem = malformed(requests)
    if problem is not None:
        return Wait(WaitReason.NEVER_FITS, {"problem": problem})
    present = [agent for agent in agents if agent.status is not AgentStatus.GONE]
    return _never_several(requests, present) if present else None


def malformed(requests: Sequence[Request]) -> str | None:
    """Say what is wrong with requests that nobody can have meant, or `None`."""
    if not requests:
        return "it has no kernels"
    for request in requests:
        if not all(isinstance(amount, int) and amount >= 0 for amount in amounts_of(request)):
            return "an amount it asks for is not a whole number from 0 up"
        if request.devices_whole and request.device_fraction:
            return "it asks for whole GPUs and a part of one by the same kernel"
    return None


def _never_several(requests: Sequence[Request], agents: Sequence[Agent]) -> Wait | None:
    empty = {agent.agent_id: free_on(agent) for agent in agents}
    packing = pack(requests, agents, empty, Preference())
    if packing.lacking is None:
        return None
    for request in dict.fromkeys(requests):
        alone = look(request, agents, empty)
        if not any(one.able for one in alone):
            return _never_alone(request, alone)
    looks = look(packing.lacking, agents, {**empty, **packing.free})
    closest = min((one for one in looks if one.able), key=lambda one: one.distance)
    refusal = worst(closest.short)
    return Wait(
        WaitReason.NEVER_FITS,
        {
            "kernels": len(requests),
            "fit": len(packing.places),
            "slot": refusal.slot,
            "requested": refusal.requested,
            **_device_memory(packing.lacking, refusal),
            "best_free": refusal.free,
            "best_total": refusal.total,
            "best_agent": label(closest.agent),
            "agents": len(agents),
        },
    )


def _never_alone(request: Request, looks: Sequence[Look]) -> Wait:
    """No agent has, even when empty, what one kernel asks for."""
    closest = min(looks, key=lambda one: one.distance_when_empty)

    def largest(slot: str) -> tuple[int, Agent]:
        # Agents come sorted by id, and `max` keeps the first of equals.
        return max(((offered(slot, request, x.agent), x.agent) for x in looks), key=lambda y: y[0])

    refusal = max(
        (refusal for refusal in closest.short if refusal.for_ever),
        key=lambda r: (largest(r.slot)[0] < r.requested, 1 - r.total / r.requested),
    )
    amount, agent = largest(refusal.slot)
    return Wait(
        WaitReason.NEVER_FITS,
        {
            "slot": refusal.slot,
            "requested": refusal.requested,
            **_device_memory(request, refusal),
            "largest": amount,
            "largest_agent": label(agent),
            "best_total": refusal.total,
            "best_agent": label(closest.agent),
            "agents": len(looks),
            "refused_by": _counted(worst(one.short) for one in looks),
        },
    )


def _missed(requests: Sequence[Request], agents: Sequence[Agent]) -> list[Look]:
    """Find agents out of service without which the kernels of one session cannot run at once."""
    serving = [agent for agent in agents if agent.takes_kernels]
    if len(serving) == len(agents):
        return []
    empty = {agent.agent_id: free_on(agent) for agent in agents}
    if pack(requests, serving, empty, Preference()).lacking is None:
        return []
    looks = (one for request in dict.fromkeys(requests) for one in look(request, agents, empty))
    found = {one.agent.agent_id: one for one in looks if one.able and not one.takes_kernels}
    return list(found.values())


def _short(request: Request, looks: Sequence[Look]) -> Wait:
    """Some agent could take it when empty; the one that comes closest names the reason."""
    able = [one for one in looks if one.able]
    serving = [one for one in able if one.takes_kernels]
    if not serving:
        return _out_of_service(able, looks)
    closest = min(serving, key=lambda one: one.distance)
    refusal = closest.refusal
    others = [
        r.free for one in looks if one.takes_kernels for r in one.short if r.slot == refusal.slot
    ]
    return Wait(
        refusal.code,
        {
            "slot": refusal.slot,
            "requested": refusal.requested,
            **_device_memory(request, refusal),
            "best_free": refusal.free,
            "best_total": refusal.total,
            "best_agent": label(closest.agent),
            "best_has_most": len(others) == sum(one.takes_kernels for one in looks)
            and refusal.free == max(others),
            "also": sorted(r.code.value for r in closest.short if r is not refusal),
            "total_largest": max(offered(refusal.slot, request, one.agent) for one in looks),
            "refused_by": refused_by(looks),
        },
    )


def _out_of_service(able: Sequence[Look], looks: Sequence[Look]) -> Wait:
    """Those that could take it get no kernels now; who is only drained can be had at once."""
    drained = [one.agent for one in able if one.refusal.code is WaitReason.AGENT_DRAINED]
    lost = [label(one.agent) for one in able if one.agent not in drained]
    if not drained:
        return Wait(
            WaitReason.AGENT_NOT_ALIVE,
            {
                "agents": lost[:AGENTS_NAMED_MAX],
                "lost": len(lost),
                "refused_by": refused_by(looks),
            },
        )
    named = drained[:AGENTS_NAMED_MAX]
    return Wait(
        WaitReason.AGENT_DRAINED,
        {
            "agents": [label(agent) for agent in named],
            "reasons": {label(a): a.drain_reason for a in named if a.drain_reason},
            "drained": len(drained),
            "lost": len(lost),
            "refused_by": refused_by(looks),
        },
    )


def refused_by(looks: Iterable[Look]) -> dict[str, int]:
    """Count the agents by why they refuse."""
    return _counted(one.refusal for one in looks)


def _counted(refusals: Iterable[Refusal]) -> dict[str, int]:
    return dict(sorted(Counter(refusal.code.value for refusal in refusals).items()))


def label(agent: Agent) -> str:
    """What people call the agent."""
    return agent.name or agent.agent_id


def _device_memory(request: Request, refusal: Refusal) -> dict[str, int]:
    if refusal.slot not in {"gpu", "gpu_mem"}:
        return {}
    return {
        "devices": max(1, request.devices_whole),
        "gpu_mem_bytes_min": request.gpu_mem_bytes_min,
    }


def _as_facts(wait: Wait) -> dict[str, Any]:
    return {"code": wait.code.value, "facts": wait.facts}
