"""What the kernel of the operating system says of processes, in /proc.

A process is named by its pid *and* its start time: pids are used again, both together are not.
"""

# These calls are made for every kernel, and pathlib takes longer than they do.
# ruff: noqa: PTH115, PTH123, PTH208

import contextlib
import math
import os
import signal
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sokovan.outside import SERVICE_VARIABLE, TOKEN_VARIABLE

_GONE = frozenset("ZXx")
_READS_MAX = 20
"""How often the list of our children is read at once, before whoever asks must ask later."""
_ABSENT = (FileNotFoundError, ProcessLookupError, PermissionError)
"""What says that a process is gone, or not ours to look at. Any other error says nothing of it."""


@dataclass(frozen=True, slots=True)
class Process:
    """One line of the process table."""

    pid: int
    state: str
    parent: int
    group: int
    session: int
    start: int
    """When it started, in clock ticks since the machine did."""
    memory: int = 1
    """Its address space in bytes; 0 for one that is ending, and cannot tell its environment."""

    @property
    def is_gone(self) -> bool:
        """Whether it has ended, and only its parent has not noticed."""
        return self.state in _GONE

    @property
    def is_ending(self) -> bool:
        """Whether it is about to end, or has: it will fork no more."""
        return self.memory == 0


def parse_stat(line: str) -> Process:
    """Read a line of /proc/PID/stat, whatever characters the program's name has.

    Raises:
        ValueError: It is not such a line.
    """
    pid, _, rest = line.partition(" (")
    fields = rest.rpartition(")")[2].split()
    if len(fields) < 21:
        raise ValueError(f"not a line of /proc/PID/stat: {line[:80]!r}")
    parent, group, session = (int(field) for field in fields[1:4])
    start, memory = (int(field) for field in fields[19:21])
    return Process(int(pid), fields[0], parent, group, session, start, memory)


def process(pid: int) -> Process | None:
    """Return the process that has this pid now, if one does.

    Raises:
        OSError: It cannot be looked at now: no descriptor is free.
    """
    try:
        with open(f"/proc/{pid}/stat", errors="replace") as file:
            return parse_stat(file.read())
    except (*_ABSENT, ValueError):
        return None


def is_alive(pid: int, start: int) -> bool:
    """Say whether this very process has not ended.

    Raises:
        OSError: It cannot be looked at now: no descriptor is free.
    """
    found = process(pid)
    return found is not None and found.start == start and not found.is_gone


