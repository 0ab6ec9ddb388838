"""Where a session may go: constraints, named agents, preferences, other sessions."""

from dataclasses import replace

import pytest

from sokovan.domain.cluster import AgentRanking, Backfill, ScalingGroup
from sokovan.domain.errors import InvalidRequestError
from sokovan.domain.resources import Capacity, Device
from sokovan.domain.where import (
    ANYWHERE,
    ClusterMode,
    Comparison,
    Constraint,
    Where,
    contradiction,
    parse_constraint,
)
from sokovan.placement.engine import place
from sokovan.placement.filters import Filter, device_meets, meets
from tests.property.strategies import G, a_hold, a_session, a_snapshot, an_agent, machines_of, need

OVERTAKING = ScalingGroup(backfill=Backfill.NONE)


def where_of(*sessions, agents, **fields):
    """The agents of all kernels that are placed, by session."""
    plan = place(a_snapshot(*sessions, agents=agents, **{"group": OVERTAKING} | fields))
    return {i: [one.agent_id for one in assignment] for i, assignment in plan.placed.items()}


def goes_to(where, *agents, request=None, **fields):
    """The agent that a session of one kernel goes to, or `None`."""
    session = a_session("s1", request or need("1"), where=where)
    (on,) = where_of(session, agents=agents, **fields).get("s1", [None])
    return on


# --- constraints ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "constraint"),
    [
        ("rack=r1", Constraint("rack", Comparison.IS, ("r1",))),
        (" rack = r2 | r1 | r2 ", Constraint("rack", Comparison.IS, ("r1", "r2"))),
        ("gpu_model!=T4", Constraint("gpu_model", Comparison.IS_NOT, ("T4",))),
        ("mem_gpu>=40G", Constraint("mem_gpu", Comparison.AT_LEAST, ("40G",))),
        ("cpu<=8", Constraint("cpu", Comparison.AT_MOST, ("8",))),
    ],
)
def test_constraints_are_read(text, constraint):
    assert parse_constraint(text) == constraint
    assert parse_constraint(str(constraint)) == constraint


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("rack", "is not understood; write ATTRIBUTE=VALUE"),
        ("=r1", "is not understood"),
        ("9rack=r1", "is no attribute"),
        ("rack=", "has no proper value"),
        ("rack=r1|", "has no proper value"),
        ("cpu>=1|2", "compares with several numbers"),
        ("cpu>=many", "many"),
        ("mem=many", "many"),
        ("tier>=high", "high"),
    ],
)
def test_constraints_that_are_not_understood_say_what_is_wrong(text, says):
    with pytest.raises(InvalidRequestError) as refused:
        parse_constraint(text)

    assert says in str(refused.value)


def test_numbers_are_compared_in_their_units():
    assert parse_constraint("mem>=40G").number == 40 * G
    assert parse_constraint("cpu>=1.5").number == 1500


GPUS = Capacity(8000, 16 * G, (Device(0, "NVIDIA H100", 80 * G), Device(1, "Tesla T4", 16 * G)))
AGENT = replace(
    an_agent("a1"), architecture="x86_64", labels={"rack": "r1", "tier": "2"}, capacity=GPUS
)


@pytest.mark.parametrize(
    ("text", "is_met"),
    [
        ("rack=r1", True),
        ("rack=r2|r1", True),
        ("rack=R1", False),
        ("rack!=r1", False),
        ("rack!=r2|r3", True),
        ("tier>=2", True),
        ("tier>=2.5", False),
        ("tier<=2", True),
        ("rack>=1", False),
        ("zone=z1", False),
        ("zone!=z1", True),
        ("zone<=1", False),
        ("agent=A1", True),
        ("architecture=x86_64", True),
        ("cpu=8", True),
        ("cpu>=8.5", False),
        ("mem=16G", True),
        ("mem<=8G", False),
        ("gpus>=2", True),
        ("gpus=3", False),
        ("gpu_model=H100", True),
        ("gpu_model=nvidia h100", True),
        ("gpu_model=A100", False),
        ("gpu_model!=h100", True),
        ("mem_gpu>=80G", True),
        ("mem_gpu>=81G", False),
    ],
)
def test_an_agent_meets_a_constraint(text, is_met):
    assert meets(parse_constraint(text), AGENT) == is_met


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("gpu_model=H100", [0]),
        ("gpu_model=t4|A100", [1]),
        ("gpu_model!=H100", [1]),
        ("mem_gpu<=16G", [1]),
        ("mem_gpu=80G", [0]),
    ],
)
def test_only_devices_that_meet_a_constraint_are_given(text, allowed):
    constraint = parse_constraint(text)

    plan = place(
        a_snapshot(
            a_session("s1", need(gpu="1"), where=Where(constraints=(constraint,))), agents=[AGENT]
        )
    )

    assert [d.index for d in GPUS.devices if device_meets(constraint, d)] == allowed
    assert [index for index, _ in plan.placed["s1"][0].devices] == allowed


