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
    from sokovan.client.sync_client import Client
    from sokovan.domain.errors import SokovanError

__version__ = "0.1.0"
__all__ = ["AsyncClient", "Client", "SokovanError", "__version__"]
_HOMES = {
    "AsyncClient": "sokovan.client.async_client",
    "Client": "sokovan.client.sync_client",
    "SokovanError": "sokovan.domain.errors",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted({*globals(), *__all__})
