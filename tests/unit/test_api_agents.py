"""Agents over HTTP: drained, labelled, removed; the real service behind it."""

import re

import pytest

from sokovan.clock import ManualClock
from sokovan.domain.cluster import AgentStatus
from sokovan.domain.resources import Request
from sokovan.domain.sessions import AgentId
from sokovan.domain.statuses import SessionStatus
from sokovan.scheduler.moves import Outcome
from sokovan.scheduler.stages import ENFORCE_WALLTIME, both
from tests.build import (
    A1,
    A2,
    NOW,
    a_capacity,
    a_move,
    a_repository,
    a_spec,
    an_agent_hello,
    brought_to,
    in_memory,
    submitted,
)
from tests.checked import CheckedRepository
from tests.served import served


@pytest.fixture
async def repository():
    repository = a_repository(database=in_memory(), clock=ManualClock(NOW), kind=CheckedRepository)
    await repository.register_agent(an_agent_hello(A1, name="left"))
    return repository


@pytest.fixture
def told():
    return []


@pytest.fixture
async def http(repository, told):
    async with served(repository, told.append) as http:
        yield http


@pytest.mark.parametrize("name", [A1, "left"])
async def test_an_agent_is_drained_by_its_id_or_its_name(http, repository, told, name):
    answer = await http.post(f"/v1/agents/{name}/drain", json={"reason": "new disk"})

    assert answer.status_code == 200
    view = answer.json()
    assert (view["id"], view["status"]) == (A1, "ALIVE")
    assert (view["drained_since"], view["drain_reason"]) == ("2001-09-09T01:46:40.000Z", "new disk")
    assert (await http.get("/v1/agents")).json() == {"items": [view]}
    assert (await http.get("/v1/status")).json()["drained"] == 1
    assert not repository.live.agents[A1].takes_kernels
    assert [applied.freed for applied in told] == [{"default"}]


async def test_no_reason_need_be_given(http):
    answer = await http.post("/v1/agents/left/drain")

    assert answer.json()["drain_reason"] is None
    assert answer.json()["drained_since"] is not None


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"reason": "a\\nb"}', "reason"),
        (b'{"reason": 1}', "reason"),
        (b'{"why": ""}', "why"),
        (b'{"reason": "' + b"x" * 256 + b'"}', "reason"),
    ],
)
async def test_a_reason_is_a_line_of_text(http, repository, body, field):
    answer = await http.post("/v1/agents/left/drain", content=body)

    assert answer.status_code == 422
    assert answer.json()["field"] == field
    assert repository.live.agents[A1].takes_kernels


async def test_who_undrains_an_agent_tells_those_who_wait(http, repository, told):
    await http.post("/v1/agents/left/drain")
    told.clear()

    view = (await http.post("/v1/agents/left/undrain")).json()

    assert (view["drained_since"], view["drain_reason"]) == (None, None)
    assert repository.live.agents[A1].takes_kernels
    assert [applied.freed for applied in told] == [{"default"}]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "nobody/drain"),
        ("POST", "nobody/undrain"),
        ("POST", "nobody/label"),
        ("DELETE", "nobody"),
    ],
)
async def test_an_agent_that_does_not_exist_is_said(http, method, path):
    body = {"labels": {"rack": "r1"}} if path.endswith("label") else None
    answer = await http.request(method, f"/v1/agents/{path}", json=body)

    assert answer.status_code == 404
    assert answer.json()["code"] == "agent-not-found"


async def test_a_name_that_two_agents_have_is_not_enough(http, repository):
    await repository.set_agent_status(A1, AgentStatus.GONE)
    await repository.register_agent(an_agent_hello(A2, name="left"))

    by_name = await http.delete("/v1/agents/left")
    by_id = await http.delete(f"/v1/agents/{A1}")

    assert (by_name.status_code, by_name.json()["code"]) == (409, "ambiguous-id")
    assert "a1 (GONE), a2 (ALIVE)" in by_name.json()["detail"]
    assert by_id.status_code == 200
    assert repository.live.agents.keys() == {A2}


async def test_an_agent_that_is_not_gone_is_not_removed(http):
    answer = await http.delete("/v1/agents/left", params={"force": True})

    assert (answer.status_code, answer.json()["code"]) == (409, "illegal-state")


async def test_a_removed_agent_is_shown_for_the_last_time(http, repository):
    (session_id,) = await brought_to(repository, SessionStatus.RUNNING)
    await repository.set_agent_status(A1, AgentStatus.GONE)

    refused = await http.delete("/v1/agents/left")
    view = (await http.delete("/v1/agents/left", params={"force": True})).json()

    assert refused.status_code == 409
    assert session_id in refused.json()["detail"]
    assert (view["name"], view["status"], view["leftovers"]) == ("left", "GONE", 1)
    assert (await http.get("/v1/agents")).json() == {"items": []}


