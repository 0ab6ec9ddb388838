"""Who may overtake a blocked session, and what is reserved for it."""

from dataclasses import replace

import pytest

from sokovan.domain.cluster import AgentRanking, Backfill
from sokovan.domain.reasons import WaitReason
from sokovan.domain.resources import Request
from sokovan.domain.sessions import AgentId
from sokovan.domain.statuses import SessionStatus
from sokovan.domain.where import ClusterMode, Where
from tests.property.backfill_world import GPU, World, a_job, an_agent

WITH_RESERVATIONS = pytest.mark.parametrize("backfill", [Backfill.EASY, Backfill.CONSERVATIVE])


def a_world(backfill=Backfill.EASY, *agents, **policy) -> World:
    """One agent with four cores, unless told otherwise."""
    return World(agents or [an_agent()], backfill, **policy)


def busy(world: World, *jobs) -> World:
    """Let these run already."""
    world.submit(*jobs)
    assert len(world.step().placed) == len(jobs)
    return world


def started(world: World) -> list[str]:
    return list(world.step().placed)


def reserved(world: World) -> dict[str, float]:
    return {i: kept.starts_at for i, kept in world.look().reservations.items()}


# --- the four policies ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backfill", "expected"),
    [
        (Backfill.NONE, ["long", "short"]),
        (Backfill.STRICT, []),
        (Backfill.EASY, ["short"]),
        (Backfill.CONSERVATIVE, ["short"]),
    ],
)
def test_who_may_start_behind_a_blocked_session(backfill, expected):
    world = busy(a_world(backfill), a_job("r", 10, cores=2))

    world.submit(
        a_job("head", 10, cores=4), a_job("long", 11, cores=1), a_job("short", 10, cores=1)
    )

    assert started(world) == expected


def test_easy_says_for_whom_the_room_is_kept_and_from_when():
    world = busy(a_world(), a_job("r", 10, cores=2))
    world.submit(a_job("head", 10, cores=4), a_job("long", 11, cores=1))

    wait = world.look().plan.waits["long"]

    assert wait.code is WaitReason.RESERVED_FOR_ANOTHER
    assert wait.facts["session_id"] == "head"
    assert wait.facts["starts_at"] == 10.0


@pytest.mark.parametrize(
    ("backfill", "expected"), [(Backfill.EASY, ["third"]), (Backfill.CONSERVATIVE, [])]
)
def test_only_conservative_keeps_the_third_from_delaying_the_second(backfill, expected):
    world = busy(a_world(backfill), a_job("r", 10, cores=3))

    world.submit(a_job("head", 10, cores=2), a_job("second", 5, cores=2))
    world.submit(a_job("third", 30, cores=1))

    assert started(world) == expected


def test_conservative_reserves_for_one_after_another():
    world = busy(a_world(Backfill.CONSERVATIVE), a_job("r", 10, cores=4))

    world.submit(a_job("s1", 5, cores=3), a_job("s2", 7, cores=2), a_job("s3", 5, cores=1))

    assert reserved(world) == {"s1": 10.0, "s2": 15.0, "s3": 10.0}


def test_conservative_reserves_also_for_who_would_fit_but_delay_another():
    world = busy(a_world(Backfill.CONSERVATIVE), a_job("r", 10, cores=2))

    world.submit(a_job("head", 10, cores=4), a_job("long", 11, cores=1))

    assert reserved(world) == {"head": 10.0, "long": 20.0}


# --- what is reserved -----------------------------------------------------------------------------


@WITH_RESERVATIONS
def test_what_a_reservation_does_not_need_may_be_used_for_any_time(backfill):
    world = busy(a_world(backfill), a_job("r", 10, cores=2))

    world.submit(a_job("head", 10, cores=3), a_job("long", 1_000, cores=1))

    assert started(world) == ["long"]


