"""What is alive, in memory: sessions that are not final, holds, agents.

The database is the truth; this is its shadow, moved after each commit by what was committed.
Stages load from it, so that a cycle with nothing to do costs no query and a pass costs no more
than it looks at. A shadow that has gone astray does no harm: a move decided on it no longer finds
its `status_seq`, is dropped, and the session is read again.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace

from sokovan.domain.cluster import Agent, AgentStatus, ScalingGroup
from sokovan.domain.reasons import Wait
from sokovan.domain.resources import Hold
from sokovan.domain.sessions import AgentId, SessionId, SessionWithKernels
from sokovan.domain.statuses import SessionStatus
from sokovan.placement.snapshot import Snapshot
from sokovan.scheduler.settle import NotedWait
from sokovan.store.grounds import Grounds


class Watcher:
    """Hears what happens to sessions, in the order of the commits; this one lets it pass."""

    def changed(self, before: SessionWithKernels | None, after: SessionWithKernels) -> None:
        """Hear that a session is new, or has come from one status to another."""

    def waited(self, scaling_group: str, code: str, seconds: float) -> None:
        """Hear for how long a session has waited for a reason that does not hold any more."""


class Live:
    """The live sessions by status, the holds by agent, and the agents."""

    def __init__(self) -> None:
        self.sessions: dict[SessionId, SessionWithKernels] = {}
        self.agents: dict[AgentId, Agent] = {}
        self.heard: set[AgentId] = set()
        """The agents that have introduced themselves to this manager."""
        self.waits: dict[SessionId, NotedWait] = {}
        """Why each session waits that was left alone in its present phase, and since when."""
        self.facts: dict[SessionId, Wait] = {}
        """The numbers behind that, as the last pass gave them."""
        self.watcher = Watcher()
        self._reasons: Counter[tuple[str, str]] = Counter()
        """How many wait, by group and noted reason."""
        self._by_status: dict[tuple[str, SessionStatus], dict[SessionId, None]] = defaultdict(dict)
        self._by_array: dict[str, dict[SessionId, None]] = defaultdict(dict)
        self._holds: dict[AgentId, dict[str, Hold]] = defaultdict(dict)
        self._leftovers: dict[str, Hold] = {}
        self._grounds = Grounds(self.sessions, self._as_placement_sees)

    def become(self, other: "Live") -> None:
        """Show what `other` shows; what only memory knows (waits, last contact) is kept.

        In place: those who are about to write hold on to this very object.
        """
        heard, connected = dict(self.agents), self.heard
        waits = {i: wait for i, wait in self.waits.items() if i in other.sessions}
        facts = {i: wait for i, wait in self.facts.items() if i in other.sessions}
        watcher = self.watcher
        self.__dict__.update(other.__dict__)
        self.waits, self.facts, self.heard, self.watcher = waits, facts, connected, watcher
        self._reasons = Counter(
            (self.sessions[i].scaling_group, wait.code) for i, wait in waits.items()
        )
        self._grounds = Grounds(self.sessions, self._as_placement_sees)
        self.put_agents(
            _as_heard(agent, heard.get(agent.agent_id)) for agent in list(self.agents.values())
        )

    def put_sessions(self, sessions: Iterable[SessionWithKernels]) -> None:
        """Take over sessions as they are now; those that have ended are forgotten."""
        for session in sessions:
            session_id = session.session_id
            before = self.sessions.get(session_id)
            if before is not None and before.status is not session.status:
                del self._by_status[before.scaling_group, before.status][session_id]
                self._end_wait(before, session.status_since)
            if session.status.is_final:
                self.sessions.pop(session_id, None)
                self._leave_array(session)
            else:
                self.sessions[session_id] = session
                self._by_status[session.scaling_group, session.status][session_id] = None
                if session.array_id is not None:
                    self._by_array[session.array_id][session_id] = None
            self._grounds.put_session(session)
            if before is None or before.status is not session.status:
                self.watcher.changed(before, session)

    def forget_session(self, session_id: SessionId) -> None:
        """Forget a session that the database does not have as live."""
        before = self.sessions.pop(session_id, None)
        if before is not None:
            del self._by_status[before.scaling_group, before.status][session_id]
            self._leave_array(before)
            self._grounds.drop_session(before)
            self._end_wait(before)

    def _leave_array(self, session: SessionWithKernels) -> None:
        if session.array_id is not None and (tasks := self._by_array.get(session.array_id)):
            tasks.pop(session.session_id, None)
            if not tasks:
                del self._by_array[session.array_id]

    def tasks_of(self, array_id: str) -> Iterator[SessionWithKernels]:
        """Iterate over the tasks of an array that have not ended."""
        return (self.sessions[i] for i in tuple(self._by_array.get(array_id, ())))

    def put_waits(self, waits: Mapping[SessionId, Wait], now: float) -> None:
        """Take over why sessions wait that a pass has looked at."""
        for session_id, wait in waits.items():
            session = self.sessions.get(session_id)
            if session is None:  # it ended meanwhile, and its wait with it
                continue
            before = self.waits.get(session_id)
            if before is None or before.code != wait.code:
                self._end_wait(session, now)
                self.waits[session_id] = NotedWait(wait.code.value, now)
                self._reasons[session.scaling_group, wait.code.value] += 1
            self.facts[session_id] = wait

    def _end_wait(self, session: SessionWithKernels, at: float | None = None) -> None:
        """Forget why a session waited, if that is known; `at` is when that was over."""
        wait = self.waits.pop(session.session_id, None)
        self.facts.pop(session.session_id, None)
        if wait is not None:
            self._reasons[session.scaling_group, wait.code] -= 1
            if at is not None:
                self.watcher.waited(session.scaling_group, wait.code, max(0.0, at - wait.since))

    def put_hold(self, hold: Hold) -> None:
        """Take over a hold as it is now."""
        self._holds[AgentId(hold.agent_id)][hold.token] = hold
        if hold.is_leftover:
            self._leftovers[hold.token] = hold
        self._grounds.put_hold(hold)

    def put_holds_of(self, session_ids: Collection[str], held: Iterable[Hold]) -> None:
        """Take over all holds of some sessions as they are now."""
        now = {hold.token: hold for hold in held}
        known = [self.sessions[i] for i in map(SessionId, session_ids) if i in self.sessions]
        on = {agent_id for session in known for agent_id in session.agent_ids}
        on |= {AgentId(hold.agent_id) for hold in self._leftovers.values()}
        before = [hold for a in on for hold in self.holds_on(a) if hold.session_id in session_ids]
        for hold in before:
            if hold.token not in now:
                self.drop_hold(hold)
        for hold in now.values():
            self.put_hold(hold)

    def drop_hold(self, hold: Hold) -> None:
        """Forget a hold."""
        self._holds[AgentId(hold.agent_id)].pop(hold.token, None)
        self._leftovers.pop(hold.token, None)
        self._grounds.drop_hold(hold)

    def put_agents(self, agents: Iterable[Agent]) -> None:
        """Take over agents as they are now."""
        for agent in agents:
            self.agents[agent.agent_id] = agent
            self._grounds.put_agent(agent)

    def put_stored(self, agents: Iterable[Agent]) -> None:
        """Take over all agents as the store has them; what only memory knows of them is kept."""
        there = {agent.agent_id: agent for agent in agents}
        for agent_id in self.agents.keys() - there.keys():
            self.forget_agent(agent_id)
        self.put_agents(
            _as_heard(agent, self.agents.get(agent_id)) for agent_id, agent in there.items()
        )

    def introduce(self, agent: Agent) -> None:
        """Take over an agent that has introduced itself to this manager."""
        self.heard.add(agent.agent_id)
        self.put_agents([agent])

    def hear(self, agents: Iterable[Agent]) -> None:
        """Believe of agents that they are what the store says: other managers hear of them."""
        for agent in list(agents):
            if agent.agent_id not in self.heard:
                self.introduce(agent)

    def unhear(self, groups: Collection[str]) -> None:
        """Wait for the agents of groups to introduce themselves to this manager."""
        for agent in list(self.agents.values()):
            if agent.scaling_group in groups:
                self.heard.discard(agent.agent_id)

    def put_drained(self, agent: Agent) -> None:
        """Take over whether an agent is drained; what only memory knows of it is kept."""
        known = self.agents.get(agent.agent_id, agent)
        self.put_agents(
            [replace(known, drained_since=agent.drained_since, drain_reason=agent.drain_reason)]
        )

    def forget_agent(self, agent_id: AgentId) -> None:
        """Forget an agent that was removed."""
        self.agents.pop(agent_id, None)
        self.heard.discard(agent_id)
        self._grounds.forget_agent(agent_id)

    def in_statuses(
        self, scaling_group: str, statuses: Iterable[SessionStatus]
    ) -> Iterator[SessionWithKernels]:
        """Iterate over the sessions of a group in any of `statuses`."""
        for status in sorted(statuses):
            for session_id in self._by_status.get((scaling_group, status), ()):
                yield self.sessions[session_id]

    def count_waiting(self, scaling_group: str, code: str) -> int:
        """Return how many sessions of a group wait for a reason, as passes have noted it."""
        return self._reasons[scaling_group, code]

    def count(self, scaling_group: str, statuses: Iterable[SessionStatus]) -> int:
        """Return how many sessions of a group are in any of `statuses`."""
        return sum(len(self._by_status.get((scaling_group, status), ())) for status in statuses)

    def holds_on(self, agent_id: AgentId) -> Iterable[Hold]:
        """Return the holds on an agent, leftovers included."""
        return self._holds.get(agent_id, {}).values()

    def leftovers(self) -> Iterable[Hold]:
        """Return every leftover."""
        return self._leftovers.values()

    def agents_of(self, scaling_group: str) -> list[Agent]:
        """Return the agents of a group by id."""
        return sorted(
            (agent for agent in self.agents.values() if agent.scaling_group == scaling_group),
            key=lambda agent: agent.agent_id,
        )

    def snapshot(self, group: ScalingGroup, now: float) -> Snapshot:
        """Return what placement works on; the same object every time, brought up to date."""
        ground = self._grounds.of(group, self.agents_of, self._all_holds)
        old = frozenset(
            SessionId(hold.session_id)
            for hold in self.leftovers()
            if self._may_still_run(AgentId(hold.agent_id))
        )
        return ground.at(now, group, old)

    def _all_holds(self) -> Iterator[Hold]:
        return (hold for held in self._holds.values() for hold in held.values())

    def _may_still_run(self, agent_id: AgentId) -> bool:
        agent = self.agents.get(agent_id)
        return agent is not None and agent.status is not AgentStatus.GONE

    def _as_placement_sees(self, agent: Agent) -> Agent:
        """An agent that is not heard of yet is lost to placement."""
        if agent.status is AgentStatus.ALIVE and agent.agent_id not in self.heard:
            return replace(agent, status=AgentStatus.LOST)
        return agent


def _as_heard(agent: Agent, before: Agent | None) -> Agent:
    """Return `agent` as the store knows it, with the times that memory knows better."""
    if before is None:
        return agent
    lost_since = agent.lost_since
    if lost_since is not None and before.lost_since is not None:
        lost_since = max(lost_since, before.lost_since)  # take-over starts the grace anew
    return replace(
        agent, last_seen_at=max(agent.last_seen_at, before.last_seen_at), lost_since=lost_since
    )
