"""The checks of ends, of admission, of silence and of force bite: each reports what is spoilt."""

from collections import Counter
from dataclasses import replace

import pytest

from sokovan.agent.runtime import Ended
from sokovan.domain.cluster import Agent, AgentStatus, ScalingGroup
from sokovan.domain.reasons import EndReason
from sokovan.domain.sessions import (
    AgentId,
    Dependency,
    DependencyKind,
    Kernel,
    KernelId,
    SessionId,
)
from sokovan.domain.sessions import SessionWithKernels as Session
from sokovan.domain.statuses import KernelStatus, SessionResult, SessionStatus
from sokovan.domain.where import Where
from sokovan.scheduler.moves import HistoryLine
from sokovan.simulator import admission, contact, ends
from sokovan.simulator.contact import Contact
from sokovan.simulator.ends import Evidence
from sokovan.simulator.faults import Faults
from sokovan.simulator.observe import Picture
from sokovan.simulator.runtime import Script
from sokovan.simulator.trial import Trial
from tests.simulation.drill import A0, a_spec, a_world, session, to_the_end, until

S, K = SessionStatus, KernelStatus
SID, OTHER = SessionId("s"), SessionId("other")
FAILED = Session(
    SID,
    status=S.TERMINATED,
    result=SessionResult.FAILURE,
    reason=EndReason.KERNEL_FAILED,
    retries=2,
)
FOLLOWER = Session(SessionId("f"), retries=1, retry_of=SID)


def a_picture(*sessions: Session, **given: object) -> Picture:
    known = {s.session_id: s for s in sessions}
    return Picture(known, changed=tuple(known), **given)


# --- who may be placed ----------------------------------------------------------------------------


def test_a_session_that_is_placed_while_it_is_held_back_is_reported():
    for status in (S.PENDING, S.CANCELLED):
        waits = Session(SID, status=status, held=True)
        assert admission.what_is_held_back_waits(a_picture(waits)) == []

    (sentence,) = admission.what_is_held_back_waits(
        a_picture(Session(SID, status=S.SCHEDULED, held=True))
    )
    assert sentence == "session s: it is SCHEDULED while it is held back"


@pytest.mark.parametrize("at", [99.0, 100.0])
def test_a_session_that_is_placed_before_its_begin_time_is_reported(at):
    line = HistoryLine(SID, None, 1, "PENDING", "SCHEDULED", "", "", "", at)
    note = replace(line, from_status="SCHEDULED", at=0.0)  # the clock was set back since
    picture = a_picture(Session(SID, begin_at=100.0), history={SID: [line, note]})

    found = admission.nothing_is_placed_before_its_time(picture)

    assert found == (["session s: it was placed 1 s before its begin time"] if at < 100 else [])


def test_a_session_that_is_placed_where_it_may_not_go_is_reported():
    who = Session(
        SID,
        (Kernel(KernelId("s.0"), agent_id=AgentId("left")),),
        S.SCHEDULED,
        where=Where(exclude=("left",)),
    )

    found = admission.nobody_is_where_it_may_not_go(a_picture(who))
    elsewhere = replace(who, where=Where(exclude=("right",)))

    assert found == ["session s: it is SCHEDULED on left, and may not be there"]
    assert admission.nobody_is_where_it_may_not_go(a_picture(elsewhere)) == []


def test_a_session_that_is_placed_with_an_unmet_dependency_is_reported():
    who = Session(SID, status=S.SCHEDULED)
    asked = {SID: [Dependency(OTHER)]}

    def told(other: Session, kind: DependencyKind = DependencyKind.AFTER_OK) -> list[str]:
        asked[SID] = [Dependency(OTHER, kind)]
        return admission.dependencies_were_met(a_picture(who, other), asked)

    over = Session(OTHER, status=S.TERMINATED, result=SessionResult.SUCCESS)
    assert told(over) == []
    assert "afterok other, which is RUNNING" in told(Session(OTHER, status=S.RUNNING))[0]
    failed = replace(over, result=SessionResult.FAILURE)
    assert "which is TERMINATED with FAILURE" in told(failed)[0]
    assert told(failed, DependencyKind.AFTER_NOT_OK) == []
    assert told(failed, DependencyKind.AFTER_ANY) == []


def test_of_a_session_that_was_retried_the_last_retry_is_what_others_wait_for():
    who = Session(SessionId("who"), status=S.SCHEDULED)
    asked = {who.session_id: [Dependency(SID)]}
    done = replace(FOLLOWER, status=S.TERMINATED, result=SessionResult.SUCCESS)

    assert admission.dependencies_were_met(a_picture(who, FAILED, done), asked) == []
    assert len(admission.dependencies_were_met(a_picture(who, FAILED, FOLLOWER), asked)) == 1


