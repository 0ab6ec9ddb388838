"""Load, act, settle, save, tell: the coordinator over a real repository in memory."""

import asyncio

import pytest

from sokovan.clock import ManualClock
from sokovan.config import Config, SchedulerConfig
from sokovan.domain.cluster import AgentStatus, ScalingGroup
from sokovan.domain.errors import AgentError, LeaseLostError, StoreUnavailableError
from sokovan.domain.reasons import MoveReason, Wait, WaitReason
from sokovan.domain.resources import Request
from sokovan.domain.sessions import Dependency, Limit
from sokovan.domain.statuses import KernelStatus, SessionStatus
from sokovan.scheduler import stages
from sokovan.scheduler.calls import keep
from sokovan.scheduler.coordinator import Chore, Coordinator, report_of_failure
from sokovan.scheduler.handlers.base import ClockOnlyHandler
from sokovan.scheduler.messages import Answer, KernelReport, ReportState
from sokovan.scheduler.moves import Applied, Moved
from sokovan.scheduler.results import (
    NOTHING,
    SessionExecutionResult,
    SessionTransitionInfo,
    each,
)
from sokovan.scheduler.wiring import events_for, join
from sokovan.store.queries import history_of
from tests.build import (
    A1,
    A2,
    NOW,
    S1,
    S2,
    FakeGateway,
    a_coordinator,
    a_repository,
    a_session,
    a_spec,
    an_agent_hello,
    an_assignment,
    asked,
    brought_to,
    placed,
    said,
    submitted,
)
from tests.checked import CheckedRepository

S, K = SessionStatus, KernelStatus


class Handler:
    """Does for a stage what the test says, and remembers what it was given."""

    def __init__(self, stage, answer=None):
        self.stage = stage
        self.answer = answer or (lambda sessions: NOTHING)
        self.given = []

    async def execute(self, scaling_group, sessions):
        self.given.append((scaling_group, [session.session_id for session in sessions]))
        answer = self.answer(sessions)
        if isinstance(answer, Exception):
            raise answer
        return await answer if asyncio.iscoroutine(answer) else answer


def succeeding(stage, **given):
    return Handler(stage, lambda sessions: SessionExecutionResult(each(sessions, "done")), **given)


def placing(*agents):
    def answer(sessions):
        return SessionExecutionResult(
            [
                SessionTransitionInfo(
                    s.session_id, s.status, "scheduled", assignment=an_assignment(s, *agents)
                )
                for s in sessions
            ]
        )

    return Handler(stages.SCHEDULE_SESSIONS, answer)


@pytest.fixture
def clock():
    return ManualClock(NOW)


@pytest.fixture
async def repository(clock):
    repository = a_repository("default", "other", clock=clock, kind=CheckedRepository)
    await repository.register_agent(an_agent_hello(A1))
    return repository


def status_of(repository, session_id):
    return repository.live.sessions[session_id].status


async def history(repository, session_id):
    return await repository._database.read(lambda tx: history_of(tx, session_id))


def hinted(coordinator):
    """Return the stages that were hinted at since the last call, by group."""
    found = [key for key, at in coordinator._cadence._due_at.items() if at == 0.0]
    for key in list(coordinator._cadence._due_at):
        coordinator._cadence.begin(key, NOW)
        coordinator._cadence.end(key)
    return {key for key in found if isinstance(key, tuple)}


# --- one stage ------------------------------------------------------------------------------------


async def test_a_stage_loads_acts_settles_and_saves(repository, clock):
    (session_id,) = await brought_to(repository, S.SCHEDULED)
    handler = succeeding(stages.CHECK_PRECONDITION)

    applied = await a_coordinator(repository, handler, clock=clock).run_stage(handler, "default")

    assert handler.given == [("default", [session_id])]
    assert applied.moved == (Moved(session_id, "default", S.SCHEDULED, S.PREPARING),)
    assert status_of(repository, session_id) is S.PREPARING


