"""PostgreSQL: how it is connected to, how its writers take turns, what became of a commit.

Whoever writes holds one lock for the length of the transaction, so that writing transactions come
one after the other, as they do on SQLite. What was decided inside one holds until it is committed,
history lines are numbered in the order of the commits, and no two managers wait for each other in
a circle. See docs/decisions/0024.
"""

import time
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from sokovan.config import StoreConfig
from sokovan.domain.errors import ConfigError

SCHEMES = ("postgresql", "postgres")
MARK = "sokovan.transaction"
"""Under this name, a connection's `info` keeps the number of its present transaction."""
READ_BACK_TRIES = 50
"""So often is the database asked what became of a commit, while it does not answer."""
PAUSE_S = 0.2
STANDSTILL_S_MAX = 10
"""A transaction in which its manager does nothing for so long is undone: it has been stopped."""
STATEMENT_S_MAX = 60
CONNECT_S_MAX = 5
ALIVE_S = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3}
"""The kernel asks so often whether the other end is still there, in seconds and times."""
UNSENT_MS_MAX = 10_000

_TAKE_TURNS = """
    SELECT pg_advisory_xact_lock(x'50c0'::int, hashtext(current_schema())),
           pg_current_xact_id()::text
"""
_ONLY_READ = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"
_BE_DURABLE = """
    SELECT set_config('synchronous_commit', 'on', false)
    WHERE current_setting('synchronous_commit') = 'off'
"""


def parse(url: str) -> URL:
    """Read the address of a database, such as `postgresql://user@host:5432/name`.

    Raises:
        ConfigError: It is none.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        parsed = None
    if parsed is None or parsed.drivername not in SCHEMES:
        raise ConfigError(
            "store.url: it is no address of a database; write postgresql://USER@HOST:PORT/DATABASE,"
            " or nothing for the file sokovan.db in the home"
        )
    return parsed.set(drivername="postgresql+psycopg")


def open_postgresql(url: str, config: StoreConfig) -> Engine:
    """Return an engine for a PostgreSQL database.

    Raises:
        ConfigError: `url` is no address, or the driver is not installed.
    """
    settings = {
        "default_transaction_isolation": r"read\ committed",
        "idle_in_transaction_session_timeout": f"{STANDSTILL_S_MAX}s",
        "lock_timeout": f"{int(config.busy_timeout_s * 1000)}ms",
        "statement_timeout": f"{STATEMENT_S_MAX}s",
    }
    if config.synchronous == "NORMAL":
        settings["synchronous_commit"] = "off"
    try:
        engine = create_engine(
            parse(url),
            pool_size=4,
            connect_args={
                "application_name": "sokovan",
                "connect_timeout": CONNECT_S_MAX,
                "tcp_user_timeout": UNSENT_MS_MAX,
                "options": " ".join(f"-c {name}={value}" for name, value in settings.items()),
                **ALIVE_S,
            },
        )
    except ModuleNotFoundError:
        raise ConfigError(
            "store.url: the driver for PostgreSQL is not installed; install it with"
            " pip install 'sokovan[postgresql]'"
        ) from None

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: object) -> None:
        if config.synchronous == "FULL":
            connection.execute(_BE_DURABLE)
            connection.commit()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        if connection.get_execution_options().get("reads_only", False):
            connection.exec_driver_sql(_ONLY_READ)
        else:
            connection.info[MARK] = connection.exec_driver_sql(_TAKE_TURNS).one()[1]

    return engine


def read_back(engine: Engine, mark: str) -> bool | None:
    """Ask whether a transaction was committed whose commit was not answered.

    Args:
        engine: The database; it may be away, and be another server by now.
        mark: The number of the transaction.

    Returns:
        Whether it was; `None` when nobody answers.
    """
    for _ in range(READ_BACK_TRIES):
        try:
            with engine.begin() as connection:  # in turn: by then, the other one is over
                query = text("SELECT pg_xact_status(CAST(:mark AS xid8))")
                status = connection.execute(query, {"mark": mark}).scalar_one()
            return None if status is None else bool(status == "committed")
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) == "22023":  # of a number yet to come
                return False
            time.sleep(PAUSE_S)
    return None
