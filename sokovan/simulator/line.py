"""One manager's way to the simulated agents."""

from collections.abc import Callable, Sequence

from sokovan.domain.sessions import AgentId
from sokovan.scheduler.messages import (
    KernelReport,
    KernelToPrepare,
    KernelToStart,
    KernelToStop,
    OutputChunk,
)
from sokovan.simulator.network import Network


class Line:
    """The `AgentGateway` of one manager.

    Args:
        network: The way to the agents.
        is_late: Says whether another manager has come after this one.
    """

    def __init__(self, network: Network, is_late: Callable[[], bool]) -> None:
        self._network = network
        self._is_late = is_late

    async def prepare(
        self, agent_id: AgentId, kernels: Sequence[KernelToPrepare]
    ) -> Sequence[KernelReport]:
        return await self._network.call(agent_id, "prepare", kernels, self._is_late)

    async def start(
        self, agent_id: AgentId, kernels: Sequence[KernelToStart]
    ) -> Sequence[KernelReport]:
        return await self._network.call(agent_id, "start", kernels, self._is_late)

    async def stop(
        self, agent_id: AgentId, kernels: Sequence[KernelToStop]
    ) -> Sequence[KernelReport]:
        return await self._network.call(agent_id, "stop", kernels, self._is_late)

    async def states(self, agent_id: AgentId, tokens: Sequence[str]) -> Sequence[KernelReport]:
        return await self._network.call(agent_id, "states", tokens, self._is_late)

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
        return await self._network.read_output(
            agent_id, token, stream, offset=offset, bytes_max=bytes_max, wait_s=wait_s
        )
