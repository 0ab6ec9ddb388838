"""What fits where: one kernel on one agent, all kernels of a session in a group."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

from sokovan.domain.cluster import Agent, AgentStatus
from sokovan.domain.quantities import DEVICE_SHARES
from sokovan.domain.reasons import WaitReason
from sokovan.domain.resources import Device, DeviceShares, Request, Usage
from sokovan.domain.sessions import AgentId
from sokovan.placement.rank import Preference
from sokovan.placement.snapshot import free_on

amounts_of = attrgetter("gpu_shares", "cpu_milli", "mem_bytes", "gpu_mem_bytes_min")
"""All that a request asks for, the scarcest first: its size for sorting, and its shape."""

# --- one kernel on one agent ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why one agent cannot take one kernel, with the numbers.

    Attributes:
        code: What is missing.
        slot: `cpu`, `mem`, `gpu` or `gpu_mem`; empty when the agent itself is the reason.
        requested: In the slot's base unit: milli-cores, bytes, shares, bytes per device.
        free: How much of it the agent has free. For whole devices, the shares of those wholly free;
            for a part of a device, the shares of the freest one; for `gpu_mem`, what the n-th
            largest device has when n are asked for.
        total: The same on the empty agent; for `gpu` the shares of all devices with enough memory.
    """

    code: WaitReason
    slot: str = ""
    requested: int = 0
    free: int = 0
    total: int = 0

    @property
    def for_ever(self) -> bool:
        """Whether the agent could not take it even when empty."""
        return self.requested > self.total

    @property
    def missing(self) -> float:
        """The part of the requested amount that is not free: above 0, at most 1."""
        return (self.requested - self.free) / self.requested


NOT_ALIVE = Refusal(WaitReason.AGENT_NOT_ALIVE)
DRAINED = Refusal(WaitReason.AGENT_DRAINED)


def devices_for(
    request: Request, devices: Sequence[Device], shares: Mapping[int, int]
) -> DeviceShares | None:
    """Choose devices one by one, or return `None` when they do not suffice.

    Whole devices need all their shares free, lowest index first. A part of a device goes to the
    fullest one that has room, lowest index first among equals.
    """
    if not request.gpu_shares:
        return ()
    able = [d.index for d in devices if d.mem_bytes >= request.gpu_mem_bytes_min]
    part = request.device_fraction
    if part:
        room = [(shares[index], index) for index in able if shares[index] >= part]
        return ((min(room)[1], part),) if room else None
    count = request.devices_whole
    whole = sorted(index for index in able if shares[index] == DEVICE_SHARES)
    return tuple((i, DEVICE_SHARES) for i in whole[:count]) if len(whole) >= count else None


def fits(request: Request, agent: Agent, free: Usage) -> bool:
    """Say whether an agent with these free amounts has room, alive or not."""
    return (
        request.cpu_milli <= free.cpu_milli
        and request.mem_bytes <= free.mem_bytes
        and devices_for(request, agent.capacity.devices, free.shares) is not None
    )


def shortages(request: Request, agent: Agent, free: Usage) -> tuple[Refusal, ...]:
    """List every slot of which the agent has too little, cpu first; empty when `request` fits."""
    found = []
    if request.cpu_milli > free.cpu_milli:
        numbers = request.cpu_milli, free.cpu_milli, offered("cpu", request, agent)
        found.append(Refusal(WaitReason.TOO_LITTLE_CPU, "cpu", *numbers))
    if request.mem_bytes > free.mem_bytes:
        numbers = request.mem_bytes, free.mem_bytes, offered("mem", request, agent)
        found.append(Refusal(WaitReason.TOO_LITTLE_MEM, "mem", *numbers))
    if devices_for(request, agent.capacity.devices, free.shares) is None:
        found.append(_device_shortage(request, agent, free))
    return tuple(found)


def refusal(request: Request, agent: Agent, free: Usage) -> Refusal | None:
    """Say why `agent` cannot take `request`, or `None` when it can."""
    if not agent.takes_kernels:
        return out_of_service(agent)
    short = shortages(request, agent, free)
    return worst(short) if short else None


def out_of_service(agent: Agent) -> Refusal:
    """Say why an agent gets no new kernels at all."""
    return NOT_ALIVE if agent.status is not AgentStatus.ALIVE else DRAINED


def worst(short: Sequence[Refusal]) -> Refusal:
    """The shortage that binds: one for ever before others, then the largest, then the first."""
    return max(short, key=lambda refusal: (refusal.for_ever, refusal.missing))


