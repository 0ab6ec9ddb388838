"""The shape of the HTTP interface: the door, the bodies, the problems."""

import asyncio
import json

import httpx
import pytest

from sokovan.api.app import build_app
from sokovan.api.guard import home_token, server_user
from sokovan.config import ApiConfig
from sokovan.domain.errors import SessionNotFoundError
from sokovan.scheduler.messages import OutputChunk

TOKEN = "correct-horse"
LIMITS = ApiConfig(body_bytes_max=10_000, submit_sessions_max=3, page_sessions_max=50)


class Recorder:
    """Stands in for the service: notes what it is asked, and answers what it was told to."""

    def __init__(self):
        self.specs = []
        self.asked = {}
        self.error = None
        self.chunks = []

    async def submit(self, specs, *, caller):
        self.specs += specs
        return [{"id": f"s{n}"} for n, _ in enumerate(specs)]

    async def sessions(self, **asked):
        self.asked = asked
        return {"items": [], "next_cursor": None}

    async def session(self, ref, *, caller):
        if self.error:
            raise self.error
        return {"id": ref, "owner": caller.user}

    async def cancel(self, ref, *, caller, force=False):
        self.asked = {"force": force}
        return {"session": {"id": ref}, "outcome": "cancelled"}

    async def set_held(self, ref, *, caller, held):
        return {"id": ref, "held": held}

    async def wait(self, ref, *, caller, timeout_s):
        await asyncio.Event().wait()

    async def output(self, ref, **asked):
        self.asked = asked
        return self.chunks.pop(0)

    async def status(self):
        return {"ratio": float("inf")}


@pytest.fixture
def service():
    return Recorder()


@pytest.fixture
def stops():
    return []


@pytest.fixture
def app(service, stops):
    return build_app(service, home_token(TOKEN), LIMITS, shutdown=lambda: stops.append("stop"))


@pytest.fixture
async def http(app):
    transport = httpx.ASGITransport(app)
    headers = {"authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(
        transport=transport, base_url="http://here", headers=headers
    ) as http:
        yield http


def problem_in(response):
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert {"type", "title", "status", "detail", "code"} <= problem.keys()
    assert problem["status"] == response.status_code
    return problem


@pytest.mark.parametrize("given", ["", "Bearer", "Bearer wrong", f"bearer {TOKEN}", TOKEN, "é"])
async def test_a_request_without_the_token_is_refused(http, service, given):
    response = await http.get("/v1/sessions", headers={"authorization": given.encode()})

    assert response.status_code == 401
    assert problem_in(response)["code"] == "unauthorized"
    assert service.asked == {}


async def test_without_the_token_nobody_learns_which_addresses_exist(http):
    response = await http.get("/v1/nowhere", headers={"authorization": "no"})

    assert response.status_code == 401


async def test_healthz_needs_no_token(http):
    response = await http.get("/healthz", headers={"authorization": ""})

    assert (response.status_code, response.text) == (200, "ok\n")


async def test_one_session_is_answered_with_one_and_many_with_many(http):
    one = await http.post("/v1/sessions", json={"command": ["true"]})
    many = await http.post("/v1/sessions", json={"sessions": [{"command": ["true"]}] * 2})

    assert (one.status_code, one.json()) == (201, {"id": "s0"})
    assert many.json() == {"sessions": [{"id": "s0"}, {"id": "s1"}]}


async def test_every_field_reaches_the_service(http, service):
    await http.post(
        "/v1/sessions",
        json={
            "command": ["sh", "-c", "echo hi"],
            "name": "réseau",
            "owner": "ada",
            "scaling_group": "gpu",
            "priority": 50,
            "cpu_milli": 1500,
            "mem_bytes": 2**30,
            "gpu_shares": 2000,
            "gpu_mem_bytes_min": 2**34,
            "kernels": 2,
            "env": {"A": "b=c", "BASH_FUNC_module%%": "() { :; }"},
            "cwd": "/tmp",
            "umask": 0o077,
            "walltime_s": 60,
            "pending_timeout_s": 5.5,
            "begin_at": "2026-11-23T19:30:00+01:00",
            "held": True,
            "requeue": True,
            "retries": 3,
            "grace_s": 1,
            "depends_on": [{"session_id": "abc", "kind": "afterany"}, {"session_id": "#0"}],
            "limits": {"start-sessions": {"phase_s_max": 10}},
            "allow_infeasible": True,
            "creation_id": "once",
        },
    )

    (spec,) = service.specs
    assert spec.command == ("sh", "-c", "echo hi")
    assert (spec.name, spec.owner, spec.scaling_group, spec.priority) == (
        "réseau",
        "ada",
        "gpu",
        50,
    )
    assert (spec.request.cpu_milli, spec.request.mem_bytes) == (1500, 2**30)
    assert (spec.request.gpu_shares, spec.request.gpu_mem_bytes_min) == (2000, 2**34)
    assert (spec.kernel_count, spec.cwd, spec.umask) == (2, "/tmp", 0o077)
    assert spec.env == {"A": "b=c", "BASH_FUNC_module%%": "() { :; }"}
    assert (spec.walltime_s, spec.pending_timeout_s, spec.begin_at) == (60, 5.5, 1795458600)
    assert (spec.held, spec.requeue, spec.retries, spec.grace_s) == (True, True, 3, 1)
    assert [(d.session_id, d.kind) for d in spec.depends_on] == [
        ("abc", "afterany"),
        ("#0", "afterok"),
    ]
    assert spec.limits["start-sessions"].phase_s_max == 10
    assert (spec.allow_infeasible, spec.creation_id) == (True, "once")


