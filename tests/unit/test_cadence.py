"""When each piece of work is due."""

from sokovan.scheduler.cadence import Cadence


def a_cadence():
    return Cadence({"fast": 1.0, "slow": 60.0})


def run(cadence, key, at):
    cadence.begin(key, at)
    cadence.end(key)


def test_everything_is_due_at_first_in_a_fixed_order():
    assert a_cadence().due(0.0) == ["fast", "slow"]


def test_what_has_run_is_due_again_after_its_cycle():
    cadence = a_cadence()
    run(cadence, "fast", 100.0)
    run(cadence, "slow", 100.0)

    assert cadence.due(100.9) == []
    assert cadence.due(101.0) == ["fast"]
    assert cadence.due(160.0) == ["fast", "slow"]
    assert cadence.next_at() == 101.0


def test_a_hint_makes_work_due_at_once():
    cadence = a_cadence()
    run(cadence, "slow", 100.0)

    cadence.hint("slow")

    assert "slow" in cadence.due(100.0)


def test_many_hints_are_one_run():
    cadence = a_cadence()
    for _ in range(3):
        cadence.hint("slow")

    run(cadence, "slow", 100.0)

    assert "slow" not in cadence.due(100.0)


def test_what_is_under_way_is_not_due():
    cadence = a_cadence()
    cadence.begin("slow", 100.0)
    cadence.hint("slow")

    assert "slow" not in cadence.due(1000.0)


def test_a_hint_during_a_run_means_another_run():
    cadence = a_cadence()
    cadence.begin("slow", 100.0)
    cadence.hint("slow")
    cadence.end("slow")

    assert "slow" in cadence.due(100.0)


def test_a_known_moment_brings_work_forward():
    cadence = a_cadence()
    run(cadence, "slow", 100.0)

    cadence.wake_at("slow", 130.0)

    assert "slow" not in cadence.due(129.9)
    assert "slow" in cadence.due(130.0)


def test_a_known_moment_never_puts_work_off():
    cadence = a_cadence()
    run(cadence, "slow", 100.0)

    cadence.wake_at("slow", 500.0)

    assert "slow" in cadence.due(160.0)


def test_the_next_moment_leaves_out_what_is_under_way():
    cadence = a_cadence()
    cadence.begin("fast", 100.0)
    cadence.begin("slow", 100.0)
    assert cadence.next_at() == float("inf")

    cadence.end("slow")

    assert cadence.next_at() == 160.0


def test_without_any_work_nothing_is_ever_due():
    assert Cadence({}).due(1e12) == []
    assert Cadence({}).next_at() == float("inf")


def test_work_that_rests_is_not_due_even_after_a_hint():
    cadence = a_cadence()
    cadence.begin("slow", 100.0)
    cadence.end("slow", rest_until=103.0)
    cadence.hint("slow")

    assert "slow" not in cadence.due(102.9)
    assert "slow" in cadence.due(103.0)


def test_the_next_moment_waits_for_those_who_rest():
    cadence = Cadence({"only": 60.0})
    cadence.begin("only", 100.0)
    cadence.end("only", rest_until=103.0)
    cadence.hint("only")

    assert cadence.next_at() == 103.0