async def test_what_an_agent_answers_is_saved_with_what_the_stage_decides(repository, clock):
    (session_id,) = await brought_to(repository, S.PREPARED)
    gateway = FakeGateway()
    token = repository.live.sessions[session_id].main.token
    gateway.answers[("start", A1)] = [KernelReport(token, ReportState.RUNNING)]
    commits, told = [], []
    write = repository._database.write

    async def counted(job):
        commits.append(job)
        return await write(job)

    repository._database.write = counted
    coordinator = Coordinator(repository, clock, SchedulerConfig())
    events = events_for(coordinator, repository)
    join(coordinator, repository, gateway, events, Config(), post_processors=(told.append,))
    (handler,) = (h for h in coordinator._handlers.values() if h.stage is stages.START_SESSIONS)
    await coordinator.run_stage(handler, "default")

    assert status_of(repository, session_id) is S.RUNNING
    assert len(commits) == len(told) == 1
    lines = await history(repository, session_id)
    assert [line["to_status"] for line in lines if line["kernel_id"] is None][-2:] == [
        S.CREATING,
        S.RUNNING,
    ]


async def test_answers_are_recorded_although_the_stage_failed(repository, clock):
    """The error of one thing says nothing of what an agent has said of another."""
    (session_id,) = await brought_to(repository, S.PREPARED)
    token = repository.live.sessions[session_id].main.token

    def answered_and_failed(sessions):
        assert keep(Answer(A1, 1, [KernelReport(token, ReportState.RUNNING)]))
        return AgentError("too much")

    handler = Handler(stages.START_SESSIONS, answered_and_failed)
    coordinator = a_coordinator(repository, handler, clock=clock)
    await coordinator.run_stage(handler, "default")

    kernel = repository.live.sessions[session_id].main
    assert kernel.status is K.RUNNING


async def test_a_stage_without_sessions_asks_nobody(repository, clock):
    handler = succeeding(stages.CHECK_PRECONDITION)

    applied = await a_coordinator(repository, handler, clock=clock).run_stage(handler, "default")

    assert applied == Applied()
    assert handler.given == []


async def test_a_handler_is_called_with_nothing_when_sessions_are_only_awaited(repository, clock):
    (session_id,) = await brought_to(repository, S.PREPARING)
    handler = succeeding(stages.CHECK_PRECONDITION)
    clock.advance(900)

    await a_coordinator(repository, handler, clock=clock).run_stage(handler, "default")

    assert handler.given == [("default", [])]
    assert status_of(repository, session_id) is S.PENDING


async def test_an_error_that_names_sessions_fails_only_those(repository, clock):
    one, other = await brought_to(repository, S.SCHEDULED, a_spec(), a_spec())
    handler = Handler(stages.CHECK_PRECONDITION, lambda _: AgentError("no answer", [other]))

    await a_coordinator(repository, handler, clock=clock).run_stage(handler, "default")

    assert status_of(repository, one) is S.PREPARING
    assert status_of(repository, other) is S.SCHEDULED
    attempts = repository.live.sessions[other].attempts["check-precondition"]
    assert (attempts.count, attempts.retry_at) == (1, NOW + 1)


async def test_an_error_that_names_nobody_fails_the_whole_batch(repository, clock):
    ids = await brought_to(repository, S.SCHEDULED, a_spec(), a_spec())
    handler = Handler(stages.CHECK_PRECONDITION, lambda _: AgentError("no answer"))

    await a_coordinator(repository, handler, clock=clock).run_stage(handler, "default")

    for session_id in ids:
        assert status_of(repository, session_id) is S.SCHEDULED
        last = (await history(repository, session_id))[-1]
        assert (last["reason"], last["detail"]) == ("agent-failed", "no answer")


