"""Each check is seen to bite: a store is spoilt by hand, and the check says so."""

from dataclasses import replace

import pytest
from sqlalchemy import delete, insert, update

from sokovan.domain.cluster import AgentStatus
from sokovan.domain.statuses import SessionStatus
from sokovan.simulator import array_checks, checks, witness
from sokovan.simulator.observe import Picture, read_picture
from sokovan.simulator.runtime import Script
from sokovan.simulator.world import World
from sokovan.store.engine import InlineDatabase
from sokovan.store.tables import agents, history, holds, kernels, sessions
from tests.simulation.drill import A0, a_spec, a_world, session, to_the_end, until

S = SessionStatus


@pytest.fixture
async def world() -> World:
    """One session has ended, one runs, one waits."""
    world = await a_world()
    await world.submit(a_spec(name="over"), Script(seconds=1))
    await to_the_end(world)
    runs = await world.submit(a_spec(name="runs", kernel_count=2), Script(seconds=1000))
    await until(world, runs, S.RUNNING)
    await world.submit(a_spec(name="waits", kernel_count=3))
    await world.run_for(1)
    return world


def named(world: World, name: str):
    return next(s for s in world.judge.picture.sessions.values() if s.name == name)


def spoilt(world: World, *statements: object) -> Picture:
    """Write what nobody should, and look."""

    def job(tx):
        for statement in statements:
            tx.execute(statement)
        return read_picture(tx)

    return InlineDatabase(world.engine).write_now(job)


def of(table, world: World, name: str):
    return update(table).where(table.c.session_id == named(world, name).session_id)


def line(world: World, name: str, **changes: object):
    """Return a statement that appends a line to a session's history."""
    who = named(world, name)
    values = {
        "session_id": who.session_id,
        "kernel_id": None,
        "status_seq": who.status_seq,
        "from_status": who.status,
        "to_status": who.status,
        "reason": "spoilt",
        "detail": "",
        "stage": "by hand",
        "at": world.clock.now(),
    }
    return insert(history).values(values | changes)


def test_nothing_is_reported_of_a_store_that_is_well(world):
    assert checks.violations(spoilt(world)) == []


A_TASK = {"array_id": "array", "array_max": 1, "array_index": 7}


def all_in_an_array():
    """Return a statement that makes all sessions tasks of one array, of which one may run."""
    return update(sessions).values(**A_TASK, array_waits=False)


