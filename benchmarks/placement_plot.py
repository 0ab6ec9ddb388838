"""Draws what a pass costs, up to 20,000 agents and 1,000,000 waiting sessions, as an SVG."""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.cluster import Cluster, Shape, cluster_of, free, start, stuffed, workload_of
from benchmarks.ground import Stopwatch
from sokovan.placement.engine import Plan, place
from sokovan.placement.snapshot import Snapshot

OUT = Path(__file__).resolve().parents[1] / "docs" / "concepts" / "placement.svg"
AGENTS = (100, 200, 500, 1000, 2000, 5000, 10_000, 20_000)
WAITING = (1000, 3000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
QUEUES_AT = (1000, 20_000)
"""The agents of the clusters on which the queues wait."""
PLACED = 10_000
FREED = 9
"""So many agents are freed, one after the other; the median counts."""

Points = list[tuple[float, float]]
Curves = dict[str, Points]


def main() -> None:
    """Measure and draw; or draw again what was measured before."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT, help="where the picture goes")
    parser.add_argument("--json", type=Path, help="keep the figures there")
    parser.add_argument("--again", type=Path, help="draw the figures that are kept there")
    parser.add_argument("--waiting-max", type=int, default=WAITING[-1], help="longest queue")
    args = parser.parse_args()
    if args.again:
        figures = json.loads(args.again.read_text())
    else:
        figures = {"queues": queues(args.waiting_max), "placing": placing()}
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1))
    args.out.write_text(picture(figures))
    print(args.out)


# --- measuring ------------------------------------------------------------------------------------


def queues(waiting_max: int) -> Curves:
    """Let ever more sessions wait for full agents; CPU milliseconds of passes."""
    longest = Shape(QUEUES_AT[-1], waiting_max, capacity="real")
    cluster = stuffed(cluster_of(longest, workload_of(longest)))
    pending = cluster.pending
    curves: Curves = {}
    for agents in reversed(QUEUES_AT):
        if agents != longest.agents:
            fewer = replace(longest, agents=agents, sessions=0)
            cluster = stuffed(cluster_of(fewer, workload_of(fewer)))
        for waiting in (count for count in WAITING if count <= waiting_max):
            print(f"{agents} agents, {waiting} wait ...", file=sys.stderr)
            found = one_queue(replace(cluster, pending=pending[:waiting]))
            for what, took_ms in found.items():
                curves.setdefault(f"{what}, {agents:,} agents", []).append((waiting, took_ms))
    return curves


def one_queue(cluster: Cluster) -> dict[str, float]:
    """Measure the first pass, and passes after one agent was freed."""
    first, freed = Stopwatch(), Stopwatch()
    snapshot = cluster.snapshot()
    plan = first.time(lambda: place(snapshot))
    assert not plan.placed, "the cluster is not full"
    for number in range(FREED):
        agent = cluster.agents[number * len(cluster.agents) // FREED]
        hold = snapshot.machines.holds[f"rest-{agent.agent_id}"]
        plan = freed.time(lambda: _freed(snapshot, hold))  # noqa: B023 - it is called at once
        start(plan.placed, snapshot)
        place(snapshot)
    return {"first pass": first.ms()["cpu"], "one agent freed": freed.ms()["cpu"]}


def _freed(snapshot: Snapshot, hold: Any) -> Plan:
    free(snapshot, [hold])
    return place(snapshot)


def placing() -> Curves:
    """Place the same queue on ever more agents; CPU microseconds for each kernel."""
    curves: Curves = {}
    for name, mix in (("one kernel each", "single"), ("a fifth with four kernels", "multi")):
        for agents in AGENTS:
            print(f"{agents} agents, {name} ...", file=sys.stderr)
            shape = Shape(agents, PLACED, mix=mix)
            cluster, watch = cluster_of(shape, workload_of(shape)), Stopwatch()
            for _ in range(3):
                snapshot = cluster.snapshot()
                plan = watch.time(lambda: place(snapshot))  # noqa: B023 - it is called at once
            kernels = sum(len(assignment) for assignment in plan.placed.values())
            curves.setdefault(name, []).append((agents, watch.ms()["cpu"] * 1000 / kernels))
    return curves


# --- drawing --------------------------------------------------------------------------------------

WIDTH, HEIGHT = 420, 300
LEFT, TOP, RIGHT, BOTTOM = 64, 40, 40, 96
COLOURS = ("#1b6ca8", "#c4501b", "#2f7d3b", "#7a3b8f")


def picture(figures: dict[str, Curves]) -> str:
    """Draw both panels side by side."""
    panels = (
        panel("A pass while sessions wait for full agents", "sessions that wait", "CPU ms a pass",
              figures["queues"]),
        panel("Placing 10,000 sessions that all fit", "agents", "CPU µs a kernel",
              figures["placing"]),
    )  # fmt: skip
    wide = LEFT + WIDTH + RIGHT
    high = TOP + HEIGHT + BOTTOM
    inner = "\n".join(
        f'<g transform="translate({number * wide},0)">\n{drawn}\n</g>'
        for number, drawn in enumerate(panels)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {len(panels) * wide} {high}"'
        f' font-family="sans-serif" font-size="12">\n'
        f'<rect width="100%" height="100%" fill="white"/>\n{inner}\n</svg>\n'
    )


def panel(title: str, across: str, up: str, curves: Curves) -> str:
    """Draw curves with logarithmic axes, a line for each decade, and what each curve is."""
    xs, ys = ([point[axis] for points in curves.values() for point in points] for axis in (0, 1))
    x_axis, y_axis = Axis(xs, LEFT, LEFT + WIDTH), Axis(ys, TOP + HEIGHT, TOP)
    parts = [
        text(LEFT, TOP - 16, title, size=14),
        text(LEFT + WIDTH / 2, TOP + HEIGHT + 36, across, anchor="middle"),
        f'<g transform="translate(14,{TOP + HEIGHT / 2}) rotate(-90)">',
        text(0, 0, up, anchor="middle"),
        "</g>",
        f'<rect x="{LEFT}" y="{TOP}" width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="#888"/>',
    ]
    for value in x_axis.decades():
        at = x_axis.at(value)
        parts.append(line([(at, TOP), (at, TOP + HEIGHT)], "#ddd"))
        parts.append(text(at, TOP + HEIGHT + 16, number_of(value), anchor="middle"))
    for value in y_axis.decades():
        at = y_axis.at(value)
        parts.append(line([(LEFT, at), (LEFT + WIDTH, at)], "#ddd"))
        parts.append(text(LEFT - 6, at + 4, number_of(value), anchor="end"))
    for number, (name, points) in enumerate(curves.items()):
        colour = COLOURS[number % len(COLOURS)]
        dots = [(x_axis.at(x), y_axis.at(y)) for x, y in points]
        parts.append(line(dots, colour, width=2))
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in dots]
        x, y = LEFT + number % 2 * WIDTH / 2, TOP + HEIGHT + 58 + number // 2 * 20
        parts.append(line([(x, y), (x + 20, y)], colour, width=2))
        parts.append(text(x + 26, y + 4, name))
    return "\n".join(parts)


class Axis:
    """A logarithmic axis over whole decades.

    Args:
        values: What it is to hold, all above 0.
        first: Where it begins in the picture.
        last: Where it ends.
    """

    def __init__(self, values: Sequence[float], first: float, last: float) -> None:
        self._low = math.floor(math.log10(min(values)) + 1e-9)
        self._high = math.ceil(math.log10(max(values)) - 1e-9)
        self._first, self._last = first, last

    def at(self, value: float) -> float:
        """Say where a value lies."""
        share = (math.log10(value) - self._low) / (self._high - self._low)
        return self._first + share * (self._last - self._first)

    def decades(self) -> list[float]:
        """Return the powers of ten on it."""
        return [10.0**power for power in range(self._low, self._high + 1)]


def number_of(value: float) -> str:
    """Write a power of ten as people do."""
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"


def text(x: float, y: float, what: str, *, anchor: str = "start", size: int = 12) -> str:
    """Draw text."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">'
        f"{escape(what)}</text>"
    )


def line(points: Sequence[tuple[float, float]], colour: str, width: float = 1) -> str:
    """Draw a line through points."""
    where = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{where}" fill="none" stroke="{colour}" stroke-width="{width}"/>'


if __name__ == "__main__":
    main()