async def test_any_other_error_fails_the_whole_batch_with_its_name(repository, clock):
    (session_id,) = await brought_to(repository, S.SCHEDULED)
    handler = Handler(stages.CHECK_PRECONDITION, lambda _: ZeroDivisionError("by zero"))

    await a_coordinator(repository, handler, clock=clock).run_stage(handler, "default")

    last = (await history(repository, session_id))[-1]
    assert (last["reason"], last["detail"]) == ("handler-failed", "ZeroDivisionError: by zero")


async def test_a_launcher_error_ends_in_the_expired_transition_after_five_attempts(
    repository, clock
):
    (session_id,) = await brought_to(repository, S.SCHEDULED)
    handler = Handler(stages.CHECK_PRECONDITION, lambda _: AgentError("Connection failed"))
    coordinator = a_coordinator(repository, handler, clock=clock)

    for pause_s in (1, 2, 4, 8):
        await coordinator.run_stage(handler, "default")
        clock.advance(pause_s)
        assert status_of(repository, session_id) is S.SCHEDULED
    await coordinator.run_stage(handler, "default")

    assert status_of(repository, session_id) is S.PENDING
    assert repository.live.sessions[session_id].avoid == (A1,)


async def test_a_session_that_failed_is_left_alone_until_its_next_attempt(repository, clock):
    (session_id,) = await brought_to(repository, S.SCHEDULED)
    handler = Handler(stages.CHECK_PRECONDITION, lambda _: AgentError("no answer"))
    coordinator = a_coordinator(repository, handler, clock=clock)
    await coordinator.run_stage(handler, "default")

    clock.advance(0.5)
    await coordinator.run_stage(handler, "default")
    clock.advance(0.5)
    await coordinator.run_stage(handler, "default")

    assert [ids for _, ids in handler.given] == [[session_id], [], [session_id]]


async def test_a_hold_that_does_not_fit_is_one_failed_attempt(repository, clock):
    ids = await submitted(repository, *[a_spec(request=Request(cpu_milli=3000))] * 2)
    handler = placing(A1)

    applied = await a_coordinator(repository, handler, clock=clock).run_stage(handler, "default")

    assert status_of(repository, ids[0]) is S.SCHEDULED
    refused = repository.live.sessions[ids[1]]
    assert refused.status is S.PENDING
    assert refused.attempts["schedule-sessions"].count == 1
    assert (await history(repository, ids[1]))[-1]["reason"] == MoveReason.HOLD_REFUSED
    assert [moved.session_id for moved in applied.moved] == [ids[0]]


async def test_five_holds_that_do_not_fit_deprioritize(repository, clock):
    (session_id,) = await submitted(repository, a_spec(request=Request(cpu_milli=5000)))
    handler = placing(A1)
    coordinator = a_coordinator(repository, handler, clock=clock)

    for _ in range(5):
        await coordinator.run_stage(handler, "default")
        clock.advance(60)

    assert status_of(repository, session_id) is S.DEPRIORITIZING


async def test_a_session_that_was_cancelled_meanwhile_stays_cancelled(repository, clock):
    (session_id,) = await brought_to(repository, S.SCHEDULED)

    async def is_slow(sessions):
        await repository.request_termination([session_id], force=False, detail="")
        return SessionExecutionResult(each(sessions, "done"))

    handler = Handler(stages.CHECK_PRECONDITION, is_slow)
    applied = await a_coordinator(repository, handler, clock=clock).run_stage(handler, "default")

    assert status_of(repository, session_id) is S.TERMINATING
    assert [verdict for _, verdict in applied.verdicts] == ["superseded"]


