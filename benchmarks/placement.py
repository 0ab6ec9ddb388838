"""How fast sessions are placed, and reasons found: passes alone, without a store or agents.

Clusters and queues come from the generator in ../shared/bench. Without arguments, every case of the
table is measured, each in a process of its own; with some, the case that they describe.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


from benchmarks.cluster import Shape, cluster_of, generator, judged, workload_of
from benchmarks.ground import Stopwatch, conditions, mib_now
from benchmarks.standing import standing
from sokovan.domain.cluster import AgentRanking, Backfill, QueueOrder
from sokovan.placement.engine import place
from sokovan.placement.rank import RANKINGS

Figures = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Case:
    """One line of the table, or a few.

    Attributes:
        told: What people call it.
        at_least: Placements a second that are wanted; 0: none are.
        half_of: Wanted is half of what this case has.
        measure: The function that measures it: `pass` or `standing`.
    """

    told: str
    shape: Shape
    at_least: int = 0
    half_of: str = ""
    measure: str = "pass"


CASES = {
    "fifo-1000": Case(
        "1,000 agents, 10,000 sessions of one kernel", Shape(1000, 10_000), at_least=50_000
    ),
    "fifo-5000": Case("5,000 agents", Shape(5000, 10_000), at_least=25_000),
    "drf-1000": Case("1,000 agents, drf", Shape(1000, 10_000, order="drf"), half_of="fifo-1000"),
    "drf-5000": Case("5,000 agents, drf", Shape(5000, 10_000, order="drf"), half_of="fifo-5000"),
    "multi-1000": Case(
        "1,000 agents, a fifth of four kernels",
        Shape(1000, 10_000, mix="multi"),
        half_of="fifo-1000",
    ),
    "multi-5000": Case(
        "5,000 agents, a fifth of four kernels",
        Shape(5000, 10_000, mix="multi"),
        half_of="fifo-5000",
    ),
    "useful": Case("1,000 agents, ranking useful", Shape(1000, 10_000, rank="useful")),
    "fragmentation": Case(
        "1,000 agents, ranking fragmentation", Shape(1000, 10_000, rank="fragmentation")
    ),
    "distinct": Case(
        "1,000 agents, 20,000 sessions, no two alike", Shape(1000, 20_000, distinct=True)
    ),
    "none-full": Case(
        "1,000 agents, more than fits, no backfill",
        Shape(1000, 10_000, capacity="real", walltimes=True),
    ),
    "easy-full": Case(
        "the same, easy", Shape(1000, 10_000, capacity="real", backfill="easy", walltimes=True)
    ),
    "conservative-full": Case(
        "the same, conservative",
        Shape(1000, 10_000, capacity="real", backfill="conservative", walltimes=True),
    ),
    "standing": Case(
        "10,000 agents, full; 100,000 wait",
        Shape(10_000, 450_000, capacity="real"),
        measure="standing",
    ),
    "standing-easy": Case(
        "the same, easy",
        Shape(10_000, 450_000, capacity="real", backfill="easy", walltimes=True),
        measure="standing",
    ),
}
STANDING = {
    "first_pass_ms": ("the first pass over all", None),
    "unchanged_ms": ("nothing changed since the last pass", 20.0),
    "one_came_ms": ("one more session came", 20.0),
    "freed_ms": ("one agent freed: until the right ones are placed", 50.0),
    "after_ms": ("the pass after those were placed", None),
    "why_ms": ("why, for one session", 20.0),
    "why_suggest_ms": ("why, with suggestions", 1000.0),
}
"""What is measured of the case `standing`, and at most how long it may take."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", choices=CASES, help="only this case of the table")
    parser.add_argument("--agents", type=int)
    parser.add_argument("--sessions", type=int)
    parser.add_argument("--mix", choices=("single", "multi"))
    parser.add_argument("--capacity", choices=("roomy", "real"))
    parser.add_argument("--order", choices=[order.value for order in QueueOrder])
    parser.add_argument("--rank", choices=[r.value for r in AgentRanking if r in RANKINGS])
    parser.add_argument("--backfill", choices=[backfill.value for backfill in Backfill])
    parser.add_argument("--walltimes", action="store_true", default=None)
    parser.add_argument("--distinct", action="store_true", default=None)
    parser.add_argument("--runs", type=int, default=7, help="passes; the median counts")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--markdown", action="store_true", help="print the table for the docs")
    args = parser.parse_args()
    generator()  # or say at once that it is not there

    said = {f.name: getattr(args, f.name) for f in fields(Shape)}
    said = {name: value for name, value in said.items() if value is not None}
    if args.case or said:
        case = CASES[args.case] if args.case else Case("", Shape(**(DEFAULTS | said)))
        print(json.dumps(measured(case, args.runs), indent=None if args.json else 1))
        return
    results = {name: in_a_process(name, args.runs) for name in CASES}
    table = list(rows(results))
    if args.json:
        print(json.dumps({"cases": results, "rows": table, "conditions": conditions()}, indent=1))
    else:
        print_table(table, markdown=args.markdown)
        print(f"\nconditions: {conditions()}")


