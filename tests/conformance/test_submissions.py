"""What every store must do with submissions: all or none, once, in order; and what follows."""

from dataclasses import replace
from functools import partial

import pytest

from sokovan.domain.cluster import AgentStatus
from sokovan.domain.errors import CreationConflictError, InvalidRequestError
from sokovan.domain.resources import Request
from sokovan.domain.sessions import Dependency, DependencyKind, SessionId
from sokovan.domain.statuses import SessionStatus
from sokovan.domain.where import ClusterMode, Where, parse_constraint
from sokovan.scheduler.messages import ReportState
from sokovan.scheduler.stages import CHECK_PRECONDITION, START_SESSIONS
from sokovan.store.accepting import Submission
from sokovan.store.loading import load_sessions, load_specs
from sokovan.store.queries import sessions_with_specs
from sokovan.store.repository import SqlRepository
from tests.build import (
    A1,
    NOW,
    a_capacity,
    a_spec,
    an_agent_hello,
    asked,
    brought_to,
    placed,
    said,
    submitted,
)

S = SessionStatus
OK, ANY, NOT_OK = DependencyKind.AFTER_OK, DependencyKind.AFTER_ANY, DependencyKind.AFTER_NOT_OK
WHERE = Where(
    mode=ClusterMode.SINGLE_NODE,
    same="rack",
    constraints=(parse_constraint("gpu_model=A100|H100"), parse_constraint("mem>=4G")),
    agents=("left",),
    spread_with=("web",),
)


@pytest.fixture(autouse=True)
async def _agent(repository):
    capacity = a_capacity(cpu_milli=100_000)
    await repository.register_agent(an_agent_hello(A1, capacity=capacity))


def after(*session_ids, kind=OK):
    return tuple(Dependency(SessionId(session_id), kind) for session_id in session_ids)


async def read(store, *session_ids):
    return await store.database.read(lambda tx: load_sessions(tx, list(session_ids)))


async def status_of(store, session_id):
    (session,) = await read(store, session_id)
    return session.status


async def ended(repository, session_id, exit_code=0):
    return await said(repository, ReportState.ENDED, session_id, exit_code=exit_code)


async def running(repository, **given):
    (session_id,) = await brought_to(repository, S.RUNNING, a_spec(**given))
    return session_id


# --- accepting ------------------------------------------------------------------------------------


async def test_sessions_are_numbered_in_the_order_of_the_submission(repository):
    ids = await submitted(repository, *[a_spec(name=f"job {n}") for n in range(30)])

    sessions = [repository.live.sessions[session_id] for session_id in ids]
    assert [session.name for session in sessions] == [f"job {n}" for n in range(30)]
    numbers = [session.number for session in sessions]
    assert numbers == sorted(set(numbers))


async def test_a_submission_becomes_a_pending_session_with_its_kernels(repository, store):
    spec = a_spec(
        name="train",
        priority=70,
        kernel_count=3,
        request=Request(1500, 2**40, 2000, 8),
        walltime_s=60.5,
        pending_timeout_s=3.0,
        retries=2,
        grace_s=1.0,
        requeue=True,
        held=True,
    )

    (session_id,), applied = await repository.submit([spec])

    session = repository.live.sessions[session_id]
    assert [(m.from_status, m.to_status) for m in applied.moved] == [(None, S.PENDING)]
    assert (session.name, session.owner, session.priority) == ("train", "ann", 70)
    assert (session.walltime_s, session.pending_timeout_s, session.grace_s) == (60.5, 3.0, 1.0)
    assert (session.retries, session.requeue, session.held) == (2, True, True)
    assert session.created_at == session.pending_since == session.status_since == NOW
    assert [kernel.role.value for kernel in session.kernels] == ["main", "sub", "sub"]
    assert {kernel.request for kernel in session.kernels} == {spec.request}
    assert len(await store.history(session_id)) == 4


