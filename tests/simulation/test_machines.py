"""What becomes of sessions when clocks are set and machines come, go and change."""

from dataclasses import replace

import pytest

from sokovan.domain.cluster import AgentStatus
from sokovan.domain.reasons import EndReason
from sokovan.domain.resources import Request
from sokovan.domain.sessions import AgentId
from sokovan.domain.statuses import SessionResult, SessionStatus
from sokovan.simulator.runtime import Script
from sokovan.simulator.workload import ROOT
from sokovan.simulator.world import World
from tests.simulation.drill import (
    A0,
    EVERY_STATUS,
    a_spec,
    a_world,
    path,
    session,
    to_the_end,
    until,
    waits,
)

S = SessionStatus
HOUR_S = 3600.0
HALF = Request(cpu_milli=2000)


async def restart(world: World, *, clock_step_s: float, reboots: bool = False) -> None:
    """Restart the manager on a machine whose clock was set meanwhile."""
    await world.crash_manager()
    world.set_clock(clock_step_s, reboots=reboots)
    await world.run_for(5.0)
    await world.start_manager()


@pytest.mark.parametrize("step_s", [-HOUR_S, HOUR_S])
async def test_a_walltime_is_what_it_was_when_the_clock_was_set(step_s):
    world = await a_world()
    session_id = await world.submit(a_spec(walltime_s=100.0), Script(seconds=9000))
    await until(world, session_id, S.RUNNING)
    began = world.clock.now()

    await restart(world, clock_step_s=step_s)
    await until(world, session_id, S.TERMINATED, seconds_max=130.0)

    assert session(world, session_id).reason == EndReason.WALLTIME_EXCEEDED
    assert 100.0 <= world.clock.now() - began < 105.0


async def test_a_walltime_begins_anew_when_the_machine_restarted_with_its_clock_set_back():
    """Nobody can tell how far; an hour more would be the alternative."""
    world = await a_world()
    session_id = await world.submit(a_spec(walltime_s=100.0), Script(seconds=9000))
    await until(world, session_id, S.RUNNING)

    await restart(world, clock_step_s=-HOUR_S, reboots=True)
    await until(world, session_id, S.TERMINATED, seconds_max=130.0)

    assert session(world, session_id).reason == EndReason.WALLTIME_EXCEEDED


@pytest.mark.parametrize("reboots", [False, True])
async def test_a_failed_stage_is_tried_again_soon_when_the_clock_was_set_back(reboots):
    world = await a_world()
    session_id = await world.submit(a_spec(), Script(seconds=5, pull_failures=3))
    await world.run_for(2.0)
    assert path(world, session_id)[-1] == S.PREPARING

    await restart(world, clock_step_s=-HOUR_S, reboots=reboots)
    await until(world, session_id, S.TERMINATED, seconds_max=1200.0)

    assert session(world, session_id).result is SessionResult.SUCCESS


async def test_a_session_that_may_not_begin_yet_still_waits_when_the_clock_was_set_back():
    world = await a_world()
    begin_at = world.clock.now() + 600.0
    session_id = await world.submit(a_spec(begin_at=begin_at), Script(seconds=5))

    await restart(world, clock_step_s=-300.0)

    assert session(world, session_id).pending_since == begin_at
    await to_the_end(world)


async def test_an_agent_whose_clock_was_set_finds_its_kernels_again():
    world = await a_world()
    session_id = await world.submit(a_spec(), Script(seconds=500))
    await until(world, session_id, S.RUNNING)

    for step_s in (-HOUR_S, 2 * HOUR_S):
        world.runtimes[A0].step_clock(step_s)
        world.network.crash(A0)
        await world.run_for(5.0)
        world.network.restart(A0)
    await to_the_end(world)

    assert path(world, session_id) == EVERY_STATUS
    assert session(world, session_id).result is SessionResult.SUCCESS


async def test_an_agent_that_comes_back_smaller_keeps_what_runs_and_gets_nothing_more():
    world = await a_world()
    old = [await world.submit(a_spec(request=HALF), Script(seconds=600)) for _ in range(2)]
    for session_id in old:
        await until(world, session_id, S.RUNNING)
    place = world.network.places[A0]

    world.network.crash(A0)
    smaller = replace(place.hello.capacity, cpu_milli=2000)
    world.runtimes[A0].machine = smaller
    place.hello = replace(place.hello, capacity=smaller)
    world.network.restart(A0)
    new = await world.submit(a_spec(request=HALF), Script(seconds=1))
    await world.run_for(300.0)

    assert waits(world, new) == "TOO_LITTLE_CPU"
    await to_the_end(world)
    assert {session(world, i).result for i in (*old, new)} == {SessionResult.SUCCESS}


@pytest.mark.parametrize("requeue", [False, True])
async def test_what_ran_on_a_machine_that_was_replaced_is_given_up_or_starts_over(requeue):
    world = await a_world()
    session_id = await world.submit(a_spec(requeue=requeue), Script(seconds=900))
    await until(world, session_id, S.RUNNING)
    capacity = world.network.places[A0].hello.capacity
    instead = AgentId("instead")

    world.network.crash(A0)
    world.runtimes[A0].reboot()
    world.network.remove(A0)
    world.add_machine(instead, capacity, "default", address="agent-0")
    await until(world, session_id, S.TERMINATED)

    ended = session(world, session_id)
    assert world.judge.picture.agents[A0].status is AgentStatus.GONE
    if requeue:
        assert ended.result is SessionResult.SUCCESS
        assert ended.main.agent_id == instead
    else:
        assert ended.reason == EndReason.AGENT_LOST
    await world.operations.remove_agent(A0, caller=ROOT, force=True)
    await to_the_end(world)


@pytest.mark.parametrize("way", ["deaf", "mute"])
async def test_an_agent_that_hears_or_is_heard_alone_starts_nothing_twice(way):
    world = await a_world(agents=2)
    session_id = await world.submit(a_spec(requeue=True), Script(seconds=900))
    await until(world, session_id, S.RUNNING)
    cut: set[AgentId] = getattr(world.network, way)
    cut.add(A0)
    cut.add(AgentId("agent-1"))

    await world.run_for(500.0)
    cut.clear()
    await to_the_end(world)

    assert session(world, session_id).result is SessionResult.SUCCESS
    assert max(world.judge.starts().values()) == 1


async def test_a_drained_agent_gets_nothing_until_it_is_undrained():
    world = await a_world()
    first = await world.submit(a_spec(), Script(seconds=50))
    await until(world, first, S.RUNNING)

    await world.operations.set_drained(A0, caller=ROOT, drained=True, reason="new disk")
    second = await world.submit(a_spec(), Script(seconds=5))
    await until(world, first, S.TERMINATED)
    await restart(world, clock_step_s=0.0)
    await world.run_for(100.0)
    assert session(world, second).status is S.PENDING

    await world.operations.set_drained(A0, caller=ROOT, drained=False)
    await to_the_end(world)
    assert session(world, second).result is SessionResult.SUCCESS