async def test_what_is_left_out_has_its_default(http, service):
    await http.post("/v1/sessions", json={"command": ["true"]})

    (spec,) = service.specs
    assert (spec.request.cpu_milli, spec.request.mem_bytes, spec.kernel_count) == (1000, 0, 1)
    assert spec.owner
    assert spec.begin_at is None


@pytest.mark.parametrize(
    ("body", "field", "part"),
    [
        ({}, "command", "is missing"),
        ({"command": []}, "command", "at least 1"),
        ({"command": "true"}, "command", "list"),
        ({"command": ["a\0b"]}, "command[0]", "NUL"),
        ({"command": ["x" * 131_072]}, None, "larger"),
        ({"command": ["true"], "cpu": 1}, "cpu", "no such field"),
        ({"command": ["true"], "cpu_milli": "1000"}, "cpu_milli", "integer"),
        ({"command": ["true"], "cpu_milli": -1}, "cpu_milli", "greater than or equal to 0"),
        ({"command": ["true"], "cpu_milli": 2**63}, "cpu_milli", "less than or equal"),
        ({"command": ["true"], "gpu_shares": 1500}, "gpu_shares", "whole devices"),
        ({"command": ["true"], "env": {"A=": "b"}}, "env", "cannot name a variable"),
        ({"command": ["true"], "env": {"A": "b\0"}}, "env", "NUL"),
        ({"command": ["true"], "cwd": "here"}, "cwd", "absolute"),
        ({"command": ["true"], "name": "a\nb"}, "name", "control character"),
        ({"command": ["true"], "begin_at": "tomorrow"}, "begin_at", "2026-11-23T18:30:00Z"),
        ({"command": ["true"], "begin_at": "2026-11-23T18:30:00"}, "begin_at", "zone"),
        ({"command": ["true"], "begin_at": "0001-01-01T00:00:00+14:00"}, "begin_at", "time"),
        ({"command": ["true"], "held": 1}, "held", "boolean"),
        ({"command": ["true"], "depends_on": [{"session_id": "x", "kind": "after"}]},
         "depends_on[0].kind", "afterany"),
        ({"sessions": []}, "sessions", "at least 1"),
        ({"sessions": {}}, "sessions", "list"),
        ({"sessions": [{"command": ["true"]}] * 4}, "sessions", "more than the 3"),
        ({"sessions": [{"command": ["true"]}, {}]}, "sessions[1].command", "is missing"),
        ({"sessions": [{"command": ["true"], "begin_at": ""}]}, "sessions[0].begin_at", "time"),
        ([], None, "dictionary"),
    ],
)  # fmt: skip
async def test_a_wrong_shape_is_refused_with_the_field_and_the_fix(
    http, service, body, field, part
):
    response = await http.post("/v1/sessions", json=body)

    problem = problem_in(response)
    assert response.status_code in {413, 422}
    assert problem["code"] == "invalid-request"
    assert problem.get("field") == field
    assert part in problem["detail"]
    assert service.specs == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff",
        b'{"command": ["\\ud800"]}',
        b'{"command": ["true"], "walltime_s": NaN}',
        b'{"command": ["true"], "walltime_s": 1e999}',
        b"[" * 5_000,
    ],
)
async def test_what_is_not_json_in_utf8_is_refused(http, service, body):
    response = await http.post("/v1/sessions", content=body)

    assert response.status_code == 422
    assert problem_in(response)["code"] == "invalid-request"
    assert service.specs == []


@pytest.mark.parametrize("length", [131_071, 131_072])
async def test_a_word_may_be_as_long_as_linux_lets_it_be(service, length):
    app = build_app(service, home_token(TOKEN), ApiConfig(), shutdown=lambda: None)
    body = {"command": ["x" * length]}
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://here"
    ) as http:
        response = await http.post(
            "/v1/sessions", json=body, headers={"authorization": f"Bearer {TOKEN}"}
        )

    assert response.status_code == (201 if length == 131_071 else 422)


async def test_a_body_without_a_length_is_read_no_further_than_allowed(http, service):
    sent = 0

    async def endless():
        nonlocal sent
        for _ in range(1000):
            sent += 1000
            yield b" " * 1000

    response = await http.post("/v1/sessions", content=endless())

    assert response.status_code == 413
    assert sent <= LIMITS.body_bytes_max + 2000


