"""Which agents and devices may be used at all: architecture, labels, constraints, names.

What a filter lets through depends on the agents alone, not on what is free; `Machines` keeps the
answer until an agent changes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sokovan.domain.cluster import Agent
from sokovan.domain.errors import InvalidRequestError
from sokovan.domain.quantities import DEVICE_SHARES
from sokovan.domain.reasons import WaitReason
from sokovan.domain.resources import Device, Request
from sokovan.domain.where import Comparison, Constraint, Where, number_of


@dataclass(frozen=True, slots=True)
class Filter:
    """What a kernel demands of agents and devices besides amounts; see `Where`."""

    constraints: tuple[Constraint, ...] = ()
    agents: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    gpu_mem_bytes_min: int = 0


def minds_devices(where: Filter) -> bool:
    """Say whether a filter lets some devices of an agent through and others not."""
    return bool(where.gpu_mem_bytes_min) or any(c.is_of_devices for c in where.constraints)


def filter_of(request: Request, where: Where) -> Filter:
    """Return the filter of one kernel; equal for equal demands."""
    least = request.gpu_mem_bytes_min if request.gpu_shares else 0
    return Filter(where.constraints, where.agents, where.exclude, least)


@dataclass(frozen=True, slots=True)
class Eligible:
    """What a filter lets through.

    Attributes:
        rows: By row, whether the agent may be used.
        devices: By row and position, whether the device may be used; `None`: every device.
        refused: By row, the position in `REFUSALS` of why the agent may not be used.
    """

    rows: NDArray[np.bool_]
    devices: NDArray[np.bool_] | None
    refused: NDArray[np.int8]


REFUSALS = (
    WaitReason.AGENT_NOT_CHOSEN,
    WaitReason.AGENT_EXCLUDED,
    WaitReason.CONSTRAINT_NOT_MET,
)
"""Why an agent may not be used whatever is free."""


def eligible(where: Filter, agents: Sequence[Agent], width: int) -> Eligible:
    """Ask every agent and device. `width`: positions of devices in a row."""
    refusals = [refused_by(where, agent) for agent in agents]
    refused = np.array([-1 if r is None else REFUSALS.index(r[0]) for r in refusals], np.int8)
    rows = refused < 0
    if not minds_devices(where):
        return Eligible(rows, None, refused)
    devices = np.zeros((len(agents), max(1, width)), bool)
    for row, agent in enumerate(agents):
        for position, device in enumerate(agent.capacity.devices):
            devices[row, position] = lets_through(where, device)
    return Eligible(rows, devices, refused)


def refused_by(where: Filter, agent: Agent) -> tuple[WaitReason, str] | None:
    """Say what keeps a filter from using an agent, whatever is free, and what it asked for."""
    if where.agents and not {agent.name, agent.agent_id} & set(where.agents):
        return WaitReason.AGENT_NOT_CHOSEN, "|".join(where.agents)
    if {agent.name, agent.agent_id} & set(where.exclude):
        return WaitReason.AGENT_EXCLUDED, "|".join(where.exclude)
    for constraint in where.constraints:
        if not meets(constraint, agent):
            return WaitReason.CONSTRAINT_NOT_MET, str(constraint)
    return None


def meets(constraint: Constraint, agent: Agent) -> bool:
    """Say whether an agent, or some device of it, meets a constraint."""
    if constraint.is_of_devices:
        return any(device_meets(constraint, device) for device in agent.capacity.devices)
    return _compare(constraint, attribute_of(agent, constraint.attribute))


def lets_through(where: Filter, device: Device) -> bool:
    """Say whether a device may be used."""
    return device.mem_bytes >= where.gpu_mem_bytes_min and all(
        device_meets(c, device) for c in where.constraints if c.is_of_devices
    )


def device_meets(constraint: Constraint, device: Device) -> bool:
    """Say whether a device meets a constraint."""
    if constraint.attribute == "gpu_model":
        return _compare(constraint, device.model)
    return _compare(constraint, device.mem_bytes)


def attribute_of(agent: Agent, attribute: str) -> str | int | None:
    """Return the value of an attribute: a label, or what every agent has; `None`: not there."""
    builtin = _BUILTIN.get(attribute)
    return builtin(agent) if builtin else agent.labels.get(attribute)


_BUILTIN: Mapping[str, Callable[[Agent], str | int]] = {
    "agent": lambda agent: agent.name or agent.agent_id,
    "architecture": lambda agent: agent.architecture,
    "cpu": lambda agent: agent.capacity.cpu_milli,
    "mem": lambda agent: agent.capacity.mem_bytes,
    "gpus": lambda agent: len(agent.capacity.devices) * DEVICE_SHARES,
}


def _compare(constraint: Constraint, value: str | int | None) -> bool:
    """Compare; an attribute that is not there meets only `!=`."""
    comparison = constraint.comparison
    if value is None:
        return comparison is Comparison.IS_NOT
    try:
        if comparison in {Comparison.IS, Comparison.IS_NOT}:
            named = _is_one_of(constraint, value)
            return named == (comparison is Comparison.IS)
        number = value if isinstance(value, int) else number_of(constraint.attribute, value)
        if comparison is Comparison.AT_LEAST:
            return number >= constraint.number
        return number <= constraint.number
    except InvalidRequestError:  # a label that is no number is neither more nor less
        return False


def _is_one_of(constraint: Constraint, value: str | int) -> bool:
    """Whether the value is among the alternatives; models of devices compare without case."""
    if isinstance(value, int):
        return value in {number_of(constraint.attribute, text) for text in constraint.values}
    if constraint.attribute != "gpu_model":
        return value in constraint.values
    model = value.lower()
    return any(text.lower() == model or text.lower() in model.split() for text in constraint.values)
