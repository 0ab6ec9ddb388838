"""What holds of every plan, whatever the cluster, the queue and the policy."""

import json
from collections import Counter
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from sokovan.domain.cluster import AgentStatus, Backfill, QueueOrder, ScalingGroup
from sokovan.domain.quantities import DEVICE_SHARES
from sokovan.domain.reasons import WaitReason
from sokovan.domain.resources import Request
from sokovan.domain.where import ANYWHERE, ClusterMode, Where
from sokovan.placement.binding import Looks, never_fits
from sokovan.placement.engine import place
from sokovan.placement.explain import explain, sentence
from sokovan.placement.filters import filter_of
from sokovan.placement.fit import fits_on, fitting
from sokovan.placement.needs import Demand, Need
from sokovan.placement.placer import Placer
from sokovan.placement.rank import CONCENTRATED
from sokovan.placement.snapshot import snapshot_of
from tests.property.reference import (
    NOT_ADMITTED,
    NOT_FOR_WANT_OF_ROOM,
    by_agent,
    copies,
    devices_of,
    has_room,
    holds_of,
    in_service,
    in_turn,
    may_use,
    most_at_once,
    placings,
    too_much,
    twin_of,
    when_refused,
)
from tests.property.strategies import (
    G,
    a_hold,
    a_session,
    a_snapshot,
    agents,
    an_agent,
    clusters,
    groups,
    holds_on,
    machines_of,
    need,
    requests,
    scheduling_data,
    wheres,
)

BROKEN = (
    replace(a_session("no-kernels", priority=100), kernels=()),
    a_session("negative", Request(cpu_milli=-1), priority=100),
    a_session("not-a-number", Request(mem_bytes=float("nan")), priority=100),
    a_session("one-and-a-half", Request(gpu_shares=1500), priority=100),
)
NO_BACKFILL = ScalingGroup(backfill=Backfill.NONE)

# --- what is placed -------------------------------------------------------------------------------


@given(scheduling_data())
def test_every_session_is_placed_or_explained(data):
    plan = place(snapshot_of(data))

    assert plan.placed.keys() | plan.waits.keys() == {s.session_id for s in data.pending}
    assert not plan.placed.keys() & plan.waits.keys()
    assert plan.never_fits == {
        i for i, wait in plan.waits.items() if wait.code is WaitReason.NEVER_FITS
    }


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
def test_no_slot_no_device_and_no_agent_is_over_held(data):
    plan = place(snapshot_of(data))

    assert too_much(data, holds_of(data, plan)) == []


@given(scheduling_data())
def test_a_kernel_gets_the_devices_that_it_asked_for(data):
    plan = place(snapshot_of(data))

    agents_by_id = {agent.agent_id: agent for agent in data.agents}
    for session in data.pending:
        assignment = plan.placed.get(session.session_id, ())
        for kernel, one in zip(session.kernels, assignment, strict=bool(assignment)):
            agent = agents_by_id[one.agent_id]
            usable = {d.index for d in devices_of(kernel.request, agent, session.where)}
            whole = kernel.request.gpu_shares >= DEVICE_SHARES
            assert sum(part for _, part in one.devices) == kernel.request.gpu_shares
            assert {index for index, _ in one.devices} <= usable
            assert len(one.devices) == (kernel.request.devices_whole if whole else
                                        bool(kernel.request.gpu_shares))  # fmt: skip
            assert list(one.devices) == sorted(one.devices)


@given(scheduling_data())
def test_a_placed_session_goes_only_where_it_may(data):
    plan = place(snapshot_of(data))

    agents_by_id = {agent.agent_id: agent for agent in data.agents}
    for session in data.pending:
        assignment = plan.placed.get(session.session_id, ())
        where, on = session.where, [agents_by_id[one.agent_id] for one in assignment]
        assert all(may_use(where, agent) for agent in on)
        if where.mode is ClusterMode.SINGLE_NODE:
            assert len({agent.agent_id for agent in on}) <= 1
        elif where.kernels_per_agent_max is not None:
            most = max(Counter(agent.agent_id for agent in on).values(), default=0)
            assert most <= where.kernels_per_agent_max
        if where.same and where.mode is ClusterMode.MULTI_NODE and len(on) > 1:
            (value,) = {agent.labels.get(where.same) for agent in on}
            assert value is not None


