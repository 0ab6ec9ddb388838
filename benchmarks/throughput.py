"""Sessions per second, from the first submit to the last recorded end, next to the bare machine."""

import argparse
import statistics
import sys
import tempfile
import time
from collections import Counter
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.ground import add_database, conditions, cpu_seconds, report, server, spawn_rate
from sokovan.agent.wrapper import WRAPPER
from sokovan.client import Client


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=1000, help="sessions in a batch")
    parser.add_argument("--slots", type=int, default=16, help="sessions that run at once")
    parser.add_argument("--rounds", type=int, default=3, help="batches; the median counts")
    parser.add_argument(
        "--finished", type=int, default=0, help="finished sessions in the store beforehand"
    )
    parser.add_argument(
        "--profile", type=Path, help="write down there where the manager spends its time"
    )
    add_database(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()

    bare = spawn_rate([["/bin/true"]] * (2 * args.sessions), args.slots)
    with (
        tempfile.TemporaryDirectory() as folder,  # as long: ext4 is slow after removals
        server(args.slots, db=args.db, prefill=args.finished, profile=args.profile) as (
            client,
            home,
        ),
    ):
        wrappers = [wrapper_rate(Path(folder) / "0", args.sessions, args.slots)]
        rates, used = [], Counter[str]()
        for number in range(args.rounds):  # by turns: the machine's speed changes
            used.subtract(cpu_seconds(home))
            rates.append(batch(client, args.sessions))
            used.update(cpu_seconds(home))
            wrappers.append(wrapper_rate(Path(folder) / str(number + 1), args.sessions, args.slots))
    parts = [
        rate / statistics.mean(around)
        for rate, around in zip(rates, pairwise(wrappers), strict=True)
    ]
    done = args.sessions * args.rounds
    rate = statistics.median(rates)
    report(
        {
            "sessions_per_s": round(rate, 1),
            "rounds": str([round(r, 1) for r in rates]),
            "cpu_ms_per_session": {
                role: round(seconds / done * 1000, 2) for role, seconds in used.items()
            },
            "bare_per_s": round(bare),
            "wrapper_per_s": round(statistics.median(wrappers)),
            "of_wrapper": round(statistics.median(parts), 3),
            "of_wrapper_rounds": str([round(part, 3) for part in parts]),
            "finished_before": args.finished,
            "conditions": conditions(args.db),
        },
        as_json=args.json,
    )


def batch(client: Client, count: int) -> float:
    """Submit `count` sessions in one call and return how many ended per second."""
    begun = time.time()
    made = client.submit_many(
        [{"command": ["/bin/true"], "cpu_milli": 1000, "cwd": "/"} for _ in range(count)]
    )
    ids = {view["id"] for view in made}
    while client.status()["sessions"]:  # by status; cheap, so that looking costs little
        time.sleep(0.2)
    ended = [_ended(view, ids) for view in client.list(live_only=False, limit=count)]
    assert len(ended) == count, "a session is missing"
    return count / (max(ended) - begun)


def _ended(view: dict[str, Any], ids: set[str]) -> float:
    assert view["id"] in ids
    assert view["exit_code"] == 0, f"{view['id']} ended with {view['exit_code']}"
    return datetime.fromisoformat(view["ended_at"]).timestamp()


def wrapper_rate(folder: Path, count: int, at_once: int) -> float:
    """Return how many wrapped processes a second run in `folder`, with an idle server beside."""
    for number in range(count):
        (folder / str(number)).mkdir(parents=True)
    words = ["/bin/sh", "-c", WRAPPER, "sokovan"]
    rest = ["0022", "/", "0", "0", "/bin/true"]
    return spawn_rate([[*words, f"{folder}/{n}", *rest] for n in range(count)], at_once)


if __name__ == "__main__":
    main()
