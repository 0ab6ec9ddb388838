"""Bugs that simulated runs have found, each by itself, named by what a user would have met."""

import pytest

from sokovan.domain.cluster import AgentStatus, ScalingGroup
from sokovan.domain.reasons import EndReason
from sokovan.domain.sessions import AgentId, Limit, SessionId
from sokovan.domain.statuses import SessionResult, SessionStatus
from sokovan.scheduler.messages import KernelReport, ReportState
from sokovan.scheduler.ports import SessionQuerier
from sokovan.simulator.runtime import Script
from sokovan.simulator.world import World
from tests.simulation.drill import (
    A0,
    A1,
    EVERY_STATUS,
    a_spec,
    a_world,
    failing,
    path,
    session,
    to_the_end,
    until,
    until_sent_back,
)

S = SessionStatus


async def say(world: World, session_id: SessionId, *reports: KernelReport) -> None:
    """Bring reports as if the agent of a session had made them."""
    assert world.manager is not None
    agent_id = session(world, session_id).main.agent_id
    incarnation = world.incarnation_of(agent_id)
    await world.manager.events.reported(agent_id, incarnation, reports)


async def test_a_requeued_session_does_not_fail_because_its_cut_off_agent_stopped_it():
    """Storm, seed 0: the agent was back within its grace, and its 143 counted as a failure."""
    world = await a_world()
    session_id = await world.submit(a_spec(requeue=True), Script(seconds=1000))
    await until(world, session_id, S.RUNNING)

    world.network.cut_off(A0)
    await world.run_for(300)
    assert not world.judge.running(), "it stopped the kernel by itself"
    assert world.judge.picture.agents[A0].status is AgentStatus.LOST
    world.network.mend(A0)
    await to_the_end(world)

    assert path(world, session_id) == [*EVERY_STATUS[:6], *EVERY_STATUS]
    assert session(world, session_id).result is SessionResult.SUCCESS


async def test_a_requeued_session_does_not_fail_because_its_agent_died_while_it_stopped_it():
    """Storm, seed 16: the restarted agent did not know whose stop it was, and 137 was a failure."""
    world = await a_world()
    script = Script(seconds=1000, ignores_term=True)
    session_id = await world.submit(a_spec(requeue=True), script)
    await until(world, session_id, S.RUNNING)

    world.network.cut_off(A0)
    await world.run_for(275)
    assert world.judge.running(), "it ignores SIGTERM, and has not been killed yet"
    world.network.crash(A0)
    await world.run_for(4)
    world.network.restart(A0)
    await world.run_for(15)
    assert not world.judge.running(), "the restarted agent went on"
    world.network.mend(A0)
    await to_the_end(world)

    assert session(world, session_id).requeues == 1
    assert session(world, session_id).result is SessionResult.SUCCESS


async def test_a_requeued_session_never_runs_twice_because_its_cut_off_agent_was_restarted():
    """The restarted agent began to wait anew, and was given up before it had waited long enough."""
    world = await a_world(agents=2)
    session_id = await world.submit(a_spec(requeue=True), Script(seconds=1000))
    await until(world, session_id, S.RUNNING)
    agent_id = session(world, session_id).main.agent_id
    assert agent_id is not None

    world.network.cut_off(agent_id)
    await world.run_for(200)
    world.network.crash(agent_id)
    await world.run_for(2)
    world.network.restart(agent_id)
    ran_twice = await world.run_until(lambda: len(world.judge.running()) > 1, seconds_max=700)
    assert not ran_twice
    assert session(world, session_id).requeues == 1
    world.network.mend(agent_id)
    await to_the_end(world)

    assert session(world, session_id).result is SessionResult.SUCCESS


async def test_a_requeued_session_at_its_limit_ends_when_its_cut_off_agent_stopped_it():
    world = await a_world(group=ScalingGroup(requeues_max=0))
    session_id = await world.submit(a_spec(requeue=True), Script(seconds=1000))
    await until(world, session_id, S.RUNNING)

    world.network.cut_off(A0)
    await world.run_for(300)
    world.network.mend(A0)
    await to_the_end(world)

    ended = session(world, session_id)
    assert ended.reason == EndReason.REQUEUE_LIMIT_EXCEEDED
    assert (ended.main.exit_code, ended.main.reason) == (143, EndReason.AGENT_LOST)


async def test_an_agent_lost_before_the_manager_was_down_has_its_whole_grace_again():
    """Rough, seed 0: sessions were given up a second after the manager came back."""
    world = await a_world()
    session_id = await world.submit(a_spec(), Script(seconds=2000))
    await until(world, session_id, S.RUNNING)
    world.network.cut_off(A0)
    await world.run_for(100)
    await world.crash_manager()
    await world.run_for(400)

    await world.start_manager()
    await world.run_for(200)
    world.network.mend(A0)
    await to_the_end(world)

    assert path(world, session_id) == EVERY_STATUS
    assert session(world, session_id).result is SessionResult.SUCCESS