def offered(slot: str, request: Request, agent: Agent) -> int:
    """What the empty agent has of a slot, as far as `request` can use it; see `Refusal.total`."""
    capacity = agent.capacity
    if slot == "cpu":
        return capacity.cpu_milli
    if slot == "mem":
        return capacity.mem_bytes
    if slot == "gpu":
        able = [d for d in capacity.devices if d.mem_bytes >= request.gpu_mem_bytes_min]
        return len(able) * DEVICE_SHARES
    sizes = sorted((device.mem_bytes for device in capacity.devices), reverse=True)
    count = max(1, request.devices_whole)
    return sizes[count - 1] if len(sizes) >= count else 0


def taken(free: Usage, request: Request, devices: DeviceShares) -> Usage:
    """What is left of `free` once `request` is placed on `devices`."""
    return free.plus(
        -request.cpu_milli, -request.mem_bytes, tuple((index, -part) for index, part in devices)
    )


def _device_shortage(request: Request, agent: Agent, free: Usage) -> Refusal:
    """Too few devices; or enough of them, but with too little memory, which waiting cannot mend."""
    devices = agent.capacity.devices
    able = [d.index for d in devices if d.mem_bytes >= request.gpu_mem_bytes_min]
    count = max(1, request.devices_whole)
    if len(devices) >= count > len(able):
        size = offered("gpu_mem", request, agent)
        return Refusal(
            WaitReason.GPU_MEM_TOO_SMALL, "gpu_mem", request.gpu_mem_bytes_min, size, size
        )
    shares = [free.shares[index] for index in able]
    if request.device_fraction:
        most = max(shares, default=0)
    else:
        most = shares.count(DEVICE_SHARES) * DEVICE_SHARES
    total = len(able) * DEVICE_SHARES
    return Refusal(WaitReason.TOO_FEW_GPUS, "gpu", request.gpu_shares, most, total)


# --- all kernels of a session in a group ----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Packing:
    """Where the kernels of one session would go.

    Attributes:
        places: Agent and devices by the position of the request; all of them, or those that fit.
        lacking: The first request without a place, `None` when all have one.
        free: What is left of the agents that it touches.
        last: The agent taken last.
    """

    places: Mapping[int, tuple[AgentId, DeviceShares]]
    lacking: Request | None
    free: Mapping[AgentId, Usage]
    last: AgentId | None


def pack(
    requests: Sequence[Request],
    agents: Sequence[Agent],
    free: Mapping[AgentId, Usage],
    preference: Preference,
) -> Packing:
    """Find an agent for each request in turn, on what those before it leave free.

    When that leaves one out, the largest are tried first, once. Exact for equal requests; for
    unequal ones it may miss a packing that exists.
    """
    given = _pack(range(len(requests)), requests, agents, free, preference)
    if given.lacking is None or len(set(requests)) == 1:
        return given
    largest_first = sorted(
        range(len(requests)), key=lambda i: amounts_of(requests[i]), reverse=True
    )
    second = _pack(largest_first, requests, agents, free, preference)
    return second if second.lacking is None else given


def could_ever_fit(requests: Sequence[Request], agents: Iterable[Agent]) -> bool:
    """Say whether the kernels of one session would fit at once on the agents, were these all empty.

    Agents that are LOST or drained may return and count; GONE ones do not.
    """
    present = [agent for agent in agents if agent.status is not AgentStatus.GONE]
    empty = {agent.agent_id: free_on(agent) for agent in present}
    return pack(requests, present, empty, Preference()).lacking is None


def _pack(
    order: Iterable[int],
    requests: Sequence[Request],
    agents: Sequence[Agent],
    free: Mapping[AgentId, Usage],
    preference: Preference,
) -> Packing:
    places: dict[int, tuple[AgentId, DeviceShares]] = {}
    lacking: dict[Request, None] = {}
    left: dict[AgentId, Usage] = {}
    last = preference.last
    for position in order:
        request = requests[position]
        if request in lacking:
            continue
        best = None
        for agent in agents:
            now = left.get(agent.agent_id) or free[agent.agent_id]
            if fits(request, agent, now):
                key = preference.key(request, agent, now, last)
                if best is None or key < best[0]:
                    best = key, agent, now
        if best is None:
            lacking[request] = None
            continue
        _, agent, now = best
        devices = devices_for(request, agent.capacity.devices, now.shares)
        assert devices is not None
        left[agent.agent_id] = taken(now, request, devices)
        places[position] = agent.agent_id, devices
        last = agent.agent_id
    return Packing(places, next(iter(lacking), None), left, last)
