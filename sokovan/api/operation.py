"""An operation of the API as a value: its address, its role, and what it takes and answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic import BaseModel

from sokovan.domain.access import Role

Kinds = tuple[type[BaseModel], ...]


@dataclass(frozen=True, slots=True)
class Operation:
    """One line of a table of endpoints."""

    method: str
    path: str
    name: str
    """Of the method that answers, and of the operation in the OpenAPI document."""
    answers: Kinds = ()
    """The shapes of a success; none where `content` says more."""
    bodies: Kinds = ()
    """The shapes of the request's body, if it has one."""
    needs: Role = Role.READ_ONLY
    """The least role; what belongs to somebody is guarded further by the service."""
    status: int = 200
    """Of a success."""
    body_may_be_empty: bool = False
    names_one: bool = False
    """Whether it names one session, agent or the like: there may be none, or several."""
    may_conflict: bool = False
    """Whether it may be answered with 409 although it names none."""
    may_be_gone: bool = False
    """Whether what it asks for may not be kept any more: 410."""
    content: Mapping[str, Any] = field(default_factory=dict)
    """The OpenAPI response object of a success that is not JSON."""


class Endpoints(Protocol):
    """Answers some operations, one method each."""

    @property
    def operations(self) -> tuple[Operation, ...]:
        """The table of them."""
        ...
