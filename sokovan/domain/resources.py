"""Exact integer amounts: what kernels ask for, what agents have, what is held.

Units everywhere: cpu in milli-cores, mem in bytes, each device in shares of 1/1000.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self

from sokovan.domain.quantities import DEVICE_SHARES
from sokovan.domain.values import quickly_made


@quickly_made
@dataclass(frozen=True, slots=True)
class Request:
    """What one kernel asks for; 0 means not requested."""

    cpu_milli: int = 0
    mem_bytes: int = 0
    gpu_shares: int = 0
    """A multiple of 1000 asks for that many whole devices; less than 1000 for a part of one."""
    gpu_mem_bytes_min: int = 0
    """Each device must have at least this much memory: a condition, not an amount."""

    @property
    def devices_whole(self) -> int:
        """How many whole devices it asks for."""
        return self.gpu_shares // DEVICE_SHARES

    @property
    def device_fraction(self) -> int:
        """The shares it asks for on a single device, 0 when it asks for whole devices."""
        return self.gpu_shares % DEVICE_SHARES


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU of an agent."""

    index: int
    model: str = ""
    mem_bytes: int = 0
    uuid: str = ""


@dataclass(frozen=True, slots=True)
class Capacity:
    """All that an agent offers."""

    cpu_milli: int = 0
    mem_bytes: int = 0
    devices: tuple[Device, ...] = ()


DeviceShares = tuple[tuple[int, int], ...]
"""Pairs of (device index, shares held there), by ascending index."""


@quickly_made
@dataclass(frozen=True, slots=True)
class Usage:
    """What is held on an agent, or what is free there."""

    cpu_milli: int = 0
    mem_bytes: int = 0
    shares: Mapping[int, int] = field(default_factory=dict)
    """Shares per device index."""

    def plus(self, cpu_milli: int, mem_bytes: int, devices: DeviceShares) -> Self:
        """Return the sum with one more hold."""
        shares = dict(self.shares)
        for index, amount in devices:
            shares[index] = shares.get(index, 0) + amount
        return type(self)(self.cpu_milli + cpu_milli, self.mem_bytes + mem_bytes, shares)


@quickly_made
@dataclass(frozen=True, slots=True)
class Hold:
    """What one kernel occupies on one agent until that agent confirms it gone.

    A hold whose `leftover_since` is set belongs to a leftover: a kernel that may still exist
    although its session has moved on.
    """

    token: str
    session_id: str
    kernel_id: str
    agent_id: str
    cpu_milli: int = 0
    mem_bytes: int = 0
    devices: DeviceShares = ()
    leftover_since: float | None = None

    @property
    def is_leftover(self) -> bool:
        """Whether the session has moved on from this kernel."""
        return self.leftover_since is not None


def used_by(holds: Iterable[Hold]) -> Usage:
    """Add up `holds`."""
    total = Usage()
    for hold in holds:
        total = total.plus(hold.cpu_milli, hold.mem_bytes, hold.devices)
    return total


def over_held(capacity: Capacity, used: Usage) -> str | None:
    """Name the first slot of which more is used than exists, or `None`."""
    if used.cpu_milli > capacity.cpu_milli:
        return "cpu"
    if used.mem_bytes > capacity.mem_bytes:
        return "mem"
    known = {device.index for device in capacity.devices}
    for index, shares in sorted(used.shares.items()):
        if shares > (DEVICE_SHARES if index in known else 0):
            return f"gpu{index}"
    return None
