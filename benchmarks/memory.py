"""How much memory the manager has while very many sessions wait, and when it was started again."""

import argparse
import sys
import time
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.ground import add_database, conditions, home_with, report, rss_mib, running
from sokovan.client import Client

BATCH = 10_000
SHAPES = 100


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--waiting", type=int, default=100_000, help="sessions that wait")
    parser.add_argument("--settle", type=float, default=30.0, help="seconds before each look")
    add_database(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()

    with home_with(2, db=args.db) as home:
        with running(home) as client:
            client.drain("bench", reason="so that all wait")
            empty = rss_mib(home)
            _submit(client, args.waiting)
            submitted = rss_mib(home)
            time.sleep(args.settle)  # a pass looks at all of them, and notes why they wait
            settled = rss_mib(home)
        with running(home) as client:
            restarted = rss_mib(home)
            time.sleep(args.settle)
            restarted_settled = rss_mib(home)
            assert client.status()["sessions"] == {"PENDING": args.waiting}
    report(
        {
            "waiting": args.waiting,
            "mib_empty": empty,
            "mib_submitted": submitted,
            "mib_submitted_settled": settled,
            "mib_restarted": restarted,
            "mib_restarted_settled": restarted_settled,
            "bytes_per_session": round((settled - empty) * 2**20 / args.waiting),
            "conditions": conditions(args.db),
        },
        as_json=args.json,
    )


def _submit(client: Client, count: int) -> None:
    for first in range(0, count, BATCH):
        client.submit_many(
            [
                {"command": ["/bin/true"], "cpu_milli": 1000 + n % SHAPES, "cwd": "/"}
                for n in range(min(BATCH, count - first))
            ]
        )


if __name__ == "__main__":
    main()
