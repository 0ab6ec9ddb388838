"""Builders with defaults: a test names what matters to it, and everything else is ordinary.

Also here: a real repository in memory, and agents that a test can talk to.
"""

import contextlib
import math
import random
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from sokovan.clock import Clock, ManualClock
from sokovan.config import SchedulerConfig, StoreConfig
from sokovan.domain.cluster import Agent, ScalingGroup
from sokovan.domain.resources import Capacity, Device, Request
from sokovan.domain.sessions import (
    AgentId,
    Assignment,
    Attempts,
    Kernel,
    KernelAssignment,
    KernelId,
    KernelRole,
    SessionId,
    SessionSpec,
    SessionWithKernels,
)
from sokovan.domain.statuses import WAITING, KernelStatus, SessionStatus
from sokovan.identity import IdSource
from sokovan.scheduler.coordinator import Chore, Coordinator
from sokovan.scheduler.messages import AgentHello, KernelReport, ReportState
from sokovan.scheduler.moves import Applied, Move, Outcome
from sokovan.scheduler.settle import NotedWait, StageLoad
from sokovan.scheduler.stages import (
    CHECK_PRECONDITION,
    SCHEDULE_SESSIONS,
    START_SESSIONS,
    Stage,
    TransitionStatus,
)
from sokovan.store.engine import Database, InlineDatabase
from sokovan.store.postgresql import open_postgresql
from sokovan.store.repository import SqlRepository
from sokovan.store.schema import prepare
from sokovan.store.sqlite import open_sqlite

if TYPE_CHECKING:
    from tests.postgresql import Server

T = TypeVar("T")

NOW = 1_000_000_000.0
"""When every test begins."""
GIB = 1024**3
S1, S2, S3 = SessionId("s1"), SessionId("s2"), SessionId("s3")
A1, A2 = AgentId("a1"), AgentId("a2")
STARTED = frozenset({KernelStatus.RUNNING, KernelStatus.TERMINATING})


def at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never waits, outside any event loop."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    coroutine.close()
    raise AssertionError("it waited: only an in-memory repository may be asked at once")


# --- values ---------------------------------------------------------------------------------------


def a_kernel(index: int = 0, status: KernelStatus = KernelStatus.PENDING, **changes: Any) -> Kernel:
    """Build a kernel: the main one for index 0; on agent `a1` unless it is PENDING."""
    session_id = changes.pop("session_id", S1)
    placed = {"agent_id": A1, "token": f"{session_id}-token{index}"}
    return replace(
        Kernel(
            KernelId(f"{session_id}.{index}"),
            KernelRole.SUB if index else KernelRole.MAIN,
            index,
            status,
            status_since=NOW,
            request=Request(cpu_milli=1000, mem_bytes=GIB),
            **({} if status is KernelStatus.PENDING else placed),
            started_at=NOW if status in STARTED else None,
        ),
        **changes,
    )


def a_session(
    session_id: str = S1,
    status: SessionStatus = SessionStatus.PENDING,
    *,
    kernels: int | Sequence[Kernel] = 1,
    **changes: Any,
) -> SessionWithKernels:
    """Build a session that came into its status just now, and its kernels likewise."""
    if isinstance(kernels, int):
        same = KernelStatus.PENDING if status in WAITING else KernelStatus(status.value)
        kernels = [a_kernel(index, same, session_id=session_id) for index in range(kernels)]
    given = {"status_since": NOW, "created_at": NOW, "pending_since": NOW, "name": "job"} | changes
    return SessionWithKernels(SessionId(session_id), tuple(kernels), status, **given)


def attempts_of(stage: Stage, count: int, **changes: Any) -> dict[str, Attempts]:
    """Build the `attempts` of a session that a stage has failed at so often."""
    return {stage.name: Attempts(count, **changes)}


def a_load(*taken: SessionWithKernels, **changes: Any) -> StageLoad:
    """Build the load of a stage that takes `taken`, at `NOW`."""
    return StageLoad(**{"taken": taken, "now": NOW} | changes)


def a_wait(code: str, *, held_s: float = 0.0) -> NotedWait:
    """Build a waiting reason that has held for so long at `NOW`."""
    return NotedWait(code, NOW - held_s)


def an_assignment(session: SessionWithKernels, *agents: str) -> Assignment:
    """Build an assignment of the session's kernels to agents in turn, `a1` when none is named."""
    where = agents or (A1,)
    return tuple(
        KernelAssignment(kernel.kernel_id, AgentId(where[index % len(where)]))
        for index, kernel in enumerate(session.kernels)
    )


