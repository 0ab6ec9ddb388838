"""What a webhook is sent: a few events as JSON, signed."""

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic_core import to_json

from sokovan import __version__
from sokovan.store.queries import View
from sokovan.store.webhooks import Webhook


@dataclass(frozen=True, slots=True)
class Message:
    """The headers and the body of one POST."""

    headers: Mapping[str, str]
    body: bytes


def message(webhook: Webhook, events: Sequence[View], now: float, *, test: bool = False) -> Message:
    """Write and sign a message; its receiver checks `signature_of` the same."""
    body = to_json({"webhook_id": webhook.webhook_id, "test": test, "events": events})
    timestamp = str(int(now))
    return Message(
        {
            "content-type": "application/json",
            "user-agent": f"sokovan/{__version__}",
            "x-sokovan-webhook": webhook.webhook_id,
            "x-sokovan-timestamp": timestamp,
            "x-sokovan-signature": f"sha256={signature_of(webhook.secret, timestamp, body)}",
        },
        body,
    )


def signature_of(secret: str, timestamp: str, body: bytes) -> str:
    """Return the HMAC-SHA256 of `timestamp.body`, in hexadecimal digits."""
    return hmac.new(secret.encode(), f"{timestamp}.".encode() + body, "sha256").hexdigest()
