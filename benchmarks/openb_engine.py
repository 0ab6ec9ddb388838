"""Replay openb requests over the placement engine itself, pass by pass, with one ranking."""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from sokovan.domain.cluster import Agent, AgentRanking, Backfill, ScalingGroup
from sokovan.domain.resources import Capacity, Device, Hold, Request
from sokovan.domain.sessions import AgentId, Kernel, KernelId, SessionId, SessionWithKernels
from sokovan.domain.statuses import SessionStatus
from sokovan.domain.where import ANYWHERE, Comparison, Constraint, Where
from sokovan.placement.engine import place
from sokovan.placement.fragmentation import Bool
from sokovan.placement.machines import Machines
from sokovan.placement.queue import Queue
from sokovan.placement.snapshot import Snapshot

if TYPE_CHECKING:
    from benchmarks.openb import Form, Nodes, Trace

MIB_BITS = 20


def replay(nodes: "Nodes", trace: "Trace", ranking: AgentRanking) -> Bool:
    """Say of each arrival whether it was placed; one that was not is never tried again."""
    group = ScalingGroup(ranking=ranking, backfill=Backfill.NONE, ageing_s=0.0)
    running: dict[SessionId, SessionWithKernels] = {}
    machines = Machines(_agents(nodes, trace))
    snapshot = Snapshot(group, machines, Queue(group), running, frozenset(), 0.0)
    placed = np.zeros(len(trace.arrivals), dtype=bool)
    for number, form in enumerate(trace.arrivals.tolist()):
        session = _session(trace.forms[form], number)
        snapshot.queue.put(session)
        plan = place(snapshot)
        snapshot.queue.drop(session.session_id)
        for one in plan.placed.get(session.session_id, ()):
            placed[number] = True
            running[session.session_id] = replace(session, status=SessionStatus.RUNNING)
            request = session.main.request
            machines.put_hold(
                Hold(
                    token=session.session_id,
                    session_id=session.session_id,
                    kernel_id=one.kernel_id,
                    agent_id=one.agent_id,
                    cpu_milli=request.cpu_milli,
                    mem_bytes=request.mem_bytes,
                    devices=one.devices,
                )
            )
    return placed


def _agents(nodes: "Nodes", trace: "Trace") -> list[Agent]:
    """Ids go by rank: of equal agents, the one with the lowest is taken."""
    return [
        Agent(
            AgentId(f"n{trace.rank[row]:05d}"),
            capacity=Capacity(
                int(nodes.room.cpu_milli[row]),
                int(nodes.room.mem_bytes[row]) << MIB_BITS,
                tuple(
                    Device(index, model=nodes.models[row])
                    for index in range(np.count_nonzero(nodes.room.shares[row]))
                ),
            ),
        )
        for row in range(len(nodes.names))
    ]


def _session(form: "Form", number: int) -> SessionWithKernels:
    models = tuple(sorted(form.models))
    where = ANYWHERE
    if models:
        where = Where(constraints=(Constraint("gpu_model", Comparison.IS, models),))
    ask = form.ask
    request = Request(ask.cpu_milli, ask.mem_bytes << MIB_BITS, ask.gpu_shares)
    kernel = Kernel(KernelId(f"k{number}"), request=request)
    return SessionWithKernels(SessionId(f"s{number}"), (kernel,), number=number, where=where)
