"""Arrays in the store: accepted at once, found by name, and so many at work as may be."""

import pytest

from sokovan.domain.arrays import ArraySpec, parse_indexes
from sokovan.domain.errors import (
    CreationConflictError,
    InvalidRequestError,
    IsAnArrayError,
    SessionNotFoundError,
)
from sokovan.domain.reasons import WaitReason
from sokovan.domain.sessions import Dependency, DependencyKind, SessionId
from sokovan.domain.statuses import SessionStatus
from sokovan.scheduler.messages import ReportState
from sokovan.scheduler.stages import CHECK_PRECONDITION, START_SESSIONS
from sokovan.simulator.survey import survey
from sokovan.store.array_queries import array_row, counts_of, counts_of_part, page_of_tasks
from sokovan.store.loading import load_specs
from sokovan.store.refs import ArrayRef, find, resolve, resolve_array
from tests.build import A1, a_capacity, a_spec, an_agent_hello, asked, placed, said, submitted

S = SessionStatus


@pytest.fixture(autouse=True)
async def _agent(repository):
    await repository.register_agent(an_agent_hello(A1, capacity=a_capacity(cpu_milli=100_000)))


def an_array(indexes="0-5", running_max=None, params=(), **changes):
    parsed = None if params else parse_indexes(indexes, field="indexes")
    return ArraySpec(
        a_spec(**{"command": ("run", "{index}")} | changes), parsed, params, running_max
    )


async def accepted(repository, *args, **changes):
    array_id, _ = await repository.submit_array(an_array(*args, **changes))
    return array_id


def tasks(repository, array_id):
    return {task.array_index: task for task in repository.live.tasks_of(array_id)}


def with_place(repository, array_id):
    return sorted(i for i, task in tasks(repository, array_id).items() if task.has_array_place)


async def run(repository, *found):
    ids = [task.session_id for task in found]
    await placed(repository, *ids)
    await asked(repository, CHECK_PRECONDITION, *ids)
    await said(repository, ReportState.PREPARED, *ids)
    await asked(repository, START_SESSIONS, *ids)
    await said(repository, ReportState.RUNNING, *ids)


async def end(repository, *found, exit_code=0):
    await said(
        repository, ReportState.ENDED, *(task.session_id for task in found), exit_code=exit_code
    )


async def counted(store, array_id):
    def job(tx):
        row = array_row(tx, array_id)
        counts = counts_of(tx, [row])[array_id]
        assert counts_of_part(tx, ArrayRef(array_id)) == counts
        assert survey(tx).violations == ()
        return counts

    return await store.database.read(job)


# --- accepting ------------------------------------------------------------------------------------


async def test_who_follows_history_is_told_of_an_array_and_of_it_once(repository):
    array = an_array("0-2", creation_id="c")

    _, applied = await repository.submit_array(array)
    _, again = await repository.submit_array(array)

    assert applied.wrote
    assert len(applied.moved) == 3
    assert not again.wrote
    assert not again.moved


async def test_the_tasks_of_an_array_are_sessions_like_any_other(store, repository):
    array_id = await accepted(repository, "0-20:10", kernel_count=2, env={"N": "{index}"})

    found = tasks(repository, array_id)
    assert list(found) == [0, 10, 20]
    assert [task.number for task in found.values()] == sorted(t.number for t in found.values())
    ids = [task.session_id for task in found.values()]
    specs = await store.database.read(lambda tx: load_specs(tx, ids))
    assert [specs[i].command for i in ids] == [("run", "0"), ("run", "10"), ("run", "20")]
    assert [specs[i].env["N"] for i in ids] == ["0", "10", "20"]
    for session_id in ids:
        assert [line["to_status"] for line in await store.history(session_id)] == ["PENDING"] * 3
    await run(repository, *found.values())
    await end(repository, *found.values())
    assert (await counted(store, array_id)).succeeded == 3


async def test_the_same_creation_id_is_the_same_array(store, repository):
    first = await accepted(repository, "0-3", creation_id="once")

    assert await accepted(repository, "0-3", creation_id="once") == first
    assert len(tasks(repository, first)) == 4
    with pytest.raises(CreationConflictError):
        await accepted(repository, "0-4", creation_id="once")
    with pytest.raises(CreationConflictError):
        await submitted(repository, a_spec(creation_id="once"))
    await submitted(repository, a_spec(creation_id="session"))
    with pytest.raises(CreationConflictError, match="used for session"):
        await accepted(repository, creation_id="session")


