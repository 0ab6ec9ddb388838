"""All that answers over HTTP, joined: used by the manager, and by tests that serve in-process."""

from collections.abc import Callable
from dataclasses import dataclass

from fastapi import FastAPI

from sokovan.api.app import build_app
from sokovan.api.arrays import Arrays
from sokovan.api.endpoints.arrays import ArrayEndpoints
from sokovan.api.endpoints.tokens import TokenEndpoints
from sokovan.api.notices import Notices
from sokovan.api.operations import Operations
from sokovan.api.tokens import Tokens
from sokovan.clock import Clock
from sokovan.config import Config
from sokovan.identity import IdSource
from sokovan.scheduler.moves import Applied
from sokovan.scheduler.ports import AgentGateway
from sokovan.store.engine import Database
from sokovan.store.repository import SqlRepository


@dataclass(frozen=True, slots=True)
class Core:
    """What the services of the API work on."""

    repository: SqlRepository
    database: Database
    gateway: AgentGateway
    clock: Clock
    ids: IdSource
    tell: Callable[[Applied], None]
    notices: Notices


@dataclass(frozen=True, slots=True)
class Served:
    """The API, and those of its services that somebody else needs, too."""

    app: FastAPI
    operations: Operations
    tokens: Tokens

    async def load(self) -> None:
        """Read what has to be there before the first request."""
        await self.tokens.load()


def assemble(core: Core, config: Config, token: str, *, shutdown: Callable[[], None]) -> Served:
    """Join the services and the endpoints.

    Args:
        core: What they work on.
        config: Everything that can be set.
        token: The home's own.
        shutdown: Called once after `POST /v1/shutdown` was answered.
    """
    operations = Operations(
        core.repository, core.database, core.gateway, core.clock, core.tell, core.notices
    )
    arrays = Arrays(core.repository, core.database, core.clock, core.tell, core.notices)
    tokens = Tokens(core.database, core.clock, core.ids, token)
    app = build_app(
        operations,
        tokens.identify,
        config.api,
        shutdown=shutdown,
        more=(TokenEndpoints(tokens), ArrayEndpoints(arrays, config.api)),
    )
    return Served(app, operations, tokens)
