"""Values with defaults, and Hypothesis strategies over them, for tests of pure decisions."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import count

from hypothesis import strategies as st

from sokovan.domain.cluster import Agent, AgentStatus, Backfill, QueueOrder, ScalingGroup
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
from sokovan.domain.statuses import SessionStatus
from sokovan.domain.where import ANYWHERE, ClusterMode, Where, parse_constraint
from sokovan.placement.machines import Machines
from sokovan.placement.rank import RANKINGS
from sokovan.placement.snapshot import Snapshot, snapshot_of
from sokovan.scheduler.ports import SchedulingData
from tests.property.reference import OF_AGENTS, OF_DEVICES, G, room_for


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


_numbers = count(1)


def a_hold(agent_id: str = "a1", request: Request = ONE_CORE, devices=(), **fields) -> Hold:
    """What a kernel of the session `r1` occupies, by a token of its own."""
    return Hold(
        **{"token": f"h{next(_numbers)}", "session_id": "r1", "kernel_id": "r1.0"} | fields,
        agent_id=agent_id,
        cpu_milli=request.cpu_milli,
        mem_bytes=request.mem_bytes,
        devices=devices,
    )


def machines_of(agents: Sequence[Agent], holds: Sequence[Hold] = (), **fields) -> Machines:
    """The agents with what is held on them."""
    machines = Machines(agents, **fields)
    for hold in holds:
        machines.put_hold(hold)
    return machines


def a_snapshot(*pending: SessionWithKernels, agents=None, **fields) -> Snapshot:
    """One empty agent with eight cores and 16G, unless told otherwise."""
    return snapshot_of(
        SchedulingData(
            agents=tuple([an_agent()] if agents is None else agents), pending=pending, **fields
        )
    )


# --- strategies: small numbers, so that things collide --------------------------------------------

amounts = st.sampled_from([1000, 2000, 500, 1000, 2000, 1500, 0, 300, 1, 3000, 4000])
sizes = st.sampled_from([0, 0, G, 2 * G, 0, 3 * G, 0, G, 1, 8 * G])
device_sizes = st.sampled_from([0] * 5 + [16 * G, 40 * G, 80 * G])
models = st.sampled_from(["", "Tesla T4", "NVIDIA H100"])
shares = st.sampled_from([0] * 14 + [500, 1000, 300, 1000, 200, 2000, 1, 999, 3000])
requests = st.builds(Request, amounts, sizes, shares, device_sizes)
cores = st.sampled_from([4000, 3000, 2000, 6000, 4000, 3000, 2000, 4000, 8000, 1000, 0])
memories = st.sampled_from([8 * G, 4 * G, 8 * G, 6 * G, 4 * G, 8 * G, 4 * G, 16 * G, 8 * G, 2, 0])
device_indexes = st.sampled_from([(0, 1), (), (0,), (2, 0, 5), (1,), (), (3, 4, 1), (0, 1, 2)])
agent_ids = st.sampled_from([AgentId(f"a{n}") for n in range(6)])
statuses = st.sampled_from([AgentStatus.ALIVE] * 8 + [AgentStatus.LOST, AgentStatus.GONE])
labels = st.fixed_dictionaries(
    {},
    optional={
        "rack": st.sampled_from(["r1", "r2"]),
        "tier": st.sampled_from(["2", "3", "1", "best"]),
    },
)
owners = st.sampled_from(["ann", "bob", "cy"])
times = st.sampled_from([0.0, 1.0, 3.0, 7.0, 10.0])
backfills = st.sampled_from(Backfill)
walltimes = st.sampled_from([None, 1.0, 5.0, 30.0, 1000.0])


@st.composite
def agents(draw, agent_id: str = "a0", status=statuses, drained=(False,) * 9 + (True,)) -> Agent:
    """An agent with few of everything, named as its id in capitals."""
    devices = tuple(
        Device(index, draw(models), draw(memories) * 10) for index in draw(device_indexes)
    )
    capacity = Capacity(draw(cores), draw(memories), devices)
    drained_since = 1.0 if draw(st.sampled_from(drained)) else None
    return Agent(
        AgentId(agent_id),
        name=agent_id.upper(),
        status=draw(status),
        capacity=capacity,
        drained_since=drained_since,
        labels=draw(labels),
    )


few = st.sampled_from([2, 1, 3, 4, 2, 1, 3, 2, 1, 2, 3, 0])
several = st.sampled_from([4, 6, 8, 2, 7, 8, 5, 6, 1, 7, 8, 0])


@st.composite
def clusters(draw, status=statuses) -> tuple[Agent, ...]:
    """No agent, or up to four."""
    return tuple(draw(agents(f"a{n}", status)) for n in range(draw(few)))


@st.composite
def holds_on(draw, cluster: Sequence[Agent]) -> tuple[Hold, ...]:
    """Kernels that agents have room for; some are leftovers."""
    held: list[Hold] = []
    for number in range(draw(several) if cluster else 0):
        agent, request = draw(st.sampled_from(cluster)), draw(requests)
        on_it = [hold for hold in held if hold.agent_id == agent.agent_id]
        devices = room_for(request, agent, on_it)
        if devices is not None:
            hold = a_hold(
                agent.agent_id, request, devices, token=f"t{number}", session_id=f"r{number % 4}"
            )
            held.append(replace(hold, leftover_since=draw(st.sampled_from([None, None, 5.0]))))
    return tuple(held)


@st.composite
def running_of(draw, holds: Sequence[Hold]) -> tuple[SessionWithKernels, ...]:
    """The sessions that holds belong to, unless they are leftovers, in any status with kernels."""
    with_kernels = st.sampled_from(
        [SessionStatus.SCHEDULED, SessionStatus.RUNNING, SessionStatus.TERMINATING]
    )
    ids = sorted({hold.session_id for hold in holds if not hold.is_leftover})
    return tuple(
        replace(
            a_session(session_id, owner=draw(owners), name=f"of {session_id}"),
            status=draw(with_kernels),
            status_since=draw(times),
            started_at=draw(st.none() | times),
            walltime_s=draw(walltimes),
        )
        for session_id in ids
    )


def some(values, max_size: int = 2):
    """Mostly none of `values`, else a few."""
    return st.just(()) | st.lists(st.sampled_from(values), max_size=max_size, unique=True).map(
        lambda found: tuple(sorted(found))
    )


constraints = some([*OF_AGENTS, *OF_DEVICES]).map(
    lambda texts: tuple(sorted(map(parse_constraint, texts)))
)
names_of_agents = some(["a0", "A1", "a2", "A3", "elsewhere"])
names_of_sessions = some(["s0", "s1", "of r0", "r1", "nobody"])
wheres = st.sampled_from(range(4)).flatmap(
    lambda number: st.just(ANYWHERE) if number < 3 else _wheres
)
_wheres = st.builds(
    Where,
    mode=st.sampled_from([ClusterMode.MULTI_NODE, ClusterMode.MULTI_NODE, ClusterMode.SINGLE_NODE]),
    kernels_per_agent_max=st.sampled_from([None, None, 1, 2]),
    same=st.sampled_from(["", "", "", "rack"]),
    constraints=constraints,
    agents=st.just(()) | names_of_agents,
    prefer=names_of_agents,
    exclude=st.just(()) | names_of_agents,
    spread_with=names_of_sessions,
    pack_with=names_of_sessions,
)
rarely = st.sampled_from([False] * 20 + [True])


@st.composite
def sessions(
    draw,
    session_id: str,
    *,
    kernels_max: int = 3,
    number: int = 0,
    where=wheres,
    equal_kernels: bool = False,
) -> SessionWithKernels:
    """A pending session; most may be placed at once."""
    kinds = draw(st.lists(requests, min_size=1, max_size=kernels_max))
    equal_kernels = equal_kernels or draw(st.booleans())
    return a_session(
        session_id,
        *([kinds[0]] * len(kinds) if equal_kernels else kinds),
        number=number,
        owner=draw(owners),
        priority=draw(st.sampled_from([0, 10, 10, 20])),
        created_at=draw(times),
        walltime_s=draw(walltimes),
        held=draw(rarely),
        array_waits=draw(rarely),
        begin_at=draw(st.sampled_from([5.0, 50.0])) if draw(rarely) else None,
        unmet=(Dependency(SessionId("x"), draw(st.sampled_from(DependencyKind))),)
        if draw(rarely)
        else (),
        where=draw(where),
        avoid=tuple(draw(st.lists(agent_ids, max_size=2, unique=True))),
    )


@st.composite
def groups(draw, backfill=backfills) -> ScalingGroup:
    """Any policy."""
    return ScalingGroup(
        order=draw(st.sampled_from(QueueOrder)),
        ranking=draw(st.sampled_from(sorted(RANKINGS))),
        backfill=draw(backfill),
        ageing_s=draw(st.sampled_from([0.0, 2.0, 3600.0])),
        walltime_default_s=draw(st.sampled_from([20.0, 86400.0])),
        agent_kernels_max=draw(st.sampled_from([None, None, None, 4, 3, 2, 1])),
        last_agent_id=draw(st.none() | agent_ids),
    )


@st.composite
def scheduling_data(
    draw,
    *,
    kernels_max: int = 3,
    status=statuses,
    group=None,
    where=wheres,
    equal_kernels: bool = False,
) -> SchedulingData:
    """All that decides a pass of a small group."""
    policy = draw(groups() if group is None else group)
    cluster = draw(clusters(status))
    numbers = range(draw(several))
    pending = [
        draw(
            sessions(
                f"s{n}",
                kernels_max=kernels_max,
                number=n,
                where=where,
                equal_kernels=equal_kernels,
            )
        )
        for n in numbers
    ]
    old = {0} if draw(rarely) else set()
    holds = draw(holds_on(cluster))
    return SchedulingData(
        group=policy,
        agents=cluster,
        holds=holds,
        pending=tuple(draw(st.permutations(pending))),
        running=draw(running_of(holds)),
        waiting_for_old=frozenset(SessionId(f"s{n}") for n in old),
        now=10.0,
    )
