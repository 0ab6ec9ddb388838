"""What `/metrics` tells is what happened; every name is documented and on the dashboard."""

import asyncio
import json
import random
import re
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from sokovan.api.metrics import table
from sokovan.api.metrics.meters import Meters
from sokovan.clock import ManualClock
from sokovan.config import StoreConfig
from sokovan.domain.cluster import AgentStatus
from sokovan.domain.errors import AgentError, StoreUnavailableError
from sokovan.domain.reasons import Wait, WaitReason
from sokovan.domain.resources import Request
from sokovan.domain.sessions import Dependency
from sokovan.domain.statuses import SessionStatus
from sokovan.scheduler import stages
from sokovan.scheduler.messages import ReportState
from sokovan.scheduler.results import NOTHING
from sokovan.store.sqlite import open_sqlite
from sokovan.store.threads import ThreadedDatabase
from tests.build import (
    A1,
    A2,
    GIB,
    NOW,
    a_coordinator,
    a_move,
    a_repository,
    a_spec,
    an_agent_hello,
    asked,
    brought_to,
    placed,
    said,
    submitted,
)
from tests.checked import CheckedRepository
from tests.served import assembled, bearer, client_of

S = SessionStatus
ROOT = Path(__file__).parents[2]
OLD_S = 6.0
"""After so long, the state is looked at again."""


@pytest.fixture
def clock():
    return ManualClock(NOW)


@pytest.fixture
async def repository(clock):
    repository = a_repository("default", "other", clock=clock, kind=CheckedRepository)
    await repository.register_agent(an_agent_hello(A1))
    return repository


@pytest.fixture
def api(repository):
    return assembled(repository)


@pytest.fixture
async def http(api):
    async with client_of(api) as http:
        yield http


class Scrape:
    """What Prometheus has read, by name and labels."""

    def __init__(self, text):
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self._samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families.values()
            for sample in family.samples
        }

    def __call__(self, name, **labels):
        return self._samples[f"sokovan_{name}", frozenset(labels.items())]

    def of(self, name, *by):
        """Return the values that are not 0, by the values of these labels."""
        found = {}
        for (sample, labels), value in self._samples.items():
            if sample == f"sokovan_{name}" and value:
                found[tuple(dict(labels)[label] for label in by)] = value
        return found


@pytest.fixture
def scrape(http, clock):
    async def read():
        clock.advance(OLD_S)
        answer = await http.get("/metrics")
        assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        return Scrape(answer.text)

    return read


def ours(names):
    return {name for name in names if not name.startswith(("process_", "python_"))}


# --- names ----------------------------------------------------------------------------------------


async def test_there_are_exactly_the_documented_names(scrape, http):
    documented = {metric.name.removesuffix("_total") for metric in table.METRICS}
    named = {label for metric in table.METRICS for label in metric.labels}

    assert ours((await scrape()).families) == documented
    assert named == set(table.LABELS)
    page = (ROOT / "docs/reference/metrics.md").read_text()
    assert all(f"| `{metric.name}` |" in page for metric in table.METRICS)

    answer = await http.get(
        "/metrics", headers={"accept": "application/openmetrics-text; version=x.y"}
    )
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    families = openmetrics.text_string_to_metric_families(answer.text)
    assert ours(family.name for family in families) == documented


def test_the_dashboard_shows_every_metric_and_no_other():
    dashboard = json.loads((ROOT / "docs/grafana/sokovan.json").read_text())
    panels = dashboard["panels"]
    asked_for = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    shown = ours(re.findall(r"\b(?:sokovan|process|python)_\w+", " ".join(asked_for)))

    known = {m.name for m in table.METRICS}
    parts = {
        f"{m.name}_{part}"
        for m in table.METRICS
        if m.kind is table.Kind.HISTOGRAM
        for part in ("bucket", "sum", "count")
    }
    assert shown <= known - {part.rpartition("_")[0] for part in parts} | parts
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown} == known
    assert dashboard["uid"] == "sokovan"
    variables = {v["name"]: v["type"] for v in dashboard["templating"]["list"]}
    assert variables == {"datasource": "datasource", "instance": "query", "group": "query"}
    assert {p["datasource"]["uid"] for p in panels if p["type"] != "row"} == {"${datasource}"}
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_the_dashboard_selects_only_by_labels_that_a_metric_has():
    labels = {metric.name: {*metric.labels, "instance"} for metric in table.METRICS}
    for target in re.findall(
        r'"expr": "((?:[^"\\]|\\.)*)"', (ROOT / "docs/grafana/sokovan.json").read_text()
    ):
        for name, selector in re.findall(r"(sokovan_\w+)\{(.*?)\}", target):
            known = labels[re.sub(r"_(bucket|sum|count)$", "", name)]
            assert set(re.findall(r"(\w+)[!=]=?~?", selector)) <= known, target


