"""What is written about agents."""

from collections.abc import Mapping
from dataclasses import replace

from sokovan.domain.access import Caller
from sokovan.domain.cluster import Agent, AgentStatus
from sokovan.domain.sessions import AgentId
from sokovan.scheduler.messages import AgentHello
from sokovan.scheduler.moves import Applied
from sokovan.store.agents import (
    register,
    remove,
    save_drained,
    save_labels,
    save_status,
    what_follows,
)
from sokovan.store.engine import Transaction
from sokovan.store.following import Following


class AgentWrites(Following):
    """The part of the repository that is about agents."""

    async def register_agent(self, hello: AgentHello) -> Agent:
        """Take an agent in, with a new incarnation.

        Raises:
            LeaseLostError: Another manager drives its group.
        """

        def job(tx: Transaction) -> Agent:
            self._check_leases(tx, [hello.scaling_group])
            agent = register(tx, hello, self._clock.now())
            tx.news.agents = True
            tx.after_commit(lambda: self.live.introduce(agent))
            return agent

        return await self._write(job)

    async def set_agent_status(self, agent_id: AgentId, status: AgentStatus) -> Applied:
        """Note that an agent is back, lost, or given up, and do what follows for its sessions.

        LOST: what has not reached CREATING goes back to PENDING. GONE: the rest counts as gone.
        Neither happens to an agent that is heard of before it can be written.
        """
        before = self.live.agents[agent_id]

        def job(tx: Transaction) -> Applied:
            self._check_leases(tx, [before.scaling_group])
            seen_at = self.live.agents[agent_id].last_seen_at
            if status is not AgentStatus.ALIVE and seen_at > before.last_seen_at:
                return Applied()
            now = self._clock.now()
            agent = save_status(tx, agent_id, status, now=now, last_seen_at=seen_at)
            tx.news.agents = True
            tx.after_commit(lambda: self.live.put_agents([agent]))
            changes = self._changes(tx)
            what_follows(tx, changes, agent, self._groups)
            return changes.save()

        return await self._write(job)

    async def set_drained(
        self, agent_id: AgentId, *, drained: bool, reason: str = "", by: Caller | None = None
    ) -> Applied:
        """Give an agent no new kernels, or give it some again; its kernels go on.

        Raises:
            AgentNotFoundError: There is no such agent.
        """

        def job(tx: Transaction) -> Applied:
            now = self._clock.now()
            agent = save_drained(tx, agent_id, drained=drained, reason=reason, now=now)
            self._note(tx, by, "agent drain" if drained else "agent undrain", agent_id, reason)
            tx.news.agents = True
            tx.after_commit(lambda: self.live.put_drained(agent))
            return Applied(freed=frozenset({agent.scaling_group}))

        return await self._write(job)

    async def set_labels(
        self, agent_id: AgentId, changes: Mapping[str, str | None], *, by: Caller | None = None
    ) -> Applied:
        """Change what an administrator says of an agent; `None` takes a label away.

        Raises:
            AgentNotFoundError: There is no such agent.
            InvalidRequestError: It would have too many labels.
        """

        def job(tx: Transaction) -> Applied:
            agent = save_labels(tx, agent_id, changes)
            self._note(tx, by, "agent label", agent_id, " ".join(sorted(changes)))

            def shadow() -> None:  # what only memory knows of the agent is kept
                known = self.live.agents.get(agent_id, agent)
                self.live.put_agents([replace(known, labels=agent.labels)])

            tx.news.agents = True
            tx.after_commit(shadow)
            return Applied(freed=frozenset({agent.scaling_group}))

        return await self._write(job)

    async def remove_agent(
        self, agent_id: AgentId, *, force: bool = False, by: Caller | None = None
    ) -> Applied:
        """Forget an agent that is GONE, with `force` its leftovers too.

        Raises:
            AgentNotFoundError: There is no such agent.
            IllegalStateError: It is not GONE, or it has leftovers.
        """

        def job(tx: Transaction) -> Applied:
            self._check_leases(tx)
            changes = self._changes(tx)
            remove(tx, changes, agent_id, self._groups, force=force)
            applied = changes.save()
            self._note(tx, by, "agent remove", agent_id, "forced" if force else "")
            tx.news.agents = True
            tx.after_commit(lambda: self.live.forget_agent(agent_id))
            return applied

        return await self._write(job)

    def heard_of(self, agent_id: AgentId) -> None:
        """Note in memory that an agent is alive: a heartbeat is not worth a write."""
        agent = self.live.agents.get(agent_id)
        if agent is not None:
            self.live.put_agents([replace(agent, last_seen_at=self._clock.now())])
