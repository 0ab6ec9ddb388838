"""What administrators do with webhooks."""

import secrets
from urllib.parse import urlsplit

from sokovan.api.event_models import WebhookBody
from sokovan.api.service import View
from sokovan.clock import Clock
from sokovan.domain.access import Caller
from sokovan.domain.events import check_kinds
from sokovan.identity import IdSource
from sokovan.store.audit import note
from sokovan.store.engine import Database, Transaction
from sokovan.store.events import EventFilter, horizon
from sokovan.store.queries import stamp
from sokovan.store.webhooks import (
    Webhook,
    add_webhook,
    all_webhooks,
    remove_webhook,
    webhook_of,
)
from sokovan.webhooks.deliveries import Deliveries


class WebhookOperations:
    """What is asked about webhooks.

    Args:
        database: Keeps them.
        clock: The time.
        ids: Mints ids; secrets come from the operating system.
        deliveries: Sends their messages.
    """

    def __init__(
        self, database: Database, clock: Clock, ids: IdSource, deliveries: Deliveries
    ) -> None:
        self._database = database
        self._clock = clock
        self._deliveries = deliveries
        self._ids = ids

    async def all(self) -> list[View]:
        """Return every webhook, the oldest first."""
        return [_view(webhook) for webhook in await self._database.read(all_webhooks)]

    async def add(self, body: WebhookBody, *, caller: Caller) -> View:
        """Set up a webhook: it is told what happens from now on; its secret is shown here only."""
        asked = EventFilter(
            owner=body.owner,
            group=body.group,
            name=body.name,
            kinds=check_kinds(body.kinds, field="kinds"),
        )
        secret = body.secret or secrets.token_urlsafe(32)
        webhook_id, now = self._ids.session_id(), self._clock.now()

        def job(tx: Transaction) -> Webhook:
            made = Webhook(webhook_id, body.url, secret, asked, caller.user, now, horizon(tx))
            add_webhook(tx, made)
            note(tx, now, caller, "webhook add", webhook_id, _place(made))
            return made

        return _view(await self._database.write(job)) | {"secret": secret}

    async def remove(self, webhook_id: str, *, caller: Caller) -> View:
        """Remove a webhook, and return what it was."""
        now = self._clock.now()

        def job(tx: Transaction) -> Webhook:
            found = remove_webhook(tx, webhook_id)
            note(tx, now, caller, "webhook remove", webhook_id, _place(found))
            return found

        return _view(await self._database.write(job))

    async def test(self, webhook_id: str) -> View:
        """Send one message without events, and say what became of it."""
        found = await self._database.read(lambda tx: webhook_of(tx, webhook_id))
        sent = await self._deliveries.test(found)
        return {
            "ok": sent.error is None,
            "status": sent.status,
            "error": sent.error,
            "took_s": sent.took_s,
        }


def _place(webhook: Webhook) -> str:
    """Return where a webhook sends to, without the path: that may hold a password of its own."""
    parts = urlsplit(webhook.url)
    return f"{parts.scheme}://{parts.netloc}"


def _view(webhook: Webhook) -> View:
    return {
        "id": webhook.webhook_id,
        "url": webhook.url,
        "kinds": list(webhook.filter.kinds),
        "owner": webhook.filter.owner,
        "group": webhook.filter.group,
        "name": webhook.filter.name,
        "created_by": webhook.created_by,
        "created_at": stamp(webhook.created_at),
        "position": webhook.position,
        "failing_since": stamp(webhook.failing_since),
        "failures": webhook.failures,
        "retry_at": stamp(webhook.retry_at),
        "last_error": webhook.last_error,
    }
