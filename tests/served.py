"""The HTTP interface over a repository, in this process, with the real service behind it."""

import contextlib
import random
from collections.abc import AsyncIterator, Callable

import httpx

from sokovan.api.assembly import Core, Served, assemble
from sokovan.api.notices import Notices
from sokovan.config import AgentConfig, Config
from sokovan.identity import IdSource
from sokovan.scheduler.moves import Applied
from sokovan.store.repository import SqlRepository
from tests.build import FakeGateway

TOKEN = "correct-horse"
ROOT_TOO = (AgentConfig(allow_root="yes"),)


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def accepted() -> httpx.AsyncClient:
    """Return a client to which everybody answers that all is well."""

    async def nothing() -> AsyncIterator[bytes]:
        yield b""

    def accept(_: httpx.Request) -> httpx.Response:
        return httpx.Response(204, content=nothing())

    return httpx.AsyncClient(transport=httpx.MockTransport(accept))


def assembled(
    repository: SqlRepository,
    tell: Callable[[Applied], None] = lambda _: None,
    config: Config | None = None,
) -> Served:
    """Join the services over a repository, watched as by the manager.

    Args:
        repository: What is served.
        tell: Is told what was applied.
        config: The settings.
    """
    notices = Notices()

    def tell_all(applied: Applied) -> None:
        tell(applied)
        notices(applied)

    core = Core(
        repository,
        repository._database,
        FakeGateway(),
        repository._clock,
        IdSource(random.Random(1)),
        tell_all,
        notices,
    )
    settings = config or Config(agents=ROOT_TOO)
    api = assemble(core, settings, TOKEN, shutdown=lambda: None, connect=accepted)
    repository.live.watcher = api.meters
    return api


@contextlib.asynccontextmanager
async def served(
    repository: SqlRepository,
    tell: Callable[[Applied], None] = lambda _: None,
    config: Config | None = None,
) -> AsyncIterator[httpx.AsyncClient]:
    """Give a client that may do everything."""
    async with client_of(assembled(repository, tell, config)) as client:
        yield client


@contextlib.asynccontextmanager
async def client_of(api: Served) -> AsyncIterator[httpx.AsyncClient]:
    """Give a client of an API, with the home's own token."""
    await api.load()
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(api.app), base_url="http://here", headers=bearer(TOKEN)
    ) as client:
        yield client