async def test_why_a_session_waits_is_kept(repository, clock):
    (session_id,) = await submitted(repository)
    wait = Wait(WaitReason.TOO_LITTLE_CPU, {"requested": 1000})

    def answer(sessions):
        (info,) = each(sessions, "not-scheduled-this-cycle")
        return SessionExecutionResult(skipped=[info._replace(wait=wait)])

    handler = Handler(stages.SCHEDULE_SESSIONS, answer)
    coordinator = a_coordinator(repository, handler, clock=clock)
    await coordinator.run_stage(handler, "default")

    noted = repository.live.waits[session_id]
    assert (noted.code, noted.since) == ("TOO_LITTLE_CPU", NOW)
    assert repository.live.facts[session_id].facts == {"requested": 1000}
    assert len(await history(repository, session_id)) == 2

    clock.advance(60)
    for _ in range(3):
        await coordinator.run_stage(handler, "default")

    lines = await history(repository, session_id)
    assert [line["reason"] for line in lines[2:]] == ["TOO_LITTLE_CPU"]


async def test_why_a_session_waits_is_forgotten_when_it_ended_meanwhile(repository, clock):
    (session_id,) = await submitted(repository)

    async def is_slow(sessions):
        await repository.request_termination([session_id], force=False, detail="")
        return SessionExecutionResult(skipped=each(sessions, "not-scheduled-this-cycle"))

    handler = Handler(stages.SCHEDULE_SESSIONS, is_slow)
    await a_coordinator(repository, handler, clock=clock).run_stage(handler, "default")

    assert session_id not in repository.live.sessions
    assert session_id not in repository.live.waits
    assert session_id not in repository.live.facts


async def test_a_session_that_failed_waits_for_its_next_attempt(repository, clock):
    (session_id,) = await submitted(repository)
    handler = Handler(stages.SCHEDULE_SESSIONS, lambda _: ZeroDivisionError("by zero"))

    await a_coordinator(repository, handler, clock=clock).run_stage(handler, "default")

    assert repository.live.waits[session_id].code == "WAITING_FOR_RETRY"
    assert repository.live.facts[session_id].facts["reason"] == "handler-failed"


# --- hints ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "stage"), stages.WORK_AFTER.items(), ids=str)
def test_a_move_hints_at_the_stage_that_has_work_after_it(repository, clock, status, stage):
    handlers = [Handler(one) for one in stages.STAGES]
    coordinator = a_coordinator(repository, *handlers, clock=clock)
    hinted(coordinator)

    coordinator.tell(Applied((Moved(S1, "default", None, status),)))

    assert hinted(coordinator) == {("default", stage.name)}


@pytest.mark.parametrize("status", [S.PREPARING, S.CREATING, S.RUNNING], ids=str)
def test_a_move_to_where_only_agents_have_work_hints_at_nothing(repository, clock, status):
    coordinator = a_coordinator(repository, *[Handler(one) for one in stages.STAGES], clock=clock)
    hinted(coordinator)

    coordinator.tell(Applied((Moved(S1, "default", None, status),)))

    assert hinted(coordinator) == set()


def test_room_that_was_freed_hints_at_scheduling_in_its_group(repository, clock):
    coordinator = a_coordinator(repository, Handler(stages.SCHEDULE_SESSIONS), clock=clock)
    hinted(coordinator)

    coordinator.tell(Applied(freed=frozenset({"other"})))

    assert hinted(coordinator) == {("other", "schedule-sessions")}


def test_a_hint_at_a_group_or_a_stage_that_nobody_runs_is_passed_over(repository, clock):
    coordinator = a_coordinator(repository, Handler(stages.SCHEDULE_SESSIONS), clock=clock)
    hinted(coordinator)

    coordinator.hint("nowhere", stages.SCHEDULE_SESSIONS)
    coordinator.hint("default", stages.START_SESSIONS)

    assert hinted(coordinator) == set()


def test_what_was_applied_is_told_to_others(repository, clock):
    told = []
    coordinator = a_coordinator(repository, clock=clock, post_processors=[told.append])

    coordinator.tell(Applied(freed=frozenset({"default"})))

    assert told == [Applied(freed=frozenset({"default"}))]


