"""Webhooks: set up, looked at, tried, removed; by administrators, as the server asks for them."""

from fastapi import Request
from starlette.responses import Response

from sokovan.api.asked import Who, body_of, json_of
from sokovan.api.event_models import NewWebhook, Webhook, WebhookBody, Webhooks, WebhookTest
from sokovan.api.models import checked_body
from sokovan.api.operation import Operation
from sokovan.api.webhook_operations import WebhookOperations
from sokovan.domain.access import Role


class WebhookEndpoints:
    """What is asked about webhooks."""

    operations = (
        Operation("GET", "/webhooks", "webhooks", (Webhooks,), needs=Role.ADMIN),
        Operation(
            "POST",
            "/webhooks",
            "add_webhook",
            (NewWebhook,),
            (WebhookBody,),
            Role.ADMIN,
            status=201,
            may_conflict=True,
        ),
        Operation(
            "DELETE",
            "/webhooks/{webhook_id}",
            "remove_webhook",
            (Webhook,),
            needs=Role.ADMIN,
            names_one=True,
        ),
        Operation(
            "POST",
            "/webhooks/{webhook_id}/test",
            "test_webhook",
            (WebhookTest,),
            needs=Role.ADMIN,
            names_one=True,
        ),
    )

    def __init__(self, webhooks: WebhookOperations) -> None:
        self._webhooks = webhooks

    async def webhooks(self) -> Response:
        """Return every webhook, the oldest first; their secrets are not shown."""
        return json_of({"items": await self._webhooks.all()})

    async def add_webhook(self, request: Request, caller: Who) -> Response:
        """Set up a webhook: events from now on are sent there; the secret is shown only here."""
        body = checked_body(WebhookBody, await body_of(request))
        return json_of(await self._webhooks.add(body, caller=caller), status=201)

    async def remove_webhook(self, webhook_id: str, caller: Who) -> Response:
        """Remove a webhook; nothing more is sent there."""
        return json_of(await self._webhooks.remove(webhook_id, caller=caller))

    async def test_webhook(self, webhook_id: str) -> Response:
        """Send a signed message without events there at once, and say what became of it."""
        return json_of(await self._webhooks.test(webhook_id))
