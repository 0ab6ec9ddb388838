"""Reading a store beside whoever works with it, without leaving a trace."""

import sqlite3
from pathlib import Path

from sqlalchemy import create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from sokovan.domain.errors import HomeError, StoreUnavailableError
from sokovan.store.engine import Job, T, Transaction
from sokovan.store.schema import require_head

BUSY_S = 10.0


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
        before = _state(path)
        is_open = path.with_name(f"{path.name}-wal").exists()
        try:
            found = _read(path, job, "mode=ro" if is_open else "immutable=1")
        except Exception:
            if is_open or _state(path) == before:
                raise
        else:
            if is_open or _state(path) == before:
                return found


def _state(path: Path) -> tuple[int, ...]:
    """Return what changes whenever the store does."""
    try:
        found = path.stat()
    except FileNotFoundError:
        raise HomeError(f"there is no store {path}: no server has run for this home yet") from None
    log = path.with_name(f"{path.name}-wal")
    return found.st_ino, found.st_size, found.st_mtime_ns, log.exists()


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
