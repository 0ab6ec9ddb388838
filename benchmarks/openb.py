"""Replay the published openb placement experiments: requests arrive one by one and never leave.

Method and formulas: shared/data/README.md, after Weng et al., "Beware of Fragmentation",
USENIX ATC 2023. Units: cpu in milli-cores, memory in MiB here, devices in shares of 1/1000.
"""

import csv
import gzip
import io
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import openb_engine
from sokovan.domain.cluster import AgentRanking
from sokovan.domain.quantities import DEVICE_SHARES
from sokovan.placement.fragmentation import (
    Ask,
    Bool,
    Float,
    Free,
    Int,
    published_fgd,
)
from sokovan.placement.typical import frequent, table

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "openb"
LISTS = ("default", "cpu100", "gpushare40", "gpushare100", "multigpu50", "gpuspec33")
SEEDS = (42, 43, 44)


@dataclass(frozen=True, slots=True)
class Form:
    """What equal requests have in common."""

    ask: Ask
    models: frozenset[str]
    """The allowed GPU models; empty allows any."""


@dataclass(frozen=True, slots=True)
class Nodes:
    """The cluster, empty."""

    names: tuple[str, ...]
    room: Free
    models: tuple[str, ...]

    def allowed(self, form: Form) -> Bool:
        """Say which nodes have GPUs of a model that `form` allows."""
        if not form.models:
            return np.ones(len(self.models), dtype=bool)
        return np.array([model in form.models for model in self.models])


@dataclass(frozen=True, slots=True)
class Trace:
    """One pod list with one order of arrival."""

    forms: tuple[Form, ...]
    """Every different request of the pod list."""
    listed: Int
    """Form of each entry of the pod list."""
    arrivals: Int
    """Form of each arrival."""
    rank: Int
    """Per node: of equal ones, the lowest is taken."""


def read(path: Path) -> list[dict[str, str]]:
    """Read a CSV file, compressed or not."""
    data = path.read_bytes()
    text = gzip.decompress(data) if path.suffix == ".gz" else data
    return list(csv.DictReader(io.StringIO(text.decode())))


def load_nodes(folder: Path = DATA) -> Nodes:
    """Read the node list of the published runs."""
    rows = read(folder / "openb_node_list_gpu_node.csv")
    count = np.array([int(row["gpu"]) for row in rows])
    room = Free(
        np.array([int(row["cpu_milli"]) for row in rows]),
        np.array([int(row["memory_mib"]) for row in rows]),
        np.where(np.arange(count.max()) < count[:, None], DEVICE_SHARES, 0),
    )
    return Nodes(tuple(row["sn"] for row in rows), room, tuple(row["model"] for row in rows))


def load_published(folder: Path = DATA) -> dict[tuple[str, str, int], dict[int, float]]:
    """Read the published curves: allocated percent by percent asked for, per list, policy, seed."""
    names = {"05-BestFit": "best-fit", "06-FGD": "fgd"}
    return {
        (row["workload"], names[row["sc_policy"]], int(row["seed"])): {
            int(at): float(cell) for at, cell in row.items() if at.isdigit() and cell
        }
        for row in read(folder / "published_alloc.csv.gz")
        if row["sc_policy"] in names
    }


def load_trace(name: str, seed: int, nodes: Nodes, folder: Path = DATA) -> Trace:
    """Read one pod list and one order of arrival."""
    positions: dict[Form, int] = {}
    listed = [
        positions.setdefault(form_of(row), len(positions))
        for row in read(folder / f"openb_pod_list_{name}.csv.gz")
    ]
    order = gzip.decompress((folder / "arrivals" / f"{name}_seed{seed}.txt.gz").read_bytes())
    lines = gzip.decompress((folder / "arrivals" / f"{name}_seed{seed}.rank.csv.gz").read_bytes())
    ranks = {name: int(rank) for name, rank in csv.reader(lines.decode().split())}
    return Trace(
        forms=tuple(positions),
        listed=np.array(listed),
        arrivals=np.array(listed)[np.array(order.split(), dtype=int)],
        rank=np.array([ranks[name] for name in nodes.names]),
    )


