"""Agents that are alike: of each kind how many there are, and why they refuse a session."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sokovan.domain.cluster import Agent
from sokovan.placement.looks import CODES, Looks, counted, label
from sokovan.placement.machines import Machines
from sokovan.placement.snapshot import Snapshot

KINDS_NAMED_MAX = 20
"""How many kinds an explanation names at most."""


def kinds_of(snapshot: Snapshot) -> NDArray[np.intp]:
    """Number the kinds of agents, by row: same cores, memory and devices. Remembered."""
    machines = snapshot.machines
    kept = snapshot.memory.get("kinds")
    if kept is None or kept[0] is not machines or kept[1] != machines.agents_version:
        kept = snapshot.memory["kinds"] = machines, machines.agents_version, _numbered(machines)
    kinds: NDArray[np.intp] = kept[2]
    return kinds


def _numbered(machines: Machines) -> NDArray[np.intp]:
    models: dict[tuple[str, ...], int] = {}
    numbers = [
        models.setdefault((a.architecture, *[d.model for d in a.capacity.devices]), len(models))
        for a in machines.agents
    ]
    columns = (
        machines.cpu_total[:, None],
        machines.mem_total[:, None],
        machines.shares_total,
        machines.device_mem,
        np.array(numbers, np.int64)[:, None],
    )
    table = np.ascontiguousarray(np.concatenate(columns, axis=1))
    rows = table.view(np.dtype((np.void, table.dtype.itemsize * table.shape[1]))).ravel()
    return np.unique(rows, return_inverse=True)[1]


def kinds_told(
    looks: Looks, codes: NDArray[np.int8], kinds: NDArray[np.intp]
) -> list[dict[str, Any]]:
    """Tell of each kind how many refuse and why, the most numerous first. JSON-able.

    Args:
        looks: What the agents have to say.
        codes: Why each refuses, see `Looks.codes`.
        kinds: The number of each agent's kind.
    """
    numbers, counts = np.unique(kinds, return_counts=True)
    largest = np.argsort(-counts, kind="stable")[:KINDS_NAMED_MAX]
    return [_kind(looks, codes, np.flatnonzero(kinds == numbers[n])) for n in largest]


def _kind(looks: Looks, codes: NDArray[np.int8], rows: NDArray[np.intp]) -> dict[str, Any]:
    best = np.lexsort((looks.distance[rows], ~looks.serving[rows], ~looks.able[rows]))[0]
    row = int(rows[best])
    capacity = looks.agent(row).capacity
    devices = Counter((device.model, device.mem_bytes) for device in capacity.devices)
    refused_by = counted(codes[rows])
    return {
        "agents": len(rows),
        "cpu_milli": capacity.cpu_milli,
        "mem_bytes": capacity.mem_bytes,
        "devices": [
            {"model": model, "mem_bytes": mem_bytes, "count": count}
            for (model, mem_bytes), count in devices.items()
        ],
        "refused_by": refused_by,
        "with_room": len(rows) - sum(refused_by.values()),
        "closest": agent_told(looks, row),
    }


def agents_told(looks: Looks, rows: Sequence[int]) -> list[dict[str, Any]]:
    """Tell of agents what each lacks. JSON-able."""
    return [agent_told(looks, row) for row in rows]


def agent_told(looks: Looks, row: int) -> dict[str, Any]:
    """Tell of one agent what it lacks. JSON-able."""
    agent: Agent = looks.agent(row)
    lacks = []
    for slot in looks.short_on(row):
        requested, free, total = looks.numbers(slot, row)
        lacks.append(
            {
                "code": CODES[slot].value,
                "slot": slot,
                "requested": requested,
                "free": free,
                "total": total,
            }
        )
    return {
        "agent_id": agent.agent_id,
        "agent": label(agent),
        "status": agent.status.value,
        "drained": agent.is_drained,
        "code": looks.code_of(row).value,
        "lacks": lacks,
    }
