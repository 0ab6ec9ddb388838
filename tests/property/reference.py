"""What the engine is to answer, written anew in the plainest way, to hold the engine against."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import combinations

from sokovan.domain.cluster import Agent, AgentStatus, Backfill, QueueOrder
from sokovan.domain.quantities import DEVICE_SHARES
from sokovan.domain.reasons import WaitReason
from sokovan.domain.resources import Device, DeviceShares, Hold, Request, over_held, used_by
from sokovan.domain.sessions import SessionWithKernels
from sokovan.domain.where import ANYWHERE, ClusterMode, Where

G = 1024**3
NOT_ADMITTED = {
    WaitReason.HELD,
    WaitReason.ARRAY_LIMIT,
    WaitReason.BEGIN_TIME_NOT_REACHED,
    WaitReason.WAITING_FOR_DEPENDENCY,
    WaitReason.WAITING_FOR_OLD_KERNELS,
}
NOT_FOR_WANT_OF_ROOM = {
    *NOT_ADMITTED,
    WaitReason.RESERVED_FOR_ANOTHER,
    WaitReason.BEHIND_ANOTHER,
}

# --- where a kernel may go ------------------------------------------------------------------------

OF_AGENTS: Mapping[str, Callable[[Agent], bool]] = {
    "rack=r1": lambda agent: agent.labels.get("rack") == "r1",
    "rack=r1|r2": lambda agent: agent.labels.get("rack") in {"r1", "r2"},
    "rack!=r1": lambda agent: agent.labels.get("rack") != "r1",
    "tier>=2": lambda agent: agent.labels.get("tier") in {"2", "3"},
    "tier<=2": lambda agent: agent.labels.get("tier") in {"1", "2"},
    "agent!=A1": lambda agent: agent.name != "A1",
    "cpu>=2": lambda agent: agent.capacity.cpu_milli >= 2000,
    "gpus<=1": lambda agent: len(agent.capacity.devices) <= 1,
}
"""What some constraints mean."""
OF_DEVICES: Mapping[str, Callable[[Device], bool]] = {
    "gpu_model=H100": lambda device: device.model == "NVIDIA H100",
    "gpu_model!=h100": lambda device: device.model != "NVIDIA H100",
    "mem_gpu>=40G": lambda device: device.mem_bytes >= 40 * G,
}


def in_service(agent: Agent) -> bool:
    """Whether an agent gets new kernels."""
    return agent.status is AgentStatus.ALIVE and agent.drained_since is None


def may_use(where: Where, agent: Agent) -> bool:
    """Whether a session may go on an agent, whatever it asks for."""
    names = {agent.name, agent.agent_id}
    if (where.agents and not names & set(where.agents)) or names & set(where.exclude):
        return False
    return all(
        OF_AGENTS[str(one)](agent)
        if str(one) in OF_AGENTS
        else any(map(OF_DEVICES[str(one)], agent.capacity.devices))
        for one in where.constraints
    )


def devices_of(request: Request, agent: Agent, where: Where = ANYWHERE) -> list[Device]:
    """The devices that a kernel may use."""
    meant = [OF_DEVICES[str(one)] for one in where.constraints if str(one) in OF_DEVICES]
    return [
        device
        for device in agent.capacity.devices
        if device.mem_bytes >= request.gpu_mem_bytes_min and all(meets(device) for meets in meant)
    ]


# --- what fits ------------------------------------------------------------------------------------


def has_room(
    request: Request,
    agent: Agent,
    held: Sequence[Hold],
    where: Where = ANYWHERE,
    kernels_max: int | None = None,
) -> bool:
    """The meaning of "fits", alive or not."""
    used = used_by(held)
    if not may_use(where, agent) or (kernels_max is not None and len(held) >= kernels_max):
        return False
    if request.cpu_milli and used.cpu_milli + request.cpu_milli > agent.capacity.cpu_milli:
        return False
    if request.mem_bytes and used.mem_bytes + request.mem_bytes > agent.capacity.mem_bytes:
        return False
    if not request.gpu_shares:
        return True
    free = [
        DEVICE_SHARES - used.shares.get(device.index, 0)
        for device in devices_of(request, agent, where)
    ]
    if request.gpu_shares < DEVICE_SHARES:
        return any(amount >= request.gpu_shares for amount in free)
    return free.count(DEVICE_SHARES) * DEVICE_SHARES >= request.gpu_shares


def ways(request: Request, agent: Agent, where: Where = ANYWHERE) -> list[DeviceShares]:
    """Every choice of devices on the empty agent."""
    able = sorted(device.index for device in devices_of(request, agent, where))
    whole, part = divmod(request.gpu_shares, DEVICE_SHARES)
    if part:
        return [((index, part),) for index in able]
    return [tuple((index, DEVICE_SHARES) for index in some) for some in combinations(able, whole)]


def placings(
    request: Request,
    agent: Agent,
    held: Sequence[Hold],
    where: Where = ANYWHERE,
    kernels_max: int | None = None,
) -> Iterator[Hold]:
    """Every hold that a kernel could have on an agent, one for each choice of devices."""
    if has_room(request, agent, held, where, kernels_max):
        for way in ways(request, agent, where):
            hold = Hold("", "", "", agent.agent_id, request.cpu_milli, request.mem_bytes, way)
            free = {d.index for d in agent.capacity.devices}
            used = used_by([*held, hold]).shares
            if all(used[i] <= DEVICE_SHARES and i in free for i, _ in way):
                yield hold


def copies(
    request: Request,
    agent: Agent,
    held: Sequence[Hold],
    at_most: int,
    where: Where = ANYWHERE,
    kernels_max: int | None = None,
) -> int:
    """How many equal kernels an agent takes, trying each choice of devices."""
    if at_most == 0:
        return 0
    return max(
        (
            1 + copies(request, agent, [*held, hold], at_most - 1, where, kernels_max)
            for hold in placings(request, agent, held, where, kernels_max)
        ),
        default=0,
    )


def most_at_once(
    session: SessionWithKernels,
    agents: Iterable[Agent],
    held: Mapping[str, Sequence[Hold]],
    kernels_max: int | None = None,
) -> int:
    """How many of the kernels of a session, all equal, could start at once."""
    where, count, request = session.where, len(session.kernels), session.kernels[0].request
    on_one = where.mode is ClusterMode.SINGLE_NODE and count > 1
    limit = count if on_one else min(count, where.kernels_per_agent_max or count)
    takes = [
        (agent, copies(request, agent, held.get(agent.agent_id, ()), limit, where, kernels_max))
        for agent in agents
    ]
    if on_one:
        return max((number for _, number in takes), default=0)
    if not where.same or count == 1:
        return sum(number for _, number in takes)
    of_value: dict[str, int] = defaultdict(int)
    for agent, number in takes:
        if where.same in agent.labels:
            of_value[agent.labels[where.same]] += number
    return max(of_value.values(), default=0)


def by_agent(holds: Iterable[Hold]) -> dict[str, list[Hold]]:
    """Holds by the agent that they are on."""
    found = defaultdict(list)
    for hold in holds:
        found[hold.agent_id].append(hold)
    return found


def room_for(request: Request, agent: Agent, held: Sequence[Hold]) -> DeviceShares | None:
    """The first choice of devices with which a kernel fits, or `None`."""
    return next((hold.devices for hold in placings(request, agent, held)), None)


def holds_of(data, plan) -> list[Hold]:
    """What the sessions placed will hold, by session and in order."""
    asked = {k.kernel_id: k.request for session in data.pending for k in session.kernels}
    return [
        Hold(
            token=f"new {one.kernel_id}",
            session_id=session_id,
            kernel_id=one.kernel_id,
            agent_id=one.agent_id,
            cpu_milli=asked[one.kernel_id].cpu_milli,
            mem_bytes=asked[one.kernel_id].mem_bytes,
            devices=one.devices,
        )
        for session_id, assignment in plan.placed.items()
        for one in assignment
    ]


def too_much(data, new: Iterable[Hold]) -> list[str]:
    """Say where more would be held than there is, with some new holds."""
    found = []
    on = by_agent(new)
    before = by_agent(data.holds)
    most = data.group.agent_kernels_max
    for agent in data.agents:
        held = [*before[agent.agent_id], *on[agent.agent_id]]
        slot = over_held(agent.capacity, used_by(held))
        found += [f"{slot} of {agent.agent_id}"] if slot else []
        if most is not None and len(held) > most and on[agent.agent_id]:
            found.append(f"kernels on {agent.agent_id}")
    return found


# --- whose turn it is -----------------------------------------------------------------------------


def rank(session: SessionWithKernels, ageing_s: float) -> int:
    """The priority and a step for each `ageing_s` of age, as seen from the epoch."""
    birth = max(session.created_at, session.begin_at or 0.0)
    return session.priority - (int(birth // ageing_s) if ageing_s else 0)


def dominant_share(owner: str, held: Iterable[tuple[str, Hold]], agents: Sequence[Agent]):
    """The largest part of any one slot of the agents that an owner holds on them."""
    present = [agent for agent in agents if agent.status is not AgentStatus.GONE]
    there = {agent.agent_id for agent in present}
    mine = [hold for whose, hold in held if whose == owner and hold.agent_id in there]
    parts = (
        (sum(h.cpu_milli for h in mine), sum(a.capacity.cpu_milli for a in present)),
        (sum(h.mem_bytes for h in mine), sum(a.capacity.mem_bytes for a in present)),
        (
            sum(part for h in mine for _, part in h.devices),
            sum(len(a.capacity.devices) for a in present) * DEVICE_SHARES,
        ),
    )
    return max(Fraction(used, total) if total else Fraction(0) for used, total in parts)


def in_turn(data, plan) -> Iterator[SessionWithKernels]:
    """Who is looked at when, given what becomes of each; those not admitted are left out."""
    group = data.group
    known = {s.session_id: s.owner for s in (*data.running, *data.pending)}
    held = [(known.get(hold.session_id, ""), hold) for hold in data.holds]
    new = defaultdict(list)
    for hold in holds_of(data, plan):
        new[hold.session_id].append(hold)

    def turn(session: SessionWithKernels):
        share = Fraction(0)
        if group.order is QueueOrder.DRF:
            share = dominant_share(session.owner, held, data.agents)
        newest_first = group.order is QueueOrder.LIFO
        number = -session.number if newest_first else session.number
        return -rank(session, group.ageing_s), share, number, session.session_id

    waiting = [
        session
        for session in data.pending
        if session.session_id in plan.placed
        or plan.waits[session.session_id].code not in NOT_ADMITTED
    ]
    while waiting:
        session = min(waiting, key=turn)
        waiting.remove(session)
        yield session
        held += [(session.owner, hold) for hold in new.get(session.session_id, ())]


def when_refused(data, plan) -> Iterator[tuple[SessionWithKernels, dict[str, list[Hold]]]]:
    """Yield who is looked at, and what is held by agent when it must not fit if it is refused.

    That is its turn; with reservations, the end of the pass: it may have had room in its turn that
    was kept from it, and that somebody with less time took afterwards.
    """
    new = by_session(holds_of(data, plan))
    keeps_room = data.group.backfill in {Backfill.EASY, Backfill.CONSERVATIVE}
    held = by_agent([*data.holds, *(holds_of(data, plan) if keeps_room else ())])
    for session in in_turn(data, plan):
        yield session, held
        for hold in () if keeps_room else new.get(session.session_id, ()):
            held[hold.agent_id].append(hold)


def by_session(holds: Iterable[Hold]) -> dict[str, list[Hold]]:
    """Holds by session."""
    found = defaultdict(list)
    for hold in holds:
        found[hold.session_id].append(hold)
    return found


def twin_of(session: SessionWithKernels) -> SessionWithKernels:
    """The same session once more, under another id."""
    return replace(session, session_id=f"{session.session_id}-twin")