SPOILS = {
    checks.no_agent_is_over_held: {
        "more cpu is held than it has": lambda w: update(holds).values(cpu_milli=2001),
        "agent agent-0 is not known": lambda w: delete(agents),
    },
    checks.holds_are_live_kernels_and_leftovers: {
        "holds nothing": lambda w: delete(holds).where(
            holds.c.token == named(w, "runs").main.token
        ),
        "counts as a leftover": lambda w: update(holds).values(leftover_since=1.0),
        "is not what it asked for": lambda w: update(holds).values(mem_bytes=1),
        "has no kernel and is no leftover": lambda w: of(kernels, w, "runs").values(token="other"),
    },
    checks.every_session_is_whole: {
        "it is RUNNING and ended at": lambda w: of(sessions, w, "runs").values(ended_at=1.0),
        "it is TERMINATED while kernels are": lambda w: of(kernels, w, "over").values(
            status="RUNNING"
        ),
        "it waits while kernels are": lambda w: of(kernels, w, "waits").values(status="SCHEDULED"),
        "it waits and still has a token": lambda w: of(kernels, w, "waits").values(token="t"),
        "a kernel has a token without an agent": lambda w: of(kernels, w, "runs").values(
            agent_id=None
        ),
        "with the termination reason BECAUSE": lambda w: of(sessions, w, "runs").values(
            reason="BECAUSE"
        ),
        "it is TERMINATED without a result": lambda w: of(sessions, w, "over").values(
            result="UNDEFINED"
        ),
        "has an exit code and never started": lambda w: of(kernels, w, "runs").values(
            exit_code=0, started_at=None
        ),
        "detect-termination is due": lambda w: of(kernels, w, "runs").values(status="TERMINATED"),
    },
    checks.history_replays: {
        "history has a gap": lambda w: delete(history).where(history.c.to_status == "PREPARED"),
        "history ends with RUNNING": lambda w: of(sessions, w, "runs").values(status="CREATING"),
        "kernel history has a gap": lambda w: line(
            w, "runs", kernel_id=named(w, "runs").main.kernel_id, from_status="PENDING"
        ),
        "a kernel that does not exist": lambda w: line(w, "runs", kernel_id="nobody"),
        "but its history ends with": lambda w: of(kernels, w, "runs").values(status="PREPARED"),
        "history has a gap before": lambda w: line(w, "runs", status_seq=99),
    },
    checks.history_goes_forward_in_time: {
        "history goes back in time": lambda w: line(w, "runs", at=1.0),
    },
    checks.kernels_only_go_forward: {
        "a kernel went back": lambda w: line(
            w,
            "runs",
            kernel_id=named(w, "runs").main.kernel_id,
            from_status="RUNNING",
            to_status="PREPARED",
        ),
    },
    checks.history_has_every_status: {
        "from PENDING straight to CREATING": lambda w: delete(history).where(
            history.c.to_status.in_(["SCHEDULED", "PREPARING", "PREPARED"])
        ),
        "it ended by itself and was never RUNNING": lambda w: delete(history).where(
            history.c.to_status == "RUNNING"
        ),
    },
    checks.the_first_reason_wins: {
        "but its reason is LATER": lambda w: of(sessions, w, "over").values(reason="LATER"),
    },
    checks.attempts_stay_below_their_limits: {
        "requeued 6 times": lambda w: of(sessions, w, "waits").values(requeues=6),
        "schedule-sessions failed 5 times": lambda w: of(sessions, w, "waits").values(
            attempts='{"schedule-sessions":[5,0,0]}'
        ),
        "start-sessions counts attempts while": lambda w: of(sessions, w, "waits").values(
            attempts='{"start-sessions":[1,0,0]}'
        ),
    },
    array_checks.arrays_keep_their_limit: {
        "2 tasks have a place, and 1 may": lambda w: all_in_an_array(),
        "waits for a place, and 0 of 1 are taken": lambda w: of(sessions, w, "waits").values(
            **A_TASK, array_waits=True
        ),
        "it is RUNNING without a place": lambda w: of(sessions, w, "runs").values(
            **A_TASK, array_waits=True
        ),
        "it is held, and keeps its place": lambda w: of(sessions, w, "waits").values(
            **A_TASK, held=True
        ),
    },
    array_checks.tasks_are_told_apart: {
        "two tasks have the index 7": lambda w: all_in_an_array(),
    },
}


def test_every_check_of_a_store_is_tried_here():
    assert set(SPOILS) == {*checks.CHECKS, checks.history_goes_forward_in_time}


@pytest.mark.parametrize(
    ("check", "sentence", "spoil"),
    [(check, *pair) for check, spoils in SPOILS.items() for pair in spoils.items()],
    ids=lambda value: getattr(value, "__name__", value) if value is not None else None,
)
def test_a_spoilt_store_is_reported(world, check, sentence, spoil):
    found = check(spoilt(world, spoil(world)))

    assert any(sentence in violation for violation in found), found


def test_a_final_session_that_changes_or_disappears_is_reported(world):
    before = spoilt(world)
    over = named(world, "over").session_id

    changed = spoilt(world, of(sessions, world, "over").values(priority=1))
    gone = spoilt(world, delete(sessions).where(sessions.c.session_id == over))

    assert checks.final_states_stay(before, before) == []
    assert "it was over and changed" in checks.final_states_stay(before, changed)[0]
    assert checks.final_states_stay(before, gone) == [f"session {over} has disappeared"]


def test_a_reason_or_a_result_that_changes_is_reported(world):
    before = spoilt(world)

    after = spoilt(world, of(sessions, world, "over").values(reason="LATER", result="FAILURE"))

    assert checks.reasons_and_results_stay(before, before) == []
    reason, result = checks.reasons_and_results_stay(before, after)
    assert "its reason went from SELF_TERMINATED to LATER" in reason
    assert "its result went from SUCCESS to FAILURE" in result


def test_a_session_that_stays_in_a_status_for_too_long_is_reported(world):
    picture = spoilt(world, of(sessions, world, "runs").values(walltime_s=100.0))
    now = world.clock.now()

    assert checks.nothing_is_overdue(picture, now, 0.0) == []
    (sentence,) = checks.nothing_is_overdue(picture, now + 100, 0.0)
    assert "enforce-walltime should have ended its RUNNING" in sentence


