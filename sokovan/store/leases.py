"""One writer for each scaling group, and what that writer finds alive."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, insert, select, update

from sokovan.clock import Origin
from sokovan.domain.errors import LeaseLostError
from sokovan.domain.sessions import AgentId, SessionId
from sokovan.store.bulk import Among
from sokovan.store.engine import Transaction
from sokovan.store.live import Live
from sokovan.store.loading import load_sessions
from sokovan.store.rows import agent_of, hold_of, policy_of_row
from sokovan.store.tables import AMONG_LIVE, IS_LIVE, agents, holds, scaling_groups, sessions

STEP_S_MIN = 1.0
"""Clocks of one boot differ by less when nobody has set the wall clock."""


@dataclass(frozen=True, slots=True)
class Lease:
    """Who drives a group, as its row says."""

    name: str
    holder: str
    """Empty when it was given up."""
    fencing_token: int
    renewals: int

    @property
    def value(self) -> tuple[int, int]:
        """What changes while the holder lives."""
        return self.fencing_token, self.renewals


# Made once: building a statement takes longer than running it.
_FENCING = Among(
    select(scaling_groups.c.name, scaling_groups.c.fencing_token), scaling_groups.c.name
)
_LEASES = select(
    scaling_groups.c.name,
    scaling_groups.c.lease_holder,
    scaling_groups.c.fencing_token,
    scaling_groups.c.renewals,
)
_CURSORS = select(scaling_groups.c.name, scaling_groups.c.last_agent_id)
_POLICIES = select(scaling_groups).where(scaling_groups.c.policy.is_not(None))


def every_group(tx: Transaction, configured: Iterable[str]) -> list[str]:
    """Return those of the settings, those an administrator made, and any with live sessions."""
    used = tx.execute(select(sessions.c.scaling_group).where(IS_LIVE).distinct()).scalars()
    return list(dict.fromkeys((*configured, *read_policies(tx), *sorted(used))))


def read_leases(tx: Transaction) -> dict[str, Lease]:
    """Read who drives each group."""
    return {
        row.name: Lease(row.name, row.lease_holder or "", row.fencing_token, row.renewals or 0)
        for row in tx.execute(_LEASES)
    }


def renew(tx: Transaction, groups: Iterable[str]) -> None:
    """Say that the holder of leases lives."""
    if names := sorted(groups):
        renewals = func.coalesce(scaling_groups.c.renewals, 0) + 1
        held = scaling_groups.c.name.in_(names)
        tx.execute(update(scaling_groups).where(held).values(renewals=renewals))


def give_up(tx: Transaction, fencing: Mapping[str, int]) -> None:
    """Let others have leases at once, those that nobody has taken yet."""
    for name, token in sorted(fencing.items()):
        tx.execute(
            update(scaling_groups)
            .where(scaling_groups.c.name == name, scaling_groups.c.fencing_token == token)
            .values(lease_holder=None)
        )


def take_leases(
    tx: Transaction, groups: Iterable[str], holder: str, origin: Origin
) -> tuple[dict[str, int], dict[str, float]]:
    """Become the writer of `groups`.

    Args:
        tx: The transaction.
        groups: By name.
        holder: Who takes them.
        origin: What its clock counts from.

    Returns:
        The fencing tokens, and by how many seconds the clock was set since the last writer, for the
        groups for which it was.
    """
    known = {row.name: row for row in tx.execute(select(scaling_groups))}
    fencing, steps = {}, {}
    for name in groups:
        if name not in known:
            tx.execute(insert(scaling_groups).values(name=name, fencing_token=0))
        elif origin.boot_id and known[name].boot_id == origin.boot_id:
            step_s = origin.wall_s - known[name].clock_origin
            if abs(step_s) >= STEP_S_MIN:
                steps[name] = step_s
        fencing[name] = (known[name].fencing_token if name in known else 0) + 1
        tx.execute(
            update(scaling_groups)
            .where(scaling_groups.c.name == name)
            .values(
                lease_holder=holder,
                fencing_token=fencing[name],
                boot_id=origin.boot_id,
                clock_origin=origin.wall_s,
            )
        )
    return fencing, steps


def check_leases(tx: Transaction, fencing: Mapping[str, int]) -> None:
    """Make sure that nobody has taken over since.

    Raises:
        LeaseLostError: Somebody has.
    """
    lost = [
        row.name
        for row in tx.execute(_FENCING, sorted(fencing))
        if row.fencing_token != fencing[row.name]
    ]
    if lost:
        raise lease_lost(lost)


def lease_lost(groups: Iterable[str]) -> LeaseLostError:
    """Say that others drive `groups`."""
    names = tuple(sorted(groups))
    words = " and ".join(map(repr, names))
    return LeaseLostError(f"another manager drives the group {words} now", names)


def live_ids(tx: Transaction) -> list[SessionId]:
    """Read which sessions are alive, by ascending number."""
    ids = tx.execute(select(sessions.c.session_id).where(AMONG_LIVE).order_by(sessions.c.number))
    return [SessionId(session_id) for session_id in ids.scalars()]


def read_live(tx: Transaction) -> Live:
    """Read everything that is alive."""
    live = Live()
    live.put_sessions(load_sessions(tx, live_ids(tx)))
    for row in tx.execute(select(holds).order_by(holds.c.token)):
        live.put_hold(hold_of(row))
    live.put_agents(agent_of(row) for row in tx.execute(select(agents)))
    return live


def read_cursors(tx: Transaction) -> dict[str, AgentId | None]:
    """Read where the last kernel of each group went."""
    return {row.name: row.last_agent_id for row in tx.execute(_CURSORS)}


def read_policies(tx: Transaction) -> dict[str, dict[str, Any]]:
    """Read what an administrator has set of each group's policy; of one that they made, `{}`."""
    return {row.name: policy_of_row(row) for row in tx.execute(_POLICIES)}
