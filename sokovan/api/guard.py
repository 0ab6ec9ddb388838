"""The door of the API: only with a token, and no exception leaves as a traceback."""

import hmac
import logging
import os
import pwd
from collections.abc import Callable

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sokovan.api.problems import InternalError, problem_response
from sokovan.domain.access import Caller, Role
from sokovan.domain.errors import TooManyRequestsError, UnauthorizedError

log = logging.getLogger(__name__)

OPEN_PATHS = frozenset({"/healthz", "/readyz"})
"""What answers without a token: it tells nothing of anybody."""


Identify = Callable[[bytes, str], Caller | None]
"""Says whose a token is, given where the request comes from; `None` is nobody's.

It raises a `TooManyRequestsError` where they are too many.
"""


def home_token(token: str) -> Identify:
    """Let in whoever has the home's own token: it is the server's user, and may do everything."""
    assert token, "an empty token would let everyone in"
    expected, user = token.encode(), server_user()

    def identify(given: bytes, address: str) -> Caller | None:
        if not hmac.compare_digest(given, expected):
            return None
        return Caller(user, Role.ADMIN, address=address)

    return identify


def server_user() -> str:
    """Return the name of the user whose server this is."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # a container may run as a number that has no name
        return str(os.geteuid())


class Guard:
    """Lets a request through with a token; turns what goes wrong behind it into a problem."""

    def __init__(self, app: ASGIApp, identify: Identify) -> None:
        self._app = app
        self._identify = identify

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["path"] not in OPEN_PATHS:
            try:
                caller = self._caller(scope)
            except TooManyRequestsError as error:
                await problem_response(error)(scope, receive, send)
                return
            if caller is None:
                refused = problem_response(
                    UnauthorizedError(
                        "the token is missing, wrong, expired or revoked; send 'Authorization:"
                        " Bearer TOKEN' with one of yours, or with what is in the file 'token' in"
                        " the server's home"
                    ),
                    headers={"www-authenticate": "Bearer"},
                )
                await refused(scope, receive, send)
                return
            scope.setdefault("state", {})["caller"] = caller
        await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = begun or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except ClientDisconnect:
            log.debug("the client of %s %s went away", scope["method"], scope["path"])
        except Exception:
            log.exception("%s %s failed", scope["method"], scope["path"])
            if begun:
                raise  # the connection is cut: nobody is to take this for the whole answer
            failed = problem_response(
                InternalError("the server failed at this; its log, server.log, says why")
            )
            await failed(scope, receive, send)

    def _caller(self, scope: Scope) -> Caller | None:
        given = b""
        for name, value in scope["headers"]:
            if name == b"authorization":
                given = value
        scheme, _, token = given.partition(b" ")
        if scheme != b"Bearer":
            token = b""  # nobody's
        address = scope["client"][0] if scope.get("client") else ""
        return self._identify(token, address)