# --- who may ask ----------------------------------------------------------------------------------


async def test_any_token_reads_the_metrics_and_nobody_else_does(http):
    made = await http.post("/v1/tokens", json={"user": "prometheus", "role": "read-only"})

    assert made.status_code == 201
    token = made.json()["token"]
    assert (await http.get("/metrics", headers=bearer(token))).status_code == 200
    assert (await http.get("/metrics", headers=bearer("wrong"))).status_code == 401


# --- the state ------------------------------------------------------------------------------------


async def test_sessions_agents_and_holds_are_counted_by_group(repository, scrape):
    await repository.register_agent(an_agent_hello(A2, scaling_group="other"))
    spec = a_spec(kernel_count=2, request=Request(500, GIB, gpu_shares=250))
    await brought_to(repository, S.RUNNING, spec)
    await submitted(repository, a_spec(), a_spec(scaling_group="other"))
    await repository.set_drained(A2, drained=True)
    await repository.set_agent_status(A2, AgentStatus.LOST)

    seen = await scrape()

    assert seen.of("sessions", "group", "status") == {
        ("default", "RUNNING"): 1,
        ("default", "PENDING"): 1,
        ("other", "PENDING"): 1,
    }
    assert seen.of("kernels_running", "group") == {("default",): 2}
    assert seen.of("agents", "group", "state") == {("default", "ALIVE"): 1, ("other", "LOST"): 1}
    assert seen.of("agents_drained", "group") == {("other",): 1}
    assert seen("capacity_cpu_cores", group="default", state="ALIVE") == 4
    assert seen("capacity_mem_bytes", group="other", state="LOST") == 16 * GIB
    assert seen.of("capacity_gpus", "group", "state") == {
        ("default", "ALIVE"): 2,
        ("other", "LOST"): 2,
    }
    assert seen.of("held_cpu_cores", "group", "state") == {("default", "ALIVE"): 1}
    assert seen.of("held_mem_bytes", "group", "state") == {("default", "ALIVE"): 2 * GIB}
    assert seen.of("leftovers", "group") == {}


async def test_what_was_sent_back_is_requeued_and_may_leave_something_over(
    repository, scrape, clock
):
    (session_id,) = await brought_to(repository, S.CREATING)
    move = a_move(
        repository.live.sessions[session_id],
        stages.START_SESSIONS,
        stages.START_SESSIONS.expired,
        reason="phase-timeout",
    )
    await repository.apply([move])

    seen = await scrape()

    assert seen.of("leftovers", "group") == {("default",): 1}
    assert seen.of("held_cpu_cores", "group", "state") == {("default", "ALIVE"): 1}
    assert seen.of("sessions_requeued_total", "group") == {("default",): 1}
    assert seen.of("sessions_submitted_total", "group") == {("default",): 1}


async def test_the_state_is_looked_at_again_after_a_few_seconds_only(repository, scrape, http):
    assert (await scrape()).of("sessions", "status") == {}
    await submitted(repository)

    assert Scrape((await http.get("/metrics")).text).of("sessions", "status") == {}
    assert (await scrape()).of("sessions", "status") == {("PENDING",): 1}


async def test_waiting_sessions_are_counted_by_reason_and_each_reason_is_timed(
    repository, scrape, clock
):
    first, second, third = await submitted(repository, a_spec(), a_spec(), a_spec())
    repository.note_waits({first: Wait(WaitReason.TOO_LITTLE_CPU)})
    repository.note_waits({second: Wait(WaitReason.TOO_LITTLE_CPU)})
    clock.advance(10)
    repository.note_waits({i: Wait(WaitReason.TOO_LITTLE_MEM) for i in (first, third)})

    seen = await scrape()
    assert seen.of("sessions_waiting", "group", "reason") == {
        ("default", "TOO_LITTLE_CPU"): 1,
        ("default", "TOO_LITTLE_MEM"): 2,
    }
    assert seen("reason_wait_seconds_sum", group="default", reason="TOO_LITTLE_CPU") == 10

    await repository.refresh()  # what is noted is kept
    await placed(repository, first, second)  # OLD_S later

    seen = await scrape()
    assert seen.of("sessions_waiting", "group", "reason") == {("default", "TOO_LITTLE_MEM"): 1}
    assert seen("reason_wait_seconds_sum", group="default", reason="TOO_LITTLE_CPU") == 26
    assert seen("reason_wait_seconds_count", group="default", reason="TOO_LITTLE_CPU") == 2
    assert seen("reason_wait_seconds_sum", group="default", reason="TOO_LITTLE_MEM") == OLD_S


