"""The door of the API: only with the token, and no exception leaves as a traceback."""

import hmac
import logging

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sokovan.api.problems import InternalError, problem_response
from sokovan.domain.errors import UnauthorizedError

log = logging.getLogger(__name__)

OPEN_PATHS = frozenset({"/healthz"})
"""What answers without a token: it tells nothing."""


class Guard:
    """Lets a request through with the token; turns what goes wrong behind it into a problem."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        assert token, "an empty token would let everyone in"
        self._app = app
        self._expected = b"Bearer " + token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["path"] not in OPEN_PATHS and not self._is_allowed(scope):
            refused = problem_response(
                UnauthorizedError(
                    "the token is missing or wrong; send 'Authorization: Bearer <token>' with what"
                    " is in the file 'token' in the server's home"
                ),
                headers={"www-authenticate": "Bearer"},
            )
            await refused(scope, receive, send)
            return
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

    def _is_allowed(self, scope: Scope) -> bool:
        given = b""
        for name, value in scope["headers"]:
            if name == b"authorization":
                given = value
        return hmac.compare_digest(given, self._expected)
