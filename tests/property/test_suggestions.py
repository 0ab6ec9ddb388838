"""What `why` suggests is true: with that change, and no smaller one, the session starts."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hypothesis import event, given
from hypothesis import strategies as st

from sokovan.domain.cluster import Agent, AgentRanking, AgentStatus, Backfill, QueueOrder
from sokovan.domain.cluster import ScalingGroup as Group
from sokovan.domain.resources import Capacity, Device, Hold, Request
from sokovan.domain.sessions import AgentId, Kernel, KernelId, SessionId, SessionWithKernels
from sokovan.domain.statuses import SessionStatus
from sokovan.domain.where import ClusterMode, Where, parse_constraint
from sokovan.placement.engine import place, run
from sokovan.placement.eta import eta
from sokovan.placement.explain import explain
from sokovan.placement.snapshot import Snapshot, snapshot_of
from sokovan.placement.suggest import MIB, suggestions
from sokovan.scheduler.ports import SchedulingData

NOW = 1_000_000.0
GIB = 1 << 30
ME = SessionId("me")
STEPS = {"cpu": 1, "mem": MIB, "walltime": 1, "kernels": 1}
"""The smallest step of what is to become less."""


@st.composite
def agents_and_holds(draw: Any) -> tuple[list[Agent], list[Hold], list[SessionWithKernels]]:
    agents, holds, running = [], [], []
    for n in range(draw(st.integers(1, 4))):
        sizes = draw(st.lists(st.sampled_from([8 * GIB, 40 * GIB]), max_size=3))
        agents.append(
            Agent(
                AgentId(f"a{n}"),
                name=f"agent{n}",
                status=draw(st.sampled_from([AgentStatus.ALIVE] * 4 + [AgentStatus.LOST])),
                drained_since=draw(st.sampled_from([None, None, None, 1.0])),
                labels={"rack": draw(st.sampled_from(["r1", "r2"]))},
                capacity=Capacity(
                    draw(st.integers(1, 8)) * 1000,
                    draw(st.integers(1, 8)) * GIB,
                    tuple(Device(i, "H100", size) for i, size in enumerate(sizes)),
                ),
            )
        )
        for m in range(draw(st.integers(0, 2))):
            session_id = SessionId(f"r{n}{m}")
            shares = draw(st.sampled_from([400, 1000]))
            devices = tuple((i, shares) for i in range(len(sizes)) if i % 2 == m)
            holds.append(
                Hold(
                    token=session_id,
                    session_id=session_id,
                    kernel_id="",
                    agent_id=f"a{n}",
                    cpu_milli=draw(st.integers(0, 3000)),
                    mem_bytes=draw(st.integers(0, 2 * GIB)),
                    devices=devices if draw(st.booleans()) else (),
                )
            )
            running.append(
                SessionWithKernels(
                    session_id,
                    status=SessionStatus.RUNNING,
                    started_at=NOW - 10,
                    walltime_s=float(draw(st.integers(20, 500))),
                )
            )
    return agents, holds, running


requests = st.builds(
    Request,
    st.integers(0, 9000),
    st.integers(0, 9 * GIB),
    st.sampled_from([0, 0, 300, 700, 1000, 2000, 3000]),
)


@st.composite
def wheres(draw: Any) -> Where:
    rack = st.sampled_from(["rack=r1", "rack!=r1", "gpus>=2", "gpu_model=T4"])
    named = st.lists(st.sampled_from(["agent0", "a1", "agent9"]), max_size=2, unique=True)
    mode = draw(st.sampled_from(ClusterMode))
    alone = mode is ClusterMode.SINGLE_NODE
    return Where(
        mode=mode,
        kernels_per_agent_max=None if alone else draw(st.sampled_from([None, None, 1, 2])),
        same=draw(st.sampled_from(["", "", "rack"])),
        constraints=tuple(
            sorted({parse_constraint(text) for text in draw(st.lists(rack, max_size=2))})
        ),
        agents=tuple(draw(st.one_of(st.just([]), named))),
        exclude=tuple(draw(st.one_of(st.just([]), named))),
    )


@st.composite
def sessions(draw: Any, session_id: str, number: int) -> SessionWithKernels:
    request = draw(requests)
    if request.gpu_shares:
        request = replace(request, gpu_mem_bytes_min=draw(st.sampled_from([0, 0, 20 * GIB])))
    kernels = tuple(
        Kernel(KernelId(f"{session_id}.{n}"), index=n, request=request)
        for n in range(draw(st.sampled_from([1, 1, 2, 3])))
    )
    return SessionWithKernels(
        SessionId(session_id),
        kernels=kernels,
        number=number,
        owner=draw(st.sampled_from(["ann", "bob"])),
        priority=draw(st.sampled_from([10, 10, 50])),
        created_at=NOW - 5,
        walltime_s=draw(st.sampled_from([None, 30.0, 200.0, 1000.5])),
        where=draw(st.one_of(st.just(Where()), wheres())),
    )


SPOILERS: Mapping[str, Any] = {
    "cpu_milli": st.integers(1, 20_000),
    "mem_bytes": st.integers(1, 20 * GIB),
    "gpu_shares": st.sampled_from([1, 300, 999, 1000, 2000, 3000, 4000]),
    "gpu_mem_bytes_min": st.sampled_from([8 * GIB, 40 * GIB, 80 * GIB]),
}


@st.composite
def modest(draw: Any, session_id: str, number: int) -> SessionWithKernels:
    """A session that would often start but for one thing or two."""
    request = Request(draw(st.integers(0, 500)), 0, draw(st.sampled_from([0, 0, 200, 1000])))
    session = replace(
        draw(sessions(session_id, number)),
        where=draw(wheres()) if draw(st.integers(0, 2)) == 2 else Where(),
    )
    for field in draw(st.lists(st.sampled_from(sorted(SPOILERS)), max_size=2, unique=True)):
        request = replace(request, **{field: draw(SPOILERS[field])})
    if not request.gpu_shares:
        request = replace(request, gpu_mem_bytes_min=0)
    return replace(session, kernels=tuple(replace(k, request=request) for k in session.kernels))


@st.composite
def worlds(draw: Any) -> SchedulingData:
    agents, holds, running = draw(agents_and_holds())
    before = draw(st.integers(0, 3))
    pending = [draw(sessions(f"s{n}", n)) for n in range(before + draw(st.integers(0, 2)))]
    pending.append(draw(st.one_of(modest(ME, before), sessions(ME, before))))
    group = Group(
        backfill=draw(st.sampled_from(Backfill)),
        order=draw(st.sampled_from(QueueOrder)),
        ranking=draw(st.sampled_from(AgentRanking)),
        walltime_default_s=400.0,
        agent_kernels_max=draw(st.sampled_from([None, None, 3])),
    )
    return SchedulingData(
        group=group,
        agents=tuple(agents),
        holds=tuple(holds),
        pending=tuple(pending),
        running=tuple(running),
        now=NOW,
    )


def applied(session: SessionWithKernels, one: Mapping[str, Any]) -> SessionWithKernels:
    """The session as somebody makes it who reads the suggestion."""
    dimension, to = one["dimension"], one["to"]
    fields = {
        "cpu": "cpu_milli",
        "mem": "mem_bytes",
        "gpu": "gpu_shares",
        "gpu_mem": "gpu_mem_bytes_min",
    }
    if dimension in fields:
        return with_amount(session, fields[dimension], to)
    if dimension == "walltime":
        return replace(session, walltime_s=to)
    if dimension == "kernels":
        return replace(session, kernels=session.kernels[:to])
    if dimension == "priority":
        return replace(session, priority=to)
    return replace(session, where=elsewhere(session.where, one))


def elsewhere(where: Where, one: Mapping[str, Any]) -> Where:
    change, to = one["change"], one["to"]
    if "--constraint" in change:
        kept = tuple(c for c in where.constraints if str(c) not in one["from"])
        return replace(where, constraints=kept)
    if "--agent" in change:
        return replace(where, agents=tuple(to or ()))
    if "--exclude" in change:
        return replace(where, exclude=tuple(to or ()))
    if "--mode" in change:
        return replace(where, mode=ClusterMode(to))
    if "--kernels-per-agent" in change:
        return replace(where, kernels_per_agent_max=to)
    assert "--same" in change
    return replace(where, same="")


def with_amount(session: SessionWithKernels, field: str, amount: int) -> SessionWithKernels:
    kernels = tuple(
        replace(kernel, request=replace(kernel.request, **{field: amount}))
        for kernel in session.kernels
    )
    return replace(session, kernels=kernels)


def starts(data: SchedulingData, changed: SessionWithKernels) -> bool:
    """Whether a pass over the same, but for the session, places it."""
    others = [session for session in data.pending if session.session_id != ME]
    return ME in place(snapshot_of(replace(data, pending=(*others, changed)))).placed


def seen(snapshot: Snapshot) -> Any:
    """All of a snapshot that anybody can see."""
    queue, machines = snapshot.queue, snapshot.machines
    return copy.deepcopy(
        (
            queue.version,
            queue.news,
            dict(queue),
            [(lane.owner, lane.entries) for lane in queue.lanes()],
            queue.aside,
            machines.version,
            machines.holds,
            [getattr(machines.free, name).tolist() for name in ("cpu", "mem", "shares", "kernels")],
        )
    )


@given(worlds())
def test_what_is_suggested_starts_the_session(data):
    (me,) = [session for session in data.pending if session.session_id == ME]
    snapshot = snapshot_of(data)
    would = ME in place(snapshot).placed

    found = suggestions(snapshot, ME)

    assert not (would and found)
    for one in found:
        event(one["dimension"])
        changed = applied(me, one)
        assert changed != me
        assert starts(data, changed), one


@given(worlds())
def test_no_smaller_change_starts_it(data):
    (me,) = [session for session in data.pending if session.session_id == ME]
    snapshot = snapshot_of(data)
    if ME in place(snapshot).placed:
        return

    found = {one["dimension"]: one for one in suggestions(snapshot, ME)}

    for dimension, step in STEPS.items():
        one = found.get(dimension)
        if one is not None:
            nearly = {**one, "to": one["to"] + step}
            if one["from"] is None or nearly["to"] < one["from"]:
                assert not starts(data, applied(me, nearly)), one
    if (one := found.get("gpu")) is not None:
        nearly = one["to"] + (1 if one["to"] < 1000 else 1000)
        assert nearly == one["from"] or not starts(data, with_amount(me, "gpu_shares", nearly))
    if (one := found.get("priority")) is not None and one["to"] > one["from"] + 1:
        assert not starts(data, replace(me, priority=one["to"] - 1))


@given(worlds())
def test_where_nothing_is_suggested_the_least_does_not_help_either(data):
    (me,) = [session for session in data.pending if session.session_id == ME]
    snapshot = snapshot_of(data)
    if ME in place(snapshot).placed:
        return
    request = me.kernels[0].request

    found = {one["dimension"] for one in suggestions(snapshot, ME)}

    least = {
        "cpu": request.cpu_milli > 1 and with_amount(me, "cpu_milli", 1),
        "mem": request.mem_bytes > MIB and with_amount(me, "mem_bytes", MIB),
        "gpu": request.gpu_shares > 1 and with_amount(me, "gpu_shares", 1),
        "gpu_mem": request.gpu_mem_bytes_min > 0 and with_amount(me, "gpu_mem_bytes_min", 0),
        "walltime": replace(me, walltime_s=1.0),
        "priority": me.priority < 100 and replace(me, priority=100),
        "kernels": len(me.kernels) > 1 and replace(me, kernels=me.kernels[:1]),
    }
    for dimension, changed in least.items():
        assert not changed or dimension in found or not starts(data, changed), dimension


@given(worlds())
def test_who_submits_it_anew_is_told_the_truth(data):
    (me,) = [session for session in data.pending if session.session_id == ME]
    snapshot = snapshot_of(data)
    place(snapshot)

    for one in suggestions(snapshot, ME):
        anew = replace(applied(me, one), number=10**6, created_at=NOW)
        later = snapshot_of(data)
        place(later)
        later.queue.drop(ME)
        later.queue.put(anew)
        assert (ME in place(later).placed) == one["as_new"], one


@given(worlds())
def test_explaining_changes_nothing(data):
    snapshot = snapshot_of(data)
    done = run(snapshot)
    before = seen(snapshot)

    suggestions(snapshot, ME)
    explain(snapshot, ME, done)
    eta(snapshot, ME, done)

    assert seen(snapshot) == before
    assert place(snapshot).placed == done.plan.placed
    assert done.plan.placed or run(snapshot) is done


@given(worlds())
def test_a_start_is_known_or_it_is_said_why_not(data):
    snapshot = snapshot_of(data)
    plan = place(snapshot)

    told = eta(snapshot, ME)

    assert told["sentence"]
    if told["starts_at"] is None:
        assert told["sentence"].startswith("not known: ")
    else:
        assert (told["starts_at"] == NOW) == (ME in plan.placed) or told["starts_at"] > NOW
    if told["reserved"]:
        assert explain(snapshot, ME)["reservation"]["starts_at"] == told["starts_at"]
