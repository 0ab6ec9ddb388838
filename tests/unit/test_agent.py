"""The agent's own decisions: retries, restarts, being cut off; on a clock that the test moves."""

import contextlib
from itertools import pairwise

import pytest

from sokovan.agent.runtime import Ended
from sokovan.domain.errors import AgentError
from sokovan.domain.reasons import EndReason
from sokovan.scheduler.messages import KernelReport, ReportState
from sokovan.simulator.runtime import FakeRuntime, Script
from tests.homes import FAILS, IS_STUBBORN, RUNS_LONG, SUCCEEDS, Deed, ScriptedGround

FAILS_TWICE_THEN_SUCCEEDS = Deed(Script(seconds=1, start_failures=2), ())
FAILS_FOR_LONG = Deed(Script(start_failures=1_000), ())
CAN_NEVER_START = Deed(Script(refusal=EndReason.COMMAND_NOT_FOUND), ())


@pytest.fixture
async def ground():
    ground = ScriptedGround(cut_off_stop_s=270.0)
    await ground.until(lambda: bool(ground.sink.hellos))
    return ground


async def test_a_failed_start_is_tried_again_and_each_failure_is_reported(ground):
    first = await ground.start("t1", FAILS_TWICE_THEN_SUCCEEDS)
    end = await ground.end_of("t1")

    assert (first.state, first.failures) == (ReportState.START_FAILED, 1)
    assert [(r.state, r.failures) for r in ground.sink.of("t1")] == [
        (ReportState.START_FAILED, 1),
        (ReportState.START_FAILED, 2),
        (ReportState.RUNNING, 2),
        (ReportState.ENDED, 0),
    ][-len(ground.sink.of("t1")) :]
    assert end.exit_code == 0
    assert ground.runtime.started == ["t1"]


async def test_the_pauses_between_starts_double_up_to_a_minute(ground):
    await ground.start("t1", FAILS_FOR_LONG)
    times = {}
    while len(times) < 9:
        await ground.pass_time(0.5)
        failures = ground.runtime.kernels["t1"].failures
        times.setdefault(failures, ground.clock.now())
    at = list(times.values())

    assert [later - earlier for earlier, later in pairwise(at[1:])] == [
        2, 4, 8, 16, 32, 60, 60,
    ]  # fmt: skip


async def test_a_start_that_is_being_retried_can_be_stopped(ground):
    await ground.start("t1", FAILS_FOR_LONG)
    stopped = await ground.stop("t1")
    await ground.pass_time(100)

    assert stopped.reason == EndReason.STOPPED_BEFORE_START
    assert ground.runtime.kernels["t1"].failures == 1
    assert await ground.start("t1", SUCCEEDS) == stopped


async def test_what_was_stopped_while_the_disk_was_full_is_not_started_after_a_restart(ground):
    await ground.start("t1", FAILS_TWICE_THEN_SUCCEEDS)
    ground.runtime.is_full = True
    with pytest.raises(AgentError, match="No space left"):
        await ground.stop("t1")
    ground.home.crash(ground.agent_id)
    ground.runtime.is_full = False
    ground.home.restart(ground.agent_id)
    await ground.until(lambda: ground.home._places[ground.agent_id].incarnation is not None)
    stopped = await ground.stop("t1")
    ground.home.crash(ground.agent_id)
    ground.home.restart(ground.agent_id)
    await ground.pass_time(100)

    assert stopped.reason == EndReason.STOPPED_BEFORE_START
    assert await ground.start("t1", SUCCEEDS) == stopped
    assert ground.runtime.started == []


@pytest.mark.parametrize("is_full", [False, True])
async def test_a_stop_is_confirmed_only_when_no_later_agent_can_start_it(
    ground, monkeypatch, is_full
):
    """The report of the end is lost on the full disk; that it may not be started is not."""
    agent = ground.home._places[ground.agent_id].agent
    await ground.start("t1", FAILS_TWICE_THEN_SUCCEEDS)
    monkeypatch.setattr(FakeRuntime, "conclude", lambda runtime, report: None)
    ground.runtime.is_full = is_full
    with contextlib.suppress(AgentError):
        await ground.stop("t1")
    confirmed = [r for r in agent.unacknowledged() if r.state is ReportState.ENDED]
    ground.home.crash(ground.agent_id)
    ground.runtime.is_full = False
    ground.home.restart(ground.agent_id)
    await ground.pass_time(100)

    assert bool(confirmed) is not is_full
    assert ground.runtime.started == ([] if confirmed else ["t1"])


async def test_a_stop_that_failed_half_way_starts_nothing(ground):
    await ground.start("t1", FAILS_TWICE_THEN_SUCCEEDS)
    await ground.prepare("t2")
    ground.runtime.refused |= {"t1", "t2"}  # and then the disk was full
    later = await ground.start("t2", SUCCEEDS)
    await ground.pass_time(100)

    assert (await ground.end_of("t1")).reason == EndReason.STOPPED_BEFORE_START
    assert later.reason == EndReason.STOPPED_BEFORE_START
    assert ground.runtime.started == []


