"""Agents as rows: who is there, and what follows for sessions when one falls silent."""

from collections.abc import Mapping
from dataclasses import replace

from sqlalchemy import insert, select, update

from sokovan.domain.cluster import Agent, AgentStatus, ScalingGroup
from sokovan.domain.sessions import AgentId, SessionId
from sokovan.scheduler.messages import AgentHello
from sokovan.store.changes import ChangeSet
from sokovan.store.engine import Transaction
from sokovan.store.rows import agent_of, agent_values
from sokovan.store.tables import agents, holds


def register(tx: Transaction, hello: AgentHello, now: float) -> Agent:
    """Write an agent that introduced itself, with a new incarnation."""
    row = tx.execute(select(agents).where(agents.c.agent_id == hello.agent_id)).first()
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
    )
    if row is None:
        tx.execute(insert(agents), agent_values(agent))
    else:
        _write(tx, agent)
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


def _write(tx: Transaction, agent: Agent) -> None:
    tx.execute(
        update(agents).where(agents.c.agent_id == agent.agent_id).values(agent_values(agent))
    )
