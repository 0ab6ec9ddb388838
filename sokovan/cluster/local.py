"""Agents on this machine, each a process of its own behind a Unix socket: the default home.

Answers to questions go to whoever asked. The agent repeats them as reports at its next heartbeat,
unless something newer was acknowledged meanwhile: a lost answer costs one heartbeat.
"""

import asyncio
import base64
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sokovan.agent.frames import directory_of, parts
from sokovan.agent.wire import (
    WireError,
    decode_report,
    encode_prepare,
    encode_start,
    encode_stop,
)
from sokovan.clock import Clock, SystemClock
from sokovan.cluster.keeper import POLL_S, AgentKeeper
from sokovan.cluster.link import Link, open_link
from sokovan.config import AgentConfig
from sokovan.domain.cluster import Agent
from sokovan.domain.errors import AgentError
from sokovan.domain.sessions import AgentId
from sokovan.scheduler.duty import Duty
from sokovan.scheduler.messages import (
    KernelReport,
    KernelToPrepare,
    KernelToStart,
    KernelToStop,
    OutputChunk,
)
from sokovan.scheduler.ports import AgentEventSink

LOOK_FOR_GUESTS_S = 0.5
"""How often a manager looks for agents of other homes that it is to drive."""
FRAME_ORDERS_MAX = 16
"""Most orders to start in one frame: the agent answers when it has begun all of them."""
FRAME_TOKENS_MAX = 1000
"""Most of anything else."""


