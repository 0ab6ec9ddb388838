"""Who changed what, and from where: a line in the transaction of each change."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from sqlalchemy import select

from sokovan.domain.access import Caller
from sokovan.store.bulk import Insert
from sokovan.store.engine import Transaction
from sokovan.store.tables import audit

TARGET_LENGTH_MAX = 1000
_INSERT = Insert(audit, numbered="line")


class Note(NamedTuple):
    """What a caller has changed, as `note` takes it."""

    by: Caller | None
    action: str
    target: str = ""
    detail: str = ""


def note(
    tx: Transaction, at: float, by: Caller | None, action: str, target: str = "", detail: str = ""
) -> None:
    """Write down what a caller has changed.

    Args:
        tx: The transaction of the change.
        at: Seconds since the epoch.
        by: Who asked; `None` writes nothing: it was nobody's request.
        action: A short word, such as `cancel` or `token create`.
        target: The ids of what was changed, with spaces between them.
        detail: What else is worth knowing; never a secret, a command line or an environment.
    """
    note_all(tx, at, [Note(by, action, target, detail)])


def note_all(tx: Transaction, at: float, notes: Iterable[Note]) -> None:
    """Write down several of them."""
    rows = [
        {
            "at": at,
            "user": note.by.user,
            "token_id": note.by.token_id,
            "address": note.by.address,
            "action": note.action,
            "target": note.target[:TARGET_LENGTH_MAX],
            "detail": note.detail[:TARGET_LENGTH_MAX],
        }
        for note in notes
        if note.by is not None
    ]
    if rows:
        tx.execute(_INSERT, rows)


def audit_lines(
    tx: Transaction, *, limit: int, user: str | None = None, before: int | None = None
) -> list[dict[str, Any]]:
    """Return lines as they were written, newest first.

    Args:
        tx: The transaction to read in.
        limit: At most so many.
        user: Only those of this user.
        before: Only those that are older than this line.
    """
    query = select(audit)
    if user is not None:
        query = query.where(audit.c.user == user)
    if before is not None:
        query = query.where(audit.c.line < before)
    rows = tx.execute(query.order_by(audit.c.line.desc()).limit(limit))
    return [dict(row._mapping) for row in rows]  # noqa: SLF001 - SQLAlchemy's public name