async def test_what_was_submitted_is_kept_as_it_was(repository, store):
    spec = a_spec(
        command=("sh", "-c", "echo 'ü' \n"),
        env={"LC_ALL": "C", "EMPTY": ""},
        cwd="/tmp/ü",
        umask=0o077,
        begin_at=NOW + 0.25,
        where=WHERE,
        creation_id="x",
    )

    (session_id,) = await submitted(repository, spec)

    specs = await store.database.read(lambda tx: load_specs(tx, [session_id]))
    assert specs[session_id] == spec
    ((session, found),) = await store.database.read(
        lambda tx: sessions_with_specs(tx, [session_id, SessionId("ghost")])
    )
    assert (session.session_id, found) == (session_id, spec)


async def test_where_a_session_may_go_outlives_the_server(repository, store):
    (session_id, anywhere) = await submitted(repository, a_spec(where=WHERE), a_spec())

    for seen in (repository, await store.opened("default", "other")):
        assert seen.live.sessions[session_id].where == WHERE
        assert seen.live.sessions[anywhere].where.is_anywhere
    (session,) = await read(store, session_id)
    assert session.where == WHERE


async def test_a_session_that_goes_back_to_pending_may_still_go_where_it_might(repository, store):
    session_id = await running(repository, where=WHERE, requeue=True)

    await repository.set_agent_status(A1, AgentStatus.GONE)

    (session,) = await read(store, session_id)
    assert (session.status, session.where) == (S.PENDING, WHERE)
    assert repository.live.sessions[session_id] == session


async def test_an_empty_submission_is_no_session(repository):
    ids, applied = await repository.submit([])

    assert ids == []
    assert applied.moved == ()


async def test_all_of_a_submission_is_accepted_or_none(repository, store):
    with pytest.raises(InvalidRequestError):
        await repository.submit([a_spec(), a_spec(depends_on=after("ghost"))])

    assert repository.live.sessions == {}
    assert (await store.opened("default", "other")).live.sessions == {}


# --- once -----------------------------------------------------------------------------------------


async def test_the_same_creation_id_is_the_same_session(repository):
    spec = a_spec(creation_id="mine")
    (first,), _ = await repository.submit([spec])

    (again,), applied = await repository.submit([spec])

    assert again == first
    assert applied.moved == ()
    assert len(repository.live.sessions) == 1


async def test_the_same_creation_id_for_something_else_is_refused(repository):
    (first,) = await submitted(repository, a_spec(creation_id="mine"))

    with pytest.raises(CreationConflictError, match=f"was used for session {first}") as caught:
        await repository.submit([a_spec(creation_id="mine", name="other")])

    assert caught.value.field == "creation_id"
    with pytest.raises(CreationConflictError):
        await repository.submit([a_spec(creation_id="mine", where=WHERE)])


async def test_two_owners_may_use_the_same_creation_id(repository):
    ids = await submitted(
        repository, a_spec(creation_id="mine"), a_spec(creation_id="mine", owner="bob")
    )

    assert len(set(ids)) == 2


async def test_the_same_creation_id_twice_in_one_submission_is_one_session(repository):
    one, other = await submitted(repository, a_spec(creation_id="mine"), a_spec(creation_id="mine"))

    assert one == other


async def test_a_submission_sent_again_may_be_longer(repository):
    (first,) = await submitted(repository, a_spec(creation_id="1"))

    ids = await submitted(repository, a_spec(creation_id="1"), a_spec(creation_id="2"))

    assert ids[0] == first
    assert len(repository.live.sessions) == 2


async def test_a_creation_id_outlives_its_session(repository):
    spec = a_spec(creation_id="mine")
    (first,) = await submitted(repository, spec)
    await repository.request_termination([first], force=False, detail="")

    assert await submitted(repository, spec) == [first]


async def test_a_submission_without_creation_ids_is_new_each_time(repository):
    spec = a_spec()

    assert await submitted(repository, spec) != await submitted(repository, spec)


# --- dependencies ---------------------------------------------------------------------------------


async def test_a_dependency_that_does_not_exist_is_refused(repository):
    with pytest.raises(InvalidRequestError, match="there is no session ghost") as caught:
        await repository.submit([a_spec(depends_on=after("ghost"))])

    assert caught.value.field == "depends_on"