async def test_that_a_kernel_never_ran_is_said_once_it_never_can(ground):
    await ground.start("t1", RUNS_LONG)
    agent = ground.home._places[ground.agent_id].agent
    ground.runtime.is_full = True
    agent.ended("t1", Ended(reason=EndReason.STOPPED_BEFORE_START))
    meanwhile = (await ground.state("t1")).state
    ground.runtime.is_full = False
    end = await ground.end_of("t1")

    assert meanwhile is ReportState.RUNNING
    assert end.reason == EndReason.STOPPED_BEFORE_START
    assert "t1" in ground.runtime.refused


async def test_a_failed_start_that_was_given_up_while_cut_off_is_not_started_later(
    ground, monkeypatch
):
    monkeypatch.setattr(FakeRuntime, "conclude", lambda runtime, report: None)  # the disk is full
    await ground.start("t1", FAILS_FOR_LONG, requeue=True)
    ground.home.cut_off(ground.agent_id)
    await ground.pass_time(275)
    ground.home.crash(ground.agent_id)
    ground.home.restart(ground.agent_id)
    ground.home.mend(ground.agent_id)

    assert (await ground.end_of("t1")).reason == EndReason.AGENT_LOST
    assert ground.runtime.started == []


async def test_a_permanent_failure_is_final_and_remembered(ground):
    first = await ground.start("t1", CAN_NEVER_START)
    await ground.pass_time(20)
    again = await ground.start("t1", SUCCEEDS)

    assert (first.permanent, first.reason) == (True, EndReason.COMMAND_NOT_FOUND)
    assert again == first
    assert await ground.stop("t1") == first


async def test_one_token_never_runs_twice_whatever_happens_in_between(ground):
    await ground.start("t1", SUCCEEDS)
    ground.home.crash(ground.agent_id)
    ground.home.restart(ground.agent_id)
    await ground.start("t1", SUCCEEDS)
    await ground.end_of("t1")
    ground.home.crash(ground.agent_id)
    ground.home.restart(ground.agent_id)
    await ground.start("t1", SUCCEEDS)
    await ground.pass_time(100)

    assert ground.runtime.started == ["t1"]


async def test_an_end_while_the_agent_was_down_is_reported_when_it_is_back(ground):
    await ground.start("t1", FAILS)
    ground.home.crash(ground.agent_id)
    await ground.pass_time(100)
    with pytest.raises(AgentError, match="not connected"):
        await ground.state("t1")
    ground.home.restart(ground.agent_id)

    assert (await ground.end_of("t1")).exit_code == 3


async def test_a_machine_that_restarted_has_lost_every_status(ground):
    await ground.start("t1", RUNS_LONG)
    ground.home.crash(ground.agent_id)
    ground.runtime.reboot()
    ground.home.restart(ground.agent_id)

    assert (await ground.end_of("t1")).reason == EndReason.EXIT_STATUS_LOST


async def test_an_order_that_never_ran_is_carried_out_after_a_short_absence(ground):
    await ground.start("t1", FAILS_TWICE_THEN_SUCCEEDS)
    ground.home.crash(ground.agent_id)
    await ground.pass_time(100)
    ground.home.restart(ground.agent_id)

    assert (await ground.end_of("t1")).exit_code == 0


async def test_an_order_that_never_ran_is_forgotten_after_a_long_absence(ground):
    await ground.start("t1", FAILS_TWICE_THEN_SUCCEEDS)
    ground.home.crash(ground.agent_id)
    await ground.pass_time(300)
    ground.home.restart(ground.agent_id)
    await ground.pass_time(100)

    assert (await ground.state("t1")).state is ReportState.UNKNOWN
    assert ground.runtime.started == []


async def test_an_agent_cut_off_for_long_stops_what_will_be_requeued_and_nothing_else(ground):
    await ground.start("t1", RUNS_LONG, requeue=True)
    await ground.start("t2", RUNS_LONG)
    await ground.start("t3", FAILS_FOR_LONG, requeue=True)
    ground.home.cut_off(ground.agent_id)
    await ground.pass_time(260)
    before = [ground.runtime.kernels[token].end for token in ("t1", "t2")]
    await ground.pass_time(30)
    ground.home.mend(ground.agent_id)
    end = await ground.end_of("t1")
    other = await ground.end_of("t3")

    assert before == [None, None]
    assert (end.exit_code, end.reason) == (143, EndReason.AGENT_LOST)
    assert (other.exit_code, other.reason) == (None, EndReason.AGENT_LOST)
    assert (await ground.state("t2")).state is ReportState.RUNNING


async def test_an_agent_cut_off_for_long_starts_nothing_until_it_is_back(ground):
    await ground.start("t1", Deed(Script(seconds=1, start_failures=12), ()))
    ground.home.cut_off(ground.agent_id)
    await ground.pass_time(2_000)
    meanwhile = list(ground.runtime.started)
    ground.home.mend(ground.agent_id)

    assert meanwhile == []
    assert (await ground.end_of("t1")).exit_code == 0


