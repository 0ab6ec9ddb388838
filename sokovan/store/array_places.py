"""What the end of a task means for its array: it is counted, and the next one gets its place.

An array with a limit has so many *places*. A task has one from when it gets it to its end, requeues
included; a retry takes that of the task it retries. A task that is held while it waits gives its
place up, and whatever was held queues for one again. Whenever one is free, the first task by number
gets it that is not held: in the very transaction that freed it.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from sqlalchemy import bindparam, case, func, select, text, update

from sokovan.domain.sessions import SessionId, SessionWithKernels
from sokovan.domain.statuses import SessionResult, SessionStatus
from sokovan.store.engine import Transaction, in_parts
from sokovan.store.loading import load_sessions
from sokovan.store.tables import LIVE_IN_ARRAY, arrays, sessions

Change = tuple[SessionWithKernels, SessionWithKernels]
"""A session before and after."""

_ENDS = ("succeeded", "failed", "cancelled")
_ENDED = sum((arrays.c[end] + bindparam(f"more_{end}") for end in _ENDS), start=0)
_COUNT = (
    update(arrays)
    .where(arrays.c.array_id == bindparam("at_id"))
    .values({end: arrays.c[end] + bindparam(f"more_{end}") for end in _ENDS})
    .values(ended_at=case((arrays.c.size <= _ENDED, bindparam("now")), else_=None))
)
_PLACES_TAKEN = select(func.count()).where(
    sessions.c.array_id == bindparam("at_id"),
    sessions.c.array_waits.is_(False),
    text(LIVE_IN_ARRAY.text),
)
_NEXT = (
    select(sessions.c.session_id)
    .where(
        sessions.c.array_id == bindparam("at_id"),
        sessions.c.array_waits.is_(True),
        sessions.c.held.is_(False),
        text(LIVE_IN_ARRAY.text),
    )
    .order_by(sessions.c.number)
    .limit(bindparam("room"))
)
_OPEN = (
    update(sessions)
    .where(sessions.c.session_id.in_(bindparam("ids", expanding=True)))
    .values(array_waits=False)
)


def count_and_open(
    tx: Transaction, changes: Iterable[Change], retries: Sequence[SessionWithKernels], now: float
) -> list[SessionWithKernels]:
    """Count the tasks that have ended, and give away the places that have become free.

    Args:
        tx: The transaction, in which the changes are written already.
        changes: All of it.
        retries: The sessions that were made in it: what they retry has not ended for its array.
        now: Seconds since the epoch.

    Returns:
        The tasks that were given a place, as they are now.
    """
    of_arrays = [change for change in changes if change[1].array_id is not None]
    if not of_arrays:
        return []
    _count(tx, of_arrays, {retry.retry_of for retry in retries}, now)
    opened: list[SessionId] = []
    for array_id, most in sorted(set(_with_room(of_arrays))):
        taken = tx.execute(_PLACES_TAKEN, {"at_id": array_id}).scalar_one()
        if taken < most:
            opened += tx.execute(_NEXT, {"at_id": array_id, "room": most - taken}).scalars()
    for ids in in_parts(opened):
        tx.execute(_OPEN, {"ids": ids})
    return load_sessions(tx, opened)


def _count(
    tx: Transaction, changes: Iterable[Change], retried: set[SessionId | None], now: float
) -> None:
    ended: dict[str, Counter[str]] = {}
    for before, after in changes:
        is_over = after.status.is_final and not before.status.is_final
        if is_over and after.session_id not in retried:
            assert after.array_id is not None
            ended.setdefault(after.array_id, Counter())[_end_of(after)] += 1
    if ended:
        rows = [
            {"at_id": array_id, "now": now} | {f"more_{end}": counts[end] for end in _ENDS}
            for array_id, counts in sorted(ended.items())
        ]
        tx.execute(_COUNT, rows)


def _end_of(task: SessionWithKernels) -> str:
    if task.result is SessionResult.SUCCESS:
        return "succeeded"
    return "cancelled" if task.status is SessionStatus.CANCELLED else "failed"


def _with_room(changes: Iterable[Change]) -> Iterator[tuple[str, int]]:
    """Yield the arrays that may have a place free that was not, or somebody new to take one."""
    for before, after in changes:
        if after.array_max is None or after.array_id is None:
            continue
        has_left = before.has_array_place and not after.has_array_place
        if has_left or (before.held and not after.held):
            yield after.array_id, after.array_max
