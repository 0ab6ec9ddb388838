"""What users look at: sessions, history, agents, as JSON-able objects. Only reads."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from itertools import islice
from typing import Any

from sqlalchemy import Select, func, select, tuple_

from sokovan.domain.cluster import Agent
from sokovan.domain.errors import InvalidRequestError
from sokovan.domain.quantities import DEVICE_SHARES
from sokovan.domain.resources import Hold, used_by
from sokovan.domain.sessions import Kernel, SessionId, SessionSpec, SessionWithKernels
from sokovan.domain.statuses import FINAL
from sokovan.domain.where_fields import fields_of
from sokovan.store.engine import Transaction
from sokovan.store.loading import load_sessions, load_specs
from sokovan.store.refs import ArrayRef
from sokovan.store.tables import AMONG_LIVE, IS_LIVE, history, sessions

View = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Filter:
    """Which sessions to list."""

    live_only: bool = False
    statuses: Sequence[str] = ()
    owner: str | None = None
    name: str | None = None
    scaling_group: str | None = None
    array: ArrayRef | None = None
    tasks: bool = True
    """Those that belong to arrays, too."""
    limit: int = 1000
    cursor: str | None = None
    sort: str = "-number"
    """One of `SORTS`, with a `-` before it for the other way round."""


SORTS = {
    "number": sessions.c.number,
    "priority": sessions.c.priority,
    "status_since": sessions.c.status_since,
    "name": sessions.c.name,
}
"""What sessions may be listed by; among equals, by number in the same direction."""


def stamp(at: float | None) -> str | None:
    """Write a time as RFC 3339 in UTC, to the millisecond."""
    if at is None:
        return None
    return _written(at)


@lru_cache(1024)
def _written(at: float) -> str:
    """Write a time; what belongs together often has the same."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def page(tx: Transaction, asked: Filter) -> tuple[list[SessionId], str | None]:
    """Return the ids of one page, in the order asked for, and the cursor of the next.

    The cursor is the number of the last session of a page. The next page begins behind the place
    which that session has by then: one that moves while somebody turns pages may be seen twice.
    """
    query: Select[Any] = select(sessions.c.session_id, sessions.c.number, sessions.c.array_index)
    if asked.live_only or (asked.statuses and FINAL.isdisjoint(asked.statuses)):
        query = query.where(AMONG_LIVE)
    if asked.statuses:
        query = query.where(sessions.c.status.in_(list(asked.statuses)))
    for column, wanted in (
        (sessions.c.owner, asked.owner),
        (sessions.c.name, asked.name),
        (sessions.c.scaling_group, asked.scaling_group),
        (sessions.c.array_id, asked.array.array_id if asked.array else None),
    ):
        if wanted is not None:
            query = query.where(column == wanted)
    if not asked.tasks:
        query = query.where(sessions.c.array_id.is_(None))
    if asked.cursor is not None:
        if not asked.cursor.isdecimal():
            raise InvalidRequestError("cursor: pass on the one that the last page gave you")
        query = query.where(_behind(asked.sort, int(asked.cursor)))
    query = query.order_by(*_order(asked.sort))
    if asked.array is not None and asked.array.part is not None:
        some = (row for row in tx.execute(query) if asked.array.has(row.array_index))
        rows = list(islice(some, asked.limit + 1))
    else:
        rows = tx.execute(query.limit(asked.limit + 1)).all()
    ids = [SessionId(row.session_id) for row in rows[: asked.limit]]
    more = len(rows) > asked.limit
    return ids, str(rows[asked.limit - 1].number) if more else None


def _order(sort: str) -> tuple[Any, Any]:
    key = SORTS[sort.removeprefix("-")]
    if sort.startswith("-"):
        return key.desc(), sessions.c.number.desc()
    return key, sessions.c.number


def _behind(sort: str, number: int) -> Any:
    """Return the condition of standing behind the session of a number."""
    key = SORTS[sort.removeprefix("-")]
    if key is sessions.c.number:
        return key < number if sort.startswith("-") else key > number
    place = tuple_(select(key).where(sessions.c.number == number).scalar_subquery(), number)
    mine = tuple_(key, sessions.c.number)
    return mine < place if sort.startswith("-") else mine > place


def sessions_with_specs(
    tx: Transaction, ids: Sequence[SessionId]
) -> list[tuple[SessionWithKernels, SessionSpec]]:
    """Read sessions and what was submitted, in the order of `ids`."""
    found = {session.session_id: session for session in load_sessions(tx, ids)}
    specs = load_specs(tx, ids)
    return [(found[i], specs[i]) for i in ids if i in found and i in specs]


