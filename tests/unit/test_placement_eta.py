"""When a session should start: reserved, estimated, or not known, and why."""

from dataclasses import replace

import pytest

from sokovan.domain.cluster import Backfill, ScalingGroup
from sokovan.placement import eta as etas
from sokovan.placement.eta import eta
from sokovan.placement.explain import explain
from sokovan.placement.snapshot import snapshot_of
from sokovan.scheduler.ports import SchedulingData
from tests.build import A1, NOW, an_agent
from tests.unit.test_placement_suggest import a_world, asking, holding, running

G = ScalingGroup


def a_busy_world(*pending, backfill=Backfill.EASY, **fields):
    """One agent of four cores, all held for 600 s more."""
    given = {"holds": (holding(cpu=4000),), "running": (running(),)} | fields
    return snapshot_of(
        SchedulingData(
            group=G(backfill=backfill), agents=(an_agent(),), pending=pending, now=NOW, **given
        )
    )


def test_the_first_that_finds_no_room_has_it_reserved():
    snapshot = a_busy_world(asking(cpu=4000, walltime_s=100.0))

    told = eta(snapshot, "me")

    assert (told["starts_at"], told["ends_at"], told["reserved"]) == (NOW + 600, NOW + 700, True)
    assert told["agents"] == [{"agent_id": A1, "agent": A1, "devices": []}]
    assert told["sentence"] == (
        "is to start in 10m00s: what it needs is reserved for it then, and may be earlier"
    )
    explained = explain(snapshot, "me")
    assert explained["reservation"] == {k: told[k] for k in ("starts_at", "ends_at", "agents")}
    assert explained["reservation_because"] == "it is the first in the queue that finds no room"


def test_for_others_it_is_estimated():
    snapshot = a_busy_world(
        asking("first", cpu=4000, walltime_s=100.0, number=1), asking(cpu=2000, number=2)
    )

    told = eta(snapshot, "me")

    assert (told["starts_at"], told["reserved"]) == (NOW + 700, False)
    assert told["sentence"] == (
        "in about 11m40s, if nothing else comes in and all run to the end of their walltime:"
        " an estimate, nothing is reserved for it"
    )
    explained = explain(snapshot, "me")
    assert explained["reservation"] is None
    assert explained["reservation_because"] == (
        "only the first in the queue that finds no room has one in this group"
    )


def test_each_has_its_reservation_where_all_have_one():
    snapshot = a_busy_world(
        asking("first", cpu=4000, walltime_s=100.0, number=1),
        asking(cpu=2000, number=2),
        backfill=Backfill.CONSERVATIVE,
    )

    told = eta(snapshot, "me")

    assert (told["starts_at"], told["reserved"]) == (NOW + 700, True)
    assert explain(snapshot, "me")["reservation_because"] == (
        "every session that finds no room has one"
    )


@pytest.mark.parametrize(
    ("backfill", "starts_in_s", "because"),
    [
        (
            Backfill.STRICT,
            1700,
            "nothing need be reserved in this group: nobody overtakes",
        ),
        (
            Backfill.NONE,
            1700,
            "nothing is reserved in this group: whoever fits starts",
        ),
    ],
)
def test_it_is_estimated_where_nothing_is_reserved(backfill, starts_in_s, because):
    snapshot = a_busy_world(
        asking("first", cpu=4000, walltime_s=100.0, number=1),
        asking("second", cpu=4000, walltime_s=1000.0, number=2),
        asking(cpu=2000, number=3),
        backfill=backfill,
    )

    told = eta(snapshot, "me")

    assert told["starts_at"] == NOW + starts_in_s
    assert not told["reserved"]
    assert explain(snapshot, "me")["reservation_because"] == because


def test_nobody_overtakes_in_an_estimate_either():
    """Without the order, it would find two cores as soon as the first session has ended."""
    snapshot = a_busy_world(
        asking("first", cpu=4000, walltime_s=100.0, number=1),
        asking(cpu=1000, number=2),
        holds=[holding(cpu=2000)],
        backfill=Backfill.STRICT,
    )

    assert eta(snapshot, "me")["starts_at"] == NOW + 700
    behind = explain(snapshot, "me")
    assert behind["code"] == "BEHIND_ANOTHER"
    assert not behind["examined"]
    assert behind["not_examined_because"] == (
        "the pass ended at first, which is ahead of it and finds no room"
    )


@pytest.mark.parametrize(
    ("session", "why"),
    [
        (asking(held=True), "it is held back; release it and it takes its place in the queue"),
        (asking(cpu=9000), "it can never start here"),
        (asking("else"), "it has not been looked at yet"),
    ],
)
def test_it_is_said_why_no_start_is_known(session, why):
    told = eta(a_busy_world(session), "me")

    assert told["starts_at"] is None
    assert told["sentence"].startswith(f"not known: {why}")


def test_a_begin_time_is_a_bound():
    told = eta(a_busy_world(asking(begin_at=NOW + 60)), "me")

    assert (told["starts_at"], told["not_before"]) == (None, NOW + 60)


def test_one_that_there_is_room_for_is_about_to_start():
    told = eta(a_world(asking()), "me")

    assert told["starts_at"] == NOW
    assert told["sentence"] == "is about to start"


