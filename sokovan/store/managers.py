"""The managers that work on a store, as they tell each other."""

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import delete, insert, select, update

from sokovan.store.engine import Transaction
from sokovan.store.tables import managers


@dataclass(frozen=True, slots=True)
class KnownManager:
    """One of them; the time is seconds since the epoch, by its own clock."""

    manager_id: str
    url: str
    host: str
    pid: int
    version: str
    started_at: float
    renewals: int = 0


def read_managers(tx: Transaction) -> list[KnownManager]:
    """Return all that have said they are there, whether or not they still are."""
    rows = tx.execute(select(managers).order_by(managers.c.started_at, managers.c.manager_id))
    return [
        KnownManager(
            row.manager_id,
            row.url,
            row.host,
            row.pid,
            row.version,
            row.started_at,
            row.renewals,
        )
        for row in rows
    ]


def say_present(tx: Transaction, myself: KnownManager) -> None:
    """Write that a manager is there, once more."""
    values = {
        "url": myself.url,
        "host": myself.host,
        "pid": myself.pid,
        "version": myself.version,
        "started_at": myself.started_at,
    }
    known = managers.c.manager_id == myself.manager_id
    changed = tx.execute(
        update(managers).where(known).values(values | {"renewals": managers.c.renewals + 1})
    )
    if not changed.rowcount:
        tx.execute(insert(managers), [values | {"manager_id": myself.manager_id, "renewals": 0}])


def forget_managers(tx: Transaction, manager_ids: Iterable[str]) -> None:
    """Forget managers that are not there any more."""
    gone = list(manager_ids)
    if gone:
        tx.execute(delete(managers).where(managers.c.manager_id.in_(gone)))
