"""The store of a simulated manager: the real one, in memory; it refuses, dawdles, is cut off."""

import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import OperationalError

from sokovan.domain.errors import CommitUnknownError, StoreUnavailableError
from sokovan.simulator.fate import Fate, ManagerDied
from sokovan.store.engine import InlineDatabase, Job, T, Transaction
from sokovan.store.news import News


@dataclass(slots=True)
class Disk:
    """Where the store lies, whatever manager writes it."""

    is_full: bool = False
    """Every write is refused."""
    written_since: float = 0.0
    """When it was last full, by the true time."""

    def free(self, now: float) -> None:
        """Have it written again."""
        self.is_full, self.written_since = False, now


class SimulatedDatabase(InlineDatabase):
    """What one life of the manager has of the store.

    Args:
        engine: Outlives the manager.
        fate: Decides what goes wrong.
        committed: Called after each transaction.
        meanwhile: Lets everything else go on for some seconds.
        stand_still: Has another manager take over, and everything else go on for some seconds.
        boundary: Told wherever the manager may be killed, and by which fault; raises `ManagerDied`
            when it is.
        told: Given what each transaction has changed.
        disk: May refuse every write.
    """

    def __init__(
        self,
        engine: Engine,
        fate: Fate,
        *,
        committed: Callable[[], None],
        meanwhile: Callable[[float], Awaitable[None]],
        stand_still: Callable[[float], Awaitable[None]],
        boundary: Callable[[str], None],
        told: Callable[[News], None],
        disk: Disk,
    ) -> None:
        super().__init__(engine)
        self.is_dead = False
        self._stand_still = stand_still
        self._told = told
        self._fate = fate
        self._committed = committed
        self._meanwhile = meanwhile
        self._boundary = boundary
        self._disk = disk

    async def write(self, job: Job[T]) -> T:
        """Run and commit `job`, if all goes well."""
        await self._come_to_it()
        if self._disk.is_full:
            raise StoreUnavailableError("the store cannot be written: the disk is full")
        if self._fate.happens("commit_in_doubt"):
            self._leave_in_doubt(job)
        result = self.write_now(job)
        self._told(self._news)
        self._committed()
        self._live_or_die("manager_dies_in_transaction")
        return result

    async def read(self, job: Job[T]) -> T:
        """Run `job`, if all goes well."""
        await self._come_to_it()
        return self.write_now(job)

    def transaction_on(self, connection: Connection) -> Transaction:
        """Return a transaction that may fail, or end the manager, at each of its statements."""
        begun = _Perilous(connection, self._before_statement)
        self._news = begun.news
        return begun

    async def _come_to_it(self) -> None:
        self._live_or_die()
        if self._fate.happens("store_slow"):
            await self._meanwhile(self._fate.seconds("store_slow_s"))
        if self._fate.happens("manager_stands_still"):
            await self._stand_still(self._fate.seconds("stand_still_s"))
        self._live_or_die("manager_dies_in_transaction")
        if self._fate.happens("store_fails"):
            raise StoreUnavailableError("the store cannot be written: so it was decided")

    def _before_statement(self) -> None:
        self._live_or_die("manager_dies_at_statement")
        if self._fate.happens("statement_fails"):
            raise OperationalError("", {}, sqlite3.OperationalError("disk I/O error, on purpose"))

    def _leave_in_doubt(self, job: Job[T]) -> None:
        """Write it, or do not, and let nobody know."""
        if self._fate.rng.random() < 0.5:
            self.write_now(job, tells=False)
            self._told(self._news)
        raise CommitUnknownError("the connection was lost while committing")

    def _live_or_die(self, fault: str | None = None) -> None:
        if fault is not None and not self.is_dead:
            self._boundary(fault)
            self.is_dead = self._fate.happens(fault)
        if self.is_dead:
            raise ManagerDied


class _Perilous(Transaction):
    """A transaction in which something may happen before each statement."""

    def __init__(self, connection: Connection, before: Callable[[], None]) -> None:
        super().__init__(connection)
        self._before = before

    def execute(self, statement: Any, parameters: Any = None) -> Any:
        self._before()
        return super().execute(statement, parameters)
