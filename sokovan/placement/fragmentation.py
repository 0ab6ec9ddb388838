"""Rank agents by the room that a placement would spoil for the requests that usually come.

Pure functions over arrays. Rows are agents, columns of `shares` are their devices.
Units: cpu in milli-cores, memory in bytes, devices in shares of 1/1000.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sokovan.domain.quantities import DEVICE_SHARES

EXPONENT_MAX = 500.0
Int = NDArray[np.int64]
Float = NDArray[np.float64]
Bool = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Ask:
    """What one request asks for."""

    cpu_milli: int
    mem_bytes: int
    gpu_shares: int
    """A multiple of 1000 asks for that many whole devices; less than 1000 for a part of one."""

    @property
    def count(self) -> int:
        """On how many devices."""
        return max(self.gpu_shares // DEVICE_SHARES, int(self.gpu_shares > 0))

    @property
    def share(self) -> int:
        """How much of each."""
        return min(self.gpu_shares, DEVICE_SHARES)


@dataclass(frozen=True, slots=True)
class Free:
    """What is free on some agents."""

    cpu_milli: Int
    """Per agent."""
    mem_bytes: Int
    """Per agent."""
    shares: Int
    """Per agent and device; 0 where an agent has no such device."""


@dataclass(frozen=True, slots=True)
class Typical:
    """The requests to keep room for, one entry per shape."""

    cpu_milli: Int
    mem_bytes: Int
    count: Int
    share: Int
    weight: Float
    """How much each counts."""


@dataclass(frozen=True, slots=True)
class Ways:
    """The ways to place one request: a row each, one or several per agent."""

    agent: Int
    """Row of the agent in the `Free` that was asked about, ascending."""
    device: Int
    """The device that gives a part, -1 where whole devices or none are taken."""
    after: Free
    """What would be free on that agent."""


def ways(ask: Ask, room: Free, usable: Bool | None = None) -> Ways:
    """List the ways in which agents with room for `ask` could take it.

    A part may come from any device with room for it; of those with equally much free only the first
    counts. Whole devices are taken by ascending index.

    Args:
        ask: What is asked for.
        room: What is free on agents that have room for `ask`.
        usable: Per agent and device, whether the request may take it; `None` allows all.
    """
    agents = np.arange(len(room.cpu_milli))
    none = np.full(len(agents), -1)
    shares = room.shares
    if not ask.count:
        return Ways(agents, none, _less(room, ask, agents, shares))
    fits = shares >= ask.share
    if usable is not None:
        fits &= usable
    if ask.share == DEVICE_SHARES:
        taken = fits & (np.cumsum(fits, axis=1) <= ask.count)
        return Ways(agents, none, _less(room, ask, agents, shares - taken * DEVICE_SHARES))
    alike = (shares[:, :, None] == shares[:, None, :]) & fits[:, None, :]
    agents, devices = np.nonzero(fits & ~np.tril(alike, -1).any(axis=2))
    after = shares[agents]
    after[np.arange(len(agents)), devices] -= ask.share
    return Ways(agents, devices, _less(room, ask, agents, after))


def _less(room: Free, ask: Ask, agents: Int, shares: Int) -> Free:
    cpu_milli, mem_bytes = room.cpu_milli[agents], room.mem_bytes[agents]
    return Free(cpu_milli - ask.cpu_milli, mem_bytes - ask.mem_bytes, shares)


def spoiled(room: Free, allowed: Bool, typical: Typical) -> Float:
    """Free shares that a typical request cannot use, on average over `typical`, per agent.

    Args:
        room: What is free.
        allowed: Per agent and typical shape, whether the agent's devices are of an allowed model.
        typical: The requests to keep room for; the weights sum up to 1.

    Returns:
        Shares. An agent without room for a shape counts with all its free shares, one with room
        with those on devices that are too small for the shape. A shape without devices uses none.

    Source:
        Weng et al., "Beware of Fragmentation", USENIX ATC 2023, the measure behind FGD.
    """
    levels, level = np.unique(typical.share, return_inverse=True)
    shares = room.shares[:, :, None]
    large = shares >= levels  # agent, device, level
    fitting = large.sum(axis=1)[:, level]
    small = np.where(large, 0, shares).sum(axis=1)[:, level]
    hosts = allowed & (typical.count > 0) & (fitting >= typical.count)
    hosts &= room.cpu_milli[:, None] >= typical.cpu_milli
    idle = room.shares.sum(axis=1)[:, None]
    return np.asarray(np.where(hosts, small, idle) @ typical.weight)


def published_fgd(
    ask: Ask, room: Free, allowed: Bool, typical: Typical, usable: Bool | None = None
) -> tuple[Int, Int]:
    """Rank agents with room for `ask` as the published FGD policy does: integers, hence ties.

    Args:
        ask: What is asked for.
        room: What is free on agents that have room for `ask`.
        allowed: Per agent and typical shape, whether the agent's devices are of an allowed model.
        typical: The requests to keep room for; their weights matter as parts of the sum.
        usable: Per agent and device, whether the request may take it; `None` allows all.

    Returns:
        A key per agent, the smallest wins; and the device that gives a part, or -1.

    Source:
        Weng et al., "Beware of Fragmentation", USENIX ATC 2023: 100 times the sigmoid of the
        decrease of `spoiled` in devices, cut to an integer.
    """
    found = ways(ask, room, usable)
    before = spoiled(room, allowed, typical)[found.agent]
    after = spoiled(found.after, allowed[found.agent], typical)
    scale = round(typical.weight.sum())  # 1, or what whole numbers as weights sum up to
    change = np.clip((after - before) / (DEVICE_SHARES * scale), -EXPONENT_MAX, EXPONENT_MAX)
    score = 100 / (1 + np.exp(change))
    return _best(found, -score.astype(np.int64))


def worth(room: Free, allowed: Bool, typical: Typical) -> Int:
    """Free shares that typical requests can use, weighted, per agent.

    Per typical shape two amounts are added up. One is the free shares on devices large enough for
    it, if the agent has room for one. The other is the shares that as many as fit would take: in
    whole numbers by devices, pro rata by cpu and memory, so that cpu counts before it runs out.

    Args:
        room: What is free.
        allowed: Per agent and typical shape, whether the agent's devices are of an allowed model.
        typical: The requests to keep room for, each with devices; weights as in `weighed`.

    Returns:
        Shares times weight; exact, so that the same numbers order the same on every machine.

    Source:
        Ours. The first amount is what `spoiled` leaves of the free shares; the second is new.
    """
    levels, level = np.unique(typical.share, return_inverse=True)
    shares = room.shares[:, :, None]
    copies = shares // levels  # agent, device, level
    large = copies > 0
    useful = np.where(large, shares, 0).sum(axis=1)[:, level]
    fitting = np.where(
        typical.count > 1,
        large.sum(axis=1)[:, level] // typical.count,
        copies.sum(axis=1)[:, level],
    )
    cpu, mem = room.cpu_milli[:, None], room.mem_bytes[:, None]
    hosts = (fitting > 0) & (cpu >= typical.cpu_milli) & (mem >= typical.mem_bytes)
    size = typical.count * typical.share
    hosted = fitting * size
    for free, needed in ((cpu, typical.cpu_milli), (mem, typical.mem_bytes)):
        pro_rata = np.maximum(free, 0) * size // np.maximum(needed, 1)
        hosted = np.where(needed > 0, np.minimum(hosted, pro_rata), hosted)
    value = np.where(allowed, np.where(hosts, useful, 0) + hosted, 0)
    # Whole numbers below 2**53: the sum is exact in whatever order it is taken.
    return np.asarray((value.astype(np.float64) @ typical.weight).astype(np.int64))


def least_worth_lost(
    ask: Ask, room: Free, allowed: Bool, typical: Typical, usable: Bool | None = None
) -> tuple[Int, Int]:
    """Rank agents with room for `ask` by what typical requests lose there; least first.

    Args and returns are those of `published_fgd`, the weights those of `weighed`.
    """
    found = ways(ask, room, usable)
    before = worth(room, allowed, typical)[found.agent]
    return _best(found, before - worth(found.after, allowed[found.agent], typical))


def _best(found: Ways, key: Int) -> tuple[Int, Int]:
    """Keep the smallest key of each agent, of equal ones the first device."""
    order = np.lexsort((found.device, key, found.agent))
    _, first = np.unique(found.agent[order], return_index=True)
    kept = order[first]
    return key[kept], found.device[kept]
