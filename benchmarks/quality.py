"""How good placement is: next to published results, and next to proven optima."""

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import binpack, openb, swf

Rows = list[dict[str, Any]]
AT = (100, 130)
"""Percent of the shares asked for at which the allocated percent is compared."""


def openb_rows(args: argparse.Namespace) -> Rows:
    """Allocated percent of all GPU shares per pod list and policy, mean over the seeds."""
    nodes, published = openb.load_nodes(), openb.load_published()
    rows: Rows = []
    for name in args.lists:
        traces = [openb.load_trace(name, seed, nodes) for seed in openb.SEEDS]
        for policy in (*openb.POLICIES, *openb.ENGINE):
            begun = time.process_time()
            curves = [
                openb.curve(nodes, trace, openb.replay(nodes, trace, policy)) for trace in traces
            ]
            taken = (time.process_time() - begun) / len(traces)
            row: dict[str, Any] = {"list": name, "policy": policy}
            for at in AT:
                row[f"at_{at}"] = mean([curve[at] for curve in curves])
                known = [published.get((name, policy, seed), {}).get(at) for seed in openb.SEEDS]
                row[f"published_{at}"] = mean([cell for cell in known if cell is not None])
            rows.append(row | {"cpu_s": round(taken, 2)})
    return rows


def binpack_rows(args: argparse.Namespace) -> Rows:
    """Shares and requests placed in order of arrival, and what is missing to the proven optimum."""
    return binpack.rows(exact_s=args.exact_s if args.exact else None)


def swf_rows(args: argparse.Namespace) -> Rows:
    """Mean wait and bounded slowdown in seconds, and utilisation, next to the references."""
    found: Rows = []
    for row in swf.swf_report(swf.SHARED / "swf"):
        shown = {name: row[name] for name in ("log", "policy", "order")}
        for name in ("mean_wait", "mean_bounded_slowdown", "utilisation"):
            shown[name] = row.get(name)
            shown[f"reference_{name}"] = (row.get("reference") or {}).get(name)
        found.append(shown)
    return found


SECTIONS: Mapping[str, Callable[[argparse.Namespace], Rows]] = {
    "openb": openb_rows,
    "binpack": binpack_rows,
    "swf": swf_rows,
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=SECTIONS, help="leave out the other sections")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--lists", nargs="+", choices=openb.LISTS, default=openb.LISTS, help="openb pod lists"
    )
    parser.add_argument("--exact", action="store_true", help="binpack: improve on each ranking")
    parser.add_argument("--exact-s", type=float, default=10.0, help="seconds for one improvement")
    args = parser.parse_args()
    if not openb.DATA.is_dir():
        raise SystemExit(f"{openb.DATA} is missing: the recorded workloads are needed")
    found = {name: SECTIONS[name](args) for name in SECTIONS if args.only in (None, name)}
    if args.json:
        print(json.dumps(found, indent=1))
        return
    for name, rows in found.items():
        print(f"{name}: {SECTIONS[name].__doc__}")
        show(rows)


def mean(values: Sequence[float]) -> float | None:
    """Return the mean to two decimals, `None` of nothing."""
    return round(float(np.mean(values)), 2) if values else None


def show(rows: Rows) -> None:
    """Print a table."""
    if not rows:
        return
    texts = [list(rows[0]), *[["-" if v is None else str(v) for v in row.values()] for row in rows]]
    widths = [max(len(cell) for cell in column) for column in zip(*texts, strict=True)]
    for line in texts:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        )
    print()


if __name__ == "__main__":
    main()
