"""The ways out of the state machine that a mock cannot show: real parts on a manual clock."""

import pytest

from sokovan.domain.cluster import AgentStatus, ScalingGroup
from sokovan.domain.reasons import EndReason, WaitReason
from sokovan.domain.resources import Request
from sokovan.domain.sessions import AgentId, Dependency
from sokovan.domain.statuses import SessionResult, SessionStatus
from sokovan.scheduler.ports import SessionQuerier
from sokovan.simulator.runtime import Script
from tests.simulation.drill import (
    A0,
    A1,
    EVERY_STATUS,
    a_spec,
    a_world,
    failing,
    notes,
    path,
    session,
    to_the_end,
    until,
    until_sent_back,
    waits,
)

S = SessionStatus


async def test_a_session_without_accidents_has_every_status_in_its_history():
    world = await a_world()

    session_id = await world.submit(a_spec(), Script(seconds=5))
    await to_the_end(world)

    assert path(world, session_id) == EVERY_STATUS
    assert session(world, session_id).reason == EndReason.SELF_TERMINATED
    assert session(world, session_id).result is SessionResult.SUCCESS


async def test_a_start_that_fails_five_times_goes_back_to_the_queue_and_to_another_agent():
    world = await a_world(agents=2)
    world.network.before_call = failing("start", A0)

    session_id = await world.submit(a_spec(), Script(seconds=5))
    await to_the_end(world)

    there_and_back = EVERY_STATUS[:4]
    assert path(world, session_id) == there_and_back + EVERY_STATUS
    assert notes(world, session_id) == ["agent-failed"] * 4
    assert session(world, session_id).agent_ids == (A1,)
    assert session(world, session_id).avoid == (A0,)
    assert session(world, session_id).requeues == 1


async def test_a_pull_that_fails_five_times_goes_back_to_the_queue_and_to_another_agent():
    world = await a_world(agents=2)
    world.network.before_call = failing("prepare", A0)

    session_id = await world.submit(a_spec(), Script(seconds=5))
    await to_the_end(world)

    assert path(world, session_id) == ["PENDING", "SCHEDULED", *EVERY_STATUS]
    assert session(world, session_id).agent_ids == (A1,)


async def test_an_image_that_does_not_exist_ends_its_session_at_once_with_its_own_reason():
    world = await a_world()

    session_id = await world.submit(a_spec(requeue=True), Script(has_no_image=True))
    await to_the_end(world, seconds_max=5)

    ended = session(world, session_id)
    assert (ended.result, ended.reason) == (SessionResult.FAILURE, EndReason.IMAGE_UNAVAILABLE)


async def test_a_kernel_that_its_agent_cannot_start_goes_to_another_agent():
    world = await a_world(agents=2)

    session_id = await world.submit(a_spec(), Script(start_failures=100))
    await until_sent_back(world, session_id, seconds_max=60)

    assert session(world, session_id).avoid == (A0,)
    await world.cancel(session_id)
    await to_the_end(world)


async def test_a_pending_timeout_ends_a_session_in_one_transaction_with_both_history_lines():
    world = await a_world()
    seen = set()
    await world.submit(a_spec(name="big", request=Request(4000)), Script(seconds=500))
    await world.run_for(1)

    session_id = await world.submit(a_spec(pending_timeout_s=100.0))
    world.judge.on_picture = lambda picture: seen.add(picture.sessions[session_id].status)
    await to_the_end(world)

    assert path(world, session_id) == ["PENDING", "TERMINATING", "TERMINATED"]
    assert path(world, session_id, 0) == ["PENDING", "TERMINATING", "TERMINATED"]
    assert seen == {S.PENDING, S.TERMINATED}, "nobody ever sees it TERMINATING"
    ended = session(world, session_id)
    assert ended.reason == EndReason.PENDING_TIMEOUT_EXCEEDED
    assert ended.ended_at == ended.created_at + 100


async def test_a_kernel_that_ignores_sigterm_is_killed_after_its_grace():
    world = await a_world()
    session_id = await world.submit(a_spec(grace_s=25.0), Script(seconds=900, ignores_term=True))
    await until(world, session_id, S.RUNNING)

    await world.cancel(session_id)
    asked_at = world.clock.now()
    await to_the_end(world)

    ended = session(world, session_id)
    assert ended.ended_at == asked_at + 25
    assert ended.main.exit_code == 137
    assert (ended.result, ended.reason) == (SessionResult.FAILURE, EndReason.USER_REQUESTED)


