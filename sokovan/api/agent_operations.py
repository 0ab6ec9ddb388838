"""What users and administrators do with agents."""

from collections.abc import Mapping

from sokovan.api.lookup import Lookup
from sokovan.api.service import View
from sokovan.domain.access import Caller
from sokovan.domain.cluster import Agent
from sokovan.domain.errors import AgentNotFoundError, AmbiguousIdError
from sokovan.domain.sessions import AgentId
from sokovan.store.queries import agent_view


class AgentOperations(Lookup):
    """The part of the `Service` that is about agents."""

    async def agents(self) -> list[View]:
        live = self._repository.live
        by_name = sorted(live.agents.values(), key=lambda a: (a.name, a.agent_id))
        return [self._agent_view(agent.agent_id) for agent in by_name]

    async def set_drained(
        self, agent: str, *, caller: Caller, drained: bool, reason: str = ""
    ) -> View:
        agent_id = self._agent(agent).agent_id
        applied = await self._repository.set_drained(
            agent_id, drained=drained, reason=reason, by=caller
        )
        self._tell(applied)
        return self._agent_view(agent_id)

    async def set_labels(
        self, agent: str, changes: Mapping[str, str | None], *, caller: Caller
    ) -> View:
        agent_id = self._agent(agent).agent_id
        self._tell(await self._repository.set_labels(agent_id, changes, by=caller))
        return self._agent_view(agent_id)

    async def remove_agent(self, agent: str, *, caller: Caller, force: bool = False) -> View:
        found = self._agent(agent)
        view = self._agent_view(found.agent_id)
        self._tell(await self._repository.remove_agent(found.agent_id, force=force, by=caller))
        return view

    def _agent(self, ref: str) -> Agent:
        known = self._repository.live.agents
        named = [agent for agent in known.values() if agent.name == ref]
        if ref in known:
            return known[AgentId(ref)]
        if not named:
            raise AgentNotFoundError(f"there is no agent {ref!r}; `sokovan agents` lists them")
        if len(named) > 1:
            ids = ", ".join(f"{agent.agent_id} ({agent.status})" for agent in named)
            raise AmbiguousIdError(f"{ref!r} could be {ids}; name it by its id")
        return named[0]

    def _agent_view(self, agent_id: AgentId) -> View:
        live = self._repository.live
        return agent_view(live.agents[agent_id], live.holds_on(agent_id))