# --- equal values, equal plans --------------------------------------------------------------------


@given(scheduling_data(), st.randoms(use_true_random=False))
def test_the_same_value_gives_the_same_plan(data, chance):
    shuffled = replace(
        data,
        agents=tuple(chance.sample(data.agents, len(data.agents))),
        holds=tuple(chance.sample(data.holds, len(data.holds))),
        pending=tuple(chance.sample(data.pending, len(data.pending))),
        running=tuple(chance.sample(data.running, len(data.running))),
    )

    plan, again = place(snapshot_of(data)), place(snapshot_of(shuffled))

    assert again == plan
    assert list(again.placed) == list(plan.placed)


@given(scheduling_data())
def test_looking_again_finds_the_same(data):
    snapshot = snapshot_of(data)

    plan = place(snapshot)
    again = place(snapshot)
    snapshot.memory.clear()
    anew = place(snapshot)

    assert again == plan == anew
    assert list(plan.placed) == list(anew.placed)


@given(scheduling_data(group=groups(st.just(Backfill.NONE))))
def test_a_leftover_holds_as_much_as_a_kernel_that_is_wanted(data):
    wanted = tuple(replace(hold, leftover_since=None) for hold in data.holds)
    of_nobody = replace(data, running=(), group=replace(data.group, order=QueueOrder.FIFO))

    plan = place(snapshot_of(replace(of_nobody, holds=wanted)))

    assert plan.placed == place(snapshot_of(of_nobody)).placed


@given(scheduling_data())
def test_a_broken_session_never_stops_the_others(data):
    plan = place(snapshot_of(replace(data, pending=(*BROKEN, *data.pending))))

    broken = {session.session_id for session in BROKEN}
    without = place(snapshot_of(data))
    assert plan.placed == without.placed
    assert {i: wait for i, wait in plan.waits.items() if i not in broken} == without.waits
    assert plan.never_fits == without.never_fits | broken


# --- whose turn it is -----------------------------------------------------------------------------


@given(scheduling_data())
def test_sessions_are_placed_in_their_turn(data):
    plan = place(snapshot_of(data))

    turns = [session.session_id for session in in_turn(data, plan)]
    assert list(plan.placed) == [i for i in turns if i in plan.placed]


@given(scheduling_data(group=groups(st.just(Backfill.STRICT))))
def test_nobody_overtakes_under_strict(data):
    plan = place(snapshot_of(data))

    first = None
    for session in in_turn(data, plan):
        wait = plan.waits.get(session.session_id)
        if wait is None:
            assert first is None
        elif wait.code is WaitReason.BEHIND_ANOTHER:
            assert wait.facts["session_id"] == first
        elif wait.code is not WaitReason.NEVER_FITS:
            first = first or session.session_id


@given(
    groups(st.just(Backfill.NONE)),
    st.integers(0, 100),
    st.integers(0, 100),
    st.integers(1, 50),
    st.integers(0, 2000),
    st.integers(1, 500),
)
def test_who_has_waited_long_enough_is_ahead_of_any_priority(
    group, priority, other, ageing_s, began_at, more
):
    """The bound: (q - p + 1) x `ageing_s`, whoever holds how much."""
    later = began_at + max(0, other - priority + 1) * ageing_s + more
    pending = [
        a_session("new", owner="bob", priority=other, created_at=float(later)),
        a_session("begins", owner="cy", priority=other, begin_at=float(later)),
        a_session("old", number=1, owner="ann", priority=priority, created_at=float(began_at)),
    ]

    plan = place(
        a_snapshot(
            *pending,
            group=replace(group, ageing_s=float(ageing_s), agent_kernels_max=None),
            holds=[a_hold("a1", need("4"))],
            running=[a_session("r1", owner="ann")],
            now=1e6,
        )
    )

    assert next(iter(plan.placed)) == "old"
    assert len(plan.placed) == 3


