"""What placement works on, kept from pass to pass: a snapshot for each scaling group.

It follows the shadow step by step, so that a pass costs what has changed. A property proves that it
equals one built at once.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace

from sokovan.domain.cluster import Agent, ScalingGroup
from sokovan.domain.resources import Hold
from sokovan.domain.sessions import AgentId, SessionId, SessionWithKernels
from sokovan.domain.statuses import SessionStatus
from sokovan.placement.machines import Machines
from sokovan.placement.queue import Queue
from sokovan.placement.snapshot import Snapshot
from sokovan.scheduler.stages import SCHEDULE_SESSIONS


class Ground:
    """The snapshot of one group.

    Args:
        group: Its policy.
        sessions: All live sessions, kept by the shadow.
    """

    def __init__(self, group: ScalingGroup, sessions: dict[SessionId, SessionWithKernels]) -> None:
        self.snapshot = Snapshot(group, Machines(()), Queue(group), sessions, frozenset(), 0.0)
        self._agents: dict[AgentId, Agent] = {}
        self._is_stale = False

    def put_session(self, session: SessionWithKernels) -> None:
        """Take over a session as it is now."""
        queue = self.snapshot.queue
        if session.status is SessionStatus.PENDING:
            attempts = session.attempts.get(SCHEDULE_SESSIONS.name)
            queue.put(session, attempts.retry_at if attempts else 0.0)
        else:
            queue.drop(session.session_id)

    def put_agent(self, agent: Agent) -> None:
        """Take over an agent as placement is to see it."""
        self._agents[agent.agent_id] = agent
        if not self.snapshot.machines.put_agent(agent):
            self._is_stale = True

    def forget_agent(self, agent_id: AgentId) -> None:
        """Forget an agent that was removed."""
        if self._agents.pop(agent_id, None) is not None:
            self._is_stale = True

    def put_hold(self, hold: Hold) -> None:
        """Take over a hold as it is now."""
        self.snapshot.machines.put_hold(hold)

    def drop_hold(self, hold: Hold) -> None:
        """Forget a hold."""
        self.snapshot.machines.drop_hold(hold)

    def at(self, now: float, group: ScalingGroup, old: frozenset[SessionId]) -> Snapshot:
        """Return the snapshot at a moment; it is the same object every time."""
        snapshot = self.snapshot
        if group is not snapshot.group:
            self._take_policy(group)
        if self._is_stale:
            before = snapshot.machines
            snapshot.machines = Machines(
                self._agents.values(), group.agent_kernels_max, before.version + 1
            )
            for hold in before.holds.values():
                snapshot.machines.put_hold(hold)
            self._is_stale = False
        snapshot.group, snapshot.now, snapshot.waiting_for_old = group, now, old
        return snapshot

    def _take_policy(self, group: ScalingGroup) -> None:
        """Build anew what was built for another policy; that the cursor moves is none."""
        snapshot = self.snapshot
        if replace(group, last_agent_id=snapshot.group.last_agent_id) == snapshot.group:
            return
        snapshot.queue = snapshot.queue.under(group)
        snapshot.promises = {}
        snapshot.memory.clear()
        self._is_stale = True


class Grounds:
    """The grounds of all groups, made when first asked for.

    Args:
        sessions: All live sessions.
        seen_as: How placement is to see an agent.
    """

    def __init__(
        self, sessions: dict[SessionId, SessionWithKernels], seen_as: Callable[[Agent], Agent]
    ) -> None:
        self._sessions = sessions
        self._seen_as = seen_as
        self._of: dict[str, Ground] = {}

    def of(
        self,
        group: ScalingGroup,
        agents_of: Callable[[str], Iterable[Agent]],
        holds: Callable[[], Iterable[Hold]],
    ) -> Ground:
        """Return the ground of a group, built from all that is known if there is none yet.

        Args:
            group: Its policy.
            agents_of: Those of a group.
            holds: All there are: an agent may come from another group.
        """
        ground = self._of.get(group.name)
        if ground is None:
            ground = self._of[group.name] = Ground(group, self._sessions)
            for agent in agents_of(group.name):
                ground.put_agent(self._seen_as(agent))
            for hold in holds():
                ground.put_hold(hold)
            for session in self._sessions.values():
                if session.scaling_group == group.name:
                    ground.put_session(session)
        return ground

    def put_session(self, session: SessionWithKernels) -> None:
        """Take over a session as it is now."""
        if (ground := self._of.get(session.scaling_group)) is not None:
            ground.put_session(session)

    def drop_session(self, session: SessionWithKernels) -> None:
        """Forget a session."""
        if (ground := self._of.get(session.scaling_group)) is not None:
            ground.snapshot.queue.drop(session.session_id)

    def put_agent(self, agent: Agent) -> None:
        """Take over an agent as it is now; it may have come from another group."""
        for name, ground in self._of.items():
            if name == agent.scaling_group:
                ground.put_agent(self._seen_as(agent))
            else:
                ground.forget_agent(agent.agent_id)

    def forget_agent(self, agent_id: AgentId) -> None:
        """Forget an agent that was removed."""
        for ground in self._of.values():
            ground.forget_agent(agent_id)

    def put_hold(self, hold: Hold) -> None:
        """Take over a hold as it is now."""
        for ground in self._of.values():
            ground.put_hold(hold)

    def drop_hold(self, hold: Hold) -> None:
        """Forget a hold."""
        for ground in self._of.values():
            ground.drop_hold(hold)
