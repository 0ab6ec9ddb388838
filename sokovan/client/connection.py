"""How the server is asked: where it is, with which token, and what its errors mean."""

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx

from sokovan.client.fields import View
from sokovan.domain.errors import (
    HomeError,
    InvalidRequestError,
    ServerUnreachableError,
    SokovanError,
    UnauthorizedError,
)

REVIVALS_MAX = 3
"""How often one request may bring the server back before it gives up."""
CUT_OFF = (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)
"""What a connection that was open before fails with."""


class ServerStoppedError(ServerUnreachableError):
    """The server was stopped on purpose while it was asked; the sessions go on."""


class Connection:
    """Sends requests to the server of one home; see `Client` for what it is given."""

    def __init__(
        self,
        home: Path,
        *,
        url: str | None,
        token: str | None,
        timeout_s: float,
        revive: Callable[[], object] | None,
    ) -> None:
        self._home = home
        self._url = url
        self._token = token
        self._timeout_s = timeout_s
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
    ) -> httpx.Response:
        """Send a request, again each time that `revive` has brought the server back.

        Args:
            method: GET, POST or DELETE.
            path: From `/` on.
            body: What to send as JSON, if anything.
            params: The query.
            wait_s: How long the server was asked to wait: the answer may take so much longer.

        Raises:
            SokovanError: What the server answered, or that none answers.
        """
        content = None if body is None else _encoded(body)
        has_retried = False
        revivals = 0
        while True:
            try:
                return self._send_once(method, path, content, params, wait_s)
            except ServerStoppedError:
                raise
            except ServerUnreachableError as error:
                self.close()
                if isinstance(error.__cause__, CUT_OFF) and not has_retried:
                    has_retried = True  # perhaps an idle connection was closed just then
                    continue
                if self._revive is None or revivals == REVIVALS_MAX:
                    raise
                revivals += 1
                self._revive()

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
            raise ServerUnreachableError(
                f"no server answers at {http.base_url} ({error or type(error).__name__});"
                " `sokovan up` starts one"
            ) from error
        except UnicodeEncodeError as error:
            raise _not_utf8(error) from None
        if date := response.headers.get("date"):
            with contextlib.suppress(ValueError):
                self.server_time = parsedate_to_datetime(date).timestamp()
        if response.is_success:
            return response
        raise _error_of(response)

    def _connect(self) -> httpx.Client:
        url = self._url or _address(self._home)
        token = self._token or _token(self._home)
        try:
            return httpx.Client(
                base_url=url,
                headers={"authorization": f"Bearer {token}"},
                verify=url.startswith("https:"),  # reading the certificates takes a while
                trust_env=self._url is not None,  # a proxy has no way to this machine's loopback
            )
        except httpx.InvalidURL as error:
            raise ServerUnreachableError(f"{url!r} is no address of a server: {error}") from None


def home_of(named: Path | str | None) -> Path:
    """Return the home directory: the one named, else SOKOVAN_HOME, else `~/.sokovan`, absolute.

    Raises:
        HomeError: Nobody can say which directory that is.
    """
    chosen = Path(named or os.environ.get("SOKOVAN_HOME") or "~/.sokovan")
    try:
        return chosen.expanduser().absolute()
    except (RuntimeError, OSError):  # no such user; or the current directory was removed
        raise HomeError(
            f"{chosen} leads nowhere; name a whole path with --home or SOKOVAN_HOME"
        ) from None


def server_file(home: Path) -> View | None:
    """Return what `server.json` says of the server, when that process is there."""
    try:
        found: View = json.loads((home / "server.json").read_text())
        owner = (home / "server.json").stat().st_uid
        # A port that another user took after the server's death must not be shown the token.
        is_there = Path(f"/proc/{int(found['pid'])}").stat().st_uid == owner
        return found if is_there and isinstance(found["url"], str) else None
    except (OSError, ValueError, LookupError, TypeError, OverflowError, RecursionError):
        return None


def error_from(problem: Mapping[str, Any]) -> SokovanError:
    """Return the error that a problem object describes: the subclass with its code, where known."""
    code, message = str(problem.get("code")), str(problem.get("detail", "no detail was given"))
    kind = ServerStoppedError if problem.get("stopping") else _kinds().get(code)
    if kind is None:
        kind = type("UnknownError", (SokovanError,), {"code": code})
    error = kind(message)
    error.field = problem.get("field")
    return error


def _kinds() -> dict[str, type[SokovanError]]:
    """Return every kind of error by code; where several share one, the most general."""
    kinds = {SokovanError.code: SokovanError}
    todo = [SokovanError]
    while todo:
        for kind in todo.pop(0).__subclasses__():
            kinds.setdefault(kind.code, kind)
            todo.append(kind)
    return kinds


def view_of(response: httpx.Response) -> View:
    """Return the object that was answered.

    Raises:
        ServerUnreachableError: There is none: something else listens there.
    """
    try:
        view: View = response.json()
    except (ValueError, RecursionError):
        raise strange(response) from None
    if not isinstance(view, dict):
        raise strange(response)
    return view


def strange(response: httpx.Response) -> ServerUnreachableError:
    """Return the error for an answer that no Sokovan server gives."""
    return ServerUnreachableError(
        f"what answers at {response.url} is no Sokovan server: it said {response.status_code}"
    )


def _error_of(response: httpx.Response) -> SokovanError:
    try:
        return error_from(view_of(response))
    except ServerUnreachableError as error:
        return error


def _address(home: Path) -> str:
    found = server_file(home)
    if found is None:
        raise ServerUnreachableError(f"no server runs for {home}; `sokovan up` starts one")
    return str(found["url"])


def _token(home: Path) -> str:
    try:
        token = (home / "token").read_bytes().decode("ascii").strip()
    except OSError as error:
        raise UnauthorizedError(
            f"{home / 'token'} cannot be read: {error.strerror}; only its owner may use this server"
        ) from None
    except UnicodeDecodeError:
        token = ""
    if not token.isprintable() or not token:
        raise UnauthorizedError(
            f"{home / 'token'} holds no token; remove it and start the server anew, which makes one"
        )
    return token


def _encoded(body: object) -> bytes:
    try:
        return json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError as error:
        raise _not_utf8(error) from None
    except (ValueError, TypeError) as error:
        raise InvalidRequestError(f"this cannot be sent as JSON: {error}") from None


def _not_utf8(error: UnicodeEncodeError) -> InvalidRequestError:
    shown = error.object[max(error.start - 20, 0) : error.end + 20]
    return InvalidRequestError(
        f"{shown!r} is not UTF-8, and everything that is submitted must be; rename it, or unset"
        " the variable"
    )
