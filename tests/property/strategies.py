"""Values with defaults, and Hypothesis strategies over them, for tests of pure decisions."""

from collections.abc import Sequence
from dataclasses import replace

from hypothesis import strategies as st

from sokovan.domain.cluster import Agent, AgentRanking, AgentStatus, ScalingGroup
from sokovan.domain.quantities import parse_milli
from sokovan.domain.resources import Capacity, Device, Hold, Request
from sokovan.domain.sessions import (
    AgentId,
    Dependency,
    DependencyKind,
    Kernel,
    KernelId,
    KernelRole,
    SessionId,
    SessionWithKernels,
)
from sokovan.placement.fit import devices_for, fits, taken
from sokovan.placement.snapshot import Snapshot, free_on, snapshot_of
from sokovan.scheduler.ports import SchedulingData

G = 1024**3


def need(cpu: str = "0", mem: int = 0, gpu: str = "0", gpu_mem: int = 0) -> Request:
    """What one kernel asks for: cores, bytes, GPUs, bytes of each GPU."""
    return Request(parse_milli(cpu, field="cpu"), mem, parse_milli(gpu, field="gpu"), gpu_mem)


ONE_CORE = need("1")


def an_agent(
    agent_id: str = "a1", *, cpu: str = "8", mem: int = 16 * G, gpus: Sequence[int] = (), **fields
) -> Agent:
    """An agent named as its id in capitals; `gpus` is the memory of each device."""
    devices = tuple(Device(index, mem_bytes=size) for index, size in enumerate(gpus))
    return Agent(
        AgentId(agent_id),
        name=agent_id.upper(),
        capacity=Capacity(parse_milli(cpu, field="cpu"), mem, devices),
        **fields,
    )


def a_session(session_id: str = "s1", *requests: Request, **fields) -> SessionWithKernels:
    """A pending session with one kernel for each request; with one core when there is none."""
    kernels = tuple(
        Kernel(
            KernelId(f"{session_id}.{index}"),
            role=KernelRole.SUB if index else KernelRole.MAIN,
            index=index,
            request=request,
        )
        for index, request in enumerate(requests or (ONE_CORE,))
    )
    return SessionWithKernels(SessionId(session_id), kernels=kernels, **fields)


def a_hold(agent_id: str = "a1", request: Request = ONE_CORE, devices=(), **fields) -> Hold:
    """What a kernel of the session `r1` occupies."""
    return Hold(
        **{"token": "t1", "session_id": "r1", "kernel_id": "r1.0"} | fields,
        agent_id=agent_id,
        cpu_milli=request.cpu_milli,
        mem_bytes=request.mem_bytes,
        devices=devices,
    )


def a_snapshot(*pending: SessionWithKernels, agents=None, **fields) -> Snapshot:
    """One empty agent with eight cores and 16G, unless told otherwise."""
    return snapshot_of(
        SchedulingData(
            agents=tuple([an_agent()] if agents is None else agents), pending=pending, **fields
        )
    )


# --- strategies: small numbers, so that things collide --------------------------------------------

amounts = st.sampled_from([0, 0, 1, 100, 300, 500, 1000, 1500, 2000, 4000])
sizes = st.sampled_from([0, 0, 1, G, 2 * G, 3 * G, 8 * G])
device_sizes = st.sampled_from([0, 16 * G, 40 * G, 80 * G])
shares = st.sampled_from([0, 0, 0, 1, 100, 200, 300, 500, 999, 1000, 2000, 3000])
requests = st.builds(Request, amounts, sizes, shares, device_sizes)
agent_ids = st.sampled_from([AgentId(f"a{n}") for n in range(6)])
statuses = st.sampled_from([AgentStatus.ALIVE] * 4 + [AgentStatus.LOST, AgentStatus.GONE])


@st.composite
def agents(draw, agent_id: str = "a0", status=statuses, drained=(False,) * 5 + (True,)) -> Agent:
    """An agent with few of everything."""
    indexes = draw(st.lists(st.integers(0, 5), max_size=3, unique=True))
    devices = tuple(Device(index, mem_bytes=draw(device_sizes)) for index in indexes)
    capacity = Capacity(draw(amounts) * 2, draw(sizes) * 2, devices)
    drained_since = 1.0 if draw(st.sampled_from(drained)) else None
    return Agent(
        AgentId(agent_id), status=draw(status), capacity=capacity, drained_since=drained_since
    )


@st.composite
def clusters(draw, status=statuses) -> tuple[Agent, ...]:
    """No agent, or up to four."""
    return tuple(draw(agents(f"a{n}", status)) for n in range(draw(st.integers(0, 4))))


@st.composite
def holds_on(draw, cluster: Sequence[Agent]) -> tuple[Hold, ...]:
    """Kernels that agents have room for; some are leftovers."""
    free = {agent.agent_id: free_on(agent) for agent in cluster}
    held = []
    for number in range(draw(st.integers(0, 6)) if cluster else 0):
        agent, request = draw(st.sampled_from(cluster)), draw(requests)
        if not fits(request, agent, free[agent.agent_id]):
            continue
        devices = devices_for(request, agent.capacity.devices, free[agent.agent_id].shares)
        free[agent.agent_id] = taken(free[agent.agent_id], request, devices)
        hold = a_hold(agent.agent_id, request, devices, token=f"t{number}", session_id=f"r{number}")
        held.append(replace(hold, leftover_since=draw(st.sampled_from([None, None, 5.0]))))
    return tuple(held)


@st.composite
def sessions(draw, session_id: str, *, kernels_max: int = 3, number: int = 0) -> SessionWithKernels:
    """A pending session; most may be placed at once."""
    rarely = st.sampled_from([False] * 9 + [True])
    kinds = draw(st.lists(requests, min_size=1, max_size=kernels_max))
    return a_session(
        session_id,
        *(kinds if draw(st.booleans()) else [kinds[0]] * len(kinds)),
        number=number,
        priority=draw(st.sampled_from([0, 10, 10, 20])),
        held=draw(rarely),
        begin_at=50.0 if draw(rarely) else None,
        unmet=(Dependency(SessionId("x"), draw(st.sampled_from(DependencyKind))),)
        if draw(rarely)
        else (),
        avoid=tuple(draw(st.lists(agent_ids, max_size=2, unique=True))),
    )


@st.composite
def scheduling_data(draw, *, kernels_max: int = 3, status=statuses) -> SchedulingData:
    """All that decides a pass of a small group."""
    cluster = draw(clusters(status))
    numbers = range(draw(st.integers(0, 8)))
    pending = [draw(sessions(f"s{n}", kernels_max=kernels_max, number=n)) for n in numbers]
    old = draw(st.sets(st.sampled_from(numbers), max_size=1)) if pending else set()
    return SchedulingData(
        group=ScalingGroup(
            ranking=draw(st.sampled_from(AgentRanking)),
            last_agent_id=draw(st.none() | agent_ids),
        ),
        agents=cluster,
        holds=draw(holds_on(cluster)),
        pending=tuple(draw(st.permutations(pending))),
        waiting_for_old=frozenset(SessionId(f"s{n}") for n in old),
        now=10.0,
    )
