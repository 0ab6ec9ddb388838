"""Accepting sessions: all of a submission or none, once for each creation id."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import select

from sokovan.domain.errors import CreationConflictError, InvalidRequestError
from sokovan.domain.sessions import (
    DEPENDENCIES_MAX,
    Dependency,
    Kernel,
    KernelRole,
    SessionId,
    SessionSpec,
    SessionWithKernels,
)
from sokovan.domain.statuses import SessionResult, SessionStatus
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


def accept(
    tx: Transaction,
    submitted: Sequence[SessionSpec],
    ids: IdSource,
    now: float,
    *,
    digest: str = "",
) -> tuple[list[SessionId], list[SessionWithKernels], dict[SessionId, str]]:
    """Write a submission.

    Args:
        tx: The transaction.
        submitted: The sessions.
        ids: Names them.
        now: Seconds since the epoch.
        digest: What they are told by from others under the same creation ids, where it is not by
            what was submitted.

    Returns:
        The session id for each spec, known ones included; the new sessions; and those of them that
        a dependency has failed already, with the reason in words.

    Raises:
        CreationConflictError: A creation id was used before for something else.
        InvalidRequestError: A dependency does not exist, or leads back to its own session.
    """
    known = known_creations(tx, submitted)
    made: list[SessionWithKernels | None] = []
    answer: list[SessionId] = []
    entries: list[Entry] = []
    for spec in submitted:
        text = told_by = ""
        if spec.creation_id is not None:
            text = spec_text(spec)
            told_by = digest or hashlib.sha256(text.encode()).hexdigest()
        key = (spec.owner, spec.creation_id)
        if spec.creation_id is not None and key in known:
            session_id, told_by_before = known[key]
            if told_by_before != told_by:
                raise CreationConflictError(
                    f"creation_id {spec.creation_id!r} was used for session {session_id}, which was"
                    " submitted differently; use another one for a new session",
                    field="creation_id",
                )
            made.append(None)
            answer.append(session_id)
            continue
        session = new_session(spec, ids, now)
        if spec.creation_id is not None:
            known[key] = (session.session_id, told_by)
        made.append(session)
        answer.append(session.session_id)
        entries.append(Entry(spec, session, told_by, text))
    entries, failed = with_dependencies(tx, submitted, answer, entries)
    return answer, insert_sessions(tx, entries), failed


def rehearse(
    tx: Transaction, submitted: Sequence[SessionSpec], now: float
) -> tuple[list[SessionWithKernels], dict[SessionId, str]]:
    """Return the sessions that a submission would become, and write nothing.

    Their ids are `#0`, `#1` and so on, and their numbers are behind all others. Creation ids do not
    matter.

    Returns:
        The sessions, and those of them that a dependency has failed already, with the reason.

    Raises:
        InvalidRequestError: A dependency does not exist, or leads back to its own session.
    """
    ids = _Positions()
    entries = [Entry(spec, new_session(spec, ids, now)) for spec in submitted]
    answer = [entry.session.session_id for entry in entries]
    entries, failed = with_dependencies(tx, submitted, answer, entries)
    made = [replace(entry.session, number=BEHIND_ALL + n) for n, entry in enumerate(entries)]
    return made, failed


BEHIND_ALL = 2**60
"""A number that no accepted session has."""


class _Positions(IdSource):
    """Names sessions by their position in the submission; mints nothing."""

    def __init__(self) -> None:
        super().__init__()
        self._next = 0

    def session_id(self) -> SessionId:
        self._next += 1
        return SessionId(f"#{self._next - 1}")


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


def known_creations(
    tx: Transaction, submitted: Sequence[SessionSpec]
) -> dict[tuple[str, str | None], tuple[SessionId, str]]:
    """Return what was accepted before under the same creation ids: its id and its digest."""
    keys = [(spec.owner, spec.creation_id) for spec in submitted if spec.creation_id is not None]
    if not keys:
        return {}
    return {
        (row.owner, row.creation_id): (SessionId(row.session_id), row.body_digest)
        for part in in_parts(keys)
        for row in tx.execute(_KNOWN, part)
    }


def with_dependencies(
    tx: Transaction,
    submitted: Sequence[SessionSpec],
    answer: Sequence[SessionId],
    entries: Sequence[Entry],
) -> tuple[list[Entry], dict[SessionId, str]]:
    """Resolve `#n`, check that the others exist, and leave only what is not met yet."""
    own = {entry.session.session_id for entry in entries}
    named = {d.session_id for entry in entries for d in entry.spec.depends_on}
    again = set(answer) - own  # accepted before, under the same creation id
    tasks_of = _tasks_of(tx, named)
    named = (named - tasks_of.keys()).union(*tasks_of.values())
    wanted = {name for name in named if not name.startswith("#")} | (again if named else set())
    latest = _latest_retries(tx, wanted)
    found = _states_of(tx, wanted | set(latest.values())) if wanted else {}
    resolved: list[Entry] = []
    failed: dict[SessionId, str] = {}
    for entry in entries:
        unmet: dict[SessionId, Dependency] = {}
        for dependency in _each_task(entry.spec.depends_on, tasks_of):
            other = _resolve(dependency.session_id, answer, found, own)
            other = latest.get(other, other)
            if unmet.get(other, dependency).kind is not dependency.kind:
                raise InvalidRequestError(
                    f"depends_on: {dependency.session_id} is named twice, with different kinds;"
                    " keep one",
                    field="depends_on",
                )
            status, result = found.get(other, (None, SessionResult.UNDEFINED))
            if status is None or not SessionStatus(status).is_final:
                unmet[other] = replace(dependency, session_id=other)
            elif not dependency.kind.is_met_by(SessionResult(result)):
                failed[entry.session.session_id] = (
                    f"{dependency.kind} {other}, which had ended already"
                )
        waits = tuple(unmet.values())
        resolved.append(
            entry._replace(session=replace(entry.session, unmet=waits)) if waits else entry
        )
    waits_for = {e.session.session_id: [d.session_id for d in e.session.unmet] for e in resolved}
    if any(waits_for.values()):
        _refuse_cycles(waits_for)
    return resolved, failed


def _tasks_of(tx: Transaction, names: set[SessionId]) -> dict[SessionId, list[SessionId]]:
    """Return the tasks of those names that are arrays'; retries follow from what they retry."""
    found: dict[SessionId, list[SessionId]] = {}
    for part in in_parts(sorted(names)):
        columns = select(sessions.c.array_id, sessions.c.session_id)
        tasks = columns.where(sessions.c.array_id.in_(part), sessions.c.retry_of.is_(None))
        for row in tx.execute(tasks.order_by(sessions.c.array_id, sessions.c.array_index)):
            found.setdefault(row.array_id, []).append(row.session_id)
    return found


