"""The one reason that a waiting session is given, and the sentence that people read."""

from dataclasses import replace

import pytest

from sokovan.domain.cluster import AgentStatus, Backfill, ScalingGroup
from sokovan.domain.reasons import Wait, WaitReason
from sokovan.domain.resources import Request
from sokovan.domain.where import ANYWHERE, ClusterMode, Where, parse_constraint
from sokovan.placement import binding
from sokovan.placement.engine import place
from sokovan.placement.explain import sentence
from sokovan.placement.needs import Demand, malformed
from tests.property.strategies import (
    G,
    a_hold,
    a_session,
    a_snapshot,
    an_agent,
    machines_of,
    need,
)

LOST, GONE = AgentStatus.LOST, AgentStatus.GONE
OVERTAKING = ScalingGroup(backfill=Backfill.NONE)


def why(*requests: Request, agents=None, holds=(), where=ANYWHERE, group=OVERTAKING) -> Wait:
    """Why a session waits that asks for `requests`."""
    session = a_session("s1", *requests, where=where)
    return place(a_snapshot(session, agents=agents, holds=holds, group=group)).waits["s1"]


def never_fits(requests, agents, where=ANYWHERE) -> Wait | None:
    return binding.never_fits(Demand(requests, where), machines_of(agents))


def test_the_agent_with_the_most_free_names_the_numbers():
    agents = [an_agent("a1"), an_agent("a2", cpu="16")]

    wait = why(need("4"), agents=agents, holds=[a_hold("a1", need("6")), a_hold("a2", need("15"))])

    assert wait == Wait(
        WaitReason.TOO_LITTLE_CPU,
        {
            "slot": "cpu",
            "requested": 4000,
            "best_free": 2000,
            "best_total": 8000,
            "best_agent": "A1",
            "best_has_most": True,
            "also": [],
            "total_largest": 16000,
            "refused_by": {"TOO_LITTLE_CPU": 2},
        },
    )
    assert sentence(wait) == "waits for 4 cores: the agent with the most free, A1, has 2 of 8 free"


def test_the_numbers_are_those_after_the_pass():
    big, small = a_session("big", need("8")), a_session("small", need("3"), number=1)

    plan = place(a_snapshot(big, small, holds=[a_hold()], group=OVERTAKING))

    assert plan.waits["big"].facts["best_free"] == 4000


def test_sessions_of_one_shape_share_one_answer():
    plan = place(a_snapshot(*[a_session(f"s{n}", need("5"), number=n) for n in range(3)]))

    assert list(plan.placed) == ["s0"]
    assert plan.waits["s1"] is plan.waits["s2"]


def test_an_agent_that_could_never_take_it_is_not_the_closest():
    agents = [an_agent("a1", cpu="64"), an_agent("a2", cpu="8", gpus=[G])]

    wait = why(need("4", gpu="1"), agents=agents, holds=[a_hold("a2", need("7"))])

    assert wait.code is WaitReason.TOO_LITTLE_CPU
    assert wait.facts["refused_by"] == {"TOO_FEW_GPUS": 1, "TOO_LITTLE_CPU": 1}
    assert sentence(wait) == "waits for 4 cores: the agent that comes closest, A2, has 1 of 8 free"


def test_what_else_is_short_on_the_closest_agent_is_said():
    wait = why(need("4", 10 * G), holds=[a_hold("a1", need("5", 7 * G))])

    assert sentence(wait) == (
        "waits for 4 cores: the agent with the most free, A1, has 3 of 8 free,"
        " and too little memory"
    )


def test_whole_gpus_are_counted():
    wait = why(
        need(gpu="2", gpu_mem=40 * G),
        agents=[an_agent(gpus=[80 * G, 80 * G, 16 * G])],
        holds=[a_hold("a1", need(), ((1, 1),))],
    )

    assert sentence(wait) == (
        "waits for 2 GPUs with at least 40G: the agent with the most free, A1, has 1 of 2 free"
    )


def test_a_part_of_a_gpu_is_one_device_s_part():
    wait = why(
        need(gpu="0.5"),
        agents=[an_agent(gpus=[G, G])],
        holds=[a_hold("a1", need(), ((0, 600), (1, 750)))],
    )

    assert sentence(wait) == (
        "waits for 0.5 of a GPU: the agent with the most free, A1, has at most 0.4 of one free"
    )


