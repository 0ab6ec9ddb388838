"""The same seed gives the same history, byte for byte: only so is a failure a number."""

import os
import subprocess
import sys

from sokovan.simulator.faults import STORM
from sokovan.simulator.trial import Trial

SCRIPT = """
from sokovan.simulator.faults import STORM
from sokovan.simulator.trial import Trial
print(Trial(7, hours=1.0, agents=4, sessions=30, faults=STORM).run().digest)
"""


def digest(hash_seed: str) -> str:
    """Run a trial in a process of its own, where sets and dicts of texts are in another order."""
    environ = {**os.environ, "PYTHONHASHSEED": hash_seed}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environ, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_two_processes_that_hash_differently_write_the_same_history():
    assert len({digest("1"), digest("2")}) == 1


def test_another_seed_writes_another_history():
    first, again, other = (
        Trial(seed, hours=0.5, agents=2, sessions=10, faults=STORM).run().digest
        for seed in ("a", "a", "b")
    )

    assert first == again != other
