"""`sokovan.Client`: what a program needs to submit sessions, watch them and read their output.

It asks the server of a home over HTTP, and raises the same errors as the server: subclasses of
`SokovanError`, by their code.

    with Client() as client:
        session = client.submit(["sh", "-c", "echo hi; exit 3"], name="hello")
        ended = client.wait(session["id"])
        print(ended["result"], ended["exit_code"], b"".join(client.output(session["id"])))
"""

from typing import TYPE_CHECKING, Any

from sokovan.client.connection import ServerStoppedError, error_from, home_of, server_file
from sokovan.client.fields import (
    DependencyFields,
    LimitFields,
    Output,
    SessionFields,
    SessionOptions,
    View,
    Views,
    WhereFields,
    captured,
    is_utf8,
)
from sokovan.client.sync_client import Client

if TYPE_CHECKING:
    from sokovan.client.async_client import AsyncClient

__all__ = [
    "AsyncClient",
    "Client",
    "DependencyFields",
    "LimitFields",
    "Output",
    "ServerStoppedError",
    "SessionFields",
    "SessionOptions",
    "View",
    "Views",
    "WhereFields",
    "captured",
    "error_from",
    "home_of",
    "is_utf8",
    "server_file",
]


def __getattr__(name: str) -> Any:
    """Import what the command has no use for when it is asked for."""
    if name == "AsyncClient":
        from sokovan.client.async_client import AsyncClient

        return AsyncClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
