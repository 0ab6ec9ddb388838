"""What the sessions of a submission wait for: named by id, by place or by array."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import select

from sokovan.domain.errors import InvalidRequestError
from sokovan.domain.sessions import DEPENDENCIES_MAX, Dependency, SessionId, SessionSpec
from sokovan.domain.statuses import SessionResult, SessionStatus
from sokovan.domain.values import replace
from sokovan.store.engine import Transaction, in_parts
from sokovan.store.submissions import Entry
from sokovan.store.tables import sessions


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
