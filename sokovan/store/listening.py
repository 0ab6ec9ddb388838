"""Hints from manager to manager, by PostgreSQL's LISTEN and NOTIFY."""

import asyncio
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from sqlalchemy import Connection, Engine

from sokovan.store.news import News, read_message

log = logging.getLogger(__name__)

CHANNEL = "sokovan"
LOOK_EVERY_S = 1.0
"""How long the listener takes to notice that it is to end."""
AGAIN_S = 1.0
"""How long after a connection was lost another one is tried."""
_NOTIFY = f"SELECT pg_notify('{CHANNEL}', %s)"


def publisher(sender: str) -> Callable[[Connection, News], None]:
    """Return what tells the other managers of a transaction, should it be committed."""

    def publish(connection: Connection, news: News) -> None:
        for message in news.messages(sender):
            connection.exec_driver_sql(_NOTIFY, (message,))

    return publish


class Listener:
    """Hears what other managers have changed, on a connection and a thread of its own.

    Args:
        engine: The database.
        myself: Whose messages are passed over.
        told: Called with the news, on the event loop; with `None` when some may have been missed.
        loop: Where.
    """

    def __init__(
        self,
        engine: Engine,
        myself: str,
        told: Callable[[News | None], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._engine = engine
        self._myself = myself
        self._told = told
        self._loop = loop
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, name="store-listener")

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def close(self) -> None:
        """End; takes up to `LOOK_EVERY_S`."""
        self._ends.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ends.is_set():
            try:
                self._listen()
            except Exception as error:  # noqa: BLE001 - whatever it is, hints only make it quicker
                log.warning("hints of other managers are not heard for now: %s", error)
            self._ends.wait(AGAIN_S)

    def _listen(self) -> None:
        borrowed = self._engine.raw_connection()
        connection: Any = borrowed.driver_connection
        borrowed.detach()
        try:
            connection.autocommit = True
            connection.execute(f"LISTEN {CHANNEL}")
            self._tell(None)
            while not self._ends.is_set():
                for notice in connection.notifies(timeout=LOOK_EVERY_S):
                    sender, news = read_message(notice.payload)
                    if sender != self._myself:
                        self._tell(news)
                    if self._ends.is_set():
                        return
        finally:
            connection.close()

    def _tell(self, news: News | None) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody is left to be told
            self._loop.call_soon_threadsafe(self._told, news)


class Hints:
    """Gathers what comes in while the last was still being read.

    Args:
        catch_up: Reads what has changed.
        read_all: Reads everything, when something may have been missed.
    """

    def __init__(
        self,
        catch_up: "Callable[[News], Any]",
        read_all: "Callable[[], Any]",
    ) -> None:
        self._catch_up = catch_up
        self._read_all = read_all
        self._news = News()
        self._missed = False
        self._wake = asyncio.Event()

    def told(self, news: News | None) -> None:
        """Take what the listener has heard."""
        if news is None:
            self._missed = True
        else:
            self._news.add(news)
        self._wake.set()

    async def run(self) -> None:
        """Follow for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            news, self._news = self._news, News()
            missed, self._missed = self._missed, False
            try:
                if missed:
                    await self._read_all()
                elif news:
                    await self._catch_up(news)
            except Exception as error:  # noqa: BLE001 - read again: nothing of it may be forgotten
                log.warning("what another manager wrote cannot be read for now: %s", error)
                self._news.add(news)
                self._missed = self._missed or missed
                await asyncio.sleep(AGAIN_S)
                self._wake.set()
