"""Events over HTTP: pages and streams of what history has, before the real service."""

import asyncio
import contextlib
import json
import random

import pytest
from sqlalchemy import delete, select

from sokovan.api import event_operations
from sokovan.config import ApiConfig
from sokovan.domain.events import KINDS
from sokovan.domain.statuses import SessionStatus
from sokovan.scheduler.moves import Outcome
from sokovan.scheduler.stages import SCHEDULE_SESSIONS, START_SESSIONS
from sokovan.store import events
from sokovan.store.tables import history
from tests.build import (
    A1,
    a_move,
    a_repository,
    a_spec,
    an_agent_hello,
    brought_to,
    submitted,
)
from tests.served import TOKEN, bearer, served


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch):
    monkeypatch.setattr(event_operations, "GATHER_S", 0.0)


@pytest.fixture
async def repository():
    repository = a_repository("default", "other")
    await repository.register_agent(an_agent_hello(A1))
    return repository


@pytest.fixture
async def http(repository):
    async with served(repository) as http:
        yield http


async def some_history(repository):
    """Have sessions of two owners in two groups, with lines of every sort."""
    await brought_to(repository, SessionStatus.RUNNING, a_spec(name="runs"))
    await submitted(repository, a_spec(owner="bob", scaling_group="other", name="waits"))
    (waits,) = await submitted(repository, a_spec(owner="bob"))
    (prepared,) = await brought_to(repository, SessionStatus.PREPARED)
    for session_id, stage in ((waits, SCHEDULE_SESSIONS), (prepared, START_SESSIONS)):
        session = repository.live.sessions[session_id]
        outcome = Outcome.NEED_RETRY
        note = a_move(session, stage, None, outcome, reason="noted", detail="a word of its own")
        await repository.apply([note])
    await repository.request_termination([waits], force=False, detail="")


async def lines_of(repository):
    """Return what the table holds, as (id, session, status)."""

    def job(tx):
        rows = tx.execute(select(history).order_by(history.c.line))
        return [(row.line, row.session_id, row.to_status) for row in rows]

    return await repository._database.read(job)


def seen(items):
    return [(event["id"], event["session_id"], event["to_status"]) for event in items]


async def everything(http, **asked):
    page = (await http.get("/v1/events", params={"after": 0, **asked})).json()
    assert not page["more"]
    return page["items"]


class Stream:
    """A reader of `/v1/events/stream`, fed by the API itself; in this process, nothing waits."""

    def __init__(self, http, query="", headers=None, token=TOKEN):
        given = {"authorization": f"Bearer {token}", **(headers or {})}
        self._scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": "/v1/events/stream",
            "raw_path": b"/v1/events/stream",
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(name.encode(), value.encode()) for name, value in given.items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
        }
        self._app = http._transport.app
        self._gone = asyncio.Event()
        self._sent = asyncio.Queue()
        self._text = ""
        self.last_id = None

    async def __aenter__(self):
        self._task = asyncio.create_task(self._app(self._scope, self._receive, self._sent.put))
        start = await self._sent.get()
        self.status = start["status"]
        self.headers = {name.decode(): value.decode() for name, value in start["headers"]}
        return self

    async def __aexit__(self, *_):
        self._gone.set()
        await self._task

    async def _receive(self):
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def block(self):
        """Return the next block as a dictionary of its fields, or None at the end."""
        while "\n\n" not in self._text:
            part = await self._sent.get()
            self._text += part.get("body", b"").decode()
            if not part.get("more_body") and "\n\n" not in self._text:
                return None
        text, _, self._text = self._text.partition("\n\n")
        fields = dict(line.partition(":")[::2] for line in text.split("\n"))
        self.last_id = int(fields["id"])
        return {name: value.strip() for name, value in fields.items()}

    async def events(self, count):
        """Return the next events."""
        found = []
        while len(found) < count:
            block = await self.block()
            assert block is not None, "the stream ended"
            if "data" in block:
                event = json.loads(block["data"])
                assert (block["id"], block["event"]) == (str(event["id"]), event["kind"])
                found.append(event)
        return found


# --- pages ----------------------------------------------------------------------------------------


async def test_every_line_of_history_is_an_event_in_the_same_order(http, repository):
    await some_history(repository)

    items = await everything(http)

    assert seen(items) == await lines_of(repository)
    of_session = [event for event in items if event["name"] == "runs"]
    told = (await http.get(f"/v1/sessions/{of_session[0]['session_id']}/history")).json()["items"]
    assert [{name: event[name] for name in told[0]} for event in of_session] == told