@WITH_RESERVATIONS
def test_memory_is_reserved_where_cores_are_plenty(backfill):
    world = busy(a_world(backfill, an_agent(cores=8, mem=4)), a_job("r", 10, Request(0, 3)))

    world.submit(
        a_job("head", 10, Request(0, 4)),
        a_job("memory", 11, Request(0, 1)),
        a_job("cores", 11, cores=8),
    )

    assert started(world) == ["cores"]


@WITH_RESERVATIONS
def test_gpus_are_reserved_device_by_device(backfill):
    world = busy(
        a_world(backfill, an_agent(gpus=3)),
        a_job("r1", 10, Request(gpu_shares=GPU)),
        a_job("r2", 99, Request(gpu_shares=GPU)),
    )

    world.submit(a_job("head", 10, Request(gpu_shares=2 * GPU)))
    (kept,) = world.look().reservations.values()

    assert [one.devices for one in kept.assignment] == [((0, GPU), (2, GPU))]
    assert kept.starts_at == 10.0
    assert kept.ends_at == 20.0


@WITH_RESERVATIONS
def test_a_part_of_a_gpu_may_be_used_that_the_reservation_leaves(backfill):
    world = busy(a_world(backfill, an_agent(gpus=2)), a_job("r", 10, Request(gpu_shares=2 * GPU)))
    world.submit(a_job("head", 10, Request(gpu_shares=700), Request(gpu_shares=GPU)))
    world.submit(
        a_job("more", 10, Request(gpu_shares=500)), a_job("rest", 10, Request(gpu_shares=300))
    )
    world.step()

    world.end("r")
    world.at(10)

    assert set(started(world)) == {"head", "rest"}


@WITH_RESERVATIONS
def test_the_number_of_kernels_on_an_agent_is_reserved(backfill):
    world = busy(
        a_world(backfill, agent_kernels_max=2), a_job("r1", 10, cores=1), a_job("r2", 5, cores=0)
    )
    world.submit(a_job("head", 10, Request(1), Request(1)))
    world.end("r2")

    world.submit(a_job("long", 11, cores=0), a_job("short", 10, cores=0))

    assert started(world) == ["short"]


@WITH_RESERVATIONS
def test_all_kernels_of_a_session_are_reserved_together(backfill):
    world = busy(
        a_world(backfill, an_agent("a1"), an_agent("a2")),
        a_job("r1", 10, cores=4),
        a_job("r2", 30, cores=3),
    )
    world.submit(a_job("head", 10, Request(4000), Request(1000)), a_job("long", 31, cores=1))

    done = world.look()

    assert {one.agent_id for one in done.reservations["head"].assignment} == {"a1", "a2"}
    assert done.plan.placed == {}


@WITH_RESERVATIONS
def test_kernels_that_must_be_on_one_agent_wait_for_one(backfill):
    world = busy(
        a_world(backfill, an_agent("a1"), an_agent("a2")),
        a_job("r1", 10, cores=3),
        a_job("r2", 20, cores=3),
    )
    one_agent = Where(mode=ClusterMode.SINGLE_NODE)
    world.submit(a_job("head", 5, Request(2000), Request(1000), where=one_agent))

    (kept,) = world.look().reservations.values()

    assert {one.agent_id for one in kept.assignment} == {"a1"}
    assert kept.starts_at == 10.0


# --- when -----------------------------------------------------------------------------------------


@WITH_RESERVATIONS
def test_a_session_without_a_walltime_is_expected_to_run_for_the_groups_default(backfill):
    world = busy(a_world(backfill, walltime_default_s=60.0), a_job("r", None, cores=4))

    world.submit(a_job("head", 10, cores=4))

    assert reserved(world) == {"head": 60.0}


@WITH_RESERVATIONS
def test_who_runs_for_longer_than_expected_may_end_at_any_moment(backfill):
    world = busy(a_world(backfill), a_job("r", 10, cores=3))
    world.submit(a_job("head", 10, cores=4))
    world.at(12)

    world.submit(a_job("behind", 5, cores=1))

    assert started(world) == []
    assert reserved(world)["head"] == 12.0


