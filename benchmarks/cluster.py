"""Clusters and queues for the placement benchmarks, from the generator in ../shared/bench."""

import importlib.util
import random
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

from sokovan.domain.cluster import Agent, AgentRanking, Backfill, QueueOrder, ScalingGroup
from sokovan.domain.quantities import DEVICE_SHARES
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
from sokovan.placement.snapshot import Snapshot, snapshot_of

GENERATOR = Path(__file__).resolve().parents[1].parent / "shared" / "bench" / "workload.py"
GPU = "cuda.device"
NOW = 1_000_000.0
"""Seconds since the epoch at which every snapshot is taken."""
WALLTIMES_S = (1_800.0, 3_600.0, 14_400.0, 86_400.0)


def generator() -> ModuleType:
    """Load the generator; without it there is nothing to measure."""
    if "workload" not in sys.modules:
        if not GENERATOR.is_file():
            raise SystemExit(f"no generator of clusters and queues: {GENERATOR} is not there")
        spec = importlib.util.spec_from_file_location("workload", GENERATOR)
        assert spec is not None
        assert spec.loader is not None
        sys.modules["workload"] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules["workload"]


@dataclass(frozen=True, slots=True)
class Shape:
    """What a cluster and its queue are to be like.

    Attributes:
        mix: `single`, or `multi`: every fifth session has four kernels.
        capacity: `real`, or `roomy`: everything fits.
        walltimes: Whether sessions say how long they run: one of `WALLTIMES_S`.
        distinct: Whether no two sessions ask for the same amounts.
    """

    agents: int
    sessions: int
    mix: str = "single"
    capacity: str = "roomy"
    order: str = QueueOrder.FIFO.value
    rank: str = AgentRanking.CONCENTRATED.value
    backfill: str = Backfill.NONE.value
    walltimes: bool = False
    distinct: bool = False


@dataclass
class Cluster:
    """All that is known of a group, as a snapshot is built from it; see `Known`."""

    group: ScalingGroup
    agents: Sequence[Agent]
    holds: Sequence[Hold]
    pending: Sequence[SessionWithKernels]
    running: Sequence[SessionWithKernels] = ()
    waiting_for_old: frozenset[SessionId] = field(default_factory=frozenset)
    now: float = NOW

    def snapshot(self) -> Snapshot:
        """Build a snapshot that no pass has seen."""
        return snapshot_of(self)


def workload_of(shape: Shape) -> Any:
    """Generate a cluster and a queue in the generator's own words."""
    return generator().generate(
        shape.agents, shape.sessions, mix=shape.mix, capacity=shape.capacity
    )


def cluster_of(shape: Shape, workload: Any) -> Cluster:
    """Say in Sokovan's words what the generator made."""
    group = ScalingGroup(
        order=QueueOrder(shape.order),
        ranking=AgentRanking(shape.rank),
        backfill=Backfill(shape.backfill),
    )
    chance = random.Random(1)
    pending = [
        SessionWithKernels(
            SessionId(session.id),
            kernels=tuple(
                Kernel(KernelId(kernel.id), index=index, request=_request(kernel.request))
                for index, kernel in enumerate(session.kernels)
            ),
            number=number,
            owner=session.user,
            walltime_s=chance.choice(WALLTIMES_S) if shape.walltimes else None,
        )
        for number, session in enumerate(workload.sessions)
    ]
    if shape.distinct:
        pending = [_told_apart(session) for session in pending]
    return Cluster(
        group,
        [_agent(agent) for agent in workload.agents],
        [_hold(agent) for agent in workload.agents],
        pending,
    )


def _request(amounts: Mapping[str, str]) -> Request:
    return Request(
        int(amounts["cpu"]) * 1000, int(amounts["mem"]), int(amounts[GPU]) * DEVICE_SHARES
    )


def _agent(agent: Any) -> Agent:
    devices = tuple(Device(index) for index in range(int(agent.capacity.get(GPU, "0"))))
    capacity = Capacity(int(agent.capacity["cpu"]) * 1000, int(agent.capacity["mem"]), devices)
    return Agent(AgentId(agent.id), capacity=capacity)


def _hold(agent: Any) -> Hold:
    """What is in use from the beginning, as the hold of one kernel."""
    devices = tuple((index, DEVICE_SHARES) for index in range(int(agent.used.get(GPU, "0"))))
    return Hold(
        f"used-{agent.id}",
        f"used-{agent.id}",
        "",
        agent.id,
        int(agent.used["cpu"]) * 1000,
        int(agent.used["mem"]),
        devices,
    )