async def test_leftovers_are_asked_to_stop_as_soon_as_there_are_any(repository, clock):
    stopped = []

    async def stop():
        stopped.append(True)

    coordinator = a_coordinator(repository, clock=clock, chores=[Chore("stop-leftovers", 60, stop)])
    await coordinator.run_due()
    coordinator.tell(Applied(left_over=True))
    await coordinator.run_due()

    assert len(stopped) == 2


# --- time -----------------------------------------------------------------------------------------


async def test_a_stage_runs_again_when_a_back_off_is_over(repository, clock):
    await brought_to(repository, S.SCHEDULED)
    handler = Handler(stages.CHECK_PRECONDITION, lambda _: AgentError("no answer"))
    coordinator = a_coordinator(repository, handler, clock=clock)
    await coordinator.run_due()

    clock.advance(0.999)
    await coordinator.run_due()
    assert len(handler.given) == 1

    clock.advance(0.001)
    await coordinator.run_due()
    assert len(handler.given) == 2


async def test_a_session_expires_at_its_limit_and_not_at_the_next_full_cycle(repository, clock):
    limits = {"check-precondition": Limit(phase_s_max=7)}
    handler = succeeding(stages.CHECK_PRECONDITION)
    coordinator = a_coordinator(repository, handler, clock=clock)
    await coordinator.run_due()
    (session_id,) = await brought_to(repository, S.SCHEDULED, a_spec(limits=limits))
    coordinator.hint("default", stages.CHECK_PRECONDITION)
    await coordinator.run_due()
    assert status_of(repository, session_id) is S.PREPARING

    clock.advance(7)
    await coordinator.run_due()

    assert status_of(repository, session_id) is S.PENDING


async def test_a_walltime_is_over_to_the_second(repository, clock):
    coordinator = a_coordinator(repository, ClockOnlyHandler(stages.ENFORCE_WALLTIME), clock=clock)
    await coordinator.run_due()
    (session_id,) = await brought_to(repository, S.CREATING, a_spec(walltime_s=5.0))
    coordinator.tell(await said(repository, ReportState.RUNNING, session_id))

    clock.advance(5)
    await coordinator.run_due()

    assert status_of(repository, session_id) is S.TERMINATING
    assert repository.live.sessions[session_id].reason == "WALLTIME_EXCEEDED"


async def test_a_session_is_looked_at_when_its_begin_time_comes(repository, clock):
    handler = Handler(stages.SCHEDULE_SESSIONS)
    coordinator = a_coordinator(repository, handler, clock=clock)
    await coordinator.run_due()
    _, applied = await repository.submit([a_spec(begin_at=NOW + 9)])
    coordinator.tell(applied)
    await coordinator.run_due()
    looked = len(handler.given)

    clock.advance(9)
    await coordinator.run_due()

    assert len(handler.given) == looked + 1


async def test_a_pending_timeout_is_over_to_the_second(repository, clock):
    handler = Handler(stages.SWEEP_SESSIONS)
    coordinator = a_coordinator(repository, handler, clock=clock)
    await coordinator.run_due()
    _, applied = await repository.submit([a_spec(pending_timeout_s=9.0)])
    coordinator.tell(applied)

    clock.advance(8.9)
    await coordinator.run_due()
    assert handler.given == []

    clock.advance(0.1)
    await coordinator.run_due()
    assert len(handler.given) == 1


async def test_every_stage_runs_every_full_cycle_without_a_hint(repository, clock):
    handler = Handler(stages.SCHEDULE_SESSIONS)
    await submitted(repository)
    coordinator = a_coordinator(repository, handler, clock=clock)
    await coordinator.run_due()

    clock.advance(59)
    await coordinator.run_due()
    assert len(handler.given) == 1

    clock.advance(1)
    await coordinator.run_due()
    assert len(handler.given) == 2
    assert coordinator.next_at() > clock.now()