async def test_an_array_that_cannot_be_accepted_leaves_nothing_behind(store, repository):
    with pytest.raises(InvalidRequestError, match="no session"):
        await accepted(repository, depends_on=(Dependency(SessionId("nobody")),))

    assert not repository.live.sessions
    with pytest.raises(SessionNotFoundError):
        await store.database.read(lambda tx: find(tx, "@", "ann"))


async def test_a_failed_dependency_ends_every_task(store, repository):
    (other,) = await submitted(repository)
    array_id = await accepted(repository, "0-3", 2, depends_on=(Dependency(other),))
    assert {len(task.unmet) for task in tasks(repository, array_id).values()} == {1}

    await repository.request_termination([other], force=False, detail="")

    late = await accepted(repository, "0-3", 2, depends_on=(Dependency(other),))
    assert (await counted(store, array_id)).cancelled == 4
    assert (await counted(store, late)).cancelled == 4


async def test_whoever_depends_on_an_array_waits_for_all_its_tasks(store, repository):
    array_id = await accepted(repository, "0-2", kernel_count=1)
    on_it = Dependency(SessionId(array_id), DependencyKind.AFTER_OK)
    (after,) = await submitted(repository, a_spec(depends_on=(on_it,)))

    for index in range(3):
        assert len(repository.live.sessions[after].unmet) == 3 - index
        task = tasks(repository, array_id)[index]
        await run(repository, task)
        await end(repository, task)
    assert not repository.live.sessions[after].unmet


async def test_more_tasks_than_one_may_depend_on_are_refused(repository):
    array_id = await accepted(repository, "0-1000")

    with pytest.raises(InvalidRequestError, match="1001 tasks"):
        await submitted(repository, a_spec(depends_on=(Dependency(SessionId(array_id)),)))
    (one,) = await submitted(repository)
    many = tuple(
        Dependency(SessionId(i)) for i in [one, *await submitted(repository, *[a_spec()] * 99)]
    )
    with pytest.raises(InvalidRequestError, match="too many"):
        await accepted(repository, "0-1999", depends_on=many)


# --- places ---------------------------------------------------------------------------------------


async def test_so_many_tasks_have_a_place_as_may_at_once(store, repository):
    array_id = await accepted(repository, "0-5", 2)
    assert with_place(repository, array_id) == [0, 1]
    waiting = tasks(repository, array_id)[2]
    assert repository.wait_of(waiting).code is WaitReason.ARRAY_LIMIT

    first = tasks(repository, array_id)[0]
    await run(repository, first)
    assert with_place(repository, array_id) == [0, 1]
    await end(repository, first)

    assert with_place(repository, array_id) == [1, 2]
    await repository.request_termination(
        [tasks(repository, array_id)[1].session_id], force=False, detail=""
    )
    assert with_place(repository, array_id) == [2, 3]
    counts = await counted(store, array_id)
    assert (counts.succeeded, counts.cancelled, counts.live) == (1, 1, {"PENDING": 4})


async def test_a_place_that_becomes_free_is_news_for_the_group(repository):
    array_id = await accepted(repository, "0-5", 1)

    applied = await repository.request_termination(
        [tasks(repository, array_id)[0].session_id], force=False, detail=""
    )

    assert applied.freed == {"default"}


async def test_a_held_task_gives_its_place_up_and_queues_again(repository):
    array_id = await accepted(repository, "0-4", 2)
    held = tasks(repository, array_id)[0].session_id

    await repository.set_held(held, held=True)
    assert with_place(repository, array_id) == [1, 2]
    await repository.set_held(held, held=False)
    assert with_place(repository, array_id) == [1, 2]

    await repository.request_termination(
        [tasks(repository, array_id)[2].session_id], force=False, detail=""
    )
    assert with_place(repository, array_id) == [0, 1]  # the first by number that waits


async def test_a_held_array_has_no_places_until_it_is_released(repository):
    array_id = await accepted(repository, "0-4", 2, held=True)
    assert with_place(repository, array_id) == []

    count, _ = await repository.set_tasks_held(
        ArrayRef(array_id, parse_indexes("3-4", field="part")), held=False
    )
    assert (count, with_place(repository, array_id)) == (2, [3, 4])
    await repository.set_tasks_held(ArrayRef(array_id), held=False)
    assert with_place(repository, array_id) == [3, 4]


