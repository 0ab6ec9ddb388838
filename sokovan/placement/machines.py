"""The agents of a group as arrays, one row each, and what is free on them.

Rows are in the order of agent ids, so that "the first of equals" is the same everywhere. `Machines`
lives between passes: a hold that comes or goes changes one row. What a pass takes, it takes from a
`Room`, a copy of the free amounts.

`grown` says when a row last became able to take more than before. Whoever found no room at some
version need look only at the rows that have grown since.
"""

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from sokovan.domain.cluster import Agent, AgentStatus
from sokovan.domain.quantities import DEVICE_SHARES
from sokovan.domain.resources import DeviceShares, Hold
from sokovan.domain.sessions import AgentId
from sokovan.placement.filters import Eligible, Filter, eligible
from sokovan.placement.room import ABSENT, Ints, Room

CPU_MILLI_MAX = 2**30 - 1
MEM_BYTES_MAX = 2**48
"""No agent has more than a million cores and 256 TiB. One that says so is taken at that: what is
added up and ranked stays within 64 bits, and one agent's nonsense never stops a pass."""


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
        self.agents_version = version
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
        self.agents_version = self.version
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
        self.cpu_total[row] = min(capacity.cpu_milli, CPU_MILLI_MAX)
        self.mem_total[row] = min(capacity.mem_bytes, MEM_BYTES_MAX)
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
        free.sum_up_row(row)
        free.restamp(row)


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
