"""The invariants of what is tried, ordered, heard and remembered are seen to bite, one by one."""

from dataclasses import replace

import pytest

from sokovan.domain.cluster import ScalingGroup
from sokovan.domain.reasons import WaitReason
from sokovan.domain.sessions import AgentId, Attempts, Kernel, KernelId, KernelRole, SessionId
from sokovan.domain.sessions import SessionWithKernels as Session
from sokovan.domain.statuses import KernelStatus, SessionStatus
from sokovan.scheduler.messages import KernelReport, ReportState
from sokovan.scheduler.moves import HistoryLine
from sokovan.simulator import tries, witness
from sokovan.simulator.observe import Picture
from sokovan.simulator.runtime import Script
from tests.simulation.drill import A0, a_spec, a_world, session, to_the_end, until

S, K = SessionStatus, KernelStatus
SID = SessionId("s")
ENDED_WELL = Kernel(KernelId("s.1"), KernelRole.SUB, 1, K.TERMINATED, exit_code=0)
ENDED_BADLY = replace(ENDED_WELL, exit_code=None)
MAIN = Kernel(KernelId("s.0"), status=K.RUNNING, token="t0", agent_id=A0)


def a_line(before: str, after: str, stage: str = "", *, kernel: Kernel | None = None, reason=""):
    kernel_id = None if kernel is None else kernel.kernel_id
    return HistoryLine(SID, kernel_id, 0, before, after, reason, "", stage, 0.0)


def a_picture(who: Session, *lines: HistoryLine) -> Picture:
    return Picture({SID: who}, history={SID: lines}, changed=(SID,))


# --- what is tried --------------------------------------------------------------------------------

FAILED = a_line("PREPARED", "PREPARED", "start-sessions", reason="agent-failed")
ASKED = a_line("PREPARED", "CREATING", "start-sessions")
SENT_BACK = a_line("CREATING", "PENDING", "start-sessions")


def an_attempted(status: SessionStatus, count: int) -> Session:
    attempts = {"start-sessions": Attempts(count)} if count else {}
    return Session(SID, status=status, attempts=attempts)


def test_a_failure_that_is_not_counted_is_reported():
    forgotten = a_picture(an_attempted(S.PREPARED, 1), FAILED, FAILED)

    (sentence,) = tries.violations(forgotten)

    assert sentence == "session s: start-sessions failed 2 times in this phase and counts 1"


def test_what_a_stage_takes_and_awaits_is_one_phase_of_it():
    asked = [FAILED, ASKED]

    assert tries.violations(a_picture(an_attempted(S.CREATING, 1), *asked)) == []
    (sentence,) = tries.violations(a_picture(an_attempted(S.CREATING, 0), *asked))
    assert "failed 1 times in this phase and counts 0" in sentence


def test_failures_of_another_phase_and_waits_are_not_counted():
    waits = a_line("PENDING", "PENDING", "schedule-sessions", reason=WaitReason.NEVER_FITS)
    forced = a_line("PENDING", "PENDING", "user-request", reason="USER_REQUESTED")

    picture = a_picture(an_attempted(S.PENDING, 0), FAILED, ASKED, SENT_BACK, waits, forced)

    assert tries.violations(picture) == []


PREPARED = a_line("PREPARING", "PREPARED", "promote-to-prepared")
RUNNING = a_line("CREATING", "RUNNING", "promote-to-running")


@pytest.mark.parametrize("promoted", [PREPARED, RUNNING])
def test_a_promotion_after_the_end_is_reported(promoted):
    over = a_line("CREATING", "TERMINATED", kernel=ENDED_BADLY)
    who = Session(SID, kernels=(MAIN, ENDED_BADLY))

    (sentence,) = tries.violations(a_picture(who, over, promoted))

    assert sentence == "session s: it was promoted when it had ended: ABNORMAL_TERMINATION"
    assert tries.violations(a_picture(who, promoted, over)) == []


