"""Asks agents to stop kernels."""

from collections.abc import Iterable, Sequence

from sokovan.domain.resources import Hold
from sokovan.domain.sessions import AgentId
from sokovan.scheduler.calls import Answers, ask_agents, by_agent, raise_for
from sokovan.scheduler.messages import KernelToStop
from sokovan.scheduler.ports import AgentGateway, TerminatingSessionData


class AgentTerminator:
    """The `SessionTerminator` that talks to real agents.

    Args:
        gateway: The way to the agents.
        answers: Takes what they answer.
    """

    def __init__(self, gateway: AgentGateway, answers: Answers) -> None:
        self._gateway = gateway
        self._answers = answers

    async def terminate_sessions_for_handler(
        self, terminating_sessions: Sequence[TerminatingSessionData]
    ) -> None:
        asked = by_agent(
            (kernel.agent_id, KernelToStop(kernel.token, session.grace_s, session.force))
            for session in terminating_sessions
            for kernel in session.kernels
        )
        sessions_on = by_agent(
            (kernel.agent_id, session.session_id)
            for session in terminating_sessions
            for kernel in session.kernels
        )
        errors = await ask_agents(asked, self._gateway.stop, self._answers)
        raise_for(errors, sessions_on)

    async def stop_leftovers(self, leftovers: Iterable[Hold]) -> None:
        """Ask for leftovers to be stopped; who does not answer is asked on next contact."""
        asked = by_agent((AgentId(hold.agent_id), KernelToStop(hold.token)) for hold in leftovers)
        await ask_agents(asked, self._gateway.stop, self._answers)