def form_of(row: dict[str, str]) -> Form:
    """Return what one line of a pod list asks for."""
    ask = Ask(
        int(row["cpu_milli"]),
        int(row["memory_mib"]),
        int(row["num_gpu"]) * int(row["gpu_milli"]),
    )
    return Form(ask, frozenset((row.get("gpu_spec") or "").split("|")) - {""})


Scorer = Callable[[Ask, Free, Int], tuple[Int | Float, Int]]
"""From a request, what is free on nodes with room for it, and which nodes those are:
a key per node, the smallest wins; and the device that gives a part, or -1."""


class Cluster:
    """The nodes while requests arrive, in the order in which ties are decided.

    Keeps the keys of each form, and renews those of the nodes that changed since.
    """

    def __init__(self, nodes: Nodes, trace: Trace) -> None:
        order = np.argsort(trace.rank)
        full = nodes.room
        self.empty = Free(full.cpu_milli[order], full.mem_bytes[order], full.shares[order])
        self.room = Free(full.cpu_milli[order], full.mem_bytes[order], full.shares[order])
        self.suited = np.array([nodes.allowed(form)[order] for form in trace.forms])
        self._forms = trace.forms
        self._scorer: Scorer = best_fit
        self._keys = np.full(self.suited.shape, np.inf)
        self._device = np.full(self.suited.shape, -1)
        self._changed: list[int] = []
        self._fresh = [-1] * len(trace.forms)

    def rank_by(self, scorer: Scorer) -> None:
        """Rank by `scorer` from now on."""
        self._scorer = scorer
        self._fresh = [-1] * len(self._fresh)

    def put(self, form: int) -> bool:
        """Place one request; `False` when no node has room."""
        self._renew(form)
        node = int(self._keys[form].argmin())
        if self._keys[form, node] == np.inf:
            return False
        take(self._forms[form].ask, self.room, node, int(self._device[form, node]))
        self._changed.append(node)
        return True

    def _renew(self, form: int) -> None:
        fresh, self._fresh[form] = self._fresh[form], len(self._changed)
        if fresh == -1:
            rows = np.flatnonzero(self.suited[form])
        else:
            rows = np.unique(np.array(self._changed[fresh:], dtype=int))
            rows = rows[self.suited[form, rows]]
        ask, room = self._forms[form].ask, of(self.room, rows)
        fits = fitting(ask, room)
        self._keys[form, rows] = np.inf
        if fits.any():
            rows, room = rows[fits], of(room, fits)
            self._keys[form, rows], self._device[form, rows] = self._scorer(ask, room, rows)


def of(room: Free, rows: Int | Bool) -> Free:
    """Return what is free on some of the nodes."""
    return Free(room.cpu_milli[rows], room.mem_bytes[rows], room.shares[rows])


def fitting(ask: Ask, room: Free) -> Bool:
    """Say which nodes have room."""
    fits = (room.cpu_milli >= ask.cpu_milli) & (room.mem_bytes >= ask.mem_bytes)
    return np.asarray(fits & ((room.shares >= max(ask.share, 1)).sum(axis=1) >= ask.count))


def take(ask: Ask, room: Free, node: int, device: int) -> tuple[int, ...]:
    """Take what is asked for from one node; return the devices: `device`, or the first all free."""
    shares = room.shares[node]
    room.cpu_milli[node] -= ask.cpu_milli
    room.mem_bytes[node] -= ask.mem_bytes
    devices = [device] if ask.count else []
    if ask.share == DEVICE_SHARES:
        devices = np.flatnonzero(shares == DEVICE_SHARES)[: ask.count].tolist()
    shares[devices] -= ask.share
    return tuple(devices)


