"""Both clients: when a request is sent again, what the environment says, an event loop's output."""

import asyncio
import inspect
import json
import ssl
import time

import certifi
import httpx
import pytest

from sokovan import AsyncClient, Client
from sokovan.cli import exits
from sokovan.cli.main import run
from sokovan.client.async_connection import AsyncConnection
from sokovan.client.async_events import COMES_BACK_PAUSE_S, COMES_BACK_TRIES
from sokovan.client.connection import ServerStoppedError, place_of
from sokovan.client.sync_connection import Connection
from sokovan.domain.errors import (
    EventsGoneError,
    OutputUnavailableError,
    ServerUnreachableError,
    SokovanError,
    StoreUnavailableError,
    UnauthorizedError,
)

FULL = (503, {}, {"code": "store-unavailable", "detail": "the disk is full"})
BUSY = (429, {"retry-after": "2"}, {"code": "busy", "detail": "too many requests"})
CUT = httpx.RemoteProtocolError("cut")
NOBODY = httpx.ConnectError("refused")


class Far:
    """A server that gives prepared answers, and what was asked of it and slept before."""

    def __init__(self, monkeypatch):
        self.answers, self.requests, self.slept = [], [], []
        self.way = httpx.MockTransport(self.answer)

        async def sleep(pause_s):
            self.slept.append(pause_s)

        monkeypatch.setattr(time, "sleep", self.slept.append)
        monkeypatch.setattr(asyncio, "sleep", sleep)
        for connection, http in ((Connection, httpx.Client), (AsyncConnection, httpx.AsyncClient)):
            monkeypatch.setattr(
                connection,
                "_connect",
                lambda _, http=http: http(transport=self.way, base_url="http://far"),
            )

    def answer(self, request):
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        status, headers, body = answer if isinstance(answer, tuple) else (200, {}, answer)
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return httpx.Response(status, headers=headers, content=content)


@pytest.fixture
def far(monkeypatch):
    return Far(monkeypatch)


@pytest.fixture(params=[Client, AsyncClient])
def ask(request, far, tmp_path):
    """Ask with either client: the name of a method, and what it is given."""

    async def asked(method, *args, retry_s=10.0, revive=None, **more):
        client = request.param(tmp_path, retry_s=retry_s, revive=revive)
        found = getattr(client, method)(*args, **more)
        return await found if inspect.isawaitable(found) else found

    return asked


async def test_a_busy_server_is_asked_again_when_it_said(ask, far):
    far.answers = [BUSY, {"pid": 1}]

    assert await ask("status") == {"pid": 1}
    assert far.slept == [2.0]


async def test_a_store_that_is_unavailable_is_asked_again_for_a_while(ask, far):
    far.answers = [FULL] * 20

    with pytest.raises(StoreUnavailableError):
        await ask("submit", ["true"], retry_s=5)

    assert far.slept == [0.1, 0.2, 0.4, 0.8, 1.6]
    assert len({json.loads(request.content)["creation_id"] for request in far.requests}) == 1


async def test_a_server_that_is_busy_for_longer_than_one_would_pause_is_an_error_at_once(ask, far):
    far.answers = [BUSY]

    with pytest.raises(SokovanError) as caught:
        await ask("status", retry_s=1)

    assert (caught.value.retry_after_s, far.slept) == (2.0, [])


async def test_what_will_not_be_better_soon_is_not_asked_again(ask, far):
    far.answers = [(503, {}, {"code": "output-unavailable", "detail": "its agent is lost"})]

    with pytest.raises(OutputUnavailableError):
        await ask("read_output", "a")


@pytest.mark.parametrize("failure", [CUT, FULL, BUSY])
async def test_what_must_not_be_done_twice_is_sent_once(ask, far, failure):
    far.answers = [failure]

    with pytest.raises(SokovanError):
        await ask("_ask", "POST", "/v1/tokens", once=True)

    assert len(far.requests) == 1


@pytest.mark.parametrize(("failure", "sent"), [(NOBODY, 2), (CUT, 1)])
async def test_what_must_not_be_done_twice_is_sent_again_only_if_it_never_was(far, failure, sent):
    async def revive():
        """Start nothing."""

    far.answers = [failure, {"id": "t"}]
    client = AsyncClient("/nowhere", revive=revive)

    try:
        await client._ask("POST", "/v1/tokens", once=True)
    except ServerUnreachableError:
        assert failure is CUT
    assert len(far.requests) == sent


async def test_with_an_event_loop_output_is_followed_over_a_cut_connection(far):
    def piece(data, offset, *, ended):
        headers = {"x-sokovan-offset": str(offset), "x-sokovan-size": "6"}
        return 200, headers | {"x-sokovan-ended": "true" if ended else "false"}, data

    far.answers = [{"id": "a"}, piece(b"one", 0, ended=False), CUT, piece(b"two", 3, ended=True)]

    async with AsyncClient("/nowhere") as client:
        assert [data async for data in client.output("@", follow=True)] == [b"one", b"two"]


def page_of(*ids, more=False):
    return {"items": [{"id": i} for i in ids], "next_after": ids[-1], "more": more}


