"""The HTTP interface over a repository, in this process, with the real service behind it."""

import contextlib
from collections.abc import AsyncIterator, Callable

import httpx

from sokovan.api.app import build_app
from sokovan.api.guard import home_token
from sokovan.api.more import more_endpoints
from sokovan.api.notices import Notices
from sokovan.api.operations import Operations
from sokovan.config import ApiConfig
from sokovan.scheduler.moves import Applied
from sokovan.store.repository import SqlRepository
from tests.build import FakeGateway

TOKEN = "correct-horse"


@contextlib.asynccontextmanager
async def served(
    repository: SqlRepository, tell: Callable[[Applied], None] = lambda _: None
) -> AsyncIterator[httpx.AsyncClient]:
    """Give a client that may do everything.

    Args:
        repository: What is served.
        tell: Is told what was applied.
    """
    database, clock, notices = repository._database, repository._clock, Notices()
    service = Operations(repository, database, FakeGateway(), clock, tell, notices)
    more = more_endpoints(repository, database, clock, tell, notices, ApiConfig())
    app = build_app(service, home_token(TOKEN), ApiConfig(), shutdown=lambda: None, more=more)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app),
        base_url="http://here",
        headers={"authorization": f"Bearer {TOKEN}"},
    ) as client:
        yield client
