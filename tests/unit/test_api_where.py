"""Where a session may go, as submitted over HTTP; the real service behind it."""

import re

import pytest

from sokovan.api.acceptance import check
from sokovan.clock import ManualClock
from sokovan.domain.errors import InvalidRequestError
from sokovan.domain.where import Where
from sokovan.domain.where_fields import where_of
from sokovan.placement.machines import Machines
from tests.build import (
    A1,
    A2,
    NOW,
    a_repository,
    a_spec,
    an_agent,
    an_agent_hello,
    groups_of,
    in_memory,
)
from tests.checked import CheckedRepository
from tests.served import served

WHERE = {
    "kernels_per_agent_max": 1,
    "same": "rack",
    "constraints": ["architecture!=armv7l", "gpu_model=A100|H100", "mem_gpu>=8G"],
    "agents": ["left", "a2"],
    "prefer": ["left"],
    "exclude": ["middle"],
    "spread_with": ["web"],
    "pack_with": ["db"],
}
BODY = {"command": ["true"], "gpu_shares": 1000, "held": True, "allow_infeasible": True}


@pytest.fixture
async def repository():
    repository = a_repository(database=in_memory(), clock=ManualClock(NOW), kind=CheckedRepository)
    await repository.register_agent(an_agent_hello(A1, name="left"))
    await repository.register_agent(an_agent_hello(A2, name="middle"))
    return repository


@pytest.fixture
async def http(repository):
    async with served(repository) as http:
        yield http


async def test_what_is_said_of_where_reaches_the_store_and_is_shown(http, repository):
    answer = await http.post("/v1/sessions", json=BODY | {"where": WHERE})

    assert answer.status_code == 201
    assert answer.json()["where"] == WHERE
    (session,) = repository.live.sessions.values()
    assert session.where == where_of(WHERE)
    assert (await http.get(f"/v1/sessions/{session.session_id}")).json()["where"] == WHERE


@pytest.mark.parametrize("where", [None, {}, {"mode": "multi-node", "agents": []}])
async def test_who_says_nothing_may_go_anywhere(http, repository, where):
    answer = await http.post("/v1/sessions", json=BODY | {"where": where})

    assert answer.json()["where"] is None
    (session,) = repository.live.sessions.values()
    assert session.where.is_anywhere


async def test_the_same_creation_id_with_another_wish_is_another_submission(http):
    body = BODY | {"creation_id": "mine"}
    first = await http.post("/v1/sessions", json=body | {"where": {"constraints": ["a=1", "b=1"]}})

    again = await http.post(
        "/v1/sessions", json=body | {"where": {"constraints": ["b = 1", "a=1"]}}
    )
    other = await http.post("/v1/sessions", json=body | {"where": {"constraints": ["a=1"]}})

    assert again.json()["id"] == first.json()["id"]
    assert (other.status_code, other.json()["code"]) == (409, "creation-conflict")


