"""What holds of every plan, whatever the cluster and the queue."""

import json
from collections import defaultdict
from dataclasses import replace
from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from sokovan.domain.cluster import AgentStatus
from sokovan.domain.quantities import DEVICE_SHARES
from sokovan.domain.reasons import WaitReason
from sokovan.domain.resources import Hold, Request, Usage, over_held, used_by
from sokovan.placement.binding import look, never_fits
from sokovan.placement.engine import place
from sokovan.placement.explain import explain, sentence
from sokovan.placement.fit import could_ever_fit, fits, pack, refusal, shortages
from sokovan.placement.order import fifo
from sokovan.placement.rank import Preference
from sokovan.placement.snapshot import free_on, snapshot_of
from sokovan.scheduler.ports import SchedulingData
from tests.property.strategies import (
    G,
    a_session,
    a_snapshot,
    agents,
    an_agent,
    clusters,
    holds_on,
    need,
    requests,
    scheduling_data,
)

BROKEN = (
    replace(a_session("no-kernels", priority=100), kernels=()),
    a_session("negative", Request(cpu_milli=-1), priority=100),
    a_session("not-a-number", Request(mem_bytes=float("nan")), priority=100),
    a_session("one-and-a-half", Request(gpu_shares=1500), priority=100),
)
NOT_ADMITTED = {
    WaitReason.HELD,
    WaitReason.BEGIN_TIME_NOT_REACHED,
    WaitReason.WAITING_FOR_DEPENDENCY,
    WaitReason.WAITING_FOR_OLD_KERNELS,
}


def holds_of(data, plan) -> list[Hold]:
    """What the sessions placed will hold, by session and in order."""
    asked = {k.kernel_id: k.request for session in data.pending for k in session.kernels}
    return [
        Hold(
            token="",
            session_id=session_id,
            kernel_id=one.kernel_id,
            agent_id=one.agent_id,
            cpu_milli=asked[one.kernel_id].cpu_milli,
            mem_bytes=asked[one.kernel_id].mem_bytes,
            devices=one.devices,
        )
        for session_id, assignment in plan.placed.items()
        for one in assignment
    ]


def has_room(request: Request, agent, held: list[Hold]) -> bool:
    """The meaning of "fits", written without the engine."""
    used = used_by(held)
    if request.cpu_milli and used.cpu_milli + request.cpu_milli > agent.capacity.cpu_milli:
        return False
    if request.mem_bytes and used.mem_bytes + request.mem_bytes > agent.capacity.mem_bytes:
        return False
    if not request.gpu_shares:
        return True
    free = [
        DEVICE_SHARES - used.shares.get(device.index, 0)
        for device in agent.capacity.devices
        if device.mem_bytes >= request.gpu_mem_bytes_min
    ]
    if request.gpu_shares < DEVICE_SHARES:
        return any(amount >= request.gpu_shares for amount in free)
    return free.count(DEVICE_SHARES) * DEVICE_SHARES >= request.gpu_shares


@given(scheduling_data())
def test_every_session_is_placed_or_explained(data):
    plan = place(snapshot_of(data))

    assert plan.placed.keys() | plan.waits.keys() == {s.session_id for s in data.pending}
    assert not plan.placed.keys() & plan.waits.keys()
    assert plan.never_fits == {
        i for i, wait in plan.waits.items() if wait.code is WaitReason.NEVER_FITS
    }


def in_service(agent):
    return agent.status is AgentStatus.ALIVE and agent.drained_since is None


@given(scheduling_data())
def test_a_placed_session_has_an_agent_in_service_for_each_kernel(data):
    plan = place(snapshot_of(data))

    serving = {a.agent_id for a in data.agents if in_service(a)}
    for session in data.pending:
        if session.session_id in plan.placed:
            assignment = plan.placed[session.session_id]
            assert [one.kernel_id for one in assignment] == [k.kernel_id for k in session.kernels]
            assert {one.agent_id for one in assignment} <= serving


@given(scheduling_data())
def test_no_slot_and_no_device_is_over_held(data):
    plan = place(snapshot_of(data))

    held = [*data.holds, *holds_of(data, plan)]
    for agent in data.agents:
        used = used_by(hold for hold in held if hold.agent_id == agent.agent_id)
        assert over_held(agent.capacity, used) is None


@given(scheduling_data())
def test_a_kernel_gets_the_devices_that_it_asked_for(data):
    plan = place(snapshot_of(data))

    asked = {k.kernel_id: k.request for session in data.pending for k in session.kernels}
    devices = {a.agent_id: {d.index: d for d in a.capacity.devices} for a in data.agents}
    for assignment in plan.placed.values():
        for one in assignment:
            request = asked[one.kernel_id]
            given_to_it = [devices[one.agent_id][index] for index, _ in one.devices]
            assert sum(part for _, part in one.devices) == request.gpu_shares
            assert all(d.mem_bytes >= request.gpu_mem_bytes_min for d in given_to_it)
            assert list(one.devices) == sorted(one.devices)