def history_of(tx: Transaction, session_id: SessionId) -> list[View]:
    """Return every recorded change of a session and its kernels, oldest first."""
    rows = tx.execute(
        select(history).where(history.c.session_id == session_id).order_by(history.c.line)
    )
    return [
        {
            "at": stamp(row.at),
            "session_id": row.session_id,
            "kernel_id": row.kernel_id,
            "from_status": row.from_status,
            "to_status": row.to_status,
            "status_seq": row.status_seq,
            "reason": row.reason,
            "detail": row.detail,
            "stage": row.stage,
        }
        for row in rows
    ]


def counts_by_status(tx: Transaction) -> dict[str, int]:
    """Return how many live sessions there are in each status, and how many in all."""
    rows = tx.execute(
        select(sessions.c.status, func.count()).where(IS_LIVE).group_by(sessions.c.status)
    )
    return {status: count for status, count in rows}  # noqa: C416 - a row is no pair to mypy


def session_view(
    session: SessionWithKernels,
    spec: SessionSpec,
    agent_names: Mapping[str, str],
    wait: View | None,
) -> View:
    """Return a session as users see it; the field names are stable."""
    return {
        "id": session.session_id,
        "name": session.name,
        "owner": session.owner,
        "status": session.status.value,
        "result": session.result.value,
        "reason": session.reason or (wait["code"] if wait else None),
        "priority": session.priority,
        "scaling_group": session.scaling_group,
        "agents": [agent_names.get(agent_id, agent_id) for agent_id in session.agent_ids],
        "exit_code": session.main.exit_code if session.kernels else None,
        "created_at": stamp(session.created_at),
        "started_at": stamp(session.started_at),
        "ended_at": stamp(session.ended_at),
        "kernels": [_kernel_view(kernel, agent_names) for kernel in session.kernels],
        "command": list(spec.command),
        "cwd": spec.cwd,
        "cpu_milli": spec.request.cpu_milli,
        "mem_bytes": spec.request.mem_bytes,
        "gpu_shares": spec.request.gpu_shares,
        "gpu_mem_bytes_min": spec.request.gpu_mem_bytes_min,
        "status_since": stamp(session.status_since),
        "number": session.number,
        "walltime_s": session.walltime_s,
        "pending_timeout_s": session.pending_timeout_s,
        "begin_at": stamp(session.begin_at),
        "held": session.held,
        "requeue": session.requeue,
        "requeues": session.requeues,
        "retries": session.retries,
        "retry_of": session.retry_of,
        "array_id": session.array_id,
        "array_index": session.array_index,
        "depends_on": [{"session_id": d.session_id, "kind": d.kind.value} for d in session.unmet],
        "where": fields_of(session.where) or None,
        "wait": wait,
    }


def _kernel_view(kernel: Kernel, agent_names: Mapping[str, str]) -> View:
    agent_id = kernel.agent_id
    return {
        "id": kernel.kernel_id,
        "role": kernel.role.value,
        "index": kernel.index,
        "status": kernel.status.value,
        "agent": None if agent_id is None else agent_names.get(agent_id, agent_id),
        "token": kernel.token,
        "exit_code": kernel.exit_code,
        "reason": kernel.reason,
        "error": kernel.error or None,
        "cpu_milli": kernel.request.cpu_milli,
        "mem_bytes": kernel.request.mem_bytes,
        "gpu_shares": kernel.request.gpu_shares,
        "gpu_mem_bytes_min": kernel.request.gpu_mem_bytes_min,
        "devices": [list(pair) for pair in kernel.devices],
        "started_at": stamp(kernel.started_at),
        "ended_at": stamp(kernel.ended_at),
    }


def agent_view(agent: Agent, holds: Iterable[Hold]) -> View:
    """Return an agent as users see it."""
    on_agent = list(holds)
    used, capacity = used_by(on_agent), agent.capacity
    return {
        "id": agent.agent_id,
        "name": agent.name,
        "scaling_group": agent.scaling_group,
        "status": agent.status.value,
        "architecture": agent.architecture,
        "version": agent.version,
        "incarnation": agent.incarnation,
        "address": agent.address,
        "last_seen_at": stamp(agent.last_seen_at),
        "drained_since": stamp(agent.drained_since),
        "drain_reason": agent.drain_reason or None,
        "labels": dict(agent.labels),
        "capacity": {"cpu_milli": capacity.cpu_milli, "mem_bytes": capacity.mem_bytes},
        "held": {"cpu_milli": used.cpu_milli, "mem_bytes": used.mem_bytes},
        "free": {
            "cpu_milli": capacity.cpu_milli - used.cpu_milli,
            "mem_bytes": capacity.mem_bytes - used.mem_bytes,
        },
        "devices": [
            {
                "index": device.index,
                "model": device.model,
                "mem_bytes": device.mem_bytes,
                "uuid": device.uuid,
                "shares": DEVICE_SHARES,
                "shares_held": used.shares.get(device.index, 0),
            }
            for device in capacity.devices
        ],
        "kernels": sum(not hold.is_leftover for hold in on_agent),
        "leftovers": sum(hold.is_leftover for hold in on_agent),
    }
