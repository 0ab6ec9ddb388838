"""A group on a virtual clock: sessions arrive, start as the engine says, and end."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from hypothesis import strategies as st

from sokovan.domain.cluster import Agent, Backfill, QueueOrder, ScalingGroup
from sokovan.domain.resources import Capacity, Device, Hold, Request
from sokovan.domain.sessions import (
    AgentId,
    Assignment,
    Kernel,
    KernelId,
    SessionId,
    SessionWithKernels,
)
from sokovan.domain.statuses import SessionStatus
from sokovan.domain.where import ClusterMode, Where
from sokovan.placement.engine import Pass, run
from sokovan.placement.machines import Machines
from sokovan.placement.promises import Reservation
from sokovan.placement.queue import Queue
from sokovan.placement.rank import RANKINGS
from sokovan.placement.snapshot import Snapshot

GPU = 1000
"""Shares of a whole device."""


def an_agent(agent_id: str = "a1", *, cores: int = 4, mem: int = 0, gpus: int = 0, **fields):
    """An agent with few of everything; `mem` in bytes."""
    devices = tuple(Device(index) for index in range(gpus))
    return Agent(AgentId(agent_id), capacity=Capacity(cores * 1000, mem, devices), **fields)


def a_job(name: str, walltime_s: float | None, *requests: Request, cores: int = 0, **fields):
    """A session that waits, with a kernel for each request, or one with so many cores."""
    kernels = tuple(
        Kernel(KernelId(f"{name}.{index}"), index=index, request=request)
        for index, request in enumerate(requests or (Request(cores * 1000),))
    )
    return SessionWithKernels(SessionId(name), kernels=kernels, walltime_s=walltime_s, **fields)


class World:
    """A group of agents, its queue and its clock."""

    def __init__(self, agents: Iterable[Agent], backfill: Backfill, **policy) -> None:
        group = ScalingGroup(backfill=backfill, **{"ageing_s": 0.0} | policy)
        machines = Machines(agents, group.agent_kernels_max)
        self.running: dict[SessionId, SessionWithKernels] = {}
        self.snapshot = Snapshot(group, machines, Queue(group), self.running, frozenset(), 0.0)
        self.started: dict[SessionId, float] = {}
        """When each session started, in the order of starting."""
        self.holds: dict[SessionId, list[Hold]] = {}

    @property
    def now(self) -> float:
        """Seconds since the beginning."""
        return self.snapshot.now

    def submit(self, *sessions: SessionWithKernels) -> None:
        """Let sessions wait, in this order behind those that came before."""
        for session in sessions:
            count = len(self.started) + len(self.snapshot.queue)
            self.snapshot.queue.put(replace(session, number=count))

    def look(self) -> Pass:
        """Return what the engine decides, with all reservations; nothing starts yet."""
        done = run(self.snapshot)
        done.reserve_all()
        return done

    def step(self) -> Pass:
        """Decide, and start what is to start."""
        done = self.look()
        for session_id, assignment in done.plan.placed.items():
            self.start(self.snapshot.queue[session_id], assignment)
        return done

    def start(self, session: SessionWithKernels, assignment: Assignment) -> None:
        """Let a session run where it is told."""
        session_id = session.session_id
        self.snapshot.queue.drop(session_id)
        self.running[session_id] = replace(
            session, status=SessionStatus.RUNNING, started_at=self.now
        )
        self.started[session_id] = self.now
        self.holds[session_id] = held_by(session, assignment)
        for hold in self.holds[session_id]:
            self.snapshot.machines.put_hold(hold)

    def end(self, session_id: str) -> None:
        """Let a session end."""
        for hold in self.holds.pop(SessionId(session_id)):
            self.snapshot.machines.drop_hold(hold)
        del self.running[SessionId(session_id)]

    def at(self, now: float) -> "World":
        """Let time pass."""
        self.snapshot.now = now
        return self


def held_by(session: SessionWithKernels, assignment: Assignment) -> list[Hold]:
    """Return what a session holds on the agents that it was given."""
    return [
        Hold(
            token=kernel.kernel_id,
            session_id=session.session_id,
            kernel_id=kernel.kernel_id,
            agent_id=one.agent_id,
            cpu_milli=kernel.request.cpu_milli,
            mem_bytes=kernel.request.mem_bytes,
            devices=one.devices,
        )
        for kernel, one in zip(session.kernels, assignment, strict=True)
    ]


# --- what is used when ----------------------------------------------------------------------------

Span = tuple[float, float, list[Hold]]
"""What is held from when to when."""


def spans_of(world: World, reservations: Mapping[SessionId, Reservation]) -> list[Span]:
    """Return what runs until it should end, and what is reserved."""
    group, now = world.snapshot.group, world.now
    spans = []
    for session_id, holds in world.holds.items():
        session = world.running[session_id]
        walltime_s = group.walltime_default_s if session.walltime_s is None else session.walltime_s
        spans.append((now, max(now, session.started_at + walltime_s), holds))
    for session_id, kept in reservations.items():
        held = held_by(world.snapshot.queue[session_id], kept.assignment)
        spans.append((kept.starts_at, kept.ends_at, held))
    return spans


def overbooked(world: World, spans: Sequence[Span]) -> list[tuple[float, str]]:
    """Say when and where more is used than there is: of any slot, any device, or of kernels."""
    found = []
    for at in sorted({start for start, _, _ in spans}):
        used: dict[tuple[str, str | int], int] = {}
        for start, end, holds in spans:
            if not start <= at < end:
                continue
            for hold in holds:
                parts = [("cpu", hold.cpu_milli), ("mem", hold.mem_bytes), ("kernels", 1)]
                for slot, amount in [*parts, *hold.devices]:
                    key = hold.agent_id, slot
                    used[key] = used.get(key, 0) + amount
        for agent in world.snapshot.machines.agents:
            most = world.snapshot.group.agent_kernels_max
            there = {"cpu": agent.capacity.cpu_milli, "mem": agent.capacity.mem_bytes}
            there["kernels"] = 10**9 if most is None else most
            for (agent_id, slot), amount in used.items():
                if agent_id == agent.agent_id and amount > there.get(slot, GPU):
                    found.append((at, f"{agent_id} {slot}"))
    return found


# --- strategies: small numbers, so that things collide --------------------------------------------

requests = st.builds(
    Request,
    st.sampled_from([0, 1000, 1000, 2000, 3000, 4000]),
    st.sampled_from([0, 0, 1, 2, 3]),
    st.sampled_from([0, 0, 0, 300, 500, 700, GPU, 2 * GPU]),
)
places = st.sampled_from(
    [Where(), Where(), Where(mode=ClusterMode.SINGLE_NODE), Where(kernels_per_agent_max=1)]
)


@st.composite
def clusters(draw) -> list[Agent]:
    """Up to three agents."""
    return [
        an_agent(
            f"a{n}",
            cores=draw(st.sampled_from([2, 4, 4])),
            mem=draw(st.sampled_from([2, 4])),
            gpus=draw(st.sampled_from([0, 1, 2, 3])),
        )
        for n in range(draw(st.integers(1, 3)))
    ]


@dataclass(frozen=True)
class Arrival:
    """A session that comes at a moment, and for how long it will run."""

    at: float
    session: SessionWithKernels
    run_s: float


@st.composite
def arrivals(draw, *, kernels_max: int = 3, exact: bool = False, kinds=requests) -> list[Arrival]:
    """Sessions in order of arrival; they run for as long as they said, or less."""
    coming, at = [], 0.0
    for n in range(draw(st.integers(1, 9))):
        at += draw(st.sampled_from([0, 0, 0, 1, 2, 5]))
        walltime_s = draw(st.sampled_from([1.0, 2.0, 3.0, 5.0, 8.0, 13.0]))
        wanted = draw(st.lists(kinds, min_size=1, max_size=kernels_max))
        job = a_job(f"s{n}", walltime_s, *wanted, where=draw(places), priority=0)
        run_s = walltime_s if exact else draw(st.sampled_from([walltime_s, 1.0, walltime_s / 2]))
        coming.append(Arrival(at, job, min(run_s, walltime_s)))
    return coming


@st.composite
def worlds(draw, backfills=(Backfill.EASY, Backfill.CONSERVATIVE)) -> World:
    """An empty group under some policy, first in, first out."""
    return World(
        draw(clusters()),
        draw(st.sampled_from(list(backfills))),
        order=QueueOrder.FIFO,
        ranking=draw(st.sampled_from(list(RANKINGS))),
        agent_kernels_max=draw(st.sampled_from([None, None, 2])),
    )


def played(world: World, coming: Sequence[Arrival]) -> Iterator[Pass]:
    """Play until all that can ever start has ended; yield each pass after its starts.

    At each moment first the ends, then the arrivals, then a pass.
    """
    run_s = {arrival.session.session_id: arrival.run_s for arrival in coming}
    ahead = list(coming)
    while True:
        ends = {
            session_id: world.started[session_id] + run_s[session_id]
            for session_id in world.running
        }
        moments = [*ends.values(), *(arrival.at for arrival in ahead[:1])]
        if not moments:
            return
        world.at(min(moments))
        for session_id, end in ends.items():
            if end <= world.now:
                world.end(session_id)
        while ahead and ahead[0].at <= world.now:
            world.submit(ahead.pop(0).session)
        yield world.step()