async def test_short_silences_do_not_add_up(ground):
    await ground.start("t1", RUNS_LONG, requeue=True)
    for _ in range(5):
        ground.home.cut_off(ground.agent_id)
        await ground.pass_time(200)
        ground.home.mend(ground.agent_id)
        await ground.pass_time(10)

    assert (await ground.state("t1")).state is ReportState.RUNNING


async def test_a_silence_goes_on_while_there_is_no_agent(ground):
    await ground.start("t1", RUNS_LONG, requeue=True)
    ground.home.cut_off(ground.agent_id)
    await ground.pass_time(200)
    ground.home.crash(ground.agent_id)
    await ground.pass_time(2)
    ground.home.restart(ground.agent_id)
    await ground.pass_time(40)
    before = ground.runtime.kernels["t1"].end
    await ground.pass_time(40)

    assert before is None
    assert ground.runtime.kernels["t1"].end is not None


async def test_an_agent_that_is_back_after_long_keeps_what_runs_if_it_hears_of_a_manager(ground):
    await ground.start("t1", RUNS_LONG, requeue=True)
    ground.home.crash(ground.agent_id)
    await ground.pass_time(3_600)
    ground.home.restart(ground.agent_id)
    await ground.pass_time(100)

    assert (await ground.state("t1")).state is ReportState.RUNNING


async def test_a_silence_ends_with_the_machine(ground):
    ground.home.cut_off(ground.agent_id)
    await ground.pass_time(200)
    ground.home.crash(ground.agent_id)
    ground.runtime.reboot()
    ground.home.restart(ground.agent_id)
    await ground.pass_time(200)

    assert not ground.home._places[ground.agent_id].agent.is_cut_off


@pytest.mark.parametrize("seconds", [240, 259, 262, 264, 268, 271, 275, 280, 300, 3_600])
async def test_a_machine_that_slept_with_its_manager_goes_on_with_its_kernels(ground, seconds):
    await ground.start("t1", RUNS_LONG, requeue=True)
    await ground.pass_time(1)
    ground.clock.advance(seconds)
    ground.home._places[ground.agent_id].timers.run_due()  # before anything is heard
    ground.clock.advance(1)
    await ground.pass_time(100)

    assert (await ground.state("t1")).state is ReportState.RUNNING


async def test_an_agent_that_stood_still_and_hears_of_no_manager_stops_what_will_be_requeued(
    ground,
):
    await ground.start("t1", RUNS_LONG, requeue=True)
    await ground.start("t2", Deed(Script(seconds=1, start_failures=3), ()))
    ground.home.cut_off(ground.agent_id)
    ground.clock.advance(400)
    await ground.round()
    at_once = ground.runtime.kernels["t1"].end
    await ground.pass_time(11)

    assert at_once is None
    assert ground.runtime.kernels["t1"].end is not None
    assert ground.runtime.started == ["t1"], "what was asked before is too old to be done"


async def test_an_older_report_does_not_acknowledge_a_newer_one(ground):
    agent = ground.home._places[ground.agent_id].agent
    await ground.start("t1", SUCCEEDS)
    older = await ground.state("t1")
    ground.home.cut_off(ground.agent_id)
    await ground.pass_time(5)
    agent.acknowledge([older, KernelReport("never", ReportState.ENDED)])

    assert [r.state for r in agent.unacknowledged()] == [ReportState.ENDED]


async def test_a_reader_is_woken_by_the_end(ground):
    await ground.start("t1", SUCCEEDS)
    chunk = await ground.gateway.read_output(
        ground.agent_id, "t1", "stdout", offset=0, bytes_max=10, wait_s=0.5
    )
    await ground.end_of("t1")
    ended = await ground.gateway.read_output(
        ground.agent_id, "t1", "stdout", offset=0, bytes_max=10, wait_s=1_000_000
    )

    assert not chunk.ended
    assert ended.ended


async def test_what_was_acknowledged_long_ago_is_pruned():
    ground = ScriptedGround(heartbeat_s=3_600.0)
    await ground.until(lambda: bool(ground.sink.hellos))
    await ground.start("t1", SUCCEEDS)
    await ground.start("t2", IS_STUBBORN)
    await ground.end_of("t1")
    kept = (await ground.state("t1")).state
    await ground.pass_time(31 * 86_400)

    assert kept is ReportState.ENDED
    assert (await ground.state("t1")).state is ReportState.UNKNOWN


async def test_the_same_story_is_told_the_same_way_twice():
    stories = []
    for _ in range(2):
        ground = ScriptedGround()
        await ground.until(lambda ground=ground: bool(ground.sink.hellos))
        for number in range(20):
            await ground.start(f"t{number}", (SUCCEEDS, FAILS, RUNS_LONG)[number % 3])
        await ground.pass_time(30)
        stories.append((ground.sink.reports, ground.sink.heartbeats))

    assert stories[0] == stories[1]
