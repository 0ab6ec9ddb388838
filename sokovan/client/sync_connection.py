"""How the server is asked, from a program with no event loop."""

import contextlib
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from sokovan.client.connection import Place, encoded, error_of, not_utf8
from sokovan.client.tries import Tries
from sokovan.domain.errors import ServerUnreachableError, SokovanError


class Connection:
    """Sends requests to one server; see `Client` for what it is given."""

    def __init__(
        self,
        place: Place,
        *,
        timeout_s: float,
        retry_s: float,
        revive: Callable[[], object] | None,
    ) -> None:
        self._place = place
        self._timeout_s = timeout_s
        self._retry_s = retry_s
        self._revive = revive
        self._http: httpx.Client | None = None
        self.server_time: float | None = None
        """The server's clock at its last answer, in seconds since the epoch."""

    def close(self) -> None:
        """Close the connections; the next request opens new ones."""
        http, self._http = self._http, None
        if http is not None:
            http.close()

    def send(
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
                return self._send_once(method, path, content, params, wait_s)
            except SokovanError as error:
                if isinstance(error, ServerUnreachableError):
                    self.close()
                pause_s = tries.pause_s(error)
                if pause_s is not None:
                    time.sleep(pause_s)
                elif self._revive is not None and tries.may_revive(error):
                    self._revive()
                else:
                    raise

    def _send_once(
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
            response = http.request(
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

    def _connect(self) -> httpx.Client:
        return httpx.Client(**self._place.options())
