"""Arrays as users see them: how many of their tasks are where. Only reads.

What has ended is counted when it ends, in the row of its array; what is alive, when somebody looks.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, Select, and_, func, not_, select, text

from sokovan.domain.errors import InvalidRequestError
from sokovan.domain.sessions import SessionId
from sokovan.domain.statuses import FINAL, SessionResult, SessionStatus
from sokovan.store.engine import Transaction, in_parts
from sokovan.store.queries import View, stamp
from sokovan.store.refs import ArrayRef
from sokovan.store.tables import LIVE_IN_ARRAY, arrays, kernels, sessions

_retry = sessions.alias("retry")
_IS_LAST = not_(select(_retry.c.number).where(_retry.c.retry_of == sessions.c.session_id).exists())
"""Nothing retries it."""
_ALIVE = text(LIVE_IN_ARRAY.text)


@dataclass(frozen=True, slots=True)
class ArrayFilter:
    """Which arrays to list."""

    live_only: bool = False
    owner: str | None = None
    name: str | None = None
    scaling_group: str | None = None
    limit: int = 1000
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class Counts:
    """How many tasks there are, and where."""

    live: Mapping[str, int]
    """By status."""
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    ended_at: float | None = None

    @property
    def size(self) -> int:
        """How many they are in all."""
        return self.ended + sum(self.live.values())

    @property
    def ended(self) -> int:
        """How many have ended."""
        return self.succeeded + self.failed + self.cancelled

    @property
    def result(self) -> SessionResult:
        """SUCCESS when all have ended with it."""
        if sum(self.live.values()):
            return SessionResult.UNDEFINED
        lost = self.failed + self.cancelled
        return SessionResult.FAILURE if lost else SessionResult.SUCCESS


def page_of_arrays(tx: Transaction, asked: ArrayFilter) -> tuple[list[Row[Any]], str | None]:
    """Return one page of rows of `arrays`, newest first, and the cursor of the next."""
    query: Select[Any] = select(arrays)
    if asked.live_only:
        query = query.where(text("ended_at IS NULL"))
    for column, wanted in (
        (arrays.c.owner, asked.owner),
        (arrays.c.name, asked.name),
        (arrays.c.scaling_group, asked.scaling_group),
    ):
        if wanted is not None:
            query = query.where(column == wanted)
    if asked.cursor is not None:
        if not asked.cursor.isdecimal():
            raise InvalidRequestError("cursor: pass on the one that the last page gave you")
        query = query.where(arrays.c.number < int(asked.cursor))
    rows = tx.execute(query.order_by(arrays.c.number.desc()).limit(asked.limit + 1)).all()
    more = len(rows) > asked.limit
    rows = rows[: asked.limit]
    return list(rows), str(rows[-1].number) if more else None


def array_row(tx: Transaction, array_id: str) -> Row[Any]:
    """Return the row of an array that exists."""
    row: Row[Any] = tx.execute(select(arrays).where(arrays.c.array_id == array_id)).one()
    return row


def counts_of(tx: Transaction, rows: Sequence[Row[Any]]) -> dict[str, Counts]:
    """Count the tasks of whole arrays."""
    live: dict[str, dict[str, int]] = {row.array_id: {} for row in rows}
    for part in in_parts([row.array_id for row in rows if row.ended_at is None]):
        found = select(sessions.c.array_id, sessions.c.status, func.count().label("count"))
        found = found.where(sessions.c.array_id.in_(part), _ALIVE)
        for row in tx.execute(found.group_by(sessions.c.array_id, sessions.c.status)):
            live[row.array_id][row.status] = row.count
    return {
        row.array_id: Counts(
            live[row.array_id], row.succeeded, row.failed, row.cancelled, row.ended_at
        )
        for row in rows
    }


def counts_of_part(tx: Transaction, ref: ArrayRef) -> Counts:
    """Count some tasks of an array."""
    live: Counter[str] = Counter()
    ends: Counter[str] = Counter()
    last: float | None = None
    columns = select(
        sessions.c.array_index, sessions.c.status, sessions.c.result, sessions.c.ended_at
    )
    for row in tx.execute(columns.where(sessions.c.array_id == ref.array_id, _IS_LAST)):
        if not ref.has(row.array_index):
            continue
        if row.status not in FINAL:
            live[row.status] += 1
            continue
        last = max(last or 0.0, row.ended_at or 0.0)
        if row.result == SessionResult.SUCCESS:
            ends["succeeded"] += 1
        else:
            ends["cancelled" if row.status == SessionStatus.CANCELLED else "failed"] += 1
    return Counts(dict(live), **ends, ended_at=None if live else last)


def first_failure(tx: Transaction, ref: ArrayRef) -> View | None:
    """Return the first task by index that has ended otherwise than with success."""
    columns = select(sessions.c.array_index).where(
        sessions.c.array_id == ref.array_id,
        sessions.c.status.in_(sorted(FINAL)),
        sessions.c.result != SessionResult.SUCCESS.value,
        _IS_LAST,
    )
    for row in tx.execute(columns.order_by(sessions.c.array_index)):
        if ref.has(row.array_index):
            whole = ArrayRef(ref.array_id)
            return page_of_tasks(tx, whole, (), row.array_index - 1, 1)[0][0]
    return None


def live_tasks(tx: Transaction, ref: ArrayRef) -> list[SessionId]:
    """Return the tasks that have not ended, by number."""
    columns = select(sessions.c.session_id, sessions.c.array_index)
    rows = tx.execute(columns.where(sessions.c.array_id == ref.array_id, _ALIVE))
    return [SessionId(row.session_id) for row in rows if ref.has(row.array_index)]


def page_of_tasks(
    tx: Transaction,
    ref: ArrayRef,
    statuses: Sequence[str],
    after: int | None,
    limit: int,
) -> tuple[list[View], int | None]:
    """Return what matters most of an array's tasks, by index, and where to go on.

    Without what they run, and so without anything to work out for each: there may be many.
    """
    columns = (
        select(
            sessions.c.session_id,
            sessions.c.array_index,
            sessions.c.name,
            sessions.c.status,
            sessions.c.result,
            sessions.c.reason,
            sessions.c.started_at,
            sessions.c.ended_at,
            kernels.c.exit_code,
            kernels.c.agent_id,
        )
        .join(
            kernels,
            and_(kernels.c.session_id == sessions.c.session_id, kernels.c.kernel_index == 0),
        )
        .where(sessions.c.array_id == ref.array_id, _IS_LAST)
        .order_by(sessions.c.array_index)
    )
    if statuses:
        columns = columns.where(sessions.c.status.in_(list(statuses)))
    if after is not None:
        columns = columns.where(sessions.c.array_index > after)
    if ref.part is None:
        columns = columns.limit(limit + 1)
    found: list[View] = []
    for session_id, index, name, status, result, reason, began, ended, code, agent in tx.execute(
        columns
    ):
        if not ref.has(index):
            continue
        if len(found) == limit:
            return found, found[-1]["index"]
        found.append(
            {
                "id": session_id,
                "array_id": ref.array_id,
                "index": index,
                "name": name,
                "status": status,
                "result": result,
                "reason": reason,
                "exit_code": code,
                "agent": agent,
                "started_at": stamp(began),
                "ended_at": stamp(ended),
            }
        )
    return found, None


def array_view(row: Row[Any], ref: ArrayRef, counts: Counts) -> View:
    """Return an array, or some of its tasks, as users see it; the field names are stable."""
    return {
        "id": row.array_id,
        "part": None if ref.part is None else str(ref.part),
        "name": row.name,
        "owner": row.owner,
        "scaling_group": row.scaling_group,
        "number": row.number,
        "size": counts.size,
        "running_max": row.running_max,
        "indexes": row.indexes or None,
        "params": dict(json.loads(row.params)) if row.params else {},
        "live": dict(sorted(counts.live.items())),
        "succeeded": counts.succeeded,
        "failed": counts.failed,
        "cancelled": counts.cancelled,
        "result": counts.result.value,
        "created_at": stamp(row.created_at),
        "ended_at": stamp(counts.ended_at),
    }
