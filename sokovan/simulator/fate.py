"""Decides what goes wrong, and counts it."""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from sokovan.simulator.faults import Faults, Range


class ManagerDied(BaseException):
    """The manager process is killed here: nothing after this line happens."""


class StepReached(BaseException):
    """The step was reached before which the run was to stop."""


def chance(seed: object, purpose: str) -> random.Random:
    """Return a source of chance of its own, so that a draw here changes nothing there."""
    return random.Random(f"{seed}/{purpose}")


@dataclass(frozen=True, slots=True)
class Fate:
    """One source of chance, for all that can go wrong in one part of a world.

    Args:
        rng: Makes the draws.
        faults: Returns what can go wrong at present.
        counts: How often what went wrong; many fates share it.
    """

    rng: random.Random
    faults: Callable[[], Faults]
    counts: Counter[str]

    def happens(self, fault: str) -> bool:
        """Say whether a fault happens now; it is named as in `Faults`."""
        chance: float = getattr(self.faults(), fault)
        if chance and self.rng.random() < chance:
            self.counts[fault] += 1
            return True
        return False

    def seconds(self, within: str) -> float:
        """Draw how long something takes; `within` names a range of `Faults`."""
        span: Range = getattr(self.faults(), within)
        return self.rng.uniform(*span)
