"""The addresses of the API, and what a submission is completed with."""

import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from sokovan.client.fields import (
    EventOptions,
    RedoOptions,
    SessionFields,
    SessionOptions,
    View,
    Views,
    is_utf8,
)
from sokovan.domain.errors import (
    AgentNotFoundError,
    GroupNotFoundError,
    SessionNotFoundError,
    TokenNotFoundError,
    WebhookNotFoundError,
)

WAIT_SLICE_S = 30.0
"""How long one request waits on the server before the next one is sent."""
PAGE_SESSIONS = 1000
SESSIONS = "/v1/sessions"
GROUPS = "/v1/groups"
DRY_RUN = "/v1/sessions/dry-run"
ARRAYS = "/v1/arrays"
ARRAYS_DRY_RUN = "/v1/arrays/dry-run"


def session_path(ref: str, action: str = "") -> str:
    """Return the address of a session, or of what can be done with it.

    Raises:
        SessionNotFoundError: No session can be called that.
    """
    return _path(SESSIONS, ref, action)


def array_path(ref: str, action: str = "") -> str:
    """Return the address of an array or a part of one, or of what can be done with it.

    Raises:
        SessionNotFoundError: No array can be called that.
    """
    return _path(ARRAYS, ref, action)


def _path(all_of_them: str, ref: str, action: str) -> str:
    if not ref or "/" in ref or set(ref) == {"."} or not is_utf8(ref):
        raise SessionNotFoundError(f"{ref!r} is no session id; `sokovan ls -a` lists them")
    return f"{all_of_them}/{quote(ref, safe='@~,:')}" + (f"/{action}" if action else "")


def group_path(name: str) -> str:
    """Return the address of a scaling group.

    Raises:
        GroupNotFoundError: No group can be called that.
    """
    if not name or "/" in name or set(name) == {"."} or not is_utf8(name):
        raise GroupNotFoundError(f"there is no group {name!r}; `sokovan groups` lists them")
    return f"{GROUPS}/{quote(name, safe='')}"


def agent_path(agent: str, action: str = "") -> str:
    """Return the address of an agent, or of what can be done with it.

    Raises:
        AgentNotFoundError: No agent can be called that.
    """
    if not agent or "/" in agent or set(agent) == {"."} or not is_utf8(agent):
        raise AgentNotFoundError(f"there is no agent {agent!r}; `sokovan agents` lists them")
    return f"/v1/agents/{quote(agent, safe='')}" + (f"/{action}" if action else "")


def token_path(token_id: str) -> str:
    """Return the address of a token.

    Raises:
        TokenNotFoundError: No token can be called that.
    """
    if not token_id.isalnum() or not token_id.isascii():
        raise TokenNotFoundError(f"there is no token {token_id!r}; `sokovan token ls` lists them")
    return f"/v1/tokens/{token_id}"


def webhook_path(webhook_id: str, action: str = "") -> str:
    """Return the address of a webhook, or of something that is done with it.

    Raises:
        WebhookNotFoundError: No webhook's id looks like that.
    """
    if not (webhook_id.isascii() and webhook_id.isalnum()):
        raise WebhookNotFoundError(
            f"there is no webhook {webhook_id!r}; `sokovan webhooks ls` lists them"
        )
    return f"/v1/webhooks/{webhook_id}" + (f"/{action}" if action else "")


def event_params(asked: EventOptions) -> dict[str, Any]:
    """Return the query that says which events are asked for."""
    said: dict[str, Any] = {key: value for key, value in asked.items() if value}
    if kinds := said.pop("kinds", None):
        said["kind"] = [*kinds]
    return said


def items_of(answer: View) -> Views:
    """Return the things that an answer lists."""
    items: Views = answer["items"]
    return items


def sessions_of(answer: View) -> Views:
    """Return the sessions that an answer lists."""
    sessions: Views = answer["sessions"]
    return sessions


def completed(session: SessionFields, here: SessionOptions) -> SessionFields:
    """Return a session with what it takes from this process, and an id to be sent twice by."""
    return {"creation_id": secrets.token_hex(12), **here, **session}


def array_body(
    session: SessionFields,
    here: SessionOptions,
    indexes: str | None,
    params: Mapping[str, Sequence[str]] | None,
    running_max: int | None,
) -> dict[str, Any]:
    """Return what is sent to submit an array, with an id to be sent twice by.

    A variable that is merely inherited may happen to have `{index}` in it, and is to keep it.
    """
    complete = completed(session, here)
    names = "|".join(["index", *(params or ())])
    inherited = here["env"].items() & complete["env"].items()
    kept = {
        name: re.sub(rf"\{{({names})\}}", r"{{\1}}", value)
        for name, value in inherited
        if "{" in value
    }
    return {
        "session": {**complete, "env": {**complete["env"], **kept}},
        "indexes": indexes,
        "params": {name: [*values] for name, values in (params or {}).items()},
        "running_max": running_max,
    }


def sent_once(changes: RedoOptions) -> RedoOptions:
    """Return what is to be different in a session, with an id to be sent twice by."""
    return {"creation_id": secrets.token_hex(12), **changes}