def tightest(ask: Ask, room: Free) -> Int:
    """Return, for a part of a device, the device with the least room that fits; else -1."""
    if not 0 < ask.gpu_shares < DEVICE_SHARES:
        return np.full(len(room.cpu_milli), -1)
    return np.asarray(
        np.where(room.shares >= ask.share, room.shares, DEVICE_SHARES + 1).argmin(axis=1)
    )


def best_fit(ask: Ask, room: Free, _rows: Int) -> tuple[Int, Int]:
    """The published BestFit policy."""
    cpu = (room.cpu_milli - ask.cpu_milli) / 128_000
    gpu = (room.shares.sum(axis=1) - ask.gpu_shares) / 8_000
    return -(100 * (1 - 0.5 * cpu - 0.5 * gpu)).astype(np.int64), tightest(ask, room)


def concentrated(ask: Ask, room: Free, _rows: Int) -> tuple[Int, Int]:
    """Least free first: GPU shares, then cpu, then memory."""
    shares = room.shares.sum(axis=1)
    return (shares << 38) + (room.cpu_milli << 21) + room.mem_bytes, tightest(ask, room)


def dispersed(ask: Ask, room: Free, _rows: Int) -> tuple[Int, Int]:
    """Most free first: GPUs when some are asked for, then cpu, then memory; else fewest GPUs."""
    shares = room.shares.sum(axis=1)
    if ask.gpu_shares:
        return -((shares << 38) + (room.cpu_milli << 21) + room.mem_bytes), tightest(ask, room)
    return shares - (room.cpu_milli << 34) - (room.mem_bytes << 13), tightest(ask, room)


Maker = Callable[[Trace, "Cluster"], Scorer]


def published(trace: Trace, cluster: Cluster) -> Scorer:
    """The published FGD policy, which knows the whole pod list beforehand and no memory."""
    forms = [Form(replace(form.ask, mem_bytes=0), form.models) for form in trace.forms]
    counts = Counter(forms[i] for i in trace.listed)
    shapes = frequent(counts, shapes_max=len(counts))
    total = sum(counts[shape] for shape in shapes)
    typical = table([shape.ask for shape in shapes], [counts[shape] / total for shape in shapes])
    allowed = cluster.suited[[forms.index(shape) for shape in shapes]].T
    return lambda ask, room, rows: published_fgd(ask, room, allowed[rows], typical)


def fixed(scorer: Scorer) -> Maker:
    """Rank by a rule that learns nothing."""
    return lambda _trace, _cluster: scorer


POLICIES: dict[str, Maker] = {
    "best-fit": fixed(best_fit),
    "fgd": published,
    "concentrated": fixed(concentrated),
    "dispersed": fixed(dispersed),
}


ENGINE = (AgentRanking.USEFUL, AgentRanking.FRAGMENTATION)
"""Rankings that are replayed over the engine itself."""


def replay(nodes: Nodes, trace: Trace, policy: str) -> Bool:
    """Say of each arrival whether it was placed."""
    if policy in ENGINE:
        return openb_engine.replay(nodes, trace, AgentRanking(policy))
    cluster = Cluster(nodes, trace)
    cluster.rank_by(POLICIES[policy](trace, cluster))
    return np.array([cluster.put(form) for form in trace.arrivals.tolist()], dtype=bool)


def curve(nodes: Nodes, trace: Trace, placed: Bool) -> dict[int, float]:
    """Return the allocated percent of all shares by percent asked for, as the published tables."""
    total = int(nodes.room.shares.sum())
    asked = np.array([form.ask.gpu_shares for form in trace.forms])[trace.arrivals]
    demand = np.round(100 * np.cumsum(asked) / total).astype(int)
    allocated = np.round(100 * np.cumsum(asked * placed) / total, 2)
    return {int(at): round(float(allocated[demand == at].mean()), 2) for at in np.unique(demand)}