def a_move(
    session: SessionWithKernels,
    stage: Stage,
    to: TransitionStatus | None = None,
    outcome: Outcome = Outcome.SUCCESS,
    reason: str = "because",
    **changes: Any,
) -> Move:
    """Build a move decided on `session` as it is: the stage's success unless said otherwise."""
    if to is None and outcome is Outcome.SUCCESS:
        to = stage.success
    return Move(
        session.session_id,
        session.status,
        session.status_seq,
        stage.name,
        outcome,
        to,
        reason,
        **changes,
    )


def a_spec(**changes: Any) -> SessionSpec:
    """Build a submission of one kernel that asks for one core and one GiB."""
    given = {
        "command": ("true",),
        "name": "job",
        "owner": "ann",
        "request": Request(cpu_milli=1000, mem_bytes=GIB),
    }
    return SessionSpec(**given | changes)


def an_agent(agent_id: str = A1, **changes: Any) -> Agent:
    """Build an agent of four cores, 16 GiB and two devices."""
    return Agent(
        **{"agent_id": AgentId(agent_id), "capacity": a_capacity(), "last_seen_at": NOW} | changes
    )


def a_capacity(cpu_milli: int = 4000, mem_bytes: int = 16 * GIB, devices: int = 2) -> Capacity:
    """Build a capacity with so many devices of 8 GiB."""
    return Capacity(
        cpu_milli, mem_bytes, tuple(Device(index, "gpu", 8 * GIB) for index in range(devices))
    )


def an_agent_hello(agent_id: str = A1, **changes: Any) -> AgentHello:
    """Build the introduction of an agent of four cores, 16 GiB and two devices."""
    given = {"agent_id": AgentId(agent_id), "name": agent_id, "capacity": a_capacity()}
    return AgentHello(**given | changes)


# --- a real repository ----------------------------------------------------------------------------


def _open_sqlite() -> InlineDatabase:
    engine = open_sqlite(None, StoreConfig())
    prepare(engine)
    return InlineDatabase(engine)


class Stores:
    """Where tests have their databases.

    Attributes:
        opened: Opens an empty one, with its schema.
    """

    opened: Callable[[], InlineDatabase] = staticmethod(_open_sqlite)


@contextlib.contextmanager
def stores_on(server: "Server") -> Iterator[None]:
    """Have `in_memory` open its databases on a PostgreSQL server."""
    engines = []

    def opened() -> InlineDatabase:
        engines.append(open_postgresql(server.prepared(), StoreConfig()))
        return InlineDatabase(engines[-1])

    before, Stores.opened = Stores.opened, staticmethod(opened)
    try:
        yield
    finally:
        Stores.opened = before
        for engine in engines:
            engine.dispose()


def in_memory() -> InlineDatabase:
    """Open an empty database with its schema: in memory, unless it is for `stores_on` to say."""
    return Stores.opened()


def groups_of(*groups: ScalingGroup | str) -> dict[str, ScalingGroup]:
    """Build scaling groups by name, `default` when none is named."""
    made = [ScalingGroup(g) if isinstance(g, str) else g for g in groups or ("default",)]
    return {group.name: group for group in made}


def a_repository(
    *groups: ScalingGroup | str,
    database: Database | None = None,
    clock: Clock | None = None,
    seed: int = 1,
    holder: str = "test",
    lease_s: float = math.inf,
    taken_over: bool = True,
    kind: type[SqlRepository] = SqlRepository,
) -> SqlRepository:
    """Build a repository that drives `groups`, on a new database in memory unless one is given.

    Pass `taken_over=False` with a database that has threads, and await `take_over()` yourself.
    """
    repository = kind(
        database or in_memory(),
        clock or ManualClock(NOW),
        IdSource(random.Random(seed)),
        groups_of(*groups),
        holder=holder,
        lease_s=lease_s,
    )
    if taken_over:
        at_once(repository.take_over())
    return repository


# --- shortcuts through a repository ---------------------------------------------------------------


async def submitted(repository: SqlRepository, *specs: SessionSpec) -> list[SessionId]:
    """Submit, and return the ids."""
    ids, _ = await repository.submit(specs or [a_spec()])
    return ids