def test_amounts_that_look_alike_when_rounded_are_written_in_full():
    wait = why(
        need(mem=2 * G), agents=[an_agent(mem=4 * G)], holds=[a_hold("a1", need(mem=2 * G + 1))]
    )

    assert sentence(wait) == (
        "waits for 2147483648 bytes of memory: the agent with the most free, A1,"
        " has 2147483647 bytes of 4294967296 bytes free"
    )


def test_one_core_is_one():
    wait = why(need("1"), holds=[a_hold("a1", need("7.5"))])

    assert sentence(wait) == "waits for 1 core: the agent with the most free, A1, has 0.5 of 8 free"


@pytest.mark.parametrize("agents", [[], [an_agent(status=GONE)]])
def test_a_group_without_agents(agents):
    wait = why(need("1"), agents=agents)

    assert wait == Wait(WaitReason.NO_AGENTS)
    assert sentence(wait) == "waits for an agent: its scaling group has none"
    assert never_fits([need("1")], agents) is None


def test_only_a_lost_agent_could_take_it():
    agents = [an_agent("a1", cpu="2"), an_agent("a2", status=LOST), an_agent("a3", status=LOST)]

    wait = why(need("4"), agents=agents)

    assert wait.code is WaitReason.AGENT_NOT_ALIVE
    assert wait.facts == {
        "agents": ["A2", "A3"],
        "lost": 2,
        "refused_by": {"AGENT_NOT_ALIVE": 2, "TOO_LITTLE_CPU": 1},
    }
    assert sentence(wait) == "waits for an agent that is lost: only A2, A3 could take it"


def test_many_lost_agents_are_counted():
    wait = why(need("4"), agents=[an_agent(f"a{n}", status=LOST) for n in range(10, 35)])

    assert sentence(wait).endswith("A29 and 5 more could take it")


def drained(agent_id, reason="", **fields):
    return an_agent(agent_id, drained_since=1.0, drain_reason=reason, **fields)


def test_only_a_drained_agent_could_take_it():
    wait = why(need("4"), agents=[an_agent("a1", cpu="2"), drained("a2", "new disk")])

    assert wait == Wait(
        WaitReason.AGENT_DRAINED,
        {
            "agents": ["A2"],
            "reasons": {"A2": "new disk"},
            "drained": 1,
            "lost": 0,
            "refused_by": {"AGENT_DRAINED": 1, "TOO_LITTLE_CPU": 1},
        },
    )
    assert sentence(wait) == (
        "waits for an agent that is drained: only A2 (new disk) could take it"
    )


def test_a_drained_agent_gets_nothing_however_much_it_has():
    agents = [an_agent("a1"), drained("a2", cpu="64")]

    plan = place(a_snapshot(*[a_session(f"s{n}", need("4"), number=n) for n in range(3)],
                            agents=agents))  # fmt: skip

    assert {one.agent_id for places in plan.placed.values() for one in places} == {"a1"}
    assert list(plan.placed) == ["s0", "s1"]
    assert plan.waits["s2"].code is WaitReason.TOO_LITTLE_CPU
    assert sentence(plan.waits["s2"]) == (
        "waits for 4 cores: the agent with the most free, A1, has 0 of 8 free"
    )


def test_a_drained_agent_that_is_lost_too_is_lost():
    wait = why(need("4"), agents=[drained("a1", status=LOST)])

    assert wait.code is WaitReason.AGENT_NOT_ALIVE


def test_of_lost_and_drained_agents_the_drained_ones_are_named():
    lost = [an_agent("a1", status=LOST), drained("a2", status=LOST)]

    wait = why(need("4"), agents=[*lost, drained("a3")])

    assert wait.code is WaitReason.AGENT_DRAINED
    assert sentence(wait) == (
        "waits for an agent that is drained: only A3 could take it, or one of 2 that are lost"
    )


def test_many_drained_agents_are_counted():
    wait = why(need("4"), agents=[drained(f"a{n}") for n in range(10, 35)])

    assert sentence(wait).endswith("A29 and 5 more could take it")


