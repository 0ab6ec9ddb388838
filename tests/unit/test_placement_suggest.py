"""What would start a session now, dimension by dimension, in numbers and in words."""

from dataclasses import replace

import pytest

from sokovan.domain.cluster import Backfill, ScalingGroup
from sokovan.domain.resources import Hold, Request
from sokovan.domain.statuses import SessionStatus
from sokovan.domain.where import ClusterMode, Where, parse_constraint
from sokovan.placement.engine import place
from sokovan.placement.snapshot import snapshot_of
from sokovan.placement.suggest import suggestions
from sokovan.scheduler.ports import SchedulingData
from tests.build import A1, A2, GIB, NOW, a_capacity, a_kernel, a_session, an_agent

EASY, NONE, STRICT = (
    ScalingGroup(backfill=b) for b in (Backfill.EASY, Backfill.NONE, Backfill.STRICT)
)


def asking(session_id="me", cpu=1000, mem=GIB, gpu=0, gpu_mem=0, *, kernels=1, **fields):
    request = Request(cpu, mem, gpu, gpu_mem)
    made = [a_kernel(n, session_id=session_id, request=request) for n in range(kernels)]
    return a_session(session_id, kernels=made, **fields)


def holding(cpu=0, mem=0, devices=(), agent_id=A1, session_id="r1"):
    return Hold(session_id, session_id, "", agent_id, cpu, mem, devices)


def running(session_id="r1", walltime_s=600.0):
    return a_session(
        session_id, SessionStatus.RUNNING, kernels=(), started_at=NOW, walltime_s=walltime_s
    )


def a_world(*pending, agents=None, holds=(), group=NONE, **fields):
    return snapshot_of(
        SchedulingData(
            group=group,
            agents=tuple(agents or [an_agent()]),
            holds=tuple(holds),
            pending=pending,
            running=(running(),),
            now=NOW,
            **fields,
        )
    )


def said(snapshot, session_id="me", others=()):
    place(snapshot)
    return {one["change"] for one in suggestions(snapshot, session_id, others)}


def found(snapshot, dimension):
    place(snapshot)
    (one,) = [o for o in suggestions(snapshot, "me") if o["dimension"] == dimension]
    return one["from"], one["to"], one["as_new"]


def test_as_many_cores_as_are_free():
    snapshot = a_world(asking(cpu=4000), holds=[holding(cpu=1500)])

    assert found(snapshot, "cpu") == (4000, 2500, True)
    assert said(snapshot) == {"ask for 2.5 cores instead of 4 (--cpu 2.5)"}


def test_memory_in_whole_mebibytes():
    snapshot = a_world(asking(mem=16 * GIB), holds=[holding(mem=GIB + 1)])

    assert found(snapshot, "mem") == (16 * GIB, 15 * GIB - 2**20, True)
    assert said(snapshot) == {"ask for 15359M of memory instead of 16G (--mem 15359M)"}


@pytest.mark.parametrize(
    ("asked", "held", "change"),
    [
        (2000, ((0, 1000),), "ask for 1 GPU instead of 2 (--gpu 1)"),
        (2000, ((0, 1000), (1, 600)), "ask for 0.4 of a GPU instead of 2 (--gpu 0.4)"),
        (700, ((0, 400), (1, 600)), "ask for 0.6 of a GPU instead of 0.7 (--gpu 0.6)"),
        (3000, (), "ask for 2 GPUs instead of 3 (--gpu 2)"),
    ],
)
def test_fewer_gpus_or_a_part_of_one(asked, held, change):
    snapshot = a_world(asking(gpu=asked), holds=[holding(devices=held)])

    assert said(snapshot) == {change}


def test_smaller_gpus_that_are_there():
    snapshot = a_world(asking(gpu=1000, gpu_mem=40 * GIB))

    assert said(snapshot) == {"take GPUs of 8G or more instead of 40G (--gpu-mem 8G)"}


def test_whoever_ends_before_a_reservation_may_start():
    first = asking("first", cpu=4000, number=1)
    snapshot = a_world(
        first,
        asking(cpu=2000, number=2),
        holds=[holding(cpu=1000)],
        group=EASY,
    )
    assert place(snapshot).waits["me"].code == "RESERVED_FOR_ANOTHER"

    assert found(snapshot, "walltime") == (None, 600.0, True)
    assert "have it end within 10m instead of no time, which counts as 1d00h (--time 9m)" in said(
        snapshot
    )
    assert "have priority 11 instead of 10 (--priority 11)" in said(snapshot)


