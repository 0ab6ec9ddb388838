"""What agents say, as it comes in: hello, heartbeats, reports, answers."""

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

import structlog

from sokovan.domain.cluster import AgentStatus
from sokovan.domain.errors import AgentError
from sokovan.domain.sessions import AgentId
from sokovan.scheduler.calls import keep
from sokovan.scheduler.messages import AgentHello, Answer, KernelReport
from sokovan.scheduler.moves import Applied
from sokovan.scheduler.ports import SchedulerStore
from sokovan.scheduler.stages import SCHEDULE_SESSIONS, STALE_SWEPT, SWEEP_STALE_KERNELS, Stage

log = structlog.get_logger(__name__)


class AgentEvents:
    """The `AgentEventSink`: records what agents say and says what there is to do about it.

    Args:
        store: Records it.
        tell: Takes what a record has changed.
        hint: Tells that a stage of a group has work.
        stop_leftovers: Asks for the leftovers to be stopped.
        beside: Does something without being waited for.
    """

    def __init__(
        self,
        store: SchedulerStore,
        tell: Callable[[Applied], None],
        hint: Callable[[str, Stage], None],
        stop_leftovers: Callable[[], None],
        beside: Callable[[Coroutine[Any, Any, None]], Awaitable[None]],
    ) -> None:
        self._store = store
        self._tell = tell
        self._hint = hint
        self._stop_leftovers = stop_leftovers
        self._beside = beside

    async def connected(self, hello: AgentHello) -> int:
        """Register an agent, durably; return the incarnation its reports must carry."""
        self._store.heard_of(hello.agent_id)  # it is there, even if that cannot be written now
        agent = await self._store.register_agent(hello)
        log.info("agent connected", agent=agent.name, incarnation=agent.incarnation)
        self._hint(agent.scaling_group, SCHEDULE_SESSIONS)
        self._hint(agent.scaling_group, SWEEP_STALE_KERNELS)
        self._stop_leftovers()
        return agent.incarnation

    async def heartbeat(self, agent_id: AgentId, incarnation: int, tokens: Sequence[str]) -> None:
        """Note that an agent is alive; look after kernels that it does not list.

        Raises:
            AgentError: It was removed while it was silent, or another manager had its group for a
                while; it has to introduce itself again.
        """
        agent = self._store.live.agents.get(agent_id)
        if agent is None:
            raise AgentError(f"agent {agent_id} is not known any more; it is asked who it is")
        is_current = agent.incarnation == incarnation
        if is_current:
            self._store.heard_of(agent_id)
        if agent_id not in self._store.live.heard:
            raise AgentError(f"agent {agent.name} may have had another manager; it is asked again")
        if not is_current:
            return
        if agent.status is not AgentStatus.ALIVE:
            log.info("agent is back", agent=agent.name)
            self._tell(await self._store.set_agent_status(agent_id, AgentStatus.ALIVE))
            self._hint(agent.scaling_group, SCHEDULE_SESSIONS)
        if self._expected_on(agent_id) - set(tokens):
            self._hint(agent.scaling_group, SWEEP_STALE_KERNELS)
        if any(hold.is_leftover for hold in self._store.live.holds_on(agent_id)):
            self._stop_leftovers()

    async def reported(
        self, agent_id: AgentId, incarnation: int, reports: Sequence[KernelReport]
    ) -> None:
        """Record reports; returns when they are durable, so that they may be acknowledged."""
        if reports:
            agent = self._store.live.agents.get(agent_id)
            if agent is not None and agent.incarnation == incarnation:
                self._store.heard_of(agent_id)
            self._tell(await self._store.record_reports(agent_id, incarnation, reports))

    async def answered(self, agent_id: AgentId, reports: Sequence[KernelReport]) -> None:
        """Record what an agent answered over its present connection.

        With what the asking stage has to save, or beside it. An answer that is lost is repeated as
        a report.
        """
        agent = self._store.live.agents.get(agent_id)
        if agent is None:
            return
        if reports and keep(Answer(agent_id, agent.incarnation, reports)):
            self._store.heard_of(agent_id)
        else:
            await self._beside(self.reported(agent_id, agent.incarnation, reports))

    def _expected_on(self, agent_id: AgentId) -> set[str]:
        sessions = self._store.live.sessions
        return {
            kernel.token
            for session_id in {hold.session_id for hold in self._store.live.holds_on(agent_id)}
            if (session := sessions.get(session_id)) is not None  # type: ignore[call-overload]
            for kernel in session.kernels
            if kernel.agent_id == agent_id and kernel.token and kernel.status in STALE_SWEPT
        }
