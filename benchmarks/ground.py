"""What the benchmarks stand on: a server of their own, the machine's bare speed, a report."""

import contextlib
import gc
import json
import os
import platform
import shutil
import signal
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

READY_S_MAX = 30.0
T = TypeVar("T")


@contextlib.contextmanager
def server(
    cpu: int, *, prefill: int = 0, profile: Path | None = None
) -> Iterator[tuple[Client, Path]]:
    """Run a server with an agent of `cpu` cores in a home of its own, and clear it all away after.

    Args:
        cpu: Cores that the agent says it has.
        prefill: Finished sessions to put into the store first.
        profile: Write a cProfile of the manager there.
    """
    home = Path(tempfile.mkdtemp(prefix="sokovan-bench-"))
    home.chmod(0o700)
    (home / "config.toml").write_text(f'[[agents]]\nname = "bench"\ncpu = "{cpu}"\nmem = "64G"\n')
    if prefill:
        from benchmarks.prefill import fill

        fill(home / "sokovan.db", prefill)
    profiled = [] if profile is None else ["-m", "cProfile", "-o", str(profile)]
    with (home / "bench.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, *profiled, "-m", "sokovan", "--home", str(home), "up"],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield wait_ready(home, process), home
    finally:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(15)
        for found in of_home(home):
            with contextlib.suppress(psutil.Error):
                found.kill()
        shutil.rmtree(home, ignore_errors=True)


def wait_ready(home: Path, process: "subprocess.Popen[bytes]") -> Client:
    """Return a client once the server answers."""
    deadline = time.monotonic() + READY_S_MAX
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


def conditions() -> dict[str, Any]:
    """Return what the figures depend on."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "cores": os.cpu_count(),
        "load_1m": round(os.getloadavg()[0], 2),
        "fsync_ms": round(fsync_ms(), 2),
    }


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
