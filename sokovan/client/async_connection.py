"""How the server is asked, from a program with an event loop.

`sync_connection.py` is written from this file by `scripts/sync_client.py`.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from sokovan.client.connection import Place, encoded, error_of, not_utf8
from sokovan.client.tries import Tries
from sokovan.domain.errors import ServerUnreachableError, SokovanError


class AsyncConnection:
    """Sends requests to one server; see `AsyncClient` for what it is given."""

    def __init__(
        self,
        place: Place,
        *,
        timeout_s: float,
        retry_s: float,
        revive: Callable[[], Awaitable[object]] | None,
    ) -> None:
        self._place = place
        self._timeout_s = timeout_s
        self._retry_s = retry_s
        self._revive = revive
        self._http: httpx.AsyncClient | None = None
        self.server_time: float | None = None
        """The server's clock at its last answer, in seconds since the epoch."""

    async def close(self) -> None:
        """Close the connections; the next request opens new ones."""
        http, self._http = self._http, None
        if http is not None:
            await http.aclose()

    async def send(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        params: Mapping[str, Any] | None = None,
        wait_s: float = 0.0,
        once: bool = False,
    ) -> httpx.Response:
        """Send a request, again where that is safe and may help; `Tries` says when.

        Args:
            method: GET, POST, PATCH or DELETE.
            path: From `/` on.
            body: What to send as JSON, if anything.
            params: The query.
            wait_s: How long the server was asked to wait: the answer may take so much longer.
            once: Doing it twice would be wrong, so it is not sent again once it may have arrived.

        Raises:
            SokovanError: What the server answered, or that none answers.
        """
        content = None if body is None else encoded(body)
        tries = Tries(once=once, retry_s=self._retry_s)
        while True:
            try:
                return await self._send_once(method, path, content, params, wait_s)
            except SokovanError as error:
                if isinstance(error, ServerUnreachableError):
                    await self.close()
                pause_s = tries.pause_s(error)
                if pause_s is not None:
                    await asyncio.sleep(pause_s)
                elif self._revive is not None and tries.may_revive(error):
                    await self._revive()
                else:
                    raise

    async def _send_once(
        self,
        method: str,
        path: str,
        content: bytes | None,
        params: Mapping[str, Any] | None,
        wait_s: float,
    ) -> httpx.Response:
        http = self._http
        if http is None:
            http = self._http = self._connect()
        try:
            response = await http.request(
                method,
                path,
                content=content,
                headers={"content-type": "application/json"} if content is not None else None,
                params=params,
                timeout=httpx.Timeout(self._timeout_s + wait_s, connect=self._timeout_s),
            )
        except httpx.TransportError as error:
            raise self._place.unreachable(http.base_url, error) from error
        except UnicodeEncodeError as error:
            raise not_utf8(error) from None
        if date := response.headers.get("date"):
            with contextlib.suppress(ValueError):
                self.server_time = parsedate_to_datetime(date).timestamp()
        if response.is_success:
            return response
        raise error_of(response)

    def _connect(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(**self._place.options())
