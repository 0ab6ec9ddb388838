"""What holds of every agent, wherever it lives."""

import pytest

from sokovan.domain.errors import AgentError
from sokovan.domain.reasons import EndReason
from sokovan.domain.sessions import AgentId
from sokovan.scheduler.messages import KernelReport, ReportState
from tests.homes import (
    FAILS,
    IS_STUBBORN,
    RUNS_LONG,
    SPEAKS,
    SPEAKS_AND_STAYS,
    SUCCEEDS,
    ScriptedGround,
    real_ground,
)


@pytest.fixture(params=["in-process", pytest.param("local", marks=pytest.mark.real)])
async def ground(request):
    if request.param == "in-process":
        ground = ScriptedGround()
        await ground.until(lambda: bool(ground.sink.hellos))
        yield ground
    else:
        async with real_ground() as ground:
            yield ground


async def test_a_kernel_is_prepared_then_runs_then_ends_with_its_code(ground):
    prepared = await ground.prepare("t1")
    started = await ground.start("t1", FAILS)
    end = await ground.end_of("t1")

    assert prepared == KernelReport("t1", ReportState.PREPARED)
    assert started.state in {ReportState.RUNNING, ReportState.ENDED}
    assert end == KernelReport("t1", ReportState.ENDED, exit_code=3)


async def test_success_is_told_from_not_knowing(ground):
    await ground.start("t1", SUCCEEDS)

    assert (await ground.end_of("t1")).exit_code == 0


async def test_a_plain_process_has_no_image(ground):
    report = await ground.prepare("t1", image="python:3")

    assert report.state is ReportState.PULL_FAILED
    assert report.permanent


async def test_a_repeated_start_answers_the_present_state(ground):
    await ground.start("t1", RUNS_LONG)

    again = await ground.start("t1", RUNS_LONG)

    assert again.state is ReportState.RUNNING


async def test_a_start_after_the_end_answers_the_end_and_runs_nothing(ground):
    await ground.start("t1", FAILS)
    await ground.end_of("t1")
    answers = [await ground.start("t1", RUNS_LONG) for _ in range(3)]

    assert answers == [KernelReport("t1", ReportState.ENDED, exit_code=3)] * 3


async def test_a_token_stopped_before_its_start_is_never_started(ground):
    stopped = await ground.stop("t1")
    started = await ground.start("t1", RUNS_LONG)

    assert stopped.state is ReportState.ENDED
    assert stopped.reason == EndReason.STOPPED_BEFORE_START
    assert started == stopped


async def test_a_prepared_token_that_is_stopped_is_never_started(ground):
    await ground.prepare("t1")
    await ground.stop("t1")

    assert (await ground.start("t1", RUNS_LONG)).reason == EndReason.STOPPED_BEFORE_START


async def test_a_stop_ends_a_kernel_by_sigterm(ground):
    await ground.start("t1", SPEAKS_AND_STAYS)
    await ground.until_written("t1", b"hello")

    assert (await ground.stop("t1")).state is ReportState.RUNNING
    assert (await ground.end_of("t1")).exit_code == 143


async def test_a_kernel_that_ignores_sigterm_is_killed_after_the_grace(ground):
    await ground.start("t1", IS_STUBBORN)
    await ground.until_written("t1", b"ready")
    await ground.stop("t1", grace_s=0.3)

    assert (await ground.end_of("t1")).exit_code == 137


async def test_force_needs_no_grace(ground):
    await ground.start("t1", IS_STUBBORN)
    await ground.until_written("t1", b"ready")
    await ground.stop("t1", grace_s=10_000)
    await ground.stop("t1", force=True)

    assert (await ground.end_of("t1")).exit_code == 137


async def test_a_second_stop_does_not_lengthen_the_grace(ground):
    await ground.start("t1", IS_STUBBORN)
    await ground.until_written("t1", b"ready")
    await ground.stop("t1", grace_s=0.3)
    await ground.stop("t1", grace_s=10_000)

    assert (await ground.end_of("t1")).exit_code == 137


async def test_reports_are_repeated_until_they_are_acknowledged(ground):
    ground.sink.failures_left = 3
    await ground.start("t1", FAILS)
    end = await ground.end_of("t1")

    assert end.exit_code == 3
    assert len(ground.sink.failed) >= 3