@given(scheduling_data(), st.randoms(use_true_random=False))
def test_the_same_value_gives_the_same_plan(data, chance):
    shuffled = replace(
        data,
        agents=tuple(chance.sample(data.agents, len(data.agents))),
        holds=tuple(chance.sample(data.holds, len(data.holds))),
        pending=tuple(chance.sample(data.pending, len(data.pending))),
    )

    plan, again = place(snapshot_of(data)), place(snapshot_of(shuffled))

    assert again == plan
    assert list(again.placed) == list(plan.placed)


@given(scheduling_data())
def test_a_leftover_holds_as_much_as_a_kernel_that_is_wanted(data):
    wanted = tuple(replace(hold, leftover_since=None) for hold in data.holds)

    plan = place(snapshot_of(replace(data, holds=wanted)))

    assert plan.placed == place(snapshot_of(data)).placed


@given(scheduling_data())
def test_a_broken_session_never_stops_the_others(data):
    plan = place(snapshot_of(replace(data, pending=(*BROKEN, *data.pending))))

    broken = {session.session_id for session in BROKEN}
    without = place(snapshot_of(data))
    assert plan.placed == without.placed
    assert {i: wait for i, wait in plan.waits.items() if i not in broken} == without.waits
    assert plan.never_fits == without.never_fits | broken


@given(scheduling_data(kernels_max=1))
def test_a_refused_session_does_not_fit_after_what_was_placed_before_it(data):
    snapshot = snapshot_of(data)
    plan = place(snapshot)

    new = {hold.session_id: hold for hold in holds_of(data, plan)}
    held = defaultdict(list)
    for hold in data.holds:
        held[hold.agent_id].append(hold)
    for session in fifo(snapshot):
        if session.session_id in new:
            held[new[session.session_id].agent_id].append(new[session.session_id])
        elif plan.waits[session.session_id].code not in NOT_ADMITTED:
            assert not any(
                has_room(session.kernels[0].request, agent, held[agent.agent_id])
                for agent in data.agents
                if in_service(agent)
            )


@given(scheduling_data(kernels_max=1))
def test_a_session_never_fits_when_no_empty_agent_could_take_it(data):
    plan = place(snapshot_of(data))

    present = [agent for agent in data.agents if agent.status is not AgentStatus.GONE]
    for session in data.pending:
        wait = plan.waits.get(session.session_id)
        if wait is None or wait.code in NOT_ADMITTED:
            continue
        request = session.kernels[0].request
        possible = any(has_room(request, agent, []) for agent in present)
        assert could_ever_fit([request], data.agents) == possible
        if not present:
            assert wait.code is WaitReason.NO_AGENTS
            assert never_fits([request], data.agents) is None
        else:
            assert (session.session_id in plan.never_fits) == (not possible)
            assert (never_fits([request], data.agents) is None) == possible


@given(scheduling_data(kernels_max=1))
def test_a_session_waits_for_a_drained_agent_when_no_other_could_take_it(data):
    plan = place(snapshot_of(data))

    for session in data.pending:
        wait = plan.waits.get(session.session_id)
        if wait is None or wait.code in NOT_ADMITTED:
            continue
        able = [a for a in data.agents if has_room(session.kernels[0].request, a, [])]
        in_vain = not any(in_service(agent) for agent in able) and any(
            agent.status is AgentStatus.ALIVE for agent in able
        )
        assert (wait.code is WaitReason.AGENT_DRAINED) == in_vain


@given(clusters(st.just(AgentStatus.ALIVE)), requests, st.integers(1, 3), st.data())
def test_equal_kernels_are_packed_whenever_they_can_be(cluster, request, count, more):
    held = more.draw(holds_on(cluster))
    free = snapshot_of(SchedulingData(agents=cluster, holds=held)).free

    packing = pack([request] * count, cluster, free, Preference())

    possible = sum(copies(request, agent, held_on(agent, held), count) for agent in cluster)
    assert (packing.lacking is None) == (possible >= count)
    assert len(packing.places) == min(count, possible)


def held_on(agent, held):
    return [hold for hold in held if hold.agent_id == agent.agent_id]


