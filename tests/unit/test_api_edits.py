"""Sessions over HTTP that are to be otherwise: edited, submitted again; the real service."""

import httpx
import pytest

from sokovan.clock import ManualClock
from sokovan.domain.resources import Request
from sokovan.domain.sessions import Dependency
from sokovan.domain.statuses import SessionStatus
from sokovan.domain.where_fields import where_of
from sokovan.scheduler.moves import Outcome, Verdict
from sokovan.scheduler.stages import DEPRIORITIZE_SESSIONS, SCHEDULE_SESSIONS, SWEEP_SESSIONS
from sokovan.store.queries import sessions_with_specs
from tests.build import (
    A1,
    A2,
    NOW,
    a_capacity,
    a_move,
    a_repository,
    a_spec,
    an_agent_hello,
    an_assignment,
    brought_to,
    in_memory,
    submitted,
)
from tests.checked import CheckedRepository
from tests.served import bearer, served

ROOT = "root"


@pytest.fixture
async def repository():
    repository = a_repository(database=in_memory(), clock=ManualClock(NOW), kind=CheckedRepository)
    await repository.register_agent(an_agent_hello(A1, name="left", labels={"rack": "r1"}))
    return repository


@pytest.fixture
def told():
    return []


@pytest.fixture
async def http(repository, told):
    async with served(repository, told.append) as http:
        yield http


async def spec_of(repository, session_id):
    ((_, spec),) = await repository._database.read(lambda tx: sessions_with_specs(tx, [session_id]))
    return spec


async def as_user(http: httpx.AsyncClient, user: str, role: str = "user") -> dict[str, str]:
    made = await http.post("/v1/tokens", json={"user": user, "role": role})
    return bearer(made.json()["token"])


# --- edited ---------------------------------------------------------------------------------------


async def test_what_is_edited_is_in_the_session_and_in_what_it_was_submitted_as(
    http, repository, told
):
    (session_id,) = await submitted(repository, a_spec(walltime_s=60.0))

    answer = await http.patch(
        f"/v1/sessions/{session_id}",
        json={
            "name": "night run",
            "priority": 50,
            "walltime_s": None,
            "pending_timeout_s": 600,
            "cpu_milli": 2000,
            "retries": 2,
            "where": {"constraints": ["rack=r1"]},
        },
    )

    assert answer.status_code == 200
    view = answer.json()
    assert (view["name"], view["priority"], view["walltime_s"]) == ("night run", 50, None)
    assert (view["pending_timeout_s"], view["retries"]) == (600, 2)
    assert (view["cpu_milli"], view["kernels"][0]["cpu_milli"]) == (2000, 2000)
    assert view["where"] == {"constraints": ["rack=r1"]}
    assert (await http.get(f"/v1/sessions/{session_id}")).json() == view
    spec = await spec_of(repository, session_id)
    assert (spec.priority, spec.walltime_s, spec.request.cpu_milli) == (50, None, 2000)
    assert spec.env == a_spec().env
    assert [moved.session_id for moved in told[-1].moved] == [session_id], (
        "a pass is to run at once"
    )


async def test_history_and_the_audit_say_who_changed_what(http, repository):
    (session_id,) = await submitted(repository, a_spec(walltime_s=60.0))

    await http.patch(f"/v1/sessions/{session_id}", json={"priority": 50, "walltime_s": None})

    line = (await http.get(f"/v1/sessions/{session_id}/history")).json()["items"][-1]
    assert (line["reason"], line["from_status"], line["to_status"]) == (
        "edited",
        "PENDING",
        "PENDING",
    )
    assert line["detail"].startswith("priority 10 → 50, walltime_s 60 → none; by ")
    audit = (await http.get("/v1/audit")).json()["items"][0]
    assert (audit["action"], audit["target"]) == ("edit", session_id)
    assert audit["detail"] == "priority 10 → 50, walltime_s 60 → none"


