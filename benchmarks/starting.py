"""How long the server takes to start, with live and with finished sessions in the store."""

import argparse
import statistics
import sys
import time
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.ground import add_database, conditions, home_with, report, running
from benchmarks.prefill import fill


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--live", type=int, default=10_000, help="sessions that wait")
    parser.add_argument("--finished", type=int, default=1_000_000, help="finished sessions")
    parser.add_argument("--rounds", type=int, default=3, help="starts, one after the other")
    parser.add_argument("--profile", type=Path, help="write down there where the manager is")
    add_database(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()

    with home_with(1, db=args.db) as home:
        empty = [_ready_s(home, {}) for _ in range(args.rounds)]
    with home_with(1, db=args.db) as home:
        begun = time.monotonic()
        fill(home, finished=args.finished, waiting=args.live)
        filled_s = time.monotonic() - begun
        expected = {"PENDING": args.live} if args.live else {}
        full = [_ready_s(home, expected) for _ in range(args.rounds)]
        if args.profile:
            _ready_s(home, expected, profile=args.profile)
    report(
        {
            "live": args.live,
            "finished": args.finished,
            "ready_s": round(statistics.median(full), 2),
            "rounds": str([round(seconds, 2) for seconds in full]),
            "ready_s_empty": round(statistics.median(empty), 2),
            "filled_s": round(filled_s, 1),
            "conditions": conditions(args.db),
        },
        as_json=args.json,
    )


def _ready_s(home: Path, expected: dict[str, int], *, profile: Path | None = None) -> float:
    """Start the server of a home; return after how many seconds it has answered."""
    begun = time.monotonic()
    with running(home, profile=profile) as client:
        took = time.monotonic() - begun
        assert client.status()["sessions"] == expected
    return took


if __name__ == "__main__":
    main()