def _told_apart(session: SessionWithKernels) -> SessionWithKernels:
    """Ask for a few bytes less of memory, as no other session does."""
    kernels = tuple(
        replace(k, request=replace(k.request, mem_bytes=k.request.mem_bytes - session.number))
        for k in session.kernels
    )
    return replace(session, kernels=kernels)


# --- after a pass ---------------------------------------------------------------------------------


def started(
    placed: Mapping[SessionId, Assignment], sessions: Mapping[SessionId, SessionWithKernels]
) -> tuple[list[SessionWithKernels], list[Hold]]:
    """Return the sessions that a pass has placed as they run, and what they hold."""
    running, holds = [], []
    for session_id, assignment in placed.items():
        session = sessions[session_id]
        running.append(
            replace(session, status=SessionStatus.RUNNING, started_at=NOW, status_since=NOW)
        )
        for kernel, one in zip(session.kernels, assignment, strict=True):
            holds.append(
                Hold(
                    kernel.kernel_id,
                    session_id,
                    kernel.kernel_id,
                    one.agent_id,
                    kernel.request.cpu_milli,
                    kernel.request.mem_bytes,
                    one.devices,
                )
            )
    return running, holds


def judged(workload: Any, placed: Mapping[SessionId, Assignment]) -> dict[str, Any]:
    """Have the generator judge a plan, and see that no owner is over a limit.

    Raises:
        ValueError: The plan breaks a rule.
    """
    hosts = {str(i): [one.agent_id for one in found] for i, found in placed.items()}
    answer: dict[str, Any] = generator().check(workload, hosts)
    owners = {o.id: o for o in (*workload.users, *workload.projects, *workload.domains)}
    used = {i: {slot: Decimal(a) for slot, a in o.used.items()} for i, o in owners.items()}
    for session in workload.sessions:
        if session.id not in hosts:
            continue
        for owner in (session.user, session.project, session.domain):
            for kernel in session.kernels:
                for slot, amount in kernel.request.items():
                    used[owner][slot] = used[owner].get(slot, Decimal(0)) + Decimal(amount)
    for i, owner in owners.items():
        over = [slot for slot, amount in used[i].items() if amount > Decimal(owner.limit[slot])]
        if over:
            raise ValueError(f"owner {i} over the limit of {', '.join(over)}")
    return {**answer, "owners_checked": len(owners)}


# --- full clusters --------------------------------------------------------------------------------


def filled(cluster: Cluster, placed: Mapping[SessionId, Assignment], waiting: int) -> Cluster:
    """Return the cluster once all that a pass has placed runs; the latest of the others wait."""
    sessions = {session.session_id: session for session in cluster.pending}
    running, holds = started(placed, sessions)
    left = [session for session in cluster.pending if session.session_id not in placed]
    assert len(left) >= waiting, "too few sessions are left; generate more"
    return replace(
        cluster, holds=[*cluster.holds, *holds], running=running, pending=left[-waiting:]
    )


def stuffed(cluster: Cluster) -> Cluster:
    """Return the cluster with all that is free on each agent held by one more session."""
    holds = [_rest(agent, hold) for agent, hold in zip(cluster.agents, cluster.holds, strict=True)]
    return replace(cluster, holds=[*cluster.holds, *holds])


def _rest(agent: Agent, used: Hold) -> Hold:
    held = {index for index, _ in used.devices}
    name = f"rest-{agent.agent_id}"
    return Hold(
        name,
        name,
        "",
        agent.agent_id,
        agent.capacity.cpu_milli - used.cpu_milli,
        agent.capacity.mem_bytes - used.mem_bytes,
        tuple((d.index, DEVICE_SHARES) for d in agent.capacity.devices if d.index not in held),
    )


def free(snapshot: Snapshot, holds: Iterable[Hold]) -> None:
    """Release holds."""
    for hold in holds:
        snapshot.machines.drop_hold(hold)


def start(placed: Mapping[SessionId, Assignment], snapshot: Snapshot) -> None:
    """Do with a plan what the store does: its sessions wait no more, and hold what they got."""
    running, holds = started(placed, snapshot.queue)
    assert isinstance(snapshot.running, dict)
    for session in running:
        snapshot.queue.drop(session.session_id)
        snapshot.running[session.session_id] = session
    for hold in holds:
        snapshot.machines.put_hold(hold)
