"""Accepting arrays: all tasks or none, once for each creation id."""

import hashlib
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from sqlalchemy import Boolean, Integer, String, Table, and_, bindparam, func, insert, select

from sokovan.domain.arrays import ArraySpec
from sokovan.domain.errors import CreationConflictError, InvalidRequestError
from sokovan.domain.sessions import Kernel, SessionId, SessionWithKernels
from sokovan.identity import IdSource
from sokovan.store.engine import Transaction
from sokovan.store.parts import dumps
from sokovan.store.resolving import with_dependencies
from sokovan.store.rows import spec_text
from sokovan.store.submissions import (
    Entry,
    insert_sessions,
    known_creations,
    new_session,
)
from sokovan.store.tables import arrays, dependencies, history, kernels, sessions, specs

DEPENDENCIES_MAX = 100_000
"""Most that all tasks of an array may depend on together."""


def accept_array(
    tx: Transaction, array: ArraySpec, ids: IdSource, now: float
) -> tuple[str, list[SessionWithKernels], dict[SessionId, str]]:
    """Write an array: all of its tasks, once for each creation id.

    Returns:
        Its id, the new tasks, and those of them that a dependency has failed already, with the
        reason in words; no new tasks when it was accepted before.

    Raises:
        CreationConflictError: The creation id was used before for something else.
        InvalidRequestError: A dependency does not exist, or there are too many.
    """
    template = array.template
    digest = _digest(array)
    known = known_creations(tx, [template])
    if known:
        ((session_id, digest_before),) = known.values()
        columns = select(sessions.c.array_id).where(sessions.c.session_id == session_id)
        array_id = tx.execute(columns).scalar_one()
        if array_id is None or digest_before != digest:
            raise CreationConflictError(
                f"creation_id {template.creation_id!r} was used for"
                f" {array_id or f'session {session_id}'}, which was submitted differently; use"
                " another one for a new array",
                field="creation_id",
            )
        return array_id, [], {}
    array_id = str(ids.session_id())
    index = next(iter(array.numbers()))
    first = replace(
        new_session(template, ids, now),
        name=array.name_of(index),
        array_id=array_id,
        array_index=index,
        array_max=array.running_max,
    )
    first = replace(first, array_waits=not _places_of(array, first))
    (entry,), failed = with_dependencies(
        tx, [template], [first.session_id], [Entry(template, first, digest)]
    )
    first = entry.session
    if len(first.unmet) * array.size > DEPENDENCIES_MAX:
        raise InvalidRequestError(
            f"depends_on: {len(first.unmet)} sessions for each of {array.size} tasks are too many;"
            " depend on one session that depends on them",
            field="depends_on",
        )
    tx.execute(insert(specs), [{"session_id": array_id, "spec": spec_text(template)}])
    made = insert_sessions(tx, [entry], with_specs=False)
    made += _insert_others(tx, array, made[0], ids)
    tx.execute(insert(arrays), [_values(array, array_id, made[0])])
    why = failed.get(first.session_id)
    return array_id, made, {} if why is None else {task.session_id: why for task in made}


def _digest(array: ArraySpec) -> str:
    parts = [spec_text(array.template), str(array.indexes), array.running_max, array.params]
    return hashlib.sha256(dumps(parts).encode()).hexdigest()


def _values(array: ArraySpec, array_id: str, first: SessionWithKernels) -> dict[str, Any]:
    return {
        "array_id": array_id,
        "number": first.number,
        "name": array.template.name,
        "owner": first.owner,
        "scaling_group": first.scaling_group,
        "size": array.size,
        "running_max": array.running_max,
        "indexes": "" if array.indexes is None else str(array.indexes),
        "params": dumps(array.params) if array.params else None,
        "created_at": first.created_at,
        "succeeded": 0,
        "failed": 0,
        "cancelled": 0,
        "ended_at": None,
    }


