"""A world to try one thing in: the real parts, and nothing goes wrong unless the test has it so."""

from collections.abc import Awaitable, Callable
from dataclasses import replace

from sokovan.domain.cluster import ScalingGroup
from sokovan.domain.errors import AgentError
from sokovan.domain.resources import Capacity, Request
from sokovan.domain.sessions import AgentId, SessionId, SessionSpec, SessionWithKernels
from sokovan.domain.statuses import SessionStatus
from sokovan.simulator.world import World

GIB = 1024**3
SPEC = SessionSpec(
    command=("simulated",), name="s", request=Request(cpu_milli=1000), allow_infeasible=True
)
A0, A1 = AgentId("agent-0"), AgentId("agent-1")
EVERY_STATUS = [
    "PENDING",
    "SCHEDULED",
    "PREPARING",
    "PREPARED",
    "CREATING",
    "RUNNING",
    "TERMINATING",
    "TERMINATED",
]


async def a_world(*, agents: int = 1, group: ScalingGroup | None = None) -> World:
    """Return a world at work, with agents of four cores."""
    world = World(machines=[Capacity(4000, 16 * GIB)] * agents, groups=[group or ScalingGroup()])
    await world.start_manager()
    await world.run_for(0.1)
    return world


def a_spec(**changes: object) -> SessionSpec:
    return replace(SPEC, **changes)


def session(world: World, session_id: SessionId) -> SessionWithKernels:
    """Return a session as the store has it."""
    return world.judge.picture.sessions[session_id]


def path(world: World, session_id: SessionId, kernel: int | None = None) -> list[str]:
    """Return the statuses that a session, or one of its kernels, has had."""
    kernel_id = None if kernel is None else session(world, session_id).kernels[kernel].kernel_id
    return [
        line.to_status
        for line in world.judge.picture.history[session_id]
        if line.kernel_id == kernel_id and line.from_status != line.to_status
    ]


def notes(world: World, session_id: SessionId) -> list[str]:
    """Return the reasons of what history notes without a change of status."""
    return [
        line.reason
        for line in world.judge.picture.history[session_id]
        if line.kernel_id is None and line.from_status == line.to_status
    ]


def waits(world: World, session_id: SessionId) -> str | None:
    """Return why a session waits."""
    assert world.manager is not None
    noted = world.manager.repository.live.waits.get(session_id)
    return None if noted is None else noted.code


async def until(
    world: World, session_id: SessionId, status: SessionStatus, *, seconds_max: float = 3600.0
) -> None:
    """Let time pass until a session is in a status."""
    came = await world.run_until(
        lambda: session(world, session_id).status is status, seconds_max=seconds_max
    )
    assert came, world.story([f"session {session_id} never became {status}"])


async def until_sent_back(
    world: World, session_id: SessionId, *, times: int = 1, seconds_max: float = 3600.0
) -> None:
    """Let time pass until a session has gone back to the queue so many times."""
    came = await world.run_until(
        lambda: session(world, session_id).requeues >= times, seconds_max=seconds_max
    )
    assert came, world.story([f"session {session_id} never went back"])


async def to_the_end(world: World, *, seconds_max: float = 7200.0) -> None:
    """Let time pass until nothing is left to be done, and see that all is well then."""
    await world.run_until(world.is_at_rest, seconds_max=seconds_max)
    found = world.check_at_rest()
    assert not found, world.story(found)
    assert not world.judge.running()


def failing(
    op: str, *agents: AgentId, times: int = 1000
) -> Callable[[AgentId, str], Awaitable[None]]:
    """Return what makes calls fail: those of one kind to some agents, so many times."""
    left = [times]

    async def fail(agent_id: AgentId, called: str) -> None:
        if called == op and (not agents or agent_id in agents) and left[0]:
            left[0] -= 1
            raise AgentError(f"{op} fails on purpose")

    return fail