async def test_a_session_that_no_pass_has_looked_at_waits_for_that(repository, scrape):
    await submitted(repository)

    seen = await scrape()

    assert seen.of("sessions_waiting", "reason") == {("NOT_EXAMINED_YET",): 1}


@pytest.mark.parametrize("seed", range(4))
async def test_the_longest_wait_is_that_of_the_session_that_could_be_placed_longest(
    repository, scrape, clock, seed
):
    chance = random.Random(seed)
    ids = []
    for _ in range(25):
        clock.advance(chance.choice((0, 1, 7)))
        begin_at = chance.choice((None, None, clock.now() + 40))
        needs = [Dependency(chance.choice(ids))] if ids and chance.random() < 0.2 else []
        held = chance.random() < 0.3
        ids += await submitted(
            repository, a_spec(held=held, begin_at=begin_at, depends_on=tuple(needs))
        )
    for session_id in chance.sample(ids, 3):  # placed, and sent back
        session = repository.live.sessions[session_id]
        if not (session.held or session.unmet):
            await placed(repository, session_id)
            clock.advance(1)
            session = repository.live.sessions[session_id]
            await repository.apply(
                [a_move(session, stages.CHECK_PRECONDITION, stages.CHECK_PRECONDITION.expired)]
            )
    if seed % 2:
        await repository.refresh()  # read in another order
    seen = await scrape()

    could_be_placed = [
        clock.now() - session.pending_since
        for session in repository.live.sessions.values()
        if session.status is S.PENDING and not session.held and not session.unmet
    ]
    assert seen("oldest_wait_seconds", group="default") == max(could_be_placed)
    assert seen("oldest_wait_seconds", group="other") == 0


# --- what happens to sessions ---------------------------------------------------------------------


async def test_a_session_is_timed_from_its_submission_to_its_end(repository, scrape, clock):
    (session_id,) = await submitted(repository)
    clock.advance(20)
    await placed(repository, session_id)
    clock.advance(2)
    await asked(repository, stages.CHECK_PRECONDITION, session_id)
    await said(repository, ReportState.PREPARED, session_id)
    await asked(repository, stages.START_SESSIONS, session_id)
    await said(repository, ReportState.RUNNING, session_id)
    clock.advance(100)
    await said(repository, ReportState.ENDED, session_id, exit_code=0)

    seen = await scrape()

    assert seen.of("session_wait_seconds_sum", "group") == {("default",): 20}
    assert seen.of("session_start_seconds_sum", "group") == {("default",): 22}
    assert seen.of("session_run_seconds_sum", "group", "result") == {("default", "SUCCESS"): 100}
    assert seen("session_run_seconds_bucket", group="default", result="SUCCESS", le="60.0") == 0
    assert seen("session_run_seconds_bucket", group="default", result="SUCCESS", le="300.0") == 1
    assert seen.of("sessions_ended_total", "group", "result", "reason") == {
        ("default", "SUCCESS", "SELF_TERMINATED"): 1
    }
    assert seen.of("sessions", "status") == {}


async def test_ends_are_counted_by_reason_and_what_follows_is_a_retry(repository, scrape):
    (failed,) = await brought_to(repository, S.RUNNING, a_spec(retries=1))
    await said(repository, ReportState.ENDED, failed, exit_code=3)
    (strange,) = await brought_to(repository, S.RUNNING)
    await said(repository, ReportState.ENDED, strange, reason="agent's own")
    (cancelled,) = await submitted(repository)
    await repository.request_termination([cancelled], force=False, detail="")

    seen = await scrape()

    assert seen.of("sessions_submitted_total", "group") == {("default",): 3}
    assert seen.of("sessions_retried_total", "group") == {("default",): 1}
    assert seen.of("sessions_ended_total", "result", "reason") == {
        ("FAILURE", "KERNEL_FAILED"): 1,
        ("FAILURE", "other"): 1,
        ("UNDEFINED", "USER_REQUESTED"): 1,
    }


async def test_what_was_there_before_the_server_is_not_counted_again(repository, clock):
    await brought_to(repository, S.RUNNING)
    again = a_repository(
        "default", "other", database=repository._database, clock=clock, taken_over=False
    )
    api = assembled(again)
    await again.take_over()

    async with client_of(api) as http:
        seen = Scrape((await http.get("/metrics")).text)

    assert seen.of("sessions", "status") == {("RUNNING",): 1}
    assert seen.of("sessions_submitted_total", "group") == {}


