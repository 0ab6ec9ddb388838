"""The HTTP interface over a repository, in this process, with the real service behind it."""

import contextlib
import random
from collections.abc import AsyncIterator, Callable

import httpx

from sokovan.api.assembly import Core, assemble
from sokovan.api.notices import Notices
from sokovan.config import Config
from sokovan.identity import IdSource
from sokovan.scheduler.moves import Applied
from sokovan.store.repository import SqlRepository
from tests.build import FakeGateway

TOKEN = "correct-horse"


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


@contextlib.asynccontextmanager
async def served(
    repository: SqlRepository, tell: Callable[[Applied], None] = lambda _: None
) -> AsyncIterator[httpx.AsyncClient]:
    """Give a client that may do everything.

    Args:
        repository: What is served.
        tell: Is told what was applied.
    """
    core = Core(
        repository,
        repository._database,
        FakeGateway(),
        repository._clock,
        IdSource(random.Random(1)),
        tell,
        Notices(),
    )
    api = assemble(core, Config(), TOKEN, shutdown=lambda: None)
    await api.load()
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(api.app), base_url="http://here", headers=bearer(TOKEN)
    ) as client:
        yield client
