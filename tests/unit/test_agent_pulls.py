"""What an agent makes ready before a kernel can start: slowly, at a later attempt, or never."""

import pytest

from sokovan.domain.reasons import EndReason
from sokovan.domain.sessions import KernelId, SessionId
from sokovan.scheduler.messages import KernelReport, KernelToPrepare, ReportState
from sokovan.simulator.runtime import Script
from tests.homes import Deed, ScriptedGround

SLOW = Deed(Script(seconds=5, pull_s=60), ())
VERY_SLOW = Deed(Script(seconds=5, pull_s=350), ())
FAILS_TWICE = Deed(Script(seconds=5, pull_failures=2), ())
HAS_NO_IMAGE = Deed(Script(has_no_image=True), ())


@pytest.fixture
async def ground():
    ground = ScriptedGround()
    await ground.until(lambda: bool(ground.sink.hellos))
    return ground


async def prepare(ground: ScriptedGround, deed: Deed) -> KernelReport:
    """Ask an agent to prepare the token `t`, which does as `deed` says."""
    ground.scripts["t"] = deed.script
    order = KernelToPrepare("t", SessionId("s"), KernelId("s.0"), ground.agent_id)
    (report,) = await ground.gateway.prepare(ground.agent_id, [order])
    return report


def said(ground: ScriptedGround) -> list[tuple[str, int]]:
    """Return what was said of the token: states, and how many failures with each."""
    return [(report.state.value, report.failures) for report in ground.sink.of("t")]


async def test_a_slow_pull_is_reported_when_it_begins_and_when_it_is_over(ground):
    asked = await prepare(ground, SLOW)
    again = await prepare(ground, SLOW)
    await ground.pass_time(61)

    assert asked == again
    assert asked.state is ReportState.PULLING
    assert said(ground)[-1] == ("PREPARED", 0)


async def test_a_failed_pull_is_tried_again_and_each_failure_is_reported(ground):
    asked = await prepare(ground, FAILS_TWICE)
    await ground.pass_time(10)

    assert (asked.state, asked.failures, asked.permanent) == (ReportState.PULL_FAILED, 1, False)
    assert ("PULL_FAILED", 2) in said(ground)
    assert said(ground)[-1] == ("PREPARED", 2)


async def test_an_image_that_does_not_exist_is_asked_for_once(ground):
    asked = await prepare(ground, HAS_NO_IMAGE)
    await ground.pass_time(600)

    assert (asked.permanent, asked.reason) == (True, EndReason.IMAGE_UNAVAILABLE)
    assert (await prepare(ground, HAS_NO_IMAGE)).permanent
    assert ground.runtime.pull_failures.total() == 0


@pytest.mark.parametrize("deed", [SLOW, FAILS_TWICE])
async def test_what_is_being_pulled_can_be_stopped(ground, deed):
    await prepare(ground, deed)
    stopped = await ground.stop("t")
    await ground.pass_time(120)

    assert stopped.state is ReportState.ENDED
    assert said(ground)[-1] == ("ENDED", 0)
    assert await ground.start("t", deed) == stopped
    assert not ground.runtime.started


@pytest.mark.parametrize("deed", [SLOW, FAILS_TWICE])
async def test_a_start_that_comes_before_the_pull_is_over_is_carried_out_after_it(ground, deed):
    """Storm, seed 3: the agent had been restarted and pulled again; the start was forgotten."""
    asked = await prepare(ground, deed)
    answered = await ground.start("t", deed)
    assert answered == asked

    await ground.pass_time(120)

    assert ground.runtime.started == ["t"]
    assert said(ground)[-1][0] == "ENDED"


async def test_what_is_ready_while_no_manager_is_heard_of_is_not_started(ground):
    """It may have been given to another agent meanwhile."""
    await prepare(ground, VERY_SLOW)
    await ground.start("t", VERY_SLOW)
    ground.home.cut_off(ground.agent_id)
    await ground.pass_time(400)
    assert not ground.runtime.started

    ground.home.mend(ground.agent_id)
    await ground.pass_time(30)

    assert ground.runtime.started == ["t"]


async def test_a_pull_ends_with_its_agent_and_is_begun_again_when_it_is_asked_for(ground):
    await prepare(ground, SLOW)
    ground.home.crash(ground.agent_id)
    ground.home.restart(ground.agent_id)
    await ground.pass_time(90)
    assert said(ground) == []

    assert (await prepare(ground, SLOW)).state is ReportState.PULLING
    await ground.pass_time(61)
    assert said(ground)[-1] == ("PREPARED", 0)
