"""What it costs that very many sessions wait: how soon one starts that fits, and cpu seconds."""

import argparse
import statistics
import sys
import time
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.ground import (
    add_database,
    conditions,
    cpu_seconds,
    occupy,
    quantile,
    report,
    server,
)
from sokovan.client import Client

BATCH = 10_000
SHAPES = 100


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--waiting", type=int, default=100_000, help="sessions that wait")
    parser.add_argument("-n", type=int, default=40, help="sessions that start, one after the other")
    parser.add_argument("--idle", type=float, default=120.0, help="seconds to watch them wait")
    parser.add_argument("--settle", type=float, default=240.0, help="seconds before that")
    add_database(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()

    with server(4, db=args.db) as (client, home):
        occupy(client, 3000)
        alone = _starts(client, home, args.n)
        begun = time.monotonic()
        for first in range(0, args.waiting, BATCH):
            count = min(BATCH, args.waiting - first)
            client.submit_many(
                [
                    {"command": ["/bin/true"], "cpu_milli": 2000 + n % SHAPES, "cwd": "/"}
                    for n in range(count)
                ]
            )
        submitted_s = time.monotonic() - begun
        time.sleep(args.settle)  # lines of history are written for some minutes
        behind = _starts(client, home, args.n)
        before = cpu_seconds(home)
        time.sleep(args.idle)
        used = cpu_seconds(home)["manager"] - before["manager"]
    report(
        {
            "waiting": args.waiting,
            "submitted_per_s": round(args.waiting / submitted_s),
            "to_start_ms_alone": _summary(alone),
            "to_start_ms_behind_them": _summary(behind),
            "later_by_ms": round(statistics.median(behind) - statistics.median(alone), 1),
            "waiting_costs_of_a_core": f"{used / args.idle:.1%}",
            "conditions": conditions(args.db),
        },
        as_json=args.json,
    )


def _starts(client: Client, home: Path, count: int) -> list[float]:
    """Milliseconds from submission to the start of sessions that fit, one after the other."""
    stamp = home / "stamp"
    command = ["/bin/sh", "-c", f"date +%s.%N > {stamp}"]
    taken = []
    for _ in range(count):
        begun = time.time()
        session = client.submit(command=command, cpu_milli=1000, cwd="/", walltime_s=60.0)
        client.wait(session["id"])
        taken.append((float(stamp.read_text()) - begun) * 1000)
        time.sleep(0.2)
    return taken


def _summary(values: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 1),
        "p90": round(quantile(values, 0.90), 1),
        "max": round(max(values), 1),
    }


if __name__ == "__main__":
    main()
