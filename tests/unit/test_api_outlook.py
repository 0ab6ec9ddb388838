"""Why, when and what if, over HTTP; the real service behind it."""

import copy

import pytest

from sokovan.api import outlook
from sokovan.clock import ManualClock
from sokovan.domain.resources import Request
from sokovan.domain.statuses import SessionStatus
from sokovan.placement.engine import place, run
from sokovan.store.tables import kernels, sessions, specs
from tests.build import (
    A1,
    A2,
    GIB,
    NOW,
    a_capacity,
    a_repository,
    a_spec,
    an_agent_hello,
    brought_to,
    in_memory,
    submitted,
)
from tests.checked import CheckedRepository
from tests.served import served

DRY = "/v1/sessions/dry-run"


@pytest.fixture
async def repository():
    made = a_repository(
        "default",
        "spare",
        database=in_memory(),
        clock=ManualClock(NOW),
        kind=CheckedRepository,
    )
    await made.register_agent(an_agent_hello(A1, name="left"))
    return made


@pytest.fixture
async def http(repository):
    async with served(repository) as http:
        yield http


def body(cpu_milli=1000, **fields):
    return {"command": ["true"], "cpu_milli": cpu_milli, **fields}


async def a_full_agent(repository, cpu=3000, **fields):
    (holder,) = await brought_to(
        repository, SessionStatus.RUNNING, a_spec(request=Request(cpu, GIB), walltime_s=600.0)
    )
    return holder


# --- why ------------------------------------------------------------------------------------------


async def test_suggestions_are_made_when_asked_for(http, repository):
    await a_full_agent(repository)
    (waits,) = await submitted(repository, a_spec(request=Request(4000)))

    plain = (await http.get(f"/v1/sessions/{waits}/why")).json()
    full = (await http.get(f"/v1/sessions/{waits}/why", params={"suggest": "true"})).json()

    assert plain["suggestions"] is None
    assert full["suggestions"] == [
        {
            "dimension": "cpu",
            "from": 4000,
            "to": 1000,
            "change": "ask for 1 core instead of 4 (--cpu 1)",
            "as_new": True,
        }
    ]
    assert plain["facts"]["reservation"]["starts_at"] == NOW + 600
    assert plain["facts"]["holders"][0]["until"] == NOW + 600


async def test_another_group_is_suggested(http, repository):
    await a_full_agent(repository, cpu=4000)
    await repository.register_agent(an_agent_hello(A2, name="other", scaling_group="spare"))
    (waits,) = await submitted(repository, a_spec())

    why = (await http.get(f"/v1/sessions/{waits}/why", params={"suggest": "true"})).json()

    assert [one["change"] for one in why["suggestions"]] == ["use the group spare (--group spare)"]


async def test_one_that_may_not_be_placed_gets_no_suggestions(http, repository):
    (held,) = await submitted(repository, a_spec(held=True))
    later, ended = await submitted(repository, a_spec(begin_at=NOW + 9), a_spec())
    await http.post(f"/v1/sessions/{ended}/cancel")

    for ref, suggestions in ((held, []), (later, []), (ended, None)):
        why = (await http.get(f"/v1/sessions/{ref}/why", params={"suggest": "true"})).json()
        assert why["suggestions"] == suggestions


# --- eta ------------------------------------------------------------------------------------------


async def test_a_start_is_told_with_its_zone(http, repository):
    await a_full_agent(repository)
    (waits,) = await submitted(repository, a_spec(request=Request(4000), walltime_s=60.0))

    eta = (await http.get(f"/v1/sessions/{waits}/eta")).json()

    assert eta["session"]["id"] == waits
    assert (eta["starts_at"], eta["ends_at"]) == (
        "2001-09-09T01:56:40.000Z",
        "2001-09-09T01:57:40.000Z",
    )
    assert eta["reserved"]
    assert eta["agents"] == [{"agent_id": A1, "agent": "left", "devices": []}]
    assert (eta["position"], eta["queue_length"]) == (1, 1)