def test_a_session_that_was_accepted_and_lost_or_never_submitted_is_reported(world):
    picture = spoilt(world)
    known = dict.fromkeys(picture.sessions)

    assert witness.every_accepted_session_is_there(picture, known) == []
    assert witness.every_accepted_session_is_there(picture, {**known, "lost": None}) == [
        "session lost was accepted and is not there"
    ]
    assert len(witness.every_accepted_session_is_there(picture, {})) == 3


def test_a_cancel_that_is_forgotten_is_reported(world):
    (sentence,) = witness.cancels_hold(spoilt(world), [named(world, "runs").session_id])

    assert "was cancelled and is RUNNING" in sentence


def test_a_token_that_runs_twice_is_reported():
    assert witness.tokens_run_once({"a": 1, "b": 2}) == ["token b was started 2 times"]


def test_what_runs_without_a_hold_or_elsewhere_is_reported(world):
    main = named(world, "runs").main
    picture = spoilt(world)

    assert witness.what_runs_is_held(picture, [(A0, main.token, main.kernel_id)]) == []
    (sentence,) = witness.what_runs_is_held(picture, [(A0, "unknown", main.kernel_id)])
    assert "token unknown runs on agent-0 and holds nothing" in sentence
    (sentence,) = witness.what_runs_is_held(picture, [("agent-9", main.token, main.kernel_id)])
    assert "runs on agent-9, not where it holds" in sentence


def test_a_kernel_that_runs_twice_is_reported_unless_its_agent_was_given_up():
    running = [(A0, "old", "s.0"), ("agent-1", "new", "s.0"), (A0, "other", "s.1")]

    assert witness.kernels_run_once(running, {"old"}) == []
    assert witness.kernels_run_once(running, set()) == ["session s: kernel s.0 runs as old and new"]


def test_only_leftovers_of_agents_that_are_gone_count_as_given_up(world):
    picture = spoilt(world, update(holds).values(leftover_since=1.0))

    assert witness.given_up_tokens(picture) == set()
    gone = spoilt(world, update(agents).values(status=AgentStatus.GONE.value))
    assert witness.given_up_tokens(gone) == set(picture.holds)


def test_a_shadow_that_has_gone_astray_is_reported(world):
    live = world.manager.repository.live
    who = named(world, "waits")
    assert witness.the_shadow_is_true(spoilt(world), live) == []

    astray = {
        "is remembered as": of(sessions, world, "waits").values(priority=99),
        "hold ": update(holds).values(cpu_milli=1),
        "the leftovers remembered": update(holds).values(leftover_since=1.0),
        "agent agent-0 is remembered as": update(agents).values(incarnation=99),
    }
    for sentence, statement in astray.items():
        found = witness.the_shadow_is_true(spoilt(world, statement), live)
        assert any(sentence in violation for violation in found), (sentence, found)
    live._by_status[who.scaling_group, who.status].clear()
    found = witness.the_shadow_is_true(spoilt(world), live)
    assert "what is alive is not what is found by status" in found


def test_whatever_is_left_at_the_end_is_reported(world):
    live = world.manager.repository.live
    runs, waits = named(world, "runs").session_id, named(world, "waits").session_id

    found = witness.everything_has_ended(spoilt(world), live.waits)
    assert f"session {runs} is still RUNNING" in found
    assert f"session {waits} still waits: NOT_ALL_KERNELS_FIT" in found
    assert sum("is left over on agent-0" in sentence for sentence in found) == 2
    found = witness.everything_has_ended(spoilt(world), {})
    assert f"session {waits} waits without a reason" in found


async def test_a_result_that_no_kernel_has_is_reported():
    world = await a_world()
    session_id = await world.submit(a_spec(requeue=True), Script(seconds=1, exit_code=0))
    await to_the_end(world)
    ended = session(world, session_id)

    def told(script: Script, **changes: object) -> list[str]:
        picture = Picture({session_id: replace(ended, **changes)})
        return witness.results_are_true(picture, lambda *_: script)

    assert told(Script()) == []
    assert "succeeded without its main kernel" in told(Script(exit_code=1), reason="OTHER")[0]
    assert "ended by itself, but not so" in told(Script(exit_code=1))[0]
    assert "failed, but no kernel did" in told(Script(), reason="KERNEL_FAILED")[0]
    assert "was to be requeued" in told(Script(), reason="AGENT_LOST")[0]
    assert "only we can have done" in told(Script(), reason="STOPPED_BEFORE_START")[0]
