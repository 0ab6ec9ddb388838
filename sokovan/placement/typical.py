"""Which requests are typical: learned from those that came, never from those to come."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from sokovan.placement.filters import Filter
from sokovan.placement.fragmentation import Ask, Typical

Shape = tuple[Ask, Filter]
"""What is asked for, and of which devices."""
Kind = TypeVar("Kind", bound=Hashable)
RENEWED_FIRST, RENEWED_GROWTH = 16, 1.5

COVERED = 0.95
"""The part of all requests that the typical ones make up."""
SHAPES_MAX = 64
"""No more shapes than this are typical."""
WEIGHT_SUM = 2**20
"""About what the weights sum up to; small enough for exact sums, large enough to tell apart."""


def frequent(
    counts: Mapping[Kind, float], *, covered: float = COVERED, shapes_max: int = SHAPES_MAX
) -> list[Kind]:
    """Return the shapes that count most, as many as make up `covered` of the sum.

    Of those that count the same, the ones that come first in `counts` are taken.
    """
    needed, shapes = covered * sum(counts.values()), list[Kind]()
    for shape in sorted(counts, key=lambda shape: -counts[shape])[:shapes_max]:
        if needed <= 0:
            break
        needed -= counts[shape]
        shapes.append(shape)
    return shapes


def weighed(asks: Sequence[Ask], counts: Sequence[int], reach: Sequence[float]) -> Typical:
    """Weigh shapes by how often they came and by how few devices they may take.

    Args:
        asks: What each shape asks for.
        counts: How often it came.
        reach: The part of all devices, above 0 and up to 1, that are of a model it may take. A
            shape that may take only a tenth of them counts ten times: the room there is all it has.

    Returns:
        Those that ask for devices and reach some, with whole numbers as weights.
    """
    kept = [i for i, ask in enumerate(asks) if ask.count and reach[i] > 0]
    raw = [counts[i] / reach[i] for i in kept]
    scale = WEIGHT_SUM / sum(raw) if raw else 0.0
    return table([asks[i] for i in kept], [float(round(scale * value)) for value in raw])


def generic(cpu_milli: int, mem_bytes: int) -> Typical:
    """Return what is taken as typical before anything came: a part, one device, several.

    Args:
        cpu_milli: What the cluster has per device.
        mem_bytes: Likewise.
    """
    asks = [Ask(cpu_milli * n // 1000, mem_bytes * n // 1000, n) for n in (250, 500, 1000, 8000)]
    return weighed(asks, [1] * len(asks), [1.0] * len(asks))


def table(asks: Sequence[Ask], weights: Sequence[float]) -> Typical:
    """Lay out shapes with the weights given."""
    return Typical(
        np.array([ask.cpu_milli for ask in asks], dtype=np.int64),
        np.array([ask.mem_bytes for ask in asks], dtype=np.int64),
        np.array([ask.count for ask in asks], dtype=np.int64),
        np.array([ask.share for ask in asks], dtype=np.int64),
        np.array(weights, dtype=np.float64),
    )


@dataclass(frozen=True, slots=True)
class Usual:
    """The requests that are typical of a group.

    Attributes:
        made_from: So many sessions.
        counts: How often each shape was asked for, the most frequent first.
    """

    made_from: int
    counts: tuple[tuple[Shape, int], ...]

    def is_due(self, sessions: int) -> bool:
        """Say whether it is to be learned anew from so many sessions."""
        if sessions < RENEWED_FIRST and self.made_from < RENEWED_FIRST:
            return False
        more = max(sessions, self.made_from) / max(1, min(sessions, self.made_from))
        return more >= RENEWED_GROWTH


NOTHING = Usual(0, ())
