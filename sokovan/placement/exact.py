"""Improve on the placement of a small batch with an exact solver, within a time limit.

Needs the extra `sokovan[exact]`; the solver is loaded when it is asked for, and not before.
"""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sokovan.domain.quantities import DEVICE_SHARES
from sokovan.placement.fragmentation import Ask, Bool, Free


@dataclass(frozen=True, slots=True)
class Spot:
    """Where one request goes."""

    agent: int
    """Row of the agent in the `Free`."""
    devices: tuple[int, ...] = ()
    """Ascending: the one that gives a part, or those that are given whole."""


Spots = Sequence[Spot | None]
"""Per request where it goes, or `None` where it waits."""


def is_available() -> bool:
    """Say whether the solver is installed."""
    return importlib.util.find_spec("ortools") is not None


def improve(
    asks: Sequence[Ask],
    room: Free,
    start: Spots,
    values: Sequence[int],
    *,
    allowed: Bool | None = None,
    groups: Sequence[int] | None = None,
    keep: bool = True,
    seconds: float = 1.0,
) -> Spots:
    """Place more of a batch than `start` does, or return `start`.

    The work is limited by the solver's own count of it, so that equal calls give equal answers on
    every machine, and by twice the seconds as a guard, after which they might not.

    Args:
        asks: What each request asks for.
        room: What is free on the agents before any of the batch is placed.
        start: A placement that fits; better ones are looked for from there.
        values: What placing each request is worth, 0 or more; the sum is made as large as it gets.
        allowed: Per request and agent, whether it may go there; `None` allows all.
        groups: Per request, the group that it is placed with, all or none; `None` has no groups.
        keep: Whether all that `start` places must be placed, if elsewhere.
        seconds: How much work, in about seconds.

    Raises:
        ModuleNotFoundError: The solver is not installed.
    """
    from ortools.sat.python import cp_model

    if None not in start:
        return start
    model = Model(cp_model.CpModel(), asks, room, allowed)
    together = list(range(len(asks))) if groups is None else groups
    placed = {group: model.cp.new_bool_var("") for group in dict.fromkeys(together)}
    for request, group in enumerate(together):
        model.cp.add(sum(model.on[request].values()) == placed[group])
        if keep and start[request] is not None:
            model.cp.add(placed[group] == 1)
    before = sum(value for value, spot in zip(values, start, strict=True) if spot is not None)
    total = sum(value * placed[group] for value, group in zip(values, together, strict=True))
    model.cp.add(total >= before)
    model.cp.maximize(total)
    model.hint(start)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = 0
    solver.parameters.max_deterministic_time = seconds
    solver.parameters.max_time_in_seconds = 2 * seconds
    if solver.solve(model.cp) not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return start
    if round(solver.objective_value) <= before:
        return start
    return model.spots(solver)


class Model:
    """The variables that say where requests go, and what limits them."""

    def __init__(self, cp: Any, asks: Sequence[Ask], room: Free, allowed: Bool | None) -> None:
        self.cp = cp
        self._asks = asks
        self._shares = room.shares
        agents = range(len(room.cpu_milli))
        self.on: list[dict[int, Any]] = [
            {
                agent: cp.new_bool_var("")
                for agent in agents
                if allowed is None or allowed[request, agent]
            }
            for request in range(len(asks))
        ]
        """Per request and agent, whether it goes there."""
        self.part: dict[tuple[int, int, int], Any] = {}
        """Per request for a part, agent and device, whether that device gives it."""
        self.whole: dict[tuple[int, int], Any] = {}
        """Per agent and device that is all free, whether it is given whole."""
        for agent in agents:
            here = [request for request in range(len(asks)) if agent in self.on[request]]
            cp.add(
                sum(asks[r].cpu_milli * self.on[r][agent] for r in here)
                <= int(room.cpu_milli[agent])
            )
            cp.add(
                sum(asks[r].mem_bytes * self.on[r][agent] for r in here)
                <= int(room.mem_bytes[agent])
            )
            self._devices(agent, here)

    def _devices(self, agent: int, here: Sequence[int]) -> None:
        """Limit what the devices of one agent give."""
        free = [int(shares) for shares in self._shares[agent]]
        parts = [r for r in here if 0 < self._asks[r].share < DEVICE_SHARES]
        wholes = [r for r in here if self._asks[r].share == DEVICE_SHARES]
        for device, shares in enumerate(free):
            if shares == DEVICE_SHARES:
                self.whole[agent, device] = self.cp.new_bool_var("")
            for request in parts:
                if shares >= self._asks[request].share:
                    self.part[request, agent, device] = self.cp.new_bool_var("")
            given = sum(
                self._asks[request].share * self.part[request, agent, device]
                for request in parts
                if (request, agent, device) in self.part
            )
            self.cp.add(given + DEVICE_SHARES * self.whole.get((agent, device), 0) <= shares)
        for request in parts:
            ways = [
                self.part[request, agent, device]
                for device in range(len(free))
                if (request, agent, device) in self.part
            ]
            self.cp.add(sum(ways) == self.on[request][agent])
        needed = sum(self._asks[request].count * self.on[request][agent] for request in wholes)
        ready = [self.whole[agent, d] for d in range(len(free)) if (agent, d) in self.whole]
        self.cp.add(needed == sum(ready))

    def hint(self, start: Spots) -> None:
        """Have the search begin with `start`."""
        given = {
            (spot.agent, device)
            for ask, spot in zip(self._asks, start, strict=True)
            if spot is not None and ask.share == DEVICE_SHARES
            for device in spot.devices
        }
        for request, spot in enumerate(start):
            for agent, variable in self.on[request].items():
                self.cp.add_hint(variable, int(spot is not None and spot.agent == agent))
        for (request, agent, device), variable in self.part.items():
            self.cp.add_hint(variable, int(start[request] == Spot(agent, (device,))))
        for place, variable in self.whole.items():
            self.cp.add_hint(variable, int(place in given))

    def spots(self, solver: Any) -> Spots:
        """Read the answer: requests for whole devices take those given, by ascending index."""
        left: dict[int, list[int]] = {}
        for (agent, device), variable in self.whole.items():
            if solver.boolean_value(variable):
                left.setdefault(agent, []).append(device)
        answer: list[Spot | None] = []
        for request, ask in enumerate(self._asks):
            agent = next((a for a, on in self.on[request].items() if solver.boolean_value(on)), -1)
            if agent == -1:
                answer.append(None)
            elif ask.share == DEVICE_SHARES:
                taken, left[agent] = left[agent][: ask.count], left[agent][ask.count :]
                answer.append(Spot(agent, tuple(taken)))
            else:
                devices = range(self._shares.shape[1] if ask.count else 0)
                given = [d for d in devices if self._gives(request, agent, d, solver)]
                answer.append(Spot(agent, tuple(given)))
        return answer

    def _gives(self, request: int, agent: int, device: int, solver: Any) -> bool:
        variable = self.part.get((request, agent, device))
        return variable is not None and bool(solver.boolean_value(variable))
