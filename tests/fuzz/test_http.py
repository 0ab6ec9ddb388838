"""Whatever comes over HTTP is answered as the OpenAPI document says, and the next request works."""

import asyncio
import contextlib
import json
import re
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
import requests
import schemathesis
import uvicorn
from hypothesis import example, given, settings
from hypothesis import strategies as st
from schemathesis import checks as general
from schemathesis.core.transport import Response
from schemathesis.specs.openapi import checks as openapi

from sokovan.api.http import http_config
from sokovan.api.models import SessionBody
from sokovan.simulator.workload import ROOT
from tests.build import A1, a_spec, stores_on
from tests.fuzz.ground import BEARER, LIMITS, TOKEN, Answer, Header, House

CHECKS = [
    general.not_a_server_error,
    openapi.status_code_conformance,
    openapi.content_type_conformance,
    openapi.response_headers_conformance,
    openapi.response_schema_conformance,
]
PATHS = [
    "",
    "/healthz",
    "/readyz",
    "/metrics",
    "/v1/sessions",
    "/v1/sessions/dry-run",
    *(
        f"/v1/sessions/{{}}{action}"
        for action in (
            "",
            "/history",
            "/why",
            "/eta",
            "/wait",
            "/output",
            "/cancel",
            "/hold",
            "/release",
        )
    ),
    "/v1/agents",
    "/v1/agents/{}/drain",
    "/v1/agents/{}/undrain",
    "/v1/agents/{}/label",
    "/v1/agents/{}",
    "/v1/status",
    "/v1/whoami",
    "/v1/tokens",
    "/v1/tokens/{}",
    "/v1/audit",
    "/v1/shutdown",
    "/v1/{}",
]
HOSTILE_NAMES = [
    "..",
    "../../etc/passwd",
    "%2e%2e%2f",
    "\0",
    "@",
    "@~",
    "@~99999999999999999999",
    "#0",
    "\U0010ffff",
    "' OR 1=1 --",
    "*",
    "x" * 5000,
    "%",
    "%zz",
    "\ufeff",
]


class InhabitedHouse(House):
    """One with sessions, and their names."""

    def __init__(self) -> None:
        super().__init__()
        self.refs = self.inhabit()
        self.callers = self.bearers()
        (token, *_) = self.run(self.tokens.listed(caller=ROOT))
        self.names = [None, *self.refs, "@", A1, token["id"]]


@pytest.fixture(
    scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)]
)
def house(request: pytest.FixtureRequest) -> Iterator[InhabitedHouse]:
    with contextlib.ExitStack() as stack:
        if request.param == "postgresql":
            stack.enter_context(stores_on(request.getfixturevalue("postgresql")))
        house = InhabitedHouse()
        stack.callback(house.close)
        yield house


def the_operations() -> dict[str, Any]:
    """Return what schemathesis knows of each operation; the token is ours to add."""
    house = House()
    document = json.loads(json.dumps(house.app.openapi()))
    house.close()
    for operation in (o for path in document["paths"].values() for o in path.values()):
        operation.pop("security", None)
    found = schemathesis.openapi.from_dict(document).get_all_operations()
    return {o.definition.raw["operationId"]: o for o in (result.ok() for result in found)}


OPERATIONS = the_operations()


def is_well(house: InhabitedHouse) -> None:
    """A healthy request is answered as ever."""
    answer = house.ask("GET", b"/v1/sessions/" + house.refs[1].encode())

    assert answer.status == 200
    assert answer.json()["name"] == "runs"


def is_an_answer(answer: Answer) -> None:
    """What was answered is no failure of the server, and a problem object where it refuses."""
    assert answer.status < 500, answer
    if answer.status >= 400:
        assert answer.header("content-type") == "application/problem+json"
        problem = answer.json()
        assert problem["status"] == answer.status
        assert problem["detail"]
        assert len(answer.body) < 10_000, "a problem does not say again all that was sent"


# --- by the document ------------------------------------------------------------------------------