async def test_what_is_left_out_stays_even_a_priority_that_was_lowered(http, repository):
    (session_id,) = await submitted(repository, a_spec(priority=50))
    session = repository.live.sessions[session_id]
    down, up = SCHEDULE_SESSIONS.give_up, DEPRIORITIZE_SESSIONS.success
    await repository.apply([a_move(session, SCHEDULE_SESSIONS, down, Outcome.GIVE_UP)])
    await repository.lower_session_priority([session_id], 10, 0)
    session = repository.live.sessions[session_id]
    await repository.apply([a_move(session, DEPRIORITIZE_SESSIONS, up)])

    view = (await http.patch(f"/v1/sessions/{session_id}", json={"name": "x"})).json()

    assert (view["name"], view["priority"]) == ("x", 40)


async def test_where_it_may_go_changes_by_part_and_is_taken_back_by_null(http, repository):
    where = where_of({"constraints": ["rack=r1"], "exclude": ["right"]})
    (session_id,) = await submitted(repository, a_spec(where=where, allow_infeasible=True))
    path = f"/v1/sessions/{session_id}"

    first = (await http.patch(path, json={"where": {"constraints": []}})).json()
    then = (await http.patch(path, json={"where": None})).json()

    assert first["where"] == {"exclude": ["right"]}
    assert then["where"] is None


async def test_a_begin_time_that_is_taken_back_begins_the_wait_now(http, repository):
    (session_id,) = await submitted(repository, a_spec(begin_at=NOW + 3600))
    repository._clock.advance(60)

    view = (await http.patch(f"/v1/sessions/{session_id}", json={"begin_at": None})).json()

    assert view["begin_at"] is None
    assert repository.live.sessions[session_id].pending_since == NOW + 60


async def test_a_later_begin_time_gives_no_age(http, repository):
    (session_id,) = await submitted(repository)
    repository._clock.advance(60)

    await http.patch(f"/v1/sessions/{session_id}", json={"begin_at": "2001-09-09T02:46:40Z"})

    assert repository.live.sessions[session_id].pending_since == NOW + 3600


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"priority": 101}, "priority"),
        ({"walltime_s": -1}, "walltime_s"),
        ({"gpu_shares": 1500}, "gpu_shares"),
        ({"where": {"constraints": ["rack"]}}, "where.constraints[0]"),
        ({"where": {"agents": ["nobody"]}}, "where.agents"),
        ({"begin_at": "tomorrow"}, "begin_at"),
        ({"name": None}, "name"),
        ({"command": ["true"]}, "command"),
        ({"owner": "eve"}, "owner"),
        ({}, None),
    ],
)
async def test_what_nobody_could_have_submitted_is_refused_and_changes_nothing(
    http, repository, body, field
):
    (session_id,) = await submitted(repository)
    before = repository.live.sessions[session_id]

    answer = await http.patch(f"/v1/sessions/{session_id}", json=body)

    assert (answer.status_code, answer.json().get("field")) == (422, field)
    assert repository.live.sessions[session_id] is before
    assert len((await http.get(f"/v1/sessions/{session_id}/history")).json()["items"]) == 2


async def test_what_could_never_fit_is_refused_unless_it_may_wait_for_that(http, repository):
    (session_id,) = await submitted(repository)
    path = f"/v1/sessions/{session_id}"

    refused = await http.patch(path, json={"cpu_milli": 5000})
    allowed = await http.patch(path, json={"cpu_milli": 5000, "allow_infeasible": True})

    assert refused.json()["code"] == "infeasible-request"
    assert allowed.json()["cpu_milli"] == 5000


async def test_what_asks_for_nothing_new_may_be_edited_though_it_does_not_fit_any_more(
    http, repository
):
    (session_id,) = await submitted(repository, a_spec(request=Request(4000)))
    await repository.register_agent(
        an_agent_hello(A1, name="left", capacity=a_capacity(cpu_milli=2000))
    )

    answer = await http.patch(f"/v1/sessions/{session_id}", json={"priority": 50})

    assert answer.status_code == 200


async def test_a_placement_that_was_decided_before_an_edit_is_dropped(http, repository):
    await repository.register_agent(an_agent_hello(A2, name="right", labels={"rack": "r2"}))
    (session_id,) = await submitted(repository)
    decided_on = repository.live.sessions[session_id]
    move = a_move(decided_on, SCHEDULE_SESSIONS, assignment=an_assignment(decided_on, A1))

    where = {"constraints": ["rack=r2"]}
    answer = await http.patch(f"/v1/sessions/{session_id}", json={"where": where})
    applied = await repository.apply([move])

    assert answer.status_code == 200
    assert [verdict for _, verdict in applied.verdicts] == [Verdict.SUPERSEDED]
    assert repository.live.sessions[session_id].status is SessionStatus.PENDING


async def test_an_edit_that_a_placement_overtakes_is_refused_with_what_it_is_now(
    http, repository, monkeypatch
):
    (session_id,) = await submitted(repository)
    edit = repository.edit

    async def overtaken(session, *args, **kwargs):
        monkeypatch.undo()
        move = a_move(session, SCHEDULE_SESSIONS, assignment=an_assignment(session, A1))
        await repository.apply([move])
        return await edit(session, *args, **kwargs)

    monkeypatch.setattr(repository, "edit", overtaken)
    answer = await http.patch(f"/v1/sessions/{session_id}", json={"priority": 50})

    assert (answer.status_code, answer.json()["code"]) == (409, "illegal-state")
    assert "is SCHEDULED; only a PENDING one can be edited" in answer.json()["detail"]
    assert repository.live.sessions[session_id].priority == 10


async def test_of_two_edits_at_the_same_time_neither_is_lost(http, repository, monkeypatch):
    (session_id,) = await submitted(repository)
    edit = repository.edit

    async def overtaken(*args, **kwargs):
        monkeypatch.undo()
        await http.patch(f"/v1/sessions/{session_id}", json={"name": "theirs"})
        return await edit(*args, **kwargs)

    monkeypatch.setattr(repository, "edit", overtaken)
    view = (await http.patch(f"/v1/sessions/{session_id}", json={"priority": 50})).json()

    assert (view["name"], view["priority"]) == ("theirs", 50)


async def test_a_pending_timeout_that_is_edited_ends_the_wait(http, repository):
    (session_id,) = await submitted(repository, a_spec(pending_timeout_s=600.0))
    await http.patch(f"/v1/sessions/{session_id}", json={"pending_timeout_s": 30})
    repository._clock.advance(31)

    load = repository.load_for_stage("default", SWEEP_SESSIONS, 60.0)
    (late,) = await repository.get_pending_timeout_sessions_by_ids([session_id])

    assert [session.session_id for session in load.taken] == [session_id]
    assert late.timeout_s == 30


async def test_of_a_running_session_its_user_may_shorten_the_walltime_and_lengthen_it_not(
    http, repository
):
    eve = await as_user(http, "eve")
    ids = await brought_to(repository, SessionStatus.RUNNING, a_spec(owner="eve", walltime_s=600.0))
    path = f"/v1/sessions/{ids[0]}"

    shorter = await http.patch(path, json={"walltime_s": 60}, headers=eve)
    longer = await http.patch(path, json={"walltime_s": 61}, headers=eve)
    endless = await http.patch(path, json={"walltime_s": None}, headers=eve)
    other = await http.patch(path, json={"priority": 50}, headers=eve)
    by_admin = await http.patch(path, json={"walltime_s": 6000})

    assert shorter.json()["walltime_s"] == 60
    assert (longer.status_code, longer.json()["code"]) == (403, "forbidden")
    assert "only an administrator may make it longer" in endless.json()["detail"]
    assert (other.status_code, other.json()["code"]) == (409, "illegal-state")
    assert by_admin.json()["walltime_s"] == 6000


async def test_only_the_owner_and_administrators_edit_and_submit_again(http, repository):
    (session_id,) = await submitted(repository, a_spec(owner="eve"))
    mallory, watcher = await as_user(http, "mallory"), await as_user(http, "eve", "read-only")
    path = f"/v1/sessions/{session_id}"

    answers = [
        await http.patch(path, json={"priority": 90}, headers=mallory),
        await http.post(f"{path}/redo", headers=mallory),
        await http.patch(path, json={"priority": 90}, headers=watcher),
        await http.post(f"{path}/redo", headers=watcher),
    ]

    assert {answer.json()["code"] for answer in answers} == {"forbidden"}
    assert list(repository.live.sessions) == [session_id]


# --- submitted again ------------------------------------------------------------------------------


async def test_an_ended_session_is_submitted_again_as_it_was_for_its_owner(http, repository, told):
    spec = a_spec(owner="eve", env={"SEED": "7"}, cwd="/data", held=True, retries=1)
    (first,) = await submitted(repository, spec)
    await repository.request_termination([first], force=False, detail="")

    answer = await http.post(f"/v1/sessions/{first}/redo")

    assert answer.status_code == 201
    view = answer.json()
    assert (view["owner"], view["status"], view["held"]) == ("eve", "PENDING", False)
    again = await spec_of(repository, view["id"])
    assert (again.command, again.env, again.cwd, again.retries) == (
        spec.command,
        spec.env,
        "/data",
        1,
    )
    lines = (await http.get(f"/v1/sessions/{view['id']}/history")).json()["items"]
    assert lines[-1]["reason"] == "submitted-again"
    assert lines[-1]["detail"].startswith(f"redo of {first}; by ")
    audit = (await http.get("/v1/audit")).json()["items"][0]
    assert (audit["action"], audit["target"]) == ("redo", view["id"])
    assert [moved.session_id for moved in told[-1].moved] == [view["id"]]


async def test_it_may_be_different_and_then_the_first_one_stays_as_it_was(http, repository):
    (first,) = await submitted(repository)
    before = repository.live.sessions[first]

    body = {"cpu_milli": 2000, "held": True, "name": "again"}
    view = (await http.post(f"/v1/sessions/{first}/redo", json=body)).json()
    refused = await http.post(f"/v1/sessions/{first}/redo", json={"cpu_milli": 9000})
    nowhere = await http.post(f"/v1/sessions/{first}/redo", json={"scaling_group": "nowhere"})

    assert (view["cpu_milli"], view["held"], view["name"]) == (2000, True, "again")
    assert refused.json()["code"] == "infeasible-request"
    assert nowhere.json()["code"] == "unknown-group"
    assert repository.live.sessions[first] is before
    assert list(repository.live.sessions) == [first, view["id"]]


async def test_the_same_creation_id_yields_the_same_session(http, repository):
    (first,) = await submitted(repository)
    path, body = f"/v1/sessions/{first}/redo", {"creation_id": "c1", "priority": 20}

    one = await http.post(path, json=body)
    await http.patch(f"/v1/sessions/{first}", json={"name": "edited meanwhile"})
    same = await http.post(path, json=body)
    other = await http.post(path, json=body | {"priority": 30})

    assert one.json()["id"] == same.json()["id"]
    assert (other.status_code, other.json()["code"]) == (409, "creation-conflict")
    lines = (await http.get(f"/v1/sessions/{one.json()['id']}/history")).json()["items"]
    assert [line["reason"] for line in lines].count("submitted-again") == 1


async def test_it_waits_for_what_the_first_one_still_waits_for(http, repository):
    (needed,) = await submitted(repository)
    (first,) = await submitted(repository, a_spec(depends_on=(Dependency(needed),)))

    while_it_waits = (await http.post(f"/v1/sessions/{first}/redo")).json()
    await repository.request_termination([needed], force=False, detail="")
    ended = (await http.get(f"/v1/sessions/{first}")).json()
    afterwards = (await http.post(f"/v1/sessions/{first}/redo")).json()

    assert [d["session_id"] for d in while_it_waits["depends_on"]] == [needed]
    assert ended["reason"] == "DEPENDENCY_FAILED"
    assert afterwards["depends_on"] == []


async def test_a_begin_time_that_has_come_counts_no_more(http, repository):
    (first,) = await submitted(repository, a_spec(begin_at=NOW + 60))
    early = (await http.post(f"/v1/sessions/{first}/redo")).json()
    repository._clock.advance(61)
    late = (await http.post(f"/v1/sessions/{first}/redo")).json()

    assert early["begin_at"] is not None
    assert late["begin_at"] is None