def test_what_agents_have_is_asked_once_until_they_change():
    machines = machines_of([AGENT, an_agent("a2")])
    where = Filter(constraints=(parse_constraint("rack=r1"),))

    first = machines.eligible(where)
    assert machines.eligible(where) is first
    machines.put_agent(replace(AGENT, last_seen_at=5.0))
    assert machines.eligible(where) is first
    machines.put_agent(replace(AGENT, labels={"rack": "r2"}))
    assert first.rows.tolist() == [True, False]
    assert machines.eligible(where).rows.tolist() == [False, False]


# --- what contradicts itself ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "says"),
    [
        (Where(agents=("a1", "a2"), exclude=("a2",)), "agents: 'a2' is both"),
        (
            Where(mode=ClusterMode.SINGLE_NODE, kernels_per_agent_max=2),
            "kernels_per_agent_max: single-node puts all",
        ),
        (Where(spread_with=("x",), pack_with=("x", "y")), "spread_with: 'x' is also"),
        (("rack=r1", "rack=r2"), "rack=r1 and rack=r2 cannot both be met"),
        (("rack=r1", "rack!=r1"), "cannot both be met"),
        (("cpu>=8", "cpu<=4"), "cannot both be met"),
        (("rack=r1|r2", "rack=r2|r3"), None),
        (("cpu>=4", "cpu<=4"), None),
        (("rack=r1", "zone!=r1"), None),
        (ANYWHERE, None),
    ],
)
def test_wishes_that_contradict_each_other_are_named(where, says):
    if isinstance(where, tuple):
        where = Where(constraints=tuple(map(parse_constraint, where)))

    found = contradiction(where)

    assert (found is None) == (says is None)
    assert says is None or says in found


# --- named agents ---------------------------------------------------------------------------------

ABC = [an_agent("a1"), an_agent("a2"), an_agent("a3")]


@pytest.mark.parametrize("name", ["a2", "A2"])
def test_agents_are_named_by_id_or_name(name):
    assert goes_to(Where(agents=(name,)), *ABC) == "a2"
    assert goes_to(Where(prefer=(name,)), *ABC) == "a2"
    assert goes_to(Where(exclude=("a1", name)), *ABC) == "a3"


def test_a_preferred_agent_is_taken_while_it_has_room_and_others_then():
    sessions = [
        a_session(f"s{n}", need("8"), number=n, where=Where(prefer=("a3",))) for n in range(3)
    ]

    assert where_of(*sessions, agents=ABC) == {"s0": ["a3"], "s1": ["a1"], "s2": ["a2"]}


def test_an_agent_that_failed_the_session_is_last_even_if_preferred():
    session = a_session("s1", where=Where(prefer=("a1",)), avoid=("a1",))

    assert where_of(session, agents=ABC) == {"s1": ["a2"]}
    assert where_of(session, agents=ABC[:1]) == {"s1": ["a1"]}


# --- other sessions -------------------------------------------------------------------------------


def test_a_session_goes_where_another_is():
    running = [a_session("r1", name="db")]

    for name in ("db", "r1"):
        on = goes_to(Where(pack_with=(name,)), *ABC, holds=[a_hold("a2")], running=running,
                     group=replace(OVERTAKING, ranking=AgentRanking.DISPERSED))  # fmt: skip
        assert on == "a2"


def test_a_session_keeps_away_from_another_while_it_can():
    held = {"holds": [a_hold("a1", need("7"))], "running": [a_session("r1", name="db")]}
    apart = Where(spread_with=("db",))

    assert goes_to(ANYWHERE, *ABC, **held) == "a1"
    assert goes_to(apart, *ABC, **held) == "a2"
    assert goes_to(apart, *ABC[:1], **held) == "a1"


@pytest.mark.parametrize("holds", [(), (a_hold("a3", need("0.5")),)])
def test_sessions_placed_by_the_same_pass_count(holds):
    """Also when nothing was held before, and when nobody asked before they were placed."""
    first = a_session("s0", name="db", where=Where(agents=("a2",)))
    apart = a_session("s1", number=1, where=Where(spread_with=("db",), exclude=("a3",)))
    close = a_session("s2", number=2, where=Where(pack_with=("s0",)))

    found = where_of(first, apart, close, agents=ABC, holds=holds)

    assert found == {"s0": ["a2"], "s1": ["a1"], "s2": ["a2"]}


def test_a_session_that_waits_or_is_unknown_has_no_say():
    close = a_session("s1", where=Where(pack_with=("s0", "nobody"), spread_with=("other",)))

    assert where_of(a_session("s0", need("64")), close, agents=ABC) == {"s1": ["a1"]}
