"""What the benchmarks stand on: a server of their own, the machine's bare speed, a report."""

import argparse
import contextlib
import gc
import json
import os
import platform
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import psutil

from sokovan.client import Client

READY_S_MAX = 60.0
ROOT = Path(__file__).resolve().parent.parent
DATABASES = ("sqlite", "postgresql")
T = TypeVar("T")


def add_database(parser: argparse.ArgumentParser) -> None:
    """Let the command line choose the database: `--db`."""
    parser.add_argument("--db", choices=DATABASES, default="sqlite", help="what the server uses")


@contextlib.contextmanager
def server(
    cpu: int, *, db: str = "sqlite", prefill: int = 0, profile: Path | None = None
) -> Iterator[tuple[Client, Path]]:
    """Run a server with an agent of `cpu` cores in a home of its own, and clear it all away after.

    Args:
        cpu: Cores that the agent says it has.
        db: One of `DATABASES`; either loses nothing when the machine does.
        prefill: Finished sessions to put into the store first.
        profile: Write down there where the manager spends its time.
    """
    with home_with(cpu, db=db) as home:
        if prefill:
            from benchmarks.prefill import fill

            fill(home, finished=prefill)
        with running(home, profile=profile) as client:
            yield client, home


@contextlib.contextmanager
def home_with(cpu: int, *, db: str = "sqlite") -> Iterator[Path]:
    """Make a home with an agent of `cpu` cores, and a database of its own when `db` says so."""
    home = Path(tempfile.mkdtemp(prefix="sokovan-bench-"))
    home.chmod(0o700)
    lines = f'[[agents]]\nname = "bench"\ncpu = "{cpu}"\nmem = "64G"\n'
    with contextlib.ExitStack() as after:
        after.callback(shutil.rmtree, home, ignore_errors=True)
        if db == "postgresql":
            from tests.postgresql import Server

            database = Server(durable=True)
            after.callback(database.close)
            lines = f'[store]\nurl = "{database.empty()}"\n{lines}'
        (home / "config.toml").write_text(lines)
        yield home


@contextlib.contextmanager
def running(
    home: Path, *, profile: Path | None = None, ready_s_max: float = READY_S_MAX
) -> Iterator[Client]:
    """Run the server of a home, and end it with all it has started."""
    sampled = [] if profile is None else ["-m", "benchmarks.sampling", str(profile)]
    how = [*sampled, "sokovan"] if sampled else ["-m", "sokovan"]
    with (home / "bench.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, *how, "--home", str(home), "up"],
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
    try:
        yield wait_ready(home, process, ready_s_max)
    finally:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(15)
        for found in of_home(home):
            with contextlib.suppress(psutil.Error):
                found.kill()


def occupy(client: Client, cpu_milli: int) -> None:
    """Have a session take so much of the agent until the server is ended, so that others wait."""
    client.submit(command=["/bin/sleep", "3600"], cpu_milli=cpu_milli, cwd="/")
    while client.status()["sessions"] != {"RUNNING": 1}:
        time.sleep(0.05)


def wait_ready(
    home: Path, process: "subprocess.Popen[bytes]", ready_s_max: float = READY_S_MAX
) -> Client:
    """Return a client once the server answers."""
    deadline = time.monotonic() + ready_s_max
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"the server ended: {(home / 'bench.log').read_text()}")
        with contextlib.suppress(Exception):
            client = Client(home=home)
            client.status()
            return client
        time.sleep(0.05)
    raise SystemExit("the server did not come up")


def of_home(home: Path) -> list[psutil.Process]:
    """Return the processes whose command line names the home."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if str(home) in " ".join(process.info["cmdline"] or ())
    ]


def cpu_seconds(home: Path) -> dict[str, float]:
    """Return the CPU seconds that manager and agent have used by themselves so far."""
    used = {"manager": 0.0, "agent": 0.0}
    for process in of_home(home):
        words = process.cmdline()
        role = "agent" if "sokovan.agent" in words else "manager" if "up" in words else None
        if role is not None:
            times = process.cpu_times()
            used[role] += times.user + times.system
    return used


def rss_mib(home: Path) -> float:
    """Return how much memory the manager of a home has now."""
    (manager,) = (found for found in of_home(home) if "up" in found.cmdline())
    return round(manager.memory_info().rss / 2**20, 1)


def conditions(db: str | None = None) -> dict[str, Any]:
    """Return what the figures depend on."""
    return {
        **({} if db is None else {"db": _version_of(db)}),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "cores": os.cpu_count(),
        "load_1m": round(os.getloadavg()[0], 2),
        "fsync_ms": round(fsync_ms(), 2),
    }


def _version_of(db: str) -> str:
    """Say which database that is, with what decides how durable it is."""
    if db == "sqlite":
        return f"SQLite {sqlite3.sqlite_version}, synchronous=FULL"
    from tests.postgresql import version

    return f"{version()}, fsync=on, on this machine"


def fsync_ms(times: int = 50) -> float:
    """Return the median of a small append and fsync in the temporary directory."""
    taken = []
    with tempfile.TemporaryFile() as file:
        for _ in range(times):
            begun = time.perf_counter()
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
            taken.append(time.perf_counter() - begun)
    return statistics.median(taken) * 1000


def spawn_rate(commands: Sequence[Sequence[str]], at_once: int) -> float:
    """Return how many processes a second are spawned and reaped, `at_once` at a time."""
    begun = time.perf_counter()
    running = 0
    for command in commands:
        if running == at_once:
            os.wait()
            running -= 1
        os.posix_spawn(command[0], list(command), os.environ)
        running += 1
    for _ in range(running):
        os.wait()
    return len(commands) / (time.perf_counter() - begun)


def mib_now() -> int:
    """Return how much memory this process has now."""
    return round(psutil.Process().memory_info().rss / 2**20)


class Stopwatch:
    """Wall and CPU seconds of the same thing, done several times."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.cpu: list[float] = []

    def time(self, what: Callable[[], T]) -> T:
        """Do something, and note how long it took."""
        gc.collect()
        wall, cpu = time.perf_counter(), time.process_time()
        result = what()
        self.cpu.append(time.process_time() - cpu)
        self.wall.append(time.perf_counter() - wall)
        return result

    def ms(self) -> dict[str, Any]:
        """Return the medians and the slowest, in milliseconds."""
        return {
            "wall": round(statistics.median(self.wall) * 1000, 2),
            "cpu": round(statistics.median(self.cpu) * 1000, 2),
            "wall_max": round(max(self.wall) * 1000, 2),
        }


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value that `share` of the others do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def report(result: dict[str, Any], *, as_json: bool) -> None:
    """Print a result for people, or as JSON."""
    if as_json:
        print(json.dumps(result, indent=1))
        return
    for name, value in result.items():
        if isinstance(value, dict):
            print(f"{name}:")
            for inner, number in value.items():
                print(f"  {inner:<28} {number}")
        else:
            print(f"{name:<30} {value}")
