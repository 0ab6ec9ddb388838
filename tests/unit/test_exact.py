"""A small batch placed by an exact solver."""

import numpy as np
import pytest

from sokovan.placement.exact import Spot, improve, is_available
from sokovan.placement.fragmentation import Ask, Free

if not is_available():
    pytest.skip("ortools is not installed", allow_module_level=True)

HALF, MOST, TWO, CPU_ONLY = Ask(1, 1, 500), Ask(1, 1, 800), Ask(1, 1, 2000), Ask(3, 1, 0)


def one_agent(*shares, cpu_milli=10):
    return Free(np.array([cpu_milli]), np.array([10]), np.array([shares]))


def test_what_is_placed_already_may_move_to_make_room():
    start = [Spot(0, (0,)), Spot(0, (1,)), None]

    found = improve([HALF, HALF, MOST], one_agent(1000, 1000), start, [1, 1, 1])

    assert found[0] == found[1] != found[2]
    assert None not in found


def test_what_is_placed_already_stays_placed_when_it_is_to_be_kept():
    start = [Spot(0, (0,)), None]

    assert improve([HALF, MOST], one_agent(1000), start, [1, 5]) == start
    assert improve([HALF, MOST], one_agent(1000), start, [1, 5], keep=False) == [
        None,
        Spot(0, (0,)),
    ]


def test_a_group_is_placed_together_or_not_at_all():
    found = improve([MOST, MOST, HALF], one_agent(1000), [None] * 3, [9, 9, 1], groups=[7, 7, 8])

    assert found == [None, None, Spot(0, (0,))]


def test_whole_devices_and_cpu_are_given_out_once():
    start = [None] * 3

    found = improve(
        [TWO, CPU_ONLY, CPU_ONLY], one_agent(400, 1000, 1000, cpu_milli=4), start, [1] * 3
    )

    assert found[0] == Spot(0, (1, 2))
    assert sorted(found[1:], key=str) == [None, Spot(0)]


def test_nothing_goes_where_it_is_not_allowed():
    start = [None]

    assert improve([HALF], one_agent(1000), start, [1], allowed=np.array([[False]])) is start


def test_there_is_nothing_to_improve_when_all_are_placed():
    start = [Spot(0, (0,))]

    assert improve([HALF], one_agent(1000), start, [1]) is start
