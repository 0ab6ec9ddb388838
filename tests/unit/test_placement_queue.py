"""Who is looked at first, and who may be placed at all."""

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from sokovan.domain.cluster import Backfill, QueueOrder, ScalingGroup
from sokovan.domain.reasons import Wait, WaitReason
from sokovan.domain.resources import Capacity, Request
from sokovan.domain.sessions import Dependency, DependencyKind, SessionId
from sokovan.placement.admit import admission
from sokovan.placement.engine import place
from sokovan.placement.order import Shares, effective_rank
from sokovan.placement.queue import Queue
from tests.property.strategies import a_hold, a_session, a_snapshot, an_agent, need

VECTORS = Path("/work/shared/data/vectors/drf.json")
"""Worked examples of dominant resource fairness, where they are at hand."""
OVERTAKING = ScalingGroup(backfill=Backfill.NONE)


def turns(*sessions, order=QueueOrder.FIFO, **fields) -> list[str]:
    """Who is placed, in the order of placing; there is room for eight."""
    group = replace(OVERTAKING, order=order, **fields)
    return list(place(a_snapshot(*sessions, group=group, now=1e6)).placed)


# --- whose turn it is -----------------------------------------------------------------------------


def test_a_higher_priority_comes_first_then_the_earlier_submission():
    late_and_high = a_session("s1", number=9, priority=20)
    second, first = a_session("s2", number=2), a_session("s3", number=1)

    assert turns(second, late_and_high, first) == ["s1", "s3", "s2"]


def test_last_in_first_out_comes_after_priority():
    sessions = [a_session("s1", number=1), a_session("s2", number=2)]

    assert turns(*sessions, order=QueueOrder.LIFO) == ["s2", "s1"]
    high = a_session("s0", priority=20)
    assert turns(*sessions, high, order=QueueOrder.LIFO) == ["s0", "s2", "s1"]


@pytest.mark.parametrize("order", QueueOrder)
def test_equal_places_go_by_id(order):
    sessions = [a_session("s2", number=1), a_session("s1", number=1)]

    assert turns(*sessions, order=order) == ["s1", "s2"]


def test_waiting_raises_the_effective_priority_by_whole_steps():
    aged = a_session("aged", number=2, priority=9, created_at=3599.0)
    fresh = a_session("fresh", number=1, priority=10, created_at=7200.0)

    assert turns(aged, fresh, ageing_s=3600.0) == ["aged", "fresh"]
    assert turns(aged, fresh, ageing_s=0.0) == ["fresh", "aged"]
    assert turns(aged, replace(fresh, created_at=3601.0), ageing_s=3600.0) == ["fresh", "aged"]


def test_a_session_with_a_begin_time_ages_from_then_on():
    booked = a_session(priority=10, created_at=0.0, begin_at=7200.0)

    assert effective_rank(booked, 3600.0) == effective_rank(
        replace(booked, created_at=7200.0), 3600.0
    )
    assert effective_rank(replace(booked, created_at=10800.0), 3600.0) == 7
    assert effective_rank(booked, 0.0) == 10


# --- dominant resource fairness -------------------------------------------------------------------


def of(owner, count, request, first=0):
    return [a_session(f"{owner}{n}", request, owner=owner, number=first + n) for n in range(count)]


def test_the_owner_with_the_smallest_share_is_next_and_shares_count_within_the_pass():
    sessions = [*of("ann", 3, need("1")), *of("bob", 3, need("1"), first=10)]

    assert turns(*sessions, order=QueueOrder.DRF) == [
        "ann0",
        "bob0",
        "ann1",
        "bob1",
        "ann2",
        "bob2",
    ]


def test_what_an_owner_holds_already_counts():
    sessions = [*of("ann", 2, need("1")), *of("bob", 2, need("1"), first=10)]
    running = [a_session("r1", owner="ann")]

    plan = place(
        a_snapshot(
            *sessions,
            group=replace(OVERTAKING, order=QueueOrder.DRF),
            holds=[a_hold("a1", need("1.5"))],
            running=running,
        )
    )

    assert list(plan.placed) == ["bob0", "bob1", "ann0", "ann1"]


def test_priority_comes_before_shares():
    sessions = [
        *of("ann", 2, need("1")),
        *[replace(s, priority=20) for s in of("bob", 2, need("3"), first=10)],
    ]

    assert turns(*sessions, order=QueueOrder.DRF)[:2] == ["bob0", "bob1"]


