"""The agents of a group as arrays, one row each, and what is free on them.

Rows are in the order of agent ids, so that "the first of equals" is the same everywhere. `Machines`
lives between passes: a hold that comes or goes changes one row. What a pass takes, it takes from a
`Room`, a copy of the free amounts.

`grown` says when a row last became able to take more than before. Whoever found no room at some
version need look only at the rows that have grown since.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sokovan.domain.cluster import Agent, AgentStatus
from sokovan.domain.quantities import DEVICE_SHARES
from sokovan.domain.resources import DeviceShares, Hold
from sokovan.domain.sessions import AgentId
from sokovan.placement.filters import Eligible, Filter, eligible

Ints = NDArray[np.int64]
_stamps = count(1)
ABSENT = -1
"""The free shares of a device that an agent does not have."""


_ARRAYS = ("cpu", "mem", "shares", "kernels", "gpu", "whole", "top", "stamp")


class Room:
    """What is free on each row: the amounts that one pass takes from.

    With one more axis in front it is several rooms, see `Conservative`.

    Attributes:
        cpu: Milli-cores.
        mem: Bytes.
        shares: Free shares by row and position of the device; `ABSENT` where there is none.
        gpu: Free shares of all devices of the row.
        whole: Devices of the row that are wholly free.
        top: Free shares of the row's freest device.
        kernels: Kernels on the row.
        touched: The row of each change by this pass, in order; its length says when something was.
        stamp: A number for the present state of each row; other states of any row have others.
    """

    __slots__ = ("cpu", "gpu", "kernels", "mem", "shares", "stamp", "top", "touched", "whole")

    def __init__(self, cpu: Ints, mem: Ints, shares: Ints, kernels: Ints) -> None:
        self.cpu, self.mem, self.shares, self.kernels = cpu, mem, shares, kernels
        present = np.maximum(shares, 0)
        self.gpu: Ints = present.sum(axis=-1)
        self.whole: Ints = (shares == DEVICE_SHARES).sum(axis=-1)
        self.top: Ints = present.max(axis=-1, initial=0)
        self.touched: list[int] = []
        self.stamp: Ints = np.empty(cpu.shape, np.int64)
        self._restamp(...)

    def copy(self) -> "Room":
        """Return an equal room that nothing has touched."""
        room = Room.__new__(Room)
        for name in _ARRAYS:
            setattr(room, name, getattr(self, name).copy())
        room.touched = []
        return room

    def take(self, row: int, cpu: int, mem: int, devices: DeviceShares) -> None:
        """Occupy amounts of a row; `devices` are positions and shares."""
        self._change(row, -cpu, -mem, 1)
        if devices:
            shares = self.shares[row]
            wholly = True
            for position, part in devices:
                shares[position] -= part
                wholly &= part == DEVICE_SHARES
            left = self.whole.item(row) - len(devices)
            if wholly and left:
                self.whole[row] = left
                self.gpu[row] -= DEVICE_SHARES * len(devices)
            else:
                self._sum_up(row)
        self._touch(row)

    def give_back(self, row: int, cpu: int, mem: int, devices: DeviceShares) -> None:
        """Undo `take`."""
        self._change(row, cpu, mem, -1)
        if devices:
            shares = self.shares[row]
            for position, part in devices:
                shares[position] += part
            self._sum_up(row)
        self._touch(row)

    def _restamp(self, at: Any) -> None:
        stamps = self.stamp[at]
        self.stamp[at] = np.fromiter(_stamps, np.int64, stamps.size).reshape(stamps.shape)

    def _touch(self, row: int) -> None:
        self.touched.append(row)
        self.stamp[row] = next(_stamps)

    def _change(self, row: int, cpu: int, mem: int, kernels: int) -> None:
        if cpu:
            self.cpu[row] += cpu
        if mem:
            self.mem[row] += mem
        self.kernels[row] += kernels

    def put_rows(self, rows: NDArray[np.intp], now: "Room", later: "Room") -> None:
        """Let rows have the smaller of what is free `now` and `later`, where only they are."""
        self.cpu[rows] = np.minimum(now.cpu[rows], later.cpu)
        self.mem[rows] = np.minimum(now.mem[rows], later.mem)
        self.kernels[rows] = np.maximum(now.kernels[rows], later.kernels)
        self.shares[rows] = np.minimum(now.shares[rows], later.shares)
        self.sum_up(rows)
        self.touched += rows.tolist()

    def lower_to(self, row: int, now: "Room", later: "Room") -> None:
        """Let a row have the smaller of what two rooms have of everything."""
        self.cpu[row] = min(now.cpu.item(row), later.cpu.item(row))
        self.mem[row] = min(now.mem.item(row), later.mem.item(row))
        self.kernels[row] = max(now.kernels.item(row), later.kernels.item(row))
        self.shares[row] = np.minimum(now.shares[row], later.shares[row])
        self._sum_up(row)
        self._touch(row)

    def repeated(self, index: int) -> "Room":
        """Return a room of one more axis with one of its rooms there twice in succession."""
        room = Room.__new__(Room)
        for name in _ARRAYS:
            array = getattr(self, name)
            setattr(room, name, np.insert(array, index, array[index], axis=0))
        room.touched = []
        return room

    def sum_up(self, at: NDArray[np.intp] | tuple[slice, int]) -> None:
        """Bring the sums over devices in step."""
        present = np.maximum(self.shares[at], 0)
        self.gpu[at] = present.sum(axis=-1)
        self.whole[at] = (present == DEVICE_SHARES).sum(axis=-1)
        self.top[at] = present.max(axis=-1, initial=0)
        self._restamp(at)

    def _sum_up(self, row: int) -> None:
        shares = self.shares[row].tolist()
        self.whole[row] = shares.count(DEVICE_SHARES)
        self.gpu[row] = sum(shares) - ABSENT * shares.count(ABSENT)
        self.top[row] = max(0, *shares)


def smaller(now: Room, later: Room) -> Room:
    """Return a room that has the smaller of what two rooms have of everything."""
    return Room(
        np.minimum(now.cpu, later.cpu),
        np.minimum(now.mem, later.mem),
        np.minimum(now.shares, later.shares),
        np.maximum(now.kernels, later.kernels),
    )


class Machines:
    """The agents of one group that are not GONE, by row, with what is held on each.

    Args:
        agents: In any order.
        kernels_max: Most kernels on one agent; `None`: any number.
        version: Larger than that of the machines that these replace.
    """

    def __init__(
        self, agents: Iterable[Agent], kernels_max: int | None = None, version: int = 1
    ) -> None:
        present = (agent for agent in agents if agent.status is not AgentStatus.GONE)
        self.agents: list[Agent] = sorted(present, key=lambda agent: agent.agent_id)
        self.row_of: dict[AgentId, int] = {a.agent_id: r for r, a in enumerate(self.agents)}
        self.kernels_max = kernels_max
        self.version = version
        self.statics = version
        """The version at which something other than holds last changed."""
        size = len(self.agents)
        width = max((len(agent.capacity.devices) for agent in self.agents), default=0)
        self.cpu_total: Ints = np.zeros(size, np.int64)
        self.mem_total: Ints = np.zeros(size, np.int64)
        self.shares_total: Ints = np.full((size, max(1, width)), ABSENT, np.int64)
        self.device_mem: Ints = np.zeros_like(self.shares_total)
        self.serving = np.zeros(size, bool)
        self.grown: Ints = np.full(size, version, np.int64)
        self._grown_since: tuple[int, int, NDArray[np.intp]] | None = None
        self._cpu_held: Ints = np.zeros(size, np.int64)
        self._mem_held: Ints = np.zeros(size, np.int64)
        self._shares_held: Ints = np.zeros_like(self.shares_total)
        self._kernels: Ints = np.zeros(size, np.int64)
        self._positions: list[dict[int, int]] = [{} for _ in self.agents]
        self._straight = [True] * size
        """Whether each device of the row has its index for its position."""
        self.holds: dict[str, Hold] = {}
        self._eligible: dict[Filter, Eligible] = {}
        self._usable: dict[tuple[Filter, bool], NDArray[np.bool_] | None] = {}
        self._empty: Room | None = None
        for row in range(size):
            self._describe(row)
        self.free = self._all_free()

    # --- what changes between passes --------------------------------------------------------------

    def put_agent(self, agent: Agent) -> bool:
        """Take over an agent as it is now; `False` when only a new `Machines` can show it."""
        row = self.row_of.get(agent.agent_id)
        gone = agent.status is AgentStatus.GONE
        if row is None:
            return gone
        before = self.agents[row]
        if gone or before.capacity.devices != agent.capacity.devices:
            return False
        self.agents[row] = agent
        if _placed_alike(before, agent):
            return True
        self._describe(row)
        self._refresh(row)
        self._eligible.clear()
        self._usable.clear()
        self._empty = None
        self.grow([row])
        self.statics = self.version
        return True

    def put_hold(self, hold: Hold) -> None:
        """Take over a hold as it is now."""
        before = self.holds.get(hold.token)
        if before is not None:
            if _same_amounts(before, hold):
                self.holds[hold.token] = hold
                return
            self.drop_hold(before)
        self.holds[hold.token] = hold
        row = self.row_of.get(AgentId(hold.agent_id))
        if row is not None:
            self._hold(row, hold, 1)
            self.version += 1
            self._refresh(row)

    def drop_hold(self, hold: Hold) -> None:
        """Forget a hold."""
        known = self.holds.pop(hold.token, None)
        row = self.row_of.get(AgentId(hold.agent_id))
        if known is not None and row is not None:
            self._hold(row, known, -1)
            self._refresh(row)
            self.grow([row])

    def grow(self, rows: Iterable[int]) -> None:
        """Note that rows may be able to take more than before."""
        self.version += 1
        for row in rows:
            self.grown[row] = self.version

    # --- what passes ask --------------------------------------------------------------------------

    def room(self) -> Room:
        """Return what is free now, for a pass to take from."""
        return self.free.copy()

    def empty(self) -> Room:
        """Return what would be free if nothing were held: a copy, if something is to be taken."""
        if self._empty is None:
            nothing = np.zeros_like(self._kernels)
            self._empty = Room(self.cpu_total, self.mem_total, self.shares_total, nothing)
        return self._empty

    def eligible(self, where: Filter) -> Eligible:
        """Return which rows and devices a filter lets through."""
        found = self._eligible.get(where)
        if found is None:
            found = self._eligible[where] = eligible(where, self.agents, self.shares_total.shape[1])
        return found

    def grown_since(self, version: int) -> NDArray[np.intp] | None:
        """Return the rows that may take more than at `version`; `None` for 0: no such version."""
        if not version:
            return None
        kept = self._grown_since
        if kept is None or kept[:2] != (version, self.version):
            kept = (version, self.version, np.flatnonzero(self.grown > version))
            self._grown_since = kept
        return kept[2]

    def usable(self, where: Filter, *, serving_only: bool = True) -> NDArray[np.bool_] | None:
        """Return which rows a filter lets through; `None`: all.

        Args:
            where: The filter.
            serving_only: Only those that get new kernels at present.
        """
        key = where, serving_only
        if key not in self._usable:
            rows = self.eligible(where).rows
            if serving_only:
                rows = rows & self.serving
            self._usable[key] = None if rows.all() else rows
        return self._usable[key]

    def rows_of(self, agent_ids: Iterable[str]) -> list[int]:
        """Return the rows of those agents that are present."""
        found = (self.row_of.get(AgentId(agent_id)) for agent_id in agent_ids)
        return [row for row in found if row is not None]

    def index_of(self, row: int, devices: DeviceShares) -> DeviceShares:
        """Turn positions of devices, ascending, into their indexes, ascending."""
        if self._straight[row]:
            return devices
        known = self.agents[row].capacity.devices
        return tuple(sorted((known[position].index, part) for position, part in devices))

    def positions_of(self, row: int, devices: DeviceShares) -> DeviceShares:
        """Turn indexes of devices into positions; those that the agent has no more are left out."""
        known = self._positions[row]
        return tuple((known[index], part) for index, part in devices if index in known)

    def overdrawn(self) -> tuple[Ints, ...]:
        """Return by how much more is held than there is (cpu, mem, shares); empty if nowhere."""
        pairs = (
            (self._cpu_held, self.cpu_total),
            (self._mem_held, self.mem_total),
            (self._shares_held, np.maximum(self.shares_total, 0)),
        )
        if not any((held > total).any() for held, total in pairs):
            return ()
        return tuple(np.maximum(held - total, 0) for held, total in pairs)

    def used(self) -> Mapping[str, int]:
        """Return what is held on all rows, by slot."""
        return {
            "cpu": int(self._cpu_held.sum()),
            "mem": int(self._mem_held.sum()),
            "gpu": int(self._shares_held.sum()),
        }

    def totals(self) -> Mapping[str, int]:
        """Return what all rows have, by slot."""
        return {
            "cpu": int(self.cpu_total.sum()),
            "mem": int(self.mem_total.sum()),
            "gpu": int(np.maximum(self.shares_total, 0).sum()),
        }

    # --- keeping the arrays -----------------------------------------------------------------------

    def _describe(self, row: int) -> None:
        agent = self.agents[row]
        capacity = agent.capacity
        self.cpu_total[row] = capacity.cpu_milli
        self.mem_total[row] = capacity.mem_bytes
        self.shares_total[row] = ABSENT
        self.shares_total[row, : len(capacity.devices)] = DEVICE_SHARES
        self.device_mem[row] = 0
        self.device_mem[row, : len(capacity.devices)] = [d.mem_bytes for d in capacity.devices]
        self._positions[row] = {d.index: position for position, d in enumerate(capacity.devices)}
        self._straight[row] = all(index == at for index, at in self._positions[row].items())
        self.serving[row] = agent.takes_kernels

    def _hold(self, row: int, hold: Hold, sign: int) -> None:
        self._cpu_held[row] += sign * hold.cpu_milli
        self._mem_held[row] += sign * hold.mem_bytes
        self._kernels[row] += sign
        for position, part in self.positions_of(row, hold.devices):
            self._shares_held[row, position] += sign * part

    def _all_free(self) -> Room:
        shares = np.maximum(self.shares_total - self._shares_held, 0)
        return Room(
            np.maximum(self.cpu_total - self._cpu_held, 0),
            np.maximum(self.mem_total - self._mem_held, 0),
            np.where(self.shares_total == ABSENT, ABSENT, shares),
            self._kernels.copy(),
        )

    def _refresh(self, row: int) -> None:
        """Never below 0, should the capacity have shrunk under what is held."""
        free = self.free
        free.cpu[row] = max(0, self.cpu_total.item(row) - self._cpu_held.item(row))
        free.mem[row] = max(0, self.mem_total.item(row) - self._mem_held.item(row))
        free.kernels[row] = self._kernels[row]
        total = self.shares_total[row]
        shares = np.maximum(total - self._shares_held[row], 0)
        free.shares[row] = np.where(total == ABSENT, ABSENT, shares)
        free._sum_up(row)  # noqa: SLF001 - they are made for each other
        free.stamp[row] = next(_stamps)


def _placed_alike(one: Agent, other: Agent) -> bool:
    """Whether two states of an agent are the same for placement, and for what it says."""
    return (
        one.takes_kernels == other.takes_kernels
        and one.drain_reason == other.drain_reason
        and one.status is other.status
        and one.capacity == other.capacity
        and one.labels == other.labels
        and one.name == other.name
        and one.architecture == other.architecture
    )


def _same_amounts(one: Hold, other: Hold) -> bool:
    return (
        one.agent_id == other.agent_id
        and one.cpu_milli == other.cpu_milli
        and one.mem_bytes == other.mem_bytes
        and one.devices == other.devices
    )


def held_on(machines: Machines, rows: Sequence[int]) -> dict[int, list[Hold]]:
    """Return the holds on some rows."""
    wanted: dict[int, list[Hold]] = {row: [] for row in rows}
    for hold in machines.holds.values():
        row: Any = machines.row_of.get(AgentId(hold.agent_id))
        if row in wanted:
            wanted[row].append(hold)
    return wanted
