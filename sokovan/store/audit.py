"""Who changed what, and from where: a line in the transaction of each change."""

from sqlalchemy import insert

from sokovan.domain.access import Caller
from sokovan.store.engine import Transaction
from sokovan.store.tables import audit

TARGET_LENGTH_MAX = 1000


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
    tx.execute(insert(audit), [values])
