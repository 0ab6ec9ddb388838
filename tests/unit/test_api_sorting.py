"""Lists of sessions in another order, page by page."""

from typing import get_args

import pytest

from sokovan.api.endpoints.sessions import Sort
from sokovan.store.queries import SORTS
from tests.build import a_repository, a_spec, submitted
from tests.served import served

NAMES = ["b", "a", "c", "a"]
PRIORITIES = [10, 30, 10, 20]


@pytest.fixture
async def http():
    repository = a_repository()
    specs = [
        a_spec(name=name, priority=priority)
        for name, priority in zip(NAMES, PRIORITIES, strict=True)
    ]
    await submitted(repository, *specs)
    async with served(repository) as http:
        yield http


async def listed(http, sort, limit):
    """Return the numbers of all sessions, as the pages have them."""
    numbers, params = [], {"sort": sort, "limit": limit}
    while True:
        page = (await http.get("/v1/sessions", params=params)).json()
        numbers += [session["number"] for session in page["items"]]
        if page["next_cursor"] is None:
            return numbers
        params["cursor"] = page["next_cursor"]


@pytest.mark.parametrize("limit", [1, 2, 3, 10])
@pytest.mark.parametrize(
    ("sort", "order"),
    [
        ("number", [1, 2, 3, 4]),
        ("-number", [4, 3, 2, 1]),
        ("name", [2, 4, 1, 3]),
        ("-name", [3, 1, 4, 2]),
        ("priority", [1, 3, 4, 2]),
        ("-priority", [2, 4, 3, 1]),
        ("-status_since", [4, 3, 2, 1]),
    ],
)
async def test_pages_follow_each_other_in_the_order_asked_for(http, sort, order, limit):
    assert await listed(http, sort, limit) == order


async def test_an_order_that_does_not_exist_is_refused_with_those_that_do(http):
    answer = await http.get("/v1/sessions", params={"sort": "mood"})

    assert answer.status_code == 422
    assert answer.json()["field"] == "sort"
    assert "-priority" in answer.json()["detail"]


def test_the_interface_offers_what_the_store_can_do():
    assert {sort.removeprefix("-") for sort in get_args(Sort)} == SORTS.keys()
