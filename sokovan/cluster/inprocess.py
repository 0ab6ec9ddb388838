"""Agents in this very process, for tests and the simulator: no threads, no sockets, no waiting.

Everything that happens, happens inside `run_once`, in a fixed order; with a `ManualClock` and a
scripted runtime two runs are the same to the last report. An agent can be cut off, crash and come
back, while its machine (its runtime) goes on.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from sokovan.agent.agent import Agent
from sokovan.agent.runtime import Runtime
from sokovan.agent.timers import Timers
from sokovan.clock import Clock
from sokovan.config import AgentConfig
from sokovan.domain.errors import AgentError
from sokovan.domain.sessions import AgentId
from sokovan.scheduler.messages import (
    AgentHello,
    KernelReport,
    KernelToPrepare,
    KernelToStart,
    KernelToStop,
    OutputChunk,
)
from sokovan.scheduler.ports import AgentEventSink

log = logging.getLogger(__name__)

PAUSE_S = 0.01
"""How long `run` sleeps between two rounds."""


@dataclass(slots=True)
class Place:
    """One machine, and the agent on it when there is one."""

    hello: AgentHello
    config: AgentConfig
    runtime: Runtime
    machine: Timers
    """Drives the runtime, whether or not there is an agent."""
    timers: Timers
    """Drives the agent; gone with it."""
    agent: Agent | None = None
    is_reachable: bool = True
    incarnation: int | None = None
    """Set while it is registered."""
    beat_at: float = 0.0


class InProcessHome:
    """The `AgentGateway` to agents that are objects, and what brings their reports to the sink.

    Args:
        sink: Takes what the agents say.
        clock: Tells all of them the time.
    """

    def __init__(self, sink: AgentEventSink, clock: Clock) -> None:
        self._sink = sink
        self._clock = clock
        self._places: dict[AgentId, Place] = {}

    # --- what happens to agents -------------------------------------------------------------------

    def add(
        self,
        hello: AgentHello,
        runtime: Runtime,
        *,
        machine: Timers,
        config: AgentConfig | None = None,
    ) -> None:
        """Add a machine, and start its agent.

        Args:
            hello: How the agent introduces itself; its capacity is the runtime's.
            runtime: Runs the kernels.
            machine: The timers that the runtime was made with.
            config: The agent's limits.
        """
        self._places[hello.agent_id] = Place(
            hello=hello,
            config=config or AgentConfig(),
            runtime=runtime,
            machine=machine,
            timers=Timers(self._clock),
        )
        self.restart(hello.agent_id)

    def cut_off(self, agent_id: AgentId) -> None:
        """Let nothing pass between the agent and the manager."""
        place = self._places[agent_id]
        place.is_reachable, place.incarnation = False, None

    def mend(self, agent_id: AgentId) -> None:
        """Let the agent be reached again; it registers in the next round."""
        self._places[agent_id].is_reachable = True

    def crash(self, agent_id: AgentId) -> None:
        """End the agent without a word; its kernels go on."""
        place = self._places[agent_id]
        place.runtime.close()
        place.agent, place.incarnation = None, None

    def restart(self, agent_id: AgentId) -> None:
        """Start an agent on a machine that has none; it registers in the next round."""
        place = self._places[agent_id]
        assert place.agent is None, "it has not crashed"
        place.timers = Timers(self._clock)
        place.agent = Agent(
            place.hello,
            config=place.config,
            runtime=place.runtime,
            clock=self._clock,
            timers=place.timers,
        )
        place.agent.recover()

    def disconnect(self) -> None:
        """Have every agent register anew in the next round, as after a restart of the manager."""
        for place in self._places.values():
            place.incarnation = None

    # --- the passage of time ----------------------------------------------------------------------

    def due_at(self) -> float:
        """Return the earliest time at which a round has something to do; it may be past."""
        times = [self._clock.now() + 3600.0]
        for place in self._places.values():
            times += [place.machine.due_at(), place.timers.due_at()]
            if place.agent is not None and place.is_reachable:
                times.append(0.0 if place.incarnation is None else place.beat_at)
                if place.agent.has_news():
                    times.append(0.0)
        return min(times)

    async def run_once(self) -> None:
        """Do all that is due by now, and bring what the agents have to say to the sink."""
        for place in list(self._places.values()):
            place.machine.run_due()
            if place.agent is not None:
                place.timers.run_due()
                if place.is_reachable:
                    await self._talk(place, place.agent)

    async def run(self) -> None:
        """Go round for ever, on a clock that goes by itself."""
        while True:
            try:
                await self.run_once()
            except Exception:
                log.exception("the agents could not be heard")
                self.disconnect()
            await self._clock.sleep(PAUSE_S)

    async def _talk(self, place: Place, agent: Agent) -> None:
        agent_id = place.hello.agent_id
        if place.incarnation is None:
            place.incarnation = await self._sink.connected(place.hello)
            place.beat_at = self._clock.now()
        incarnation = place.incarnation
        beats = place.beat_at <= self._clock.now()
        reports = agent.unacknowledged() if beats else agent.news()
        if reports:
            await self._sink.reported(agent_id, incarnation, reports)
            agent.heard()
            if place.agent is agent:
                agent.acknowledge(reports)
        if beats:
            place.beat_at = self._clock.now() + place.config.heartbeat_s
            try:
                await self._sink.heartbeat(agent_id, incarnation, agent.live_tokens())
            except AgentError:
                place.incarnation = None  # it is to introduce itself again
            else:
                agent.heard()

    # --- AgentGateway -----------------------------------------------------------------------------

    async def prepare(
        self, agent_id: AgentId, kernels: Sequence[KernelToPrepare]
    ) -> Sequence[KernelReport]:
        return await self._reached(agent_id).prepare(kernels)

    async def start(
        self, agent_id: AgentId, kernels: Sequence[KernelToStart]
    ) -> Sequence[KernelReport]:
        return await self._reached(agent_id).start(kernels)

    async def stop(
        self, agent_id: AgentId, kernels: Sequence[KernelToStop]
    ) -> Sequence[KernelReport]:
        return await self._reached(agent_id).stop(kernels)

    async def states(self, agent_id: AgentId, tokens: Sequence[str]) -> Sequence[KernelReport]:
        return await self._reached(agent_id).states(tokens)

    async def read_output(
        self,
        agent_id: AgentId,
        token: str,
        stream: str,
        *,
        offset: int,
        bytes_max: int,
        wait_s: float,
    ) -> OutputChunk:
        agent = self._reached(agent_id)
        return await agent.read_output(
            token, stream, offset=offset, bytes_max=bytes_max, wait_s=wait_s
        )

    def _reached(self, agent_id: AgentId) -> Agent:
        place = self._places.get(agent_id)
        if place is None or place.agent is None or not place.is_reachable:
            raise AgentError(f"agent {agent_id} is not connected")
        return place.agent
