"""What a placement costs the requests that usually come."""

import numpy as np

from sokovan.placement.fragmentation import (
    Ask,
    Free,
    least_worth_lost,
    published_fgd,
    spoiled,
    ways,
    worth,
)
from sokovan.placement.typical import frequent, generic, table, weighed

PART, ONE, TWO = Ask(1000, 0, 400), Ask(4000, 0, 1000), Ask(8000, 0, 2000)
CPU_ONLY = Ask(2000, 0, 0)


def room(*agents):
    """Say per agent what is free: (cpu, shares of its devices)."""
    return Free(
        np.array([cpu for cpu, _ in agents]),
        np.array([2**40] * len(agents)),
        np.array([shares for _, shares in agents]),
    )


def everywhere(agents, typical):
    return np.ones((agents, len(typical.weight)), dtype=bool)


def test_a_part_may_come_from_each_device_that_differs_in_what_is_free():
    found = ways(PART, room((9000, [1000, 1000, 500, 300]), (9000, [400, 0, 0, 400])))

    assert found.agent.tolist() == [0, 0, 1]
    assert found.device.tolist() == [0, 2, 0]
    assert found.after.shares.tolist() == [
        [600, 1000, 500, 300],
        [1000, 1000, 100, 300],
        [0, 0, 0, 400],
    ]
    assert found.after.cpu_milli.tolist() == [8000] * 3


def test_whole_devices_are_taken_by_ascending_index():
    found = ways(TWO, room((9000, [400, 1000, 1000, 1000])))

    assert found.device.tolist() == [-1]
    assert found.after.shares.tolist() == [[400, 0, 0, 1000]]


def test_only_usable_devices_are_taken():
    usable = np.array([[False, True, True]])
    free = room((9000, [1000, 1000, 1000]))

    assert ways(PART, free, usable).device.tolist() == [1]
    assert ways(ONE, free, usable).after.shares.tolist() == [[1000, 0, 1000]]


def test_without_devices_only_cpu_and_memory_are_taken():
    found = ways(CPU_ONLY, room((9000, [1000])))

    assert (found.after.cpu_milli.tolist(), found.after.shares.tolist()) == ([7000], [[1000]])


def test_all_that_is_free_is_spoiled_for_a_request_that_the_agent_cannot_take():
    typical = table([TWO, PART, CPU_ONLY], [0.5, 0.25, 0.25])
    free = room((9000, [1000, 300]), (500, [1000, 1000]), (9000, [1000, 1000]))

    # The first has one device too few for two, and 300 too little for a part.
    expected = [0.75 * 1300 + 0.25 * 300, 2000, 0.25 * 2000]
    assert spoiled(free, everywhere(3, typical), typical).tolist() == expected


def test_a_model_that_is_not_allowed_spoils_all():
    typical = table([ONE], [1.0])

    assert spoiled(room((9000, [1000])), np.array([[False]]), typical).tolist() == [1000]


def test_published_keys_are_integers_of_the_sigmoid():
    typical = table([ONE], [1.0])
    free = room((9000, [1000, 1000]), (9000, [1000, 400]))

    keys, devices = published_fgd(PART, free, everywhere(2, typical), typical)

    # 600 more are spoiled on the first: 100 / (1 + e^0.6) = 35.4; on the second 400 fewer: 59.8.
    assert keys.tolist() == [-35, -59]
    assert devices.tolist() == [0, 1]


def test_cpu_counts_pro_rata_before_it_runs_out():
    typical = table([ONE], [1.0])
    free = room((8000, [1000, 1000]), (6000, [1000, 1000]), (2000, [1000, 1000]))

    # Useful are 2000, 2000 and, without room for a single one, 0; cpu hosts 2, 1.5 and 0.5.
    assert worth(free, everywhere(3, typical), typical).tolist() == [4000, 3500, 500]


def test_memory_counts_pro_rata_as_well():
    typical = table([Ask(0, 2**39, 1000)], [1.0])

    assert worth(room((0, [1000, 1000, 1000])), everywhere(1, typical), typical).tolist() == [5000]


def test_requests_for_cpu_alone_go_where_cpu_is_not_needed_for_devices():
    typical = weighed([ONE], [1], [1.0])
    free = room((4000, [1000, 0]), (6000, [1000, 0]), (4000, [0, 0]))

    keys, devices = least_worth_lost(CPU_ONLY, free, everywhere(3, typical), typical)

    assert keys[0] > keys[1] == keys[2] == 0
    assert devices.tolist() == [-1, -1, -1]


def test_a_part_goes_beside_other_parts():
    typical = weighed([ONE, PART], [1, 1], [1.0, 1.0])
    free = room((9000, [1000, 600]), (9000, [1000, 1000]))

    keys, devices = least_worth_lost(PART, free, everywhere(2, typical), typical)

    assert keys.argmin() == 0
    assert devices[0] == 1


def test_scarce_devices_are_kept_for_those_who_may_take_no_others():
    typical = weighed([ONE, ONE], [9, 1], [1.0, 0.02])
    allowed = np.array([[True, False], [True, True]])

    keys, _ = least_worth_lost(ONE, room((9000, [1000]), (9000, [1000])), allowed, typical)

    assert keys[0] < keys[1]


def test_the_most_frequent_shapes_are_typical():
    assert frequent({"a": 1, "b": 50, "c": 45, "d": 4}) == ["b", "c"]
    assert frequent({"a": 1, "b": 1, "c": 1}, shapes_max=2) == ["a", "b"]
    assert frequent({}) == []


def test_shapes_without_devices_or_reach_have_no_weight():
    typical = weighed([CPU_ONLY, ONE, TWO, PART], [5, 3, 1, 1], [1.0, 1.0, 0.0, 0.5])

    assert typical.count.tolist() == [1, 1]
    assert typical.weight.tolist() == [round(2**20 * 3 / 5), round(2**20 * 2 / 5)]
    assert weighed([CPU_ONLY], [1], [1.0]).weight.size == 0


def test_nothing_is_lost_where_nothing_is_typical():
    typical = weighed([], [], [])

    keys, _ = least_worth_lost(ONE, room((9000, [1000])), everywhere(1, typical), typical)

    assert keys.tolist() == [0]


def test_generic_requests_ask_for_what_a_device_has_beside_it():
    typical = generic(12_000, 1 << 30)

    assert typical.cpu_milli.tolist() == [3000, 6000, 12_000, 96_000]
    assert (typical.count * typical.share).tolist() == [250, 500, 1000, 8000]
