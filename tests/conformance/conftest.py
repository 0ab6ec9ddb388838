"""One suite for every store: the stores, and what a test does with one."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Self

import pytest
from sqlalchemy import event

from sokovan.clock import ManualClock
from sokovan.config import StoreConfig
from sokovan.domain.cluster import ScalingGroup
from sokovan.store import bulk
from sokovan.store.engine import Database, InlineDatabase
from sokovan.store.managers import KnownManager
from sokovan.store.postgresql import open_postgresql
from sokovan.store.queries import history_of
from sokovan.store.repository import SqlRepository
from sokovan.store.schema import prepare
from sokovan.store.sqlite import open_sqlite
from sokovan.store.threads import ThreadedDatabase
from tests.build import NOW, a_repository
from tests.checked import CheckedRepository

STORES = [
    "sqlite-memory",
    "sqlite-file",
    pytest.param("postgresql", marks=pytest.mark.postgres),
]


class Store:
    """A database, and repositories on it as one manager after the other would open them."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.clock = ManualClock(NOW)
        self._opened = 0

    async def opened(
        self, *groups: ScalingGroup | str, kind: type[SqlRepository] = CheckedRepository
    ) -> SqlRepository:
        """Open a repository that takes over, as a manager does at its start."""
        self._opened += 1
        repository = a_repository(
            *groups,
            database=self.database,
            clock=self.clock,
            seed=self._opened,
            holder=f"manager {self._opened}",
            taken_over=False,
            kind=kind,
        )
        await repository.take_over()
        return repository

    async def joined(
        self,
        *groups: ScalingGroup | str,
        holder: str = "",
        lease_s: float = 10.0,
    ) -> SqlRepository:
        """Open a repository that takes what nobody has, as a manager does that may not be alone.

        It does not check itself: until it hears of what others write, it shows what was before.
        """
        self._opened += 1
        repository = a_repository(
            *groups,
            database=self.database,
            clock=self.clock,
            seed=self._opened,
            holder=holder or f"manager {self._opened}",
            lease_s=lease_s,
            taken_over=False,
        )
        await repository.refresh()
        await repository.keep_leases(known_as(repository))
        return repository

    async def history(self, session_id: str) -> list[dict]:
        return await self.database.read(lambda tx: history_of(tx, session_id))

    def counting(self) -> "Statements":
        return Statements(self.database.engine)


def known_as(repository: SqlRepository) -> KnownManager:
    """Return what a manager says of itself."""
    return KnownManager(repository.manager_id, "http://127.0.0.1:1", "here", 1, "0.1.0", NOW)


class Statements:
    """Counts the statements of a block, those of transactions apart."""

    def __init__(self, engine) -> None:
        self._engine = engine
        self._past = {name: getattr(bulk, name) for name in ("send", "stream")}
        """What goes past SQLAlchemy, and its events."""
        self.texts: list[str] = []

    def __enter__(self) -> Self:
        event.listen(self._engine, "before_cursor_execute", self._note)
        for name, passes in self._past.items():
            setattr(bulk, name, partial(self._pass, passes))
        return self

    def __exit__(self, *_: object) -> None:
        for name, passes in self._past.items():
            setattr(bulk, name, passes)
        event.remove(self._engine, "before_cursor_execute", self._note)

    def __len__(self) -> int:
        return len(self.texts)

    def _pass(self, passes, cursor, written, passed) -> None:
        text = written.partition(" VALUES ")[0]
        if [text] != self.texts[-1:]:  # SQLite is given new rows in parts
            self.texts.append(text)
        passes(cursor, written, passed)

    def _note(self, _connection, _cursor, statement, *_: object) -> None:
        if statement.split()[0] not in {"BEGIN", "SAVEPOINT", "RELEASE"} | {"SET"}:
            self.texts.append(statement)


@pytest.fixture(params=STORES)
async def store(request, tmp_path) -> AsyncIterator[Store]:
    """Open an empty store of each kind."""
    in_memory = request.param == "sqlite-memory"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql").prepared()
        engine = open_postgresql(url, StoreConfig())
    else:
        engine = open_sqlite(None if in_memory else tmp_path / "sokovan.db", StoreConfig())
    prepare(engine)
    database: Database = (
        InlineDatabase(engine)
        if in_memory
        else ThreadedDatabase(engine, asyncio.get_running_loop())
    )
    yield Store(database)
    await asyncio.to_thread(database.close)


@pytest.fixture
async def repository(store) -> SqlRepository:
    """Open a repository that checks itself after every change."""
    return await store.opened("default", "other")
