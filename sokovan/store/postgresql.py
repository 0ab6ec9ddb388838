"""PostgreSQL: how it is connected to, how its writers take turns, what became of a commit.

Whoever writes holds one lock for the length of the transaction, so that writing transactions come
one after the other, as they do on SQLite. What was decided inside one holds until it is committed,
history lines are numbered in the order of the commits, and no two managers wait for each other in
a circle. See docs/decisions/0024.
"""

import re
import time
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from sokovan.clock import SystemClock
from sokovan.config import StoreConfig
from sokovan.domain.errors import ConfigError
from sokovan.store.trouble import sqlstate_of

SCHEMES = ("postgresql", "postgres")
MARK = "sokovan.transaction"
"""Under this name, a connection's `info` keeps the `Mark` of its present transaction."""
_LIFE = "sokovan.life"
READ_BACK_S_MAX = 20.0
"""So long is the database asked what became of a commit, while it does not answer."""
PAUSE_S = 0.2
STANDSTILL_S_MAX = 10
"""A transaction in which its manager does nothing for so long is undone: it has been stopped."""
GRACE_S = 5.0
"""So much longer than the server itself may take, its answer may be on its way."""
CONNECT_S_MAX = 5
ALIVE_S = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3}
"""The kernel asks so often whether the other end is still there, in seconds and times."""
UNSENT_MS_MAX = 10_000
INT_MAX = 2**31 - 1

_TAKE_TURNS = """
    SELECT pg_advisory_xact_lock(x'50c0'::int, hashtext(current_schema())),
           pg_current_xact_id()::text
"""
_ONLY_READ = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"
_BE_DURABLE = """
    SELECT set_config('synchronous_commit', 'on', false)
    WHERE current_setting('synchronous_commit') = 'off'
"""
_LIVES = """
    SELECT CASE WHEN pg_is_in_recovery() THEN 'a standby'
           ELSE left(pg_walfile_name(pg_current_wal_lsn()), 8) || ' ' || stats_reset END
    FROM pg_stat_bgwriter
"""
"""Changes when the server crashes, and when another one takes its place.

A crash resets the statistics, and a standby that is promoted begins a timeline of its own.
"""
_SEVERAL_HOSTS = re.compile(r"(?P<head>\w+://([^@/?]*@)?)(?P<hosts>[^/?]*,[^/?]*)(?P<tail>.*)")
_HOST = re.compile(r"(?P<host>\[[^]]*\]|[^:]*)(:(?P<port>\d*))?")
PORT = "5432"


class Mark(NamedTuple):
    """What tells a transaction from all others."""

    number: str
    life: str
    """Of the server: the number of a transaction that a crash undid may be given once more."""


def parse(url: str) -> URL:
    """Read the address of a database, such as `postgresql://user@host:5432/name`.

    Several hosts are parted by commas, as everywhere in PostgreSQL's world.

    Raises:
        ConfigError: It is none.
    """
    try:
        several = _SEVERAL_HOSTS.fullmatch(url)
        parsed = make_url(several["head"] + several["tail"] if several else url)
        if several:
            pairs = [_HOST.fullmatch(host) for host in several["hosts"].split(",")]
            hosts = ",".join(pair["host"].strip("[]") for pair in pairs if pair)
            ports = ",".join(pair["port"] or PORT for pair in pairs if pair)
            parsed = parsed.update_query_dict({"host": hosts, "port": ports})
    except (ArgumentError, ValueError):
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
        "lock_timeout": _ms(config.busy_timeout_s),
        "statement_timeout": _ms(config.answer_s_max),
    }
    if config.synchronous == "NORMAL":
        settings["synchronous_commit"] = "off"
    try:
        from sokovan.store.patience import PatientConnection

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

    patience_s = config.answer_s_max + GRACE_S

    @event.listens_for(engine, "do_connect")
    def _connect(_dialect: object, _record: object, args: Any, options: Any) -> PatientConnection:
        return PatientConnection.connect(*args, **options)

    @event.listens_for(engine, "connect")
    def _configure(connection: PatientConnection, record: Any) -> None:
        connection.patience_s = patience_s
        if config.synchronous == "FULL":
            connection.execute(_BE_DURABLE)
        (record.info[_LIFE],) = connection.execute(_LIVES).fetchall()[0]
        connection.commit()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        _driver(connection).patience_s = patience_s
        if connection.get_execution_options().get("reads_only", False):
            connection.exec_driver_sql(_ONLY_READ)
        else:
            number = connection.exec_driver_sql(_TAKE_TURNS).one()[1]
            connection.info[MARK] = Mark(number, connection.info[_LIFE])

    return engine


def _ms(seconds: float) -> str:
    return f"{min(int(seconds * 1000), INT_MAX)}ms"


def be_patient(connection: Connection) -> None:
    """Let the statements of this transaction take as long as they take."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        _driver(connection).patience_s = None


def _driver(connection: Connection) -> Any:
    """Return the driver's own connection: a `PatientConnection`."""
    return connection.connection.driver_connection


def read_back(engine: Engine, mark: Mark) -> bool | None:
    """Ask whether a transaction was committed whose commit was not answered.

    Args:
        engine: The database; it may be away, and be another server by now.
        mark: Which transaction.

    Returns:
        Whether it was; `None` when nobody answers, or when its number may have been given to
        another one since.
    """
    clock = SystemClock()
    until = clock.now() + READ_BACK_S_MAX
    while True:
        try:
            with engine.begin() as connection:  # in turn: by then, the other one is over
                query = text("SELECT pg_xact_status(CAST(:number AS xid8))")
                status = connection.execute(query, {"number": mark.number}).scalar_one()
                life = connection.info[_LIFE]
        except DBAPIError as error:
            if sqlstate_of(error) == "22023":  # of a number yet to come
                return False
            if clock.now() > until:
                return None
            time.sleep(PAUSE_S)
        else:
            if status != "committed":
                return None if status is None else False
            return True if life == mark.life else None
