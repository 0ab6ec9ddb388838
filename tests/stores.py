"""Homes with a store in either database, for the tests of `sokovan db`."""

import contextlib
import json
import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy import select, text

from sokovan.cli.main import run
from sokovan.config import DATABASE_FILE, StoreConfig, load_config
from sokovan.store.opening import FILE, open_store
from sokovan.store.ownership import closing
from sokovan.store.schema import prepare
from sokovan.store.sqlite import open_sqlite
from sokovan.store.tables import metadata

FIXTURES = Path(__file__).parent / "fixtures"


class StoreHome:
    """A home whose store nobody has open, and what `sokovan db` says of it."""

    def __init__(self, path: Path, capsys: Any) -> None:
        self.path = path
        self._capsys = capsys

    def __call__(self, *args: str, code: int = 0) -> str:
        """Run `sokovan db ...`; return what it prints, on stderr when it fails."""
        found = run(["db", args[0], "--home", str(self.path), *map(str, args[1:])])
        said = self._capsys.readouterr()
        assert found == code, (args, found, said.out, said.err)
        return said.out if code in {0, 1} else said.err

    def json(self, *args: str, code: int = 0) -> Any:
        return json.loads(self(*args, "--json", code=code))

    def use(self, url: str) -> None:
        """Have the home use a PostgreSQL database."""
        (self.path / DATABASE_FILE).write_text(url + "\n")

    def execute(self, statement: str, **values: Any) -> list[Any]:
        """Execute one statement in the store, and return its rows."""
        engine = open_store(self.path, load_config(self.path).store)
        with closing(engine), engine.begin() as connection:
            done = connection.execute(text(statement), values)
            return list(done) if done.returns_rows else [done.rowcount]

    def rows(self, table: str) -> list[Any]:
        """Return every row of a table, the same of either database."""
        engine = open_store(self.path, load_config(self.path).store)
        with closing(engine), engine.connect() as connection:
            return sorted(map(repr, connection.execute(select(metadata.tables[table]))))

    def names(self) -> set[str]:
        return {path.name for path in self.path.iterdir()}


def write_store(path: Path, step: str = "0004", *, upgraded: bool = True) -> None:
    """Write the store that a version has left behind, with sessions of every kind."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript((FIXTURES / f"store_{step}.sql").read_text())
    path.chmod(0o600)
    if upgraded:
        engine = open_sqlite(path, StoreConfig())
        prepare(engine)
        engine.dispose()


def a_store_home(directory: Path, capsys: Any) -> StoreHome:
    """Make a home with a store of this version in a file."""
    directory.mkdir(mode=0o700, exist_ok=True)
    write_store(directory / FILE)
    return StoreHome(directory, capsys)