async def test_what_is_acknowledged_is_not_repeated(ground):
    await ground.start("t1", RUNS_LONG)
    await ground.until(lambda: bool(ground.sink.of("t1")))
    seen = len(ground.sink.heartbeats)
    await ground.until(lambda: len(ground.sink.heartbeats) > seen + 1)  # may have met the answer
    told, seen = len(ground.sink.of("t1")), len(ground.sink.heartbeats)
    await ground.until(lambda: len(ground.sink.heartbeats) > seen + 3)

    assert len(ground.sink.of("t1")) == told


async def test_heartbeats_list_what_lives_and_nothing_else(ground):
    await ground.prepare("t0")
    await ground.start("t1", RUNS_LONG)
    await ground.start("t2", SUCCEEDS)
    await ground.end_of("t2")
    seen = len(ground.sink.heartbeats)
    await ground.until(lambda: len(ground.sink.heartbeats) > seen + 1)

    assert ground.sink.heartbeats[-1] == ["t1"]


async def test_the_state_of_every_token_can_be_asked(ground):
    await ground.start("t1", RUNS_LONG)
    await ground.start("t2", FAILS)
    await ground.end_of("t2")
    states = await ground.gateway.states(ground.agent_id, ["t2", "never", "t1"])

    assert [(report.token, report.state, report.exit_code) for report in states] == [
        ("t2", ReportState.ENDED, 3),
        ("never", ReportState.UNKNOWN, None),
        ("t1", ReportState.RUNNING, None),
    ]


@pytest.mark.parametrize(
    ("offset", "expected"), [(0, b"hello world\n"), (6, b"world\n"), (-6, b"world\n"), (-999, None)]
)
async def test_output_is_read_from_either_end(ground, offset, expected):
    await ground.start("t1", SPEAKS)
    await ground.end_of("t1")

    assert await ground.read("t1", offset=offset) == (expected or b"hello world\n")


async def test_output_says_where_it_begins_how_long_it_is_and_whether_it_is_all(ground):
    await ground.start("t1", SPEAKS)
    await ground.end_of("t1")
    chunk = await ground.gateway.read_output(
        ground.agent_id, "t1", "stdout", offset=-6, bytes_max=3, wait_s=0.0
    )
    past = await ground.gateway.read_output(
        ground.agent_id, "t1", "stdout", offset=50, bytes_max=3, wait_s=0.0
    )

    assert (chunk.data, chunk.offset, chunk.size, chunk.ended) == (b"wor", 6, 12, True)
    assert (past.data, past.size, past.ended) == (b"", 12, True)


async def test_a_reader_waits_for_output_only_as_long_as_it_wants_to(ground):
    await ground.start("t1", SPEAKS_AND_STAYS)
    await ground.until_written("t1", b"hello world\n")
    chunk = await ground.gateway.read_output(
        ground.agent_id, "t1", "stdout", offset=12, bytes_max=100, wait_s=0.2
    )

    assert (chunk.data, chunk.size, chunk.ended) == (b"", 12, False)


async def test_output_of_an_unknown_token_or_stream_is_refused(ground):
    await ground.start("t1", SPEAKS)

    with pytest.raises(AgentError, match="not kept"):
        await ground.read("never")
    with pytest.raises(AgentError, match="no such output"):
        await ground.read("t1", "stdin")


async def test_a_missing_command_is_reported_once_and_for_ever(ground):
    if isinstance(ground, ScriptedGround):
        pytest.skip("a script has no commands; the refusals of scripts are tested below")
    order = ground.command("t1", "no-such-command")
    (first,) = await ground.gateway.start(ground.agent_id, [order])
    (again,) = await ground.gateway.start(ground.agent_id, [order])

    assert first.state is ReportState.START_FAILED
    assert (first.permanent, first.reason) == (True, EndReason.COMMAND_NOT_FOUND)
    assert again == first


async def test_an_agent_that_is_not_there_is_an_error(ground):
    with pytest.raises(AgentError, match="not connected"):
        await ground.gateway.states(AgentId("another"), ["t1"])


async def test_many_kernels_at_once_each_end_with_their_own_code(ground):
    tokens = [f"t{number}" for number in range(150)]
    orders = [ground.order(token, FAILS) for token in tokens]
    answers = await ground.gateway.start(ground.agent_id, orders)
    ends = [await ground.end_of(token) for token in tokens]

    assert [report.token for report in answers] == tokens
    assert {end.exit_code for end in ends} == {3}