async def placed(
    repository: SqlRepository,
    *session_ids: SessionId,
    on: Iterable[str] = (A1,),
) -> Applied:
    """Move PENDING sessions to SCHEDULED, their kernels on the agents in turn."""
    moves = []
    for session_id in session_ids:
        session = repository.live.sessions[session_id]
        assignment = an_assignment(session, *on)
        moves.append(a_move(session, SCHEDULE_SESSIONS, reason="scheduled", assignment=assignment))
    return await repository.apply(moves)


async def asked(repository: SqlRepository, stage: Stage, *session_ids: SessionId) -> Applied:
    """Make the stage's success moves, as after a handler that succeeded."""
    return await repository.apply(
        [a_move(repository.live.sessions[session_id], stage) for session_id in session_ids]
    )


async def said(
    repository: SqlRepository, state: ReportState, *session_ids: SessionId, **facts: Any
) -> Applied:
    """Have the agents of these sessions report the same of all their kernels."""
    results = []
    for session_id in session_ids:
        for kernel in repository.live.sessions[session_id].kernels:
            agent = repository.live.agents[kernel.agent_id]
            report = KernelReport(kernel.token, state, **facts)
            results.append(
                await repository.record_reports(agent.agent_id, agent.incarnation, [report])
            )
    return results[-1]


async def brought_to(
    repository: SqlRepository,
    status: SessionStatus,
    *specs: SessionSpec,
    on: Iterable[str] = (A1,),
) -> list[SessionId]:
    """Submit sessions and bring them step by step to `status`, one of SCHEDULED … RUNNING."""
    ids = await submitted(repository, *specs)
    await placed(repository, *ids, on=on)
    steps = (
        (SessionStatus.PREPARING, lambda: asked(repository, CHECK_PRECONDITION, *ids)),
        (SessionStatus.PREPARED, lambda: said(repository, ReportState.PREPARED, *ids)),
        (SessionStatus.CREATING, lambda: asked(repository, START_SESSIONS, *ids)),
        (SessionStatus.RUNNING, lambda: said(repository, ReportState.RUNNING, *ids)),
    )
    for reached, step in steps:
        if repository.live.sessions[ids[0]].status is status:
            break
        await step()
        assert {repository.live.sessions[i].status for i in ids} == {reached}
    return ids


def a_coordinator(
    repository: SqlRepository,
    *handlers: Any,
    clock: Clock,
    chores: Sequence[Chore] = (),
    config: SchedulerConfig | None = None,
    **given: Any,
) -> Coordinator:
    """Build a coordinator with these handlers; leftovers are asked after by nobody."""

    async def nothing() -> None:
        pass

    coordinator = Coordinator(repository, clock, config or SchedulerConfig())
    known = {chore.name for chore in chores}
    spare = [] if "stop-leftovers" in known else [Chore("stop-leftovers", 60.0, nothing)]
    coordinator.set_up(handlers, [*chores, *spare], **given)
    return coordinator


# --- agents ---------------------------------------------------------------------------------------


class FakeGateway:
    """An `AgentGateway` whose agents answer what the test says.

    Attributes:
        asked: Every call, as (what, agent, tokens).
        answers: What an agent answers, by what is asked; an exception is raised.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[str, AgentId, tuple[str, ...]]] = []
        self.answers: dict[tuple[str, str], Any] = {}

    async def prepare(self, agent_id: AgentId, kernels: Sequence[Any]) -> Sequence[KernelReport]:
        return await self._answer("prepare", agent_id, [kernel.token for kernel in kernels])

    async def start(self, agent_id: AgentId, kernels: Sequence[Any]) -> Sequence[KernelReport]:
        return await self._answer("start", agent_id, [kernel.token for kernel in kernels])

    async def stop(self, agent_id: AgentId, kernels: Sequence[Any]) -> Sequence[KernelReport]:
        return await self._answer("stop", agent_id, [kernel.token for kernel in kernels])

    async def states(self, agent_id: AgentId, tokens: Sequence[str]) -> Sequence[KernelReport]:
        return await self._answer("states", agent_id, tokens)

    async def read_output(self, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError("no test reads output here")

    async def _answer(self, what: str, agent_id: AgentId, tokens: Sequence[str]) -> Any:
        self.asked.append((what, agent_id, tuple(tokens)))
        answer = self.answers.get((what, agent_id), ())
        if isinstance(answer, Exception):
            raise answer
        if callable(answer):
            return await answer(tokens)
        return answer