async def test_work_that_is_due_does_not_starve_what_nobody_hinted_at(repository, clock):
    """A moment in the past is not due for ever: the stage rests until something changes."""
    await brought_to(repository, S.RUNNING, a_spec(walltime_s=5.0))
    handler = Handler(stages.ENFORCE_WALLTIME)
    coordinator = a_coordinator(repository, handler, clock=clock)
    for _ in range(5):
        await coordinator.run_due()

    assert len(handler.given) == 1


# --- groups are independent -----------------------------------------------------------------------


async def test_an_error_in_one_group_does_not_delay_another(repository, clock):
    await submitted(repository, a_spec(), a_spec(scaling_group="other"))

    def answer(sessions):
        broken = sessions[0].scaling_group == "default"
        return ZeroDivisionError() if broken else SessionExecutionResult()

    handler = Handler(stages.SCHEDULE_SESSIONS, answer)
    coordinator = a_coordinator(repository, handler, clock=clock)
    await coordinator.run_due()

    assert {group for group, _ in handler.given} == {"default", "other"}


async def test_a_slow_group_does_not_delay_another(repository, clock):
    ids = await submitted(repository, a_spec(), a_spec(scaling_group="other"))
    never, done = asyncio.Event(), asyncio.Event()

    def answer(sessions):
        if sessions[0].session_id == ids[0]:
            return never.wait()
        done.set()
        return NOTHING

    handler = Handler(stages.SCHEDULE_SESSIONS, answer)
    running = asyncio.create_task(a_coordinator(repository, handler, clock=clock).run())

    await asyncio.wait_for(done.wait(), 10)

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_a_stage_never_runs_twice_at_once(repository, clock):
    await submitted(repository)
    at_work, go_on = asyncio.Event(), asyncio.Event()

    async def answer():
        at_work.set()
        await go_on.wait()
        return NOTHING

    handler = Handler(stages.SCHEDULE_SESSIONS, lambda _: answer())
    coordinator = a_coordinator(repository, handler, clock=clock)
    running = asyncio.create_task(coordinator.run())
    await at_work.wait()

    coordinator.hint("default", stages.SCHEDULE_SESSIONS)
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(handler.given) == 1

    go_on.set()
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(handler.given) == 2  # the hint was not lost

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_a_chore_that_fails_is_tried_again_after_a_short_cycle(repository, clock):
    tries = []

    async def fail():
        tries.append(clock.now())
        raise StoreUnavailableError("the disk is full")

    coordinator = a_coordinator(repository, clock=clock, chores=[Chore("refresh", 600.0, fail)])
    await coordinator.run_due()
    clock.advance(2)
    await coordinator.run_due()

    assert tries == [NOW, NOW + 2]


# --- the lease ------------------------------------------------------------------------------------


async def test_a_coordinator_that_lost_its_lease_moves_nothing(repository, clock):
    (session_id,) = await brought_to(repository, S.SCHEDULED)
    a_repository("default", "other", database=repository._database, clock=clock, holder="another")
    handler = succeeding(stages.CHECK_PRECONDITION)
    coordinator = a_coordinator(repository, handler, clock=clock)

    await coordinator.run_due()

    assert repository.live.sessions[session_id].status is S.SCHEDULED
    assert not repository.leads("default")
    asked = len(handler.given)
    coordinator.hint("default", stages.CHECK_PRECONDITION)
    await coordinator.run_due()
    assert len(handler.given) == asked == 1


# --- agents that fall silent ----------------------------------------------------------------------


@pytest.fixture
def coordinator(repository, clock):
    handlers = [Handler(stage) for stage in stages.STAGES]
    return a_coordinator(repository, *handlers, clock=clock)


def agent_status(repository, agent_id=A1):
    return repository.live.agents[agent_id].status


async def test_an_agent_is_lost_when_it_has_been_silent_for_forty_seconds(
    repository, clock, coordinator
):
    clock.advance(39.9)
    await coordinator.watch_agents()
    assert agent_status(repository) is AgentStatus.ALIVE

    clock.advance(0.1)
    await coordinator.watch_agents()
    assert agent_status(repository) is AgentStatus.LOST


