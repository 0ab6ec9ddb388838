"""What the API answers when something is wrong: RFC 9457 problem objects."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import to_json
from starlette.responses import Response

from sokovan.domain.errors import (
    InvalidRequestError,
    ServerUnreachableError,
    SokovanError,
    StoreUnavailableError,
)

MEDIA_TYPE = "application/problem+json"
STORE_AGAIN_S = 1.0
"""When to ask again after the store could not be had: nobody knows when it can."""
FIELD_LENGTH_MAX = 200
"""What is longer is the sender's own invention, and is cut."""


class InternalError(SokovanError):
    """The server failed at something it should have been able to do."""


class ServerStoppingError(ServerUnreachableError):
    """The server was asked to stop: a client need not start another."""

    def __init__(self) -> None:
        super().__init__("the server is stopping; sessions are not touched by that")


def problem_of(error: SokovanError, *, http_status: int | None = None) -> dict[str, Any]:
    """Return the problem object of an error: `type, title, status, detail, code` and maybe `field`.

    `stopping` is true where the server was asked to stop, so that the client need not look for it.
    """
    problem: dict[str, Any] = {
        "type": f"urn:sokovan:error:{error.code}",
        "title": error.code.replace("-", " ").capitalize(),
        "status": http_status or error.http_status,
        "detail": error.message,
        "code": error.code,
    }
    if error.field is not None:
        problem["field"] = error.field
    if isinstance(error, ServerStoppingError):
        problem["stopping"] = True
    return problem


def problem_response(
    error: SokovanError,
    *,
    http_status: int | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Answer with the problem object of an error, and when to come again where that is known."""
    problem = problem_of(error, http_status=http_status)
    after_s = error.retry_after_s
    if after_s is None and isinstance(error, StoreUnavailableError):
        after_s = STORE_AGAIN_S
    if after_s is not None:
        headers = {"retry-after": str(math.ceil(after_s)), **(headers or {})}
    return Response(
        to_json(problem),
        status_code=problem["status"],
        media_type=MEDIA_TYPE,
        headers=headers,
    )


def invalid(errors: Sequence[Mapping[str, Any]]) -> InvalidRequestError:
    """Say in a sentence what the first of pydantic's `errors` is, and how many more there are."""
    first = errors[0]
    field = _field(first["loc"])
    sentence = f"{field}: {_sentence(first)}" if field else _sentence(first)
    if len(errors) > 1:
        sentence += f" (and {len(errors) - 1} more)"
    return InvalidRequestError(sentence, field=field or None)


def _field(loc: Sequence[int | str]) -> str:
    """Write a place in a body as people do: `sessions[2].depends_on[0].kind`."""
    written = ""
    for part in loc:
        if isinstance(part, int):
            written += f"[{part}]"
        elif part != "[key]":
            written += f".{part}" if written else part
    return written if len(written) <= FIELD_LENGTH_MAX else f"{written[:FIELD_LENGTH_MAX]}…"


def _sentence(error: Mapping[str, Any]) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind == "missing":
        return "is missing"
    if kind == "extra_forbidden":
        return "there is no such field; see docs/reference/http-api.md for those that there are"
    if kind == "value_error":
        return str(context["error"])
    message = str(error["msg"])
    shown = repr(error.get("input"))
    wrong = "" if len(shown) > 60 else f", not {shown}"
    return message[:1].lower() + message[1:] + wrong
