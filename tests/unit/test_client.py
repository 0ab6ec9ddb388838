"""The client against a scripted server: what it sends, how it goes on, which errors it raises."""

import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from sokovan.client import Client, ServerStoppedError, error_from, server_file
from sokovan.domain.errors import (
    AgentError,
    AgentNotFoundError,
    InvalidRequestError,
    ServerUnreachableError,
    SessionNotFoundError,
    SokovanError,
    UnauthorizedError,
)

CUT = object()
"""Instead of an answer: the connection is closed."""


class Scripted:
    """A server that gives prepared answers in order, and remembers the requests."""

    def __init__(self):
        self.answers = []
        self.requests = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                outer._answer(self)

            def do_POST(self):
                outer._answer(self)

            def do_DELETE(self):
                outer._answer(self)

            def log_message(self, *args):
                """Say nothing."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def will_answer(self, *answers):
        self.answers += answers

    def _answer(self, handler):
        length = int(handler.headers.get("content-length", 0))
        body = handler.rfile.read(length)
        url = urlsplit(handler.path)
        self.requests.append(
            {
                "method": handler.command,
                "path": url.path,
                "query": {name: values[0] for name, values in parse_qs(url.query).items()},
                "body": json.loads(body) if body else None,
                "token": handler.headers["authorization"],
            }
        )
        answer = self.answers.pop(0)
        if answer is CUT:
            handler.close_connection = True
            return
        status, headers, content = answer
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("content-length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)


def says(view, status=200):
    return status, {"content-type": "application/json"}, json.dumps(view).encode()


def refuses(code, status, **more):
    return says({"code": code, "detail": "because", "status": status, **more}, status)


def outputs(data, offset, size, *, ended):
    headers = {
        "x-sokovan-offset": str(offset),
        "x-sokovan-size": str(size),
        "x-sokovan-ended": "true" if ended else "false",
    }
    return 200, headers, data


@pytest.fixture
def server():
    server = Scripted()
    yield server
    server.close()


@pytest.fixture
def home(tmp_path, server):
    announce(tmp_path, server.url)
    return tmp_path


def announce(home, url, pid=None):
    (home / "token").write_text("secret\n")
    found = {"pid": pid or os.getpid(), "url": url, "version": "0"}
    (home / "server.json").write_text(json.dumps(found))


@pytest.fixture
def client(home):
    with Client(home, timeout_s=5) as client:
        yield client


def a_dead_pid():
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return pid


def test_it_finds_the_server_and_shows_the_token(client, server):
    server.will_answer(says({"pid": 1}))

    assert client.status() == {"pid": 1}
    assert server.requests[0]["token"] == "Bearer secret"
    assert client.server_time is not None


def test_a_home_without_a_server_says_how_to_start_one(tmp_path):
    with Client(tmp_path) as client, pytest.raises(ServerUnreachableError, match="sokovan up"):
        client.status()


def test_a_dead_server_is_not_asked_so_that_nobody_else_is_shown_the_token(home, server):
    announce(home, server.url, pid=a_dead_pid())

    with Client(home) as client, pytest.raises(ServerUnreachableError):
        client.status()

    assert server_file(home) is None
    assert server.requests == []


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": "x"}', '{"pid": -1, "url": "u"}'])
def test_a_half_written_server_file_means_no_server(tmp_path, content):
    (tmp_path / "server.json").write_text(content)

    assert server_file(tmp_path) is None


def test_the_home_is_the_one_of_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("SOKOVAN_HOME", str(tmp_path))

    assert Client().home == tmp_path


def test_a_token_that_cannot_be_read_is_a_clear_error(home):
    (home / "token").unlink()

    with Client(home) as client, pytest.raises(UnauthorizedError, match="token cannot be read"):
        client.status()


def test_a_problem_becomes_the_error_of_its_code(client, server):
    server.will_answer(refuses("session-not-found", 404, field="ref"))

    with pytest.raises(SessionNotFoundError) as caught:
        client.get("abc")

    assert (caught.value.message, caught.value.field) == ("because", "ref")


def test_a_code_of_a_newer_server_is_kept():
    error = error_from({"code": "out-of-tea", "detail": "brew more"})

    assert isinstance(error, SokovanError)
    assert (error.code, error.message) == ("out-of-tea", "brew more")


def test_every_error_can_come_back_from_the_server():
    error = error_from({"code": "agent-error", "detail": "no answer"})

    assert isinstance(error, AgentError)
    assert error.session_ids is None


def test_what_answers_without_being_sokovan_is_no_server(client, server):
    server.will_answer((404, {"content-type": "text/html"}, b"<h1>no</h1>"))

    with pytest.raises(ServerUnreachableError, match="is no Sokovan server"):
        client.status()


def test_a_session_takes_along_where_it_was_submitted(client, server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLOUR", "blue")
    monkeypatch.setitem(os.environ, "BROKEN", "\udcff")
    umask = os.umask(0o027)
    os.umask(umask)
    server.will_answer(says({"id": "a"}, 201))

    client.submit(["true"], name="x", kernels=2)

    body = server.requests[0]["body"]
    assert body["command"] == ["true"]
    assert (body["name"], body["kernels"]) == ("x", 2)
    assert (body["cwd"], body["umask"]) == (str(tmp_path), umask)
    assert body["env"]["COLOUR"] == "blue"
    assert "BROKEN" not in body["env"]
    assert len(body["creation_id"]) >= 16


def test_what_is_said_wins_over_what_is_captured(client, server):
    server.will_answer(says({"sessions": [{"id": "a"}, {"id": "b"}]}, 201))

    answers = client.submit_many(
        [
            {"command": ["true"], "env": {}, "cwd": "/", "umask": 0, "creation_id": "mine"},
            {"command": ["false"]},
        ]
    )

    first, second = server.requests[0]["body"]["sessions"]
    assert [answer["id"] for answer in answers] == ["a", "b"]
    assert (first["env"], first["cwd"], first["umask"]) == ({}, "/", 0)
    assert first["creation_id"] == "mine"
    assert second["creation_id"] != "mine"


def test_a_command_that_is_not_utf8_is_refused_before_it_is_sent(client, server):
    with pytest.raises(InvalidRequestError, match="is not UTF-8"):
        client.submit(["ls", "\udcff"])

    assert server.requests == []


def test_a_cut_connection_sends_the_same_submission_again(client, server):
    server.will_answer(CUT, says({"id": "a"}, 201))

    client.submit(["true"])

    first, second = server.requests
    assert first["body"]["creation_id"] == second["body"]["creation_id"]


def test_a_server_that_keeps_cutting_is_unreachable(client, server):
    server.will_answer(CUT, CUT)

    with pytest.raises(ServerUnreachableError, match="no server answers"):
        client.status()


def test_reviving_the_server_sends_the_request_again(home, server):
    announce(home, server.url, pid=a_dead_pid())
    server.will_answer(says({"pid": 2}))
    revived = []

    def revive():
        revived.append(True)
        announce(home, server.url)

    with Client(home, revive=revive) as client:
        assert client.status() == {"pid": 2}
    assert revived == [True]


def test_reviving_in_vain_ends(home, server):
    announce(home, server.url, pid=a_dead_pid())
    revived = []

    with (
        Client(home, revive=lambda: revived.append(True)) as client,
        pytest.raises(ServerUnreachableError),
    ):
        client.status()
    assert len(revived) == 3


def test_a_server_that_was_stopped_on_purpose_is_not_revived(home, server):
    server.will_answer(refuses("server-unreachable", 503, stopping=True))

    with (
        Client(home, revive=lambda: pytest.fail("it was stopped on purpose")) as client,
        pytest.raises(ServerStoppedError),
    ):
        client.wait("a")


@pytest.mark.parametrize("ref", ["", "a/b", ".", ".."])
def test_what_cannot_be_an_id_is_not_found(client, server, ref):
    with pytest.raises(SessionNotFoundError):
        client.get(ref)

    assert server.requests == []


def test_a_strange_reference_is_sent_as_one_part_of_the_path(client, server):
    server.will_answer(says({}), says({}))

    client.get("@~2")
    client.get("a b?c#d")

    assert server.requests[0]["path"] == "/v1/sessions/@~2"
    assert server.requests[1]["path"] == "/v1/sessions/a%20b%3Fc%23d"


def test_waiting_asks_again_until_the_end_and_for_the_same_session(client, server):
    server.will_answer(
        says({"id": "abc", "status": "PENDING"}),
        says({"id": "abc", "status": "RUNNING"}),
        says({"id": "abc", "status": "TERMINATED"}),
    )

    assert client.wait("@")["status"] == "TERMINATED"
    assert [request["path"] for request in server.requests] == [
        "/v1/sessions/@/wait",
        "/v1/sessions/abc/wait",
        "/v1/sessions/abc/wait",
    ]


def test_waiting_is_over_when_the_time_is(client, server):
    server.will_answer(*[says({"id": "a", "status": "RUNNING"})] * 3)

    assert client.wait("a", timeout_s=65)["status"] == "RUNNING"
    assert [request["query"]["timeout_s"] for request in server.requests] == ["30.0", "30.0", "5.0"]


def test_followed_output_goes_on_where_it_was(client, server):
    server.will_answer(
        says({"id": "abc"}),
        outputs(b"one", 0, 3, ended=False),
        outputs(b"", 3, 3, ended=False),
        CUT,
        outputs(b"two", 3, 9, ended=True),
        outputs(b"end", 6, 9, ended=True),
    )

    assert b"".join(client.output("@", follow=True)) == b"onetwoend"
    offsets = [request["query"]["offset"] for request in server.requests[1:]]
    assert offsets == ["0", "3", "3", "3", "6"]


def test_output_without_following_ends_with_what_there_is(client, server):
    server.will_answer(
        says({"id": "abc"}),
        outputs(b"one", 0, 6, ended=False),
        outputs(b"two", 3, 6, ended=False),
    )

    assert b"".join(client.output("abc")) == b"onetwo"


def test_a_list_follows_its_pages_up_to_the_limit(client, server):
    server.will_answer(
        says({"items": [{"id": n} for n in range(1000)], "next_cursor": "c1"}),
        says({"items": [{"id": n} for n in range(500)], "next_cursor": "c2"}),
    )

    assert len(client.list(limit=1500, live_only=False, status=["RUNNING"], owner="ada")) == 1500

    first, second = (request["query"] for request in server.requests)
    assert first == {"limit": "1000", "live_only": "false", "status": "RUNNING", "owner": "ada"}
    assert (second["limit"], second["cursor"]) == ("500", "c1")


def test_the_rest_of_the_requests_are_where_the_api_has_them(client, server):
    server.will_answer(
        says({"items": [1]}),
        says({"sentence": "so"}),
        says({"suggestions": []}),
        says({"starts_at": None}),
        says({"outcome": "cancelled"}),
        says({"held": True}),
        says({"held": False}),
        says({"items": []}),
        says({"pid": 7}),
        (200, {}, b"ok\n"),
    )

    assert client.history("a") == [1]
    assert client.why("a") == {"sentence": "so"}
    assert client.why("a", suggest=True) == {"suggestions": []}
    assert client.eta("a") == {"starts_at": None}
    client.cancel("a", force=True)
    client.hold("a")
    client.release("a")
    assert client.agents() == []
    assert client.shut_down() == 7
    client.ping()

    sent = [(request["method"], request["path"]) for request in server.requests]
    assert sent == [
        ("GET", "/v1/sessions/a/history"),
        ("GET", "/v1/sessions/a/why"),
        ("GET", "/v1/sessions/a/why"),
        ("GET", "/v1/sessions/a/eta"),
        ("POST", "/v1/sessions/a/cancel"),
        ("POST", "/v1/sessions/a/hold"),
        ("POST", "/v1/sessions/a/release"),
        ("GET", "/v1/agents"),
        ("POST", "/v1/shutdown"),
        ("GET", "/healthz"),
    ]
    assert [one["query"] for one in server.requests[1:3]] == [{}, {"suggest": "true"}]
    assert server.requests[4]["body"] == {"force": True}


def test_a_dry_run_sends_what_a_submission_would(server, client):
    server.will_answer(says({"starts_now": True}), says({"sessions": [1, 2]}))

    assert client.dry_run(["true"], suggest=True, cpu_milli=500) == {"starts_now": True}
    assert client.dry_run_many([{"command": ["a"]}, {"command": ["b"]}]) == [1, 2]

    one, many = server.requests
    assert (one["method"], one["path"]) == ("POST", "/v1/sessions/dry-run")
    assert one["query"] == {"suggest": "true"}
    assert (one["body"]["command"], one["body"]["cpu_milli"]) == (["true"], 500)
    assert [session["command"] for session in many["body"]["sessions"]] == [["a"], ["b"]]


def test_agents_are_taken_out_of_service_and_back(server, client):
    server.will_answer(*[says({"id": "a1"})] * 4)

    client.drain("my agent", reason="new disk")
    client.undrain("a1")
    client.label("a1", {"rack": "r1", "zone": None})
    client.remove_agent("a1", force=True)

    assert [(one["method"], one["path"]) for one in server.requests] == [
        ("POST", "/v1/agents/my%20agent/drain"),
        ("POST", "/v1/agents/a1/undrain"),
        ("POST", "/v1/agents/a1/label"),
        ("DELETE", "/v1/agents/a1"),
    ]
    assert server.requests[0]["body"] == {"reason": "new disk"}
    assert server.requests[2]["body"] == {"labels": {"rack": "r1", "zone": None}}
    assert server.requests[3]["query"] == {"force": "true"}


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/"])
def test_what_cannot_be_an_agent_is_not_asked_for(server, client, name):
    with pytest.raises(AgentNotFoundError):
        client.drain(name)

    assert server.requests == []
