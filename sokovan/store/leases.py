"""One writer for each scaling group, and what that writer finds alive."""

from collections.abc import Iterable, Mapping

from sqlalchemy import insert, select, update

from sokovan.domain.errors import LeaseLostError
from sokovan.domain.sessions import AgentId
from sokovan.domain.statuses import FINAL
from sokovan.store.changes import load_sessions
from sokovan.store.engine import Transaction
from sokovan.store.live import Live
from sokovan.store.rows import agent_of, hold_of
from sokovan.store.tables import agents, holds, scaling_groups, sessions


def take_leases(tx: Transaction, groups: Iterable[str], holder: str) -> dict[str, int]:
    """Become the writer of `groups`, and of any other that still has live sessions.

    Returns:
        The fencing tokens.
    """
    known = {row.name: row for row in tx.execute(select(scaling_groups))}
    used = tx.execute(
        select(sessions.c.scaling_group).where(sessions.c.status.not_in(sorted(FINAL))).distinct()
    ).scalars()
    fencing = {}
    for name in dict.fromkeys((*groups, *sorted(used))):
        if name not in known:
            tx.execute(insert(scaling_groups).values(name=name, fencing_token=0))
        fencing[name] = (known[name].fencing_token if name in known else 0) + 1
        tx.execute(
            update(scaling_groups)
            .where(scaling_groups.c.name == name)
            .values(lease_holder=holder, fencing_token=fencing[name])
        )
    return fencing


def check_leases(tx: Transaction, fencing: Mapping[str, int]) -> None:
    """Make sure that nobody has taken over since.

    Raises:
        LeaseLostError: Somebody has.
    """
    for row in tx.execute(select(scaling_groups.c.name, scaling_groups.c.fencing_token)):
        if fencing.get(row.name, row.fencing_token) != row.fencing_token:
            raise LeaseLostError(
                f"another manager drives the group {row.name!r} now; this one must stop"
            )


def read_live(tx: Transaction) -> Live:
    """Read everything that is alive."""
    live = Live()
    ids = tx.execute(
        select(sessions.c.session_id)
        .where(sessions.c.status.not_in(sorted(FINAL)))
        .order_by(sessions.c.number)
    ).scalars()
    live.put_sessions(load_sessions(tx, list(ids)))
    for row in tx.execute(select(holds).order_by(holds.c.token)):
        live.put_hold(hold_of(row))
    live.put_agents(agent_of(row) for row in tx.execute(select(agents)))
    return live


def read_cursors(tx: Transaction) -> dict[str, AgentId | None]:
    """Read where the last kernel of each group went."""
    rows = tx.execute(select(scaling_groups.c.name, scaling_groups.c.last_agent_id))
    return {row.name: row.last_agent_id for row in rows}
