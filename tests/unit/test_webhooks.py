"""Webhooks: set up over HTTP, told in order, signed, tried again; the receivers are in-process."""

import asyncio
import hashlib
import hmac
import json
import re
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from sqlalchemy import delete, select

from sokovan.api.notices import Notices
from sokovan.config import ApiConfig
from sokovan.domain.errors import StoreUnavailableError
from sokovan.domain.statuses import SessionStatus
from sokovan.store import events
from sokovan.store.engine import InlineDatabase
from sokovan.store.events import EVERY_EVENT, EventFilter
from sokovan.store.tables import audit, history
from sokovan.store.webhooks import Webhook, add_webhook, all_webhooks, remove_webhook
from sokovan.webhooks.deliveries import EVENTS_PER_MESSAGE_MAX, RETRY_S, Deliveries
from sokovan.webhooks.message import message
from tests.build import A1, NOW, a_repository, a_spec, an_agent_hello, brought_to, submitted
from tests.served import bearer, served


def said(status, text="", **more):
    """Return an answer that is read from a connection piece by piece."""
    return httpx.Response(status, content=pieces(text), **more)


async def pieces(text):
    yield text.encode()


async def at_once(status, text="", **more):
    return said(status, text, **more)


SECRET = "a secret of sixteen or more"
GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "events.md"
URL = "http://receiver.example/hook"
CONFIG = ApiConfig(webhook_retry_s_max=60.0)


class Receiver:
    """Answers what it is told to, 204 otherwise; checks every signature before anything else."""

    def __init__(self):
        self.answers = []
        self.messages = []
        self.tried = []

    async def answer(self, request):
        body = request.content
        timestamp = request.headers["x-sokovan-timestamp"]
        signed = hmac.new(SECRET.encode(), timestamp.encode() + b"." + body, hashlib.sha256)
        assert request.headers["x-sokovan-signature"] == f"sha256={signed.hexdigest()}"
        message = json.loads(body)
        assert request.headers["x-sokovan-webhook"] == message["webhook_id"]
        self.tried.append([event["id"] for event in message["events"]])
        answer = self.answers.pop(0) if self.answers else said(204)
        if isinstance(answer, Exception):
            raise answer
        if not isinstance(answer, httpx.Response):
            answer = await answer()
        if answer.is_success:
            self.messages.append(message)
        return answer

    @property
    def events(self):
        return [event for message in self.messages for event in message["events"]]


class Ground:
    """A repository, a receiver, and what tells the one's events to the other."""

    def __init__(self, config=CONFIG):
        self.repository = a_repository()
        self.database = self.repository._database
        self.clock = self.repository._clock
        self.receiver = Receiver()
        self.config = config
        self.restart()

    def restart(self, database=None):
        """Have a new manager tell; nothing is left of the old one but the store."""
        self.deliveries = Deliveries(
            database or self.database,
            self.clock,
            self.config,
            Notices(),
            lambda: httpx.AsyncClient(transport=httpx.MockTransport(self.receiver.answer)),
        )

    async def add(self, webhook_id="w1", asked=EVERY_EVENT, position=0, url=URL):
        made = Webhook(webhook_id, url, SECRET, asked, "root", NOW, position)
        await self.database.write(lambda tx: add_webhook(tx, made))

    async def webhook(self, webhook_id="w1"):
        found = await self.database.read(all_webhooks)
        return next(w for w in found if w.webhook_id == webhook_id)

    async def lines(self):
        query = select(history.c.line).order_by(history.c.line)
        return await self.database.read(lambda tx: list(tx.execute(query).scalars()))

    def told(self):
        return [event["id"] for event in self.receiver.events]


@pytest.fixture
async def ground():
    ground = Ground()
    await ground.repository.register_agent(an_agent_hello(A1))
    await brought_to(ground.repository, SessionStatus.RUNNING)
    return ground


# --- telling --------------------------------------------------------------------------------------


async def test_a_webhook_is_told_every_event_in_order_and_once(ground):
    await ground.add()
    await submitted(ground.repository, *[a_spec()] * EVENTS_PER_MESSAGE_MAX)

    await ground.deliveries.run_once()
    await submitted(ground.repository)
    await ground.deliveries.run_once()
    await ground.deliveries.run_once()

    assert ground.told() == await ground.lines()
    assert max(map(len, ground.receiver.tried)) == EVENTS_PER_MESSAGE_MAX
    assert (await ground.webhook()).position == ground.told()[-1]


async def test_a_webhook_is_told_only_what_it_asked_for(ground, monkeypatch):
    monkeypatch.setattr(events, "LOOKED_AT_MAX", 3)
    await ground.add(asked=EventFilter(owner="bob", kinds=("session.pending",)))
    (wanted,) = await submitted(ground.repository, a_spec(owner="bob"))
    await submitted(ground.repository)

    await ground.deliveries.run_once()

    assert [(e["session_id"], e["kind"]) for e in ground.receiver.events] == [
        (wanted, "session.pending")
    ]


