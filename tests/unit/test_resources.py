"""Exact amounts: what is asked for, held and free."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sokovan.domain.resources import Capacity, Device, Hold, Request, Usage, over_held, used_by

devices = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1000)), max_size=3).map(tuple)
holds = st.builds(
    Hold,
    token=st.text(max_size=2),
    session_id=st.just("s"),
    kernel_id=st.just("k"),
    agent_id=st.just("a"),
    cpu_milli=st.integers(0, 10**6),
    mem_bytes=st.integers(0, 2**53),
    devices=devices,
    leftover_since=st.none() | st.floats(0, 1e9),
)


def a_hold(**fields) -> Hold:
    return Hold(**{"token": "t", "session_id": "s", "kernel_id": "k", "agent_id": "a"} | fields)


@pytest.mark.parametrize(
    ("shares", "whole", "fraction"), [(0, 0, 0), (300, 0, 300), (1000, 1, 0), (3000, 3, 0)]
)
def test_a_request_is_for_whole_devices_or_for_a_part_of_one(shares, whole, fraction):
    request = Request(gpu_shares=shares)

    assert (request.devices_whole, request.device_fraction) == (whole, fraction)


def test_a_hold_without_a_wanted_kernel_is_a_leftover():
    assert not a_hold().is_leftover
    assert a_hold(leftover_since=0.0).is_leftover


def test_adding_a_hold_leaves_the_old_sum_alone():
    before = Usage(1000, 10, {0: 300})

    after = before.plus(500, 5, ((0, 200), (1, 1000)))

    assert after == Usage(1500, 15, {0: 500, 1: 1000})
    assert before == Usage(1000, 10, {0: 300})


@given(st.lists(holds, max_size=6))
def test_what_is_used_is_the_sum_of_all_holds_leftovers_included(some):
    used = used_by(some)

    shares: Counter[int] = Counter()
    for hold in some:
        for index, amount in hold.devices:
            shares[index] += amount
    assert used.cpu_milli == sum(hold.cpu_milli for hold in some)
    assert used.mem_bytes == sum(hold.mem_bytes for hold in some)
    assert {i: n for i, n in used.shares.items() if n} == {i: n for i, n in shares.items() if n}


@given(st.lists(holds, max_size=6), st.randoms(use_true_random=False))
def test_the_order_of_holds_does_not_matter(some, chance):
    assert used_by(chance.sample(some, len(some))) == used_by(some)


@given(st.lists(holds, max_size=4))
def test_a_capacity_of_exactly_what_is_held_is_not_over_held(some):
    used = used_by(some)
    indexes = sorted(used.shares)
    capacity = Capacity(used.cpu_milli, used.mem_bytes, tuple(map(Device, indexes)))

    crowded = [index for index in indexes if used.shares[index] > 1000]
    assert over_held(capacity, used) == (f"gpu{crowded[0]}" if crowded else None)


@pytest.mark.parametrize(
    ("used", "slot"),
    [
        (Usage(), None),
        (Usage(2000, 10, {0: 1000, 4: 1000}), None),
        (Usage(2001, 11), "cpu"),
        (Usage(2000, 11), "mem"),
        (Usage(shares={4: 1001, 0: 1001}), "gpu0"),
        (Usage(shares={4: 1001}), "gpu4"),
        (Usage(shares={2: 1}), "gpu2"),
        (Usage(shares={2: 0}), None),
    ],
)
def test_the_first_slot_of_which_too_much_is_held_is_named(used, slot):
    capacity = Capacity(2000, 10, (Device(0), Device(4)))

    assert over_held(capacity, used) == slot