@pytest.mark.parametrize(
    ("where", "field", "said"),
    [
        ([], "where", "valid dictionary"),
        ({"nodes": 1}, "where.nodes", "no such field"),
        ({"mode": "all-over"}, "where.mode", "'multi-node' or 'single-node'"),
        ({"kernels_per_agent_max": 0}, "where.kernels_per_agent_max", "greater than or equal to 1"),
        ({"kernels_per_agent_max": True}, "where.kernels_per_agent_max", "valid integer"),
        ({"same": "a b"}, "where.same", "cannot be the name of a label"),
        ({"same": "gpu_model"}, "where.same", "every agent has gpu_model by itself"),
        ({"same": "x" * 256}, "where.same", "at most 255"),
        ({"constraints": "a=1"}, "where.constraints", "valid list"),
        ({"constraints": ["a=1", "rack"]}, "where.constraints[1]", "write ATTRIBUTE=VALUE"),
        ({"constraints": ["=r1"]}, "where.constraints[0]", "is not understood"),
        ({"constraints": ["9=r1"]}, "where.constraints[0]", "'9' is no attribute"),
        ({"constraints": ["rack=a|"]}, "where.constraints[0]", "no proper value"),
        ({"constraints": ["rack>=a"]}, "where.constraints[0]", "is not an amount"),
        ({"constraints": ["mem>=lots"]}, "where.constraints[0]", "is not a size"),
        ({"constraints": ["cpu>=2|4"]}, "where.constraints[0]", "compares with several numbers"),
        ({"constraints": ["rack=\0"]}, "where.constraints[0]", "no proper value"),
        ({"constraints": ["x" * 1001]}, "where.constraints[0]", "at most 1000"),
        ({"constraints": ["a=1"] * 101}, "where.constraints", "at most 100"),
        ({"constraints": ["a=1", "a=2"]}, "where.constraints", "a=1 and a=2 cannot both be met"),
        ({"constraints": ["mem>=8G", "mem<=4G"]}, "where.constraints", "cannot both be met"),
        ({"agents": ["left"], "exclude": ["left"]}, "where.agents", "both required and excluded"),
        (
            {"mode": "single-node", "kernels_per_agent_max": 1},
            "where.kernels_per_agent_max",
            "drop one of the two",
        ),
        ({"spread_with": ["a"], "pack_with": ["a"]}, "where.spread_with", "also in pack_with"),
        ({"agents": ["nobody"]}, "where.agents", "no agent 'nobody'; it has left, middle"),
        ({"prefer": ["nobody"]}, "where.prefer", "no agent 'nobody'"),
        ({"exclude": ["nobody"]}, "where.exclude", "--allow-infeasible"),
        ({"agents": [""]}, "where.agents[0]", "at least 1 character"),
        ({"agents": ["a\nb"]}, "where.agents[0]", "control character"),
        ({"agents": [1]}, "where.agents[0]", "valid string"),
        ({"pack_with": ["x" * 256]}, "where.pack_with[0]", "at most 255"),
        ({"pack_with": ["x"] * 101}, "where.pack_with", "at most 100"),
    ],
)
async def test_a_wish_that_makes_no_sense_is_refused_by_its_field(
    http, repository, where, field, said
):
    body = BODY | {"where": where, "allow_infeasible": False}
    answer = await http.post("/v1/sessions", json=body)

    assert answer.status_code == 422
    problem = answer.json()
    assert problem["field"] == field
    assert problem["detail"].startswith(f"{field}: ")
    assert re.search(re.escape(said), problem["detail"])
    assert len(problem["detail"]) < 500
    assert repository.live.sessions == {}


async def test_of_several_sessions_the_one_at_fault_is_named(http):
    bodies = [BODY, BODY | {"where": {"constraints": ["rack"]}}]
    problem = (await http.post("/v1/sessions", json={"sessions": bodies})).json()

    assert problem["field"] == "sessions[1].where.constraints[0]"


async def test_a_condition_on_devices_needs_one(http):
    where = {"constraints": ["gpu_model=H100"]}
    problem = (
        await http.post("/v1/sessions", json=BODY | {"gpu_shares": 0, "where": where})
    ).json()

    assert problem["field"] == "where.constraints"
    assert "gpu_model=H100 is a condition on the GPU asked for" in problem["detail"]


def test_an_agent_may_be_named_by_its_id_also_one_that_is_lost():
    agents = [an_agent(A1, name="left"), an_agent(A2, name="right")]

    check(a_spec(where=Where(agents=("left", A2))), groups_of(), Machines(agents))


def test_an_agent_may_be_named_before_it_has_joined():
    where = Where(agents=("later",), prefer=("sooner",), exclude=("never",))
    left = Machines([an_agent(A1, name="left")])

    check(a_spec(where=where), groups_of(), Machines(()))
    check(
        a_spec(where=where, allow_infeasible=True),
        groups_of(),
        Machines([an_agent(A1, name="left")]),
    )
    with pytest.raises(InvalidRequestError, match="the group default has no agent 'later'"):
        check(a_spec(where=where), groups_of(), left)


def test_of_many_agents_only_some_are_named():
    agents = [an_agent(f"a{n:02}", name=f"agent-{n:02}") for n in range(50)]

    with pytest.raises(InvalidRequestError, match=r"agent-09 …; name one") as refused:
        check(a_spec(where=Where(agents=("nobody",))), groups_of(), Machines(agents))

    assert len(refused.value.message) < 500