def sent(house: House, case: Any, bearer: Header) -> Answer:
    """Send what schemathesis made up, with somebody's token."""
    told = case.as_transport_kwargs(base_url="http://here")
    request = requests.Request(**told).prepare()
    url = urlsplit(request.url)
    headers = [
        (name.encode("latin-1"), value.encode("latin-1") if isinstance(value, str) else value)
        for name, value in request.headers.items()
        if name.lower() != "authorization"
    ]
    target = f"{url.path}?{url.query}" if url.query else url.path
    answer = house.ask(
        request.method,
        target.encode(),
        headers=[*headers, bearer],
        body=request.body.encode() if isinstance(request.body, str) else request.body or b"",
    )
    heard: dict[str, list[str]] = {}
    for name, value in answer.headers:
        heard.setdefault(name.decode(), []).append(value.decode("latin-1"))
    # it does not count what is too large for refused
    checks = CHECKS if answer.status == 413 else [*CHECKS, openapi.negative_data_rejection]
    case.validate_response(
        Response(answer.status, heard, answer.body, request, 0.0, verify=False), checks=checks
    )
    return answer


REFUSABLE = [name for name, o in OPERATIONS.items() if len(o.query.items) or o.body.items]
"""In the others, nothing can be wrong: any text may be an id."""


def ask_all(house: InhabitedHouse, name: str, mode: schemathesis.GenerationMode) -> None:
    @given(
        OPERATIONS[name].as_strategy(generation_mode=mode),
        st.sampled_from(house.names),
        st.sampled_from(house.callers),
    )
    def ask(case, known, bearer):
        for parameter in case.path_parameters or {}:
            case.path_parameters[parameter] = known or case.path_parameters[parameter]
        if known and isinstance(case.body, dict):
            case.body.pop("scaling_group", None)  # any other than `default` is refused, and no more
        sent(house, case, bearer)

    # the databases differ in what they refuse: a few tries of each operation find that
    share = 2 if house.database.engine.dialect.name == "sqlite" else 10
    settings(max_examples=settings().max_examples // share)(ask)()
    is_well(house)


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_answer_is_as_the_document_says(house, name):
    ask_all(house, name, schemathesis.GenerationMode.POSITIVE)


@pytest.mark.parametrize("name", REFUSABLE)
def test_what_the_document_forbids_is_refused_as_it_says(house, name):
    ask_all(house, name, schemathesis.GenerationMode.NEGATIVE)


# --- what no document describes -------------------------------------------------------------------

TEXTS = st.text() | st.sampled_from(HOSTILE_NAMES)
NUMBERS = st.integers() | st.floats() | st.sampled_from([10**400, -(2**63), 2**64, 1e308, 5e-324])
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    [*SessionBody.model_fields, "sessions", "force", "reason", "labels", "body", "query"]
)
BODIES = (
    st.binary(max_size=2000)
    | VALUES.map(lambda value: json.dumps(value).encode())
    | st.dictionaries(FIELDS, VALUES, max_size=5).map(
        lambda fields: json.dumps({"command": ["true"]} | fields).encode()
    )
)
TAKE_BODIES = [
    b"/v1/sessions",
    b"/v1/sessions/@/cancel",
    b"/v1/agents/a1/drain",
    b"/v1/agents/a1/label",
    b"/v1/tokens",
]
MEDIA_TYPES = st.sampled_from(
    [b"", b"text/plain", b"application/json; charset=utf-16", b"multipart/form-data", b"\xff"]
)
LINE = st.binary(max_size=60).map(lambda text: text.translate(None, b"\r\n\0"))
HEADERS = st.lists(
    st.tuples(
        st.sampled_from([b"host", b"content-length", b"content-type", b"accept", b"cookie", b"x"]),
        LINE | st.sampled_from([b"[", b"a]b[", b"-1", b"9" * 30, b"evil.example:99999999"]),
    ),
    max_size=6,
)


@given(st.sampled_from(TAKE_BODIES), BODIES, MEDIA_TYPES)
@example(TAKE_BODIES[0], b"[" * 90_000, b"")
@example(TAKE_BODIES[0], b'{"a":' * 15_000, b"")
@example(TAKE_BODIES[0], b'{"command":["true"],"cpu_milli":' + b"9" * 4000 + b"}", b"")
@example(TAKE_BODIES[0], b'{"command":["true"],"cpu_milli":1,"cpu_milli":NaN}', b"")
@example(TAKE_BODIES[0], b'{"command":["true"],"' + b"x" * 50_000 + b'":1}', b"")
@example(TAKE_BODIES[1], b"\xef\xbb\xbf{}", b"")
def test_any_body_is_taken_or_refused_in_a_sentence(house, target, body, media_type):
    headers = [BEARER, (b"content-type", media_type)]

    is_an_answer(house.ask("POST", target, body=body, headers=headers))
    is_well(house)


