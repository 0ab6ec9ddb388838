"""How long a user waits to submit an array of many tasks, to list it, and to cancel it."""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.ground import add_database, conditions, report, server

SETTLE_S = 3.0
"""By then the scheduler has noted why they wait."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=10_000, help="tasks of the array")
    parser.add_argument("--rounds", type=int, default=3, help="arrays, one after the other")
    add_database(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()

    found: dict[str, list[float]] = {"submit_s": [], "ls_s": [], "ls_tasks_s": [], "cancel_s": []}
    asked = ["--cpu", "4096", "--allow-infeasible", "--array", f"0-{args.tasks - 1}%16"]
    with server(4, db=args.db) as (_, home):
        for _ in range(args.rounds):
            took, printed = _command(home, "submit", *asked, "--", "/bin/true")
            found["submit_s"].append(took)
            array_id = printed.strip()
            time.sleep(SETTLE_S)
            took, printed = _command(home, "ls")
            assert f"{args.tasks} tasks: {args.tasks} waiting" in printed, printed
            found["ls_s"].append(took)
            took, printed = _command(home, "ls", array_id)
            assert printed.count("\n") == args.tasks + 1, "a line for each task, and the headings"
            found["ls_tasks_s"].append(took)
            took, printed = _command(home, "cancel", array_id)
            assert f"{args.tasks} cancelled" in printed, printed
            found["cancel_s"].append(took)
    report(
        {
            "tasks": args.tasks,
            **{name: round(statistics.median(times), 2) for name, times in found.items()},
            "conditions": conditions(args.db),
        },
        as_json=args.json,
    )


def _command(home: Path, *words: str) -> tuple[float, str]:
    """Run the command; return how long that took, its start included, and what it printed."""
    env = {**os.environ, "SOKOVAN_HOME": str(home)}
    began = time.perf_counter()
    argv = [sys.executable, "-m", "sokovan", *words]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=True)
    return time.perf_counter() - began, done.stdout


if __name__ == "__main__":
    main()
