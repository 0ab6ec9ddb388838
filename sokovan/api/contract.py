"""The contract: what each address takes and answers, as the OpenAPI document says it."""

from collections.abc import Iterator, Sequence
from http import HTTPStatus
from typing import Any

from sokovan.api import answers
from sokovan.api.operation import Kinds, Operation
from sokovan.api.problems import MEDIA_TYPE
from sokovan.api.service import SESSION_FIELDS
from sokovan.domain.access import Role

REF = "#/components/schemas/{model}"


def described(operation: Operation) -> dict[str, Any]:
    """Return what an operation says of itself beyond its parameters, as FastAPI takes it."""
    extra: dict[str, Any] = {"security": [{"token": []}], "x-sokovan-role": operation.needs.value}
    if operation.bodies:
        extra["requestBody"] = {
            "required": not operation.body_may_be_empty,
            "content": {"application/json": {"schema": _any_of(operation.bodies)}},
        }
    success = {
        operation.status: dict(operation.content)
        or {"content": {"application/json": {"schema": _any_of(operation.answers)}}}
    }
    return {
        "operation_id": operation.name,
        "status_code": operation.status,
        "responses": success | {s: _problem(s) for s in _refusals(operation)},
        "openapi_extra": extra,
    }


def probe(name: str, *refusals: int) -> dict[str, Any]:
    """Return the same of an address that needs no token."""
    content = {"text/plain": {"schema": {"type": "string"}}}
    responses = {200: {"content": content}} | {s: _problem(s) for s in refusals}
    return {"operation_id": name, "responses": responses}


def complete(document: dict[str, Any], operations: Sequence[Operation]) -> None:
    """Add to what FastAPI has found: the token, and every schema that the operations name."""
    components = document.setdefault("components", {})
    components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    schemas = components.setdefault("schemas", {})
    named: list[Kinds] = [(answers.Problem,)]
    named += [kinds for operation in operations for kinds in (operation.answers, operation.bodies)]
    for kind in (kind for kinds in named for kind in kinds):
        schema = kind.model_json_schema(ref_template=REF)
        schemas |= schema.pop("$defs", {})
        schemas[kind.__name__] = schema
    for name, meaning in SESSION_FIELDS.items():
        schemas["Session"]["properties"][name]["description"] = meaning
    components["schemas"] = dict(sorted(schemas.items()))


def _refusals(operation: Operation) -> Iterator[int]:
    """Yield the statuses other than success that an operation may answer with."""
    yield 401
    if operation.needs is not Role.READ_ONLY or operation.names_one:
        yield 403
    if operation.names_one:
        yield 404
    if operation.names_one or operation.may_conflict:
        yield 409
    if operation.may_be_gone:
        yield 410
    if operation.bodies:
        yield 413
    yield from (422, 429, 500, 503)


def _problem(status: int) -> dict[str, Any]:
    problem: dict[str, Any] = {
        "description": HTTPStatus(status).phrase,
        "content": {MEDIA_TYPE: {"schema": {"$ref": REF.format(model="Problem")}}},
    }
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        wait = {"description": "seconds to wait", "schema": {"type": "integer", "minimum": 1}}
        problem["headers"] = {"Retry-After": wait}
    return problem


def _any_of(kinds: Kinds) -> dict[str, Any]:
    refs = [{"$ref": REF.format(model=kind.__name__)} for kind in kinds]
    return refs[0] if len(refs) == 1 else {"anyOf": refs}
