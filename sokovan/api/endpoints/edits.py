"""Sessions that are there: edited while they wait, and submitted again."""

from dataclasses import replace
from typing import Annotated, Any

from fastapi import Request
from pydantic import Field
from starlette.responses import Response

from sokovan.api import answers
from sokovan.api.asked import Who, body_of, json_of
from sokovan.api.edits import Edits
from sokovan.api.models import (
    COUNT_MAX,
    SECONDS_MAX,
    Amount,
    Body,
    Seconds,
    WhereBody,
    check_shares,
    checked_body,
    epoch_of,
)
from sokovan.api.operation import Operation
from sokovan.api.texts import Label, Name
from sokovan.domain.access import Role
from sokovan.domain.errors import InvalidRequestError
from sokovan.domain.sessions import SessionSpec
from sokovan.domain.where import ANYWHERE, Where
from sokovan.domain.where_fields import fields_of, where_of

_SAME = (
    "name",
    "priority",
    "walltime_s",
    "pending_timeout_s",
    "requeue",
    "retries",
    "grace_s",
    "allow_infeasible",
)
"""What a submission has under the same name."""
BODY_BYTES_MAX = 1024 * 1024
"""Wishes may be long: see `WhereBody`."""
_AMOUNTS = ("cpu_milli", "mem_bytes", "gpu_shares", "gpu_mem_bytes_min")


def _left_out() -> Any:
    """Return a field that has no value of its own: what is left out stays as it is."""
    return Field(default_factory=lambda: None)


class EditBody(Body):
    """What is to change of what was submitted; what is left out stays, null is none at all."""

    name: Label = _left_out()
    priority: Annotated[int, Field(ge=-(2**31), lt=2**31)] = _left_out()
    cpu_milli: Amount = _left_out()
    mem_bytes: Amount = _left_out()
    gpu_shares: Amount = _left_out()
    gpu_mem_bytes_min: Amount = _left_out()
    walltime_s: Seconds | None = _left_out()
    pending_timeout_s: Seconds | None = _left_out()
    begin_at: Annotated[str, Field(max_length=64)] | None = _left_out()
    requeue: bool = _left_out()
    retries: Annotated[int, Field(ge=0, le=COUNT_MAX)] = _left_out()
    grace_s: Annotated[float, Field(ge=0, le=SECONDS_MAX)] = _left_out()
    where: WhereBody | None = _left_out()
    """What is left out of it stays, too; null takes back all that was said."""
    allow_infeasible: bool = _left_out()

    def of(self, spec: SessionSpec) -> SessionSpec:
        """Return `spec` as changed.

        Raises:
            InvalidRequestError: An amount, a time or a constraint that is none.
        """
        given = {name: getattr(self, name) for name in self.model_fields_set}
        changes = {name: given[name] for name in _SAME if name in given}
        if amounts := {name: given[name] for name in _AMOUNTS if name in given}:
            check_shares(amounts.get("gpu_shares", 0))
            changes["request"] = replace(spec.request, **amounts)
        if "begin_at" in given:
            changes["begin_at"] = epoch_of(self.begin_at, "begin_at")
        if "where" in given:
            changes["where"] = self._where(spec.where)
        return replace(spec, **changes)

    def _where(self, before: Where) -> Where:
        if self.where is None:
            return ANYWHERE
        self.where.value("")  # names the constraint that is not understood
        said = self.where.model_dump(include=self.where.model_fields_set)
        return where_of(fields_of(before) | said)


class RedoBody(EditBody):
    """What is to be different when a session is submitted again."""

    scaling_group: Name = _left_out()
    held: bool = False
    creation_id: Name | None = None

    def of(self, spec: SessionSpec) -> SessionSpec:
        spec = super().of(spec)
        if "scaling_group" in self.model_fields_set:
            spec = replace(spec, scaling_group=self.scaling_group)
        return replace(spec, held=self.held, creation_id=self.creation_id)


class EditEndpoints:
    """What is asked about sessions that are to be otherwise."""

    operations = (
        Operation(
            "PATCH",
            "/sessions/{ref}",
            "edit",
            (answers.Session,),
            (EditBody,),
            Role.USER,
            names_one=True,
        ),
        Operation(
            "POST",
            "/sessions/{ref}/redo",
            "redo",
            (answers.Session,),
            (RedoBody,),
            Role.USER,
            status=201,
            body_may_be_empty=True,
            names_one=True,
        ),
    )

    def __init__(self, edits: Edits) -> None:
        self._edits = edits

    async def edit(self, request: Request, ref: str, caller: Who) -> Response:
        """Change what was submitted of a session that waits; of one that runs, only its walltime.

        What it becomes is checked as a submission is.
        """
        asked = checked_body(EditBody, await body_of(request, BODY_BYTES_MAX))
        if not asked.model_fields_set:
            raise InvalidRequestError("there is nothing to change; say what")
        return json_of(await self._edits.edit(ref, asked.of, caller=caller))

    async def redo(self, request: Request, ref: str, caller: Who) -> Response:
        """Submit again what a session was, for the same owner, with these changes."""
        body = await body_of(request, BODY_BYTES_MAX)
        asked = checked_body(RedoBody, body) if body else RedoBody()
        said = asked.model_dump_json(exclude={"creation_id"}, exclude_unset=True)
        return json_of(await self._edits.redo(ref, asked.of, said, caller=caller), status=201)