async def test_the_start_of_what_runs_or_ran_is_known(http, repository):
    runs = await a_full_agent(repository)
    (never,) = await submitted(repository, a_spec())
    await http.post(f"/v1/sessions/{never}/cancel")
    (soon,) = await brought_to(repository, SessionStatus.PREPARED)

    running = (await http.get(f"/v1/sessions/{runs}/eta")).json()
    gone = (await http.get(f"/v1/sessions/{never}/eta")).json()
    starting = (await http.get(f"/v1/sessions/{soon}/eta")).json()

    assert running["starts_at"] == running["session"]["started_at"]
    assert running["ends_at"] == "2001-09-09T01:56:40.000Z"
    assert running["sentence"] == "has started"
    assert running["position"] is None
    assert [one["agent"] for one in running["agents"]] == ["left"]
    assert (gone["starts_at"], gone["sentence"]) == (None, "has ended, and never started")
    assert starting["sentence"] == "is about to start: it is prepared"


async def test_all_at_a_glance(http, repository):
    await repository.register_agent(an_agent_hello(A2, name="other", scaling_group="spare"))
    runs = await a_full_agent(repository)
    first, second, third = await submitted(
        repository, a_spec(request=Request(4000)), a_spec(request=Request(3000)), a_spec(held=True)
    )
    (elsewhere,) = await submitted(
        repository, a_spec(scaling_group="spare", request=Request(9000), allow_infeasible=True)
    )

    all_of_it = (await http.get("/v1/overview")).json()
    part = (await http.get("/v1/overview", params={"limit": 1})).json()

    assert all_of_it["status"]["sessions"] == {"PENDING": 4, "RUNNING": 1}
    assert all_of_it["held"]["cpu_milli"] == 3000
    assert all_of_it["capacity"]["cpu_milli"] == 8000
    assert [agent["name"] for agent in all_of_it["agents"]] == ["left", "other"]
    assert [session["id"] for session in all_of_it["placed"]] == [runs]
    seen = [
        (turn["session"]["id"], turn["position"], turn["queue_length"], turn["reserved"])
        for turn in all_of_it["waiting"]
    ]
    assert seen == [
        (first, 1, 2, True),
        (elsewhere, 1, 1, False),
        (second, 2, 2, False),
        (third, None, 2, False),
    ]
    assert all_of_it["waiting"][0]["starts_at"] == "2001-09-09T01:56:40.000Z"
    assert all_of_it["waiting"][1]["starts_at"] is None
    assert [len(part[key]) for key in ("agents", "placed", "waiting")] == [1, 1, 1]
    assert part["capacity"] == all_of_it["capacity"]
    assert (await http.get("/v1/overview", params={"limit": 1000})).status_code == 422


async def test_nobody_there_is_asked_for(http):
    assert (await http.get("/v1/sessions/nobody/eta")).status_code == 404


# --- a dry run ------------------------------------------------------------------------------------


async def test_a_dry_run_says_where_it_would_start(http):
    answer = await http.post(DRY, json=body(gpu_shares=2000, name="train"))

    assert answer.status_code == 200
    assert answer.json() == {
        "name": "train",
        "scaling_group": "default",
        "accepted": True,
        "starts_now": True,
        "agents": [{"agent_id": A1, "agent": "left", "devices": [[0, 1000], [1, 1000]]}],
        "sentence": "would start now on left",
        "code": None,
        "facts": {},
        "eta": None,
        "suggestions": None,
    }


async def test_a_dry_run_says_why_it_would_wait_and_until_when(http, repository):
    await a_full_agent(repository)

    answer = (await http.post(DRY, json=body(4000), params={"suggest": "true"})).json()

    assert (answer["accepted"], answer["starts_now"]) == (True, False)
    assert answer["code"] == "TOO_LITTLE_CPU"
    assert (
        answer["sentence"]
        == "waits for 4 cores: the agent with the most free, left, has 1 of 4 free"
    )
    assert answer["facts"]["position"] == 1
    assert answer["eta"]["starts_at"] == "2001-09-09T01:56:40.000Z"
    assert [one["dimension"] for one in answer["suggestions"]] == ["cpu"]


async def test_several_are_looked_at_together(http):
    many = {"sessions": [body(3000), body(2000), body(1000), body(1000, priority=50)]}

    answers = (await http.post(DRY, json=many)).json()["sessions"]

    # Four cores: the last goes first, and then three are left for the first.
    assert [one["starts_now"] for one in answers] == [True, False, False, True]
    assert answers[1]["facts"]["holders"][0]["session_id"] == "#0"


async def test_what_can_never_fit_is_an_answer(http):
    never = (await http.post(DRY, json=body(9000), params={"suggest": "true"})).json()
    anyway = (await http.post(DRY, json=body(9000, allow_infeasible=True))).json()

    assert (never["code"], never["accepted"], never["starts_now"]) == ("NEVER_FITS", False, False)
    assert [one["change"] for one in never["suggestions"]] == [
        "ask for 4 cores instead of 9 (--cpu 4)"
    ]
    assert (anyway["code"], anyway["accepted"]) == ("NEVER_FITS", True)


