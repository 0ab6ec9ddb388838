"""Tells every webhook what happens: in order, at least once, each at its own pace."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Protocol

import httpx

from sokovan.clock import Clock
from sokovan.config import ApiConfig
from sokovan.domain.errors import EventsGoneError, SokovanError
from sokovan.store.engine import Database, Transaction
from sokovan.store.events import (
    LOOKED_AT_MAX,
    EventFilter,
    Events,
    events_after,
    horizon,
    nearest_kept,
)
from sokovan.store.queries import View
from sokovan.store.webhooks import (
    Webhook,
    all_webhooks,
    save_failure,
    save_position,
    save_told,
)
from sokovan.webhooks.message import message

log = logging.getLogger(__name__)

EVENTS_PER_MESSAGE_MAX = 100
GATHER_S = 0.1
"""So long at least lies between two looks: what comes thick and fast is sent together."""
LOOK_AGAIN_S = 60.0
"""It is looked after so long in any case, so that a lost notice only delays."""
RETRY_S = 5.0
"""The first pause after a failure; each further one is twice as long, up to the setting."""
DOUBLINGS_MAX = 30
ANSWER_BYTES_MAX = 4096
"""No more of an answer is read."""
ANSWER_SHOWN_MAX = 200


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of one message."""

    status: int | None
    """What was answered."""
    error: str | None
    """Why it does not count as delivered."""
    took_s: float