def test_what_fits_on_a_drained_agent_may_start_one_day():
    agents = [an_agent("a1", cpu="2"), drained("a2")]

    plan = place(a_snapshot(a_session("s1", need("8")), a_session("s2", need("9")), agents=agents))

    assert plan.never_fits == {"s2"}
    assert never_fits([need("8")], agents) is None
    assert never_fits([need("8"), need("2")], agents) is None


def test_what_needs_a_drained_agent_for_one_of_its_kernels_says_so():
    wait = why(need("8"), need("8"), agents=[an_agent("a1"), drained("a2", "new disk")])

    assert wait.code is WaitReason.NOT_ALL_KERNELS_FIT
    assert sentence(wait) == (
        "waits for room for all its 2 kernels at once: 1 would fit, the next waits for an agent"
        " that is drained: only A2 (new disk) could take it"
    )


def test_kernels_that_can_run_at_once_without_it_do_not_wait_for_a_drained_agent():
    wait = why(
        need("8"),
        need("8"),
        agents=[an_agent("a1"), an_agent("a2"), drained("a3")],
        holds=[a_hold("a2")],
    )

    assert wait.facts["next"]["code"] == "TOO_LITTLE_CPU"


def test_a_lost_agent_that_all_kernels_need_at_once_is_said_to_be_lost():
    wait = why(
        need("6"),
        need("2", gpu="1"),
        agents=[an_agent("a1"), an_agent("a2", gpus=[G], status=LOST)],
        holds=[a_hold("a1", need("7"))],
    )

    assert wait.code is WaitReason.AGENT_NOT_ALIVE
    assert wait.facts["agents"] == ["A2"]


# --- never ----------------------------------------------------------------------------------------


def test_it_asks_for_more_than_any_agent_has():
    wait = why(need("64"), agents=[an_agent("a1"), an_agent("a2", cpu="16")], holds=[a_hold()])

    assert wait == Wait(
        WaitReason.NEVER_FITS,
        {
            "slot": "cpu",
            "requested": 64000,
            "largest": 16000,
            "largest_agent": "A2",
            "best_total": 16000,
            "best_agent": "A2",
            "agents": 2,
            "refused_by": {"TOO_LITTLE_CPU": 2},
        },
    )
    assert sentence(wait) == (
        "can never start here: it asks for 64 cores, and the agent with the most, A2, has 16"
    )


def test_no_single_agent_has_everything():
    agents = [an_agent("a1", cpu="64"), an_agent("a2", cpu="2", gpus=[G])]

    wait = why(need("48", gpu="1"), agents=agents)

    assert sentence(wait) == (
        "can never start here: no agent has all that it asks for;"
        " it needs 48 cores, and the agent that comes closest, A2, has 2"
    )


def test_a_slot_that_no_agent_has_enough_of_is_named_before_a_mixture():
    agents = [an_agent("a1", mem=31 * G), an_agent("a2", cpu="1", mem=G, gpus=[G])]

    wait = why(need("8", 32 * G, "1"), agents=agents)

    assert sentence(wait) == (
        "can never start here: it asks for 32G of memory, and the agent with the most, A1, has 31G"
    )


def test_no_device_has_the_memory():
    wait = why(need(gpu="2", gpu_mem=40 * G), agents=[an_agent(gpus=[80 * G, 24 * G])])

    assert wait.facts["slot"] == "gpu_mem"
    assert sentence(wait) == (
        "can never start here: it asks for 2 GPUs with at least 40G,"
        " and the agent with the most, A1, has 2 with 24G"
    )


def test_a_lost_agent_is_counted_by_what_it_lacks_when_nothing_ever_fits():
    wait = why(need("64"), agents=[an_agent(status=LOST)])

    assert wait.code is WaitReason.NEVER_FITS
    assert wait.facts["refused_by"] == {"TOO_LITTLE_CPU": 1}


def test_kernels_that_never_fit_at_once():
    wait = why(*[need("3")] * 4, agents=[an_agent("a1"), an_agent("a2", cpu="3")])

    assert wait.code is WaitReason.NEVER_FITS
    assert sentence(wait) == (
        "can never start here: only 3 of its 4 kernels would fit at once if all agents were empty;"
        " the next asks for 3 cores, and the agent that comes closest, A1, would have 2 of 8 free"
    )


