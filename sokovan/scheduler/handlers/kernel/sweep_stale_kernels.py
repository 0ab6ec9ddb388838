"""Kernels that nobody has heard of for a while: ask their agents."""

from collections.abc import Sequence

from sokovan.domain.sessions import AgentId, SessionWithKernels
from sokovan.scheduler import stages
from sokovan.scheduler.calls import Answers, ask_agents, by_agent
from sokovan.scheduler.handlers.base import LifecycleHandler
from sokovan.scheduler.messages import KernelReport, KernelToStop, ReportState
from sokovan.scheduler.ports import AgentGateway
from sokovan.scheduler.results import NOTHING, SessionExecutionResult


class SweepStaleKernelsLifecycleHandler(LifecycleHandler):
    """Give each kernel the state that its agent states; no answer changes nothing.

    A kernel that is unknown counts as gone only when its agent has been told never to start it: an
    order may still be on its way.
    """

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
        await ask_agents(asked, self._states_for_good, self._answers)
        return NOTHING

    async def _states_for_good(
        self, agent_id: AgentId, tokens: Sequence[str]
    ) -> Sequence[KernelReport]:
        reports = await self._gateway.states(agent_id, tokens)
        unknown = [KernelToStop(r.token) for r in reports if r.state is ReportState.UNKNOWN]
        if not unknown:
            return reports
        stopped = {report.token: report for report in await self._gateway.stop(agent_id, unknown)}
        alive = {token: r for token, r in stopped.items() if r.state is not ReportState.ENDED}
        return [alive.get(report.token, report) for report in reports]
