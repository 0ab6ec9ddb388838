"""The client's requests for edits, redos and groups, answered by the real service."""

import pytest

from sokovan import AsyncClient
from sokovan.clock import ManualClock
from sokovan.domain.errors import GroupNotFoundError, IllegalStateError
from tests.build import A1, NOW, a_repository, an_agent_hello, in_memory, submitted
from tests.served import TOKEN, served


@pytest.fixture
async def repository():
    repository = a_repository(database=in_memory(), clock=ManualClock(NOW))
    await repository.register_agent(an_agent_hello(A1))
    return repository


@pytest.fixture
async def client(repository):
    async with served(repository) as http:
        client = AsyncClient(url="http://here", token=TOKEN)
        client._connection._http = http  # in this process, instead of over a socket
        yield client


async def test_a_session_is_edited_and_submitted_again(client, repository):
    (session_id,) = await submitted(repository)

    edited = await client.edit(session_id, priority=50, where={"constraints": ["cpu>=2"]})
    again = await client.redo(session_id, walltime_s=60, held=True)
    plain = await client.redo(session_id)

    assert (edited["priority"], edited["where"]) == (50, {"constraints": ["cpu>=2"]})
    assert (again["priority"], again["walltime_s"], again["held"]) == (50, 60, True)
    assert len({session_id, again["id"], plain["id"]}) == 3


async def test_a_redo_that_is_sent_twice_yields_one_session(client, repository):
    (session_id,) = await submitted(repository)

    first = await client.redo(session_id, creation_id="c1")
    second = await client.redo(session_id, creation_id="c1")

    assert first["id"] == second["id"]


async def test_a_group_is_made_set_shown_and_removed(client):
    made = await client.create_group("night", {"order": "lifo"})
    changed = await client.set_group("night", {"order": None, "kernels_max": 2})
    listed = [group["name"] for group in await client.groups()]
    shown = await client.group("night")
    with pytest.raises(IllegalStateError):
        await client.create_group("night")
    removed = await client.remove_group("night")

    assert made["policy"]["order"] == {"value": "lifo", "source": "groups set"}
    assert changed["policy"]["order"] == {"value": "fifo", "source": "default"}
    assert (listed, shown, removed) == (["default", "night"], changed, changed)


@pytest.mark.parametrize("name", ["nowhere", "a/b", "..", ""])
async def test_a_group_that_there_cannot_be_is_not_found(client, name):
    with pytest.raises(GroupNotFoundError):
        await client.group(name)
