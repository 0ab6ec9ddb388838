"""What a user changes of a session that is there: what was submitted, and what follows from it."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from sqlalchemy import insert, update

from sokovan.domain.access import Caller
from sokovan.domain.reasons import MoveReason
from sokovan.domain.sessions import SessionId, SessionSpec, SessionWithKernels
from sokovan.domain.where_fields import fields_of
from sokovan.scheduler.change import SessionChange
from sokovan.scheduler.ledger import BY_USER
from sokovan.scheduler.moves import HistoryLine
from sokovan.store.engine import Transaction
from sokovan.store.parts import where_text
from sokovan.store.queries import stamp
from sokovan.store.rows import line_values, spec_text
from sokovan.store.tables import history, kernels, sessions, specs

_SAME = (
    "name",
    "priority",
    "walltime_s",
    "pending_timeout_s",
    "begin_at",
    "requeue",
    "retries",
    "grace_s",
    "where",
)
"""What a session has of its submission under the same name, of what may be changed."""
_TEXT_MAX = 80
"""So much of each value is told in history."""


def edit(
    tx: Transaction,
    change: SessionChange,
    before: SessionSpec,
    after: SessionSpec,
    now: float,
    by: str,
) -> str:
    """Write that a session was submitted as `after` says, and not as `before`.

    What changes all the time is left to `ChangeSet.save`.

    Returns:
        What has changed, in words.
    """
    session = edited(change.session, before, after, now)
    said = ", ".join(differences(before, after))
    change.edit(session, f"{said}; by {by}")
    session_id = session.session_id
    values: dict[str, Any] = {name: getattr(session, name) for name in _SAME if name != "where"}
    values["where_to"] = where_text(session.where)
    tx.execute(update(sessions).where(sessions.c.session_id == session_id).values(values))
    spec = {"spec": spec_text(after)}
    if not tx.execute(update(specs).where(specs.c.session_id == session_id).values(spec)).rowcount:
        tx.execute(insert(specs), [{"session_id": session_id} | spec])  # it was as its array's
    if after.request != before.request:
        requests = update(kernels).where(kernels.c.session_id == session_id)
        tx.execute(requests.values(asdict(after.request)))
    return said


@dataclass(frozen=True, slots=True)
class Again:
    """A session that is submitted again."""

    session_id: SessionId
    asked: str
    """What else was asked for: the same under the same creation id is the same submission."""

    @property
    def digest(self) -> str:
        """What this is told by from another submission under the same creation id.

        Not by what is submitted: the first session may have been edited since.
        """
        return hashlib.sha256(f"again {self.session_id} {self.asked}".encode()).hexdigest()

    def note(self, tx: Transaction, made: Iterable[SessionWithKernels], by: Caller | None) -> None:
        """Have the history of the new session say what it comes from."""
        detail = f"redo of {self.session_id}" + (f"; by {by.user}" if by else "")
        lines = [
            line_values(
                HistoryLine(
                    session.session_id,
                    None,
                    session.status_seq,
                    session.status,
                    session.status,
                    MoveReason.SUBMITTED_AGAIN,
                    detail,
                    BY_USER,
                    session.created_at,
                )
            )
            for session in made
        ]
        if lines:
            tx.execute(insert(history), lines)


def edited(
    session: SessionWithKernels, before: SessionSpec, after: SessionSpec, now: float
) -> SessionWithKernels:
    """Return a session as it is when it was submitted as `after` says, and not as `before`.

    Its failed attempts to be placed are forgotten when it asks for something else. It waits since
    it did, or from its begin time on.
    """
    names = [name for name in _SAME if getattr(after, name) != getattr(before, name)]
    changes: dict[str, Any] = {name: getattr(after, name) for name in names}
    if after.request != before.request:
        changes["kernels"] = tuple(replace(k, request=after.request) for k in session.kernels)
    if "where" in changes or "kernels" in changes:
        changes["attempts"] = {}
    if "begin_at" in changes:
        changes["pending_since"] = max(min(session.pending_since, now), after.begin_at or 0.0)
    return replace(session, **changes)


def differences(before: SessionSpec, after: SessionSpec) -> Iterator[str]:
    """Yield each difference as `priority 10 → 50`."""
    old, new = _told(before), _told(after)
    for name in dict.fromkeys((*old, *new)):
        if old.get(name) != new.get(name):
            yield f"{name} {_word(old.get(name))} → {_word(new.get(name))}"


def _told(spec: SessionSpec) -> dict[str, Any]:
    """Return what may be changed of a submission, by the names that the API has for it."""
    return (
        {name: getattr(spec, name) for name in _SAME if name != "where"}
        | {"begin_at": stamp(spec.begin_at)}
        | asdict(spec.request)
        | {f"where.{name}": value for name, value in fields_of(spec.where).items()}
    )


def _word(value: Any) -> str:
    if value is None or value == "":
        return "none"
    text = ", ".join(value) if isinstance(value, list) else str(value)
    text = f"{value:g}" if isinstance(value, float) and value < 1e6 else text
    return text if len(text) <= _TEXT_MAX else f"{text[:_TEXT_MAX]}…"
