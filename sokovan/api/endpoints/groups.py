"""Scaling groups: looked at, made, given a policy, forgotten."""

from typing import Annotated, Any

from fastapi import Request
from pydantic import BaseModel, Field, PlainValidator, WithJsonSchema
from starlette.responses import Response

from sokovan.api.asked import Who, body_of, json_of
from sokovan.api.groups import Groups
from sokovan.api.models import Body, checked_body
from sokovan.api.operation import Operation
from sokovan.api.texts import Name
from sokovan.domain.access import Role

SETTINGS_MAX = 100


def _plain(value: Any) -> Any:
    if type(value) not in {str, int, float}:
        raise ValueError("should be a text or a number")
    return value


def _plain_or_none(value: Any) -> Any:
    return None if value is None else _plain(value)


_PLAIN: dict[str, Any] = {"anyOf": [{"type": "string"}, {"type": "number"}]}
_NONE: dict[str, Any] = {"anyOf": [*_PLAIN["anyOf"], {"type": "null"}]}
Value = Annotated[Any, PlainValidator(_plain), WithJsonSchema(_PLAIN)]
"""One error where a union would have one for each of its types."""
Change = Annotated[Any, PlainValidator(_plain_or_none), WithJsonSchema(_NONE)]
Settings = Annotated[dict[Name, Value], Field(max_length=SETTINGS_MAX)]
Changes = Annotated[dict[Name, Change], Field(min_length=1, max_length=SETTINGS_MAX)]


class GroupBody(Body):
    """A group to make."""

    name: Name
    policy: Settings = Field(default_factory=dict)
    """By the names of `[groups.NAME]`; a limit is `limits.STAGE.phase_s_max`."""


class PolicyBody(Body):
    """What to set of a group's policy; null takes back what was set."""

    policy: Changes


class Setting(BaseModel):
    """One part of a policy."""

    value: str | int | float
    source: str
    """`default`, the file with the line, or `groups set`."""


class GroupAmounts(BaseModel):
    """Amounts of all agents of a group that are not GONE."""

    cpu_milli: int
    mem_bytes: int
    gpu_shares: int


class Group(BaseModel):
    """A scaling group as it is now."""

    name: str
    source: str
    """`default`, the file with the line, `groups create`, or `live sessions`: of a group that is
    not in the settings any more, and ends with its sessions."""
    agents: int
    """Those that are not GONE."""
    capacity: GroupAmounts
    held: GroupAmounts
    waiting: int
    running: int
    """Those that are on agents, whatever they do there."""
    policy: dict[str, Setting]


class GroupList(BaseModel):
    """All groups, by name."""

    items: list[Group]


ONE = (Group,)
PATH = "/groups/{group}"


class GroupEndpoints:
    """What is asked about scaling groups."""

    operations = (
        Operation("GET", "/groups", "groups", (GroupList,)),
        Operation(
            "POST",
            "/groups",
            "create_group",
            ONE,
            (GroupBody,),
            Role.ADMIN,
            status=201,
            may_conflict=True,
        ),
        Operation("GET", PATH, "group", ONE, names_one=True),
        Operation("PATCH", PATH, "set_group", ONE, (PolicyBody,), Role.ADMIN, names_one=True),
        Operation("DELETE", PATH, "remove_group", ONE, needs=Role.ADMIN, names_one=True),
    )

    def __init__(self, groups: Groups) -> None:
        self._groups = groups

    async def groups(self) -> Response:
        """Return every scaling group: what its agents have, who waits, and its policy."""
        return json_of({"items": await self._groups.groups()})

    async def group(self, group: str) -> Response:
        """Return one scaling group."""
        return json_of(await self._groups.group(group))

    async def create_group(self, request: Request, caller: Who) -> Response:
        """Make a scaling group, beside those of the settings; it stays until it is removed."""
        asked = checked_body(GroupBody, await body_of(request))
        view = await self._groups.create(asked.name, asked.policy, caller=caller)
        return json_of(view, status=201)

    async def set_group(self, request: Request, group: str, caller: Who) -> Response:
        """Set some of a group's policy, at once and for good; the settings lose to this."""
        asked = checked_body(PolicyBody, await body_of(request))
        return json_of(await self._groups.set_policy(group, asked.policy, caller=caller))

    async def remove_group(self, group: str, caller: Who) -> Response:
        """Forget a group that was made here, and that has neither agents nor live sessions."""
        return json_of(await self._groups.remove(group, caller=caller))
