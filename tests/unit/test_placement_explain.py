"""What `sokovan why` is told of a session that waits."""

from dataclasses import replace

from sokovan.domain.cluster import AgentStatus, Backfill, QueueOrder, ScalingGroup
from sokovan.placement.explain import explain
from tests.property.strategies import G, a_hold, a_session, a_snapshot, an_agent, need


def test_who_is_ahead_is_counted_by_rule():
    snapshot = a_snapshot(
        a_session("mine", number=5),
        a_session("earlier", number=1),
        a_session("higher", number=9, priority=50),
        a_session("later", number=6),
        a_session("held", number=2, held=True),
        agents=[],
    )

    told = explain(snapshot, "mine")

    assert told["position"] == 3
    assert told["ahead"] == {"total": 2, "by_higher_priority": 1, "by_earlier_submission": 1}
    assert told["queue_length"] == 4


def test_a_session_that_may_not_be_placed_has_no_position():
    told = explain(a_snapshot(a_session("s1", held=True)), "s1")

    assert told["code"] == "HELD"
    assert told["position"] is None
    assert told["ahead"] is None
    assert told["agents"] == []
    assert told["holders"] == []


def test_a_session_that_is_held_and_waits_for_old_kernels_is_left_out_once():
    pending = [a_session("s1", held=True), a_session("s2"), a_session("s3", number=1)]

    told = explain(a_snapshot(*pending, agents=[], waiting_for_old=frozenset({"s1"})), "s3")

    assert (told["position"], told["queue_length"]) == (2, 2)


def test_who_is_ahead_under_other_orders():
    pending = [
        a_session("s1", owner="ann"),
        a_session("s2", number=1, owner="ann"),
        a_session("s3", number=2, owner="bob"),
    ]
    held = {"holds": [a_hold("a1", need("8"))], "running": [a_session("r1", owner="ann")]}

    def ahead(order, session_id):
        group = ScalingGroup(order=order, backfill=Backfill.NONE)
        return explain(a_snapshot(*pending, group=group, **held), session_id)["ahead"]

    assert ahead(QueueOrder.LIFO, "s1") == {
        "total": 2,
        "by_higher_priority": 0,
        "by_later_submission": 2,
    }
    assert ahead(QueueOrder.DRF, "s1") == {
        "total": 1,
        "by_higher_priority": 0,
        "by_smaller_share": 1,
    }


def test_agents_are_listed_the_closest_first_with_all_that_they_lack():
    agents = [
        an_agent("a1", cpu="2"),
        an_agent("a2", status=AgentStatus.LOST),
        an_agent("a3", mem=4 * G),
        an_agent("a4"),
    ]
    holds = [a_hold("a3", need("5", 3 * G)), a_hold("a4", need("5"))]

    told = explain(a_snapshot(a_session("s1", need("4", 2 * G)), agents=agents, holds=holds), "s1")

    assert [(one["agent_id"], one["code"]) for one in told["agents"]] == [
        ("a4", "TOO_LITTLE_CPU"),
        ("a3", "TOO_LITTLE_MEM"),
        ("a2", "AGENT_NOT_ALIVE"),
        ("a1", "TOO_LITTLE_CPU"),
    ]
    assert told["agents"][1] == {
        "agent_id": "a3",
        "agent": "A3",
        "status": "ALIVE",
        "drained": False,
        "code": "TOO_LITTLE_MEM",
        "lacks": [
            {
                "code": "TOO_LITTLE_CPU",
                "slot": "cpu",
                "requested": 4000,
                "free": 3000,
                "total": 8000,
            },
            {
                "code": "TOO_LITTLE_MEM",
                "slot": "mem",
                "requested": 2 * G,
                "free": G,
                "total": 4 * G,
            },
        ],
    }
    assert told["refused_by"] == {"AGENT_NOT_ALIVE": 1, "TOO_LITTLE_CPU": 2, "TOO_LITTLE_MEM": 1}