@WITH_RESERVATIONS
def test_the_same_pass_is_looked_at_again_when_a_session_is_late(backfill):
    world = busy(a_world(backfill), a_job("r1", 10, cores=3))
    world.submit(a_job("head", 10, cores=4), a_job("behind", 50, cores=1))
    before = world.look()

    assert world.at(9).look() is before
    assert world.at(11).look() is not before


@WITH_RESERVATIONS
def test_a_session_that_is_being_stopped_ends_after_its_grace(backfill):
    world = busy(a_world(backfill), a_job("r", 1_000, cores=4, grace_s=30.0))
    world.running["r"] = replace(
        world.running["r"], status=SessionStatus.TERMINATING, status_since=5.0
    )
    world.at(20).submit(a_job("head", 10, cores=4))

    assert reserved(world) == {"head": 35.0}


@WITH_RESERVATIONS
def test_who_should_never_get_room_does_not_block_the_others(backfill):
    lost = replace(an_agent("a2", cores=8), drained_since=1.0)
    world = busy(a_world(backfill, an_agent("a1"), lost), a_job("r", 10, cores=2))
    world.submit(a_job("waits for a2", 10, cores=8), a_job("head", 10, cores=4))

    world.submit(a_job("long", 20, cores=1), a_job("short", 10, cores=1))

    assert started(world) == ["short"]
    assert reserved(world)["head"] == 10.0
    assert "waits for a2" not in reserved(world)


def test_where_more_is_held_than_there_is_a_release_makes_good_for_that_first():
    world = busy(a_world(), a_job("r1", 10, cores=2), a_job("r2", 20, cores=2))
    smaller = an_agent(cores=2)
    world.snapshot.machines.put_agent(replace(smaller, agent_id=AgentId("a1")))

    world.submit(a_job("head", 10, cores=2))

    assert reserved(world) == {"head": 20.0}


# --- reservations are kept ------------------------------------------------------------------------


def test_nobody_moves_to_an_earlier_moment_at_the_cost_of_another():
    world = a_world(Backfill.CONSERVATIVE)
    busy(world, a_job("r1", 10, cores=2), a_job("r2", 8, cores=1))
    world.submit(a_job("s1", 10, cores=3), a_job("s2", 2, cores=2))
    assert reserved(world) == {"s1": 10.0, "s2": 8.0}

    world.at(5).end("r1")

    assert started(world) == ["s2"]
    assert reserved(world) == {"s1": 7.0}


def test_kernels_start_where_it_was_promised_when_looking_anew_finds_no_room_for_all():
    agents = [an_agent("a0", gpus=2), an_agent("a1", gpus=1), an_agent("a2", cores=2, gpus=1)]
    world = World(agents, Backfill.EASY, ranking=AgentRanking.ROUND_ROBIN)
    part, most_cores = Request(gpu_shares=300), Request(3000)
    apart = Where(kernels_per_agent_max=1)
    world.submit(a_job("r0", 2, cores=2), a_job("r1", 1, cores=2))
    world.submit(a_job("head", 1, part, part, most_cores, where=apart))
    world.step()
    assert reserved(world) == {"head": 1.0}

    world.at(1).end("r1")

    assert started(world) == ["head"]


def test_a_higher_rank_may_push_a_reservation_to_a_later_moment():
    world = busy(a_world(Backfill.CONSERVATIVE), a_job("r", 10, cores=4))
    world.submit(a_job("first", 5, cores=4))
    assert reserved(world) == {"first": 10.0}

    world.submit(a_job("urgent", 5, cores=4, priority=20))

    assert reserved(world) == {"urgent": 10.0, "first": 15.0}


def test_a_drained_agent_moves_what_was_reserved_on_it():
    world = busy(
        a_world(Backfill.CONSERVATIVE, an_agent("a1"), an_agent("a2")),
        a_job("r1", 10, cores=4),
        a_job("r2", 20, cores=4),
    )
    world.submit(a_job("head", 5, cores=4))
    assert reserved(world) == {"head": 10.0}

    world.snapshot.machines.put_agent(replace(an_agent("a1"), drained_since=1.0))

    assert reserved(world) == {"head": 20.0}
