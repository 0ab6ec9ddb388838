"""How soon a session starts and its client sees the end: idle, one at a time, next to an fsync."""

import argparse
import statistics
import sys
import time
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.ground import add_database, conditions, quantile, report, server

WARM_UP = 5


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=100, help="sessions, one after the other")
    parser.add_argument("--pause", type=float, default=0.05, help="seconds between two sessions")
    add_database(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()

    started_ms, seen_ms = [], []
    with server(4, db=args.db) as (client, home):
        stamp = home / "stamp"
        command = ["/bin/sh", "-c", f"date +%s.%N > {stamp}"]
        for number in range(args.n + WARM_UP):
            begun = time.time()
            session = client.submit(command=command, cpu_milli=1000, cwd="/")
            client.wait(session["id"])
            seen = time.time()
            if number >= WARM_UP:
                started_ms.append((float(stamp.read_text()) - begun) * 1000)
                seen_ms.append((seen - begun) * 1000)
            time.sleep(args.pause)
    report(
        {
            "n": args.n,
            "to_start_ms": _summary(started_ms),
            "to_end_seen_ms": _summary(seen_ms),
            "conditions": conditions(args.db),
        },
        as_json=args.json,
    )


def _summary(values: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 1),
        "p99": round(quantile(values, 0.99), 1),
        "min": round(min(values), 1),
        "max": round(max(values), 1),
    }


if __name__ == "__main__":
    main()