def test_one_kernel_of_several_that_never_fits():
    wait = why(need("1"), need("64"))

    assert wait.code is WaitReason.NEVER_FITS
    assert wait.facts["largest"] == 8000


def test_the_kernel_that_never_fits_is_named_even_when_another_one_is_short_now():
    wait = why(need("2"), need("64"), holds=[a_hold("a1", need("7"))])

    assert wait.code is WaitReason.NEVER_FITS
    assert wait.facts["requested"] == 64000


@pytest.mark.parametrize(
    ("requests", "problem"),
    [
        ([], "it has no kernels"),
        ([Request(cpu_milli=-1)], "an amount it asks for is not a whole number from 0 up"),
        ([Request(gpu_shares=1500)], "it asks for whole GPUs and a part of one by the same kernel"),
    ],
)
def test_requests_that_make_no_sense(requests, problem):
    wait = never_fits(requests, [an_agent()])

    assert malformed(requests) == problem
    assert wait == Wait(WaitReason.NEVER_FITS, {"problem": problem})
    assert sentence(wait) == f"can never start: {problem}"


# --- several kernels ------------------------------------------------------------------------------


def test_some_of_the_kernels_fit():
    wait = why(*[need("2")] * 4, holds=[a_hold("a1", need("3"))])

    assert wait.code is WaitReason.NOT_ALL_KERNELS_FIT
    assert (wait.facts["kernels"], wait.facts["fit"]) == (4, 2)
    assert sentence(wait) == (
        "waits for room for all its 4 kernels at once: 2 would fit,"
        " the next waits for 2 cores: the agent with the most free, A1, has 1 of 8 free"
    )


def test_none_of_the_kernels_fits():
    wait = why(need("2"), need("2"), holds=[a_hold("a1", need("7"))])

    assert wait.code is WaitReason.TOO_LITTLE_CPU


def test_how_many_kernels_fit_is_counted_after_the_pass():
    several = a_session("s1", *[need("2")] * 4)
    small = a_session("s2", need("3"), number=1)

    plan = place(a_snapshot(several, small, holds=[a_hold("a1", need("3"))], group=OVERTAKING))

    assert plan.waits["s1"].facts["fit"] == 1


def test_luck_with_what_is_left_is_for_the_next_pass():
    """Taking one core of `a1` keeps the first kernel off the only agent that suits the second."""
    unequal = a_session("s1", need("2"), need("1", G))
    small = a_session("s2", need("1"), number=1)
    agents = [an_agent("a1", cpu="8", mem=8 * G), an_agent("a2", cpu="8", mem=0)]
    holds = (a_hold("a1", need("6")), a_hold("a2", need("5")))

    plan = place(a_snapshot(unequal, small, agents=agents, holds=holds, group=OVERTAKING))
    later = place(a_snapshot(unequal, agents=agents, holds=(*holds, a_hold("a1", need("1")))))

    assert plan.waits["s1"].code is WaitReason.NOT_ALL_KERNELS_FIT
    assert plan.waits["s1"].facts == {"kernels": 2, "form": "at once"}
    assert plan.placed["s2"][0].agent_id == "a1"
    assert "s1" in later.placed


# --- single-node, so many on one agent, the same label --------------------------------------------

ON_ONE = Where(mode=ClusterMode.SINGLE_NODE)
ONE_EACH = Where(kernels_per_agent_max=1)
IN_ONE_RACK = Where(same="rack")


def in_racks(*values):
    return [an_agent(f"a{n}", labels={"rack": value}) for n, value in enumerate(values, 1)]


def test_kernels_that_would_fit_on_several_agents_but_must_go_on_one():
    agents = [an_agent("a1"), an_agent("a2")]
    holds = [a_hold("a1", need("4")), a_hold("a2", need("4"))]

    wait = why(need("4"), need("4"), agents=agents, holds=holds, where=ON_ONE)

    assert wait == Wait(WaitReason.NOT_ALL_KERNELS_FIT, {"kernels": 2, "form": "on one agent"})
    assert sentence(wait) == "waits for room for all its 2 kernels on one agent"