async def test_a_dependency_may_be_named_by_its_place_in_the_submission(repository):
    ids = await submitted(repository, a_spec(depends_on=after("#1")), a_spec())

    assert repository.live.sessions[ids[0]].unmet == after(ids[1])
    assert repository.live.sessions[ids[1]].unmet == ()


@pytest.mark.parametrize("name", ["#2", "#-1", "#", "#x", "#1.0", "#²"])
async def test_a_place_that_is_not_in_the_submission_is_refused(repository, name):
    with pytest.raises(InvalidRequestError, match="is not in this submission"):
        await repository.submit([a_spec(depends_on=after(name)), a_spec()])


@pytest.mark.parametrize(
    "circle", [("#0",), ("#1", "#0"), ("#1", "#2", "#0")], ids=["itself", "two", "three"]
)
async def test_sessions_that_wait_for_each_other_are_refused(repository, circle):
    specs = [a_spec(depends_on=after(name)) for name in circle]

    with pytest.raises(InvalidRequestError, match="in a circle"):
        await repository.submit([*specs, a_spec()])


async def test_a_dependency_that_ended_as_wanted_is_met_already(repository):
    first = await running(repository)
    await ended(repository, first)

    (second,) = await submitted(repository, a_spec(depends_on=after(first)))

    assert repository.live.sessions[second].unmet == ()


async def test_a_dependency_that_ended_otherwise_cancels_at_once(repository, store):
    first = await running(repository)
    await ended(repository, first, exit_code=1)

    (second,), applied = await repository.submit([a_spec(depends_on=after(first))])

    assert await status_of(store, second) is S.CANCELLED
    assert [moved.to_status for moved in applied.moved] == [S.PENDING, S.CANCELLED]
    assert (await store.history(second))[-1]["reason"] == "DEPENDENCY_FAILED"


async def test_a_session_submitted_again_that_has_ended_is_a_dependency_that_is_met(repository):
    """A program that sends its batch again, longer, may find its first part over."""
    first = await running(repository, creation_id="1")
    await ended(repository, first)

    _, second = await submitted(
        repository,
        a_spec(creation_id="1"),
        a_spec(creation_id="2", depends_on=after("#0")),
    )

    assert repository.live.sessions[second].unmet == ()


async def test_a_session_submitted_again_that_lives_is_waited_for(repository):
    first = await running(repository, creation_id="1")

    _, second = await submitted(
        repository,
        a_spec(creation_id="1"),
        a_spec(creation_id="2", depends_on=after("#0")),
    )

    assert repository.live.sessions[second].unmet == after(first)


@pytest.mark.parametrize(
    ("kind", "exit_code", "goes_on"),
    [
        (OK, 0, True),
        (OK, 1, False),
        (ANY, 0, True),
        (ANY, 1, True),
        (NOT_OK, 0, False),
        (NOT_OK, 1, True),
    ],
)
async def test_the_end_of_a_session_releases_or_cancels_those_who_wait_for_it(
    repository, store, kind, exit_code, goes_on
):
    first = await running(repository)
    (second,) = await submitted(repository, a_spec(depends_on=after(first, kind=kind)))

    await ended(repository, first, exit_code)

    assert await status_of(store, second) is (S.PENDING if goes_on else S.CANCELLED)
    if goes_on:
        assert repository.live.sessions[second].unmet == ()


@pytest.mark.parametrize(("kind", "goes_on"), [(OK, False), (ANY, True), (NOT_OK, True)])
async def test_a_cancelled_session_has_not_succeeded(repository, store, kind, goes_on):
    (first,) = await submitted(repository)
    (second,) = await submitted(repository, a_spec(depends_on=after(first, kind=kind)))

    await repository.request_termination([first], force=False, detail="")

    assert await status_of(store, second) is (S.PENDING if goes_on else S.CANCELLED)


async def test_a_session_waits_for_all_it_depends_on(repository):
    first, second = await running(repository), await running(repository)
    (third,) = await submitted(repository, a_spec(depends_on=after(first, second)))

    await ended(repository, first)
    assert repository.live.sessions[third].unmet == after(second)
    await ended(repository, second)
    assert repository.live.sessions[third].unmet == ()


