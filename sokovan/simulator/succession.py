"""Managers that stood still, and go on beside the one that took over from them meanwhile."""

from collections.abc import Iterator

from sqlalchemy import Engine

from sokovan.scheduler.moves import Applied
from sokovan.simulator.life import Manager
from sokovan.store.engine import InlineDatabase
from sokovan.store.news import News


class Succession:
    """Those that have not found out yet that they were replaced.

    Args:
        engine: The store that all of them share.
    """

    def __init__(self, engine: Engine) -> None:
        self._database = InlineDatabase(engine)
        self._late: list[Manager] = []

    def add(self, manager: Manager) -> None:
        """Have a manager go on that has stood still."""
        self._late.append(manager)

    def forget(self) -> None:
        """End all of them."""
        self._late.clear()

    async def run_due(self) -> None:
        """Do what they believe is due, until they find out."""
        for late in list(self._late):
            await late.coordinator.run_due()
        self._late = [late for late in self._late if late.repository.led]

    def due_at(self) -> Iterator[float]:
        """Yield when each of them will have something to do, by the true time."""
        return (late.coordinator.next_at() - late.clock.offset_s for late in self._late)

    def tell(self, manager: Manager | None, news: News, teller: object) -> None:
        """Tell the manager that drives now what another one has written."""
        if manager is None or manager.database is teller or not news:
            return
        repository, applied = manager.repository, list[Applied]()
        self._database.write_now(lambda tx: repository.read_news(tx, news, applied.append))
        for each in applied:
            manager.coordinator.tell(each)