async def test_the_guide_says_how_a_signature_is_checked(ground):
    (code,) = re.findall(r"```python\n(import hashlib.*?)```", GUIDE.read_text(), re.DOTALL)
    guide = {}
    exec(code, guide)
    sent = message(Webhook("w1", URL, SECRET, EVERY_EVENT, "root", NOW, 0), [], NOW + 0.5)

    def is_genuine(headers=sent.headers, body=sent.body, secret=SECRET, now=NOW):
        return guide["is_genuine"](headers, body, secret, now)

    assert is_genuine()
    assert not is_genuine(body=sent.body + b" ")
    assert not is_genuine(secret=SECRET + "x")
    assert not is_genuine({**sent.headers, "x-sokovan-timestamp": str(int(NOW) + 1)})
    assert not is_genuine(now=NOW + 301)


FAILURES = [
    (lambda: at_once(500, "out of\norder"), "it answered 500: out of order"),
    (lambda: at_once(404), "it answered 404"),
    (
        lambda: at_once(302, headers={"location": "http://elsewhere.example/"}),
        "it answered 302; redirects are not followed",
    ),
    (httpx.ConnectError("refused"), "ConnectError: refused"),
    (httpx.RemoteProtocolError("cut"), "RemoteProtocolError: cut"),
]


@pytest.mark.parametrize(("answer", "error"), FAILURES, ids=[error for _, error in FAILURES])
async def test_whatever_is_no_success_is_tried_again_and_shown(ground, answer, error):
    await ground.add()
    ground.receiver.answers = [answer]

    await ground.deliveries.run_once()
    failing = await ground.webhook()
    await ground.deliveries.run_once()

    assert (failing.failures, failing.last_error) == (1, error)
    assert (failing.failing_since, failing.retry_at) == (NOW, NOW + RETRY_S)
    assert len(ground.receiver.tried) == 1, "it was tried again before its time"
    ground.clock.advance(RETRY_S)
    await ground.deliveries.run_once()
    well = await ground.webhook()
    assert ground.told() == await ground.lines()
    assert (well.failures, well.failing_since, well.retry_at, well.last_error) == (0, *[None] * 3)


async def test_pauses_double_up_to_the_setting_and_never_end(ground):
    await ground.add()
    ground.receiver.answers = [lambda: at_once(503)] * 40
    pauses = []

    for _ in range(40):
        await ground.deliveries.run_once()
        pause_s = (await ground.webhook()).retry_at - ground.clock.now()
        pauses.append(pause_s)
        ground.clock.advance(pause_s)
    await ground.deliveries.run_once()

    assert pauses == [5.0, 10.0, 20.0, 40.0, *[60.0] * 36]
    assert ground.told() == await ground.lines()


async def test_one_that_never_answers_holds_up_no_other_and_is_given_up_in_time():
    ground = Ground(replace(CONFIG, webhook_timeout_s=0.05))
    await submitted(ground.repository)
    await ground.add("slow")
    await ground.add("swift", url="http://swift.example/")
    hangs = asyncio.Event()

    async def by_host(request):
        if request.url.host != "swift.example":
            await hangs.wait()
        return await Receiver.answer(ground.receiver, request)

    ground.receiver.answer = by_host
    ground.restart()
    await ground.deliveries.run_once()

    assert ground.told() == await ground.lines()
    assert (await ground.webhook("swift")).failures == 0
    assert (await ground.webhook("slow")).last_error == "it did not answer within 0.05 s"


async def test_no_more_of_an_answer_is_read_than_is_of_use(ground):
    read = []

    async def endless():
        while True:
            read.append(1000)
            yield b"x" * 1000

    await ground.add()
    ground.receiver.answers = [httpx.Response(500, content=endless())]

    await ground.deliveries.run_once()

    assert sum(read) < 10_000
    assert len((await ground.webhook()).last_error) < 300


class Failing(InlineDatabase):
    """Refuses to write, while it is told to."""

    refuses = False

    async def write(self, job):
        if self.refuses:
            raise StoreUnavailableError("the disk is full")
        return await super().write(job)


async def test_what_was_told_but_not_written_down_is_told_again_after_a_restart(ground):
    await ground.add()
    failing = Failing(ground.database.engine)
    failing.refuses = True
    ground.restart(failing)
    await ground.deliveries.run_once()

    ground.restart()
    await ground.deliveries.run_once()

    lines = await ground.lines()
    assert ground.told() == lines + lines


async def test_a_webhook_that_is_removed_is_told_nothing_more(ground):
    await ground.add()
    await submitted(ground.repository, *[a_spec()] * EVENTS_PER_MESSAGE_MAX)

    async def meanwhile():
        await ground.database.write(lambda tx: remove_webhook(tx, "w1"))
        return said(204)

    ground.receiver.answers = [meanwhile]
    await ground.deliveries.run_once()

    assert len(ground.receiver.tried) == 1