class LocalHome:
    """Keeps the agents of this machine, and is the `AgentGateway` to them.

    Args:
        home: The home directory; each agent lives in `agents/NAME` below it.
        agents: The agents to keep.
        sink: Takes what they say.
        call_timeout_s: How long one call to an agent may take.
        clock: Waits between attempts.
        duty: Says what this manager is to a scaling group.
        known: Gives the agents that the store knows: those of other homes on this machine are
            connected to as well, where this manager drives their group.
    """

    def __init__(
        self,
        home: Path,
        agents: Iterable[AgentConfig],
        sink: AgentEventSink,
        *,
        call_timeout_s: float = 10.0,
        clock: Clock | None = None,
        duty: Callable[[str], Duty] = lambda _: Duty.LEADS,
        known: Callable[[], Collection[Agent]] = tuple,
    ) -> None:
        self._timeout_s = call_timeout_s
        self._clock = clock or SystemClock()
        self._sink = sink
        self._duty = duty
        self._known = known
        self._keepers = [
            AgentKeeper(
                home / "agents" / config.name,
                config.name,
                config,
                partial(duty, config.scaling_group),
                sink,
                self._clock,
            )
            for config in agents
        ]
        self._groups = {config.name: config.scaling_group for config in agents}
        self._guests: list[AgentKeeper] = []
        self._looks: dict[AgentId, Link] = {}
        """Connections to agents that other managers drive, to read output."""
        self._tasks: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        """Keep every agent alive and connected, until `aclose` or `stop_idle_agents`."""
        async with asyncio.TaskGroup() as group:
            self._tasks = [group.create_task(keeper.run()) for keeper in self._keepers]
            own = list(self._tasks)
            self._tasks.append(group.create_task(self._look_for_guests(group)))
            if own:
                await asyncio.gather(*own, return_exceptions=True)
                for task in self._tasks:
                    task.cancel()

    async def _look_for_guests(self, group: asyncio.TaskGroup) -> None:
        """Connect to the agents of other homes, those that there are and those that come."""
        seen = {keeper.directory for keeper in self._keepers}
        while True:
            for agent in list(self._known()):
                directory = directory_of(agent.address)
                if directory is None or directory in seen:
                    continue
                if self._duty(agent.scaling_group) is not Duty.LEADS:
                    continue
                seen.add(directory)
                duty = partial(self._duty, agent.scaling_group)
                guest = AgentKeeper(directory, agent.name, None, duty, self._sink, self._clock)
                self._guests.append(guest)
                self._tasks.append(group.create_task(guest.run()))
            await self._clock.sleep(LOOK_FOR_GUESTS_S)

    async def all_connected(self) -> None:
        """Wait until every agent is connected and registered that this manager is to drive."""
        while any(
            keeper.link is None and self._duty(self._groups[keeper.name]) is Duty.LEADS
            for keeper in self._keepers
        ):
            await self._clock.sleep(POLL_S)

    async def aclose(self) -> None:
        """Hang up; the agents and their kernels go on."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for link in self._looks.values():
            link.close()

    async def stop_idle_agents(self) -> Mapping[str, str]:
        """Ask the agents on which nothing lives to end.

        Returns:
            Why each of the others stays, by name.
        """
        staying = {}
        for keeper in self._keepers:
            try:
                async with asyncio.timeout(self._timeout_s):
                    live = await keeper.let_go()
            except (AgentError, TimeoutError) as error:
                staying[keeper.name] = str(error) or "it does not answer"
            else:
                if live:
                    staying[keeper.name] = f"{live} kernels live on it"
        return staying

    # --- AgentGateway -----------------------------------------------------------------------------

    async def prepare(
        self, agent_id: AgentId, kernels: Sequence[KernelToPrepare]
    ) -> Sequence[KernelReport]:
        return await self._ask_each(
            agent_id, "prepare", "kernels", [encode_prepare(kernel) for kernel in kernels]
        )

    async def start(
        self, agent_id: AgentId, kernels: Sequence[KernelToStart]
    ) -> Sequence[KernelReport]:
        return await self._ask_each(
            agent_id, "start", "kernels", [encode_start(kernel) for kernel in kernels]
        )

    async def stop(
        self, agent_id: AgentId, kernels: Sequence[KernelToStop]
    ) -> Sequence[KernelReport]:
        return await self._ask_each(
            agent_id, "stop", "kernels", [encode_stop(kernel) for kernel in kernels]
        )

    async def states(self, agent_id: AgentId, tokens: Sequence[str]) -> Sequence[KernelReport]:
        return await self._ask_each(agent_id, "states", "tokens", list(tokens))

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
        data, begin, size, ended = await self._ask_on(
            self._link_to(agent_id) or await self._look_at(agent_id),
            agent_id,
            "read",
            self._timeout_s + wait_s,
            token=token,
            stream=stream,
            offset=offset,
            bytes_max=bytes_max,
            wait_s=wait_s,
        )
        return OutputChunk(base64.b64decode(data), begin, size, ended)

    async def _ask_each(
        self, agent_id: AgentId, op: str, field: str, items: Sequence[Any]
    ) -> list[KernelReport]:
        """Ask about a batch, in as many frames as it takes."""
        count_max = FRAME_ORDERS_MAX if op == "start" else FRAME_TOKENS_MAX
        answers = await asyncio.gather(
            *(
                self._ask(agent_id, op, self._timeout_s, **{field: part})
                for part in parts(items, count_max)
            )
        )
        try:
            return [decode_report(row) for rows in answers for row in rows]
        except WireError as error:
            raise AgentError(f"agent {agent_id}: {error}") from error

    async def _ask(self, agent_id: AgentId, op: str, timeout_s: float, **fields: Any) -> Any:
        link = self._link_to(agent_id)
        if link is None:
            raise AgentError(f"agent {agent_id} is not connected")
        return await self._ask_on(link, agent_id, op, timeout_s, **fields)

    def _link_to(self, agent_id: AgentId) -> Link | None:
        keepers = (*self._keepers, *self._guests)
        return next((k.link for k in keepers if k.link and k.agent_id == agent_id), None)

    async def _look_at(self, agent_id: AgentId) -> Link:
        """Return a connection to an agent that another manager drives."""
        link = self._looks.get(agent_id)
        if link is not None and not (link.is_lost or link.is_silent):
            return link
        address = next((a.address for a in self._known() if a.agent_id == agent_id), "")
        directory = directory_of(address)
        if directory is None:
            raise AgentError(f"agent {agent_id} is not connected")
        try:
            link = self._looks[agent_id] = await open_link(directory)
        except OSError as error:
            raise AgentError(f"agent {agent_id} is not there: {error.strerror}") from error
        return link

    async def _ask_on(
        self, link: Link, agent_id: AgentId, op: str, timeout_s: float, **fields: Any
    ) -> Any:
        if link.is_silent:
            raise AgentError(f"agent {agent_id} has not answered the last question, nor said more")
        try:
            async with asyncio.timeout(timeout_s):
                return await link.ask(op, **fields)
        except TimeoutError:
            link.is_silent = True  # until it says anything: one that hangs must not hold up all
            raise AgentError(f"agent {agent_id} did not answer within {timeout_s:g} s") from None
