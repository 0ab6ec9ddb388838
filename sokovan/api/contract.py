"""The contract: what each address takes and answers, as the OpenAPI document says it."""

from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel

from sokovan.api import answers
from sokovan.api.models import CancelBody, DrainBody, LabelBody, SessionBody, SessionsBody
from sokovan.api.problems import MEDIA_TYPE
from sokovan.api.service import SESSION_FIELDS

Kinds = tuple[type[BaseModel], ...]

REF = "#/components/schemas/{model}"
_BINARY = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_OUTPUT_HEADERS = {
    "x-sokovan-offset": ("where the answer begins", "integer", True),
    "x-sokovan-size": ("how long the stream is by now; not with `follow`", "integer", False),
    "x-sokovan-ended": ("whether nothing follows that; not with `follow`", "boolean", False),
}
_ANSWERS: Mapping[str, Kinds] = {
    "submit": (answers.Session, answers.Sessions),
    "dry_run": (answers.DryRun, answers.DryRuns),
    "sessions": (answers.Page,),
    "session": (answers.Session,),
    "history": (answers.History,),
    "why": (answers.Why,),
    "eta": (answers.Eta,),
    "wait": (answers.Session,),
    "cancel": (answers.Cancelled,),
    "hold": (answers.Session,),
    "release": (answers.Session,),
    "agents": (answers.Agents,),
    "drain": (answers.Agent,),
    "undrain": (answers.Agent,),
    "label": (answers.Agent,),
    "remove": (answers.Agent,),
    "status": (answers.Status,),
    "stop": (answers.Stopping,),
}
_BODIES: Mapping[str, Kinds] = {
    "submit": (SessionBody, SessionsBody),
    "dry_run": (SessionBody, SessionsBody),
    "cancel": (CancelBody,),
    "drain": (DrainBody,),
    "label": (LabelBody,),
}
_OF_ONE_SESSION = frozenset(
    {"session", "history", "why", "eta", "wait", "output", "cancel", "hold", "release"}
)
_OF_ONE_AGENT = frozenset({"drain", "undrain", "label", "remove"})


def operation(name: str) -> dict[str, Any]:
    """Return what an operation says of itself beyond its parameters, as FastAPI takes it."""
    success = 201 if name == "submit" else 200
    extra: dict[str, Any] = {"security": [{"token": []}]}
    if name in _BODIES:
        extra["requestBody"] = {
            "required": name in {"submit", "dry_run", "label"},
            "content": {"application/json": {"schema": _any_of(_BODIES[name])}},
        }
    return {
        "operation_id": name,
        "status_code": success,
        "responses": {success: _success(name)} | {s: _problem(s) for s in _refusals(name)},
        "openapi_extra": extra,
    }


def healthz() -> dict[str, Any]:
    """Return the same of the one address that needs no token."""
    content = {"text/plain": {"schema": {"type": "string"}}}
    return {"operation_id": "healthz", "responses": {200: {"content": content}}}


def complete(document: dict[str, Any]) -> None:
    """Add to what FastAPI has found: the token, and every schema that the operations name."""
    components = document.setdefault("components", {})
    components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    schemas = components.setdefault("schemas", {})
    named: list[Kinds] = [*_ANSWERS.values(), *_BODIES.values(), (answers.Problem,)]
    for kind in (kind for kinds in named for kind in kinds):
        schema = kind.model_json_schema(ref_template=REF)
        schemas |= schema.pop("$defs", {})
        schemas[kind.__name__] = schema
    for name, meaning in SESSION_FIELDS.items():
        schemas["Session"]["properties"][name]["description"] = meaning
    components["schemas"] = dict(sorted(schemas.items()))


def _success(name: str) -> dict[str, Any]:
    if name != "output":
        return {"content": {"application/json": {"schema": _any_of(_ANSWERS[name])}}}
    headers = {
        header: {"description": meaning, "required": required, "schema": {"type": kind}}
        for header, (meaning, kind, required) in _OUTPUT_HEADERS.items()
    }
    return {"content": _BINARY, "headers": headers}


def _refusals(name: str) -> Iterator[int]:
    """Yield the statuses other than success that an operation may answer with."""
    yield 401
    if name in _OF_ONE_SESSION | _OF_ONE_AGENT:
        yield 404
    if name in _OF_ONE_SESSION | _OF_ONE_AGENT or name == "submit":
        yield 409
    if name in _BODIES:
        yield 413
    yield from (422, 500, 503)


def _problem(status: int) -> dict[str, Any]:
    return {
        "description": HTTPStatus(status).phrase,
        "content": {MEDIA_TYPE: {"schema": {"$ref": REF.format(model="Problem")}}},
    }


def _any_of(kinds: Kinds) -> dict[str, Any]:
    refs = [{"$ref": REF.format(model=kind.__name__)} for kind in kinds]
    return refs[0] if len(refs) == 1 else {"anyOf": refs}
