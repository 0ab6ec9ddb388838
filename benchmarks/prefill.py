"""Fills a store with sessions that have ended, as the product would have left them, or that wait.

One session is written by the product, brought to its end, and copied by the database.
"""

import argparse
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from sqlalchemy import Engine, Table, text

from sokovan.config import StoreConfig
from sokovan.domain.resources import Request
from sokovan.domain.sessions import SessionSpec
from sokovan.identity import IdSource
from sokovan.store.engine import InlineDatabase, Transaction
from sokovan.store.opening import open_store
from sokovan.store.schema import prepare
from sokovan.store.submissions import Entry, insert_sessions, new_session
from sokovan.store.tables import history, kernels, sessions, specs

CHUNK = 10_000
SHAPES = 100
BEGAN_AT = 1.7e9
SESSION_LINES = (
    ("PENDING", "SCHEDULED", "scheduled"),
    ("SCHEDULED", "PREPARING", "passed-preconditions"),
    ("PREPARING", "PREPARED", "kernels-prepared"),
    ("PREPARED", "CREATING", "triggered-by-scheduler"),
    ("CREATING", "RUNNING", "kernels-running"),
    ("RUNNING", "TERMINATING", "SELF_TERMINATED"),
    ("TERMINATING", "TERMINATED", "kernels-ended"),
)
_ID = "'z' || substr(CAST(100000000000 + n.i AS VARCHAR), 2)"
_OWN = {
    "session_id": _ID,
    "kernel_id": f"CASE WHEN one.kernel_id IS NOT NULL THEN {_ID} || '.0' END",
    "token": f"{_ID} || '.0'",
}
"""What a copy has of its own, beside its number."""


def fill(home: Path, *, finished: int = 0, waiting: int = 0) -> None:
    """Write sessions into the store that the settings of a home name.

    Args:
        home: Nobody serves it yet.
        finished: How many ended well; each has one kernel and a full history.
        waiting: How many are PENDING, and fit on no agent with less than 2 cores.
    """
    settings = tomllib.loads((home / "config.toml").read_text()).get("store", {})
    quick = {"url": settings["url"]} if "url" in settings else {}
    synchronous = "NORMAL" if quick else "OFF"  # durable is what comes afterwards
    engine = open_store(home, StoreConfig(synchronous=synchronous, **quick))
    prepare(engine)
    database, ids = InlineDatabase(engine), IdSource()
    if finished:
        database.write_now(lambda tx: _end_one(tx, ids))
        for first in range(1, finished, CHUNK):
            last = min(first + CHUNK, finished) - 1
            database.write_now(lambda tx, part=(first, last): _copy(tx, *part))  # type: ignore[misc]
        _tidy(engine)
    for first in range(0, waiting, CHUNK):
        count = min(CHUNK, waiting - first)
        database.write_now(lambda tx, count=count: _let_wait(tx, ids, count))  # type: ignore[misc]
    database.close()


def _let_wait(tx: Transaction, ids: IdSource, count: int) -> None:
    shapes = [
        SessionSpec(command=("/bin/true",), owner="prefill", request=Request(cpu_milli=2000 + n))
        for n in range(SHAPES)
    ]
    asked = [shapes[n % SHAPES] for n in range(count)]
    insert_sessions(tx, [Entry(spec, new_session(spec, ids, BEGAN_AT)) for spec in asked])


def _end_one(tx: Transaction, ids: IdSource) -> None:
    spec = SessionSpec(command=("/bin/true",), owner="prefill", name="before")
    insert_sessions(tx, [Entry(spec, new_session(spec, ids, BEGAN_AT))])
    tx.execute(
        text(
            "UPDATE sessions SET status='TERMINATED', status_seq=7, result='SUCCESS',"
            " reason='SELF_TERMINATED', started_at=created_at, ended_at=created_at+1"
        )
    )
    tx.execute(
        text(
            "UPDATE kernels SET status='TERMINATED', agent_id='gone', token=kernel_id, exit_code=0"
        )
    )
    for seq, (before, after, reason) in enumerate(SESSION_LINES, 1):
        for kernel in ("NULL", "session_id || '.0'"):
            line = {"seq": seq, "before": before, "after": after, "reason": reason}
            tx.execute(
                text(
                    "INSERT INTO history (session_id, kernel_id, status_seq, from_status,"
                    f" to_status, reason, detail, stage, at) SELECT session_id, {kernel}, :seq,"
                    " :before, :after, :reason, '', 'prefill', created_at FROM sessions"
                ),
                line,
            )


def _copy(tx: Transaction, first: int, last: int) -> None:
    for table, key, numbered in (
        (sessions, "number", "number"),
        (specs, "session_id", None),
        (kernels, "kernel_id", None),
        (history, "line", "line"),
    ):
        tx.execute(text(_copying(table, key, numbered)), {"first": first, "last": last})


def _copying(table: Table, key: str, numbered: str | None) -> str:
    """Return the statement that copies the rows of the first session, once for each number."""
    taken = dict(_columns(table, _OWN, numbered))
    names = ", ".join(f'"{name}"' for name in taken)
    return (
        "WITH RECURSIVE n(i) AS (SELECT CAST(:first AS BIGINT) UNION ALL"
        " SELECT i + 1 FROM n WHERE i < :last)"
        f" INSERT INTO {table.name} ({names}) SELECT {', '.join(taken.values())}"
        f" FROM n CROSS JOIN {table.name} AS one WHERE one.session_id ="
        f" (SELECT session_id FROM sessions ORDER BY number LIMIT 1) ORDER BY n.i, one.{key}"
    )


def _columns(
    table: Table, own: Mapping[str, str], numbered: str | None
) -> Iterator[tuple[str, str]]:
    for column in table.columns:
        if column.name != numbered:
            yield column.name, own.get(column.name, f'one."{column.name}"')


def _tidy(engine: Engine) -> None:
    """Do what PostgreSQL would have done by itself meanwhile."""
    if engine.dialect.name == "postgresql":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("SET statement_timeout = 0")
            connection.exec_driver_sql("VACUUM ANALYZE")
            connection.exec_driver_sql("CHECKPOINT")
            connection.invalidate()  # these settings are not for anybody else


def main() -> None:
    """Fill the store of a home."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("home", type=Path, help="with a config.toml, which may be empty")
    parser.add_argument("--finished", type=int, default=0, help="sessions that have ended")
    parser.add_argument("--waiting", type=int, default=0, help="sessions that wait")
    args = parser.parse_args()
    fill(args.home, finished=args.finished, waiting=args.waiting)


if __name__ == "__main__":
    main()