async def test_force_does_not_wait_for_the_grace_nor_for_the_next_cycle():
    world = await a_world()
    session_id = await world.submit(a_spec(grace_s=600.0), Script(seconds=900, ignores_term=True))
    await until(world, session_id, S.RUNNING)
    await world.cancel(session_id)
    await world.run_for(20)

    await world.cancel(session_id, force=True)
    asked_at = world.clock.now()
    await to_the_end(world)

    assert session(world, session_id).ended_at - asked_at < 1


async def test_an_agent_that_dies_in_the_middle_of_starting_starts_the_rest_when_it_is_back():
    world = await a_world()
    world.network.before_call = _dying_after_one_start(world)

    session_id = await world.submit(a_spec(kernel_count=3), Script(seconds=100))
    await to_the_end(world)

    assert path(world, session_id) == EVERY_STATUS
    assert session(world, session_id).result is SessionResult.SUCCESS
    assert sorted(world.judge.starts().values()) == [1, 1, 1]
    assert world.counts["died"] == 1


def _dying_after_one_start(world):
    async def die(agent_id: AgentId, op: str) -> None:
        if op == "start" and not world.counts["died"]:
            world.counts["died"] += 1
            first = world.judge.picture.sessions[next(iter(world.judge.accepted))].kernels[0]
            agent = world.network.places[agent_id].agent
            orders = await world.manager.repository.search_sessions_with_kernels_and_user(
                SessionQuerier(list(world.judge.accepted))
            )
            await agent.start([k for k in orders.sessions[0].kernels if k.token == first.token])
            world.network.crash(agent_id)
            world.later(7.0, "it is back", lambda: world.network.revive(agent_id))

    return die


async def test_what_an_agent_started_before_it_was_lost_never_runs_beside_its_successor():
    world = await a_world(agents=2)
    world.network.after_call = _cutting_off_after_start(world)

    session_id = await world.submit(a_spec(), Script(seconds=2000))
    await until_sent_back(world, session_id, seconds_max=120)
    first = world.judge.running()
    assert [agent_id for agent_id, _, _ in first] == [A0], "it did start"
    await world.run_for(100)
    assert waits(world, session_id) == WaitReason.WAITING_FOR_OLD_KERNELS

    world.network.mend(A0)
    await until(world, session_id, S.RUNNING, seconds_max=60)

    assert [agent_id for agent_id, _, _ in world.judge.running()] == [A1]
    await to_the_end(world)


def _cutting_off_after_start(world):
    async def cut(agent_id: AgentId, op: str) -> None:
        if op == "start" and agent_id == A0 and not world.counts["cut"]:
            world.counts["cut"] += 1
            world.network.cut_off(agent_id)
            await failing("start")(agent_id, op)

    return cut


@pytest.mark.parametrize("lost", ["nothing", "the answer to the start"])
async def test_a_command_that_ends_before_its_start_is_recorded_has_every_status(lost):
    world = await a_world()
    if lost != "nothing":
        world.network.after_call = failing("start", times=1)

    session_id = await world.submit(a_spec(), Script(seconds=0.0, exit_code=3))
    await to_the_end(world)

    assert path(world, session_id) == EVERY_STATUS
    assert path(world, session_id, 0) == EVERY_STATUS
    ended = session(world, session_id)
    assert (ended.main.exit_code, ended.reason) == (3, EndReason.KERNEL_FAILED)
    assert list(world.judge.starts().values()) == [1]


async def test_what_never_fits_makes_way_for_others_five_cycles_later():
    world = await a_world()

    session_id = await world.submit(a_spec(priority=15, request=Request(9000)))
    await world.run_until(lambda: session(world, session_id).status_seq == 2, seconds_max=600)

    assert path(world, session_id) == ["PENDING", "DEPRIORITIZING", "PENDING"]
    assert notes(world, session_id)[:4] == ["NEVER_FITS"] * 4
    assert session(world, session_id).priority == 5
    assert session(world, session_id).status_since - session(world, session_id).created_at == 240

    await world.run_until(lambda: session(world, session_id).status_seq == 4, seconds_max=600)
    assert session(world, session_id).priority == 0
    await world.run_for(3600)
    assert session(world, session_id).status_seq == 4, "nothing counts against priority 0"


