"""What can be mended in a store without guessing, one function each.

Each changes rows in the transaction it is given and says what it did, one sentence a change. They
follow from what else the store says: where two things could be true, nothing is done.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sqlalchemy import and_, case, delete, func, insert, not_, select, update

from sokovan.domain.sessions import Dependency, DependencyKind, SessionId
from sokovan.domain.statuses import FINAL, SessionResult, SessionStatus
from sokovan.store.engine import Transaction
from sokovan.store.parts import dumps
from sokovan.store.tables import (
    agents,
    arrays,
    dependencies,
    history,
    holds,
    kernels,
    sessions,
    specs,
)

Repair = Callable[[Transaction, float], Iterator[str]]
"""Takes the time, in seconds since the epoch."""

_ENDED = sorted(FINAL)
TASK_ENDS = ("succeeded", "failed", "cancelled")


def remove_strays(tx: Transaction, now: float) -> Iterator[str]:
    """Remove rows of sessions that do not exist; the last line of history stays, for its number."""
    known = select(sessions.c.session_id).union(select(arrays.c.array_id))
    last = select(func.max(history.c.line)).scalar_subquery()
    for table in (specs, kernels, dependencies, history):
        is_stray: Any = table.c.session_id.not_in(known)
        if table is history:
            is_stray = and_(is_stray, history.c.line != last)
        ids = tx.execute(select(table.c.session_id).where(is_stray).distinct()).scalars().all()
        tx.execute(delete(table).where(is_stray))
        yield from (
            f"session {i}: removed from {table.name}, as it does not exist" for i in sorted(ids)
        )


def release_holds(tx: Transaction, now: float) -> Iterator[str]:
    """Have holds without a kernel stopped as leftovers; remove those on agents that are not known.

    The kernel may run all the same: its agent is asked to stop it, and the hold goes when it says
    that it is gone.
    """
    has_kernel = (
        select(kernels.c.kernel_id)
        .where(kernels.c.token == holds.c.token, kernels.c.status.not_in(_ENDED))
        .exists()
    )
    is_nowhere = and_(~has_kernel, holds.c.agent_id.not_in(select(agents.c.agent_id)))
    is_nobodys = and_(~has_kernel, holds.c.leftover_since.is_(None))
    for row in tx.execute(select(holds).where(is_nowhere).order_by(holds.c.token)).all():
        tx.execute(delete(holds).where(holds.c.token == row.token))
        yield f"hold {row.token}: removed, as its agent {row.agent_id} is not known"
    for row in tx.execute(select(holds).where(is_nobodys).order_by(holds.c.token)).all():
        tx.execute(update(holds).where(holds.c.token == row.token).values(leftover_since=now))
        yield f"hold {row.token} of session {row.session_id}: has no kernel, a leftover from now on"


def hold_for_kernels(tx: Transaction, now: float) -> Iterator[str]:
    """Give kernels that are placed and not over the hold that follows from what they asked for."""
    is_placed = and_(
        kernels.c.token.is_not(None),
        kernels.c.agent_id.is_not(None),
        kernels.c.status.not_in(_ENDED),
        sessions.c.status.not_in(_ENDED),
        kernels.c.token.not_in(select(holds.c.token)),
    )
    same = ("token", "session_id", "kernel_id", "agent_id", "cpu_milli", "mem_bytes", "devices")
    found = select(kernels).join(sessions, sessions.c.session_id == kernels.c.session_id)
    for row in tx.execute(found.where(is_placed).order_by(kernels.c.kernel_id)).all():
        tx.execute(insert(holds), [{name: getattr(row, name) for name in same}])
        yield f"kernel {row.kernel_id}: holds on {row.agent_id} again what it asked for"


def date_ends(tx: Transaction, now: float) -> Iterator[str]:
    """Give sessions that are over the time of their last step, where that is missing."""
    at = (
        select(func.max(history.c.at))
        .where(history.c.session_id == sessions.c.session_id, history.c.kernel_id.is_(None))
        .where(history.c.to_status == sessions.c.status)
        .where(history.c.from_status != history.c.to_status)
        .scalar_subquery()
    )
    missing = and_(sessions.c.status.in_(_ENDED), sessions.c.ended_at.is_(None))
    found = select(sessions.c.session_id, at.label("at")).where(missing)
    for row in tx.execute(found.order_by(sessions.c.number)).all():
        if row.at is not None:
            of_it = sessions.c.session_id == row.session_id
            tx.execute(update(sessions).where(of_it).values(ended_at=row.at))
            yield f"session {row.session_id}: ended when its history says that it did"


def forget_what_was_met(tx: Transaction, now: float) -> Iterator[str]:
    """Let sessions wait no more for others that ended as they were to, and were not retried."""
    for session_id, unmet, over in waits_in_vain(tx):
        rest = [[d.session_id, d.kind] for d in unmet if d not in over]
        of_it = sessions.c.session_id == session_id
        tx.execute(update(sessions).where(of_it).values(unmet=dumps(rest) if rest else None))
        for dependency in over:
            yield f"session {session_id}: waits no more for {dependency.session_id}, which is over"


def waits_in_vain(
    tx: Transaction,
) -> Iterator[tuple[str, Sequence[Dependency], Sequence[Dependency]]]:
    """Yield sessions that wait for what has been met: all that they wait for, and what was met."""
    waiting = and_(sessions.c.status.not_in(_ENDED), sessions.c.unmet.is_not(None))
    retry = sessions.alias("retry")
    for row in tx.execute(select(sessions.c.session_id, sessions.c.unmet).where(waiting)).all():
        try:
            unmet = [Dependency(SessionId(i), DependencyKind(k)) for i, k in json.loads(row.unmet)]
        except (TypeError, ValueError):
            continue  # it cannot be read, which is another matter
        ended = select(sessions.c.session_id, sessions.c.result).where(
            sessions.c.session_id.in_([d.session_id for d in unmet]),
            sessions.c.status.in_(_ENDED),
            ~select(retry.c.number).where(retry.c.retry_of == sessions.c.session_id).exists(),
        )
        results = {found.session_id: found.result for found in tx.execute(ended)}
        over = [
            d
            for d in unmet
            if d.session_id in results and d.kind.is_met_by(SessionResult(results[d.session_id]))
        ]
        if over:
            yield row.session_id, unmet, over


def recount_arrays(tx: Transaction, now: float) -> Iterator[str]:
    """Count how the tasks of arrays have ended, where that differs, and when the last one did."""
    for row in tx.execute(miscounted()).all():
        true = {end: getattr(row, f"true_{end}") for end in TASK_ENDS}
        is_over = sum(true.values()) == row.size
        ended_at = row.last_end if is_over else None
        if any(getattr(row, end) != true[end] for end in TASK_ENDS) or (
            is_over != (row.ended_at is not None)
        ):
            kept = row.ended_at if is_over and row.ended_at is not None else ended_at
            of_it = arrays.c.array_id == row.array_id
            tx.execute(update(arrays).where(of_it).values(ended_at=kept, **true))
            words = ", ".join(f"{count} {end}" for end, count in true.items())
            yield f"array {row.array_id}: counted again: {words}"


def miscounted() -> Any:
    """Return a query for all arrays with how many of their tasks have ended how, and the last."""
    retry = sessions.alias("retry")
    is_retried = select(retry.c.number).where(retry.c.retry_of == sessions.c.session_id).exists()
    succeeded = sessions.c.result == SessionResult.SUCCESS.value
    cancelled = and_(not_(succeeded), sessions.c.status == SessionStatus.CANCELLED.value)
    ended = sessions.c.status.in_(_ENDED)
    ends = {
        "succeeded": and_(ended, succeeded),
        "failed": and_(ended, not_(succeeded), not_(cancelled)),
        "cancelled": cancelled,
    }
    counted = [
        func.sum(case((and_(found, not_(is_retried)), 1), else_=0)).label(f"true_{end}")
        for end, found in ends.items()
    ]
    return (
        select(arrays, *counted, func.max(sessions.c.ended_at).label("last_end"))
        .join(sessions, sessions.c.array_id == arrays.c.array_id)
        .group_by(arrays.c.array_id)
        .order_by(arrays.c.number)
    )


REPAIRS: tuple[Repair, ...] = (
    remove_strays,
    date_ends,
    hold_for_kernels,
    release_holds,
    forget_what_was_met,
    recount_arrays,
)
"""In this order."""
