"""Place small batches in order of arrival, and compare with their proven optima.

Units: cpu in milli-cores, memory in MiB, devices in shares of 1/1000.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.openb import best_fit, concentrated, dispersed, fitting, of, take
from sokovan.domain.quantities import DEVICE_SHARES
from sokovan.placement import exact
from sokovan.placement.fragmentation import Ask, Float, Free, Int, least_worth_lost
from sokovan.placement.typical import frequent, generic, weighed

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "binpack"
STATELESS = {"best-fit": best_fit, "concentrated": concentrated, "dispersed": dispersed}
RANKINGS = (*STATELESS, "useful")


def rows(*, exact_s: float | None = None) -> list[dict[str, Any]]:
    """Return one row per ranking, summed up over all instances.

    Args:
        exact_s: Seconds for improving on each answer; `None` leaves that out.
    """
    optima = [json.loads(line) for line in (DATA / "optimum.jsonl").read_text().splitlines()]
    found = []
    for ranking in RANKINGS:
        total = {"shares": 0, "pods": 0}
        improved = {"exact_shares": 0, "exact_pods": 0}
        for optimum in optima:
            asks, room = load(DATA / optimum["instance"])
            spots = greedy(asks, room, ranking)
            total["shares"] += shares_of(asks, spots)
            total["pods"] += sum(spot is not None for spot in spots)
            if exact_s is not None:
                values = [[ask.gpu_shares for ask in asks], [1] * len(asks)]
                best = [
                    exact.improve(asks, room, spots, value, keep=False, seconds=exact_s)
                    for value in values
                ]
                improved["exact_shares"] += shares_of(asks, best[0])
                improved["exact_pods"] += sum(spot is not None for spot in best[1])
        best_shares = sum(optimum["max_gpu_milli"]["value"] for optimum in optima)
        best_pods = sum(optimum["max_pods"]["value"] for optimum in optima)
        found.append(
            {
                "ranking": ranking,
                **total,
                "shares_missing_%": round(100 - 100 * total["shares"] / best_shares, 2),
                "pods_missing_%": round(100 - 100 * total["pods"] / best_pods, 2),
                **({} if exact_s is None else improved),
                "optimum_shares": best_shares,
                "optimum_pods": best_pods,
            }
        )
    return found


def load(path: Path) -> tuple[list[Ask], Free]:
    """Read one instance."""
    data = json.loads(path.read_text())
    nodes = data["nodes"]
    count = np.array([node["gpus"] for node in nodes])
    room = Free(
        np.array([node["cpu_milli"] for node in nodes]),
        np.array([node["memory_mib"] for node in nodes]),
        np.where(np.arange(count.max()) < count[:, None], DEVICE_SHARES, 0),
    )
    asks = [
        Ask(pod["cpu_milli"], pod["memory_mib"], pod["num_gpu"] * pod["gpu_milli"])
        for pod in data["pods"]
    ]
    return asks, room


def greedy(asks: Sequence[Ask], room: Free, ranking: str) -> list[exact.Spot | None]:
    """Place one request after the other where `ranking` says; ties go to the first node.

    `useful` begins with the generic requests and learns each that comes, as it would from a queue.
    """
    room = Free(room.cpu_milli.copy(), room.mem_bytes.copy(), room.shares.copy())
    seen: dict[Ask, int] = {}
    cluster = Free(room.cpu_milli.copy(), room.mem_bytes.copy(), room.shares.copy())
    spots: list[exact.Spot | None] = []
    for ask in asks:
        seen[ask] = seen.get(ask, 0) + 1
        rows = np.flatnonzero(fitting(ask, room))
        if not rows.size:
            spots.append(None)
            continue
        keys, devices = ranked(ask, of(room, rows), ranking, seen, cluster)
        best = int(keys.argmin())
        spots.append(
            exact.Spot(int(rows[best]), take(ask, room, int(rows[best]), int(devices[best])))
        )
    return spots


def ranked(
    ask: Ask, room: Free, ranking: str, seen: dict[Ask, int], cluster: Free
) -> tuple[Int | Float, Int]:
    """Rank the nodes in `room`, all of which have room for `ask`."""
    if ranking in STATELESS:
        return STATELESS[ranking](ask, room, np.arange(len(room.cpu_milli)))
    shapes = [shape for shape in frequent(seen) if shape.count]
    if shapes:
        typical = weighed(shapes, [seen[shape] for shape in shapes], [1.0] * len(shapes))
    else:
        devices = int(cluster.shares.sum()) // DEVICE_SHARES
        cpu, mem = int(cluster.cpu_milli.sum()), int(cluster.mem_bytes.sum())
        typical = generic(cpu // devices, mem // devices)
    allowed = np.ones((len(room.cpu_milli), len(typical.weight)), dtype=bool)
    return least_worth_lost(ask, room, allowed, typical)


def shares_of(asks: Sequence[Ask], spots: exact.Spots) -> int:
    """Add up the shares that are placed."""
    return sum(ask.gpu_shares for ask, spot in zip(asks, spots, strict=True) if spot is not None)