async def test_an_error_of_the_service_keeps_its_code(http, service):
    service.error = SessionNotFoundError("there is none", field="ref")

    response = await http.get("/v1/sessions/abc")

    assert response.status_code == 404
    assert problem_in(response) == {
        "type": "urn:sokovan:error:session-not-found",
        "title": "Session not found",
        "status": 404,
        "detail": "there is none",
        "code": "session-not-found",
        "field": "ref",
    }


async def test_an_unexpected_error_is_logged_and_tells_nothing(http, service, caplog):
    service.error = ZeroDivisionError("secret")

    response = await http.get("/v1/sessions/abc")

    assert response.status_code == 500
    assert problem_in(response)["code"] == "internal-error"
    assert "secret" not in response.text
    assert "ZeroDivisionError" in caplog.text


async def test_an_address_that_does_not_exist_is_a_problem_too(http):
    missing = await http.get("/v1/nowhere")
    method = await http.delete("/v1/status")

    assert (missing.status_code, problem_in(missing)["code"]) == (404, "invalid-request")
    assert (method.status_code, problem_in(method)["code"]) == (405, "invalid-request")


async def test_a_query_out_of_bounds_names_itself(http):
    page = await http.get("/v1/sessions", params={"limit": 51})
    stream = await http.get("/v1/sessions/a/output", params={"stream": "stdin"})

    assert problem_in(page)["field"] == "limit"
    assert problem_in(stream)["field"] == "stream"


async def test_asking_for_a_status_looks_among_ended_sessions_too(http, service):
    await http.get("/v1/sessions")
    assert service.asked["live_only"] is True

    await http.get("/v1/sessions", params={"status": ["TERMINATED", "CANCELLED"], "group": "g"})
    assert service.asked["live_only"] is False
    assert service.asked["statuses"] == ["TERMINATED", "CANCELLED"]
    assert service.asked["scaling_group"] == "g"


async def test_cancel_takes_an_empty_body_or_force(http, service):
    await http.post("/v1/sessions/@/cancel")
    assert service.asked == {"force": False}

    await http.post("/v1/sessions/@/cancel", json={"force": True})
    assert service.asked == {"force": True}


async def test_hold_and_release_say_what_became_of_the_session(http):
    held = await http.post("/v1/sessions/a/hold")
    released = await http.post("/v1/sessions/a/release")

    assert (held.json()["held"], released.json()["held"]) == (True, False)


async def test_a_reference_reaches_the_service_as_typed(http):
    response = await http.get("/v1/sessions/@~2")

    assert response.json() == {"id": "@~2", "owner": server_user()}


async def test_a_piece_of_output_is_raw_and_says_where_it_is_from(http, service):
    service.chunks = [OutputChunk(b"\xff\0hi", offset=5, size=9, ended=True)]

    response = await http.get("/v1/sessions/a/output", params={"offset": -4, "kernel": 1})

    assert response.content == b"\xff\0hi"
    assert response.headers["content-type"] == "application/octet-stream"
    assert response.headers["x-sokovan-offset"] == "5"
    assert response.headers["x-sokovan-size"] == "9"
    assert response.headers["x-sokovan-ended"] == "true"
    assert (service.asked["offset"], service.asked["kernel_index"]) == (-4, 1)


async def test_followed_output_ends_when_the_kernel_is_over_and_all_of_it_was_sent(http, service):
    service.chunks = [
        OutputChunk(b"", 0, 0, ended=False),
        OutputChunk(b"one", 0, 3, ended=False),
        OutputChunk(b"two", 3, 9, ended=True),
        OutputChunk(b"end", 6, 9, ended=True),
    ]

    response = await http.get("/v1/sessions/a/output", params={"follow": True})

    assert response.content == b"onetwoend"
    assert service.chunks == []


async def test_a_stopping_server_lets_nobody_wait(http, app, stops):
    waiting = asyncio.create_task(http.get("/v1/sessions/a/wait", params={"timeout_s": 3000}))
    await asyncio.sleep(0)

    stopped = await http.post("/v1/shutdown")
    response = await waiting

    assert stopped.json()["pid"]
    assert stops == ["stop"]
    assert app.state.stopping.told.is_set()
    assert response.status_code == 503
    assert problem_in(response)["stopping"] is True


async def test_an_answer_is_json_even_where_a_number_is_infinite(http):
    response = await http.get("/v1/status")

    assert json.loads(response.text, parse_constant=pytest.fail) == {"ratio": None}


async def test_the_openapi_document_has_the_bodies(http):
    document = (await http.get("/v1/openapi.json")).json()

    operation = document["paths"]["/v1/sessions"]["post"]
    assert operation["operationId"] == "submit"
    assert "SessionBody" in json.dumps(operation["requestBody"])
    assert "cpu_milli" in document["components"]["schemas"]["SessionBody"]["properties"]
    assert "DependencyBody" in document["components"]["schemas"]
