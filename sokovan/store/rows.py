"""Rows to values and back. The only code that knows how a value lies in its table.

What an older version has not written yet has its default; what a newer one has added is left out.
Whatever else is not as written here is damage: a `StoreDamagedError`, which names the row.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from typing import Any

from pydantic_core import to_json
from sqlalchemy import Row

from sokovan.domain.cluster import Agent, AgentStatus, ScalingGroup
from sokovan.domain.labels import merged
from sokovan.domain.resources import Hold, Request
from sokovan.domain.sessions import (
    AgentId,
    Dependency,
    DependencyKind,
    Kernel,
    KernelId,
    KernelRole,
    Limit,
    SessionId,
    SessionSpec,
    SessionWithKernels,
)
from sokovan.domain.statuses import KernelStatus, SessionResult, SessionStatus
from sokovan.domain.where_fields import fields_of, where_of
from sokovan.policies import with_policy
from sokovan.scheduler.moves import HistoryLine
from sokovan.store.damage import DAMAGE, damaged, reads
from sokovan.store.parts import (
    attempts_of,
    capacity_of,
    check_numbers,
    devices_of,
    devices_text,
    dumps,
    known_of,
    labels_of,
    labels_text,
    limits_of,
    limits_text,
    read_where,
    where_text,
)

Values = dict[str, Any]


def session_values(session: SessionWithKernels) -> Values:
    """Return the columns of a session that change during its life."""
    return {
        "status": session.status.value,
        "status_seq": session.status_seq,
        "status_since": session.status_since,
        "priority": session.priority,
        "pending_since": session.pending_since,
        "held": session.held,
        "array_waits": session.array_waits,
        "requeues": session.requeues,
        "retries": session.retries,
        "unmet": dumps([[d.session_id, d.kind] for d in session.unmet]) if session.unmet else None,
        "avoid": dumps(session.avoid) if session.avoid else None,
        "attempts": dumps(
            {name: [a.count, a.last_at, a.retry_at] for name, a in session.attempts.items()}
        )
        if session.attempts
        else None,
        "noted_reason": session.noted_reason,
        "lowered_seq": session.lowered_seq,
        "force": session.force,
        "result": session.result.value,
        "reason": session.reason,
        "started_at": session.started_at,
        "ended_at": session.ended_at,
    }


def new_session_values(session: SessionWithKernels) -> Values:
    """Return the columns of a new session."""
    return session_values(session) | {
        "session_id": session.session_id,
        "name": session.name,
        "owner": session.owner,
        "scaling_group": session.scaling_group,
        "created_at": session.created_at,
        "begin_at": session.begin_at,
        "walltime_s": session.walltime_s,
        "pending_timeout_s": session.pending_timeout_s,
        "requeue": session.requeue,
        "retry_of": session.retry_of,
        "array_id": session.array_id,
        "array_index": session.array_index,
        "array_max": session.array_max,
        "limits": limits_text(session.limits),
        "where_to": where_text(session.where),
        "grace_s": session.grace_s,
    }


@reads("sessions", "session_id")
def session_of(row: Row[Any], kernels: Iterable[Kernel]) -> SessionWithKernels:
    """Return the session that a row of `sessions` and its kernels describe."""
    check_numbers(row.status_seq, row.status_since, row.priority, row.created_at, row.grace_s)
    check_numbers(row.pending_since, row.requeues, row.retries, row.lowered_seq)
    check_numbers(row.begin_at or 0, row.walltime_s or 0, row.pending_timeout_s or 0)
    check_numbers(row.started_at or 0, row.ended_at or 0)
    check_numbers(row.array_index or 0, row.array_max or 0)
    return SessionWithKernels(
        session_id=row.session_id,
        kernels=tuple(kernels),
        status=SessionStatus(row.status),
        status_seq=row.status_seq,
        status_since=row.status_since,
        number=row.number,
        name=row.name,
        owner=row.owner,
        scaling_group=row.scaling_group,
        priority=row.priority,
        created_at=row.created_at,
        pending_since=row.pending_since,
        begin_at=row.begin_at,
        held=bool(row.held),
        walltime_s=row.walltime_s,
        pending_timeout_s=row.pending_timeout_s,
        requeue=bool(row.requeue),
        requeues=row.requeues,
        retries=row.retries,
        retry_of=row.retry_of,
        unmet=tuple(
            Dependency(SessionId(other), DependencyKind(kind))
            for other, kind in json.loads(row.unmet)
        )
        if row.unmet
        else (),
        array_id=row.array_id,
        array_index=row.array_index,
        array_max=row.array_max,
        array_waits=bool(row.array_waits),
        avoid=tuple(AgentId(name) for name in json.loads(row.avoid)) if row.avoid else (),
        where=read_where(row.where_to),
        limits=limits_of(row.limits),
        attempts={name: attempts_of(parts) for name, parts in json.loads(row.attempts).items()}
        if row.attempts
        else {},
        noted_reason=row.noted_reason,
        lowered_seq=row.lowered_seq,
        grace_s=row.grace_s,
        force=bool(row.force),
        result=SessionResult(row.result),
        reason=row.reason,
        started_at=row.started_at,
        ended_at=row.ended_at,
    )


def kernel_values(kernel: Kernel) -> Values:
    """Return the columns of a kernel that change during its life."""
    return {
        "status": kernel.status.value,
        "status_since": kernel.status_since,
        "agent_id": kernel.agent_id,
        "token": kernel.token,
        "devices": devices_text(kernel.devices),
        "failures": kernel.failures,
        "exit_code": kernel.exit_code,
        "reason": kernel.reason,
        "error": kernel.error,
        "started_at": kernel.started_at,
        "ended_at": kernel.ended_at,
    }


def request_values(request: Request) -> Values:
    """Return what a kernel asks for, by column."""
    return {
        "cpu_milli": request.cpu_milli,
        "mem_bytes": request.mem_bytes,
        "gpu_shares": request.gpu_shares,
        "gpu_mem_bytes_min": request.gpu_mem_bytes_min,
    }


def new_kernel_values(session_id: SessionId, kernel: Kernel) -> Values:
    """Return the columns of a new kernel."""
    return (
        kernel_values(kernel)
        | request_values(kernel.request)
        | {
            "kernel_id": kernel.kernel_id,
            "session_id": session_id,
            "role": kernel.role.value,
            "kernel_index": kernel.index,
        }
    )


@reads("kernels", "kernel_id")
def kernel_of(row: Row[Any]) -> Kernel:
    """Return the kernel that a row of `kernels` describes."""
    check_numbers(row.kernel_index, row.status_since, row.failures, row.exit_code or 0)
    check_numbers(row.cpu_milli, row.mem_bytes, row.gpu_shares, row.gpu_mem_bytes_min)
    check_numbers(row.started_at or 0, row.ended_at or 0)
    return Kernel(
        kernel_id=row.kernel_id,
        role=KernelRole(row.role),
        index=row.kernel_index,
        status=KernelStatus(row.status),
        status_since=row.status_since,
        request=Request(row.cpu_milli, row.mem_bytes, row.gpu_shares, row.gpu_mem_bytes_min),
        agent_id=row.agent_id,
        token=row.token,
        devices=devices_of(row.devices),
        failures=row.failures,
        exit_code=row.exit_code,
        reason=row.reason,
        error=row.error,
        started_at=row.started_at,
        ended_at=row.ended_at,
    )


def hold_values(hold: Hold) -> Values:
    """Return the columns of a hold."""
    return {
        "token": hold.token,
        "session_id": hold.session_id,
        "kernel_id": hold.kernel_id,
        "agent_id": hold.agent_id,
        "cpu_milli": hold.cpu_milli,
        "mem_bytes": hold.mem_bytes,
        "devices": devices_text(hold.devices),
        "leftover_since": hold.leftover_since,
    }


@reads("holds", "token")
def hold_of(row: Row[Any]) -> Hold:
    """Return the hold that a row of `holds` describes."""
    check_numbers(row.cpu_milli, row.mem_bytes, row.leftover_since or 0.0)
    return Hold(
        row.token,
        row.session_id,
        row.kernel_id,
        row.agent_id,
        row.cpu_milli,
        row.mem_bytes,
        devices_of(row.devices),
        row.leftover_since,
    )


def line_values(line: HistoryLine) -> Values:
    """Return the columns of a history line."""
    return {
        "session_id": line.session_id,
        "kernel_id": line.kernel_id,
        "status_seq": line.status_seq,
        "from_status": line.from_status,
        "to_status": line.to_status,
        "reason": line.reason,
        "detail": line.detail,
        "stage": line.stage,
        "at": line.at,
    }


def line_of(row: Row[Any]) -> HistoryLine:
    """Return the history line that a row of `history` describes."""
    return HistoryLine(
        SessionId(row.session_id),
        None if row.kernel_id is None else KernelId(row.kernel_id),
        row.status_seq,
        row.from_status,
        row.to_status,
        row.reason,
        row.detail,
        row.stage,
        row.at,
    )


def agent_values(agent: Agent) -> Values:
    """Return the columns of an agent, its labels apart."""
    return {
        "agent_id": agent.agent_id,
        "name": agent.name,
        "scaling_group": agent.scaling_group,
        "status": agent.status.value,
        "incarnation": agent.incarnation,
        "address": agent.address,
        "architecture": agent.architecture,
        "version": agent.version,
        "boot_id": agent.boot_id,
        "capacity": dumps(asdict(agent.capacity)),
        "last_seen_at": agent.last_seen_at,
        "lost_since": agent.lost_since,
        "drained_since": agent.drained_since,
        "drain_reason": agent.drain_reason or None,
    }


def label_values(own: Mapping[str, str], said: Mapping[str, str]) -> Values:
    """Return the columns of an agent's labels, of which an `Agent` has only what counts.

    Args:
        own: What its settings say.
        said: What an administrator says.
    """
    return {"own_labels": labels_text(own), "labels": labels_text(said)}


@reads("agents", "agent_id")
def labels_of_agent(row: Row[Any]) -> tuple[dict[str, str], dict[str, str]]:
    """Return what the settings of a row of `agents` say for labels, and what an administrator."""
    return labels_of(row.own_labels), labels_of(row.labels)


@reads("agents", "agent_id")
def agent_of(row: Row[Any]) -> Agent:
    """Return the agent that a row of `agents` describes."""
    check_numbers(row.incarnation, row.last_seen_at, row.lost_since or 0.0)
    return Agent(
        agent_id=row.agent_id,
        name=row.name,
        scaling_group=row.scaling_group,
        status=AgentStatus(row.status),
        incarnation=row.incarnation,
        address=row.address,
        architecture=row.architecture,
        version=row.version,
        boot_id=row.boot_id,
        capacity=capacity_of(json.loads(row.capacity)),
        last_seen_at=row.last_seen_at,
        lost_since=row.lost_since,
        drained_since=row.drained_since,
        drain_reason=row.drain_reason or "",
        labels=merged(*labels_of_agent(row)),
    )


@reads("scaling_groups", "name")
def policy_of_row(row: Row[Any]) -> dict[str, Any]:
    """Return what an administrator has set of a group's policy."""
    with_policy(ScalingGroup(row.name), policy := {**json.loads(row.policy)})
    return policy