async def test_the_note_of_a_removal_is_not_why_a_session_ended(http, repository):
    (session_id,) = await brought_to(repository, SessionStatus.RUNNING)
    session, end = repository.live.sessions[session_id], both("TERMINATING")
    await repository.apply(
        [a_move(session, ENFORCE_WALLTIME, end, Outcome.EXPIRED, "WALLTIME_EXCEEDED")]
    )
    await repository.set_agent_status(A1, AgentStatus.GONE)
    await http.delete("/v1/agents/left", params={"force": True})

    history = (await http.get(f"/v1/sessions/{session_id}/history")).json()["items"]
    why = (await http.get(f"/v1/sessions/{session_id}/why")).json()

    assert history[-1]["reason"] == "agent-removed"
    assert why["sentence"] == "it has ended: WALLTIME_EXCEEDED (FAILURE)"


async def test_why_says_that_an_agent_is_drained(http, repository):
    await repository.register_agent(
        an_agent_hello(A2, name="right", capacity=a_capacity(cpu_milli=8000))
    )
    (waits,) = await submitted(repository, a_spec(request=Request(6000)))
    await http.post("/v1/agents/right/drain", json={"reason": "new disk"})

    answer = (await http.get(f"/v1/sessions/{waits}/why")).json()

    assert answer["code"] == "AGENT_DRAINED"
    assert answer["sentence"] == (
        "waits for an agent that is drained: only right (new disk) could take it"
    )
    assert answer["facts"]["drained_for"] == {"new disk": 1}


async def test_what_only_a_drained_agent_could_take_is_accepted(http, repository):
    await http.post("/v1/agents/left/drain")

    fits = await http.post("/v1/sessions", json={"command": ["true"], "cpu_milli": 4000})
    never = await http.post("/v1/sessions", json={"command": ["true"], "cpu_milli": 4001})

    assert fits.status_code == 201
    assert never.json()["code"] == "infeasible-request"


# --- labels ---------------------------------------------------------------------------------------


async def test_an_agent_is_labelled_and_those_who_wait_are_told(http, repository, told):
    await repository.register_agent(
        an_agent_hello(A1, name="left", labels={"rack": "r1", "zone": "north"})
    )

    answer = await http.post(
        "/v1/agents/left/label", json={"labels": {"rack": "r2", "zone": None, "os": "Debian 13"}}
    )

    assert answer.status_code == 200
    assert answer.json()["labels"] == {"os": "Debian 13", "rack": "r2"}
    assert (await http.get("/v1/agents")).json() == {"items": [answer.json()]}
    assert [applied.freed for applied in told] == [{"default"}]


@pytest.mark.parametrize(
    ("body", "field", "said"),
    [
        (b"", None, "not JSON"),
        (b"{}", "labels", "is missing"),
        (b'{"labels": {}}', "labels", "at least 1 item"),
        (b'{"labels": ["rack=r1"]}', "labels", "valid dictionary"),
        (b'{"labels": {"rack": 1}}', "labels.rack", "valid string"),
        (b'{"labels": {"rack": ""}}', "labels", "cannot be the value of rack"),
        (b'{"labels": {"rack": "a\\nb"}}', "labels", "cannot be the value of rack"),
        (b'{"labels": {"rack": "' + b"x" * 128 + b'"}}', "labels", "1 to 127"),
        (b'{"labels": {"a b": "1"}}', "labels", "'a b' cannot be the name of a label"),
        (b'{"labels": {"a b": null}}', "labels", "'a b' cannot be the name of a label"),
        (b'{"labels": {"gpu_model": "H100"}}', "labels", "every agent has gpu_model by itself"),
        (b'{"labels": {"cpu": null}}', "labels", "every agent has cpu by itself"),
        (b'{"labels": {"rack": "r1"}, "why": ""}', "why", "no such field"),
    ],
)
async def test_labels_that_no_constraint_could_name_are_refused(
    http, repository, body, field, said
):
    answer = await http.post("/v1/agents/left/label", content=body)

    assert answer.status_code == 422
    problem = answer.json()
    assert problem.get("field") == field
    assert re.search(said, problem["detail"])
    assert repository.live.agents[A1].labels == {}


async def test_an_address_may_not_be_a_path(http, repository):
    await repository.register_agent(an_agent_hello(AgentId("a/b"), name="odd"))

    assert (await http.post("/v1/agents/a%2Fb/drain")).status_code == 404
    assert (await http.post("/v1/agents/odd/drain")).status_code == 200