async def test_a_retry_takes_the_place_of_what_it_retries(store, repository):
    array_id = await accepted(repository, "0-2", 1, retries=1)
    first = tasks(repository, array_id)[0]

    await run(repository, first)
    await end(repository, first, exit_code=1)

    assert with_place(repository, array_id) == [0]
    again = tasks(repository, array_id)[0]
    assert again.retry_of == first.session_id
    assert (await counted(store, array_id)).live == {"PENDING": 3}
    assert await store.database.read(lambda tx: resolve(tx, f"{array_id}_0", "ann")) == (
        again.session_id
    )
    await run(repository, again)
    await end(repository, again, exit_code=1)
    assert (await counted(store, array_id)).failed == 1
    assert with_place(repository, array_id) == [1]


async def test_a_task_that_lost_its_place_since_the_pass_is_not_placed(repository):
    array_id = await accepted(repository, "0-4", 1)
    first = tasks(repository, array_id)[0]
    for held in (True, False):
        await repository.set_held(first.session_id, held=held)

    await placed(repository, first.session_id)

    assert tasks(repository, array_id)[0].status is S.PENDING
    assert with_place(repository, array_id) == [1]


async def test_a_new_manager_knows_who_has_a_place(store, repository):
    array_id = await accepted(repository, "0-4", 2)
    first = tasks(repository, array_id)[0]
    await run(repository, first)

    other = await store.opened()
    await end(other, first)

    assert with_place(other, array_id) == [1, 2]


async def test_an_array_is_ended_in_part_and_as_a_whole(store, repository):
    array_id = await accepted(repository, "0-9", 3)
    await run(repository, tasks(repository, array_id)[0])
    part = ArrayRef(array_id, parse_indexes("0,8-20", field="part"))

    outcomes, _ = await repository.end_tasks(part, force=False, detail="")
    assert dict(outcomes) == {"terminating": 1, "cancelled": 2}
    outcomes, _ = await repository.end_tasks(ArrayRef(array_id), force=True, detail="")
    assert dict(outcomes) == {"terminating": 1, "cancelled": 7}
    await end(repository, tasks(repository, array_id)[0])

    counts = await counted(store, array_id)
    assert (counts.failed, counts.cancelled, counts.size) == (1, 9, 10)
    assert counts.ended_at is not None


# --- names ----------------------------------------------------------------------------------------


async def test_a_submission_is_called_by_its_id_its_parts_and_how_long_ago(store, repository):
    (before,) = await submitted(repository)
    array_id = await accepted(repository, "5-9")
    (after,) = await submitted(repository)

    def means(ref):
        return store.database.read(lambda tx: find(tx, ref, "ann"))

    seventh = tasks(repository, array_id)[7].session_id
    assert await means("@") == after
    assert await means("@~1") == await means(array_id) == await means(array_id[:8])
    assert await means("@~1") == ArrayRef(array_id)
    assert await means("@~2") == before
    assert await means(f"{array_id}_7") == await means("@~1_7") == seventh
    part = await means(f"{array_id[:8]}_5,8-9")
    assert str(part) == f"{array_id}_5,8-9"
    assert (part.has(5), part.has(7), part.has(9)) == (True, False, True)
    one = await store.database.read(lambda tx: resolve_array(tx, f"{array_id}_7", "ann"))
    assert str(one) == f"{array_id}_7"


@pytest.mark.parametrize(
    ("ref", "error", "says"),
    [
        ("ARRAY", IsAnArrayError, "ARRAY_5"),
        ("ARRAY_5-6", IsAnArrayError, "ARRAY_5"),
        ("ARRAY_4", SessionNotFoundError, "no task 4"),
        ("ARRAY_x", InvalidRequestError, "no range"),
        ("SESSION_5", SessionNotFoundError, "no array"),
        ("@_5", SessionNotFoundError, "by itself"),
        ("nothing_5", SessionNotFoundError, "no array"),
    ],
)
async def test_what_is_no_session_is_refused(store, repository, ref, error, says):
    array_id = await accepted(repository, "5-9")
    (session_id,) = await submitted(repository)

    def named(text):
        return text.replace("ARRAY", array_id).replace("SESSION", session_id)

    with pytest.raises(error, match=named(says)):
        await store.database.read(lambda tx: resolve(tx, named(ref), "ann"))


async def test_tasks_are_listed_by_index_in_pages(store, repository):
    array_id = await accepted(repository, "0-4")

    def listed(after, part=None):
        ref = ArrayRef(array_id, part)
        return store.database.read(lambda tx: page_of_tasks(tx, ref, (), after, 2))

    found, following = await listed(None)
    assert ([task["index"] for task in found], following) == ([0, 1], 1)
    found, following = await listed(3)
    assert ([task["index"] for task in found], following) == ([4], None)
    found, following = await listed(None, parse_indexes("2,4", field="part"))
    assert ([task["index"] for task in found], following) == ([2, 4], None)