async def test_pages_follow_each_other_without_a_gap(http, repository):
    await some_history(repository)

    found, after, more = [], 0, True
    while more:
        page = (await http.get("/v1/events", params={"after": after, "limit": 4})).json()
        found += page["items"]
        after, more = page["next_after"], page["more"]

    assert found == await everything(http)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_kind_lets_through_just_the_events_of_its_name(http, repository, kind):
    await some_history(repository)
    every = await everything(http)

    found = await everything(http, kind=kind)

    assert found == [e for e in every if e["kind"] == kind or e["kind"].startswith(f"{kind}.")]


async def test_each_note_is_an_event_and_says_why(http, repository):
    await some_history(repository)

    found = await everything(http, kind=["session.waiting", "session.noted"])

    assert [(e["kind"], e["from_status"], e["to_status"], e["detail"]) for e in found] == [
        ("session.waiting", "PENDING", "PENDING", "a word of its own"),
        ("session.noted", "PREPARED", "PREPARED", "a word of its own"),
    ]


async def test_only_the_event_that_ends_a_session_has_its_result(http, repository):
    (session_id,) = await brought_to(repository, SessionStatus.RUNNING)
    (waits,) = await submitted(repository, a_spec())
    await repository.request_termination([waits], force=False, detail="")

    results = {e["kind"]: e["result"] for e in await everything(http, session=waits)}

    assert results.pop("session.cancelled") is not None
    assert set(results.values()) == {None}
    assert {e["result"] for e in await everything(http, session=session_id)} == {None}


@pytest.mark.parametrize(
    ("asked", "field", "value"),
    [
        ({"owner": "bob"}, "owner", "bob"),
        ({"group": "other"}, "scaling_group", "other"),
        ({"name": "runs"}, "name", "runs"),
    ],
)
async def test_filters_let_through_what_they_name(
    http, repository, monkeypatch, asked, field, value
):
    monkeypatch.setattr(events, "LOOKED_AT_MAX", 3)  # so that it takes many looks
    await some_history(repository)
    every, after, more = [], 0, True
    while more:
        page = (await http.get("/v1/events", params={"after": after, **asked})).json()
        every += page["items"]
        after, more = page["next_after"], page["more"]

    expected = [e for e in await all_events(http) if e[field] == value]

    assert expected
    assert every == expected


async def all_events(http):
    found, after, more = [], 0, True
    while more:
        page = (await http.get("/v1/events", params={"after": after})).json()
        found += page["items"]
        after, more = page["next_after"], page["more"]
    return found


async def test_the_last_events_are_asked_for_without_knowing_an_id(http, repository):
    await some_history(repository)
    every = await everything(http)

    page = (await http.get("/v1/events", params={"last": 3, "kind": "session"})).json()

    assert page["items"] == [e for e in every if e["kernel_id"] is None][-3:]
    assert (page["next_after"], page["more"]) == (every[-1]["id"], False)


async def test_asked_for_nothing_it_says_where_events_stand(http, repository):
    await some_history(repository)

    page = (await http.get("/v1/events")).json()

    assert page == {"items": [], "next_after": (await lines_of(repository))[-1][0], "more": False}


async def test_who_waits_is_answered_as_soon_as_there_is_an_event(http, repository):
    here = (await http.get("/v1/events")).json()["next_after"]
    asked = {"after": here, "wait_s": 3600}

    waits = asyncio.create_task(http.get("/v1/events", params=asked))
    await asyncio.sleep(0)
    (made,) = [(await http.post("/v1/sessions", json={"command": ["true"]})).json()]

    assert {e["session_id"] for e in (await waits).json()["items"]} == {made["id"]}


async def test_others_see_what_happens_but_not_what_was_said(http, repository):
    await some_history(repository)
    made = (await http.post("/v1/tokens", json={"user": "bob", "role": "read-only"})).json()

    http.headers.update(bearer(made["token"]))
    found = await everything(http, kind=["session.waiting", "session.noted"])

    assert [(e["owner"], e["detail"]) for e in found] == [("bob", "a word of its own"), ("ann", "")]


