"""Checks of the machine: versions, clock, limits of processes, shared memory."""

import ctypes
import os
import platform
import resource
import sqlite3
from collections.abc import Iterator

from sokovan import __version__
from sokovan.agent.devices import mem_bytes
from sokovan.cli.checks import Finding, Ground, ok, problem, warning
from sokovan.domain.quantities import format_size

SQLITE_MIN = (3, 35, 0)
"""The first that answers what it has inserted (RETURNING)."""
FILES_MIN = 1024
PROCESSES_MIN = 1000
SHARED = "dev/shm"
SHARED_BYTES_MIN = 256 * 1024**2
CLOCK_UNSYNCHRONISED = 5
"""What adjtimex(2) answers then: TIME_ERROR."""
TIMEX_BYTES = 512
"""More than its structure has on any machine."""


def versions(ground: Ground) -> Iterator[Finding]:
    """Name what runs here, and look whether SQLite is new enough."""
    found = (
        f"sokovan {__version__}, Python {platform.python_version()},"
        f" SQLite {sqlite3.sqlite_version}, Linux {platform.release()}"
    )
    if sqlite3.sqlite_version_info < SQLITE_MIN:
        least = ".".join(map(str, SQLITE_MIN))
        yield problem(
            f"{found}: this SQLite is too old; the store needs {least}",
            "install Sokovan into a newer Python, such as one that uv brings: uv python install",
        )
    else:
        yield ok(found)


def clock(ground: Ground) -> Iterator[Finding]:
    """Ask the system whether something keeps its clock right."""
    state = _clock_state()
    if state is None:
        yield ok("the system does not say whether its clock is kept right")
    elif state == CLOCK_UNSYNCHRONISED:
        yield warning(
            "nothing keeps this machine's clock right: times that are shown, and begin times, are"
            " as wrong as it is; how long things take is measured without it",
            "timedatectl set-ntp true, or install chrony; in a virtual machine, on its host",
        )
    else:
        yield ok("the clock is synchronised")


def _clock_state() -> int | None:
    """Return what adjtimex(2) answers when it is asked to change nothing."""
    try:
        call = ctypes.CDLL(None).adjtimex
    except (OSError, AttributeError):
        return None
    state: int = call(ctypes.create_string_buffer(TIMEX_BYTES))
    return None if state < 0 else state


def open_files(ground: Ground) -> Iterator[Finding]:
    """Look how many files a process may have open; server and agents hold some for each kernel."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < FILES_MIN:
        yield warning(
            f"a process may have {soft} files open: with many kernels at once, starts will fail",
            f"ulimit -n {FILES_MIN if hard < FILES_MIN else min(hard, 65536)} before the server is"
            " started; to have it always, /etc/security/limits.conf, or LimitNOFILE= of its unit",
        )
    else:
        yield ok(f"a process may have {_count(soft)} files open")


def processes(ground: Ground) -> Iterator[Finding]:
    """Look how many processes this user may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if os.geteuid() != 0 and soft != resource.RLIM_INFINITY and soft < PROCESSES_MIN:
        yield warning(
            f"this user may have {soft} processes and threads: kernels may fail to start theirs",
            f"ulimit -u {PROCESSES_MIN * 10}; to have it always, /etc/security/limits.conf",
        )
    elif (most := _pids_max(ground)) is not None and most < PROCESSES_MIN:
        yield warning(
            f"the control group of this process may have {most} processes and threads",
            "raise pids.max of the group, TasksMax= of the unit, or --pids-limit of the container",
        )
    else:
        yield ok(f"this user may have {_count(soft)} processes and threads")


def _pids_max(ground: Ground) -> int | None:
    """Return how many processes the control group of this one may have, where it says."""
    for line in ground.text("proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "pids" not in controllers.split(","):
            continue
        below = f"sys/fs/cgroup/{'pids' if controllers else ''}{path}".rstrip("/")
        most = ground.text(f"{below}/pids.max").strip()
        if most.isdecimal():
            return int(most)
    return None


def memory(ground: Ground) -> Iterator[Finding]:
    """Look how much of the machine's memory an agent would offer that is started from here."""
    offered, total = mem_bytes(), 0
    for line in ground.text("proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            total = int(line.split()[1]) * 1024
    if offered < total:
        yield ok(
            f"{format_size(offered)} of memory, which the control group of this process may use;"
            f" the machine has {format_size(total)}"
        )
    else:
        yield ok(f"{format_size(offered)} of memory")


def shared_memory(ground: Ground) -> Iterator[Finding]:
    """Look how much programs can share by way of /dev/shm."""
    try:
        found = os.statvfs(ground.root / SHARED)
    except OSError as error:
        yield warning(
            f"/{SHARED} cannot be used ({error.strerror}): programs that share memory will fail",
            "mount it: mount -t tmpfs tmpfs /dev/shm",
        )
        return
    size = found.f_blocks * found.f_frsize
    if size < SHARED_BYTES_MIN:
        yield warning(
            f"/{SHARED} has {format_size(size)}: programs that share more memory than that, such as"
            " data loaders of PyTorch, will fail",
            "mount -o remount,size=8G /dev/shm; for a container: docker run --shm-size=8g",
        )
    else:
        yield ok(f"/{SHARED} has {format_size(size)}")


def _count(limit: int) -> str:
    return "any number of" if limit == resource.RLIM_INFINITY else str(limit)
