"""Transactions of commands, which have a store to themselves, or only read, and may take long."""

import contextlib
from collections.abc import Iterator

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from sokovan.domain.errors import AlreadyRunningError
from sokovan.store.engine import committing
from sokovan.store.trouble import as_unavailable, is_trouble

_LIMITS = ("statement_timeout", "idle_in_transaction_session_timeout")
_OTHERS = text("""
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'sokovan'
      AND pid <> pg_backend_pid()
""")


@contextlib.contextmanager
def alone(engine: Engine) -> Iterator[Connection]:
    """Begin a transaction that writes, while no manager is connected; commit it at the end.

    Who calls this holds the lock of the home already. PostgreSQL can be that of several homes.

    Raises:
        AlreadyRunningError: Others are connected to the database.
        StoreUnavailableError: It cannot be written; nothing was.
    """
    with _in_words(), committing(engine) as connection:
        take_your_time(connection)
        if is_on_postgresql(connection) and (others := connection.execute(_OTHERS).scalar_one()):
            raise AlreadyRunningError(
                f"others of Sokovan are connected to this database ({others}): stop whatever"
                " manager that is, with `sokovan down` for its home, and try again"
            )
        yield connection


@contextlib.contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """Begin a transaction beside managers that run, and commit it at the end.

    Raises:
        StoreUnavailableError: It cannot be written; nothing was.
    """
    with _in_words(), committing(engine) as connection:
        yield connection


@contextlib.contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """Begin a transaction that sees one state of the store, and only reads.

    Raises:
        StoreUnavailableError: It cannot be read.
    """
    with _in_words(), engine.connect() as fresh:
        connection = fresh.execution_options(reads_only=True)
        with connection.begin():
            take_your_time(connection)
            yield connection


@contextlib.contextmanager
def closing(engine: Engine) -> Iterator[Engine]:
    """Let go of a database at the end."""
    try:
        yield engine
    finally:
        engine.dispose()


def take_your_time(connection: Connection) -> None:
    """Let this transaction last: PostgreSQL ends those of managers that do."""
    if is_on_postgresql(connection):
        for limit in _LIMITS:
            connection.exec_driver_sql(f"SET LOCAL {limit} = 0")


def is_on_postgresql(connection: Connection) -> bool:
    """Say which of the two databases this is."""
    return connection.dialect.name == "postgresql"


@contextlib.contextmanager
def _in_words() -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        if not is_trouble(error):
            raise
        raise as_unavailable(error) from error