def test_a_failure_that_is_not_retried_once_with_the_same_is_reported():
    def told(*sessions: Session) -> list[str]:
        return admission.failures_are_retried(a_picture(*sessions))

    assert told(FAILED, FOLLOWER) == []
    assert "and is retried 0 times" in told(FAILED)[0]
    twin = replace(FOLLOWER, session_id=SessionId("twin"))
    assert "and is retried 2 times" in told(FAILED, FOLLOWER, twin)[0]
    assert "its retry has 2 retries left" in told(FAILED, replace(FOLLOWER, retries=2))[0]
    assert "asks for something else" in told(FAILED, replace(FOLLOWER, grace_s=1.0))[0]
    assert "is retried 1 times" in told(replace(FAILED, reason="USER_REQUESTED"), FOLLOWER)[0]
    assert "is retried, but does not exist" in told(FOLLOWER)[0]


# --- ends -----------------------------------------------------------------------------------------


@pytest.fixture
async def over():
    """One session has ended by itself."""
    world = await a_world()
    session_id = await world.submit(a_spec(retries=0), Script(seconds=1))
    await to_the_end(world)
    return world, session(world, session_id)


def evidence_of(world, script=None, **given):
    return Evidence(world.runtimes, lambda *_: script or Script(), **given)


def test_a_kernel_that_is_over_otherwise_than_it_ended_is_reported(over):
    world, ended = over

    def told(**changes: object) -> list[str]:
        kernel = replace(ended.main, **changes)
        picture = replace(world.judge.picture, changed=(ended.session_id,))
        picture = replace(picture, sessions={ended.session_id: replace(ended, kernels=(kernel,))})
        return ends.kernels_end_as_they_did(Picture({}), picture, evidence_of(world))

    assert told() == []
    assert "is over with code 1, but ended" in told(exit_code=1)[0]
    assert "ended with code 0, which is not recorded" in told(exit_code=None, reason="OTHER")[0]
    assert "without a code and without a reason" in told(exit_code=None, token="t")[0]
    assert "has lost its exit status, but" in told(reason=EndReason.EXIT_STATUS_LOST)[0]
    assert "has run, and is over for STALE" in told(exit_code=0, reason=EndReason.STALE_KERNEL)[0]
    assert "but nobody gave up agent-0" in told(exit_code=0, reason=EndReason.AGENT_LOST)[0]


def test_an_end_that_nothing_explains_is_reported(over):
    world, ended = over

    def told(
        reason: str, result: str = "FAILURE", script=None, lasted_s=0.0, **changes
    ) -> list[str]:
        who = replace(ended, reason=reason, result=SessionResult(result), **changes)
        evidence = evidence_of(world, script, lasted_s=lambda _: lasted_s)
        return ends.every_end_is_explained(Picture({}), a_picture(who), evidence)

    assert told(EndReason.SELF_TERMINATED, "SUCCESS") == []
    assert "it ended SELF_TERMINATED with FAILURE" in told(EndReason.SELF_TERMINATED)[0]
    assert len(told(EndReason.SELF_TERMINATED, "SUCCESS", Script(exit_code=1))) == 1
    for reason in set(EndReason) - {EndReason.SELF_TERMINATED, EndReason.REQUEUE_LIMIT_EXCEEDED}:
        assert f"nothing explains its end, {reason}" in told(reason)[0]
    assert (
        told(EndReason.COMMAND_NOT_FOUND, script=Script(refusal=EndReason.COMMAND_NOT_FOUND)) == []
    )
    assert told(EndReason.IMAGE_UNAVAILABLE, script=Script(has_no_image=True)) == []
    assert told(EndReason.WALLTIME_EXCEEDED, walltime_s=60.0, lasted_s=60.0) == []
    assert len(told(EndReason.WALLTIME_EXCEEDED, walltime_s=60.0, lasted_s=59.0)) == 1
    assert told(EndReason.PENDING_TIMEOUT_EXCEEDED, pending_timeout_s=9.0, lasted_s=9.0) == []
    assert len(told(EndReason.PENDING_TIMEOUT_EXCEEDED, pending_timeout_s=9.0, lasted_s=8.0)) == 1