def test_a_promotion_after_the_end_of_a_sub_kernel_with_0_or_in_an_earlier_attempt_is_none():
    over = a_line("CREATING", "TERMINATED", kernel=ENDED_WELL)
    back = a_line("TERMINATED", "PENDING", kernel=ENDED_WELL)
    well, badly = (Session(SID, kernels=(MAIN, sub)) for sub in (ENDED_WELL, ENDED_BADLY))

    assert tries.violations(a_picture(well, over, RUNNING)) == []
    assert tries.violations(a_picture(badly, over, back, SENT_BACK, RUNNING, over)) == []


def test_a_session_that_its_stage_has_forgotten_is_reported():
    who = Session(SID, status=S.PREPARED, status_since=100.0)
    backs_off = replace(who, attempts={"start-sessions": Attempts(1, 110.0, 170.0)})

    (sentence,) = tries.nothing_is_left_alone(a_picture(who), 240.0, 130.0)

    assert sentence == "session s: start-sessions has left it PREPARED for 140 s"
    assert tries.nothing_is_left_alone(a_picture(who), 240.0, 130.0, taken_over_at=120.0) == []
    assert tries.nothing_is_left_alone(a_picture(backs_off), 240.0, 130.0) == []
    for status in (S.PENDING, S.CREATING, S.RUNNING, S.TERMINATED):
        others = a_picture(replace(who, status=status))
        assert tries.nothing_is_left_alone(others, 9999.0, 0.0) == []


# --- what is ordered, heard and remembered --------------------------------------------------------


def test_a_start_that_nobody_asked_for_is_reported():
    creating = replace(MAIN, status=K.CREATING)
    waits = a_picture(Session(SID, kernels=(creating, ENDED_WELL), status=S.CREATING))

    assert witness.what_is_creating_was_ordered(waits, {"t0"}) == []
    (sentence,) = witness.what_is_creating_was_ordered(waits, {"t1"})
    assert sentence == "session s: kernel 0 is CREATING, but its agent was never asked to start t0"


def test_a_cursor_that_is_remembered_otherwise_than_stored_is_reported():
    groups = {"default": ScalingGroup(last_agent_id=A0)}

    assert witness.the_cursors_are_true(groups, {"default": A0}) == []
    (sentence,) = witness.the_cursors_are_true(groups, {"default": AgentId("agent-1")})
    assert sentence == (
        "group default: its last kernel is remembered on agent-0, but went to agent-1"
    )


async def test_a_judge_sees_a_cursor_that_has_gone_astray():
    world = await a_world()
    await world.submit(a_spec(), Script(seconds=1))
    await world.run_for(1)
    groups = world.manager.repository.groups

    world.judge.look_at_cursors(groups)
    assert world.judge.violations == []
    await to_the_end(world)
    world.judge.look_at_cursors({name: ScalingGroup(name) for name in groups})
    assert "is remembered on None, but went to agent-0" in world.judge.violations[0]


class Recorder:
    """A manager that does whatever it is told, be it of an incarnation that is over."""

    def __init__(self, world):
        self._world = world

    async def reported(self, agent_id, incarnation, reports):
        await self._world.manager.events.reported(agent_id, 2, reports)


async def test_a_letter_of_an_incarnation_that_is_over_may_change_nothing():
    world = await a_world()
    session_id = await world.submit(a_spec(), Script(seconds=1000))
    await until(world, session_id, S.RUNNING)
    world.network.cut_off(A0)
    world.network.mend(A0)
    await world.run_for(1)
    assert world.judge.picture.agents[A0].incarnation == 2
    token = session(world, session_id).main.token
    said = (KernelReport(token, ReportState.RUNNING, message="it hangs", pids=(1,)),)

    ear = world.judge.listening(world.manager.events, world.clock.now)
    await ear.reported(A0, 1, said)
    assert session(world, session_id).main.error is None
    assert world.judge.violations == []

    ear = world.judge.listening(Recorder(world), world.clock.now)
    await ear.reported(A0, 1, said)
    assert session(world, session_id).main.error is not None
    (sentence,) = world.judge.violations
    assert f"{session_id}: changed by what agent-0 said in its incarnation 1" in sentence