def test_kernels_that_would_fit_in_several_racks_but_must_go_in_one():
    holds = [a_hold("a1", need("4")), a_hold("a2", need("4"))]

    wait = why(need("8"), need("4"), agents=in_racks("r1", "r2"), holds=[], where=IN_ONE_RACK)
    later = why(
        need("4"), need("4"), need("4"), agents=in_racks("r1", "r2"), holds=holds, where=IN_ONE_RACK
    )

    assert sentence(wait) == (
        "can never start here: there would be no room for its 2 kernels on agents with one value"
        " of rack if all agents were empty"
    )
    assert later.code is WaitReason.NEVER_FITS
    now = why(need("4"), need("4"), agents=in_racks("r1", "r2"), holds=holds, where=IN_ONE_RACK)
    assert sentence(now) == (
        "waits for room for all its 2 kernels on agents with one value of rack"
    )


def test_agents_that_have_their_share_of_a_session_are_not_what_it_waits_for():
    agents = [an_agent("a1"), an_agent("a2")]

    wait = why(need("2"), need("2"), agents=agents, holds=[a_hold("a2", need("7"))], where=ONE_EACH)

    assert wait.code is WaitReason.NOT_ALL_KERNELS_FIT
    assert sentence(wait) == (
        "waits for room for all its 2 kernels at once: 1 would fit, the next waits for 2 cores:"
        " the agent that comes closest, A2, has 1 of 8 free"
    )


def test_more_kernels_than_agents_may_have():
    assert sentence(why(need("1"), need("1"), where=ONE_EACH)) == (
        "can never start here: there would be no room for its 2 kernels at most 1 on one agent"
        " if all agents were empty"
    )
    assert sentence(why(need("5"), need("5"), where=ON_ONE)) == (
        "can never start here: only 1 of its 2 kernels would fit at once if all agents were empty;"
        " the next asks for 5 cores, and the agent that comes closest, A1, would have 3 of 8 free"
    )


# --- where it may go ------------------------------------------------------------------------------


def test_an_agent_has_as_many_kernels_as_it_may_have():
    group = replace(OVERTAKING, agent_kernels_max=2)
    full = [a_hold("a1", need("1")), a_hold("a1", need("1"))]

    wait = why(need("1"), holds=full, group=group)

    assert wait.code is WaitReason.TOO_MANY_KERNELS
    assert (wait.facts["requested"], wait.facts["best_free"], wait.facts["best_total"]) == (1, 0, 2)
    assert sentence(wait) == (
        "waits for an agent with fewer kernels: the agent with the most free, A1, has 0 of 2 free"
    )
    short_too = why(need("8"), holds=full, group=group)
    assert short_too.facts["also"] == ["TOO_LITTLE_CPU"]
    assert sentence(short_too).endswith("has 0 of 2 free, and too little cpu")


def test_agents_that_it_may_not_go_on_are_counted_by_why():
    agents = [
        an_agent("a1"),
        an_agent("a2", labels={"rack": "r1"}),
        an_agent("a3", labels={"rack": "r1"}),
    ]
    where = Where(constraints=(parse_constraint("rack=r1"),), exclude=("A3",))

    wait = why(need("8"), agents=agents, holds=[a_hold("a2")], where=where)

    assert wait.code is WaitReason.TOO_LITTLE_CPU
    assert wait.facts["refused_by"] == {
        "AGENT_EXCLUDED": 1,
        "CONSTRAINT_NOT_MET": 1,
        "TOO_LITTLE_CPU": 1,
    }
    assert wait.facts["best_agent"] == "A2"
    assert wait.facts["best_has_most"]


@pytest.mark.parametrize(
    ("where", "by", "text"),
    [
        (
            Where(constraints=(parse_constraint("rack=r1"), parse_constraint("tier>=2"))),
            "CONSTRAINT_NOT_MET",
            "no agent of its scaling group meets all of rack=r1",
        ),
        (
            Where(agents=("a8", "a9")),
            "AGENT_NOT_CHOSEN",
            "none of the agents that it may go on is in its scaling group: a8|a9",
        ),
        (
            Where(exclude=("A1", "a2")),
            "AGENT_EXCLUDED",
            "every agent of its scaling group is excluded",
        ),
    ],
)
def test_it_may_go_on_none_of_the_agents(where, by, text):
    agents = [an_agent("a1"), an_agent("a2")]

    wait = why(need("1"), agents=agents, where=where)

    assert wait.code is WaitReason.NEVER_FITS
    assert (wait.facts["by"], wait.facts["agents"]) == (by, 2)
    assert wait.facts["refused_by"] == {by: 2}
    assert sentence(wait) == f"can never start here: {text}"


