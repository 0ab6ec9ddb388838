"""Who is told of events, how far each has come, and since when one cannot be reached."""

import json
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import delete, func, insert, select, update

from sokovan.domain.errors import IllegalStateError, WebhookNotFoundError
from sokovan.store.engine import Transaction
from sokovan.store.events import EVERY_EVENT, EventFilter
from sokovan.store.tables import webhooks

WEBHOOKS_MAX = 100
ERROR_LENGTH_MAX = 500


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where to send which events."""

    webhook_id: str
    url: str
    secret: str = field(repr=False)
    filter: EventFilter
    created_by: str
    created_at: float
    position: int
    """The id of the last event that was delivered, or that need not be."""
    failures: int = 0
    """How often in a row it could not be told."""
    failing_since: float | None = None
    retry_at: float | None = None
    """Nothing is sent to it before."""
    last_error: str | None = None


def all_webhooks(tx: Transaction) -> list[Webhook]:
    """Return every webhook, the oldest first."""
    rows = tx.execute(select(webhooks).order_by(webhooks.c.created_at, webhooks.c.webhook_id))
    return [_webhook(row) for row in rows]


def webhook_of(tx: Transaction, webhook_id: str) -> Webhook:
    """Return one webhook.

    Raises:
        WebhookNotFoundError: There is none with this id.
    """
    query = select(webhooks).where(webhooks.c.webhook_id == webhook_id)
    row = None if "\0" in webhook_id else tx.execute(query).first()  # PostgreSQL refuses to look
    if row is None:
        raise WebhookNotFoundError(
            f"there is no webhook {webhook_id[:60]!r}; `sokovan webhooks ls` lists them"
        )
    return _webhook(row)


def add_webhook(tx: Transaction, made: Webhook) -> None:
    """Write a new webhook.

    Raises:
        IllegalStateError: There are too many.
    """
    if tx.execute(select(func.count()).select_from(webhooks)).scalar_one() >= WEBHOOKS_MAX:
        raise IllegalStateError(f"there are {WEBHOOKS_MAX} webhooks, the most; remove one first")
    values = {
        "webhook_id": made.webhook_id,
        "owner": made.created_by,
        "url": made.url,
        "secret": made.secret,
        "filters": _text_of(made.filter),
        "created_at": made.created_at,
        "position": made.position,
        "failures": 0,
    }
    tx.execute(insert(webhooks), [values])


def remove_webhook(tx: Transaction, webhook_id: str) -> Webhook:
    """Remove a webhook, and return what it was.

    Raises:
        WebhookNotFoundError: There is none with this id.
    """
    found = webhook_of(tx, webhook_id)
    tx.execute(delete(webhooks).where(webhooks.c.webhook_id == webhook_id))
    return found


def save_told(tx: Transaction, webhook_id: str, position: int) -> bool:
    """Remember that a webhook was told all up to an event; say whether it is still there."""
    return _set(
        tx,
        webhook_id,
        position=position,
        failures=0,
        failing_since=None,
        retry_at=None,
        last_error=None,
    )


def save_position(tx: Transaction, webhook_id: str, position: int) -> None:
    """Remember up to where there was nothing to tell a webhook."""
    _set(tx, webhook_id, position=position)


def save_failure(
    tx: Transaction, failed: Webhook, error: str, *, now: float, retry_at: float
) -> None:
    """Remember that a webhook could not be told, and when it is tried again."""
    _set(
        tx,
        failed.webhook_id,
        failures=failed.failures + 1,
        failing_since=now if failed.failing_since is None else failed.failing_since,
        retry_at=retry_at,
        last_error=error[:ERROR_LENGTH_MAX],
    )


def _set(tx: Transaction, webhook_id: str, **values: Any) -> bool:
    """Change a webhook; say whether there is one."""
    change = update(webhooks).where(webhooks.c.webhook_id == webhook_id).values(**values)
    changed: int = tx.execute(change).rowcount
    return changed > 0


def _text_of(asked: EventFilter) -> str | None:
    said = {"kinds": asked.kinds, "owner": asked.owner, "group": asked.group, "name": asked.name}
    given = {key: value for key, value in said.items() if value}
    return json.dumps(given) if given else None


def _filter_of(text: str | None) -> EventFilter:
    return EventFilter(**json.loads(text)) if text else EVERY_EVENT


def _webhook(row: Any) -> Webhook:
    return Webhook(
        webhook_id=row.webhook_id,
        url=row.url,
        secret=row.secret,
        filter=_filter_of(row.filters),
        created_by=row.owner,
        created_at=row.created_at,
        position=row.position,
        failures=row.failures,
        failing_since=row.failing_since,
        retry_at=row.retry_at,
        last_error=row.last_error,
    )
