"""Agents as rows: who is there, who gets nothing new, and what follows when one falls silent."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import Row, delete, insert, select, update

from sokovan.domain.cluster import Agent, AgentStatus, ScalingGroup
from sokovan.domain.errors import AgentNotFoundError, IllegalStateError
from sokovan.domain.labels import check_labels, merged, relabelled
from sokovan.domain.sessions import AgentId, SessionId
from sokovan.scheduler.messages import AgentHello
from sokovan.store.changes import ChangeSet
from sokovan.store.engine import Transaction
from sokovan.store.rows import (
    Values,
    agent_of,
    agent_values,
    hold_of,
    label_values,
    labels_of_agent,
)
from sokovan.store.tables import agents, holds

NAMED_MAX = 5
"""How many sessions a refusal names."""


def register(tx: Transaction, hello: AgentHello, now: float) -> Agent:
    """Write an agent that introduced itself, with a new incarnation.

    Who was drained stays so, and what an administrator said for its labels still counts.
    """
    row = tx.execute(select(agents).where(agents.c.agent_id == hello.agent_id)).first()
    _, said = labels_of_agent(row) if row else ({}, {})
    agent = Agent(
        agent_id=hello.agent_id,
        name=hello.name,
        scaling_group=hello.scaling_group,
        incarnation=(row.incarnation if row else 0) + 1,
        address=hello.address,
        architecture=hello.architecture,
        version=hello.version,
        boot_id=hello.boot_id,
        capacity=hello.capacity,
        last_seen_at=now,
        drained_since=row.drained_since if row else None,
        drain_reason=(row.drain_reason if row else None) or "",
        labels=merged(hello.labels, said),
    )
    labels = label_values(hello.labels, said)
    if row is None:
        tx.execute(insert(agents), agent_values(agent) | labels)
    else:
        _write(tx, agent, labels)
    return agent


def save_status(
    tx: Transaction, agent_id: AgentId, status: AgentStatus, *, now: float, last_seen_at: float
) -> Agent:
    """Write that an agent is back, lost or given up."""
    row = tx.execute(select(agents).where(agents.c.agent_id == agent_id)).one()
    agent = agent_of(row)
    alive = status is AgentStatus.ALIVE
    agent = replace(
        agent,
        status=status,
        lost_since=None if alive else agent.lost_since or now,
        last_seen_at=now if alive else max(agent.last_seen_at, last_seen_at),
    )
    _write(tx, agent)
    return agent


def save_drained(
    tx: Transaction, agent_id: AgentId, *, drained: bool, reason: str, now: float
) -> Agent:
    """Write that an agent is out of service, or in it again.

    Raises:
        AgentNotFoundError: There is no such agent.
    """
    agent = _known(tx, agent_id)
    since = now if agent.drained_since is None else agent.drained_since
    agent = replace(
        agent,
        drained_since=since if drained else None,
        drain_reason=reason if drained else "",
    )
    _write(tx, agent)
    return agent


def save_labels(tx: Transaction, agent_id: AgentId, changes: Mapping[str, str | None]) -> Agent:
    """Write what an administrator says of an agent; `None` takes a label away.

    Raises:
        AgentNotFoundError: There is no such agent.
        InvalidRequestError: It would have too many labels.
    """
    row = _row(tx, agent_id)
    own, said = labels_of_agent(row)
    said = relabelled(own, said, changes)
    agent = replace(agent_of(row), labels=merged(own, said))
    check_labels(agent.labels, field="labels")
    _write(tx, agent, label_values(own, said))
    return agent


def remove(
    tx: Transaction,
    changes: ChangeSet,
    agent_id: AgentId,
    groups: Mapping[str, ScalingGroup],
    *,
    force: bool,
) -> None:
    """Forget an agent that is GONE; its leftovers count as gone from now on.

    Raises:
        AgentNotFoundError: There is no such agent.
        IllegalStateError: It is not GONE; or it has leftovers, and `force` is not given.
    """
    agent = _known(tx, agent_id)
    if agent.status is AgentStatus.LOST:
        raise IllegalStateError(
            f"agent {agent.name} is LOST, and may come back; it can be removed when its grace has"
            " passed and it is GONE"
        )
    if agent.status is AgentStatus.ALIVE:
        raise IllegalStateError(
            f"agent {agent.name} is ALIVE; only one that is GONE can be removed: drain it, let its"
            " sessions end, take it out of config.toml, run `sokovan down`, start the server again,"
            " and wait until its silence and its grace have passed"
        )
    what_follows(tx, changes, agent, groups)
    left = [
        hold_of(row)
        for row in tx.execute(
            select(holds).where(holds.c.agent_id == agent_id).order_by(holds.c.token)
        )
    ]
    if left and not force:
        ids = list(dict.fromkeys(hold.session_id for hold in left))
        more = f" and {len(ids) - NAMED_MAX} more" if len(ids) > NAMED_MAX else ""
        raise IllegalStateError(
            f"{len(left)} kernels may still run on agent {agent.name}, of session"
            f" {', '.join(ids[:NAMED_MAX])}{more}; should it come back after its removal, nobody"
            " would stop them: bring it back, or, when its machine is gone for good, remove it with"
            " --force"
        )
    for change in changes:
        change.agent_removed(agent.name)
    for hold in left:
        changes.release(hold)
    tx.execute(delete(agents).where(agents.c.agent_id == agent_id))


def what_follows(
    tx: Transaction, changes: ChangeSet, agent: Agent, groups: Mapping[str, ScalingGroup]
) -> None:
    """Change the sessions with kernels on an agent, as its status asks for.

    LOST: what has not reached CREATING goes back to PENDING. GONE: the rest counts as gone.
    """
    if agent.status is AgentStatus.ALIVE:
        return
    rows = tx.execute(
        select(holds.c.session_id).where(holds.c.agent_id == agent.agent_id).distinct()
    )
    changes.load(SessionId(row.session_id) for row in rows)
    for change in changes:
        if change.session.status.is_final:
            continue
        requeues_max = groups[change.session.scaling_group].requeues_max
        if agent.status is AgentStatus.GONE:
            change.agent_given_up(agent.agent_id, requeues_max)
        else:
            change.agent_lost(agent.agent_id, requeues_max)


def _known(tx: Transaction, agent_id: AgentId) -> Agent:
    return agent_of(_row(tx, agent_id))


def _row(tx: Transaction, agent_id: AgentId) -> Row[Any]:
    row: Row[Any] | None = tx.execute(select(agents).where(agents.c.agent_id == agent_id)).first()
    if row is None:
        raise AgentNotFoundError(f"there is no agent {agent_id!r}; `sokovan agents` lists them")
    return row


def _write(tx: Transaction, agent: Agent, labels: Values | None = None) -> None:
    """Write an agent, its labels only where they are given."""
    tx.execute(
        update(agents)
        .where(agents.c.agent_id == agent.agent_id)
        .values(agent_values(agent) | (labels or {}))
    )
