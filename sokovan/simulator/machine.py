"""A simulated machine: how its agent introduces itself, and what runs kernels there."""

from collections.abc import Callable
from dataclasses import dataclass

from sokovan.agent.timers import Timers
from sokovan.clock import Clock
from sokovan.config import AgentConfig
from sokovan.domain.resources import Capacity
from sokovan.domain.sessions import AgentId
from sokovan.scheduler.messages import AgentHello, KernelToPrepare, KernelToStart
from sokovan.simulator.runtime import FakeRuntime, Script

CUT_OFF_MARGIN_S = 30.0
"""So much before its grace is over, an agent that is cut off stops what will be requeued."""


@dataclass(frozen=True, slots=True)
class Machine:
    """All that is of one machine."""

    hello: AgentHello
    config: AgentConfig
    runtime: FakeRuntime
    timers: Timers


def new_machine(
    clock: Clock,
    hello: AgentHello,
    grace_s: float,
    script_for: Callable[[KernelToPrepare | KernelToStart], Script],
) -> Machine:
    """Return a machine on which nothing has run yet.

    Args:
        clock: The time.
        hello: How its agent introduces itself.
        grace_s: How long its kernels count once it is lost.
        script_for: What kernels do.
    """
    timers = Timers(clock)
    runtime = FakeRuntime(clock, timers, hello.capacity, script_for)
    config = AgentConfig(
        name=hello.agent_id,
        scaling_group=hello.scaling_group,
        cut_off_stop_s=grace_s - CUT_OFF_MARGIN_S,
    )
    return Machine(hello, config, runtime, timers)


def hello_of(
    agent_id: AgentId, capacity: Capacity, scaling_group: str, address: str = ""
) -> AgentHello:
    """Return how an agent introduces itself; its id is nobody's name.

    Who asks twice means the same agent.
    """
    address = address or agent_id
    return AgentHello(
        agent_id,
        name=f"on {address}",
        capacity=capacity,
        scaling_group=scaling_group,
        address=address,
    )