def test_shares_are_of_the_agents_that_are_there():
    """What is held elsewhere, on agents that are gone, is no share of these."""
    sessions = [*of("ann", 1, need("1")), *of("bob", 1, need("1"), first=10)]

    plan = place(
        a_snapshot(
            *sessions,
            group=replace(OVERTAKING, order=QueueOrder.DRF),
            holds=[a_hold("elsewhere", need("4"))],
            running=[a_session("r1", owner="ann")],
        )
    )

    assert list(plan.placed) == ["ann0", "bob0"]


def vectors():
    return json.loads(VECTORS.read_text()) if VECTORS.exists() else []


@pytest.mark.skipif(not vectors(), reason=f"the worked examples are not there: {VECTORS}")
@pytest.mark.parametrize("case", vectors(), ids=lambda case: case["name"])
def test_published_examples_of_dominant_resource_fairness(case):
    """Cores and GB of the example; where it says who is served first in a tie, so it is here."""
    order = case["expected"].get("pick_order", [])
    first = order[:1] + [u["id"] for u in case["users"] if u["id"] not in order[:1]]
    asked = {u["id"]: Request(u["demand"]["cpu"] * 1000, u["demand"]["mem"]) for u in case["users"]}
    sessions = [
        s for n, owner in enumerate(first) for s in of(owner, 60, asked[owner], first=n * 100)
    ]
    capacity = Capacity(case["capacity"]["cpu"] * 1000, case["capacity"]["mem"])
    agent = replace(an_agent(), capacity=capacity)

    plan = place(
        a_snapshot(*sessions, agents=[agent], group=replace(OVERTAKING, order=QueueOrder.DRF))
    )

    owners = [session_id.rstrip("0123456789") for session_id in plan.placed]
    expected = case["expected"]
    assert {owner: owners.count(owner) for owner in asked} == expected["tasks"]
    assert not order or owners == order
    totals = {"cpu": capacity.cpu_milli, "mem": capacity.mem_bytes, "gpu": 0}
    shares, whole = Shares(totals), Shares(totals)
    whole.add("all", [Request(capacity.cpu_milli, capacity.mem_bytes)])
    for number, owner in enumerate(owners):
        shares.add(owner, [asked[owner]])
        for name, share in expected.get("trace", [{}] * 99)[number].items():
            if name != "pick":
                assert Fraction(shares.dominant(name), whole.dominant("all")) == Fraction(share)
    for owner, share in expected["dominant_share"].items():
        assert Fraction(shares.dominant(owner), whole.dominant("all")) == Fraction(share)


# --- who may be placed at all ---------------------------------------------------------------------


def test_a_session_that_nothing_holds_back_is_admitted():
    session = a_session(begin_at=100.0)

    assert admission(session, a_snapshot(session, now=100.0)) is None


def test_a_held_session_waits_for_its_user():
    session = a_session(held=True, begin_at=100.0)

    assert admission(session, a_snapshot(session)) == Wait(WaitReason.HELD)


def test_a_session_waits_for_its_begin_time():
    session = a_session(begin_at=100.0)

    wait = admission(session, a_snapshot(session, now=99.9))

    assert wait == Wait(WaitReason.BEGIN_TIME_NOT_REACHED, {"begin_at": 100.0})


def test_a_session_waits_for_those_it_depends_on():
    session = a_session(unmet=(Dependency(SessionId("other"), DependencyKind.AFTER_ANY),))

    wait = admission(session, a_snapshot(session))

    assert wait == Wait(
        WaitReason.WAITING_FOR_DEPENDENCY,
        {"unmet": [{"session_id": "other", "kind": "afterany"}]},
    )


def test_a_session_waits_until_the_kernels_of_its_last_attempt_are_gone():
    session = a_session("s1")
    left = a_hold("a7", session_id="s1", leftover_since=1.0)
    others = a_hold("a8", session_id="s2", leftover_since=1.0)

    wait = admission(
        session,
        a_snapshot(session, holds=(left, others), waiting_for_old=frozenset({session.session_id})),
    )

    assert wait == Wait(WaitReason.WAITING_FOR_OLD_KERNELS, {"agents": ["a7"]})


def test_old_kernels_bind_before_a_want_of_room():
    session = a_session("s1", need("64"))

    plan = place(a_snapshot(session, waiting_for_old=frozenset({session.session_id})))

    assert plan.waits["s1"].code is WaitReason.WAITING_FOR_OLD_KERNELS
    assert plan.never_fits == frozenset()


# --- whom a blocked session blocks ----------------------------------------------------------------

BIG, SMALL = a_session("big", need("8"), number=1), a_session("small", need("1"), number=2)
RUNNING = a_session("r1", walltime_s=100.0)


