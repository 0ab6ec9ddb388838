"""History as a sequence of events: read in pieces, and only where nothing can come in any more.

A line is written in the transaction of what it tells, so it is there if and only if that happened.
Its number is the event's id. Whoever has seen all up to one goes on behind it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, func, insert, or_, select, update

from sokovan.domain.errors import EventsGoneError
from sokovan.domain.events import KERNEL, NOTED, SESSION, WAITING, kind_of
from sokovan.domain.sessions import SessionId
from sokovan.domain.statuses import FINAL, SessionStatus
from sokovan.store.engine import Transaction
from sokovan.store.queries import View, stamp
from sokovan.store.tables import history, marks, sessions

PRUNED_TO = "pruned_to"
_PRUNED_TO = select(marks.c.number).where(marks.c.name == PRUNED_TO)
LOOKED_AT_MAX = 10_000
"""So many lines at most are looked through at once, however few of them are asked for."""


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events are asked for; what is `None` or empty lets all through."""

    session_id: SessionId | None = None
    owner: str | None = None
    group: str | None = None
    name: str | None = None
    kinds: Sequence[str] = ()


EVERY_EVENT = EventFilter()


@dataclass(frozen=True, slots=True)
class Events:
    """A piece of the sequence."""

    items: Sequence[View]
    """Oldest first."""
    after: int
    """Up to here it was looked through."""
    more: bool
    """Whether there is something behind that already."""


def horizon(tx: Transaction) -> int:
    """Return the id up to which nothing can come in any more; 0 before the first event.

    Lines are read up to here only. On SQLite, one writer commits after the other, so that this is
    the last line; where transactions overlap, it has to stay below the oldest open one.
    """
    last: int | None = tx.execute(select(func.max(history.c.line))).scalar()
    return last or 0


def check_kept(tx: Transaction, after: int) -> None:
    """Make sure that nothing is missing between an id that somebody has seen and the next.

    Raises:
        EventsGoneError: What follows it was removed, or the store does not know so high an id.
    """
    last = horizon(tx)
    if after > last:
        raise EventsGoneError(
            f"after: there is no event {after}, the last is {last}: an older store was put in its"
            " place; begin anew with after=0, or leave it out for what is new",
            field="after",
        )
    pruned = pruned_to(tx)
    if 0 < after < pruned:
        raise EventsGoneError(
            f"after: of what followed event {after}, not all is kept, but all behind {pruned};"
            " begin anew with after=0, or leave it out for what is new",
            field="after",
        )


def nearest_kept(tx: Transaction, after: int) -> int:
    """Return where to go on for who has seen all up to `after`, of which `check_kept` complains."""
    return min(max(after, pruned_to(tx)), horizon(tx))


def pruned_to(tx: Transaction) -> int:
    """Return the id up to which events may have been removed; 0 when none was."""
    number: int | None = tx.execute(_PRUNED_TO).scalar()
    return number or 0


def note_pruned(tx: Transaction, line: int) -> None:
    """Remember that events up to an id may be missing."""
    before: int | None = tx.execute(_PRUNED_TO).scalar()
    if before is None:
        tx.execute(insert(marks), [{"name": PRUNED_TO, "number": line}])
    elif before < line:
        tx.execute(update(marks).where(marks.c.name == PRUNED_TO).values(number=line))


def events_after(tx: Transaction, asked: EventFilter, after: int, limit: int) -> Events:
    """Return the first events behind `after`, as many as fit.

    Raises:
        EventsGoneError: See `check_kept`.
    """
    check_kept(tx, after)
    last = horizon(tx)
    end = last if asked.session_id is not None else min(after + LOOKED_AT_MAX, last)
    query = _query(asked).where(history.c.line > after, history.c.line <= end)
    rows = tx.execute(query.order_by(history.c.line).limit(limit)).all()
    if len(rows) == limit:
        end = rows[-1].line
    return Events([_view(row) for row in rows], end, end < last)


def last_events(tx: Transaction, asked: EventFilter, limit: int) -> Events:
    """Return the last events, as many as `limit`: of those that were looked through."""
    last = horizon(tx)
    query = _query(asked).where(history.c.line <= last)
    if asked.session_id is None:
        query = query.where(history.c.line > last - LOOKED_AT_MAX)
    rows = tx.execute(query.order_by(history.c.line.desc()).limit(limit)).all()
    return Events([_view(row) for row in reversed(rows)], last, more=False)


def _query(asked: EventFilter) -> Select[Any]:
    query = select(
        history,
        sessions.c.name,
        sessions.c.owner,
        sessions.c.scaling_group,
        sessions.c.result,
    ).join(sessions, sessions.c.session_id == history.c.session_id)
    if asked.session_id is not None:
        query = query.where(history.c.session_id == asked.session_id)
    for column, wanted in (
        (sessions.c.owner, asked.owner),
        (sessions.c.scaling_group, asked.group),
        (sessions.c.name, asked.name),
    ):
        if wanted is not None:  # not the column alone: its index would lead to all its sessions
            query = query.where(column.concat("") == wanted)
    if asked.kinds:
        query = query.where(or_(*map(_is_of, asked.kinds)))
    return query


def _is_of(kind: str) -> ColumnElement[bool]:
    """Say in SQL what `kind_of` says of one line."""
    whose, _, what = kind.partition(".")
    line = history.c
    if whose == KERNEL:
        of_it = line.kernel_id.is_not(None)
        return of_it if not what else and_(of_it, line.to_status == what.upper())
    assert whose == SESSION, f"{kind!r} was not checked"
    of_it = line.kernel_id.is_(None)
    stays = and_(of_it, line.from_status.is_not(None), line.from_status == line.to_status)
    moves = and_(of_it, or_(line.from_status.is_(None), line.from_status != line.to_status))
    if what == WAITING:
        return and_(stays, line.to_status == SessionStatus.PENDING)
    if what == NOTED:
        return and_(stays, line.to_status != SessionStatus.PENDING)
    return of_it if not what else and_(moves, line.to_status == what.upper())


def _view(row: Any) -> View:
    ends = row.kernel_id is None and row.to_status in FINAL
    return {
        "id": row.line,
        "kind": kind_of(row.kernel_id, row.from_status, row.to_status),
        "at": stamp(row.at),
        "session_id": row.session_id,
        "kernel_id": row.kernel_id,
        "name": row.name,
        "owner": row.owner,
        "scaling_group": row.scaling_group,
        "from_status": row.from_status,
        "to_status": row.to_status,
        "status_seq": row.status_seq,
        "reason": row.reason,
        "detail": row.detail,
        "stage": row.stage,
        "result": row.result if ends else None,  # of the end alone: it would change in between
    }
