"""The part of `sokovan.AsyncClient` about what happens: events, and webhooks that are told of them.

`sync_events.py` is written from this file by `scripts/sync_client.py`.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Unpack

from sokovan.client.addresses import WAIT_SLICE_S, event_params, items_of, webhook_path
from sokovan.client.connection import ServerStoppedError
from sokovan.client.fields import EventOptions, View, Views
from sokovan.domain.errors import ServerUnreachableError, StoreUnavailableError

COMES_BACK_TRIES = 60
COMES_BACK_PAUSE_S = 1.0


class AsyncEvents(ABC):
    """What is asked about events and webhooks."""

    @abstractmethod
    async def _ask(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        params: Mapping[str, Any] | None = None,
        wait_s: float = 0.0,
        once: bool = False,
    ) -> View:
        """Send a request, and return what it is answered with."""

    # --- events -----------------------------------------------------------------------------------

    async def read_events(
        self,
        *,
        after: int | None = None,
        last: int | None = None,
        wait_s: float = 0.0,
        **asked: Unpack[EventOptions],
    ) -> View:
        """Return a page of events: `items`, oldest first, `next_after` to go on from, and `more`.

        Args:
            after: The id of the last event that is known; left out, `items` is empty.
            last: Return the last events instead, at most so many.
            wait_s: How long to wait for an event when there is none.
            asked: Which events: `session`, `owner`, `group`, `name`, `kinds`.
        """
        params = event_params(asked)
        params |= {"wait_s": wait_s} if wait_s else {}
        params |= {} if after is None else {"after": after}
        params |= {} if last is None else {"last": last}
        return await self._ask("GET", "/v1/events", params=params, wait_s=wait_s)

    async def events(
        self, *, after: int | None = None, follow: bool = True, **asked: Unpack[EventOptions]
    ) -> AsyncIterator[View]:
        """Yield what happens, each event once and in order, as it comes.

        It goes on where it was when the server goes away and comes back within a minute, or when
        `revive` brings it back. What was yielded last has the `id` to go on from another time.

        Args:
            after: Begin behind this event: 0 is the beginning; left out, only what is new.
            follow: Wait for more; without, it ends with what there is, from the beginning on when
                `after` is left out.
            asked: Which events: `session`, `owner`, `group`, `name`, `kinds`.

        Raises:
            EventsGoneError: What follows `after` is not kept any more.
            ServerStoppedError: The server was stopped on purpose.
        """
        if after is None:
            after = (await self.read_events(**asked))["next_after"] if follow else 0
        tries = 0
        while True:
            try:
                page = await self.read_events(
                    after=after, wait_s=WAIT_SLICE_S if follow else 0.0, **asked
                )
            except (ServerUnreachableError, StoreUnavailableError) as error:
                tries += 1
                is_over = not follow or tries > COMES_BACK_TRIES
                if is_over or isinstance(error, ServerStoppedError):
                    raise
                await asyncio.sleep(COMES_BACK_PAUSE_S)
                continue
            tries = 0
            for event in page["items"]:
                yield event
            after = page["next_after"]
            if not (follow or page["more"]):
                return

    # --- webhooks: for administrators -------------------------------------------------------------

    async def webhooks(self) -> Views:
        """Return every webhook, the oldest first; never their secrets."""
        return items_of(await self._ask("GET", "/v1/webhooks"))

    async def add_webhook(
        self,
        url: str,
        *,
        kinds: Sequence[str] = (),
        owner: str | None = None,
        group: str | None = None,
        name: str | None = None,
        secret: str | None = None,
    ) -> View:
        """Have the server send events to an address from now on; its `secret` is shown this once.

        Args:
            url: Where to, with http: or https:.
            kinds: Only events of these kinds, such as `session.terminated`; left out, all.
            owner: Only of this owner's sessions.
            group: Only of sessions in this group.
            name: Only of sessions with this name.
            secret: What signs the messages; left out, the server makes one.
        """
        body: dict[str, Any] = {"url": url, "kinds": [*kinds], "secret": secret}
        body |= {"owner": owner, "group": group, "name": name}
        return await self._ask("POST", "/v1/webhooks", body=body, once=True)

    async def remove_webhook(self, webhook_id: str) -> View:
        """Send nothing more to a webhook, and return what it was."""
        return await self._ask("DELETE", webhook_path(webhook_id))

    async def test_webhook(self, webhook_id: str) -> View:
        """Send a webhook a message without events: `ok`, `status`, `error`, `took_s`."""
        return await self._ask("POST", webhook_path(webhook_id, "test"), wait_s=WAIT_SLICE_S)