DEFAULTS: Figures = {"agents": 1000, "sessions": 10_000}


def in_a_process(name: str, runs: int) -> Figures:
    """Measure a case in a process of its own, so that its memory is its own."""
    print(f"measuring {name} ...", file=sys.stderr)
    words = [sys.executable, __file__, "--case", name, "--runs", str(runs), "--json"]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    found: Figures = json.loads(done.stdout)
    return found


def measured(case: Case, runs: int) -> Figures:
    """Measure a case in this process."""
    shape = {f.name: getattr(case.shape, f.name) for f in fields(Shape)}
    found = standing(case.shape, runs) if case.measure == "standing" else passes(case.shape, runs)
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"shape": shape, **found, "peak_mib": round(peak_mib)}


# --- passes over a queue that nobody has looked at ------------------------------------------------


def passes(shape: Shape, runs: int) -> Figures:
    """Pass over a fresh snapshot, again and again, and have the last plan judged."""
    workload = workload_of(shape)
    cluster = cluster_of(shape, workload)
    watch = Stopwatch()
    before_mib = mib_now()
    for _ in range(runs):
        snapshot = cluster.snapshot()
        plan = watch.time(lambda: place(snapshot))  # noqa: B023 - it is called at once
    judgement = judged(workload, plan.placed)
    begun = time.process_time()
    waits = Counter(wait.code.value for wait in plan.waits.values())
    reasons_s = time.process_time() - begun
    assert len(plan.placed) + sum(waits.values()) == shape.sessions, "somebody has no reason"
    assert shape.capacity == "real" or not waits, "somebody waits although there is room"
    kernels = judgement["kernels_placed"]
    return {
        "pass_ms": watch.ms(),
        "kernels_placed": kernels,
        "placements_per_s": round(kernels / statistics.median(watch.cpu)),
        "placements_per_wall_s": round(kernels / statistics.median(watch.wall)),
        "waits": dict(waits),
        "reasons_ms": round(reasons_s * 1000, 1),
        "judgement": judgement,
        "before_mib": before_mib,
    }


# --- the table ------------------------------------------------------------------------------------


def rows(results: dict[str, Figures]) -> Iterator[tuple[str, ...]]:
    """Yield the lines of the table: what, wanted, wall, CPU, rate, memory, reasons."""
    for name, found in results.items():
        case = CASES[name]
        if case.measure == "standing":
            yield from _standing_rows(case, found)
            continue
        rate = found["placements_per_s"]
        least = case.at_least
        if case.half_of:
            least = results[case.half_of]["placements_per_s"] // 2
        took = found["pass_ms"]
        yield (
            case.told,
            f"≥ {least:,}/s {_met(ok=rate >= least)}" if least else "",
            f"{took['wall']:,.0f}",
            f"{took['cpu']:,.0f}",
            f"{rate:,}",
            f"{sum(found['waits'].values()):,}",
            f"{found['reasons_ms']:,.0f}",
            f"{found['before_mib']} → {found['peak_mib']}",
        )


def _standing_rows(case: Case, found: Figures) -> Iterator[tuple[str, ...]]:
    for key, (told, most_ms) in STANDING.items():
        if key not in found:
            continue
        took = found[key]
        yield (
            f"{case.told}: {told}",
            f"≤ {most_ms:,.0f} ms {_met(ok=took['cpu'] <= most_ms)}" if most_ms else "",
            f"{took['wall']:,.1f}",
            f"{took['cpu']:,.1f}",
            "",
            f"{sum(found['waits'].values()):,}" if key == "first_pass_ms" else "",
            f"{found['reasons_ms']:,.0f}" if key == "first_pass_ms" else "",
            f"{found['before_mib']} → {found['peak_mib']}" if key == "first_pass_ms" else "",
        )


def _met(*, ok: bool) -> str:
    return "met" if ok else "MISSED"


HEADINGS = (
    "case",
    "wanted",
    "pass, ms",
    "CPU, ms",
    "placements a CPU second",
    "wait",
    "their reasons, CPU ms",
    "memory, MiB",
)


def print_table(table: list[tuple[str, ...]], *, markdown: bool) -> None:
    """Print the table for people, or for the docs."""
    if markdown:
        print(f"| {' | '.join(HEADINGS)} |\n|{'---|' * len(HEADINGS)}")
        for row in table:
            print(f"| {' | '.join(row)} |")
        return
    for row in table:
        print(row[0])
        for heading, value in zip(HEADINGS[1:], row[1:], strict=True):
            if value:
                print(f"  {heading:<28} {value}")


if __name__ == "__main__":
    main()
