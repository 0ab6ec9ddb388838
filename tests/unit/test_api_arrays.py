"""Arrays over HTTP: submitted, looked at, awaited, ended; the real service behind it."""

import asyncio

import pytest

from sokovan.clock import ManualClock
from sokovan.domain.sessions import SessionId
from sokovan.scheduler.messages import ReportState
from sokovan.scheduler.stages import CHECK_PRECONDITION, START_SESSIONS
from tests.build import (
    A1,
    NOW,
    a_capacity,
    a_repository,
    an_agent_hello,
    asked,
    in_memory,
    placed,
    said,
)
from tests.checked import CheckedRepository
from tests.served import bearer, served

SESSION = {"command": ["train", "{lr}", "{index}"], "name": "sweep"}
SWEEP = {"session": SESSION, "params": {"lr": ["0.1", "0.2"], "bs": ["32", "64"]}}


@pytest.fixture
async def repository():
    repository = a_repository(database=in_memory(), clock=ManualClock(NOW), kind=CheckedRepository)
    await repository.register_agent(an_agent_hello(A1, name="left", capacity=a_capacity(64_000)))
    return repository


@pytest.fixture
def told():
    return []


@pytest.fixture
async def http(repository, told):
    async with served(repository, told.append) as http:
        yield http


async def submitted(http, **changes):
    answer = await http.post("/v1/arrays", json=SWEEP | changes)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def got(http, path, **params):
    answer = await http.get(path, params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def end(http, repository, ref, exit_code=0):
    session_id = SessionId((await got(http, f"/v1/sessions/{ref}"))["id"])
    await placed(repository, session_id)
    await asked(repository, CHECK_PRECONDITION, session_id)
    await said(repository, ReportState.PREPARED, session_id)
    await asked(repository, START_SESSIONS, session_id)
    await said(repository, ReportState.RUNNING, session_id)
    await said(repository, ReportState.ENDED, session_id, exit_code=exit_code)


async def test_a_sweep_is_one_submission_and_as_many_sessions(http, repository, told):
    array = await submitted(http, running_max=2)

    assert (array["size"], array["live"], array["running_max"]) == (4, {"PENDING": 4}, 2)
    assert (array["params"], array["indexes"]) == (SWEEP["params"], None)
    assert [len(applied.moved) for applied in told] == [4]
    assert (await got(http, "/v1/arrays"))["items"] == [array]
    assert await got(http, "/v1/arrays/@") == array | {"first_failure": None}
    third = await got(http, f"/v1/sessions/{array['id']}_2")
    assert third["command"] == ["train", "0.2", "2"]
    assert (third["array_id"], third["array_index"]) == (array["id"], 2)
    assert third["reason"] == "ARRAY_LIMIT"
    assert third["wait"]["sentence"].startswith("waits for a place: 2 tasks of its array")


async def test_lists_show_arrays_or_their_tasks(http):
    array = await submitted(http)
    single = (await http.post("/v1/sessions", json={"command": ["true"]})).json()

    assert len((await got(http, "/v1/sessions"))["items"]) == 5
    alone = (await got(http, "/v1/sessions", tasks="false"))["items"]
    assert [session["id"] for session in alone] == [single["id"]]
    part = (await got(http, "/v1/sessions", array=f"{array['id']}_1-2"))["items"]
    assert [session["array_index"] for session in part] == [2, 1]
    page = await got(http, f"/v1/arrays/{array['id']}/tasks", limit=3)
    assert [task["index"] for task in page["items"]] == [0, 1, 2]
    rest = await got(http, f"/v1/arrays/{array['id']}/tasks", cursor=page["next_cursor"])
    assert [task["index"] for task in rest["items"]] == [3]
    assert rest["next_cursor"] is None
    assert (await http.get("/v1/sessions", params={"array": "nobody"})).status_code == 404


async def test_an_array_that_has_ended_is_listed_when_asked_for(http, repository):
    array = await submitted(http, session=SESSION | {"retries": 1})
    for index in range(3):
        await end(http, repository, f"{array['id']}_{index}")
    await end(http, repository, f"{array['id']}_3", exit_code=3)
    assert (await got(http, "/v1/arrays/@"))["result"] == "UNDEFINED"

    await end(http, repository, f"{array['id']}_3", exit_code=4)

    assert (await got(http, "/v1/arrays"))["items"] == []
    (ended,) = (await got(http, "/v1/arrays", live_only=False))["items"]
    assert (ended["succeeded"], ended["failed"], ended["result"]) == (3, 1, "FAILURE")
    assert ended["ended_at"]
    detail = await got(http, "/v1/arrays/@")
    failure = detail["first_failure"]
    assert (failure["index"], failure["exit_code"], failure["agent"]) == (3, 4, "left")
    part = await got(http, "/v1/arrays/@_0-1")
    assert (part["part"], part["size"], part["result"]) == ("0-1", 2, "SUCCESS")


async def test_waiting_for_an_array_ends_with_its_last_task(http, repository):
    array = await submitted(http, params={"lr": ["1", "2"]})
    waiting = asyncio.ensure_future(http.get("/v1/arrays/@/wait", params={"timeout_s": 60}))

    for index in (1, 0):
        await asyncio.sleep(0)
        assert not waiting.done()
        await end(http, repository, f"{array['id']}_{index}")

    late = await got(http, "/v1/arrays/@/wait", timeout_s=60)
    assert late["succeeded"] == 2
    waiting.cancel()


async def test_reasons_are_counted(http):
    array = await submitted(http, running_max=1)
    await http.post(f"/v1/arrays/{array['id']}_2-3/hold")

    why = await got(http, "/v1/arrays/@/why")

    assert why["sentence"] == "4 tasks: 4 waiting"
    assert {one["code"]: one["tasks"] for one in why["waiting"]} == {
        "HELD": 2,
        "ARRAY_LIMIT": 1,
        "NOT_EXAMINED_YET": 1,
    }


async def test_an_array_is_changed_as_a_whole_or_in_part(http, told):
    array = await submitted(http, running_max=1)

    held = (await http.post("/v1/arrays/@/hold")).json()
    released = (await http.post("/v1/arrays/@_1-3/release")).json()
    one = (await http.post(f"/v1/sessions/{array['id']}_1/cancel")).json()
    rest = (await http.post("/v1/arrays/@/cancel", json={"force": True})).json()

    assert held["outcomes"] == {"held": 4}
    assert released["outcomes"] == {"released": 3}
    assert released["array"]["part"] == "1-3"
    assert one["outcome"] == "cancelled"
    assert rest["outcomes"] == {"cancelled": 3, "already-ended": 1}
    assert rest["array"]["cancelled"] == 4
    assert len(told) == 5


async def test_others_see_the_shape_of_an_array_and_may_not_change_it(http):
    made = await http.post("/v1/tokens", json={"user": "bob"})
    bob = bearer(made.json()["token"])
    array = await submitted(http)

    seen = (await http.get(f"/v1/arrays/{array['id']}", headers=bob)).json()
    refused = await http.post(f"/v1/arrays/{array['id']}/cancel", headers=bob)

    assert (seen["command"], seen["params"]) == (None, {"lr": [], "bs": []})
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    audit = (await http.get("/v1/audit")).json()["items"]
    assert [(line["action"], line["target"], line["detail"]) for line in audit[:1]] == [
        ("submit", array["id"], "4 tasks")
    ]


async def test_a_dry_run_tells_of_the_first_task(http, repository):
    answer = await http.post("/v1/arrays/dry-run", json=SWEEP)

    told = answer.json()
    assert (told["size"], told["first_index"]) == (4, 0)
    assert told["command"] == ["train", "0.1", "0"]
    assert (told["first"]["accepted"], told["first"]["starts_now"]) == (True, True)
    assert not repository.live.sessions


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"session": SESSION}, "indexes"),
        ({"session": SESSION, "indexes": "0-10000"}, "indexes"),
        ({"session": SESSION, "indexes": "1-0"}, "indexes"),
        ({"session": SESSION, "indexes": "0-1", "running_max": 0}, "running_max"),
        ({"session": SESSION, "params": {"lr": []}}, "params.lr"),
        ({"session": SESSION, "params": {"lr": ["x" * 131_070]}}, "params"),
        ({"session": {"command": []}, "indexes": "0-1"}, "session.command"),
        ({"session": SESSION | {"cpu_milli": 10**6}, "indexes": "0-1"}, "request"),
        (
            {"session": SESSION | {"name": "{lr}" * 10}, "params": {"lr": ["x" * 30]}},
            "session.name",
        ),
    ],
)
async def test_an_array_that_cannot_be_is_refused(http, body, field):
    answer = await http.post("/v1/arrays", json=body)

    assert answer.status_code == 422
    assert answer.json()["field"] == field


@pytest.mark.parametrize("action", ["", "/why", "/eta", "/history", "/wait", "/output"])
async def test_what_is_for_one_session_names_a_task_of_an_array(http, action):
    array = await submitted(http)

    answer = await http.get(f"/v1/sessions/@{action}")

    assert (answer.status_code, answer.json()["code"]) == (409, "is-an-array")
    assert "@_0" in answer.json()["detail"]
    assert (await http.get(f"/v1/sessions/{array['id']}_9")).status_code == 404