def test_nobody_knows_when_what_nobody_holds_is_free():
    """Its agent is drained, so that no end of any session helps."""
    agents = (an_agent(drained_since=NOW),)
    snapshot = a_busy_world(asking(), holds=(), running=())
    drained = snapshot_of(
        SchedulingData(group=snapshot.group, agents=agents, pending=(asking(),), now=NOW)
    )

    assert eta(drained, "me")["sentence"] == (
        "not known: what it waits for is released by no session that runs"
    )
    assert explain(drained, "me")["reservation_because"] == (
        "it waits for something that no running session will release"
    )


def test_behind_one_that_may_never_start_nothing_is_known():
    pending = asking("first", cpu=4000, number=1), asking(number=2)
    data = SchedulingData(
        group=G(backfill=Backfill.STRICT),
        agents=(
            an_agent(capacity=replace(an_agent().capacity, cpu_milli=1000)),
            an_agent("a2", drained_since=NOW),
        ),
        pending=pending,
        now=NOW,
    )

    assert eta(snapshot_of(data), "me")["sentence"] == (
        "not known: first, which is ahead of it, may never start"
    )


def test_far_behind_nothing_is_estimated(monkeypatch):
    monkeypatch.setattr(etas, "AHEAD_MAX", 2)
    ahead = [asking(f"s{n}", cpu=4000, number=n, walltime_s=10.0) for n in range(3)]

    told = eta(a_busy_world(*ahead, asking(cpu=4000, number=3)), "me")

    assert told["sentence"] == "not known: more than 2 sessions that wait are ahead of it"


def test_agents_are_told_by_kind_the_most_numerous_first():
    agents = [
        *[an_agent(f"a{n}") for n in range(3)],
        an_agent("b1", capacity=replace(an_agent().capacity, devices=())),
        an_agent("b2", capacity=replace(an_agent().capacity, devices=()), drained_since=NOW),
    ]
    holds = [holding(cpu=n * 1000, agent_id=f"a{n}", session_id=f"r{n}") for n in range(1, 3)]
    snapshot = a_world(asking(cpu=4000, gpu=1000), agents=agents, holds=holds)
    snapshot.machines.put_hold(holding(cpu=3000, agent_id="a0", session_id="r0"))

    told = explain(snapshot, "me")

    with_gpus, without = told["kinds"]
    assert (with_gpus["agents"], with_gpus["refused_by"]) == (3, {"TOO_LITTLE_CPU": 3})
    assert with_gpus["devices"] == [{"model": "gpu", "mem_bytes": 8 * 2**30, "count": 2}]
    assert with_gpus["closest"]["agent_id"] == "a1"
    assert with_gpus["closest"]["lacks"][0]["free"] == 3000
    assert (without["agents"], without["refused_by"]) == (
        2,
        {"AGENT_DRAINED": 1, "TOO_FEW_GPUS": 1},
    )
    assert told["kinds_total"] == 2


def test_agents_with_room_refuse_who_would_delay_another():
    snapshot = a_busy_world(
        asking("first", cpu=4000, number=1), asking(cpu=1000, number=2), holds=[holding(cpu=2000)]
    )

    told = explain(snapshot, "me")

    assert told["code"] == "RESERVED_FOR_ANOTHER"
    assert [kind["refused_by"] for kind in told["kinds"]] == [{"RESERVED_FOR_ANOTHER": 1}]


def test_the_first_of_those_ahead_are_named_with_the_rule():
    snapshot = a_busy_world(
        asking("early", cpu=4000, number=1),
        asking("high", cpu=4000, number=2, priority=20),
        asking("old", cpu=4000, number=0),
        asking(cpu=4000, number=3),
        waiting_for_old=frozenset({"old"}),
    )

    told = explain(snapshot, "me")

    assert told["position"] == 3
    assert [(one["session_id"], one["by"]) for one in told["ahead_first"]] == [
        ("high", "by_higher_priority"),
        ("early", "by_earlier_submission"),
    ]


def test_a_request_of_nothing_still_counts_as_a_kernel():
    snapshot = a_world(
        asking(cpu=0, mem=0, number=1),
        agents=[an_agent()],
        holds=[holding()],
        group=G(agent_kernels_max=1, backfill=Backfill.NONE),
    )

    told = explain(snapshot, "me")

    assert told["code"] == "TOO_MANY_KERNELS"
    assert told["kinds"][0]["closest"]["lacks"][0]["slot"] == "kernels"


@pytest.mark.parametrize("backfill", list(Backfill))
def test_the_next_turns_are_those_that_each_session_is_told_by_itself(backfill):
    snapshot = a_busy_world(
        asking("first", cpu=4000, walltime_s=100.0, number=1),
        asking("never", cpu=9000, number=2),
        asking("second", cpu=3000, walltime_s=50.0, number=3),
        asking("held", number=4, held=True),
        asking("third", cpu=1000, walltime_s=10.0, number=5),
        asking("fourth", number=6),
        backfill=backfill,
    )

    told = etas.turns(snapshot, 5)

    assert [(turn.session.session_id, turn.position) for turn in told] == [
        ("first", 1),
        ("never", 2),
        ("second", 3),
        ("third", 4),
        ("fourth", 5),
    ]
    for turn in told:
        alone = eta(snapshot, turn.session.session_id)
        assert (turn.starts_at, turn.reserved) == (alone["starts_at"], alone["reserved"])
        place = explain(snapshot, turn.session.session_id)
        assert place["position"] == turn.position
    assert [turn.session.session_id for turn in etas.turns(snapshot, 9)][5:] == ["held"]