def test_no_device_is_of_the_model():
    where = Where(constraints=(parse_constraint("gpu_model=H100"),))

    wait = why(need(gpu="1"), agents=[an_agent(gpus=[G])], where=where)

    assert sentence(wait) == (
        "can never start here: no agent of its scaling group meets all of gpu_model=H100"
    )


def test_the_agents_that_it_may_go_on_are_out_of_service():
    agents = [an_agent("a1"), drained("a2"), an_agent("a3", status=LOST)]

    assert why(need("1"), agents=agents, where=Where(agents=("A2",))).code is (
        WaitReason.AGENT_DRAINED
    )
    assert sentence(why(need("1"), agents=agents, where=Where(agents=("a3",)))) == (
        "waits for an agent that is lost: only A3 could take it"
    )


# --- those ahead of it ----------------------------------------------------------------------------


def two(backfill, **fields):
    """The first of eight cores, one of which is held; the second of one core."""
    first = a_session("big", need("8"), name="train")
    plan = place(
        a_snapshot(
            first,
            a_session("small", number=1),
            holds=[a_hold()],
            group=ScalingGroup(backfill=backfill),
            **fields,
        )
    )
    return plan.waits["small"]


def test_nobody_overtakes():
    assert sentence(two(Backfill.STRICT)) == (
        "waits its turn: big (train) is ahead of it, and nobody overtakes in this group"
    )


def test_there_is_room_but_it_is_reserved():
    wait = two(Backfill.EASY, running=[a_session("r1", walltime_s=90.0)])

    assert wait.facts == {"session_id": "big", "name": "train", "starts_at": 90.0}
    assert sentence(wait, now=0.0) == (
        "could start now, but would still run when big (train), which is ahead of it, is to start"
        " on what it would use, in 1m30s"
    )


def test_what_is_reserved_and_then_taken_by_others_is_simply_missing():
    """The reason is that of the end of the pass: nobody is told that it could start who cannot."""
    pending = [
        a_session("big", need("8")),
        a_session("long", need("4"), number=1),
        a_session("short", need("6"), number=2, walltime_s=10.0),
    ]

    plan = place(a_snapshot(*pending, holds=[a_hold()], running=[a_session("r1", walltime_s=90.0)]))

    assert list(plan.placed) == ["short"]
    assert plan.waits["long"].code is WaitReason.TOO_LITTLE_CPU


# --- sentences of reasons that others give --------------------------------------------------------


@pytest.mark.parametrize("code", WaitReason)
def test_every_reason_has_a_sentence_even_without_facts(code):
    text = sentence(Wait(code))

    assert text
    assert "None" not in text


@pytest.mark.parametrize(
    ("wait", "text"),
    [
        (Wait(WaitReason.HELD), "is held back; release it and it takes its place in the queue"),
        (
            Wait(WaitReason.BEGIN_TIME_NOT_REACHED, {"begin_at": 190.0}),
            "waits for its begin time, in 1m30s",
        ),
        (
            Wait(WaitReason.WAITING_FOR_RETRY, {"retry_at": 108.0}),
            "waits a while after a failed attempt: tries again in 8s",
        ),
        (
            Wait(
                WaitReason.WAITING_FOR_DEPENDENCY,
                {"unmet": [{"session_id": f"s{n}", "kind": "afterok"} for n in range(21)]},
            ),
            "waits for other sessions to end: "
            + ", ".join(f"s{n} (afterok)" for n in range(20))
            + " and 1 more",
        ),
        (
            Wait(WaitReason.WAITING_FOR_OLD_KERNELS, {"agents": ["a1"]}),
            "waits until a1 confirms that the kernels of its last attempt are gone",
        ),
    ],
)
def test_sentences(wait, text):
    assert sentence(wait, now=100.0) == text