def copies(request, agent, held, at_most) -> int:
    """How many equal kernels the agent takes, trying each choice of devices."""
    if at_most == 0 or not has_room(request, agent, held):
        return 0
    able = [d.index for d in agent.capacity.devices if d.mem_bytes >= request.gpu_mem_bytes_min]
    whole, part = divmod(request.gpu_shares, DEVICE_SHARES)
    ways = (
        [((index, part),) for index in able]
        if part
        else [tuple((i, DEVICE_SHARES) for i in some) for some in combinations(able, whole)]
    )
    taken = [
        Hold("", "", "", agent.agent_id, request.cpu_milli, request.mem_bytes, way) for way in ways
    ]
    return max(
        1 + copies(request, agent, [*held, hold], at_most - 1)
        for hold in taken
        if over_held(agent.capacity, used_by([*held, hold])) is None
    )


@given(clusters(), requests, st.data())
def test_an_agent_is_refused_with_a_reason_exactly_when_it_has_no_room(cluster, request, more):
    held = more.draw(holds_on(cluster))
    free = snapshot_of(SchedulingData(agents=cluster, holds=held)).free

    for agent in cluster:
        room = has_room(request, agent, held_on(agent, held))
        why = refusal(request, agent, free[agent.agent_id])
        assert fits(request, agent, free[agent.agent_id]) == room
        assert (why is None) == (room and in_service(agent))
        for one in shortages(request, agent, free[agent.agent_id]):
            assert one.requested > one.free
            assert one.free <= one.total
            assert 0 < one.missing <= 1


@given(clusters(), requests)
def test_an_agent_refuses_for_ever_what_it_could_not_take_empty(cluster, request):
    empty = {agent.agent_id: free_on(agent) for agent in cluster}

    for one in look(request, cluster, empty):
        assert one.able == has_room(request, one.agent, [])


@given(agents(status=st.just(AgentStatus.ALIVE)), requests)
def test_asking_for_zero_equals_not_asking(agent, request):
    nothing = Usage(0, 0, {device.index: 0 for device in agent.capacity.devices})

    assert fits(Request(), agent, nothing)
    assert fits(Request(gpu_mem_bytes_min=request.gpu_mem_bytes_min), agent, nothing)
    assert fits(replace(request, cpu_milli=0), agent, free_on(agent)) == fits(
        replace(request, cpu_milli=0), agent, replace(free_on(agent), cpu_milli=0)
    )
    assert fits(replace(request, mem_bytes=0), agent, free_on(agent)) == fits(
        replace(request, mem_bytes=0), agent, replace(free_on(agent), mem_bytes=0)
    )


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=6))
def test_parts_fill_a_device_exactly(parts):
    """As in 0.1 + 0.2 = 0.3: what is left over is neither too much nor too little."""
    text = [f"0.{part:03d}" if part < DEVICE_SHARES else "1" for part in parts]
    pending = [a_session(f"s{n}", need(gpu=t), number=n) for n, t in enumerate(text)]
    rest = DEVICE_SHARES - sum(parts[:-1])

    plan = place(a_snapshot(*pending, agents=[an_agent(gpus=[16 * G])]))

    if rest >= 0:
        assert (pending[-1].session_id in plan.placed) == (parts[-1] <= rest)


@given(scheduling_data())
def test_a_shape_that_was_refused_has_one_answer(data):
    twins = [replace(s, session_id=f"{s.session_id}-twin") for s in data.pending]
    plan = place(snapshot_of(replace(data, pending=(*data.pending, *twins))))

    for session in data.pending:
        wait = plan.waits.get(session.session_id)
        if wait is not None and wait.code not in NOT_ADMITTED:
            assert plan.waits[f"{session.session_id}-twin"] is wait


@given(scheduling_data())
def test_every_session_can_be_explained(data):
    snapshot = snapshot_of(replace(data, pending=(*BROKEN, *data.pending)))
    plan = place(snapshot)

    for session in snapshot.pending:
        told = explain(snapshot, session.session_id)
        assert json.loads(json.dumps(told, allow_nan=False)) == told
        wait = plan.waits.get(session.session_id)
        assert told["code"] == (wait.code if wait else WaitReason.NOT_EXAMINED_YET)
        assert told["facts"] == (wait.facts if wait else told["facts"])
        assert told["sentence"]
        if wait:
            assert sentence(wait, now=snapshot.now) == told["sentence"]


@given(scheduling_data())
def test_those_ahead_are_those_with_an_earlier_position(data):
    snapshot = snapshot_of(data)

    told = [explain(snapshot, session.session_id) for session in fifo(snapshot)]

    queued = [one for one in told if one["position"] is not None]
    assert [one["position"] for one in queued] == list(range(1, len(queued) + 1))
    assert [one["ahead"]["total"] for one in queued] == list(range(len(queued)))
    assert {one["queue_length"] for one in told} <= {len(queued)}
