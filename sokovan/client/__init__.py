"""`sokovan.Client`: what a program needs to submit sessions, watch them and read their output.

It asks the server of a home over HTTP, and raises the same errors as the server: subclasses of
`SokovanError`, by their code.

    with Client() as client:
        session = client.submit(["sh", "-c", "echo hi; exit 3"], name="hello")
        ended = client.wait(session["id"])
        print(ended["result"], ended["exit_code"], b"".join(client.output(session["id"])))
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sokovan.client.async_client import AsyncClient
    from sokovan.client.connection import ServerStoppedError, error_from, home_of, server_file
    from sokovan.client.fields import (
        DependencyFields,
        EventOptions,
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

__all__ = [
    "AsyncClient",
    "Client",
    "DependencyFields",
    "EventOptions",
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


_MODULES = {
    "async_client": ("AsyncClient",),
    "connection": ("ServerStoppedError", "error_from", "home_of", "server_file"),
    "sync_client": ("Client",),
}
"""Where names are; those that are not here are in `fields`."""


if not TYPE_CHECKING:  # or every name would be there for a type checker

    def __getattr__(name: str) -> Any:
        """Import a public name when it is first used: a session that runs a function needs none."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module = next((module for module, names in _MODULES.items() if name in names), "fields")
        found = getattr(importlib.import_module(f"sokovan.client.{module}"), name)
        globals()[name] = found
        return found