def test_no_time_helps_where_nothing_is_reserved():
    snapshot = a_world(asking(cpu=4000, walltime_s=100.0), holds=[holding(cpu=4000)], group=EASY)

    assert said(snapshot) == set()


def test_nobody_overtakes_but_by_priority():
    snapshot = a_world(
        asking("first", cpu=4000, number=1, priority=20),
        asking(number=2),
        holds=[holding(cpu=1000)],
        group=STRICT,
    )

    assert found(snapshot, "priority") == (10, 21, True)
    assert said(snapshot) == {"have priority 21 instead of 10 (--priority 21)"}


def test_what_helps_only_in_its_place_is_told_so():
    """Who would be submitted anew would stand behind the other, which takes what is left."""
    snapshot = a_world(
        asking(cpu=4000, number=1),
        asking("other", cpu=2000, number=2),
        holds=[holding(cpu=1000)],
    )

    assert found(snapshot, "cpu") == (4000, 3000, False)


def racks():
    return [an_agent(A1, name="left", labels={"rack": "r1"}), an_agent(A2, labels={"rack": "r2"})]


@pytest.mark.parametrize(
    ("where", "change"),
    [
        ({"constraints": ("rack=r1",)}, "leave out --constraint rack=r1"),
        (
            {"constraints": ("rack=r1", "rack!=r2")},
            "leave out --constraint rack!=r2 and --constraint rack=r1",
        ),
        ({"constraints": ("cpu>=4", "rack=r1")}, "leave out --constraint rack=r1"),
        ({"agents": ("left",)}, "let it go on a2, too (--agent a2)"),
        ({"exclude": (A2, "gone")}, "leave out --exclude a2"),
    ],
)
def test_where_it_may_go(where, change):
    if "constraints" in where:
        where = {"constraints": tuple(sorted(map(parse_constraint, where["constraints"])))}
    snapshot = a_world(
        asking(cpu=2000, where=Where(**where)), agents=racks(), holds=[holding(cpu=4000)]
    )

    assert said(snapshot) == {change}


@pytest.mark.parametrize(
    ("where", "cpu", "change"),
    [
        (
            {"mode": ClusterMode.SINGLE_NODE},
            3000,
            "let its kernels go on several agents (--mode multi-node)",
        ),
        ({"same": "rack"}, 3000, "leave out --same rack"),
    ],
)
def test_kernels_that_are_tied_to_each_other(where, cpu, change):
    snapshot = a_world(asking(cpu=cpu, kernels=2, where=Where(**where)), agents=racks())

    assert change in said(snapshot)
    assert "ask for 1 kernel instead of 2 (--kernels 1)" in said(snapshot)


def test_as_few_more_kernels_on_one_agent_as_need_be():
    where = Where(kernels_per_agent_max=1)
    snapshot = a_world(asking(kernels=5, where=where), agents=racks())

    assert found(snapshot, "spread") == (1, 3, True)
    assert "allow 3 kernels on one agent instead of 1 (--kernels-per-agent 3)" in said(snapshot)


def test_another_group():
    snapshot = a_world(asking(cpu=2000), holds=[holding(cpu=4000)])
    other = a_world(group=ScalingGroup("spare"))
    full = a_world(group=ScalingGroup("full"), holds=[holding(cpu=4000)])
    tight = a_world(group=ScalingGroup("tight", kernels_max=0))

    assert said(snapshot, others=[full, other, tight]) == {"use the group spare (--group spare)"}


@pytest.mark.parametrize(
    "session",
    [
        asking(cpu=9000, held=True),
        asking(cpu=9000, begin_at=NOW + 60),
        replace(asking(), kernels=()),
        asking(cpu=1000),
        asking("else"),
    ],
)
def test_there_is_nothing_to_suggest(session):
    """To one that may not be placed, makes no sense, starts anyway, or is not there."""
    assert said(a_world(session)) == set()


def test_what_could_never_fit_is_made_to_fit():
    snapshot = a_world(asking(cpu=64_000))
    assert place(snapshot).waits["me"].code == "NEVER_FITS"

    assert said(snapshot) == {"ask for 4 cores instead of 64 (--cpu 4)"}


def test_an_agent_out_of_service_is_nobodys_way_out():
    agents = [an_agent(capacity=a_capacity(2000)), an_agent(A2, drained_since=NOW)]

    assert said(a_world(asking(cpu=3000), agents=agents)) == {
        "ask for 2 cores instead of 3 (--cpu 2)"
    }