@pytest.mark.parametrize("restored", [False, True])
async def test_a_webhook_goes_on_behind_what_is_not_kept(ground, restored):
    lines = await ground.lines()
    await ground.add(position=lines[-1] + 100 if restored else 1)
    gone = history.c.line < lines[5]
    await ground.database.write(
        lambda tx: (tx.execute(delete(history).where(gone)), events.note_pruned(tx, lines[5] - 1))
    )

    await ground.deliveries.run_once()
    await submitted(ground.repository)
    await ground.deliveries.run_once()

    kept = await ground.lines()
    assert ground.told() == (kept[-2:] if restored else kept)


async def test_it_is_told_what_comes_while_it_runs(ground, monkeypatch):
    monkeypatch.setattr("sokovan.webhooks.deliveries.GATHER_S", 0.0)
    notices, all_told = Notices(), asyncio.Event()
    ground.deliveries._notices = notices
    await ground.add()

    async def watched(request):
        answer = await Receiver.answer(ground.receiver, request)
        if ground.told() == await ground.lines():
            all_told.set()
        return answer

    ground.receiver.answer = watched
    running = asyncio.create_task(ground.deliveries.run())
    async with asyncio.timeout(30):  # only a failure waits so long
        await all_told.wait()
        all_told.clear()
        _, applied = await ground.repository.submit([a_spec()])
        notices(applied)
        await all_told.wait()
    running.cancel()

    assert ground.told() == await ground.lines()


# --- over HTTP ------------------------------------------------------------------------------------


@pytest.fixture
async def http(ground):
    async with served(ground.repository) as http:
        yield http


async def test_a_secret_is_shown_once_and_written_nowhere_else(ground, http):
    asked = {"url": f"{URL}?key=sesame", "kinds": ["session.terminated"], "owner": "ann"}
    made = (await http.post("/v1/webhooks", json=asked)).json()

    listed = (await http.get("/v1/webhooks")).json()["items"]

    secret = made.pop("secret")
    assert listed == [made]
    assert asked.items() <= made.items()
    assert made["position"] == (await ground.lines())[-1]
    found = await ground.webhook(made["id"])
    assert found.secret == secret
    assert secret not in repr(found)
    lines = await ground.database.read(lambda tx: str(tx.execute(select(audit)).all()))
    assert "webhook add" in lines
    assert "http://receiver.example" in lines
    assert secret not in lines
    assert "sesame" not in lines


async def test_a_removed_webhook_is_gone(http):
    made = (await http.post("/v1/webhooks", json={"url": URL, "secret": SECRET})).json()

    gone = await http.delete(f"/v1/webhooks/{made['id']}")

    assert gone.json()["id"] == made["id"]
    assert (await http.get("/v1/webhooks")).json() == {"items": []}
    for again in (
        await http.delete(f"/v1/webhooks/{made['id']}"),
        await http.post(f"/v1/webhooks/{made['id']}/test"),
    ):
        assert (again.status_code, again.json()["code"]) == (404, "webhook-not-found")


async def test_a_webhook_is_tried_without_an_event(http):
    made = (await http.post("/v1/webhooks", json={"url": URL})).json()

    answer = (await http.post(f"/v1/webhooks/{made['id']}/test")).json()

    assert answer == {"ok": True, "status": 204, "error": None, "took_s": 0.0}


@pytest.mark.parametrize("role", ["user", "read-only"])
async def test_only_administrators_have_to_do_with_webhooks(http, role):
    made = (await http.post("/v1/webhooks", json={"url": URL})).json()
    token = (await http.post("/v1/tokens", json={"user": "ann", "role": role})).json()["token"]
    http.headers.update(bearer(token))

    for method, path in (
        ("GET", "/v1/webhooks"),
        ("POST", "/v1/webhooks"),
        ("DELETE", f"/v1/webhooks/{made['id']}"),
        ("POST", f"/v1/webhooks/{made['id']}/test"),
    ):
        answer = await http.request(method, path, json={"url": URL} if method == "POST" else None)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "url"),
        ({"url": "ftp://example.org/"}, "url"),
        ({"url": "http://"}, "url"),
        ({"url": "http://[::1/"}, "url"),
        ({"url": "http://example.org:99999/"}, "url"),
        ({"url": "http://ann:secret@example.org/"}, "url"),
        ({"url": "http://example.org/ a"}, "url"),
        ({"url": URL, "secret": "short"}, "secret"),
        ({"url": URL, "secret": "ünsafe to put into a header"}, "secret"),
        ({"url": URL, "kinds": ["session.slept"]}, "kinds"),
        ({"url": URL, "kind": "session"}, "kind"),
    ],
)
async def test_what_makes_no_webhook_is_refused_by_its_field(http, body, field):
    answer = await http.post("/v1/webhooks", json=body)

    assert (answer.status_code, answer.json()["field"]) == (422, field)