def behind(backfill, *sessions, **fields):
    group = ScalingGroup(backfill=backfill)
    return place(
        a_snapshot(BIG, *sessions, group=group, holds=[a_hold()], running=[RUNNING], **fields)
    )


def test_a_blocked_session_does_not_block_those_behind_it_without_backfill():
    plan = behind(Backfill.NONE, SMALL)

    assert list(plan.placed) == ["small"]
    assert list(plan.waits) == ["big"]


def test_nobody_overtakes_a_blocked_session_under_strict():
    plan = behind(Backfill.STRICT, SMALL)

    assert plan.placed == {}
    assert plan.waits["big"].code is WaitReason.TOO_LITTLE_CPU
    assert plan.waits["small"] == Wait(WaitReason.BEHIND_ANOTHER, {"session_id": "big", "name": ""})


@pytest.mark.parametrize("backfill", [Backfill.EASY, Backfill.CONSERVATIVE])
def test_who_would_delay_the_reservation_of_a_blocked_session_waits(backfill):
    plan = behind(backfill, SMALL)

    assert plan.placed == {}
    assert plan.waits["big"].code is WaitReason.TOO_LITTLE_CPU
    assert plan.waits["small"] == Wait(
        WaitReason.RESERVED_FOR_ANOTHER, {"session_id": "big", "name": "", "starts_at": 100.0}
    )


@pytest.mark.parametrize("backfill", [Backfill.EASY, Backfill.CONSERVATIVE])
def test_who_ends_before_a_reservation_begins_overtakes(backfill):
    short, long = (
        replace(SMALL, session_id=f"{walltime_s}", walltime_s=walltime_s)
        for walltime_s in (100.0, 101.0)
    )

    assert list(behind(backfill, short).placed) == ["100.0"]
    assert list(behind(backfill, long).placed) == []


def test_who_uses_what_is_not_reserved_overtakes():
    plan = behind(Backfill.EASY, SMALL, agents=[an_agent(), an_agent("a2", cpu="4")])

    assert plan.placed["small"][0].agent_id == "a2"


def test_a_session_that_never_fits_blocks_nobody():
    never = a_session("never", need("64"))

    for backfill in Backfill:
        plan = place(a_snapshot(never, SMALL, group=ScalingGroup(backfill=backfill)))
        assert list(plan.placed) == ["small"]


def test_the_default_is_easy():
    assert ScalingGroup().backfill is Backfill.EASY


# --- what is free ---------------------------------------------------------------------------------


def test_holds_of_an_agent_that_left_take_nothing_from_the_others():
    plan = place(a_snapshot(a_session("s1", need("8")), holds=(a_hold("a9"),)))

    assert "s1" in plan.placed


def test_an_agent_that_shrank_below_what_it_holds_has_nothing_free():
    snapshot = a_snapshot(agents=[an_agent(cpu="2")], holds=(a_hold("a1", need("3")),))

    assert snapshot.machines.room().cpu.tolist() == [0]


# --- the queue between passes ---------------------------------------------------------------------


def test_a_session_whose_time_comes_is_lined_up_and_is_news():
    queue = Queue(ScalingGroup())
    queue.put(a_session("s1", begin_at=100.0))
    queue.put(a_session("s2"), not_before=50.0)
    queue.news.clear()

    queue.open_gates(99.0)

    assert queue.news == {"s2"}
    assert (queue.lane_of("s1"), queue.until("s1")) == (None, 100.0)
    assert queue.lane_of("s2") is not None


def test_a_session_that_changed_forgets_when_its_time_was():
    queue = Queue(ScalingGroup())
    queue.put(a_session("s1"), not_before=50.0)
    queue.put(a_session("s1"), not_before=80.0)
    queue.put(a_session("s2"), not_before=50.0)
    queue.drop("s2")

    queue.open_gates(60.0)
    assert queue.lane_of("s1") is None

    queue.open_gates(80.0)
    assert queue.lane_of("s1") is not None
    assert list(queue) == ["s1"]


def test_equal_demands_share_a_lane_and_owners_only_where_it_matters():
    for order, lanes in ((QueueOrder.FIFO, 1), (QueueOrder.DRF, 2)):
        queue = Queue(ScalingGroup(order=order))
        for session in (*of("ann", 3, need("1")), *of("bob", 2, need("1"))):
            queue.put(session)
        assert len(list(queue.lanes())) == lanes
        for session_id in list(queue):
            queue.drop(session_id)
        assert list(queue.lanes()) == []
