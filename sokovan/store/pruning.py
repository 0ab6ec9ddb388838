"""Sessions that ended long ago, removed a few at a time, beside a server that runs.

What belongs together goes together: a session with all its retries, an array with all its tasks.
Stays: what is young, what a live session depends on, what still holds something on an agent, what a
webhook has not been told, and whatever has the last number, as SQLite would give it again.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import Table, delete, func, or_, select

from sokovan.domain.statuses import FINAL
from sokovan.store.engine import Transaction, in_parts
from sokovan.store.events import note_pruned
from sokovan.store.tables import (
    arrays,
    dependencies,
    history,
    holds,
    kernels,
    sessions,
    specs,
    webhooks,
)

LOOKED_FOR_AT_ONCE = 5000
REMOVED_AT_ONCE = 200
"""So many sessions go in one transaction; more only where retries, or an array's tasks, are."""
_ENDED = sorted(FINAL)


@dataclass(frozen=True, slots=True)
class Pruned:
    """How much was removed, or would be."""

    sessions: int = 0
    arrays: int = 0
    kernels: int = 0
    history_lines: int = 0
    untold: int = 0
    """Sessions that are old enough, and stay until every webhook was told of their ends."""

    def __add__(self, other: "Pruned") -> "Pruned":
        return Pruned(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


@dataclass(frozen=True, slots=True)
class Found:
    """Some of what may be old enough, and where to look on; `None` is the end."""

    session_ids: Sequence[str]
    """Of sessions that are no task, and retry nothing."""
    array_ids: Sequence[str]
    after: int | None

    def parts(self) -> Iterator["Found"]:
        """Yield what may go in one transaction each."""
        for first in range(0, len(self.session_ids), REMOVED_AT_ONCE):
            yield Found(self.session_ids[first : first + REMOVED_AT_ONCE], (), None)
        for array_id in self.array_ids:
            yield Found((), (array_id,), None)


def find_old(tx: Transaction, before: float, after: int = -1) -> Found:
    """Read what ended before a time, of what has a number above `after`."""
    of = sessions.c
    alone = tx.execute(
        select(of.number, of.session_id)
        .where(of.number > after, of.status.in_(_ENDED), of.ended_at < before)
        .where(of.retry_of.is_(None), of.array_id.is_(None))
        .order_by(of.number)
        .limit(LOOKED_FOR_AT_ONCE)
    ).all()
    last = alone[-1].number if len(alone) == LOOKED_FOR_AT_ONCE else None
    whole = select(arrays.c.array_id).where(arrays.c.number > after, arrays.c.ended_at < before)
    if last is not None:
        whole = whole.where(arrays.c.number <= last)
    return Found(
        [row.session_id for row in alone],
        list(tx.execute(whole.order_by(arrays.c.number)).scalars()),
        last,
    )


def prune(tx: Transaction, found: Found, before: float, *, dry_run: bool = False) -> Pruned:
    """Remove what may be removed of what was found, or only count it."""
    families = _families(tx, found)
    everybody = [session_id for family in families.values() for session_id in family]
    needed = _needed(tx, everybody, before)
    untold = _untold(tx, everybody)
    going: list[str] = []
    roots: list[str] = []
    waiting = 0
    for root, family in families.items():
        if needed.isdisjoint(family):
            if untold.isdisjoint(family):
                going += family
                roots.append(root)
            else:
                waiting += len(family)
    gone = [array_id for array_id in found.array_ids if array_id in roots]
    act = _count if dry_run else _delete
    if going and not dry_run:
        note_pruned(tx, _last_line(tx, going))
    lines, of_kernels, _ = (act(tx, t, "session_id", going) for t in (history, kernels, specs))
    act(tx, dependencies, "session_id", going)
    act(tx, dependencies, "depends_on", going)
    act(tx, specs, "session_id", gone)
    return Pruned(
        sessions=act(tx, sessions, "session_id", going),
        arrays=act(tx, arrays, "array_id", gone),
        kernels=of_kernels,
        history_lines=lines,
        untold=waiting,
    )


def _families(tx: Transaction, found: Found) -> dict[str, list[str]]:
    """Return who goes together: with each session its retries, with each array its tasks."""
    families = {session_id: [session_id] for session_id in found.session_ids}
    behind = {session_id: session_id for session_id in found.session_ids}
    while behind:
        columns = select(sessions.c.session_id, sessions.c.retry_of)
        behind = {
            row.session_id: behind[row.retry_of]
            for part in in_parts(list(behind))
            for row in tx.execute(columns.where(sessions.c.retry_of.in_(part)))
        }
        for session_id, root in behind.items():
            families[root].append(session_id)
    for array_id in found.array_ids:
        tasks = select(sessions.c.session_id).where(sessions.c.array_id == array_id)
        families[array_id] = list(tx.execute(tasks).scalars())
    return families


def _needed(tx: Transaction, session_ids: Sequence[str], before: float) -> set[str]:
    """Return the sessions that must stay, whatever the webhooks say."""
    of, follower = sessions.c, sessions.alias("follower")
    is_young = or_(of.status.not_in(_ENDED), of.ended_at.is_(None), of.ended_at >= before)
    is_followed = select(dependencies.c.depends_on).join(
        follower, follower.c.session_id == dependencies.c.session_id
    )
    found: set[str] = set()
    for part in in_parts(session_ids):
        for query in (
            select(of.session_id).where(of.session_id.in_(part), is_young),
            select(holds.c.session_id).where(holds.c.session_id.in_(part)),
            is_followed.where(
                dependencies.c.depends_on.in_(part), follower.c.status.not_in(_ENDED)
            ),
        ):
            found.update(tx.execute(query).scalars())
    newest = select(of.session_id).order_by(of.number.desc()).limit(1)
    last = select(history.c.session_id).order_by(history.c.line.desc()).limit(1)
    return found.union(tx.execute(newest).scalars(), tx.execute(last).scalars())


def _untold(tx: Transaction, session_ids: Sequence[str]) -> set[str]:
    """Return the sessions of which a webhook has not been told everything."""
    told = tx.execute(select(func.min(webhooks.c.position))).scalar()
    if told is None:
        return set()
    return {
        session_id
        for part in in_parts(session_ids)
        for session_id in tx.execute(
            select(history.c.session_id)
            .where(history.c.session_id.in_(part), history.c.line > told)
            .distinct()
        ).scalars()
    }


def _last_line(tx: Transaction, session_ids: Sequence[str]) -> int:
    columns = select(func.max(history.c.line))
    return max(
        tx.execute(columns.where(history.c.session_id.in_(part))).scalar() or 0
        for part in in_parts(session_ids)
    )


def _delete(tx: Transaction, table: Table, column: str, ids: Iterable[str]) -> int:
    return sum(
        tx.execute(delete(table).where(table.c[column].in_(part))).rowcount
        for part in in_parts([*ids])
    )


def _count(tx: Transaction, table: Table, column: str, ids: Iterable[str]) -> int:
    counting: Any = select(func.count()).select_from(table)
    return sum(
        tx.execute(counting.where(table.c[column].in_(part))).scalar_one()
        for part in in_parts([*ids])
    )
