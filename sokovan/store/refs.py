"""What users call a session or an array: an id, the beginning of one, `@`, and a task's index."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, literal, select, union_all

from sokovan.domain.arrays import Indexes, parse_indexes
from sokovan.domain.errors import (
    AmbiguousIdError,
    InvalidRequestError,
    IsAnArrayError,
    SessionNotFoundError,
)
from sokovan.domain.sessions import SessionId
from sokovan.store.engine import Transaction
from sokovan.store.tables import arrays, sessions

DIGITS_MAX = 9
FOUND_MAX = 4
"""So many are looked for; the first three are named."""


@dataclass(frozen=True, slots=True)
class ArrayRef:
    """An array, or those of its tasks that `part` names."""

    array_id: str
    part: Indexes | None = None

    def __str__(self) -> str:
        return self.array_id if self.part is None else f"{self.array_id}_{self.part}"

    def has(self, index: int) -> bool:
        """Say whether a task is meant, too."""
        return self.part is None or index in self.part


def resolve(tx: Transaction, ref: str, owner: str) -> SessionId:
    """Return the session that `ref` means: an id, a prefix that only one has, `@`, `@~n`, `id_7`.

    Raises:
        SessionNotFoundError: There is none.
        AmbiguousIdError: Several begin like that.
        IsAnArrayError: It means an array, or a part of one.
    """
    found = find(tx, ref, owner)
    if isinstance(found, ArrayRef):
        columns = select(sessions.c.array_index).where(sessions.c.array_id == found.array_id)
        index = tx.execute(columns.order_by(sessions.c.array_index).limit(1)).scalar()
        raise IsAnArrayError(
            f"{ref} is an array, and this is for one session; name a task of it, such as"
            f" {ref.partition('_')[0]}_{index}"
        )
    return found


def resolve_array(tx: Transaction, ref: str, owner: str) -> ArrayRef:
    """Return the array, or the part of one, that `ref` means; a single task is a part.

    Raises:
        SessionNotFoundError: There is none.
        AmbiguousIdError: Several begin like that.
    """
    found = find(tx, ref, owner, one_is_a_part=True)
    if isinstance(found, ArrayRef):
        return found
    raise SessionNotFoundError(f"{ref} is a session by itself, and not an array")


def find(
    tx: Transaction, ref: str, owner: str, *, one_is_a_part: bool = False
) -> SessionId | ArrayRef:
    """Return what `ref` means: a session, or an array or a part of it.

    Args:
        tx: Where to look.
        ref: `ID`, `ID_7` for the task with index 7, `ID_0-9,20` for some; `@` for the last
            submission of `owner`, and `@~2` for the one two before.
        owner: Who asks.
        one_is_a_part: Return a single task as a part, instead of its session.
    """
    name, joint, part = ref.partition("_")
    if name.startswith("@"):
        found = _submitted(tx, name, owner)
    else:
        found = _named(tx, name, arrays_only=bool(joint))
    if not joint:
        return found
    if not isinstance(found, ArrayRef):
        raise SessionNotFoundError(f"{ref}: {found} is a session by itself, without tasks")
    if not (part.isascii() and part.isdecimal()) or one_is_a_part:
        return ArrayRef(found.array_id, parse_indexes(part, field="part"))
    return task_of(tx, found.array_id, int(part[:DIGITS_MAX]))


def task_of(tx: Transaction, array_id: str, index: int) -> SessionId:
    """Return the session that is a task of an array: the last retry counts.

    Raises:
        SessionNotFoundError: The array has no such task.
    """
    columns = select(sessions.c.session_id).where(
        sessions.c.array_id == array_id, sessions.c.array_index == index
    )
    found = tx.execute(columns.order_by(sessions.c.number.desc()).limit(1)).scalar()
    if found is None:
        raise SessionNotFoundError(
            f"array {array_id} has no task {index}; `sokovan ls {array_id}` lists them"
        )
    return SessionId(found)


def _submitted(tx: Transaction, ref: str, owner: str) -> SessionId | ArrayRef:
    back = ref[2:] if ref.startswith("@~") else ("0" if ref == "@" else "")
    if not (back.isascii() and back.isdecimal() and len(back) <= DIGITS_MAX):
        raise InvalidRequestError(
            f"{ref!r} is no session; write @ for your last one, @~2 for the one two before"
        )
    both = union_all(
        select(
            sessions.c.session_id.label("id"), sessions.c.number, literal(0).label("is_array")
        ).where(sessions.c.owner == owner, sessions.c.array_id.is_(None)),
        select(arrays.c.array_id.label("id"), arrays.c.number, literal(1).label("is_array")).where(
            arrays.c.owner == owner
        ),
    ).subquery()
    query = select(both.c.id, both.c.is_array).order_by(both.c.number.desc())
    found = tx.execute(query.offset(int(back)).limit(1)).one_or_none()
    if found is None:
        raise SessionNotFoundError(f"{ref}: {owner} has not submitted so many sessions")
    return ArrayRef(found.id) if found.is_array else SessionId(found.id)


def _named(tx: Transaction, prefix: str, *, arrays_only: bool) -> SessionId | ArrayRef:
    matches: list[tuple[str, bool]] = []
    for column, of_arrays in ((arrays.c.array_id, True), (sessions.c.session_id, False)):
        if prefix and "\0" not in prefix and (of_arrays or not arrays_only):
            rows = tx.execute(_beginning(column, prefix)).scalars()
            matches += ((found, of_arrays) for found in rows)
    matches.sort()
    what = "array" if arrays_only else "session"
    if not matches:
        raise SessionNotFoundError(f"there is no {what} {prefix!r}; `sokovan ls -a` lists all")
    first, is_array = matches[0]
    if len(matches) > 1 and first != prefix:
        some = ", ".join(found for found, _ in matches[: FOUND_MAX - 1])
        raise AmbiguousIdError(
            f"{prefix!r} could be {some}{' …' * (len(matches) >= FOUND_MAX)}; type more of it"
        )
    return ArrayRef(first) if is_array else SessionId(first)


def _beginning(column: Any, prefix: str) -> Select[Any]:
    found = select(column).where(column >= prefix, column < prefix + "\U0010ffff")
    return found.order_by(column).limit(FOUND_MAX)
