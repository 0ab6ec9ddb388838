"""HTTP as it is spoken to clients: uvicorn's, with limits on what may come before a request."""

from typing import Any

import uvicorn
from starlette.types import ASGIApp
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
    """

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._unheard_bytes = 0
        """What has come since there was something to tell the application."""
        self._is_in_body = False

    def data_received(self, data: bytes) -> None:
        self._unheard_bytes += len(data)
        super().data_received(data)
        if self._unheard_bytes > HEAD_BYTES_MAX:
            if not self._is_in_body and (self.cycle is None or self.cycle.response_complete):
                self.transport.write(_REFUSAL)
            self.transport.close()

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._is_in_body:  # a trailer is no header: nobody asks for any
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._unheard_bytes = 0
        self._is_in_body = True
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
