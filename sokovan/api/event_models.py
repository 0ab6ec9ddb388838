"""The shape of events and webhooks: what is taken, and what is answered."""

from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, Field, WithJsonSchema

from sokovan.api.answers import HistoryLine, Stamp
from sokovan.api.models import Body
from sokovan.api.texts import NAME_LENGTH_MAX
from sokovan.domain.events import KINDS
from sokovan.domain.statuses import SessionResult

URL_LENGTH_MAX = 2000
SECRET_LENGTH_MIN = 16
SECRET_LENGTH_MAX = 200
PAGE_EVENTS_MAX = 1000
"""Most events in one page."""

Kind = Annotated[str, WithJsonSchema({"type": "string", "enum": list(KINDS)})]
Kinds = Annotated[list[Kind], Field(max_length=len(KINDS))]


class Event(HistoryLine):
    """One line of history, with the session that it is about."""

    id: int
    """Events are told in its order."""
    kind: Kind
    name: str
    owner: str
    scaling_group: str
    result: SessionResult | None
    """How the session ended: of the event that ends it, and of no other."""


class Events(BaseModel):
    """Events in the order in which they happened."""

    items: list[Event]
    next_after: int
    """Asked for with `after`, what follows these."""
    more: bool
    """Whether there is something already."""


class WebhookFilter(Body):
    """Which events a webhook is told."""

    kinds: Kinds = Field(default_factory=list)
    """Left out or empty: all."""
    owner: Annotated[str | None, Field(max_length=NAME_LENGTH_MAX)] = None
    group: Annotated[str | None, Field(max_length=NAME_LENGTH_MAX)] = None
    name: Annotated[str | None, Field(max_length=NAME_LENGTH_MAX)] = None


def _url(text: str) -> str:
    try:
        parts = urlsplit(text)
        fine = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        fine = False
    if not (fine and text.isascii() and text.isprintable() and " " not in text):
        raise ValueError("is no address to send to; write one such as https://example.org/hook")
    if "@" in parts.netloc or parts.fragment:
        raise ValueError(
            "has a user name, a password or a fragment; leave them out, and let the receiver check"
            " the signature instead"
        )
    return text


def _secret(text: str) -> str:
    if not (text.isascii() and text.isprintable()):
        raise ValueError("has other characters than printable ASCII")
    return text


class WebhookBody(WebhookFilter):
    """A webhook to set up."""

    url: Annotated[str, Field(max_length=URL_LENGTH_MAX), AfterValidator(_url)]
    secret: Annotated[
        str | None,
        Field(min_length=SECRET_LENGTH_MIN, max_length=SECRET_LENGTH_MAX),
        AfterValidator(lambda text: text if text is None else _secret(text)),
    ] = None
    """What signs its messages; left out, one is made."""


class Webhook(BaseModel):
    """Who is told of events."""

    id: str
    url: str
    kinds: Kinds
    owner: str | None
    group: str | None
    name: str | None
    created_by: str
    created_at: Stamp
    position: int
    """The id of the last event that it was told, or that it need not be told."""
    failing_since: Stamp | None
    """Since when nothing has reached it; null while all is well."""
    failures: int
    """How often in a row it could not be told."""
    retry_at: Stamp | None
    """When it is tried again."""
    last_error: str | None


class NewWebhook(Webhook):
    """A webhook as it is shown once, to whoever sets it up."""

    secret: str
    """What signs its messages; it is never shown again."""


class Webhooks(BaseModel):
    """Every webhook, the oldest first."""

    items: list[Webhook]


class WebhookTest(BaseModel):
    """What became of one message that was sent to try a webhook."""

    ok: bool
    status: int | None
    """What it answered, if it did."""
    error: str | None
    took_s: float


EVENT_STREAM: dict[str, Any] = {
    "description": (
        "Server-Sent Events: `id`, `event` (the kind) and `data` (an Event as JSON). A comment with"
        " an `id` comes at the beginning, and every 15 s while there is nothing to tell."
    ),
    "content": {"text/event-stream": {"schema": {"type": "string"}}},
}
