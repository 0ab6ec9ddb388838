"""Who changed what, and from where: a line in the transaction of each change."""

from typing import Any

from sqlalchemy import select

from sokovan.domain.access import Caller
from sokovan.store.bulk import Insert
from sokovan.store.engine import Transaction
from sokovan.store.tables import audit

TARGET_LENGTH_MAX = 1000
_INSERT = Insert(audit, numbered="line")


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
    if by is None:
        return
    values = {
        "at": at,
        "user": by.user,
        "token_id": by.token_id,
        "address": by.address,
        "action": action,
        "target": target[:TARGET_LENGTH_MAX],
        "detail": detail[:TARGET_LENGTH_MAX],
    }
    tx.execute(_INSERT, [values])


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
