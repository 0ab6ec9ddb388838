"""What every agent has to say to one need: by how much of what it falls short, and why."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sokovan.domain.cluster import Agent, AgentStatus
from sokovan.domain.quantities import DEVICE_SHARES
from sokovan.domain.reasons import WaitReason
from sokovan.placement.filters import REFUSALS, refused_by
from sokovan.placement.machines import Machines
from sokovan.placement.needs import Need
from sokovan.placement.room import ABSENT, Ints, Room

AGENTS_NAMED_MAX = 20
"""How many agents a list in the facts names at most."""
CODES: Mapping[str, WaitReason] = {
    "cpu": WaitReason.TOO_LITTLE_CPU,
    "mem": WaitReason.TOO_LITTLE_MEM,
    "gpu_mem": WaitReason.GPU_MEM_TOO_SMALL,
    "gpu": WaitReason.TOO_FEW_GPUS,
    "kernels": WaitReason.TOO_MANY_KERNELS,
}
REASONS = tuple(WaitReason)
"""Arrays have their positions here for reasons."""


@dataclass(frozen=True, slots=True)
class Amounts:
    """One slot by row: what is asked for, what is free and what the empty agent has.

    In the slot's base unit: milli-cores, bytes, shares, bytes per device. For whole devices, free
    are the shares of those wholly free; for a part of a device, those of the freest one; for
    `gpu_mem`, what the n-th largest device has when n are asked for.
    """

    requested: Ints
    free: Ints
    total: Ints

    @property
    def short(self) -> NDArray[np.bool_]:
        """Where there is too little."""
        return self.requested > self.free

    @property
    def for_ever(self) -> NDArray[np.bool_]:
        """Where there would be too little on the empty agent."""
        return self.requested > self.total


class Looks:
    """What every agent has to say to one need, by row.

    Args:
        need: What one kernel asks for.
        machines: The agents.
        room: What is free on them.
    """

    def __init__(self, need: Need, machines: Machines, room: Room) -> None:
        self.need, self.machines = need, machines
        self.slots = _amounts(need, machines, room)
        self.lets = machines.eligible(need.filter).rows
        count = len(machines.agents)
        self.able = self.lets.copy()
        """Would take it, were it empty."""
        self.fits = self.lets.copy()
        self._worst: Ints = np.full(count, -1, np.int64)
        self._weight = np.zeros(count)
        self.distance = np.zeros(count)
        """How far it is from taking the need: the sum of all missing parts."""
        self.distance_when_empty = np.where(self.lets, 0.0, len(CODES))
        for number, slot in enumerate(self.slots):
            amounts = self.slots[slot]
            asked = np.maximum(amounts.requested, 1)
            missing = np.where(amounts.short, (amounts.requested - amounts.free) / asked, 0.0)
            self.distance += missing
            for_ever = amounts.for_ever
            self.distance_when_empty += np.where(for_ever, 1 - amounts.total / asked, 0.0)
            weight = np.where(amounts.short, missing + for_ever, 0.0)
            self._worst[weight > self._weight] = number
            self._weight = np.maximum(weight, self._weight)
            self.able &= ~for_ever
            self.fits &= ~amounts.short
        self.serving = machines.serving

    @property
    def refusing(self) -> NDArray[np.bool_]:
        """Which rows could take it, but not now; others have as many kernels as they are to."""
        return self.able & ~(self.fits & self.serving)

    def worst_of(self, row: int) -> str:
        """The slot whose shortage binds: one for ever before others, then the largest."""
        return list(self.slots)[self._worst.item(row)]

    def short_on(self, row: int) -> list[str]:
        """Every slot of which the row has too little."""
        return [slot for slot, amounts in self.slots.items() if amounts.short[row]]

    def numbers(self, slot: str, row: int) -> tuple[int, int, int]:
        """What is asked for, free and there in all."""
        amounts = self.slots[slot]
        return amounts.requested.item(row), amounts.free.item(row), amounts.total.item(row)

    def agent(self, row: int) -> Agent:
        """Return the agent of a row."""
        return self.machines.agents[row]

    def code_of(self, row: int) -> WaitReason:
        """Why the row does not take it now."""
        if not self.lets[row]:
            return self.unmet(row)[0]
        agent = self.agent(row)
        if not agent.takes_kernels:
            return out_of_service(agent)
        return CODES[self.worst_of(row)] if self._worst[row] >= 0 else WaitReason.NOT_EXAMINED_YET

    def unmet(self, row: int) -> tuple[WaitReason, str]:
        """What keeps the need from using the agent, whatever is free."""
        found = refused_by(self.need.filter, self.agent(row))
        assert found is not None
        return found

    def codes(self, *, as_if_serving: bool = False) -> NDArray[np.int8]:
        """Say by row why it does not take the need now, as positions in `REASONS`; -1: it does."""
        of_slots = [REASONS.index(CODES[slot]) for slot in self.slots]
        codes = np.array([*of_slots, -1], np.int8)[self._worst]
        refusals = np.array([REASONS.index(reason) for reason in REFUSALS], np.int8)
        refused = self.machines.eligible(self.need.filter).refused
        codes[~self.lets] = refusals[refused[~self.lets]]
        if not as_if_serving:
            for row in np.flatnonzero(self.lets & ~self.serving).tolist():
                codes[row] = REASONS.index(out_of_service(self.agent(row)))
        return codes

    def counted(self, *, as_if_serving: bool = False) -> dict[str, int]:
        """Count the agents by why they refuse."""
        return counted(self.codes(as_if_serving=as_if_serving))

    def closest(self, rows: NDArray[np.bool_], distance: NDArray[np.float64]) -> int:
        """Return the row of `rows` with the smallest distance, the first of equals."""
        found = np.flatnonzero(rows)
        return int(found[distance[found].argmin()])


def _amounts(need: Need, machines: Machines, room: Room) -> dict[str, Amounts]:
    count = len(machines.agents)

    def all_rows(amount: int) -> Ints:
        return np.full(count, amount, np.int64)

    found = {}
    if need.cpu:
        found["cpu"] = Amounts(all_rows(need.cpu), room.cpu, machines.cpu_total)
    if need.mem:
        found["mem"] = Amounts(all_rows(need.mem), room.mem, machines.mem_total)
    if need.gpu:
        found |= _device_amounts(need, machines, room)
    if machines.kernels_max is not None:
        most = all_rows(machines.kernels_max)
        found["kernels"] = Amounts(all_rows(1), np.maximum(most - room.kernels, 0), most)
    return found


def _device_amounts(need: Need, machines: Machines, room: Room) -> dict[str, Amounts]:
    """Too few devices; or enough of them, but with too little memory, which waiting cannot mend."""
    there = machines.shares_total != ABSENT
    allowed = machines.eligible(need.filter).devices
    able = there if allowed is None else there & allowed
    wanted = max(1, need.whole)
    of_memory = need.filter.gpu_mem_bytes_min
    requested: Ints = np.full(len(there), need.gpu, np.int64)
    sizes = np.sort(np.where(there, machines.device_mem, 0), axis=1)[:, ::-1]
    nth = sizes[:, wanted - 1] if sizes.shape[1] >= wanted else np.zeros(len(there), np.int64)
    too_small = (there.sum(axis=1) >= wanted) & (able.sum(axis=1) < wanted) & (nth < of_memory)
    found = {}
    if of_memory:
        asked = np.where(too_small, of_memory, 0)
        found["gpu_mem"] = Amounts(asked, nth, nth)
        requested = np.where(too_small, 0, requested)
    shares = np.where(able, room.shares, 0)
    if need.part:
        free = shares.max(axis=1, initial=0)
    else:
        free = (shares == DEVICE_SHARES).sum(axis=1) * DEVICE_SHARES
    found["gpu"] = Amounts(requested, free, able.sum(axis=1) * DEVICE_SHARES)
    return found


def counted(codes: NDArray[np.int8]) -> dict[str, int]:
    """Count the rows of each reason, by name."""
    found = zip(*np.unique(codes[codes >= 0], return_counts=True), strict=True)
    return dict(sorted((REASONS[int(code)].value, int(size)) for code, size in found))


def out_of_service(agent: Agent) -> WaitReason:
    """Say why an agent gets no new kernels at all."""
    if agent.status is not AgentStatus.ALIVE:
        return WaitReason.AGENT_NOT_ALIVE
    return WaitReason.AGENT_DRAINED


def label(agent: Agent) -> str:
    """What people call the agent."""
    return agent.name or agent.agent_id