async def test_a_walltime_ends_a_session_when_it_has_run_for_so_long():
    world = await a_world()

    session_id = await world.submit(a_spec(walltime_s=75.5), Script(seconds=900))
    await to_the_end(world)

    ended = session(world, session_id)
    assert path(world, session_id) == EVERY_STATUS
    assert ended.ended_at - ended.started_at == 75.5
    assert (ended.reason, ended.result) == (EndReason.WALLTIME_EXCEEDED, SessionResult.FAILURE)
    assert ended.main.exit_code == 143


async def test_a_session_with_requeue_goes_back_when_its_agent_is_lost_and_ends_at_the_limit():
    world = await a_world(agents=3, group=ScalingGroup(requeues_max=1))
    session_id = await world.submit(a_spec(requeue=True), Script(seconds=3000))

    for _ in range(2):
        await until(world, session_id, S.RUNNING)
        world.network.cut_off(session(world, session_id).main.agent_id)
        await world.run_for(345)

    ended = session(world, session_id)
    assert path(world, session_id) == [*EVERY_STATUS[:6], *EVERY_STATUS]
    assert ended.reason == EndReason.REQUEUE_LIMIT_EXCEEDED
    assert ended.requeues == 1
    for agent_id in (A0, A1):
        world.network.mend(agent_id)
    await to_the_end(world)


async def test_a_session_without_requeue_ends_when_its_agent_is_given_up():
    world = await a_world(agents=2)
    session_id = await world.submit(a_spec(), Script(seconds=3000))
    await until(world, session_id, S.RUNNING)

    world.network.cut_off(A0)
    await until(world, session_id, S.TERMINATED, seconds_max=345)

    assert session(world, session_id).reason == EndReason.AGENT_LOST
    assert world.judge.picture.agents[A0].status is AgentStatus.GONE
    assert [hold.is_leftover for hold in world.judge.picture.holds.values()] == [True]
    world.network.mend(A0)
    await to_the_end(world)


async def test_a_session_outlives_an_agent_that_comes_back_within_its_grace():
    world = await a_world()
    session_id = await world.submit(a_spec(), Script(seconds=600))
    await until(world, session_id, S.RUNNING)

    world.network.cut_off(A0)
    await world.run_for(200)
    assert world.judge.picture.agents[A0].status is AgentStatus.LOST
    world.network.mend(A0)
    await to_the_end(world)

    assert path(world, session_id) == EVERY_STATUS
    assert session(world, session_id).result is SessionResult.SUCCESS


async def test_a_late_leftover_holds_its_session_back():
    world = await a_world(agents=2)
    world.network.before_call = failing("start", A1, times=5)
    await world.submit(a_spec(name="in the way", request=Request(2500)), Script(seconds=8))
    await world.run_for(1)

    spec = a_spec(kernel_count=2, request=Request(1500))
    session_id = await world.submit(spec, Script(seconds=50, ignores_term=True))
    await until_sent_back(world, session_id)
    assert len(world.judge.running()) == 1, "the kernel on the other agent did start"
    await world.run_for(5)

    assert session(world, session_id).status is S.PENDING
    assert waits(world, session_id) == WaitReason.WAITING_FOR_OLD_KERNELS
    await to_the_end(world)
    assert path(world, session_id) == EVERY_STATUS[:4] + EVERY_STATUS


async def test_a_session_is_cancelled_with_the_one_it_depends_on():
    world = await a_world()
    first = await world.submit(a_spec(), Script(seconds=10, exit_code=1))
    second = await world.submit(a_spec(name="b", depends_on=(Dependency(first),)))
    third = await world.submit(a_spec(name="c", depends_on=(Dependency(second),)))

    await to_the_end(world)

    assert path(world, second) == path(world, third) == ["PENDING", "CANCELLED"]
    assert session(world, third).reason == EndReason.DEPENDENCY_FAILED


async def test_a_manager_that_dies_between_any_two_steps_loses_and_repeats_nothing():
    world = await a_world()
    world.network.after_call = _dying_at_every_other_call(world)

    session_id = await world.submit(a_spec(kernel_count=2), Script(seconds=100))
    await to_the_end(world)

    assert path(world, session_id) == EVERY_STATUS
    assert sorted(world.judge.starts().values()) == [1, 1]
    assert world.counts["manager_crashes"] > 1


def _dying_at_every_other_call(world):
    async def die(agent_id: AgentId, op: str) -> None:
        world.counts["calls"] += 1
        if world.counts["calls"] % 2:
            await world.kill_manager()

    return die
