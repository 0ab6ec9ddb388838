"""How long it takes until very many sessions of one call are accepted, and on the disk."""

import argparse
import statistics
import sys
import time
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.ground import add_database, conditions, cpu_seconds, occupy, report, server
from sokovan.client.fields import SessionFields


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=10_000, help="sessions in a call")
    parser.add_argument("--rounds", type=int, default=5, help="calls, one after the other")
    parser.add_argument("--settle", type=float, default=3.0, help="seconds between two calls")
    parser.add_argument("--finished", type=int, default=0, help="finished sessions beforehand")
    parser.add_argument("--profile", type=Path, help="write down there where the manager is")
    add_database(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()

    asked: SessionFields = {"command": ["/bin/true"], "cpu_milli": 1000, "cwd": "/"}
    took, used = [], []
    with server(1, db=args.db, prefill=args.finished, profile=args.profile) as (client, home):
        occupy(client, 1000)
        for _ in range(args.rounds):
            before = cpu_seconds(home)["manager"]
            begun = time.perf_counter()
            made = client.submit_many([asked] * args.sessions)
            took.append(time.perf_counter() - begun)
            used.append(cpu_seconds(home)["manager"] - before)
            assert len(made) == args.sessions, "a session is missing"
            time.sleep(args.settle)  # the scheduler notes why they wait
    report(
        {
            "sessions": args.sessions,
            "accepted_s": round(statistics.median(took), 2),
            "rounds": str([round(seconds, 2) for seconds in took]),
            "cpu_s_of_manager": round(statistics.median(used), 2),
            "finished_before": args.finished,
            "conditions": conditions(args.db),
        },
        as_json=args.json,
    )


if __name__ == "__main__":
    main()