@pytest.fixture(params=[Client, AsyncClient])
def told(request, tmp_path):
    """Return the events that either client yields before it gives up, and why it did."""

    async def told(**asked):
        found, client = [], request.param(tmp_path)
        events = client.events(**asked)
        try:
            if request.param is Client:
                for event in events:
                    found.append(event["id"])  # noqa: PERF401 - also those before an error
            else:
                async for event in events:
                    found.append(event["id"])  # noqa: PERF401 - also those before an error
        except SokovanError as error:
            return found, type(error)
        return found, None

    return told


async def test_events_that_there_are_end_with_the_last_page(told, far):
    far.answers = [page_of(1, 2, more=True), page_of(3)]

    assert await told(follow=False, kinds=["session"]) == ([1, 2, 3], None)
    assert [request.url.params["after"] for request in far.requests] == ["0", "2"]
    assert {request.url.params["kind"] for request in far.requests} == {"session"}


async def test_events_go_on_where_they_were_when_the_server_comes_back(told, far):
    gone = (410, {}, {"code": "events-gone", "detail": "pruned"})
    far.answers = [{"items": [], "next_after": 7, "more": False}, page_of(8)]
    far.answers += [CUT, CUT, NOBODY, page_of(9), gone]

    assert await told() == ([8, 9], EventsGoneError)
    asked = [request.url.params.get("after") for request in far.requests]
    assert asked == [None, "7", "8", "8", "8", "8", "9"]
    assert far.slept == [0.0, COMES_BACK_PAUSE_S, COMES_BACK_PAUSE_S]


async def test_events_wait_a_minute_for_a_server_and_not_at_all_for_one_that_was_stopped(told, far):
    far.answers = [page_of(1), *[NOBODY] * (COMES_BACK_TRIES + 1)]

    assert await told(after=0) == ([1], ServerUnreachableError)
    assert len(far.requests) == COMES_BACK_TRIES + 2

    stopping = {"code": "server-unreachable", "detail": "stopping", "stopping": True}
    far.answers = [page_of(1), (503, {}, stopping)]
    assert await told(after=0) == ([1], ServerStoppedError)


async def test_with_an_event_loop_a_list_follows_its_pages_and_a_wait_its_session(far):
    far.answers = [
        {"items": [{"id": "a"}], "next_cursor": "c"},
        {"items": [{"id": "b"}], "next_cursor": None},
        {"id": "a", "status": "RUNNING"},
        {"id": "a", "status": "TERMINATED"},
    ]

    async with AsyncClient("/nowhere") as client:
        assert [view["id"] for view in await client.list()] == ["a", "b"]
        assert (await client.wait("@"))["status"] == "TERMINATED"
    assert [request.url.path for request in far.requests[2:]] == [
        "/v1/sessions/@/wait",
        "/v1/sessions/a/wait",
    ]


# --- where it is ----------------------------------------------------------------------------------


@pytest.fixture
def environ(monkeypatch):
    said = {"URL": "https://far:7077", "TOKEN": "of-env", "CA_FILE": certifi.where()}
    for name, value in said.items():
        monkeypatch.setenv(f"SOKOVAN_{name}", value)
    monkeypatch.setenv("SOKOVAN_HOME", "/nowhere")


def place(home=None, url=None, token=None, ca_file=None):
    return place_of(home, url=url, token=token, ca_file=ca_file)


def test_the_environment_says_which_server_with_which_token_and_certificates(environ):
    options = place().options()

    assert options["base_url"] == httpx.URL("https://far:7077")
    assert options["headers"] == {"authorization": "Bearer of-env"}
    assert isinstance(options["verify"], ssl.SSLContext)
    assert options["verify"].cert_store_stats()["x509_ca"] > 0


def test_what_is_said_wins_over_the_environment(environ):
    options = place(url="http://near", token="mine").options()

    assert options["base_url"] == httpx.URL("http://near")
    assert options["headers"] == {"authorization": "Bearer mine"}
    assert options["verify"] is False


def test_who_names_a_home_means_its_server(environ, tmp_path):
    with pytest.raises(ServerUnreachableError, match="no server runs for"):
        place(tmp_path).options()


def test_without_a_token_in_the_environment_the_homes_is_shown(environ, monkeypatch, tmp_path):
    monkeypatch.delenv("SOKOVAN_TOKEN")
    monkeypatch.setenv("SOKOVAN_HOME", str(tmp_path))
    (tmp_path / "token").write_text("of-home\n")

    assert place().options()["headers"] == {"authorization": "Bearer of-home"}


@pytest.mark.parametrize("token", ["a\nb", "é"])
def test_what_could_be_no_token_is_refused(token):
    with pytest.raises(UnauthorizedError, match="SOKOVAN_TOKEN"):
        place(token=token)


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_certificates_that_cannot_be_read_are_named(tmp_path, content):
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)

    with pytest.raises(ServerUnreachableError, match=r"ca\.pem cannot be used"):
        place(url="https://far", token="t", ca_file=file).options()


def test_the_command_starts_no_server_in_the_place_of_one_elsewhere(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("SOKOVAN_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("SOKOVAN_TOKEN", "t")
    monkeypatch.setenv("SOKOVAN_HOME", str(tmp_path / "home"))

    assert run(["ls"]) == exits.UNREACHABLE
    assert "look at SOKOVAN_URL" in capsys.readouterr().err
    assert not (tmp_path / "home").exists()
