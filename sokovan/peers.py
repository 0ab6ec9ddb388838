"""Several managers on one store: which groups this one drives, and what it hears of the others."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import structlog
from sqlalchemy import Engine

from sokovan.config import StoreConfig
from sokovan.domain.errors import SokovanError
from sokovan.scheduler.coordinator import Chore, Coordinator
from sokovan.scheduler.moves import Applied
from sokovan.store.listening import Hints, Listener
from sokovan.store.managers import KnownManager
from sokovan.store.news import News
from sokovan.store.repository import SqlRepository

log = structlog.get_logger(__name__)

KEEP_LEASES = "keep-leases"
RENEWALS_PER_LEASE = 4
"""So often is a lease renewed while it is good, so that one late answer loses nothing."""


class Peers:
    """What a manager does because it may not be the only one.

    Args:
        repository: Holds the leases.
        coordinator: Drives what they are for.
        myself: What the others are to know of this manager.
        config: Whether the store is shared, and how long a lease is good.
        reload: Reads again what the API keeps in memory.
    """

    def __init__(
        self,
        repository: SqlRepository,
        coordinator: Coordinator,
        myself: KnownManager,
        config: StoreConfig,
        *,
        reload: Callable[[], Awaitable[None]],
    ) -> None:
        self._repository = repository
        self._coordinator = coordinator
        self._myself = myself
        self._config = config
        self._reload = reload

    def chores(self) -> tuple[Chore, ...]:
        """Return what the coordinator is to do for this, again and again."""
        if not self._config.url:
            return ()
        return (Chore(KEEP_LEASES, self._config.lease_s / RENEWALS_PER_LEASE, self.keep_leases),)

    async def keep_leases(self) -> None:
        """Renew this manager's leases, and begin to drive what nobody drives any more."""
        before = self._repository.led
        taken = await self._repository.keep_leases(self._myself)
        for group in sorted(taken - before):
            log.info("this manager drives the group now", scaling_group=group)
        if taken:
            self._coordinator.tell(Applied(policies=taken, freed=taken, left_over=True))

    @contextlib.asynccontextmanager
    async def met(self, engine: Engine) -> AsyncIterator[None]:
        """Drive what nobody drives, and follow what others write; in the end, let them have it."""
        if not self._config.url:
            yield
            return
        await self.keep_leases()
        hints = Hints(self._catch_up, self._read_all)
        listener = Listener(engine, self._myself.manager_id, hints.told, asyncio.get_running_loop())
        listener.start()
        following = asyncio.create_task(hints.run())
        try:
            yield
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            await asyncio.to_thread(listener.close)
        await self._leave()

    async def _leave(self) -> None:
        """Have the others take over at once; they would by themselves, after a while."""
        try:
            await self._repository.give_up_leases()
        except SokovanError as error:
            log.warning("others take over only when the lease ends", why=str(error))

    async def are_there(self) -> bool:
        """Look once more, and say whether there are other managers."""
        if self._config.url:
            with contextlib.suppress(SokovanError):
                await self.keep_leases()
        return self._repository.others.were_there()

    async def _catch_up(self, news: News) -> None:
        if news.tokens:
            await self._reload()
        if news.leases:
            self._coordinator.hint_chore(KEEP_LEASES)
        self._coordinator.tell(await self._repository.catch_up(news))

    async def _read_all(self) -> None:
        """Read everything again: some of what the others said may not have been heard."""
        await self._catch_up(News(groups=True, tokens=True))