# --- what is not placed ---------------------------------------------------------------------------


@given(scheduling_data(kernels_max=1))
def test_a_refused_session_does_not_fit_after_what_was_placed_before_it(data):
    plan = place(snapshot_of(data))

    for session, held in when_refused(data, plan):
        wait = plan.waits.get(session.session_id)
        if wait is not None and wait.code not in NOT_FOR_WANT_OF_ROOM:
            assert not any(
                has_room(
                    session.kernels[0].request,
                    agent,
                    held[agent.agent_id],
                    session.where,
                    data.group.agent_kernels_max,
                )
                for agent in data.agents
                if in_service(agent)
            )


@given(scheduling_data(equal_kernels=True))
def test_equal_kernels_are_placed_whenever_they_can_be(data):
    """On one agent, in one rack, so many on one agent: over every choice of devices."""
    plan = place(snapshot_of(data))

    serving = [agent for agent in data.agents if in_service(agent)]
    most = data.group.agent_kernels_max
    for session, held in when_refused(data, plan):
        wait = plan.waits.get(session.session_id)
        if wait is not None and wait.code not in NOT_FOR_WANT_OF_ROOM:
            assert most_at_once(session, serving, held, most) < len(session.kernels)


@given(scheduling_data())
def test_a_session_that_could_start_waits_only_for_those_ahead_of_it(data):
    """Whoever is told that there is room has room, also when the pass is over."""
    plan = place(snapshot_of(data))

    held = by_agent([*data.holds, *holds_of(data, plan)])
    serving = [agent for agent in data.agents if in_service(agent)]
    ahead: set[str] = set()
    for session in in_turn(data, plan):
        wait = plan.waits.get(session.session_id)
        if wait is not None and wait.code is WaitReason.RESERVED_FOR_ANOTHER:
            assert data.group.backfill in {Backfill.EASY, Backfill.CONSERVATIVE}
            assert wait.facts["session_id"] in ahead
            assert wait.facts["starts_at"] >= data.now
            if len(session.kernels) == 1:
                assert most_at_once(session, serving, held, data.group.agent_kernels_max)
        elif wait is not None:
            ahead.add(session.session_id)


@given(scheduling_data(kernels_max=1))
def test_a_session_never_fits_when_no_empty_agent_could_take_it(data):
    plan = place(snapshot_of(data))

    machines = machines_of(data.agents, kernels_max=data.group.agent_kernels_max)
    present = [agent for agent in data.agents if agent.status is not AgentStatus.GONE]
    for session in data.pending:
        wait = plan.waits.get(session.session_id)
        if wait is None or wait.code in NOT_ADMITTED:
            continue
        request, where = session.kernels[0].request, session.where
        possible = any(has_room(request, agent, [], where) for agent in present)
        never = never_fits(Demand([request], where), machines)
        if not present:
            assert wait.code in {WaitReason.NO_AGENTS, WaitReason.BEHIND_ANOTHER}
            assert never is None
        else:
            assert (session.session_id in plan.never_fits) == (not possible)
            assert (never is None) == possible


@given(scheduling_data(equal_kernels=True))
def test_equal_kernels_never_fit_when_empty_agents_could_not_take_them_at_once(data):
    machines = machines_of(data.agents, kernels_max=data.group.agent_kernels_max)
    present = [agent for agent in data.agents if agent.status is not AgentStatus.GONE]
    for session in data.pending if present else ():
        demand = Demand([kernel.request for kernel in session.kernels], session.where)
        possible = most_at_once(session, present, {}, data.group.agent_kernels_max)
        assert (never_fits(demand, machines) is None) == (possible >= len(session.kernels))


