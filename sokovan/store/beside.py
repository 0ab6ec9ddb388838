"""Reading a store beside whoever works with it, without leaving a trace."""

import sqlite3
from pathlib import Path

from sqlalchemy import create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from sokovan.config import StoreConfig
from sokovan.domain.errors import StoreUnavailableError
from sokovan.store.engine import Job, T, Transaction
from sokovan.store.files import is_in_use, state_of
from sokovan.store.opening import FILE
from sokovan.store.ownership import closing, reading
from sokovan.store.postgresql import open_postgresql
from sokovan.store.schema import require_head

BUSY_S = 10.0


def read_store(home: Path, config: StoreConfig, job: Job[T]) -> T:
    """Run `job` in one read transaction on the store of a home, beside whoever works with it.

    Raises:
        HomeError: There is no store.
        SchemaTooNewError, SchemaTooOldError: Another version wrote it.
        StoreUnavailableError: It cannot be read.
    """
    if not config.url:
        return read_beside(home / FILE, job)
    with closing(open_postgresql(config.url, config)) as engine, reading(engine) as connection:
        require_head(connection)
        return job(Transaction(connection))


def read_beside(path: Path, job: Job[T]) -> T:
    """Run `job` in one read transaction on a SQLite file; nothing is made, changed or locked.

    While a server has the file open, SQLite's write-ahead log lets both go on. Without a server
    there is no such log, and even a reader would make one: then the file is read as one that does
    not change, and read again in case it did.

    Raises:
        HomeError: There is no store.
        SchemaTooNewError, SchemaTooOldError: Another version wrote it.
        StoreUnavailableError: It cannot be read.
    """
    while True:
        before = state_of(path)
        is_open = is_in_use(path)
        try:
            found = _read(path, job, "mode=ro" if is_open else "immutable=1")
        except Exception:
            if is_open or state_of(path) == before:
                raise
        else:
            if is_open or state_of(path) == before:
                return found


def _read(path: Path, job: Job[T], how: str) -> T:
    def connect() -> sqlite3.Connection:
        address = f"{path.absolute().as_uri()}?{how}"
        return sqlite3.connect(address, uri=True, timeout=BUSY_S, isolation_level=None)

    engine = create_engine("sqlite://", creator=connect, poolclass=NullPool)
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("BEGIN")
            require_head(connection)
            return job(Transaction(connection))
    except DBAPIError as error:
        raise StoreUnavailableError(f"the store {path} cannot be read: {error.orig}") from error
    finally:
        engine.dispose()
