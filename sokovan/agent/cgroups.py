"""Control groups: what keeps a kernel within its request, and finds everything that is left of it.

Our groups are made below the agent's own group (version 1) or beside it (version 2, where a group
with groups below it may have no processes), so that whatever limits the agent limits its kernels.
The wrapper of a kernel stays outside and lets only the command in: nothing that befalls the group
can lose the command's status.
"""

# These calls are made for every kernel, and pathlib takes longer than they do.
# ruff: noqa: PTH102, PTH103, PTH106, PTH110, PTH112, PTH116, PTH120

import contextlib
import errno
import hashlib
import os
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sokovan.domain.resources import Request

CPU_PERIOD_US = 100_000
CPU_QUOTA_US_MIN = 1_000
_LIMITS = ("cpu", "memory")
_PROBE = 'for f; do echo 0 >"$f" || exit 1; done'
_SUBGROUPS_FROM = 3  # links of a directory that has one below it
_GATES = {1: "tasks", 2: "cgroup.procs"}
"""What joins has one thread. Through `tasks` Linux (since 5.16) lets it in at once; through the
other file only after a moment in which nothing forks anywhere, which takes some 8 ms.
"""


@dataclass(frozen=True, slots=True)
class Group:
    """The control groups of one kernel, made or not.

    Attributes:
        paths: Directories; the first one tells what belongs to the kernel.
        gate: The file in each through which a process joins.
    """

    paths: tuple[str, ...]
    gate: str = "cgroup.procs"

    def gates(self) -> list[str]:
        """Return the files through which a process joins, by writing 0."""
        return [f"{path}/{self.gate}" for path in self.paths]

    def pids(self) -> set[int]:
        """Return every process in it but this one, those in groups that it made below included.

        Raises:
            OSError: It cannot be looked at now: no descriptor is free.
        """
        return self._everything() - {os.getpid()}

    def kill(self) -> None:
        """Send SIGKILL to everything in it; forks that are under way may need another call.

        Where this process is in it itself, it is spared: frozen, it could not thaw itself.

        Raises:
            OSError: It cannot be looked at now: no descriptor is free.
        """
        if os.getpid() not in self._everything():
            if _write(f"{self.paths[0]}/cgroup.kill", "1"):
                return
            self._freeze(frozen=True)
        for pid in self.pids():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        self.thaw()

    def thaw(self) -> None:
        """Let everything run that an earlier agent may have left frozen."""
        self._freeze(frozen=False)

    def oom_killed(self) -> bool:
        """Say whether a process was killed because the group was at its memory limit."""
        for path in self.paths:
            for name in ("memory.events", "memory.oom_control"):
                for line in _read(f"{path}/{name}").splitlines():
                    key, _, count = line.partition(" ")
                    if key == "oom_kill" and count not in ("", "0"):
                        return True
        return False

    def remove(self) -> bool:
        """Remove the directories; say whether none is left."""
        return all(_remove(path) for path in self.paths)

    def _everything(self) -> set[int]:
        return {int(pid) for p in self._all() for pid in _must_read(f"{p}/cgroup.procs").split()}

    def _freeze(self, *, frozen: bool) -> None:
        path = self.paths[0]
        if not _write(f"{path}/freezer.state", "FROZEN" if frozen else "THAWED"):
            _write(f"{path}/cgroup.freeze", "1" if frozen else "0")

    def _all(self) -> Iterator[str]:
        path = self.paths[0]
        try:
            flat = os.stat(path).st_nlink < _SUBGROUPS_FROM
        except OSError:
            return
        yield path
        if not flat:
            yield from _below(path)