def _insert_others(
    tx: Transaction, array: ArraySpec, first: SessionWithKernels, ids: IdSource
) -> list[SessionWithKernels]:
    """Write the other tasks with all that belongs to them; return them with their numbers.

    They differ from the first in ids, index, name and whether they wait for a place. The database
    copies the rest, which is many times faster than to hand over every row.
    """
    places = _places_of(array, first)
    minted = iter(ids.session_ids(array.size - 1))
    own: list[dict[str, Any]] = [
        {
            "own_id": next(minted),
            "own_name": array.name_of(index),
            "own_index": index,
            "own_waits": place >= places,
            "first": first.session_id,
        }
        for place, index in enumerate(array.numbers()[1:], start=1)
    ]
    if not own:
        return []
    tx.execute(_COPY_SESSION, own)
    which = {
        "first": first.session_id,
        "array_id": first.array_id,
        "id_length": len(first.session_id),
    }
    for statement in (_COPY_KERNELS, _COPY_LINES, _COPY_KERNEL_LINES, _COPY_DEPENDENCIES):
        tx.execute(statement, which)
    columns = select(sessions.c.array_index, sessions.c.number)
    rows = tx.execute(columns.where(sessions.c.array_id == first.array_id))
    numbers = {row.array_index: row.number for row in rows}
    common = _fields_of(first)  # `replace` would read each of them again for every task
    of_kernels = [_fields_of(kernel) for kernel in first.kernels]
    return [
        SessionWithKernels(
            **common
            | {
                "session_id": task["own_id"],
                "number": numbers[task["own_index"]],
                "name": task["own_name"],
                "array_index": task["own_index"],
                "array_waits": task["own_waits"],
                "kernels": tuple(
                    Kernel(**kernel | {"kernel_id": ids.kernel_id(task["own_id"], kernel["index"])})
                    for kernel in of_kernels
                ),
            }
        )
        for task in own
    ]


def _fields_of(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in fields(value)}


def _places_of(array: ArraySpec, first: SessionWithKernels) -> int:
    """Return how many tasks have a place at once, to begin with: whoever is held has none."""
    if array.running_max is None:
        return array.size
    return 0 if first.held else array.running_max


_NUMBERED = frozenset({"number", "line"})
_FIRST_ONLY = frozenset({"creation_id", "body_digest"})
_first, _kernel = sessions.alias("first"), kernels.alias("kernel")
_line, _dependency = history.alias("line"), dependencies.alias("dependency")
_FIRST = bindparam("first", type_=String)
_OTHERS = and_(
    sessions.c.array_id == bindparam("array_id", type_=String), sessions.c.session_id != _FIRST
)
_OTHER = {"session_id": sessions.c.session_id}


def _kernel_id(of: Any) -> Any:
    """Return the id of a task's kernel from that of the first's: a session's id, and an index."""
    return sessions.c.session_id + func.substr(of, bindparam("id_length", type_=Integer) + 1)


def _copying(
    table: Table, like: Any, own: Mapping[str, Any], where: Any, *, beside: Any = None
) -> Any:
    """Return a statement that adds rows like those of `like`, but for what is their own."""
    left_out = own.keys() | _NUMBERED | _FIRST_ONLY
    same = [column.name for column in table.c if column.name not in left_out]
    columns = [*own.values(), *(like.c[name] for name in same)]
    rows = like if beside is None else like.join(sessions, beside)
    return insert(table).from_select([*own, *same], select(*columns).select_from(rows).where(where))


_COPY_SESSION = _copying(
    sessions,
    _first,
    {
        "session_id": bindparam("own_id", type_=String),
        "name": bindparam("own_name", type_=String),
        "array_index": bindparam("own_index", type_=Integer),
        "array_waits": bindparam("own_waits", type_=Boolean),
    },
    _first.c.session_id == _FIRST,
)
_COPY_KERNELS = _copying(
    kernels,
    _kernel,
    _OTHER | {"kernel_id": _kernel_id(_kernel.c.kernel_id)},
    _kernel.c.session_id == _FIRST,
    beside=_OTHERS,
)
_COPY_LINES = _copying(
    history,
    _line,
    _OTHER,
    and_(_line.c.session_id == _FIRST, _line.c.kernel_id.is_(None)),
    beside=_OTHERS,
)
_COPY_KERNEL_LINES = _copying(
    history,
    _line,
    _OTHER | {"kernel_id": _kernel_id(_line.c.kernel_id)},
    and_(_line.c.session_id == _FIRST, _line.c.kernel_id.is_not(None)),
    beside=_OTHERS,
)
_COPY_DEPENDENCIES = _copying(
    dependencies, _dependency, _OTHER, _dependency.c.session_id == _FIRST, beside=_OTHERS
)