def _each_task(
    asked: Sequence[Dependency], tasks_of: Mapping[SessionId, Sequence[SessionId]]
) -> list[Dependency]:
    """Put the tasks of an array in its place.

    Raises:
        InvalidRequestError: They are more than a session may depend on.
    """
    found = [
        replace(dependency, session_id=session_id)
        for dependency in asked
        for session_id in tasks_of.get(dependency.session_id, (dependency.session_id,))
    ]
    if len(found) > DEPENDENCIES_MAX:
        raise InvalidRequestError(
            f"depends_on: the arrays named have {len(found)} tasks, and a session may depend on"
            f" {DEPENDENCIES_MAX}; depend on a part of them",
            field="depends_on",
        )
    return found


def _resolve(
    name: str,
    answer: Sequence[SessionId],
    found: Mapping[str, Any],
    own: set[SessionId],
) -> SessionId:
    if name.startswith("#"):
        index = int(name[1:]) if name[1:].isdecimal() and name.isascii() else len(answer)
        if index >= len(answer):
            raise InvalidRequestError(
                f"depends_on: {name} is not in this submission, which has #0 to #{len(answer) - 1}",
                field="depends_on",
            )
        return answer[index]
    if name not in found and name not in own:
        raise InvalidRequestError(
            f"depends_on: there is no session {name}; `sokovan ls -a` lists those there are",
            field="depends_on",
        )
    return SessionId(name)


def _latest_retries(tx: Transaction, wanted: Iterable[str]) -> dict[SessionId, SessionId]:
    """Return the session that stands for each of `wanted` that was retried."""
    latest: dict[SessionId, SessionId] = {}
    behind = {SessionId(name): SessionId(name) for name in wanted}  # by the newest known so far
    while behind:
        columns = select(sessions.c.session_id, sessions.c.retry_of)
        behind = {
            SessionId(row.session_id): behind[row.retry_of]
            for part in in_parts(list(behind))
            for row in tx.execute(columns.where(sessions.c.retry_of.in_(part)))
        }
        latest |= {first: newest for newest, first in behind.items()}
    return latest


def _states_of(tx: Transaction, wanted: set[SessionId]) -> dict[str, tuple[str, str]]:
    columns = select(sessions.c.session_id, sessions.c.status, sessions.c.result)
    return {
        row.session_id: (row.status, row.result)
        for part in in_parts(sorted(wanted))
        for row in tx.execute(columns.where(sessions.c.session_id.in_(part)))
    }


def _refuse_cycles(waits_for: Mapping[SessionId, Sequence[SessionId]]) -> None:
    """Sessions can only wait in a circle within one submission: older ones know nothing of it."""
    left = dict(waits_for)
    while free := [s for s, others in left.items() if not any(o in left for o in others)]:
        for session_id in free:
            del left[session_id]
    if left:
        positions = [f"#{i}" for i, session_id in enumerate(waits_for) if session_id in left]
        raise InvalidRequestError(
            f"depends_on: {', '.join(positions)} wait for each other in a circle; break it",
            field="depends_on",
        )