def test_many_agents_are_counted_and_some_are_listed():
    agents = [an_agent(f"a{n}") for n in range(10, 40)]
    holds = [a_hold(agent.agent_id, need("8")) for agent in agents]

    told = explain(a_snapshot(a_session("s1"), agents=agents, holds=holds), "s1")

    assert len(told["agents"]) == 20
    assert told["agents_total"] == 30
    assert told["refused_by"] == {"TOO_LITTLE_CPU": 30}


def test_those_who_hold_what_it_waits_for_are_named():
    agents = [an_agent("a1", gpus=[G, G])]
    holds = [
        a_hold("a1", need("1"), ((0, 1000),), session_id="r1"),
        a_hold("a1", need("1"), ((1, 500),), session_id="r1"),
        a_hold("a1", need("1"), session_id="no-gpu"),
        a_hold("a1", need(), ((1, 100),), session_id="moved-on", leftover_since=1.0),
    ]

    snapshot = a_snapshot(
        a_session("s1", need("1", gpu="1")),
        agents=agents,
        holds=holds,
        running=[a_session("r1", walltime_s=50.0, status_since=2.0)],
    )
    told = explain(snapshot, "s1")

    r1 = {
        "session_id": "r1",
        "agent_id": "a1",
        "agent": "A1",
        "leftover": False,
        "until": 52.0,
        "cpu_milli": 2000,
        "mem_bytes": 0,
        "gpu_shares": 1500,
    }
    left = {"session_id": "moved-on", "leftover": True, "until": 301.0}
    left |= {"cpu_milli": 0, "gpu_shares": 100}
    assert told["holders"] == [r1 | left, r1]
    assert told["holders_total"] == 2


def test_a_session_that_the_pass_places_first_is_a_holder():
    pending = [a_session("s1", need("6")), a_session("s2", need("6"), number=1)]

    told = explain(a_snapshot(*pending), "s2")

    assert [one["session_id"] for one in told["holders"]] == ["s1"]
    assert told["sentence"] == (
        "waits for 6 cores: the agent with the most free, A1, has 2 of 8 free"
    )


def test_a_session_that_there_is_room_for_has_not_been_looked_at_yet():
    told = explain(a_snapshot(a_session("s1")), "s1")

    assert told["code"] == "NOT_EXAMINED_YET"
    assert told["sentence"] == "has not been looked at yet; there is room for it on A1"


def test_a_session_that_the_snapshot_does_not_have_has_not_been_looked_at_yet():
    told = explain(a_snapshot(), "s1")

    assert told["sentence"] == "has not been looked at yet"
    assert told["position"] is None


def test_a_session_that_makes_no_sense_is_explained():
    told = explain(a_snapshot(replace(a_session("s1"), kernels=())), "s1")

    assert told["sentence"] == "can never start: it has no kernels"
    assert told["agents"] == []


def test_times_are_told_from_now():
    told = explain(a_snapshot(a_session("s1", begin_at=100.0), now=10.0), "s1")

    assert told["sentence"] == "waits for its begin time, in 1m30s"


def test_drained_agents_are_counted_by_what_was_said_of_them():
    agents = [
        an_agent("a1", drained_since=1.0, drain_reason="new disk"),
        an_agent("a2", cpu="2", drained_since=1.0),
        an_agent("a3", status=AgentStatus.LOST, drained_since=1.0, drain_reason="new disk"),
        an_agent("a4", cpu="4"),
        an_agent("a5", status=AgentStatus.GONE, drained_since=1.0, drain_reason="new disk"),
    ]

    told = explain(
        a_snapshot(
            a_session("s1", need("4")), agents=agents, holds=[a_hold("a4"), a_hold("a1", need("6"))]
        ),
        "s1",
    )

    assert told["code"] == "TOO_LITTLE_CPU"
    assert told["drained_for"] == {"": 1, "new disk": 2}
    assert [(one["agent_id"], one["code"], one["drained"]) for one in told["agents"]] == [
        ("a4", "TOO_LITTLE_CPU", False),
        ("a3", "AGENT_NOT_ALIVE", True),
        ("a1", "AGENT_DRAINED", True),
        ("a2", "AGENT_DRAINED", True),
    ]
    assert [one["agent"] for one in told["holders"]] == ["A4"]