@given(scheduling_data(kernels_max=1))
def test_a_session_waits_for_a_drained_agent_when_no_other_could_take_it(data):
    plan = place(snapshot_of(data))

    for session in data.pending:
        wait = plan.waits.get(session.session_id)
        if wait is None or wait.code in NOT_FOR_WANT_OF_ROOM:
            continue
        request, where = session.kernels[0].request, session.where
        able = [a for a in data.agents if has_room(request, a, [], where)]
        in_vain = not any(in_service(agent) for agent in able) and any(
            agent.status is AgentStatus.ALIVE for agent in able
        )
        assert (wait.code is WaitReason.AGENT_DRAINED) == in_vain


@given(scheduling_data())
def test_a_demand_that_was_refused_has_one_answer(data):
    twins = tuple(map(twin_of, data.pending))

    plan = place(snapshot_of(replace(data, pending=(*data.pending, *twins))))

    for session in data.pending:
        wait = plan.waits.get(session.session_id)
        if wait is not None and wait.code not in NOT_ADMITTED:
            assert plan.waits.get(f"{session.session_id}-twin") is wait


# --- what fits ------------------------------------------------------------------------------------


@given(clusters(st.just(AgentStatus.ALIVE)), requests, wheres, st.integers(1, 3), st.data())
def test_equal_kernels_are_counted_however_they_are_put(cluster, request, where, count, more):
    held = more.draw(holds_on(cluster))
    machines = machines_of(cluster, held)
    where = replace(where, mode=ClusterMode.MULTI_NODE, kernels_per_agent_max=None, same="")
    serving = machines_of([a for a in cluster if in_service(a)], held)

    demand = Demand([request] * count, where)
    places = Placer(serving, serving.room(), CONCENTRATED).place(demand)
    partly, lacking = Placer(machines, machines.room(), CONCENTRATED).partly(demand)

    possible = sum(
        copies(request, agent, by_agent(held)[agent.agent_id], count, where)
        for agent in cluster
        if in_service(agent)
    )
    assert (places is not None) == (possible >= count)
    assert (lacking is None) == (possible >= count)
    assert len(partly) == min(count, possible)


whole = requests.map(lambda one: replace(one, gpu_shares=one.devices_whole * DEVICE_SHARES))
"""Requests for whole devices or none: parts of unequal size may be packed less than perfectly."""


@given(
    agents(status=st.just(AgentStatus.ALIVE)), st.lists(whole, min_size=2, max_size=4), st.data()
)
def test_unequal_kernels_go_on_one_agent_whenever_they_can(agent, wanted, more):
    held = more.draw(holds_on([agent]))
    machines = machines_of([replace(agent, drained_since=None)], held)
    where = Where(mode=ClusterMode.SINGLE_NODE)

    places = Placer(machines, machines.room(), CONCENTRATED).place(Demand(wanted, where))

    assert (places is not None) == all_fit(wanted, agent, held)


def all_fit(wanted, agent, held) -> bool:
    """Whether an agent takes them all, over every choice of devices."""
    return not wanted or any(
        all_fit(wanted[1:], agent, [*held, hold]) for hold in placings(wanted[0], agent, held)
    )


