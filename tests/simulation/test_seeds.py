"""Random runs of the real scheduler among faults, each from one seed: a failure is a number."""

from dataclasses import replace

import pytest

from sokovan.simulator import soak
from sokovan.simulator.faults import MANAGERS, NO_FAULTS, ROUGH, STORM
from sokovan.simulator.shape import Shape
from sokovan.simulator.trial import Trial

LONG = Shape(0, hours=1.0, sessions=100)
STORMS = Shape(hours=0.15, sessions=12, faults="storm")
FIFTY = [LONG, *(replace(STORMS, seed=seed) for seed in range(49))]


@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_lost_repeated_or_stuck_while_everything_fails(seed):
    faults = STORM if seed % 2 else ROUGH

    outcome = Trial(seed, hours=1.0, agents=2 + seed % 4, sessions=50, faults=faults).run()

    assert not outcome.violation, outcome.violation
    assert outcome.counts["sessions"] >= 50  # an array has several
    assert outcome.counts["checks"] > 100
    assert outcome.faults.total() > 20


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_lost_repeated_or_stuck_while_managers_replace_each_other(seed):
    faults = replace(MANAGERS, manager_stands_still=0.02)

    outcome = Trial(seed, hours=0.5, agents=4, sessions=40, faults=faults).run()

    assert not outcome.violation, outcome.violation
    assert outcome.faults["manager_stands_still"] > 5


def test_everything_ends_as_its_script_says_when_nothing_goes_wrong():
    outcome = Trial("calm", hours=1.0, agents=4, sessions=50, faults=NO_FAULTS).run()

    assert not outcome.violation, outcome.violation
    assert not outcome.counts["ended AGENT_LOST"] + outcome.counts["ended ABNORMAL_TERMINATION"]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_fifty_seeds():
    """One run like those of `sokovan sim`, but shorter, and forty-nine small storms."""
    results = list(soak.soak(FIFTY, jobs=soak.processors()))

    failed = [f"{result.shape.command()}\n{result.story}" for result in results if result.story]
    assert not failed, "\n\n".join(failed)
    assert sorted(result.shape.sessions for result in results) == [12] * 49 + [100]
    assert all(r.sessions >= r.shape.sessions for r in results)  # an array has several
    assert all(r.faults >= 50 for r in results)
