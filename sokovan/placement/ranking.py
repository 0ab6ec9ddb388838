"""What a ranking is, and the rankings that look only at what is free.

A ranking gives every row a whole number; the row with the smallest is taken, and among equals the
first, which is the one with the smallest agent id.
"""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sokovan.placement.needs import Need
from sokovan.placement.room import Ints, Room

GIB_BITS = 30


class Ranking(Protocol):
    """How agents that fit are ranked."""

    @property
    def rotates(self) -> bool:
        """Whether the row after the one taken last comes first."""
        ...

    @property
    def minds_devices(self) -> bool:
        """Whether `of` depends on whether devices are asked for."""
        ...

    @property
    def of(self) -> Callable[[Any, Any, Any, Any], Any] | None:
        """The key from whether devices are asked for and what is free (shares, milli-cores, bytes).

        Of one row, or of arrays; `None` for a ranking that depends on something else, too.
        """
        ...

    def keys(self, need: Need, room: Room, rows: NDArray[np.intp]) -> Ints:
        """Return the key of each of `rows`."""
        ...

    def position(self, need: Need, room: Room, row: int, positions: list[int]) -> int | None:
        """Choose the device for a part of one among `positions`; `None`: the tightest."""
        ...


class ByFree:
    """A ranking that looks at what is free on a row, and at nothing else; see `Ranking.of`."""

    def __init__(
        self,
        of: Callable[[Any, Any, Any, Any], Any],
        *,
        rotates: bool = False,
        minds_devices: bool = False,
    ) -> None:
        self.of = of
        self.rotates = rotates
        self.minds_devices = minds_devices

    def keys(self, need: Need, room: Room, rows: NDArray[np.intp]) -> Ints:
        free = room.gpu[rows], room.cpu[rows], room.mem[rows]
        keys: Ints = self.of(need.gpu > 0, *free)
        return keys

    def position(self, need: Need, room: Room, row: int, positions: list[int]) -> int | None:
        return None


def concentrated(with_devices: Any, gpu: Any, cpu: Any, mem: Any) -> Any:
    """Least free first: GPUs, then cpu, then whole GiB, so that whole agents and GPUs stay free."""
    return (gpu << 40) + (cpu << 12) + (mem >> GIB_BITS)


def dispersed(with_devices: Any, gpu: Any, cpu: Any, mem: Any) -> Any:
    """Most free first: GPUs when some are asked for, then cpu, then whole GiB.

    Without a request for GPUs, the agents with the fewest of them are taken among equals.
    """
    if with_devices:
        return -((gpu << 40) + (cpu << 12) + (mem >> GIB_BITS))
    return gpu - (cpu << 32) - ((mem >> GIB_BITS) << 20)


def in_turn(with_devices: Any, gpu: Any, cpu: Any, mem: Any) -> Any:
    """All are alike: the next agent by id after the one taken last, then from the beginning."""
    return gpu - gpu


CONCENTRATED = ByFree(concentrated)
