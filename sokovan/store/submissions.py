"""New sessions: what a submission becomes, and its rows."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import select

from sokovan.domain.sessions import (
    Kernel,
    KernelRole,
    SessionId,
    SessionSpec,
    SessionWithKernels,
)
from sokovan.domain.values import replace
from sokovan.identity import IdSource
from sokovan.scheduler.ledger import submission_lines
from sokovan.store.bulk import Among, Insert
from sokovan.store.engine import Transaction, in_parts
from sokovan.store.rows import (
    line_values,
    new_kernel_values,
    new_session_values,
    spec_text,
)
from sokovan.store.tables import dependencies, history, kernels, sessions, specs

Known = dict[tuple[str, str | None], tuple[SessionId, str]]
"""By owner and creation id the session that was accepted, and what its submission is told by."""


class Entry(NamedTuple):
    """What was submitted, and the session it becomes."""

    spec: SessionSpec
    session: SessionWithKernels
    digest: str = ""
    """What it is told by from another submission under the same creation id."""
    text: str = ""
    """The submission as it is kept, where it has been written out already."""


def new_session(
    spec: SessionSpec, ids: IdSource, now: float, *, again: SessionWithKernels | None = None
) -> SessionWithKernels:
    """Return the session that a submission becomes, without its number.

    Args:
        spec: What was submitted.
        ids: Names it.
        now: Seconds since the epoch.
        again: The session that it retries; it has that one's place in its array.
    """
    session_id = ids.session_id()
    return SessionWithKernels(
        session_id,
        kernels=tuple(
            Kernel(
                ids.kernel_id(session_id, index),
                role=KernelRole.SUB if index else KernelRole.MAIN,
                index=index,
                status_since=now,
                request=spec.request,
            )
            for index in range(spec.kernel_count)
        ),
        status_since=now,
        name=spec.name,
        owner=spec.owner,
        scaling_group=spec.scaling_group,
        priority=spec.priority,
        created_at=now,
        pending_since=max(now, spec.begin_at or now),
        begin_at=spec.begin_at,
        held=spec.held,
        walltime_s=spec.walltime_s,
        pending_timeout_s=spec.pending_timeout_s,
        requeue=spec.requeue,
        retries=spec.retries,
        retry_of=None if again is None else again.session_id,
        array_id=None if again is None else again.array_id,
        array_index=None if again is None else again.array_index,
        array_max=None if again is None else again.array_max,
        where=spec.where,
        limits=spec.limits,
        grace_s=spec.grace_s,
    )


def insert_sessions(
    tx: Transaction, entries: Sequence[Entry], *, with_specs: bool = True
) -> list[SessionWithKernels]:
    """Write new sessions with all that belongs to them; return them with their numbers."""
    if not entries:
        return []
    numbers = tx.execute(
        _INSERT_SESSIONS,
        [
            new_session_values(entry.session)
            | {"creation_id": entry.spec.creation_id, "body_digest": entry.digest or None}
            for entry in entries
        ],
    )
    made = [
        replace(entry.session, number=number)
        for entry, number in zip(entries, numbers, strict=True)
    ]
    if with_specs:
        tx.execute(
            _INSERT_SPECS,
            [
                {"session_id": e.session.session_id, "spec": e.text or spec_text(e.spec)}
                for e in entries
            ],
        )
    tx.execute(
        _INSERT_KERNELS,
        [new_kernel_values(s.session_id, kernel) for s in made for kernel in s.kernels],
    )
    tx.execute(INSERT_LINES, [line_values(line) for s in made for line in submission_lines(s)])
    rows = [
        {"session_id": s.session_id, "depends_on": d.session_id, "kind": d.kind.value}
        for s in made
        for d in s.unmet
    ]
    if rows:
        tx.execute(_INSERT_DEPENDENCIES, rows)
    return made


INSERT_LINES = Insert(history, numbered="line")
_INSERT_SPECS = Insert(specs)
_INSERT_SESSIONS = Insert(sessions, numbered="number", returns_numbers=True)
_INSERT_KERNELS = Insert(kernels)
_INSERT_DEPENDENCIES = Insert(dependencies)
_KNOWN = Among(
    select(sessions.c.owner, sessions.c.creation_id, sessions.c.session_id, sessions.c.body_digest),
    sessions.c.owner,
    sessions.c.creation_id,
)


def known_creations(tx: Transaction, submitted: Sequence[SessionSpec]) -> Known:
    """Return what was accepted before under the same creation ids."""
    keys = [(spec.owner, spec.creation_id) for spec in submitted if spec.creation_id is not None]
    if not keys:
        return {}
    return {
        (row.owner, row.creation_id): (SessionId(row.session_id), row.body_digest)
        for part in in_parts(keys)
        for row in tx.execute(_KNOWN, part)
    }