_SPEC_FIELDS = tuple(field.name for field in fields(SessionSpec) if field.name != "where")


def spec_text(spec: SessionSpec) -> str:
    """Write what the user submitted.

    Who may go anywhere says nothing of it, so that the same submission reads as it always has.
    """
    said = {name: getattr(spec, name) for name in _SPEC_FIELDS}
    said["request"] = request_values(spec.request)
    said["depends_on"] = [asdict(dependency) for dependency in spec.depends_on]
    said["limits"] = {name: asdict(limit) for name, limit in spec.limits.items()}
    where = {} if spec.where.is_anywhere else {"where": fields_of(spec.where)}
    return to_json(said | where).decode()  # with its environment it is long, and this is fast


def spec_of(text: str) -> SessionSpec:
    """Read what the user submitted.

    Raises:
        StoreDamagedError: It is no submission.
    """
    try:
        data = json.loads(text)
        known = known_of(SessionSpec, data)
        return SessionSpec(
            **known
            | {
                "command": tuple(data["command"]),
                "request": Request(**known_of(Request, data.get("request", {}))),
                "depends_on": tuple(
                    Dependency(SessionId(d["session_id"]), DependencyKind(d["kind"]))
                    for d in data.get("depends_on", ())
                ),
                "limits": {
                    name: Limit(**known_of(Limit, limit))
                    for name, limit in data.get("limits", {}).items()
                },
                "where": where_of(data.get("where", {})),
            }
        )
    except DAMAGE as error:
        raise damaged(f"specs: the row with {text[:200]}", error) from error
