"""Fills a store with finished sessions and their history, as the product would have left them."""

import sqlite3
import sys
from dataclasses import replace
from pathlib import Path

from sokovan.config import StoreConfig
from sokovan.domain.sessions import SessionSpec
from sokovan.identity import IdSource
from sokovan.store.engine import InlineDatabase, Transaction
from sokovan.store.schema import prepare
from sokovan.store.sqlite import open_sqlite
from sokovan.store.submissions import insert_sessions, new_session

CHUNK = 5000
SESSION_LINES = (
    ("PENDING", "SCHEDULED", "scheduled"),
    ("SCHEDULED", "PREPARING", "passed-preconditions"),
    ("PREPARING", "PREPARED", "kernels-prepared"),
    ("PREPARED", "CREATING", "triggered-by-scheduler"),
    ("CREATING", "RUNNING", "kernels-running"),
    ("RUNNING", "TERMINATING", "SELF_TERMINATED"),
    ("TERMINATING", "TERMINATED", "kernels-ended"),
)


def fill(path: Path, count: int) -> None:
    """Write `count` sessions that ended well; each has one kernel and a full history."""
    engine = open_sqlite(path, StoreConfig(synchronous="OFF"))
    prepare(engine)
    database, ids = InlineDatabase(engine), IdSource()
    spec = SessionSpec(command=("/bin/true",), owner="prefill", name="before")
    for first in range(0, count, CHUNK):

        def job(tx: Transaction, first: int = first) -> None:
            insert_sessions(
                tx,
                [
                    (spec, replace(new_session(spec, ids, 1.7e9 + first + n)), "")
                    for n in range(min(CHUNK, count - first))
                ],
            )

        database.write_now(job)
    database.close()
    with sqlite3.connect(path) as connection:
        _end_all(connection)
    connection.close()


def _end_all(connection: sqlite3.Connection) -> None:
    connection.execute(
        "UPDATE sessions SET status='TERMINATED', status_seq=7, result='SUCCESS',"
        " reason='SELF_TERMINATED', started_at=created_at, ended_at=created_at+1"
    )
    connection.execute(
        "UPDATE kernels SET status='TERMINATED', agent_id='gone', token=kernel_id, exit_code=0"
    )
    for seq, (before, after, reason) in enumerate(SESSION_LINES, 1):
        for kernel in ("NULL", "session_id || '.0'"):
            connection.execute(
                "INSERT INTO history (session_id, kernel_id, status_seq, from_status, to_status,"
                f" reason, detail, stage, at) SELECT session_id, {kernel}, ?, ?, ?, ?, '',"
                " 'prefill', created_at FROM sessions",
                (seq, before, after, reason),
            )


if __name__ == "__main__":
    fill(Path(sys.argv[1]), int(sys.argv[2]))