def processes() -> dict[int, Process]:
    """Return every process that has not ended, by pid.

    Raises:
        OSError: They cannot be looked at now: no descriptor is free.
    """
    found = (process(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return {p.pid: p for p in found if p is not None and not p.is_gone}


def carries(pid: int, token: str) -> bool:
    """Say whether a process has the token of a kernel set, or its output goes to that kernel's.

    Raises:
        OSError: It cannot be looked at now: no descriptor is free.
    """
    if _has_variable(pid, f"{TOKEN_VARIABLE}={token}"):
        return True
    try:
        return any(f"/{token}/std" in os.readlink(f"/proc/{pid}/fd/{fd}") for fd in (1, 2))
    except _ABSENT:
        return False


def is_service(pid: int) -> bool:
    """Say whether a process is an agent or a server of our home: whoever began it, no kernel's.

    Raises:
        OSError: It cannot be looked at now: no descriptor is free.
    """
    if pid == os.getpid():
        return True
    home = os.environ.get(SERVICE_VARIABLE)
    return home is not None and _has_variable(pid, f"{SERVICE_VARIABLE}={home}") and _is_own(pid)


def _is_own(pid: int) -> bool:
    """Say whether our own user started a process: another's may say of itself what it likes."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(errors="replace")
    except _ABSENT:
        return False
    return f"\nUid:\t{os.getuid()}\t" in status


def _has_variable(pid: int, text: str) -> bool:
    try:
        environ = Path(f"/proc/{pid}/environ").read_bytes()
    except _ABSENT:
        return False
    return b"\0" + os.fsencode(text) + b"\0" in b"\0" + environ


def children(of: int | str = "self") -> list[int] | None:
    """Return a process's children, those that were given to it included.

    `None` where nobody says so, or when it has ended.
    """
    try:
        with os.scandir(f"/proc/{of}/task") as threads:
            lines = [Path(thread.path, "children").read_text() for thread in threads]
    except _ABSENT:
        return None
    return [int(pid) for line in lines for pid in line.split()]


def orphans(token: str, wrappers: Container[int]) -> list[Process]:
    """Find what carries a token and was given to us, without a gap.

    A look at all processes misses what forks and ends, from one to the next. But whoever is last of
    that line is our child, or one of a child of ours that is ending; and no child is missing in the
    list of these. Where one has ended since, there may be one more: then it is read again.

    Raises:
        OSError: They cannot be looked at now: no descriptor is free, or they change too fast.
    """
    ended: set[int] = set()
    for _ in range(_READS_MAX):
        found, is_certain = [], True
        unseen = children() or []
        while unseen:
            pid = unseen.pop()
            if pid in wrappers or pid in ended:
                continue
            is_its = carries(pid, token)
            child = process(pid)
            if is_its and child is not None:
                found.append(child)
            elif child is not None and child.is_ending and (heirs := children(pid)) is not None:
                unseen += heirs
                child = process(pid)  # else they are our children by now
            if child is None or child.is_gone:
                ended.add(pid)
                is_certain = False
        if found or is_certain:
            return found
    raise BlockingIOError("our children end faster than they can be looked at")


def ownerless(wrappers: Container[int], table: Mapping[int, Process]) -> list[Process]:
    """Find what was given to us and is older than every wrapper of ours that runs.

    Nothing tells which kernel it belongs to: but it is one that has ended. A server that a kernel
    has started is given to us, too, and is none of it.

    Raises:
        OSError: They cannot be looked at now: no descriptor is free.
    """
    ours = [p for p in table.values() if p.parent == os.getpid() and p.session != os.getsid(0)]
    oldest = min((p.start for p in ours if p.pid in wrappers), default=math.inf)
    found = [p for p in ours if p.pid not in wrappers and p.start < oldest]
    return [p for p in found if not is_service(p.pid)]


def wrapper_carrying(token: str, table: Iterable[Process]) -> Process | None:
    """Find the wrapper of a token: of all that carry it, the one that leads their session."""
    return next(
        (p for p in table if p.pid == p.session and carries(p.pid, token) and _is_own(p.pid)), None
    )


def members(
    wrapper: int,
    token: str,
    table: dict[int, Process],
    reapers: Iterable[int] | None,
    *,
    was_seen: bool = True,
) -> list[Process]:
    """Find what belongs to a kernel, its wrapper apart, without the help of control groups.

    Args:
        wrapper: Pid of the kernel's wrapper, which leads its session and its process group.
        token: The kernel's token.
        table: A look at all processes.
        reapers: Whose children to look at for ones that left the session: who is given the children
            of those that ended. `None` looks at all.
        was_seen: Whether this agent has seen the wrapper alive. If not, its number may be another's
            session by now, unless something in it carries the token.
    """
    adopted = None if reapers is None else set(reapers)
    in_session = {p.pid for p in table.values() if wrapper in (p.session, p.group)}
    if wrapper in table:
        is_its = carries(wrapper, token)
    else:
        is_its = was_seen or any(carries(pid, token) for pid in in_session)
    found = {
        p.pid
        for p in table.values()
        if (is_its and p.pid in in_session)
        or ((adopted is None or p.parent in adopted) and carries(p.pid, token))
    }
    found.add(wrapper)
    found.discard(os.getpid())
    children: dict[int, list[int]] = {}
    for p in table.values():
        children.setdefault(p.parent, []).append(p.pid)
    unseen = [wrapper] if is_its else []
    unseen.extend(found - {wrapper})
    while unseen:
        for child in children.get(unseen.pop(), ()):
            if child not in found and not is_service(child):
                found.add(child)
                unseen.append(child)
    return [table[pid] for pid in found - {wrapper} if pid in table]


def send(target: Process, number: signal.Signals) -> None:
    """Send a signal to this very process, and to none that has its pid by now."""
    try:
        fd = os.pidfd_open(target.pid)
    except OSError:  # gone, or no descriptor is free: then the moment in between must do
        fd = -1
    try:
        now = process(target.pid)
        if now is None or now.start != target.start:
            return
        with contextlib.suppress(OSError):
            if fd < 0:
                os.kill(target.pid, number)
            else:
                signal.pidfd_send_signal(fd, number)
    finally:
        if fd >= 0:
            os.close(fd)


def send_group(group: int, number: signal.Signals) -> None:
    """Send a signal to a process group; harmless when nothing of it is left."""
    with contextlib.suppress(OSError):
        os.killpg(group, number)
