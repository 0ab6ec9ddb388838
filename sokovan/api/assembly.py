"""All that answers over HTTP, joined: used by the manager, and by tests that serve in-process."""

from collections.abc import Callable
from dataclasses import dataclass

import httpx
from fastapi import FastAPI

from sokovan.api.app import build_app
from sokovan.api.arrays import Arrays
from sokovan.api.edits import Edits
from sokovan.api.endpoints.arrays import ArrayEndpoints
from sokovan.api.endpoints.edits import EditEndpoints
from sokovan.api.endpoints.events import EventEndpoints
from sokovan.api.endpoints.groups import GroupEndpoints
from sokovan.api.endpoints.tokens import TokenEndpoints
from sokovan.api.endpoints.webhooks import WebhookEndpoints
from sokovan.api.event_operations import EventOperations
from sokovan.api.groups import Groups
from sokovan.api.metrics.meters import Meters
from sokovan.api.metrics.state import StateCollector
from sokovan.api.notices import Notices
from sokovan.api.operations import Operations
from sokovan.api.root_rule import RootRule
from sokovan.api.tokens import Tokens
from sokovan.api.webhook_operations import WebhookOperations
from sokovan.clock import Clock
from sokovan.config import Config
from sokovan.identity import IdSource
from sokovan.scheduler.moves import Applied
from sokovan.scheduler.ports import AgentGateway
from sokovan.store.engine import Database
from sokovan.store.repository import SqlRepository
from sokovan.webhooks.deliveries import Deliveries, connected


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
    deliveries: Deliveries
    meters: Meters

    async def load(self) -> None:
        """Read what has to be there before the first request."""
        await self.tokens.load()


def assemble(
    core: Core,
    config: Config,
    token: str,
    *,
    shutdown: Callable[[], None],
    connect: Callable[[], httpx.AsyncClient] = connected,
) -> Served:
    """Join the services and the endpoints.

    Args:
        core: What they work on.
        config: Everything that can be set.
        token: The home's own.
        shutdown: Called once after `POST /v1/shutdown` was answered.
        connect: Opens what webhooks' messages are sent with.
    """
    tokens = Tokens(core.database, core.clock, core.ids, token)
    root_rule = RootRule(config.agents, tokens.users)
    operations = Operations(
        core.repository,
        core.database,
        core.gateway,
        core.clock,
        core.tell,
        core.notices,
        root_rule,
    )
    arrays = Arrays(core.repository, core.database, core.clock, core.tell, core.notices, root_rule)
    events = EventOperations(core.repository, core.database, core.clock, core.tell, core.notices)
    deliveries = Deliveries(core.database, core.clock, config.api, core.notices, connect)
    webhooks = WebhookOperations(core.database, core.clock, core.ids, deliveries)
    meters = Meters(core.clock)
    meters.registry.register(StateCollector(core.repository, core.clock))
    edits = Edits(core.repository, core.database, core.clock, core.tell, root_rule)
    groups = Groups(core.repository, core.database, core.clock, core.tell, config)
    app = build_app(
        operations,
        tokens.identify,
        config.api,
        shutdown=shutdown,
        more=(
            EditEndpoints(edits),
            GroupEndpoints(groups),
            TokenEndpoints(tokens),
            EventEndpoints(events, config.api),
            WebhookEndpoints(webhooks),
            ArrayEndpoints(arrays, config.api),
        ),
        clock=core.clock,
        meters=meters,
    )
    return Served(app, operations, tokens, deliveries, meters)