def connected() -> httpx.AsyncClient:
    """Return what messages are sent with: no proxy, no redirects, no stored passwords."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
    return httpx.AsyncClient(trust_env=False, timeout=None, limits=limits)  # noqa: S113 - see _post


class Wakes(Protocol):
    """Wakes those who read history."""

    def of_history(self) -> AbstractAsyncContextManager[asyncio.Event]:
        """Give an event that is set whenever history has new lines."""
        ...


class Deliveries:
    """Sends webhooks their messages.

    Args:
        database: Has the events, and how far each webhook has come.
        clock: The time.
        config: How long a message may take, and how far apart the tries of one that fails are.
        notices: Wakes it when there is something to send.
        connect: Opens what messages are sent with.

    Attributes:
        is_ours: Says whether it is for this manager to send anything.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        config: ApiConfig,
        notices: Wakes,
        connect: Callable[[], httpx.AsyncClient] = connected,
    ) -> None:
        self._database = database
        self._clock = clock
        self._config = config
        self._notices = notices
        self._connect = connect
        self.is_ours: Callable[[], bool] = lambda: True
        self._client: httpx.AsyncClient | None = None
        self._at_work: set[str] = set()
        self._looked_at: dict[str, int] = {}
        """By webhook: behind its position, nothing up to here is for it."""

    async def run(self) -> None:
        """Deliver for ever."""
        try:
            async with self._notices.of_history() as look, asyncio.TaskGroup() as tasks:
                while True:
                    look.clear()
                    due, pause_s = await self._look_around()
                    for webhook in due:  # more may have come in by the time that one is done
                        tasks.create_task(self._deliver(webhook)).add_done_callback(
                            lambda _: look.set()
                        )
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(pause_s):
                            await look.wait()
                    await asyncio.sleep(GATHER_S)
        finally:
            if self._client is not None:
                await self._client.aclose()

    async def run_once(self) -> None:
        """Deliver what is due, to all webhooks side by side. For tests."""
        due, _ = await self._look_around()
        await asyncio.gather(*map(self._deliver, due))

    async def test(self, webhook: Webhook) -> Sent:
        """Send a message without an event, whatever the webhook's state; it changes nothing."""
        return await self._post(webhook, (), test=True)

    async def _look_around(self) -> tuple[list[Webhook], float]:
        """Return the webhooks that something is to be sent to, and how long until the next look."""
        if not self.is_ours():
            return [], LOOK_AGAIN_S
        now = self._clock.now()
        try:
            known, last = await self._database.read(lambda tx: (all_webhooks(tx), horizon(tx)))
        except SokovanError:
            log.exception("webhooks cannot be read; they are looked at again")
            return [], RETRY_S
        self._looked_at = {
            w.webhook_id: max(w.position, self._looked_at.get(w.webhook_id, 0)) for w in known
        }
        behind = [
            w
            for w in known
            if w.webhook_id not in self._at_work and self._looked_at[w.webhook_id] != last
        ]
        later = [w.retry_at - now for w in behind if w.retry_at is not None and w.retry_at > now]
        due = [w for w in behind if w.retry_at is None or w.retry_at <= now]
        self._at_work.update(w.webhook_id for w in due)
        return due, min([LOOK_AGAIN_S, *later])

    async def _deliver(self, webhook: Webhook) -> None:
        """Tell one webhook all that there is for it, until it fails."""
        try:
            while (told := await self._deliver_some(webhook)) is not None:
                webhook = told
        except SokovanError:  # the store; what was not written down is told once more
            log.exception("webhook %s has to wait", webhook.webhook_id)
            await self._clock.sleep(RETRY_S)
        finally:
            self._at_work.discard(webhook.webhook_id)

    async def _deliver_some(self, webhook: Webhook) -> Webhook | None:
        """Tell one webhook the next few events; return `None` when that was all, or failed."""
        webhook_id = webhook.webhook_id
        here = max(webhook.position, self._looked_at.get(webhook_id, 0))
        found = await self._events(webhook, here)
        if found is None:
            return replace(webhook, position=await self._skip_gap(webhook, here))
        if found.items:
            sent = await self._post(webhook, found.items)
            if sent.error is not None:
                await self._failed(webhook, sent.error)
                return None
            if not await self._database.write(lambda tx: save_told(tx, webhook_id, found.after)):
                return None  # it was removed meanwhile
            webhook = replace(webhook, position=found.after, failures=0, failing_since=None)
        elif found.after - webhook.position >= LOOKED_AT_MAX:
            await self._database.write(lambda tx: save_position(tx, webhook_id, found.after))
            webhook = replace(webhook, position=found.after)
        self._looked_at[webhook_id] = found.after
        return webhook if found.more else None

    async def _events(self, webhook: Webhook, after: int) -> Events | None:
        asked: EventFilter = webhook.filter
        try:
            return await self._database.read(
                lambda tx: events_after(tx, asked, after, EVENTS_PER_MESSAGE_MAX)
            )
        except EventsGoneError:
            return None

    async def _skip_gap(self, webhook: Webhook, after: int) -> int:
        """Go on behind what is not kept any more; return where that is."""

        def job(tx: Transaction) -> int:
            position = nearest_kept(tx, after)
            save_position(tx, webhook.webhook_id, position)
            return position

        position = await self._database.write(job)
        self._looked_at[webhook.webhook_id] = position
        log.warning(
            "webhook %s goes on behind event %d: what followed %d is gone",
            webhook.webhook_id,
            position,
            after,
        )
        return position

    async def _failed(self, webhook: Webhook, error: str) -> None:
        now = self._clock.now()
        pause_s = min(
            RETRY_S * 2 ** min(webhook.failures, DOUBLINGS_MAX), self._config.webhook_retry_s_max
        )
        if webhook.failures == 0:
            log.warning("webhook %s fails: %s", webhook.webhook_id, error)
        await self._database.write(
            lambda tx: save_failure(tx, webhook, error, now=now, retry_at=now + pause_s)
        )

    async def _post(self, webhook: Webhook, events: Sequence[View], *, test: bool = False) -> Sent:
        """Send one message; whatever goes wrong is part of what became of it."""
        began_at = self._clock.now()
        written = message(webhook, events, began_at, test=test)
        client = self._client = self._client or self._connect()
        status, answer, error = None, b"", None
        try:
            async with (
                asyncio.timeout(self._config.webhook_timeout_s),
                client.stream(
                    "POST", webhook.url, content=written.body, headers=written.headers
                ) as response,
            ):
                status = response.status_code
                async for part in response.aiter_raw():
                    answer += part
                    if len(answer) > ANSWER_BYTES_MAX:
                        break
        except TimeoutError:
            error = f"it did not answer within {self._config.webhook_timeout_s:g} s"
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as trouble:
            error = f"{type(trouble).__name__}: {trouble}"
        if status is not None:  # what came of the answer after that does not matter
            error = None if 200 <= status < 300 else _refusal(status, answer)
        return Sent(status, error, self._clock.now() - began_at)


def _refusal(status: int, answer: bytes) -> str:
    hint = "; redirects are not followed" if 300 <= status < 400 else ""
    shown = " ".join(answer.decode(errors="replace").split())[:ANSWER_SHOWN_MAX]
    return f"it answered {status}{hint}" + (f": {shown}" if shown else "")