async def test_a_failure_cancels_the_whole_chain_behind_it(repository, store):
    first = await running(repository)
    ids = [first]
    for _ in range(5):
        ids += await submitted(repository, a_spec(depends_on=after(ids[-1])))
    (cleaner,) = await submitted(repository, a_spec(depends_on=after(ids[-1], kind=ANY)))

    applied = await ended(repository, first, exit_code=1)

    assert {session.status for session in await read(store, *ids[1:])} == {S.CANCELLED}
    assert repository.live.sessions[cleaner].unmet == ()
    assert {moved.session_id for moved in applied.moved} == set(ids)
    detail = (await store.history(ids[1]))[-1]["detail"]
    assert detail == f"afterok {first}, which ended TERMINATED (KERNEL_FAILED)"


async def test_cancelling_all_of_a_chain_at_once_cancels_each_once(repository, store):
    (first,) = await submitted(repository)
    (second,) = await submitted(repository, a_spec(depends_on=after(first)))

    await repository.request_termination([first, second], force=False, detail="")

    assert [len(await store.history(i)) for i in (first, second)] == [4, 4]


async def test_a_chain_within_one_submission_is_cancelled_when_what_it_hangs_on_has_failed(
    repository, store
):
    first = await running(repository)
    await ended(repository, first, exit_code=1)

    ids = await submitted(
        repository, a_spec(depends_on=after(first)), a_spec(depends_on=after("#0"))
    )

    assert {session.status for session in await read(store, *ids)} == {S.CANCELLED}


# --- retries --------------------------------------------------------------------------------------


async def followers(repository, session_id):
    return [s for s in repository.live.sessions.values() if s.retry_of == session_id]


async def test_a_session_that_failed_by_exit_code_is_submitted_again(repository, store):
    first = await running(repository, retries=2, name="train", priority=30, where=WHERE)

    applied = await ended(repository, first, exit_code=1)

    (again,) = await followers(repository, first)
    assert again.status is S.PENDING
    assert (again.name, again.priority, again.retries) == ("train", 30, 1)
    assert again.where == WHERE
    assert [(moved.session_id, moved.to_status) for moved in applied.moved] == [
        (first, S.TERMINATED),
        (again.session_id, S.PENDING),
    ]
    specs = await store.database.read(lambda tx: load_specs(tx, [again.session_id]))
    spec = specs[again.session_id]
    assert (spec.command, spec.where) == (("true",), WHERE)


async def test_retries_are_counted_down_to_none(repository):
    session_id = await running(repository, retries=1)
    await ended(repository, session_id, exit_code=1)
    (again,) = await followers(repository, session_id)

    assert again.retries == 0


@pytest.mark.parametrize("exit_code", [0, None])
async def test_only_an_exit_code_is_tried_again(repository, exit_code):
    session_id = await running(repository, retries=2)

    await ended(repository, session_id, exit_code=exit_code)

    assert await followers(repository, session_id) == []


async def test_what_a_user_ended_is_not_tried_again(repository):
    session_id = await running(repository, retries=2)
    await repository.request_termination([session_id], force=False, detail="")

    await ended(repository, session_id, exit_code=143)

    assert repository.live.sessions == {}


async def test_those_who_wait_for_a_session_wait_for_its_retry(repository, store):
    first = await running(repository, retries=1)
    (second,) = await submitted(repository, a_spec(depends_on=after(first)))

    await ended(repository, first, exit_code=1)

    (again,) = await followers(repository, first)
    assert repository.live.sessions[second].unmet == after(again.session_id)

    await repository.request_termination([again.session_id], force=False, detail="")
    assert await status_of(store, second) is S.CANCELLED


async def test_who_comes_late_waits_for_the_last_retry_too(repository, store):
    first = await running(repository, retries=2)
    await ended(repository, first, exit_code=1)
    (second,) = await followers(repository, first)

    (late,) = await submitted(repository, a_spec(depends_on=after(first)))

    assert repository.live.sessions[late].unmet == after(second.session_id)


async def test_two_kinds_of_one_dependency_are_refused(repository):
    (first,) = await submitted(repository)

    with pytest.raises(InvalidRequestError, match="named twice"):
        await submitted(repository, a_spec(depends_on=(*after(first), *after(first, kind=ANY))))


