"""Random runs of the real scheduler among faults, each from one seed: a failure is a number."""

import pytest

from sokovan.simulator.faults import NO_FAULTS, ROUGH, STORM
from sokovan.simulator.trial import Trial


@pytest.mark.parametrize("seed", range(20))
def test_nothing_is_lost_repeated_or_stuck_while_everything_fails(seed):
    faults = STORM if seed % 2 else ROUGH

    outcome = Trial(seed, hours=1.0, agents=2 + seed % 4, sessions=50, faults=faults).run()

    assert not outcome.violation, outcome.violation
    assert outcome.counts["sessions"] == 50
    assert outcome.counts["checks"] > 100
    assert outcome.faults.total() > 20


def test_everything_ends_as_its_script_says_when_nothing_goes_wrong():
    outcome = Trial("calm", hours=1.0, agents=4, sessions=50, faults=NO_FAULTS).run()

    assert not outcome.violation, outcome.violation
    assert not outcome.counts["ended AGENT_LOST"] + outcome.counts["ended ABNORMAL_TERMINATION"]
