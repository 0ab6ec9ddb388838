"""Reading sessions, and what was submitted, by id."""

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, select

from sokovan.domain.arrays import ArraySpec, parse_indexes
from sokovan.domain.sessions import SessionId, SessionSpec, SessionWithKernels
from sokovan.store.bulk import Among
from sokovan.store.damage import DAMAGE, damaged
from sokovan.store.engine import Transaction, in_parts
from sokovan.store.rows import kernel_of, session_of, spec_of
from sokovan.store.tables import arrays, kernels, sessions, specs

_SESSIONS_BY_ID = Among(select(sessions).order_by(sessions.c.number), sessions.c.session_id)
_KERNELS_BY_SESSION = Among(
    select(kernels).order_by(kernels.c.session_id, kernels.c.kernel_index), kernels.c.session_id
)
_SPECS_BY_SESSION = Among(select(specs), specs.c.session_id)
_TASKS_BY_SESSION = Among(
    select(sessions.c.session_id, sessions.c.array_id, sessions.c.array_index).where(
        sessions.c.array_id.is_not(None)
    ),
    sessions.c.session_id,
)
_ARRAYS_BY_ID = Among(
    select(arrays, specs.c.spec).join(specs, specs.c.session_id == arrays.c.array_id),
    arrays.c.array_id,
)


def load_sessions(tx: Transaction, session_ids: Sequence[SessionId]) -> list[SessionWithKernels]:
    """Read sessions by id, by ascending number; ids that do not exist are left out."""
    found = []
    for ids in in_parts(session_ids):
        by_session: dict[str, list[Any]] = {}
        for row in tx.execute(_KERNELS_BY_SESSION, ids):
            by_session.setdefault(row.session_id, []).append(kernel_of(row))
        rows = tx.execute(_SESSIONS_BY_ID, ids)
        found += [session_of(row, by_session.get(row.session_id, ())) for row in rows]
    return found


def load_specs(tx: Transaction, session_ids: Sequence[SessionId]) -> dict[SessionId, SessionSpec]:
    """Read what users submitted, by session id; that of an array's task follows from the array's.

    Raises:
        StoreDamagedError: It cannot be read.
    """
    found = {}
    for part in in_parts(session_ids):
        for row in tx.execute(_SPECS_BY_SESSION, part):
            found[SessionId(row.session_id)] = spec_of(row.spec)
    tasks = [
        row
        for part in in_parts([i for i in session_ids if i not in found])
        for row in tx.execute(_TASKS_BY_SESSION, part)
    ]
    if tasks:
        of = load_arrays(tx, list(dict.fromkeys(row.array_id for row in tasks)))
        for row in tasks:
            if row.array_id in of:
                task = of[row.array_id].task(row.array_index, row.array_id)
                found[SessionId(row.session_id)] = task
    return found


def load_arrays(tx: Transaction, array_ids: Sequence[str]) -> dict[str, ArraySpec]:
    """Read what users submitted as arrays, by id."""
    return {
        row.array_id: array_of(row)
        for part in in_parts(array_ids)
        for row in tx.execute(_ARRAYS_BY_ID, part)
    }


def array_of(row: Row[Any]) -> ArraySpec:
    """Return the array that a row of `arrays`, with its template, describes.

    Raises:
        StoreDamagedError: It is none.
    """
    try:
        return ArraySpec(
            spec_of(row.spec),
            parse_indexes(row.indexes, field="indexes") if row.indexes else None,
            tuple((name, tuple(values)) for name, values in json.loads(row.params or "[]")),
            row.running_max,
        )
    except DAMAGE as error:
        raise damaged(f"arrays: the row {row.array_id}", error) from error
