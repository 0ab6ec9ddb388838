"""Seconds until another manager drives a group, and starts a session, after one has failed."""

import argparse
import contextlib
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import psutil

from benchmarks.ground import conditions, of_home, report, wait_ready
from sokovan.client import Client
from tests.postgresql import Server

LOOK_EVERY_S = 0.02
FAILURES = {"killed": signal.SIGKILL, "stopped": signal.SIGSTOP, "down": signal.SIGTERM}
AGENT = '[[agents]]\nname = "bench"\ncpu = "4"\n'


class Home:
    """One of the managers."""

    def __init__(self, url: str, lease_s: float, *, has_agent: bool) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="sokovan-bench-"))
        store = f'[store]\nurl = "{url}"\nlease_s = {lease_s}\n'
        text = store + AGENT if has_agent else "agents = []\n" + store
        (self.path / "config.toml").write_text(text)
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with (self.path / "bench.log").open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "sokovan", "--home", str(self.path), "up"],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.client: Client = wait_ready(self.path, self.process)

    def drives(self) -> bool:
        """Whether it drives the group."""
        return bool(self.client.status()["drives"])

    def close(self) -> None:
        """End everything of it."""
        for found in of_home(self.path):
            with contextlib.suppress(psutil.Error):
                found.kill()
        shutil.rmtree(self.path, ignore_errors=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="failures of each kind")
    parser.add_argument("--lease-s", type=float, default=10.0, help="store.lease_s")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    with managers(args.lease_s) as (first, second):
        taken = {
            how: [one(first, second, n) for _ in range(args.rounds)] for how, n in FAILURES.items()
        }
    report(
        {
            f"{how}_{what}_s": {
                "median": round(statistics.median(values), 2),
                "longest": round(max(values), 2),
            }
            for how, pairs in taken.items()
            for what, values in zip(("drives", "starts"), zip(*pairs, strict=True), strict=True)
        }
        | {"lease_s": args.lease_s, "rounds": args.rounds, "conditions": conditions()},
        as_json=args.json,
    )


@contextlib.contextmanager
def managers(lease_s: float) -> Iterator[tuple[Home, Home]]:
    """Run two managers on one durable server."""
    server = Server(durable=True)
    try:
        first = Home(server.prepared(), lease_s, has_agent=True)
        try:
            second = Home(_url_of(first), lease_s, has_agent=False)
            try:
                yield first, second
            finally:
                second.close()
        finally:
            first.close()
    finally:
        server.close()


def _url_of(home: Home) -> str:
    return (home.path / "config.toml").read_text().split('"')[1]


def one(first: Home, second: Home, how: signal.Signals) -> tuple[float, float]:
    """Have the one that drives fail; return the seconds until the other drives, and starts."""
    wait_for(lambda: first.drives() or second.drives())
    leader, other = (first, second) if first.drives() else (second, first)
    time.sleep(1.0)  # a failure comes at any time between two renewals
    begun = time.monotonic()
    leader.process.send_signal(how)
    wait_for(other.drives)
    drives_s = time.monotonic() - begun
    made = other.client.submit(command=["/bin/true"], cwd="/")
    wait_for(lambda: other.client.get(made["id"])["started_at"] is not None)
    starts_s = time.monotonic() - begun
    if how is signal.SIGSTOP:
        leader.process.send_signal(signal.SIGCONT)
        wait_for(lambda: not leader.drives())
    else:
        leader.process.wait(60)
        leader.start()
    return drives_s, starts_s


def wait_for(holds: Callable[[], bool]) -> None:
    """Wait until something is so."""
    while not holds():
        time.sleep(LOOK_EVERY_S)


if __name__ == "__main__":
    main()
