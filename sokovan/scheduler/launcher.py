"""Asks agents to pull images and to start kernels."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from sokovan.domain.sessions import AgentId
from sokovan.scheduler.calls import Answers, ask_agents, by_agent, raise_for
from sokovan.scheduler.messages import KernelReport, KernelToPrepare, KernelToStart
from sokovan.scheduler.ports import AgentGateway, SessionDataForPull, SessionDataForStart

K = TypeVar("K", KernelToPrepare, KernelToStart)


class AgentLauncher:
    """The `SessionLauncher` that talks to real agents: all of them at once, each in one call.

    A session fails when any of its agents does; the other agents may have started their kernels by
    then. That is no harm: the next attempt has the same tokens, and an agent runs a token once.

    Args:
        gateway: The way to the agents.
        answers: Takes what they answer.
    """

    def __init__(self, gateway: AgentGateway, answers: Answers) -> None:
        self._gateway = gateway
        self._answers = answers

    async def trigger_image_pulling(
        self, sessions: Sequence[SessionDataForPull], image_configs: Mapping[str, Any]
    ) -> None:
        kernels = [kernel for session in sessions for kernel in session.kernels]
        await self._ask(kernels, self._gateway.prepare)

    async def start_sessions_for_handler(
        self, sessions: Sequence[SessionDataForStart], image_configs: Mapping[str, Any]
    ) -> None:
        kernels = [kernel for session in sessions for kernel in session.kernels]
        await self._ask(kernels, self._gateway.start)

    async def _ask(
        self,
        kernels: Sequence[K],
        call: Callable[[AgentId, Sequence[K]], Awaitable[Sequence[KernelReport]]],
    ) -> None:
        asked = by_agent((kernel.agent_id, kernel) for kernel in kernels)
        errors = await ask_agents(asked, call, self._answers)
        raise_for(errors, {a: [k.session_id for k in asked[a]] for a in errors})
