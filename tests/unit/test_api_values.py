"""What the databases differ in is refused, or taken, in the same way with both."""

import json

import pytest

from sokovan.api.models import SessionBody
from sokovan.clock import ManualClock
from tests.build import A1, NOW, a_repository, an_agent_hello, in_memory
from tests.served import served

TEXTS = ["\0", "a\0b", "\ud800", "é" * 64, "x" * 201, "%", "\\"]
NUMBERS = [2**31 - 1, 2**31, 2**53 + 1, 2**63, 1e300, -1]
VALUES = [*TEXTS, *NUMBERS, True, None]


@pytest.fixture
async def repository():
    made = a_repository(database=in_memory(), clock=ManualClock(NOW))
    await made.register_agent(an_agent_hello())
    return made


@pytest.fixture
async def http(repository):
    async with served(repository) as client:
        yield client


async def sent(http, method, path, body):
    """Send what httpx itself would not: any text at all."""
    content = json.dumps(body).encode()
    headers = {"content-type": "application/json"}
    return await http.request(method, path, content=content, headers=headers)


@pytest.mark.parametrize("field", SessionBody.model_fields)
async def test_any_value_of_a_field_is_taken_or_named_as_wrong(http, field):
    for value in VALUES:
        for given in (value, [value], {str(value): value}):
            body = {"command": ["true"]} | {field: given}

            answer = await sent(http, "POST", "/v1/sessions", body)

            assert answer.status_code in {201, 400, 404, 409, 422}, (given, answer.text)


BODIES = {
    "/v1/tokens": ("POST", ("user", "label", "lifetime_s")),
    f"/v1/agents/{A1}/drain": ("POST", ("reason",)),
    f"/v1/agents/{A1}/label": ("POST", ("labels",)),
    "/v1/webhooks": ("POST", ("url", "kinds", "owner", "group", "name", "secret")),
    "/v1/groups": ("POST", ("name", "policy")),
    "/v1/groups/default": ("PATCH", ("order", "kernels_max", "ageing_s", "walltime_default_s")),
    "/v1/arrays": ("POST", ("session", "indexes", "params", "running_max")),
}

WHOLE = {
    "/v1/tokens": {"user": "ann"},
    "/v1/webhooks": {"url": "https://here.example"},
    "/v1/groups": {"name": "night"},
    "/v1/arrays": {"session": {"command": ["true"]}, "indexes": "0-1"},
}
"""What is taken as it is."""


@pytest.mark.parametrize("path", BODIES)
async def test_any_value_elsewhere_is_no_fault_of_the_server(http, path):
    method, fields = BODIES[path]
    for field in fields:
        for value in VALUES:
            for given in (value, [value], {str(value): value}):
                body = WHOLE.get(path, {}) | {field: given}

                answer = await sent(http, method, path, body)

                assert answer.status_code < 500, (field, given, answer.text)


QUERIES = [
    "/v1/sessions?name={}",
    "/v1/sessions?owner={}",
    "/v1/sessions?group={}",
    "/v1/sessions?status={}",
    "/v1/sessions?array={}",
    "/v1/sessions?cursor={}",
    "/v1/sessions?limit={}",
    "/v1/sessions/{}",
    "/v1/sessions/{}/history",
    "/v1/sessions/@~{}",
    "/v1/arrays/{}",
    "/v1/agents/{}/drain",
    "/v1/groups/{}",
    "/v1/webhooks/{}",
    "/v1/tokens/{}",
    "/v1/audit?limit={}",
    "/v1/audit?user={}",
    "/v1/audit?cursor={}",
    "/v1/events?after={}",
    "/v1/events?owner={}",
    "/v1/events?group={}",
    "/v1/events?session={}",
    "/v1/arrays?owner={}",
    "/v1/arrays?name={}",
]


@pytest.mark.parametrize("query", QUERIES)
async def test_any_value_in_an_address_is_no_fault_of_the_server(http, query):
    for value in ("%00", "a%00b", "%ed%a0%80", "%F4%8F%BF%BF", "%25", "_", *map(str, NUMBERS)):
        method = "DELETE" if "tokens" in query or "webhooks" in query else "GET"

        answer = await http.request(method, query.format(value) + ("&" if "?" in query else "?"))

        assert answer.status_code < 500, (value, answer.text)


async def test_names_are_sorted_by_their_characters_whatever_the_database_likes(http):
    names = ["b", "B", "a", "A", "é", "z", "_", "-", "10", "9"]
    for name in names:
        await sent(http, "POST", "/v1/sessions", {"command": ["true"], "name": name})

    listed, cursor = [], ""
    while cursor is not None:
        page = f"/v1/sessions?sort=name&limit=3{cursor and '&cursor=' + cursor}"
        answer = (await http.get(page)).json()
        listed += [view["name"] for view in answer["items"]]
        cursor = answer["next_cursor"]

    assert listed == sorted(names)