async def test_what_makes_no_sense_is_refused_as_ever(http):
    for wrong in (
        body(priority=101),
        body(scaling_group="nowhere"),
        body(depends_on=[{"session_id": "nobody"}]),
        body(walltime_s=-1),
        {"command": []},
    ):
        dry, real = await http.post(DRY, json=wrong), await http.post("/v1/sessions", json=wrong)
        assert dry.status_code == real.status_code == 422
        assert dry.json() == real.json()


async def test_dependencies_holds_and_begin_times_are_told(http, repository):
    (failed,) = await submitted(repository, a_spec())
    await http.post(f"/v1/sessions/{failed}/cancel")
    many = {
        "sessions": [
            body(),
            body(depends_on=[{"session_id": "#0"}]),
            body(held=True),
            body(begin_at="2001-09-09T01:46:50Z"),
            body(begin_at="2001-09-09T01:46:30Z"),
            body(depends_on=[{"session_id": failed}]),
        ]
    }

    answers = (await http.post(DRY, json=many, params={"suggest": "true"})).json()["sessions"]

    assert [one["code"] for one in answers] == [
        None,
        "WAITING_FOR_DEPENDENCY",
        "HELD",
        "BEGIN_TIME_NOT_REACHED",
        None,
        "DEPENDENCY_FAILED",
    ]
    assert answers[3]["sentence"] == "waits for its begin time, in 10s"
    assert answers[5]["sentence"] == (
        f"would be cancelled at once: afterok {failed}, which had ended already"
    )


async def test_a_few_of_many_are_told_all(http, repository, monkeypatch):
    monkeypatch.setattr(outlook, "DETAILED_MAX", 1)
    await a_full_agent(repository)

    many = {"sessions": [body(4000), body(3000)]}
    first, second = (await http.post(DRY, json=many)).json()["sessions"]

    assert "position" in first["facts"]
    assert "position" not in second["facts"]
    assert (second["code"], second["eta"]) == ("TOO_LITTLE_CPU", None)


async def all_of(repository):
    """Everything that a dry run could have changed."""
    snapshot = repository.snapshot("default")
    queue = snapshot.queue
    rows = await repository._database.read(
        lambda tx: [tx.execute(table.select()).all() for table in (sessions, kernels, specs)]
    )
    return rows, copy.deepcopy(
        (
            queue.version,
            queue.news,
            list(queue.items()),
            [(lane.owner, lane.entries) for lane in queue.lanes()],
            queue.aside,
            queue._times,
            queue._until,
            snapshot.machines.version,
            snapshot.machines.free.cpu.tolist(),
            repository.live.waits,
            repository.live.facts,
            repository._ids._rng.getstate(),
        )
    )


@pytest.mark.parametrize("fails", [False, True])
async def test_a_dry_run_changes_nothing(http, repository, monkeypatch, fails):
    await a_full_agent(repository)
    await submitted(repository, a_spec(request=Request(4000)))
    place(repository.snapshot("default"))
    kept, before = run(repository.snapshot("default")), await all_of(repository)
    many = {"sessions": [body(500), body(4000), body(9000), body(begin_at="2001-09-09T01:46:30Z")]}
    if fails:
        monkeypatch.setattr(outlook, "explain", lambda *args: 1 / 0)

    answer = await http.post(DRY, json=many, params={"suggest": "true"})

    assert answer.status_code == (500 if fails else 200)
    assert await all_of(repository) == before
    assert run(repository.snapshot("default")) is kept


async def test_a_creation_id_is_not_used_up(http):
    for _ in range(2):
        assert (await http.post(DRY, json=body(creation_id="once"))).json()["starts_now"]

    made = await http.post("/v1/sessions", json=body(500, creation_id="once"))

    assert made.status_code == 201


async def test_the_biggest_of_gpus_is_no_more_than_there_is(http, repository):
    await repository.register_agent(
        an_agent_hello(A2, name="big", capacity=a_capacity(8000, devices=8))
    )

    answer = (await http.post(DRY, json=body(gpu_shares=9000), params={"suggest": "true"})).json()

    assert [one["change"] for one in answer["suggestions"]] == [
        "ask for 8 GPUs instead of 9 (--gpu 8)"
    ]