async def test_kernels_that_ran_while_the_manager_was_down_have_run():
    """The second kernel never had RUNNING, so that its output could not be read."""
    world = await a_world()

    async def die(agent_id: AgentId, op: str) -> None:
        if op == "start" and not world.counts["manager_crashes"]:
            await world.kill_manager()

    world.network.after_call = die
    session_id = await world.submit(a_spec(kernel_count=2), Script(seconds=0.3))
    await to_the_end(world)

    assert world.counts["manager_crashes"] == 1
    assert path(world, session_id) == EVERY_STATUS
    for kernel in (0, 1):
        assert path(world, session_id, kernel) == EVERY_STATUS
        assert session(world, session_id).kernels[kernel].started_at is not None


async def test_a_kernel_whose_stop_came_before_its_start_was_known_has_run():
    """Its output could not be read: it counted as never started."""
    world = await a_world()
    session_id = SessionId("")

    async def cancel(agent_id: AgentId, op: str) -> None:
        if op == "start":
            await world.cancel(session_id)
            await failing("start")(agent_id, op)

    world.network.after_call = cancel
    session_id = await world.submit(a_spec(), Script(seconds=100))
    await to_the_end(world)

    kernel = session(world, session_id).main
    assert kernel.exit_code == 143
    assert kernel.started_at is not None


@pytest.mark.parametrize("attempts_max", [2, 3])
async def test_failures_by_answer_and_by_report_together_reach_the_limit(attempts_max):
    """Storm, seed 19: a call that failed and a start that failed, at once, made one too many."""
    limits = {"start-sessions": Limit(attempts_max=attempts_max)}
    world = await a_world(agents=2, group=ScalingGroup(limits=limits))
    world.network.before_call = failing("start", A1)
    await world.submit(a_spec(name="in the way", request=a_spec().request), Script(seconds=900))

    script = Script(seconds=100, start_failures=1)
    session_id = await world.submit(a_spec(name="two", kernel_count=5), script)
    await until_sent_back(world, session_id, seconds_max=120)

    failed = [
        line.reason
        for line in world.judge.picture.history[session_id]
        if line.kernel_id is None and line.reason in ("agent-failed", "start-failed")
    ]
    assert len(failed) >= attempts_max
    world.network.before_call = failing("nothing")
    await to_the_end(world)


async def test_a_failed_start_that_is_heard_of_after_the_next_one_succeeded_changes_nothing():
    """Storm, seed 7: healthy sessions were sent back for what was long mended."""
    limits = {"start-sessions": Limit(attempts_max=2)}
    world = await a_world(group=ScalingGroup(limits=limits))
    session_id = await world.submit(a_spec(), Script(seconds=500))
    await until(world, session_id, S.RUNNING)
    token = session(world, session_id).main.token

    await say(world, session_id, KernelReport(token, ReportState.RUNNING, failures=3))
    for failures in (1, 2, 3):
        late = KernelReport(token, ReportState.START_FAILED, message="late", failures=failures)
        await say(world, session_id, late)

    assert session(world, session_id).status is S.RUNNING
    await to_the_end(world)
    assert path(world, session_id) == EVERY_STATUS


async def test_a_kernel_that_its_agent_forgot_is_no_kernel_that_was_stopped():
    """Storm, seed 8: STOPPED_BEFORE_START, although nobody had stopped anything."""
    world = await a_world()
    script = Script(seconds=500, start_failures=3)
    session_id = await world.submit(a_spec(kernel_count=2), Script(seconds=500), script)
    await until(world, session_id, S.CREATING)
    world.network.crash(A0)
    await world.run_for(320)

    world.network.restart(A0)
    world.network.after_call = failing("stop", times=1)
    await to_the_end(world)

    assert session(world, session_id).requeues == 1, "what never ran is started again"
    assert session(world, session_id).result is SessionResult.SUCCESS


async def test_a_start_that_arrives_after_its_kernel_was_found_unknown_never_runs():
    world = await a_world()
    session_id = SessionId("")

    async def call(agent_id: AgentId, op: str) -> None:
        if op == "start" and not world.counts["starts"]:
            world.counts["starts"] += 1
            querier = SessionQuerier([session_id])
            orders = await world.manager.repository.search_sessions_with_kernels_and_user(querier)

            async def arrive() -> None:
                await world.network.places[agent_id].agent.start(orders.sessions[0].kernels)

            world.later(30.0, "the start arrives", arrive)
            world.network.crash(agent_id)  # what was only prepared is forgotten
            world.network.restart(agent_id)
            await world.cancel(session_id)
        await failing("start")(agent_id, op)
        await no_stop(agent_id, op)

    no_stop = failing("stop", times=1)
    world.network.before_call = call
    session_id = await world.submit(a_spec(), Script(seconds=500))
    await world.run_for(60)

    assert not world.judge.running()
    await to_the_end(world)