async def test_an_agent_that_is_heard_of_is_not_lost(repository, clock, coordinator):
    for _ in range(20):
        clock.advance(5)
        repository.heard_of(A1)
        await coordinator.watch_agents()

    assert agent_status(repository) is AgentStatus.ALIVE


async def test_a_lost_agent_is_given_up_after_its_grace(repository, clock, coordinator):
    clock.advance(40)
    await coordinator.watch_agents()
    clock.advance(299)
    await coordinator.watch_agents()
    assert agent_status(repository) is AgentStatus.LOST

    clock.advance(1)
    hinted(coordinator)
    await coordinator.watch_agents()

    assert agent_status(repository) is AgentStatus.GONE
    assert ("default", "schedule-sessions") in hinted(coordinator)


async def test_a_lost_agent_that_is_heard_of_is_not_given_up(repository, clock, coordinator):
    """It cannot be written that it is back, as long as the store refuses."""
    clock.advance(40)
    await coordinator.watch_agents()
    clock.advance(250)
    repository.heard_of(A1)

    clock.advance(299)
    await coordinator.watch_agents()
    assert agent_status(repository) is AgentStatus.LOST
    clock.advance(1)
    await coordinator.watch_agents()
    assert agent_status(repository) is AgentStatus.GONE


async def test_the_grace_is_the_group_s(clock):
    group = ScalingGroup("default", agent_grace_s=10.0)
    repository = a_repository(group, clock=clock)
    await repository.register_agent(an_agent_hello(A1))
    coordinator = a_coordinator(repository, clock=clock)
    clock.advance(40)
    await coordinator.watch_agents()

    clock.advance(10)
    await coordinator.watch_agents()

    assert agent_status(repository) is AgentStatus.GONE


async def test_an_agent_that_is_gone_stays_gone(repository, clock, coordinator):
    for seconds in (40, 300, 300):
        clock.advance(seconds)
        await coordinator.watch_agents()

    assert agent_status(repository) is AgentStatus.GONE


async def test_what_has_not_reached_creating_leaves_a_lost_agent_at_once(
    repository, clock, coordinator
):
    (early,) = await brought_to(repository, S.PREPARED)
    (late,) = await brought_to(repository, S.RUNNING)
    clock.advance(40)

    await coordinator.watch_agents()

    assert status_of(repository, early) is S.PENDING
    assert status_of(repository, late) is S.RUNNING


async def test_what_runs_ends_when_its_agent_is_given_up(repository, clock, coordinator):
    (ends,) = await brought_to(repository, S.RUNNING)
    (goes_back,) = await brought_to(repository, S.RUNNING, a_spec(requeue=True))
    clock.advance(40)
    await coordinator.watch_agents()
    clock.advance(300)

    await coordinator.watch_agents()

    assert ends not in repository.live.sessions
    assert status_of(repository, goes_back) is S.PENDING
    assert (await history(repository, ends))[-1]["to_status"] == "TERMINATED"
    assert {hold.session_id for hold in repository.live.leftovers()} == {ends, goes_back}


# --- work beside ----------------------------------------------------------------------------------


async def test_work_beside_is_done_at_once_when_nothing_runs(repository, clock):
    done = []

    async def work():
        done.append(True)

    await a_coordinator(repository, clock=clock).beside(work())

    assert done == [True]


async def test_work_beside_that_fails_stops_nothing_else(repository, clock):
    done = asyncio.Event()

    async def fail():
        raise StoreUnavailableError("the disk is full")

    async def work():
        done.set()

    async def start_work():
        await coordinator.beside(fail())
        await coordinator.beside(work())

    coordinator = a_coordinator(repository, clock=clock, chores=[Chore("start", 60, start_work)])
    running = asyncio.create_task(coordinator.run())
    await asyncio.wait_for(done.wait(), 10)
    for _ in range(10):
        await asyncio.sleep(0)

    assert not running.done()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_work_beside_that_lost_the_lease_stops_nothing_else(repository, clock):
    async def fail():
        raise LeaseLostError("another manager drives the group")

    async def start_work():
        await coordinator.beside(fail())

    coordinator = a_coordinator(repository, clock=clock, chores=[Chore("start", 60, start_work)])
    running = asyncio.create_task(coordinator.run())

    for _ in range(20):
        await asyncio.sleep(0)

    assert not running.done()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