async def test_who_has_missed_what_is_not_kept_is_told_so(http, repository):
    await some_history(repository)
    last = (await lines_of(repository))[-1][0]
    await repository._database.write(
        lambda tx: (
            tx.execute(delete(history).where(history.c.line < 6)),
            events.note_pruned(tx, 5),
        )
    )

    statuses = {}
    for after in (0, 1, 4, 5, last, last + 1):
        for path in ("/v1/events", "/v1/events/stream"):
            if path.endswith("stream") and after in {0, 5, last}:
                async with Stream(http, f"after={after}") as stream:
                    statuses[path, after] = stream.status
            else:
                answer = await http.get(path, params={"after": after})
                statuses[path, after] = answer.status_code
                assert answer.is_success or answer.json()["code"] == "events-gone"

    for path in ("/v1/events", "/v1/events/stream"):
        assert [statuses[path, after] for after in (0, 1, 4, 5, last, last + 1)] == [
            200, 410, 410, 200, 200, 410,
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("kind=session.slept", "kind"),
        ("after=-1", "after"),
        ("after=1&last=1", "last"),
        ("last=0", "last"),
        ("limit=1001", "limit"),
    ],
)
async def test_a_question_that_makes_no_sense_is_refused_by_its_field(http, query, field):
    answer = await http.get(f"/v1/events?{query}")

    assert (answer.status_code, answer.json()["field"]) == (422, field)


# --- streams --------------------------------------------------------------------------------------


async def test_a_stream_tells_what_there_is_and_then_what_comes(http, repository):
    await some_history(repository)

    async with Stream(http, "after=0") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        there = await stream.events(len(await lines_of(repository)))
        await http.post("/v1/sessions", json={"command": ["true"]})
        new = await stream.events(2)

    assert seen(there + new) == await lines_of(repository)


async def test_a_stream_without_an_id_tells_only_what_is_new(http, repository):
    await some_history(repository)
    before = await lines_of(repository)

    async with Stream(http) as stream:
        assert int((await stream.block())["id"]) == before[-1][0]
        await http.post("/v1/sessions", json={"command": ["true"]})
        new = await stream.events(2)

    assert seen(new) == (await lines_of(repository))[len(before) :]


async def test_the_last_events_id_wins_over_the_address(http, repository):
    await some_history(repository)

    async with Stream(http, "after=0", {"last-event-id": "7"}) as stream:
        (event,) = await stream.events(1)

    assert event["id"] == 8


@pytest.mark.parametrize("last", ["x", "-1", "1.5", "99999999999999999999"])
async def test_an_id_that_is_none_is_refused(http, last):
    answer = await http.get("/v1/events/stream", headers={"last-event-id": last})

    assert (answer.status_code, answer.json()["field"]) == (422, "Last-Event-ID")


async def test_a_quiet_stream_moves_its_reader_on_past_what_it_did_not_ask_for(
    http, repository, monkeypatch
):
    monkeypatch.setattr(event_operations, "HEARTBEAT_S", 0.05)
    await some_history(repository)
    last = (await lines_of(repository))[-1][0]

    async with Stream(http, "after=0&owner=nobody") as stream:
        while stream.last_id != last:
            assert "data" not in await stream.block()


async def test_streams_beyond_the_setting_are_told_to_come_later(http, monkeypatch):
    streams_max = ApiConfig().event_streams_max
    async with contextlib.AsyncExitStack() as opened:
        for _ in range(streams_max):
            await opened.enter_async_context(Stream(http))

        refused = await http.get("/v1/events/stream")

        assert (refused.status_code, refused.json()["code"]) == (429, "too-many-requests")
        assert int(refused.headers["retry-after"]) > 0
    async with Stream(http) as stream:
        assert stream.status == 200, "a reader that went made no room"


async def test_a_stopping_server_ends_its_streams(http):
    async with Stream(http) as stream:
        await stream.block()
        http._transport.app.state.stopping.told.set()

        async with asyncio.timeout(30):  # only a failure waits so long
            assert await stream.block() is None


async def test_a_stream_ends_after_an_hour_so_that_the_token_is_looked_at_again(http, repository):
    async with Stream(http) as stream:
        await stream.block()
        repository._clock.advance(event_operations.STREAM_S_MAX + 1)
        await http.post("/v1/sessions", json={"command": ["true"]})

        while await stream.block() is not None:
            pass  # what was on its way is still sent


@pytest.mark.parametrize("seed", range(2))
async def test_a_reader_cut_off_anywhere_that_comes_again_has_all_in_order_and_once(
    http, repository, seed
):
    rng = random.Random(seed)
    found, last_id = [], 0
    for left_rounds in reversed(range(15)):
        for _ in range(rng.choice([0, 0, 1, 9])):
            await http.post("/v1/sessions", json={"command": ["true"]})
        left = len(await lines_of(repository)) - len(found)
        async with Stream(http, headers={"last-event-id": str(last_id)}) as stream:
            found += await stream.events(rng.randint(0, left) if left_rounds else left)
            last_id = stream.last_id or last_id

    assert seen(found) == await lines_of(repository)