@given(
    st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "BREW"]),
    st.sampled_from(PATHS),
    TEXTS.map(lambda text: quote(text.encode("utf-8", "surrogatepass"), safe="").encode())
    | st.binary(max_size=20).map(lambda raw: quote(raw, safe="").encode()),
    st.binary(max_size=40) | st.sampled_from([b"cursor=" + b"9" * 19, b"limit=-1", b"wait_s=NaN"]),
)
@example("GET", "/v1/sessions", b"", b"cursor=" + b"9" * 19)
@example("GET", "/v1/sessions", b"", b"cursor=%D9%A3")
def test_any_address_is_answered(house, method, path, name, query):
    is_an_answer(house.ask(method, path.encode().replace(b"{}", name) + b"?" + query))
    is_well(house)


@given(st.sampled_from([b"/v1/nowhere", b"/v1/sessions/", b"/v1/sessions"]), HEADERS)
@example(b"/v1/nowhere", [(b"host", b"[")])
def test_any_headers_are_lived_with(house, target, headers):
    answer = house.ask("GET", target, headers=[*headers, BEARER])

    is_an_answer(answer)
    assert not answer.header("location"), "nobody is sent, with the token, where a header says"
    is_well(house)


@given(LINE)
def test_no_other_token_opens_the_door(house, token):
    is_well(house)  # whose token is known goes on being let in
    answer = house.ask("GET", b"/v1/status", headers=[(b"authorization", b"Bearer " + token)])

    if token == TOKEN.encode():
        assert answer.status == 200
    else:
        assert answer.status in (401, 429), "after the first hundred, nobody listens"
    is_an_answer(answer)


# --- bytes on a connection ------------------------------------------------------------------------

REQUEST = (
    b"GET /v1/status HTTP/1.1\r\nhost: here\r\nauthorization: Bearer %s\r\n\r\n" % TOKEN.encode()
)
STARTS = st.sampled_from(
    [
        REQUEST,
        REQUEST.replace(b"GET /v1/status", b"POST /v1/sessions"),
        REQUEST.replace(b"\r\n\r\n", b"\r\ntransfer-encoding: chunked\r\n\r\nffffffffff\r\n"),
        REQUEST.replace(b"\r\n\r\n", b"\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n"),
        REQUEST.replace(b"/v1/status", b"/v1/\xff\xfe%00%ff"),
        REQUEST.replace(b"here", b"[\xff"),
        REQUEST.replace(b"\r\n\r\n", b"\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"),
        b"GET http://elsewhere/ HTTP/1.1\r\nhost: x\r\n\r\n",
        b"CONNECT here:80 HTTP/1.1\r\nhost: here\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"",
    ]
)


async def said_by_server(house: House, spoken: bytes, *later: bytes) -> bytes:
    """Connect as uvicorn's listener would, speak, and hear everything until it says no more."""
    ours, its = socket.socketpair()
    ours.setblocking(False)
    loop = asyncio.get_running_loop()
    config = http_config(house.app, log_config=None)
    config.load()
    state = uvicorn.server.ServerState()
    await loop.connect_accepted_socket(
        lambda: config.http_protocol_class(config, state, {}, loop), sock=its
    )
    reader, writer = await asyncio.open_connection(sock=ours)
    writer.write(spoken)
    for more in later:
        for _ in range(20):
            await asyncio.sleep(0)  # what came before is heard
        writer.write(more)
    heard = [b""]
    # It waits for the rest of what was begun, or has hung up and hears no more.
    with contextlib.suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout(60):
            while part := await reader.read(65536):
                heard.append(part)
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    return b"".join(heard)


@given(STARTS, st.binary(max_size=200))
def test_any_bytes_on_a_connection_leave_the_server_standing(house, start, more):
    heard = house.run(said_by_server(house, start + more))

    assert not re.match(rb"HTTP/1.1 5", heard), heard
    assert house.run(said_by_server(house, REQUEST)).startswith(b"HTTP/1.1 200 ")


WITHOUT_END = {
    "a header": (REQUEST[:-2] + b"x: ", 431),
    "many headers": (REQUEST[:-2], 431),
    "an address": (b"GET /v1/", 431),
    "a trailer": (
        REQUEST[:-2].replace(b"GET /v1/status", b"POST /v1/sessions")
        + b"transfer-encoding: chunked\r\n\r\n1\r\n{\r\n0\r\nx: ",
        None,
    ),
    "a chunk's extension": (
        REQUEST[:-2].replace(b"GET /v1/status", b"POST /v1/sessions")
        + b"transfer-encoding: chunked\r\n\r\n1;x=",
        None,
    ),
}


