"""Sokovan: a session scheduler for shared machines.

    import sokovan

    with sokovan.Client() as client:
        client.submit(["./train.sh"], cpu_milli=2000)

The command imports this too, and is to be quick: each name is imported when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sokovan.client.async_client import AsyncClient
    from sokovan.client.calls import SessionFuture
    from sokovan.client.errors import CallError, SessionDiedError
    from sokovan.client.executor import Executor, RemoteFunction
    from sokovan.client.sync_client import Client
    from sokovan.domain.errors import (
        AmbiguousIdError,
        CreationConflictError,
        IllegalStateError,
        InfeasibleRequestError,
        InvalidRequestError,
        ServerUnreachableError,
        SessionNotFoundError,
        SokovanError,
        StoreUnavailableError,
        UnauthorizedError,
        UnknownGroupError,
    )

__version__ = "0.1.0"
__all__ = [
    "AmbiguousIdError",
    "AsyncClient",
    "CallError",
    "Client",
    "CreationConflictError",
    "Executor",
    "IllegalStateError",
    "InfeasibleRequestError",
    "InvalidRequestError",
    "RemoteFunction",
    "ServerUnreachableError",
    "SessionDiedError",
    "SessionFuture",
    "SessionNotFoundError",
    "SokovanError",
    "StoreUnavailableError",
    "UnauthorizedError",
    "UnknownGroupError",
    "__version__",
]
_MODULES = {
    "AsyncClient": "async_client",
    "CallError": "errors",
    "Client": "sync_client",
    "Executor": "executor",
    "RemoteFunction": "executor",
    "SessionDiedError": "errors",
    "SessionFuture": "calls",
}
"""Modules of `sokovan.client`; the rest is in `sokovan.domain.errors`."""


if not TYPE_CHECKING:  # or every name would be there for a type checker

    def __getattr__(name: str) -> Any:
        """Import a public name when it is first used."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        client = _MODULES.get(name)
        module = f"sokovan.client.{client}" if client else "sokovan.domain.errors"
        found = getattr(importlib.import_module(module), name)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted({*globals(), *__all__})
