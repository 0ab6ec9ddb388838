"""How the server is asked: where it is, with which token, and what its errors mean."""

import json
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx

from sokovan.client.fields import Output, View
from sokovan.domain.errors import (
    HomeError,
    InvalidRequestError,
    ServerUnreachableError,
    SokovanError,
    UnauthorizedError,
)


class ServerStoppedError(ServerUnreachableError):
    """The server was stopped on purpose while it was asked; the sessions go on."""


class UntrustedServerError(ServerUnreachableError):
    """What listens there cannot prove that it is the server; it was told nothing."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server is, and how to show who asks; see `Client` for what each part is.

    What is left out is looked up at each new connection: a server that was started again may listen
    elsewhere.
    """

    home: Path
    url: str | None
    token: str | None
    ca_file: Path | None

    def options(self) -> dict[str, Any]:
        """Return the options of an `httpx` client that reaches it.

        Raises:
            SokovanError: No server runs there, or it cannot be asked.
        """
        announced = {} if self.url else _announced(self.home)
        url = self.url or str(announced["url"])
        token = self.token or _token(self.home)
        try:
            base_url = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise ServerUnreachableError(f"{url!r} is no address of a server: {error}") from None
        return {
            "base_url": base_url,
            "headers": {"authorization": f"Bearer {token}"},
            "verify": base_url.scheme == "https" and self._trusted(announced),  # that takes a while
            "trust_env": self.url is not None,  # a proxy has no way to this machine's loopback
        }

    def unreachable(self, url: httpx.URL, error: httpx.TransportError) -> ServerUnreachableError:
        """Return the error for a server that did not answer."""
        if _is_distrust(error):
            return UntrustedServerError(
                f"what answers at {url} cannot prove that it is the server: {error}"
            )
        hint = "`sokovan up` starts one" if self.url is None else "look at SOKOVAN_URL, or url"
        return ServerUnreachableError(
            f"no server answers at {url} ({error or type(error).__name__}); {hint}"
        )

    def _trusted(self, announced: View) -> ssl.SSLContext | bool:
        """Return whose certificates are trusted; `True` stands for those of the system."""
        if "ca_file" in announced:
            return _OneServer.of(announced)
        if self.ca_file is None:
            return True
        try:
            return ssl.create_default_context(cafile=self.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise ServerUnreachableError(
                f"{self.ca_file} cannot be used to know the server: {error}; SOKOVAN_CA_FILE, or"
                " ca_file, is the path of a PEM file with the certificate that signed the server's"
            ) from None


def place_of(
    home: Path | str | None, *, url: str | None, token: str | None, ca_file: Path | str | None
) -> Place:
    """Return the place that is named: what is said wins over the environment, that over the home.

    Who names a home means its server, whatever SOKOVAN_URL says.

    Raises:
        HomeError: Nobody can say which directory the home is.
        UnauthorizedError: The token could be none.
    """
    environ = os.environ
    if home is None:
        url = url or environ.get("SOKOVAN_URL")
    token = token or environ.get("SOKOVAN_TOKEN")
    if token is not None and not (token.isascii() and token.isprintable()):
        raise UnauthorizedError(
            "what was given as the token could be none; look at SOKOVAN_TOKEN, or token"
        )
    ca_file = ca_file or environ.get("SOKOVAN_CA_FILE")
    return Place(home_of(home), url or None, token or None, Path(ca_file) if ca_file else None)


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


def output_of(response: httpx.Response) -> Output:
    """Return the piece of output that was answered.

    Raises:
        ServerUnreachableError: It is none: something else listens there.
    """
    try:
        return Output(
            data=response.content,
            offset=int(response.headers["x-sokovan-offset"]),
            size=int(response.headers["x-sokovan-size"]),
            ended=response.headers["x-sokovan-ended"] == "true",
        )
    except (KeyError, ValueError):
        raise strange(response) from None


def strange(response: httpx.Response) -> ServerUnreachableError:
    """Return the error for an answer that no Sokovan server gives."""
    return ServerUnreachableError(
        f"what answers at {response.url} is no Sokovan server: it said {response.status_code}"
    )


def error_of(response: httpx.Response) -> SokovanError:
    """Return the error that was answered."""
    try:
        error = error_from(view_of(response))
    except ServerUnreachableError as none:
        return none
    after = response.headers.get("retry-after", "")
    if after.isascii() and after.isdigit():
        error.retry_after_s = float(after)
    return error


def _announced(home: Path) -> View:
    found = server_file(home)
    if found is None:
        raise ServerUnreachableError(f"no server runs for {home}; `sokovan up` starts one")
    return found


class _OneServer(ssl.SSLContext):
    """Trusts the certificate of one server, under the name that it is for."""

    name: str | None = None
    """Left out, it is the one that was connected to."""

    @classmethod
    def of(cls, announced: View) -> Self:
        """Return what trusts the server that `server.json` announces, and nobody else."""
        context = cls(ssl.PROTOCOL_TLS_CLIENT)
        context.name = announced.get("tls_name")
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # without who has signed it
        try:
            context.load_verify_locations(announced["ca_file"])
        except OSError as error:
            raise ServerUnreachableError(
                f"the certificate {announced['ca_file']} cannot be used: {error.strerror or error}"
            ) from None
        return context

    def wrap_socket(self, *args: Any, **more: Any) -> ssl.SSLSocket:
        more["server_hostname"] = self.name or more.get("server_hostname")
        return super().wrap_socket(*args, **more)

    def wrap_bio(self, *args: Any, **more: Any) -> ssl.SSLObject:
        more["server_hostname"] = self.name or more.get("server_hostname")
        return super().wrap_bio(*args, **more)


def _is_distrust(error: BaseException) -> bool:
    """Say whether an error comes from a certificate that was refused."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLCertVerificationError):
        cause = cause.__cause__ or cause.__context__
    return cause is not None


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


def encoded(body: object) -> bytes:
    """Write what is sent.

    Raises:
        InvalidRequestError: It cannot be written as JSON in UTF-8.
    """
    try:
        return json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError as error:
        raise not_utf8(error) from None
    except (ValueError, TypeError) as error:
        raise InvalidRequestError(f"this cannot be sent as JSON: {error}") from None


def not_utf8(error: UnicodeEncodeError) -> InvalidRequestError:
    """Return the error for a text that the API cannot carry."""
    shown = error.object[max(error.start - 20, 0) : error.end + 20]
    return InvalidRequestError(
        f"{shown!r} is not UTF-8, and everything that is submitted must be; rename it, or unset"
        " the variable"
    )