async def test_a_retry_does_not_wait_again_for_what_its_original_waited_for(repository):
    (first,) = await submitted(repository)
    await repository.request_termination([first], force=False, detail="")
    session_id = await running(repository, retries=1, depends_on=after(first, kind=ANY))

    await ended(repository, session_id, exit_code=1)

    (again,) = await followers(repository, session_id)
    assert again.unmet == ()


async def test_a_retry_of_a_session_that_was_released_is_not_held_back(repository):
    (session_id,) = await submitted(repository, a_spec(retries=1, held=True))
    await repository.set_held(session_id, held=False)
    await placed(repository, session_id)
    await asked(repository, CHECK_PRECONDITION, session_id)
    await said(repository, ReportState.PREPARED, session_id)
    await asked(repository, START_SESSIONS, session_id)

    await ended(repository, session_id, exit_code=1)

    (again,) = await followers(repository, session_id)
    assert not again.held


async def test_a_retry_is_not_bound_to_the_creation_id_of_its_original(repository):
    spec = a_spec(retries=1, creation_id="mine")
    session_id = await running(repository, retries=1, creation_id="mine")
    await ended(repository, session_id, exit_code=1)

    assert await submitted(repository, spec) == [session_id]


# --- in one commit with others --------------------------------------------------------------------

TOGETHER = {
    "known and refused ones": [
        [a_spec(creation_id="a"), a_spec()],
        [a_spec(creation_id="b"), a_spec(depends_on=after("nobody"))],
        [a_spec(creation_id="a"), a_spec(creation_id="c")],
        [a_spec(creation_id="b"), a_spec()],
        [a_spec(creation_id="a", name="another")],
    ],
    "one that depends on another": [
        [a_spec(creation_id="a"), a_spec()],
        [a_spec(creation_id="a"), a_spec(depends_on=after("#0"))],
        [a_spec()],
    ],
    "one that another's end ends": [
        [a_spec(creation_id="a", depends_on=after("failed"))],
        [a_spec(creation_id="a", depends_on=after("failed")), a_spec(depends_on=after("#0"))],
        [a_spec(creation_id="b")],
    ],
}


@pytest.mark.parametrize("what", TOGETHER)
async def test_submissions_that_meet_are_as_if_one_after_the_other(store, what):
    together = await left_behind(store, "together", TOGETHER[what], at_once=5)
    in_turn = await left_behind(store, "in turn", TOGETHER[what], at_once=1)

    assert together == in_turn


async def left_behind(store, owner, submissions, *, at_once):
    """Submit, some at once, and tell with names of our own what has become of it."""
    repository = await store.opened("default", kind=SqlRepository)
    await repository.register_agent(an_agent_hello(A1, capacity=a_capacity()))
    (failed,) = await brought_to(repository, S.RUNNING, a_spec(owner=owner))
    await ended(repository, failed, exit_code=1)
    names = {failed: "failed"}

    def named(session_id):
        return names.setdefault(session_id, f"session {len(names)}")

    def own(spec):
        fails = spec.depends_on == after("failed")
        depends_on = after(failed) if fails else spec.depends_on
        return replace(spec, owner=owner, depends_on=depends_on)

    asked_for = [Submission([own(spec) for spec in specs]) for specs in submissions]
    told = []
    for first in range(0, len(asked_for), at_once):
        part = asked_for[first : first + at_once]
        for found in await store.database.write(partial(repository._submit, submissions=part)):
            if isinstance(found, Exception):
                told.append(type(found))
            else:
                answer, applied = found
                moved = [(named(m.session_id), m.to_status) for m in applied.moved]
                told.append(([*map(named, answer)], moved))
    made = await read(store, *names)
    live = [s for s in repository.live.sessions.values() if s.owner == owner]
    assert sorted(live, key=lambda s: s.number) == [s for s in made if not s.status.is_final]
    unmet = [[named(dependency.session_id) for dependency in s.unmet] for s in made]
    return told, [(named(s.session_id), s.name, s.status, s.reason) for s in made], unmet
