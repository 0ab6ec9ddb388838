"""Which of the agents that fit is taken."""

from dataclasses import replace

import pytest

from sokovan.domain.cluster import AgentRanking, Backfill, QueueOrder, ScalingGroup
from sokovan.domain.resources import Request
from sokovan.domain.sessions import AgentId
from sokovan.placement.engine import place
from sokovan.placement.rank import RANKINGS
from tests.property.strategies import G, a_hold, a_session, a_snapshot, an_agent, need


def where(
    *sessions, agents, holds=(), ranking=AgentRanking.CONCENTRATED, last=None, **policy
) -> list[str]:
    """The agents of all kernels, in the order of placing."""
    group = ScalingGroup(ranking=ranking, last_agent_id=last, **policy)
    plan = place(a_snapshot(*sessions, agents=agents, holds=holds, group=group))
    return [one.agent_id for assignment in plan.placed.values() for one in assignment]


def queue(count: int, request=None):
    return [a_session(f"s{n}", request or need("1"), number=n) for n in range(count)]


TWO = (an_agent("a1", cpu="4"), an_agent("a2", cpu="4"))


def test_concentrated_fills_one_agent_before_the_next():
    assert where(*queue(3), agents=TWO, holds=[a_hold("a2", need("2"))]) == ["a2", "a2", "a1"]


def test_concentrated_keeps_agents_with_free_gpus_free():
    agents = (an_agent("a1", cpu="2", gpus=[G]), an_agent("a2", cpu="64"))

    assert where(*queue(1), agents=agents) == ["a2"]


def test_dispersed_spreads():
    assert where(
        *queue(3), agents=TWO, holds=[a_hold("a2", need("1"))], ranking=AgentRanking.DISPERSED
    ) == ["a1", "a1", "a2"]


def test_dispersed_spreads_gpus_when_they_are_asked_for():
    agents = (an_agent("a1", cpu="64", gpus=[G]), an_agent("a2", cpu="2", gpus=[G, G]))

    assert where(*queue(1, need("1", gpu="1")), agents=agents, ranking=AgentRanking.DISPERSED) == [
        "a2"
    ]


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        (None, ["a1", "a2", "a3", "a1"]),
        ("a2", ["a3", "a1", "a2", "a3"]),
        ("a2x", ["a3", "a1", "a2", "a3"]),
        ("z", ["a1", "a2", "a3", "a1"]),
    ],
)
def test_round_robin_goes_on_after_the_agent_taken_last(last, expected):
    agents = [an_agent(f"a{n}") for n in (3, 1, 2)]

    assert where(*queue(4), agents=agents, ranking=AgentRanking.ROUND_ROBIN, last=last) == expected


def test_round_robin_spreads_the_kernels_of_one_session():
    session = a_session("s1", *[need("1")] * 3)

    assert where(session, agents=TWO, ranking=AgentRanking.ROUND_ROBIN) == ["a1", "a2", "a1"]


def test_a_session_that_is_not_placed_does_not_move_round_robin_on():
    too_large = a_session("s0", need("3"), need("3"), priority=20)
    full = [a_hold("a2", need("4"))]

    found = where(
        too_large,
        *queue(1),
        agents=TWO,
        holds=full,
        ranking=AgentRanking.ROUND_ROBIN,
        backfill=Backfill.NONE,
    )

    assert found == ["a1"]


@pytest.mark.parametrize("ranking", sorted(RANKINGS))
def test_equal_agents_are_taken_by_id(ranking):
    assert where(*queue(1), agents=reversed(TWO), ranking=ranking) == ["a1"]


@pytest.mark.parametrize("ranking", sorted(RANKINGS))
def test_agents_that_failed_the_session_are_taken_only_when_nothing_else_fits(ranking):
    wary = [
        a_session(f"s{n}", need("4"), number=n, avoid=(AgentId("a1"),), priority=n) for n in (2, 1)
    ]

    assert where(*wary, agents=TWO, ranking=ranking) == ["a2", "a1"]


@pytest.mark.parametrize("ranking", [AgentRanking.CONCENTRATED, AgentRanking.DISPERSED])
def test_memory_ranks_by_whole_gibibytes(ranking):
    """What is smaller than that is no reason to leave the order of ids."""
    agents = [an_agent("a1", mem=4 * G + 7), an_agent("a2", mem=4 * G), an_agent("a3", mem=5 * G)]
    dispersed = ranking is AgentRanking.DISPERSED

    assert where(*queue(1), agents=agents[:2], ranking=ranking) == ["a1"]
    assert where(*queue(1), agents=agents, ranking=ranking) == ["a3" if dispersed else "a1"]
    assert where(*queue(1), agents=agents[2:] + agents[:1], ranking=ranking) == [
        "a3" if dispersed else "a1"
    ]


@pytest.mark.parametrize("ranking", sorted(RANKINGS))
@pytest.mark.parametrize("gpus", [(), (G,)])
def test_an_agent_that_claims_the_impossible_stops_nobody(ranking, gpus):
    most = 2**63 - 1
    boasters = [
        replace(agent, capacity=replace(agent.capacity, cpu_milli=most, mem_bytes=most))
        for agent in (an_agent("a1", gpus=gpus), an_agent("a2", gpus=gpus))
    ]
    sessions = [*queue(2, need("1", G)), a_session("huge", Request(most, most), number=9)]

    for order in QueueOrder:
        plan = place(
            a_snapshot(*sessions, agents=boasters, group=ScalingGroup(ranking=ranking, order=order))
        )
        assert sorted(plan.placed) == ["s0", "s1"]
        assert plan.never_fits == {"huge"}