# --- stages ---------------------------------------------------------------------------------------


class Slow:
    """Takes two seconds, in which it does what the test says, and then fails if it is to."""

    stage = stages.CHECK_PRECONDITION

    def __init__(self, clock, meanwhile=None, error=None):
        self._clock, self._meanwhile, self._error = clock, meanwhile, error

    async def execute(self, scaling_group, sessions):
        self._clock.advance(2)
        if self._meanwhile:
            await self._meanwhile()
        if self._error:
            raise self._error
        return NOTHING


async def test_runs_of_stages_are_timed_and_their_outcomes_counted(repository, api, scrape, clock):
    await brought_to(repository, S.SCHEDULED)
    handler = Slow(clock, error=AgentError("no"))
    coordinator = a_coordinator(repository, handler, clock=clock, observer=api.meters)

    await coordinator.run_stage(handler, "default")

    seen = await scrape()
    stage = {"group": "default", "stage": "check-precondition"}
    assert seen("stage_run_seconds_sum", **stage) == 2
    assert seen("stage_outcomes_total", **stage, outcome="need-retry") == 1
    assert seen.of("moves_dropped_total", "verdict") == {}


async def test_moves_that_come_too_late_are_counted_apart(repository, api, scrape, clock):
    (session_id,) = await brought_to(repository, S.SCHEDULED)

    async def cancel():
        await repository.request_termination([session_id], force=False, detail="")

    handler = Slow(clock, cancel, AgentError("no"))
    coordinator = a_coordinator(repository, handler, clock=clock, observer=api.meters)
    await coordinator.run_stage(handler, "default")

    seen = await scrape()
    assert seen.of("moves_dropped_total", "stage", "verdict") == {
        ("check-precondition", "superseded"): 1
    }
    assert seen.of("stage_outcomes_total", "stage", "outcome") == {}


# --- requests, readiness --------------------------------------------------------------------------


async def test_requests_are_counted_by_operation_and_class_of_status(http, scrape):
    await http.get("/v1/agents")
    await http.get("/v1/sessions/nobody")
    await http.get("/v1/nowhere")
    await http.get("/v1/agents", headers=bearer("wrong"))

    seen = await scrape()

    assert seen.of("http_requests_total", "operation", "status") == {
        ("agents", "2xx"): 1,
        ("session", "4xx"): 1,
        ("other", "4xx"): 2,
    }
    assert seen("http_request_seconds_count", operation="other") == 2


async def test_a_server_is_ready_whose_store_answers(http):
    answer = await http.get("/readyz", headers={"authorization": ""})

    assert (answer.status_code, answer.text) == (200, "ready\n")


async def test_a_server_that_stops_is_not_ready(http, api):
    api.app.state.stopping.told.set()

    answer = await http.get("/readyz")

    assert answer.status_code == 503
    assert answer.json()["stopping"] is True


async def test_a_server_whose_store_fails_is_not_ready_until_it_is_mended(
    http, repository, clock, monkeypatch, caplog
):
    tries = []

    async def fail(job):
        tries.append(job)
        raise StoreUnavailableError("secrets of the store")

    with monkeypatch.context() as broken:
        broken.setattr(repository._database, "write", fail)
        answers = [await http.get("/readyz", headers={"authorization": ""}) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [503] * 3
    assert answers[0].json()["code"] == "store-unavailable"
    assert "secrets" not in answers[0].text
    assert "secrets" in caplog.text
    assert len(tries) == 1, "who asks often makes no work"
    clock.advance(1)
    assert (await http.get("/readyz")).status_code == 200


async def test_a_server_whose_store_hangs_is_not_ready(http, repository, monkeypatch):
    async def hang(job):
        await asyncio.Event().wait()

    monkeypatch.setattr(repository._database, "write", hang)
    monkeypatch.setattr("sokovan.api.readiness.ANSWER_S_MAX", 0.0)

    assert (await http.get("/readyz")).status_code == 503


async def test_commits_are_timed_and_what_they_held_is_counted(tmp_path, clock):
    meters = Meters(clock)
    database = ThreadedDatabase(
        open_sqlite(tmp_path / "x.db", StoreConfig()), asyncio.get_running_loop()
    )
    database.around_commit = meters.commit
    try:
        await asyncio.gather(*(database.write(lambda tx: clock.advance(3)) for _ in range(2)))
    finally:
        await asyncio.to_thread(database.close)

    seen = Scrape(generate_latest(meters.registry).decode())
    assert seen("store_commit_seconds_sum") == 6
    assert seen("store_commit_jobs_sum") == 2
    assert seen("store_commit_jobs_count") == 1
