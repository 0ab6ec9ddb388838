"""The manager dies once at each moment at which that can make a difference, one after the other.

Whatever it does ends in a statement, in a commit, or in a call to an agent: between two of these,
dying here or there is the same. So each run of one small story kills it at another of them. Between
two statements of a transaction as well nothing is written yet, and nobody was told anything: of
these, every fifth will do.
"""

import asyncio
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from sokovan.domain.cluster import ScalingGroup
from sokovan.domain.resources import Capacity
from sokovan.domain.sessions import Limit
from sokovan.simulator.quiet import quiet
from sokovan.simulator.runtime import Script
from sokovan.simulator.soak import processors
from sokovan.simulator.users import Users
from sokovan.simulator.workload import Wish
from sokovan.simulator.world import World
from tests.simulation.drill import GIB, a_spec

GROUP = ScalingGroup(limits={"start-sessions": Limit(attempts_max=2)})
WISHES = [
    Wish(0.0, a_spec(name="ends", creation_id="1"), (Script(seconds=5),)),
    Wish(
        0.0,
        a_spec(name="is cancelled", kernel_count=2, creation_id="2"),
        (Script(seconds=500), Script(seconds=1)),
        cancel_at=20.0,
    ),
    Wish(
        1.0,
        a_spec(name="starts badly", creation_id="3", retries=1),
        (Script(seconds=3, start_failures=3, pull_failures=1, exit_code=1),),
    ),
]


async def the_story(dies_at: int | None) -> World:
    """Let three sessions live: one that ends, one that is cancelled, one that is sent back."""
    world = World(machines=[Capacity(4000, 16 * GIB)] * 2, groups=[GROUP])
    world.dies_at = dies_at
    world.later(0.0, "", world.start_manager)
    Users(world, WISHES).plan(lambda _: ())
    await world.run_for(30.0)
    await world.run_until(world.is_at_rest, seconds_max=7200.0)
    found = world.check_at_rest()
    assert not found, world.story(found)
    assert len(world.judge.accepted) == len(WISHES)
    return world


def told(dies_at: int | None) -> World:
    """Tell the story in an event loop of its own."""
    with quiet():
        return asyncio.run(the_story(dies_at))


def deaths_and_starts(dies_at: int) -> tuple[int, int, int]:
    """Return when the manager died, how often, and how often any token was started at most."""
    world = told(dies_at)
    return dies_at, world.counts["manager_crashes"], max(world.judge.starts().values())


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_whenever_the_manager_dies_all_goes_on_as_if_it_had_not():
    boundaries = list(enumerate(told(None).boundaries, 1))
    assert len(boundaries) > 500
    statements = [at for at, what in boundaries if what == "manager_dies_at_statement"]
    others = [at for at, what in boundaries if what != "manager_dies_at_statement"]
    assert len(others) > 150
    moments = sorted(others + statements[::10])

    with ProcessPoolExecutor(processors(), mp_context=get_context("fork")) as pool:
        found = list(pool.map(deaths_and_starts, moments, chunksize=20))

    assert found == [(dies_at, 1, 1) for dies_at in moments]