async def test_what_befell_a_machine_explains_an_end():
    world = await a_world()
    session_id = await world.submit(a_spec(), Script(seconds=1000))
    await until(world, session_id, S.RUNNING)
    world.network.crash(A0)
    world.runtimes[A0].reboot()
    world.network.restart(A0)
    await to_the_end(world)

    ended = session(world, session_id)
    assert ended.reason == EndReason.EXIT_STATUS_LOST
    world.runtimes[A0].ends[ended.main.token] = Ended(0)
    found = ends.kernels_end_as_they_did(Picture({}), a_picture(ended), evidence_of(world))
    assert any("has lost its exit status, but its machine says" in what for what in found)


# --- silence and force ----------------------------------------------------------------------------


def an_agent(status: AgentStatus) -> dict[AgentId, Agent]:
    return {A0: Agent(A0, scaling_group="default", status=status)}


@pytest.mark.parametrize(
    ("before", "after", "since", "early"),
    [("ALIVE", "LOST", 40, 39.9), ("LOST", "GONE", 300, 299.0)],
)
def test_an_agent_that_is_given_up_too_early_is_reported(before, after, since, early):
    groups = {"default": ScalingGroup()}
    old = Picture({}, agents=an_agent(AgentStatus(before)), groups=groups)
    new = Picture({}, agents=an_agent(AgentStatus(after)), groups=groups)

    def told(at: float, **known: object) -> list[str]:
        return contact.agents_are_lost_in_time(old, new, Contact(**known), at, 40.0)

    assert told(1000.0 + since, heard_of={A0: 1000.0}) == []
    (sentence,) = told(1000.0 + early, heard_of={A0: 1000.0})
    assert sentence.startswith(f"agent agent-0 is {after} after")
    assert len(told(1000.0 + early, managed_since=1000.0)) == 1
    assert contact.agents_are_lost_in_time(new, new, Contact(), 0.0, 40.0) == []


def test_an_agent_counts_as_lost_from_the_last_look_on_at_which_it_did_not():
    """What a commit in doubt has written is seen later than it was written."""
    alive, lost = (Picture({}, agents=an_agent(AgentStatus(s))) for s in ("ALIVE", "LOST"))
    known = Contact(looked_at=990.0)

    assert contact.agents_are_lost_in_time(alive, lost, known, 1000.0, 40.0) == []
    assert known.lost_at == {A0: 990.0}


@pytest.mark.parametrize("requeue", [True, False])
async def test_what_will_be_requeued_and_runs_on_while_its_agent_is_cut_off_is_reported(requeue):
    world = await a_world()
    session_id = await world.submit(a_spec(requeue=requeue), Script(seconds=10**6))
    await until(world, session_id, S.RUNNING)
    known, now = world.judge.contact, world.clock.now()
    late = known.heard[A0] + known.cut_off_stop_s[A0] + contact.CUT_OFF_SLACK_S + 1

    assert contact.what_is_cut_off_is_stopped(world.runtimes, known, now) == []
    found = contact.what_is_cut_off_is_stopped(world.runtimes, known, late)
    assert len(found) == requeue
    world.network.crash(A0)
    assert contact.what_is_cut_off_is_stopped(world.runtimes, known, late) == []


def test_a_kill_that_is_forgotten_or_takes_long_is_reported():
    known = Contact(forced={SID: None}, killed={"t": 100.0})
    stopping = Session(SID, status=S.TERMINATING)
    running = [(A0, "t", KernelId("s.0"))]

    assert len(contact.forced_ends_are_remembered(a_picture(stopping), known)) == 1
    for fine in (replace(stopping, force=True), replace(stopping, status=S.CANCELLED)):
        assert contact.forced_ends_are_remembered(a_picture(fine), known) == []
    assert contact.what_is_killed_is_gone(running, known, 104.0) == []
    assert contact.what_is_killed_is_gone([(A0, "u", KernelId("s.0"))], known, 999.0) == []
    assert (
        "still runs on agent-0, 6.0 s after"
        in contact.what_is_killed_is_gone(running, known, 106.0)[0]
    )


# --- what goes wrong ------------------------------------------------------------------------------


def test_what_is_to_be_expected_at_all_happens_at_least_once():
    kinds = ("reboots", "store_outages", "machines_returned", "agent_cuts")
    faults = Faults(**{f"{kind}_per_hour": 0.9 for kind in kinds})
    counts: Counter[str] = Counter()

    for seed in range(3):
        outcome = Trial(seed, hours=2.0, agents=3, sessions=10, faults=faults).run()
        assert not outcome.violation, outcome.violation
        assert all(outcome.faults[kind] for kind in kinds)
        counts += outcome.faults

    assert counts["store_outages"] >= 3