# --- what an exception means ----------------------------------------------------------------------


def test_an_error_that_names_sessions_of_others_fails_nobody_here():
    report = report_of_failure([a_session(S1)], AgentError("no answer", [S2]))

    assert [info.session_id for info in report.successes] == [S1]
    assert report.failures == []


def test_an_error_that_names_nobody_at_all_fails_nobody():
    report = report_of_failure([a_session(S1)], AgentError("no answer", []))

    assert report.failures == []


# --- everything joined ----------------------------------------------------------------------------


async def test_a_session_walks_from_submission_to_its_end(repository, clock):
    gateway = FakeGateway()
    coordinator = Coordinator(repository, clock, SchedulerConfig())
    events = events_for(coordinator, repository)
    join(coordinator, repository, gateway, events, Config())
    (session_id,), applied = await repository.submit([a_spec()])
    coordinator.tell(applied)
    gateway.answers = {
        ("prepare", A1): reporting(ReportState.PREPARED),
        ("start", A1): reporting(ReportState.RUNNING),
    }

    while await coordinator.run_due():
        pass
    assert status_of(repository, session_id) is S.RUNNING

    token = repository.live.sessions[session_id].main.token
    incarnation = repository.live.agents[A1].incarnation
    await events.reported(A1, incarnation, [KernelReport(token, ReportState.ENDED, exit_code=0)])

    lines = await history(repository, session_id)
    assert [line["to_status"] for line in lines if line["kernel_id"] is None] == [
        "PENDING",
        "SCHEDULED",
        "PREPARING",
        "PREPARED",
        "CREATING",
        "RUNNING",
        "TERMINATING",
        "TERMINATED",
    ]
    assert list(repository.live.holds_on(A1)) == []


async def test_a_forced_stop_is_sent_at_once_to_a_session_that_is_terminating(repository, clock):
    gateway = FakeGateway()
    coordinator = Coordinator(repository, clock, SchedulerConfig())
    join(coordinator, repository, gateway, events_for(coordinator, repository), Config())
    (session_id,) = await brought_to(repository, S.RUNNING)
    coordinator.tell(await repository.request_termination([session_id], force=False, detail=""))
    while await coordinator.run_due():
        pass
    gateway.asked.clear()

    coordinator.tell(await repository.request_termination([session_id], force=True, detail=""))
    await coordinator.run_due()

    assert [what for what, *_ in gateway.asked] == ["stop"]


async def test_a_session_whose_last_dependency_ends_is_looked_at_at_once_in_its_own_group(
    repository, clock, coordinator
):
    (first,) = await brought_to(repository, S.RUNNING)
    await submitted(repository, a_spec(scaling_group="other", depends_on=(Dependency(first),)))
    hinted(coordinator)

    coordinator.tell(await said(repository, ReportState.ENDED, first, exit_code=0))

    assert ("other", "schedule-sessions") in hinted(coordinator)


async def test_two_agents_serve_one_session(repository, clock):
    await repository.register_agent(an_agent_hello(A2))
    (session_id,) = await submitted(repository, a_spec(kernel_count=2))
    await placed(repository, session_id, on=(A1, A2))
    await asked(repository, stages.CHECK_PRECONDITION, session_id)

    assert repository.live.sessions[session_id].agent_ids == (A1, A2)


def reporting(state):
    async def answer(tokens):
        return [KernelReport(token, state) for token in tokens]

    return answer
