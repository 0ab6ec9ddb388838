"""The embedded default: one SQLite file in the home, or memory for tests and the simulator."""

import sqlite3
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import StaticPool

from sokovan.config import StoreConfig


def open_sqlite(path: Path | None, config: StoreConfig) -> Engine:
    """Return an engine for a SQLite file, or for memory when `path` is None."""
    url = "sqlite://" if path is None else f"sqlite:///{path}"
    engine = create_engine(
        url,
        connect_args={"timeout": config.busy_timeout_s, "check_same_thread": False},
        **({"poolclass": StaticPool} if path is None else {}),
    )

    @event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # BEGIN is ours to say
        cursor = connection.cursor()
        if path is not None:
            cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute(f"PRAGMA synchronous={config.synchronous}")
        cursor.execute("PRAGMA cache_size=-65536")
        cursor.execute("PRAGMA temp_store=MEMORY")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        reads = connection.get_execution_options().get("reads_only", False)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine
