"""Scaling groups over HTTP: shown with their sources, made, given a policy, removed."""

import pytest
from sqlalchemy import update

from sokovan.clock import ManualClock
from sokovan.config import load_config
from sokovan.domain.cluster import AgentStatus, QueueOrder
from sokovan.domain.errors import ConfigError, StoreDamagedError
from sokovan.domain.resources import Request
from sokovan.domain.sessions import Limit
from sokovan.domain.statuses import SessionStatus
from sokovan.placement.engine import place
from sokovan.policies import check_agents
from sokovan.scheduler.handlers.base import LifecycleHandler
from sokovan.scheduler.results import SessionExecutionResult
from sokovan.scheduler.stages import CHECK_PRECONDITION, SCHEDULE_SESSIONS, SWEEP_SESSIONS
from sokovan.store.tables import scaling_groups
from tests.build import (
    A1,
    A2,
    NOW,
    a_coordinator,
    a_repository,
    a_spec,
    an_agent_hello,
    brought_to,
    in_memory,
    submitted,
)
from tests.checked import CheckedRepository
from tests.served import bearer, served

SETTINGS = """
[groups.default]
order = "fifo"
ageing_s = 0

[groups.gpu]
limits.start-sessions.attempts_max = 3
"""


@pytest.fixture
def config(tmp_path):
    (tmp_path / "config.toml").write_text(SETTINGS)
    return load_config(tmp_path, {})


@pytest.fixture
def database():
    return in_memory()


@pytest.fixture
def opened(config, database):
    async def opened():
        return a_repository(
            *config.scaling_groups(),
            database=database,
            clock=ManualClock(NOW),
            kind=CheckedRepository,
        )

    return opened


@pytest.fixture
async def repository(opened):
    repository = await opened()
    await repository.register_agent(an_agent_hello(A1, name="left"))
    return repository


@pytest.fixture
def told():
    return []


@pytest.fixture
async def http(repository, told, config):
    async with served(repository, told.append, config) as http:
        yield http


async def order_of(repository, *ids):
    names = {session_id: repository.live.sessions[session_id].name for session_id in ids}
    return [names[i] for i in place(repository.snapshot("default")).placed]


# --- shown ----------------------------------------------------------------------------------------


async def test_a_group_is_shown_with_what_it_has_who_waits_and_where_each_setting_comes_from(
    http, repository
):
    await brought_to(repository, SessionStatus.RUNNING)
    await submitted(repository, a_spec(), a_spec(held=True))
    await http.patch("/v1/groups/default", json={"policy": {"order": "lifo"}})

    view = (await http.get("/v1/groups/default")).json()

    assert (view["source"], view["agents"]) == ("config.toml:2", 1)
    assert view["capacity"]["cpu_milli"] == 4000
    assert view["held"]["cpu_milli"] == 1000
    assert (view["waiting"], view["running"]) == (2, 1)
    assert view["policy"]["order"] == {"value": "lifo", "source": "groups set"}
    assert view["policy"]["ageing_s"] == {"value": 0, "source": "config.toml:4"}
    assert view["policy"]["ranking"] == {"value": "useful", "source": "default"}
    gpu = (await http.get("/v1/groups/gpu")).json()
    limit = gpu["policy"]["limits.start-sessions.attempts_max"]
    assert limit == {"value": 3, "source": "config.toml:7"}
    assert (await http.get("/v1/groups")).json() == {"items": [view, gpu]}


async def test_a_group_that_there_is_not_is_said(http):
    body = {"policy": {"order": "lifo"}}
    answers = [
        await http.get("/v1/groups/nowhere"),
        await http.patch("/v1/groups/nowhere", json=body),
        await http.delete("/v1/groups/nowhere"),
    ]

    assert {(a.status_code, a.json()["code"]) for a in answers} == {(404, "group-not-found")}


# --- set ------------------------------------------------------------------------------------------


async def test_a_policy_counts_at_once_for_those_who_wait_already(http, repository, told):
    ids = await submitted(
        repository, *(a_spec(name=name, request=Request(2000)) for name in ("one", "two", "three"))
    )
    assert await order_of(repository, *ids) == ["one", "two"]
    repository.snapshot("default").queue.news.clear()
    told.clear()

    await http.patch("/v1/groups/default", json={"policy": {"order": "lifo"}})

    assert await order_of(repository, *ids) == ["three", "two"]
    assert not repository.snapshot("default").queue.news, "nobody has news but by what is placed"
    assert [applied.policies for applied in told] == [{"default"}]


async def test_a_limit_on_the_kernels_of_an_agent_counts_at_once(http, repository):
    ids = await submitted(repository, a_spec(name="one"), a_spec(name="two"))
    assert await order_of(repository, *ids) == ["one", "two"]

    await http.patch("/v1/groups/default", json={"policy": {"agent_kernels_max": 1}})

    assert await order_of(repository, *ids) == ["one"]


async def test_what_is_set_wins_over_the_settings_after_a_restart_and_can_be_taken_back(
    http, opened, config
):
    body = {"policy": {"order": "drf", "limits.start-sessions.phase_s_max": 600, "requeues_max": 0}}
    await http.patch("/v1/groups/default", json=body)

    back = dict.fromkeys(body["policy"])

    second = await opened()
    group = second.groups["default"]
    async with served(second, config=config) as again:
        view = (await again.patch("/v1/groups/default", json={"policy": back})).json()
    third = await opened()

    assert (group.order, group.requeues_max, group.ageing_s) == (QueueOrder.DRF, 0, 0)
    assert group.limits == {"start-sessions": Limit(None, 600)}
    assert view["policy"]["order"] == {"value": "fifo", "source": "config.toml:3"}
    assert "limits.start-sessions.phase_s_max" not in view["policy"]
    assert third.groups == {g.name: g for g in third.configured.values()}


@pytest.mark.parametrize(
    ("policy", "field", "said"),
    [
        ({"order": "best"}, "policy.order", "order: 'best' does not exist; choose one of fifo"),
        ({"order": 1}, "policy.order", "order: expected a text, not 1"),
        ({"ageing_s": -1}, "policy.ageing_s", "ageing_s: -1 is out of range"),
        ({"ageing_s": True}, "policy.ageing_s", "should be a text or a number"),
        ({"kernels_max": 0}, "policy.kernels_max", "kernels_max: 0 is out of range"),
        ({"requeues_max": 1.5}, "policy.requeues_max", "requeues_max: expected a whole number"),
        ({"colour": "red"}, "policy.colour", "colour: no such setting; there are order, ranking"),
        ({"colour": None}, "policy.colour", "colour: no such setting"),
        ({"order.x": "lifo"}, "policy.order.x", "order.x: no such setting"),
        ({"limits": 3}, "policy.limits", "limits: no such setting"),
        ({"limits.x.y": 3}, "policy.limits.x.y", "limits.STAGE.attempts_max"),
        (
            {"limits.sleep.attempts_max": 3},
            "policy.limits.sleep",
            "no stage 'sleep' has a limit; choose one of",
        ),
        (
            {"limits.start-sessions.attempts_max": 1.5},
            "policy.limits.start-sessions.attempts_max",
            "expected a whole number, not 1.5",
        ),
        (
            {"agent_grace_s": 1},
            "policy.agent_grace_s",
            "'local' is given up after 41 s of silence",
        ),
        ({}, "policy", "at least 1 item"),
    ],
)
async def test_a_policy_that_makes_no_sense_is_refused_as_it_is_in_the_settings(
    http, repository, policy, field, said
):
    before = repository.groups["default"]

    answer = await http.patch("/v1/groups/default", json={"policy": policy})

    assert answer.status_code == 422
    assert (answer.json()["field"][: len(field)], said in answer.json()["detail"]) == (field, True)
    assert repository.groups["default"] is before
    assert repository.policies == {}


async def test_only_administrators_change_groups_and_the_audit_says_who_did(http):
    made = await http.post("/v1/tokens", json={"user": "eve"})
    eve = bearer(made.json()["token"])

    refused = [
        await http.post("/v1/groups", json={"name": "night"}, headers=eve),
        await http.patch("/v1/groups/default", json={"policy": {"order": "lifo"}}, headers=eve),
        await http.delete("/v1/groups/default", headers=eve),
    ]
    await http.patch("/v1/groups/default", json={"policy": {"order": "lifo", "ageing_s": None}})

    assert {answer.json()["code"] for answer in refused} == {"forbidden"}
    assert (await http.get("/v1/groups", headers=eve)).status_code == 200
    line = (await http.get("/v1/audit")).json()["items"][0]
    assert (line["action"], line["target"]) == ("group set", "default")
    assert line["detail"] == "order=lifo ageing_s="


# --- made and removed -----------------------------------------------------------------------------


async def test_a_group_is_made_takes_sessions_and_survives_a_restart(http, repository, opened):
    body = {"name": "night", "policy": {"order": "lifo", "kernels_max": 2}}
    made = await http.post("/v1/groups", json=body)
    await repository.register_agent(an_agent_hello(A2, name="right", scaling_group="night"))

    session = {"command": ["true"], "scaling_group": "night"}
    accepted = await http.post("/v1/sessions", json=session)
    refused = await http.post("/v1/sessions", json=session | {"kernels": 3})

    assert (made.status_code, made.json()["source"]) == (201, "groups create")
    assert accepted.status_code == 201
    assert "2, the most that the group night allows" in refused.json()["detail"]
    assert list(place(repository.snapshot("night")).placed) == [accepted.json()["id"]]
    second = await opened()
    assert second.groups["night"].order is QueueOrder.LIFO


async def test_a_new_manager_takes_the_lease_of_a_group_that_was_made(http, repository, opened):
    await http.post("/v1/groups", json={"name": "night"})
    fencing = dict(repository._fencing)

    second = await opened()

    assert fencing.keys() == {"default", "gpu", "night"}
    assert second._fencing == {name: token + 1 for name, token in fencing.items()}


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"name": "default"}, 409, "there is a group default already"),
        ({"name": ".x"}, 422, "'.x' is no name"),
        ({"name": "a/b"}, 422, "'a/b' is no name"),
        ({"name": "x", "policy": {"order": "best"}}, 422, "order: 'best' does not exist"),
        ({"name": "x", "policy": {"order": None}}, 422, "policy.order"),
    ],
)
async def test_a_group_that_could_not_be_is_not_made(http, repository, body, status, said):
    answer = await http.post("/v1/groups", json=body)

    assert (answer.status_code, said in answer.text) == (status, True)
    assert repository.groups.keys() == {"default", "gpu"}


async def test_a_group_is_removed_when_nothing_is_left_of_it(http, repository, opened):
    await http.post("/v1/groups", json={"name": "night"})
    await repository.register_agent(an_agent_hello(A2, name="right", scaling_group="night"))
    (waits,) = await submitted(repository, a_spec(scaling_group="night"))

    with_agents = await http.delete("/v1/groups/night")
    await repository.set_agent_status(A2, AgentStatus.GONE)
    await repository.remove_agent(A2)
    with_sessions = await http.delete("/v1/groups/night")
    await repository.request_termination([waits], force=False, detail="")
    configured = await http.delete("/v1/groups/gpu")
    removed = await http.delete("/v1/groups/night")

    assert "has agents: right" in with_agents.json()["detail"]
    assert "1 sessions of the group night have not ended" in with_sessions.json()["detail"]
    assert "is in the settings" in configured.json()["detail"]
    assert {with_agents.status_code, with_sessions.status_code, configured.status_code} == {409}
    assert (removed.status_code, removed.json()["name"]) == (200, "night")
    assert (await http.get("/v1/groups/night")).status_code == 404
    assert (await http.post("/v1/groups", json={"name": "night"})).status_code == 201
    assert (await http.delete("/v1/groups/night")).status_code == 200
    assert "night" not in (await opened()).groups


async def test_a_group_taken_out_of_the_settings_is_driven_until_its_sessions_have_ended(
    repository, database
):
    await submitted(repository, a_spec(scaling_group="gpu"))
    second = a_repository("default", database=database, clock=ManualClock(NOW))

    load = second.load_for_stage("gpu", SCHEDULE_SESSIONS, 60.0)
    async with served(second) as http:
        view = (await http.get("/v1/groups/gpu")).json()
        for session_id in list(second.live.sessions):
            await second.request_termination([session_id], force=False, detail="")
        removed = await http.delete("/v1/groups/gpu")

    assert len(load.taken) == 1
    assert (view["source"], view["waiting"]) == ("live sessions", 1)
    assert removed.status_code == 200
    assert second.groups.keys() == {"default"}


# --- what follows ---------------------------------------------------------------------------------


class Counting(LifecycleHandler):
    def __init__(self, stage):
        self.stage = stage
        self.groups = []

    async def execute(self, scaling_group, sessions):
        self.groups.append(scaling_group)
        return SessionExecutionResult()


async def test_the_coordinator_drives_a_group_from_when_it_is_made_until_it_is_removed(repository):
    handler = Counting(SCHEDULE_SESSIONS)
    coordinator = a_coordinator(repository, handler, clock=repository._clock)
    await coordinator.run_due()
    async with served(repository, coordinator.tell) as http:
        await http.post("/v1/groups", json={"name": "night"})
        body = {"command": ["true"], "scaling_group": "night", "allow_infeasible": True}
        session = (await http.post("/v1/sessions", json=body)).json()
        await coordinator.run_due()
        while_it_is_there = list(handler.groups)
        await http.post(f"/v1/sessions/{session['id']}/cancel")
        await coordinator.run_due()
        removed = await http.delete("/v1/groups/night")
        repository._clock.advance(3600)
        await coordinator.run_due()

    assert "night" in while_it_is_there
    assert removed.status_code == 200
    assert ("night", SCHEDULE_SESSIONS.name) not in coordinator._runs


async def test_a_pending_timeout_that_is_set_for_a_group_ends_waits_in_time(repository):
    handler = Counting(SWEEP_SESSIONS)
    coordinator = a_coordinator(
        repository, handler, Counting(CHECK_PRECONDITION), clock=repository._clock
    )
    await submitted(repository, a_spec(held=True))
    await coordinator.run_due()
    assert handler.groups == [], "nobody has a limit yet"

    async with served(repository, coordinator.tell) as http:
        await http.patch("/v1/groups/default", json={"policy": {"pending_timeout_s": 10}})
    await coordinator.run_due()

    assert handler.groups == ["default"]
    assert coordinator.next_at() <= NOW + 10


# --- the agents of the settings -------------------------------------------------------------------


def test_an_agent_may_be_in_a_group_that_only_the_store_knows(tmp_path, repository):
    (tmp_path / "config.toml").write_text('[[agents]]\nscaling_group = "night"')
    config = load_config(tmp_path, {})

    with pytest.raises(ConfigError, match="in the group 'night', which there is not; add a sec"):
        check_agents(config, repository.groups.values())
    check_agents(config, [*repository.groups.values(), *a_repository("night").groups.values()])


def test_an_agent_must_stop_what_will_be_started_elsewhere_before_it_is(tmp_path):
    (tmp_path / "config.toml").write_text("[[agents]]\ncut_off_stop_s = 340")
    config = load_config(tmp_path, {})

    with pytest.raises(ConfigError, match="make its cut_off_stop_s shorter"):
        check_agents(config, config.scaling_groups())


@pytest.mark.parametrize("policy", ["7", "[]", '{"order": "best"}', '{"colour": 1}', "{"])
async def test_a_policy_that_nobody_could_have_set_is_damage(repository, opened, policy):
    await repository._database.write(
        lambda tx: tx.execute(update(scaling_groups).values(policy=policy))
    )

    with pytest.raises(StoreDamagedError, match="scaling_groups: the row default"):
        await opened()
