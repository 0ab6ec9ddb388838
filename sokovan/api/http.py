"""HTTP as it is spoken to clients: uvicorn's, with limits on what may come before a request."""

from typing import Any

import httptools
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES_MAX = 64 * 1024
"""Most that a request's line and headers may take, and what may come between parts of its body."""
_TOO_LARGE = b"the request's headers are larger than what is taken; send less\n"
_REFUSAL = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-type: text/plain; charset=utf-8\r\n"
    b"content-length: %d\r\n"
    b"connection: close\r\n\r\n%s" % (len(_TOO_LARGE), _TOO_LARGE)
)


class BoundedHttp(HttpToolsProtocol):
    """Hangs up on who sends headers, trailers or chunk extensions without end.

    httptools keeps all of these until they are complete, whoever sends them, and uvicorn sets no
    limit. Up to one more read than the limit may be taken.

    Where a client offers to speak another protocol, as many do that would rather speak HTTP/2,
    httptools takes what follows for that, not for the body of the request. As no other protocol is
    spoken here, the connection is left to h11 then, which goes on with the request.
    """

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._unheard_bytes = 0
        """What has come since there was something to tell the application."""
        self._is_in_body = False

    def data_received(self, data: bytes) -> None:
        self._unheard_bytes += len(data)
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as found:
            self._leave_to_h11(data[found.args[0] :])
            return
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")
            return
        if self._unheard_bytes > HEAD_BYTES_MAX:
            if not self._is_in_body and not self._is_answering:
                self.transport.write(_REFUSAL)
            self.transport.close()

    def _leave_to_h11(self, rest: bytes) -> None:
        if self._is_answering:
            self.transport.close()
            return
        self.connections.discard(self)
        other = H11Protocol(self.config, self.server_state, self.app_state, self.loop)
        other.connection_made(self.transport)
        self.transport.set_protocol(other)
        method, version = self.scope["method"].encode(), self.parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s\r\n" % (method, self.url, version)]
        lines += [b"%s: %s\r\n" % header for header in self.headers]
        other.data_received(b"".join([*lines, b"\r\n", rest]))

    def _should_upgrade(self) -> bool:
        """Have the application not hear of a request that is left to h11."""
        return True

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._is_in_body:  # a trailer is no header: nobody asks for any
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._unheard_bytes = 0
        self._is_in_body = True
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts > 1 or (not hosts and self.parser.get_http_version() == "1.1"):
            raise ValueError("HTTP 1.1 asks for a Host, and for one only")
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unheard_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unheard_bytes = 0
        self._is_in_body = False
        super().on_message_complete()


def http_config(app: ASGIApp, **more: Any) -> uvicorn.Config:
    """Return how the API is served; `more` is for uvicorn."""
    return uvicorn.Config(
        app, access_log=False, lifespan="off", ws="none", http=BoundedHttp, **more
    )