@given(clusters(), requests, wheres, st.sampled_from([None, 1, 2]), st.data())
def test_an_agent_is_refused_with_a_reason_exactly_when_it_has_no_room(
    cluster, request, where, most, more
):
    held = more.draw(holds_on(cluster))
    machines = machines_of(cluster, held, kernels_max=most)
    wanted = Need(request, filter_of(request, where))
    room = machines.room()

    looks = Looks(wanted, machines, room)
    fits = fitting(wanted, machines, room, machines.usable(wanted.filter))

    for row, agent in enumerate(machines.agents):
        has = has_room(request, agent, by_agent(held)[agent.agent_id], where, most)
        assert looks.lets[row] == may_use(where, agent)
        assert looks.fits[row] == has
        assert fits[row] == (has and in_service(agent))
        if looks.lets[row]:
            assert fits_on(wanted, machines, room, row) == has
        assert bool(looks.short_on(row)) or has or not looks.lets[row]
        for slot in looks.short_on(row):
            requested, free, total = looks.numbers(slot, row)
            assert requested > free >= 0
            assert free <= total
    assert sum(looks.counted().values()) == len(machines.agents) - int(fits.sum())


@given(clusters(), requests, wheres)
def test_an_agent_refuses_for_ever_what_it_could_not_take_empty(cluster, request, where):
    machines = machines_of(cluster)

    looks = Looks(Need(request, filter_of(request, where)), machines, machines.empty())

    for row, agent in enumerate(machines.agents):
        assert looks.able[row] == has_room(request, agent, [], where)


@given(agents(status=st.just(AgentStatus.ALIVE)), requests)
def test_asking_for_zero_equals_not_asking(agent, request):
    machines = machines_of([agent])

    def fits(wanted: Request, **changes) -> bool:
        room = machines.room()
        for slot, amount in changes.items():
            getattr(room, slot)[:] = amount
        return bool(fitting(Need(wanted, filter_of(wanted, ANYWHERE)), machines, room, None)[0])

    for wanted in (Request(), Request(gpu_mem_bytes_min=request.gpu_mem_bytes_min)):
        assert fits(wanted, cpu=0, mem=0, shares=0, whole=0, top=0, gpu=0)
    for wanted, slot in (
        (replace(request, cpu_milli=0), "cpu"),
        (replace(request, mem_bytes=0), "mem"),
    ):
        assert fits(wanted) == fits(wanted, **{slot: 0})


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=6))
def test_parts_fill_a_device_exactly(parts):
    """As in 0.1 + 0.2 = 0.3: what is left over is neither too much nor too little."""
    text = [f"0.{part:03d}" if part < DEVICE_SHARES else "1" for part in parts]
    pending = [a_session(f"s{n}", need(gpu=t), number=n) for n, t in enumerate(text)]
    rest = DEVICE_SHARES - sum(parts[:-1])

    plan = place(a_snapshot(*pending, agents=[an_agent(gpus=[16 * G])], group=NO_BACKFILL))

    if rest >= 0:
        assert (pending[-1].session_id in plan.placed) == (parts[-1] <= rest)


# --- what is said of it ---------------------------------------------------------------------------


@given(scheduling_data())
def test_every_session_can_be_explained(data):
    snapshot = snapshot_of(replace(data, pending=(*BROKEN, *data.pending)))
    plan = place(snapshot)

    for session_id in snapshot.queue:
        told = explain(snapshot, session_id)
        assert json.loads(json.dumps(told, allow_nan=False)) == told
        wait = plan.waits.get(session_id)
        assert told["code"] == (wait.code if wait else WaitReason.NOT_EXAMINED_YET)
        assert told["facts"] == (wait.facts if wait else told["facts"])
        assert told["sentence"]
        if wait:
            assert sentence(wait, now=snapshot.now) == told["sentence"]


@given(scheduling_data())
def test_those_ahead_are_those_with_an_earlier_position(data):
    snapshot = snapshot_of(data)
    plan = place(snapshot)

    queue = [session.session_id for session in in_turn(data, plan)]
    told = {session_id: explain(snapshot, session_id) for session_id in snapshot.queue}

    assert {i for i, one in told.items() if one["position"] is not None} == set(queue)
    assert [told[i]["position"] for i in queue] == list(range(1, len(queue) + 1))
    assert [told[i]["ahead"]["total"] for i in queue] == list(range(len(queue)))
    assert {one["queue_length"] for one in told.values()} <= {len(queue)}
