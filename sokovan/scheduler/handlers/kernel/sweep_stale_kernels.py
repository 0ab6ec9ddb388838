"""Kernels that nobody has heard of for a while: ask their agents."""

from collections.abc import Sequence

from sokovan.domain.sessions import SessionWithKernels
from sokovan.scheduler import stages
from sokovan.scheduler.calls import Answers, ask_agents, by_agent
from sokovan.scheduler.handlers.base import LifecycleHandler
from sokovan.scheduler.ports import AgentGateway
from sokovan.scheduler.results import NOTHING, SessionExecutionResult


class SweepStaleKernelsLifecycleHandler(LifecycleHandler):
    """Give each kernel the state that its agent states; no answer changes nothing."""

    stage = stages.SWEEP_STALE_KERNELS

    def __init__(self, gateway: AgentGateway, answers: Answers) -> None:
        self._gateway = gateway
        self._answers = answers

    async def execute(
        self, scaling_group: str, sessions: Sequence[SessionWithKernels]
    ) -> SessionExecutionResult:
        asked = by_agent(
            (kernel.agent_id, kernel.token)
            for session in sessions
            for kernel in session.kernels
            if kernel.status in stages.STALE_SWEPT and kernel.agent_id and kernel.token
        )
        await ask_agents(asked, self._gateway.states, self._answers)
        return NOTHING