@pytest.mark.parametrize("what", WITHOUT_END)
def test_what_is_sent_without_end_has_an_end(house, what):
    start, status = WITHOUT_END[what]
    part = b"x: y\r\n" * 1000 if what == "many headers" else b"x" * 10_000
    sent = start + part * 100

    heard = house.run(said_by_server(house, sent))

    assert heard.startswith(b"HTTP/1.1 431 ") if status else b"HTTP/1.1 2" not in heard
    assert house.run(said_by_server(house, REQUEST)).startswith(b"HTTP/1.1 200 ")


BODY = b'{"command": ["true"], "name": "GET /v1/status HTTP/1.1"}'
UPGRADE = REQUEST[:-2].replace(b"GET /v1/status", b"POST /v1/sessions") + (
    b"connection: close, upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAQ\r\n"
)


@pytest.mark.parametrize(
    ("framing", "body"),
    [
        (b"content-length: %d\r\n\r\n" % len(BODY), BODY),
        (b"transfer-encoding: chunked\r\n\r\n", b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)),
    ],
    ids=["length", "chunked"],
)
@pytest.mark.parametrize("cut", [None, 0, 10])
def test_a_body_stays_one_where_another_protocol_is_offered(house, framing, body, cut):
    head = UPGRADE + framing
    parts = [head + body] if cut is None else [head + body[:cut], body[cut:]]

    heard = house.run(said_by_server(house, *parts))

    assert heard.startswith(b"HTTP/1.1 201 "), heard
    assert heard.count(b"HTTP/1.1 ") == 1, "the body is no request"


@pytest.mark.parametrize("hosts", [b"", b"host: here\r\nhost: there\r\n"])
def test_a_request_says_for_which_host_it_is(house, hosts):
    heard = house.run(said_by_server(house, REQUEST.replace(b"host: here\r\n", hosts)))

    assert heard.startswith(b"HTTP/1.1 400 "), heard


def test_a_trailer_is_no_header(house):
    chunked = b"transfer-encoding: chunked\r\n\r\n1\r\n{\r\n0\r\n"
    stranger = b"POST /v1/sessions HTTP/1.1\r\nhost: here\r\n" + chunked

    heard = house.run(
        said_by_server(house, stranger + b"authorization: Bearer %s\r\n\r\n" % TOKEN.encode())
    )

    assert heard.startswith(b"HTTP/1.1 401 "), heard


@pytest.mark.parametrize("target", TAKE_BODIES)
def test_a_body_beyond_the_limit_is_refused_before_all_of_it_is_read(house, target):
    part = b"x" * 10_000
    answer = house.ask("POST", target, body=[part] * 1000)

    is_an_answer(answer)
    assert answer.status == 413
    assert "larger than" in answer.json()["detail"]
    assert house.unread_parts >= 1000 - LIMITS.body_bytes_max // len(part) - 1
    is_well(house)


@pytest.mark.parametrize("cursor", ["9" * 19, "9" * 200, "%D9%A3", "-1", "x", ""])
def test_a_cursor_that_no_page_gave_is_refused(house, cursor):
    answer = house.ask("GET", f"/v1/sessions?cursor={cursor}".encode())

    assert answer.status == 422
    assert answer.json()["detail"] == "cursor: pass on the one that the last page gave you"


def test_an_address_with_a_slash_too_many_leads_nowhere(house):
    answer = house.ask("GET", b"/v1/sessions/", headers=[BEARER, (b"host", b"evil.example")])

    assert (answer.status, answer.header("location")) == (404, "")


@pytest.mark.parametrize("field", ["body", "query", "path"])
def test_a_field_that_does_not_exist_is_named_whatever_it_is_called(house, field):
    body = json.dumps({"command": ["true"], field: 1}).encode()

    answer = house.ask("POST", b"/v1/sessions", body=body)

    assert answer.status == 422
    assert answer.json()["field"] == field


def test_what_was_submitted_by_strangers_holds_up_nobody(house):
    """Whatever odd sessions were accepted before, the next ordinary one runs to its end."""
    house.ask("POST", b"/v1/agents/a1/undrain")
    house.live(600.0)
    session_id = house.submit(a_spec(name="next", priority=100))

    house.live(60.0)

    answer = house.ask("GET", b"/v1/sessions/" + session_id.encode())
    assert (answer.json()["status"], answer.json()["result"]) == ("TERMINATED", "SUCCESS")
