"""Commands typed in this process, to a server that lives in it too."""

import contextlib
import io
import os
import threading
from pathlib import Path
from unittest import mock

import httpx
import typer.main

from sokovan.cli.main import app, run
from sokovan.client.sync_connection import Connection
from sokovan.domain.errors import ServerUnreachableError
from tests.fuzz.ground import BEARER, House

REQUESTS_MAX = 100
"""So many requests of one command, and the server is gone: some wait for what never comes."""
COMMAND = typer.main.get_command(app)
"""Made once: it takes longer than most commands do."""


class Way(httpx.BaseTransport):
    """The way to the house, as a client takes it; time passes with each request."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._turn = threading.Lock()
        self.left = REQUESTS_MAX

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        with self._turn:
            self.left -= 1
            if self.left < 0:
                raise httpx.ConnectError("it has been asked enough")
            answer = self._house.ask(
                request.method,
                request.url.raw_path,
                headers=[*request.headers.raw, BEARER],
                body=request.read(),
            )
            self._house.live(1.0)
            return httpx.Response(answer.status, headers=list(answer.headers), content=answer.body)


class Terminal:
    """Where commands are typed; `home` is new, and the server behind it is the house."""

    def __init__(self, home: Path, house: House) -> None:
        self.home = home
        self.house = house

    def type(self, *argv: str, environ: dict[str, str] | None = None) -> tuple[int, str, str]:
        """Run a command; return its exit code, its output and its errors."""
        way = Way(self.house)

        def connect(connection: Connection) -> httpx.Client:
            return httpx.Client(transport=way, base_url="http://here")

        def refuse(home: Path) -> None:
            raise ServerUnreachableError("no server is started in a test")

        out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
        given = {"SOKOVAN_HOME": str(self.home), "HOME": str(self.home), "PATH": "/usr/bin"}
        with (
            mock.patch.object(Connection, "_connect", connect),
            mock.patch("sokovan.cli.main.app", COMMAND),
            mock.patch("sokovan.cli.server.ensure_server", refuse),
            mock.patch("sokovan.manager.serve", return_value=None),
            mock.patch("sys.stdin", io.TextIOWrapper(io.BytesIO(), encoding="utf-8")),
            mock.patch.dict(os.environ, given | (environ or {}), clear=True),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            code = run(argv)
            out.flush(), err.flush()
        return code, *(stream.buffer.getvalue().decode() for stream in (out, err))
