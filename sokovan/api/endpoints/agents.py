"""Agents: looked at, drained, labelled, forgotten."""

from fastapi import Request
from starlette.responses import Response

from sokovan.api import answers
from sokovan.api.asked import Who, body_of, json_of
from sokovan.api.models import DrainBody, LabelBody, read_drain, read_labels
from sokovan.api.operation import Operation
from sokovan.api.service import Service
from sokovan.domain.access import Role

ONE = (answers.Agent,)


class AgentEndpoints:
    """What is asked about agents."""

    operations = (
        Operation("GET", "/agents", "agents", (answers.Agents,)),
        Operation(
            "POST",
            "/agents/{agent_id}/drain",
            "drain",
            ONE,
            (DrainBody,),
            Role.ADMIN,
            body_may_be_empty=True,
            names_one=True,
        ),
        Operation(
            "POST", "/agents/{agent_id}/undrain", "undrain", ONE, needs=Role.ADMIN, names_one=True
        ),
        Operation(
            "POST",
            "/agents/{agent_id}/label",
            "label",
            ONE,
            (LabelBody,),
            Role.ADMIN,
            names_one=True,
        ),
        Operation("DELETE", "/agents/{agent_id}", "remove", ONE, needs=Role.ADMIN, names_one=True),
    )

    def __init__(self, service: Service) -> None:
        self._service = service

    async def agents(self) -> Response:
        """Return every agent: what it has, what is held, what is free."""
        return json_of({"items": await self._service.agents()})

    async def drain(self, request: Request, agent_id: str, caller: Who) -> Response:
        """Give an agent no new kernels, until `undrain`; those it has go on."""
        reason = read_drain(await body_of(request)).reason
        view = await self._service.set_drained(agent_id, caller=caller, drained=True, reason=reason)
        return json_of(view)

    async def undrain(self, agent_id: str, caller: Who) -> Response:
        """Give an agent new kernels again."""
        return json_of(await self._service.set_drained(agent_id, caller=caller, drained=False))

    async def label(self, request: Request, agent_id: str, caller: Who) -> Response:
        """Set labels of an agent, and take those away that are null; its settings lose to this."""
        labels = read_labels(await body_of(request))
        return json_of(await self._service.set_labels(agent_id, labels, caller=caller))

    async def remove(self, agent_id: str, caller: Who, force: bool = False) -> Response:
        """Forget an agent that is GONE, with `force` also the kernels that may still run there."""
        return json_of(await self._service.remove_agent(agent_id, caller=caller, force=force))