@dataclass(frozen=True, slots=True)
class Cgroups:
    """Where this agent makes groups, and which limits they can carry.

    Attributes:
        version: 1 or 2.
        bases: The directory for our groups by controller; in version 2 it is always the same one.
        tracker: The directory whose groups tell what belongs to a kernel.
    """

    version: int
    tracker: str
    bases: Mapping[str, str] = field(default_factory=dict)

    def group_of(self, token: str, request: Request) -> Group:
        """Name the groups that a kernel needs."""
        wanted = [self.tracker]
        if request.mem_bytes and "memory" in self.bases:
            wanted.append(self.bases["memory"])
        if request.cpu_milli and "cpu" in self.bases:
            wanted.append(self.bases["cpu"])
        paths = tuple(f"{base}/k-{token}" for base in dict.fromkeys(wanted))
        return Group(paths, _GATES[self.version])

    def make(self, group: Group, request: Request) -> None:
        """Make the groups of a kernel and set their limits.

        Raises:
            OSError: The system refuses.
        """
        for path in group.paths:
            with contextlib.suppress(FileExistsError):
                try:
                    os.mkdir(path)
                except FileNotFoundError:  # somebody tidied up: our directory was empty
                    _make_base(os.path.dirname(path))
                    os.mkdir(path)
        name = group.paths[0].rpartition("/")[2]
        if request.mem_bytes and "memory" in self.bases:
            self._limit_memory(f"{self.bases['memory']}/{name}", request.mem_bytes)
        if request.cpu_milli and "cpu" in self.bases:
            self._limit_cpu(f"{self.bases['cpu']}/{name}", request.cpu_milli)

    def _limit_memory(self, path: str, mem_bytes: int) -> None:
        first, with_swap, swap = (
            ("memory.max", "memory.swap.max", "0")
            if self.version == 2
            else ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", str(mem_bytes))
        )
        _must_write(f"{path}/{first}", str(mem_bytes))
        _write(f"{path}/{with_swap}", swap)  # a kernel without swap accounting does not have it

    def _limit_cpu(self, path: str, cpu_milli: int) -> None:
        quota = max(CPU_QUOTA_US_MIN, cpu_milli * CPU_PERIOD_US // 1000)
        try:
            if self.version == 2:
                _must_write(f"{path}/cpu.max", f"{quota} {CPU_PERIOD_US}")
            else:
                _must_write(f"{path}/cpu.cfs_period_us", str(CPU_PERIOD_US))
                _must_write(f"{path}/cpu.cfs_quota_us", str(quota))
        except OSError as error:
            if error.errno != errno.EINVAL:  # more than the agent itself may use: that limit holds
                raise

    def sweep(self, keep: set[str]) -> None:
        """Remove empty groups that no kernel of ours needs: an earlier agent left them."""
        for base in {self.tracker, *self.bases.values()}:
            for path in _subdirectories(base):
                if path.rpartition("/k-")[2] not in keep:
                    _remove(path)

    def close(self) -> None:
        """Remove our directories, unless there are kernels in them."""
        for base in {self.tracker, *self.bases.values()}:
            with contextlib.suppress(OSError):
                os.rmdir(base)

    def description(self) -> str:
        """Say what is enforced, for the log."""
        limits = [name for name in _LIMITS if name in self.bases]
        return f"control groups v{self.version}: limits of {', '.join(limits) or 'nothing'}"


def detect(directory: Path, *, mount: str = "/sys/fs/cgroup") -> Cgroups | None:
    """Find out where groups can be made and joined, by doing it.

    Args:
        directory: The agent's directory, which the name of our groups is derived from.
        mount: Where control groups are mounted.

    Returns:
        `None` when this user may not make groups.
    """
    name = f"sokovan-{hashlib.sha256(str(directory).encode()).hexdigest()[:12]}"
    if os.path.exists(f"{mount}/cgroup.controllers"):
        return _try_v2(mount, name)
    return _try_v1(mount, name)


def _own_paths() -> dict[str, str]:
    """Return the groups this process is in: path by controller, "" for version 2."""
    paths = {}
    for line in _read("/proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            paths[controller] = "" if path == "/" else path
    return paths


def _try_v1(mount: str, name: str) -> Cgroups | None:
    own = _own_paths()
    bases: dict[str, str] = {}
    for controller in ("freezer", "memory", "cpu", "pids"):
        root = f"{mount}/{controller}"
        is_needed = controller != "pids" or not bases  # it only tells what belongs to a kernel
        if not is_needed or not os.path.exists(f"{root}/cgroup.procs"):
            continue
        inside = f"{root}{own.get(controller, '')}"  # not visible from inside some containers
        base = f"{inside if os.path.isdir(inside) else root}/{name}"
        if _can_join(base, [base], _GATES[1]):
            bases[controller] = base
    tracker = next(iter(bases.values()), None)
    return Cgroups(1, tracker, bases) if tracker else None


def _try_v2(mount: str, name: str) -> Cgroups | None:
    """Find where groups can be made that have the most limits; leave nothing anywhere else."""
    own = f"{mount}{_own_paths().get('', '')}"
    beside = own if own == mount else os.path.dirname(own)
    best: Cgroups | None = None
    for parent in dict.fromkeys((beside, own, mount)):
        found = _try_v2_below(parent, name) if os.access(parent, os.W_OK) else None
        if found is not None and (best is None or len(found.bases) > len(best.bases)):
            best, found = found, best
        if found is not None:
            found.close()
        if best is not None and len(best.bases) == len(_LIMITS):
            break
    return best


def _try_v2_below(parent: str, name: str) -> Cgroups | None:
    base = f"{parent}/{name}"
    _enable(parent)
    with contextlib.suppress(OSError):
        _make_base(base)
    enabled = _read(f"{base}/cgroup.subtree_control").split()
    if not _can_join(base, [f"{base}/probe"], _GATES[2]):
        return None
    return Cgroups(2, base, {c: base for c in _LIMITS if c in enabled})


def _make_base(base: str) -> None:
    """Make a directory for our groups, which may have what their parent has to give."""
    os.makedirs(base, exist_ok=True)
    _enable(base)


def _enable(path: str) -> None:
    """Give the groups below `path` the controllers that they can have."""
    there = set(_read(f"{path}/cgroup.controllers").split())
    there -= set(_read(f"{path}/cgroup.subtree_control").split())
    for controller in _LIMITS:
        if controller in there:
            _write(f"{path}/cgroup.subtree_control", f"+{controller}")


def _can_join(base: str, paths: list[str], gate: str) -> bool:
    """Try whether a process of ours can enter groups at `paths`; leave only `base` behind."""
    try:
        for path in (base, *paths):
            os.makedirs(path, exist_ok=True)
        gates = Group(tuple(paths), gate).gates()
        quiet = [
            (os.POSIX_SPAWN_OPEN, fd, "/dev/null", os.O_RDWR, 0)
            for fd in (0, 1, 2)  # it complains where it may not
        ]
        pid = os.posix_spawn(
            "/bin/sh", ["sh", "-c", _PROBE, "sh", *gates], os.environ, file_actions=quiet
        )
        works = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    except OSError:
        works = False
    for path in paths:
        if path != base or not works:
            _remove(path)
    if not works:
        _remove(base)
    return works


def _subdirectories(path: str) -> list[str]:
    try:
        with os.scandir(path) as entries:
            return [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def _below(path: str) -> Iterator[str]:
    for subdirectory in _subdirectories(path):
        yield from _below(subdirectory)
        yield subdirectory


def _remove(path: str) -> bool:
    """Remove a group and those below it; say whether it is gone."""
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError:
        if not (below := _subdirectories(path)):
            return False  # something is in it
        for subdirectory in below:
            _remove(subdirectory)
        with contextlib.suppress(OSError):
            os.rmdir(path)
        return not os.path.exists(path)
    return True


def _read(path: str) -> str:
    try:
        return _must_read(path)
    except OSError:
        return ""


def _must_read(path: str) -> str:
    """Return what a file says; a group that went away says nothing.

    Raises:
        OSError: It cannot be opened now.
    """
    try:
        fd = os.open(path, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    try:
        pieces = []
        while piece := os.read(fd, 1 << 16):
            pieces.append(piece)
        return b"".join(pieces).decode()
    except OSError:  # the group went away meanwhile
        return ""
    finally:
        os.close(fd)


def _write(path: str, text: str) -> bool:
    try:
        _must_write(path, text)
    except OSError:
        return False
    return True


def _must_write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
