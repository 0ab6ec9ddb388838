"""Checks of the home and its server: settings, files, disk, store, address, agents."""

import contextlib
import os
import sqlite3
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sokovan import __version__
from sokovan.cli.checks import Finding, Ground, ok, problem, warning
from sokovan.client import Client, server_file
from sokovan.domain.errors import SchemaTooOldError, SokovanError, UnauthorizedError
from sokovan.domain.quantities import format_size

if TYPE_CHECKING:
    from sokovan.store.engine import Transaction

ANSWER_S_MAX = 5.0
FREE_BYTES_MIN = 100 * 1024**2
FREE_BYTES_FEW = 2 * 1024**3
FREE_FILES_MIN = 10_000
WRITE_S_MANY = 0.25
"""A disk that takes longer than this to keep a few bytes makes every submission slow."""
OVER_THE_NETWORK = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "lustre", "beegfs", "gpfs"}
    | {"fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.rclone", "fuse.s3fs"}
)
IN_MEMORY = frozenset({"tmpfs", "ramfs"})


def settings(ground: Ground) -> Iterator[Finding]:
    """Read the settings as a server that is started now would."""
    from sokovan.api.tls import Tls
    from sokovan.config import FILE_NAME, load_config
    from sokovan.policies import check_stages

    file = ground.home / FILE_NAME
    try:
        config = load_config(ground.home)
        for group in config.scaling_groups():
            check_stages(group)
        tls = Tls.of(config)
    except SokovanError as error:
        yield problem(
            f"no server starts with these settings: {error.message}",
            f"mend {file}, or the variable; `sokovan config` shows what counts",
        )
        return
    more = "" if tls is None else f", with a certificate for {', '.join(tls.names)}"
    yield ok(f"{file if file.exists() else 'the defaults'}{more}")


def directory(ground: Ground) -> Iterator[Finding]:
    """Look whether the home is this user's, and nobody else's."""
    home = ground.home
    try:
        found = home.stat()
    except FileNotFoundError:
        above = _existing(home)
        if os.access(above, os.W_OK | os.X_OK):
            yield ok(f"{home} is not there yet; the first command makes it")
        else:
            yield problem(
                f"{home} is not there, and {above} may not be written",
                "name another home with --home or SOKOVAN_HOME",
            )
        return
    except OSError as error:
        yield problem(
            f"{home} cannot be looked at: {error.strerror}",
            "name another home with --home or SOKOVAN_HOME",
        )
        return
    mode = stat.S_IMODE(found.st_mode)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        what = "belongs to another user" if stat.S_ISDIR(found.st_mode) else "is no directory"
        yield problem(f"{home} {what}", "name your own with --home or SOKOVAN_HOME")
    elif mode & (stat.S_IWGRP | stat.S_IWOTH):
        yield problem(f"{home} can be written by others (mode {mode:o})", f"chmod 700 {home}")
    elif mode & (stat.S_IRWXG | stat.S_IRWXO):
        yield warning(
            f"{home} is open to others (mode {mode:o}): they may read output and environments",
            f"chmod 700 {home}",
        )
    elif not os.access(home, os.W_OK | os.X_OK):
        yield problem(f"{home} may not be written (mode {mode:o})", f"chmod 700 {home}")
    else:
        yield ok(f"{home}, which only you can open")


def token(ground: Ground) -> Iterator[Finding]:
    """Look whether the token is there, and only its owner can read it."""
    path = ground.home / "token"
    try:
        found = path.stat()
        empty = not path.read_text(errors="replace").strip()
    except FileNotFoundError:
        yield ok("there is no token yet; the first server makes it")
        return
    except OSError as error:
        yield problem(f"{path} cannot be read: {error.strerror}", f"chmod 600 {path}")
        return
    mode = stat.S_IMODE(found.st_mode)
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        yield problem(
            f"{path} is open to others (mode {mode:o}): who reads it may run commands as you",
            f"chmod 600 {path}; if others may have read it, remove it while the server is down:"
            " the next one makes another",
        )
    elif empty:
        yield problem(f"{path} is empty", f"rm {path} while the server is down, which makes one")
    else:
        yield ok(f"{path}, which only you can read")


def disk(ground: Ground) -> Iterator[Finding]:
    """Look what the home lies on, how much is free, and how long it takes to keep something."""
    where = _existing(ground.home)
    kind = _file_system(ground, where)
    found = os.statvfs(where)
    free, files = found.f_bavail * found.f_frsize, found.f_favail
    said = f"{format_size(free)} free on {kind or 'a file system of an unknown kind'}"
    if free < FREE_BYTES_MIN or (found.f_files and files < FREE_FILES_MIN // 10):
        yield problem(
            f"{said}, {files} files more: soon nothing can be submitted, nor any end be recorded",
            "make room, or set output_keep_days and output_bytes_max lower for the agents",
        )
    elif free < FREE_BYTES_FEW or (found.f_files and files < FREE_FILES_MIN):
        yield warning(
            f"{said}, {files} files more: output may fill it up",
            "make room, or set output_keep_days and output_bytes_max lower for the agents",
        )
    elif kind in OVER_THE_NETWORK:
        yield problem(
            f"{said}, which is over the network: its locks do not protect the store",
            "name a home on a local disk with --home or SOKOVAN_HOME",
        )
    elif kind in IN_MEMORY:
        yield warning(
            f"{said}, which is memory: all sessions and their output are lost at a restart",
            "name a home on a disk with --home or SOKOVAN_HOME",
        )
    else:
        yield ok(said)
    if os.access(where, os.W_OK | os.X_OK):
        yield _kept(ground, where)


def _kept(ground: Ground, where: Path) -> Finding:
    """Write to a scratch store, as the server does: through a log, until it is on the disk."""
    begun = ground.clock.now()
    try:
        with (
            tempfile.TemporaryDirectory(prefix=".doctor-", dir=where) as scratch,
            contextlib.closing(sqlite3.connect(f"{scratch}/scratch.db")) as store,
        ):
            (mode,) = store.execute("PRAGMA journal_mode=WAL").fetchone()
            store.execute("PRAGMA synchronous=FULL")
            begun = ground.clock.now()
            store.execute("CREATE TABLE kept (n INTEGER)")
            took_s = ground.clock.now() - begun
    except (OSError, sqlite3.Error) as error:
        return problem(
            f"a store cannot be written in {where}: {error}",
            "name a home on a local disk with --home or SOKOVAN_HOME",
        )
    if mode != "wal":
        return problem(
            f"a store in {where} cannot have a write-ahead log, without which nothing works",
            "name a home on a local disk with --home or SOKOVAN_HOME",
        )
    if took_s > WRITE_S_MANY:
        return warning(
            f"the disk takes {took_s * 1000:.0f} ms to keep something: submitting is slow",
            'name a home on a faster disk, or set store.synchronous = "NORMAL", which may lose'
            " the last moments when the power fails",
        )
    return ok(f"the disk takes {took_s * 1000:.1f} ms to keep something")


def store(ground: Ground) -> Iterator[Finding]:
    """Read the store, and look whether the clock stands behind what was written last."""
    from sokovan.cli.checks.database import database
    from sokovan.config import load_config
    from sokovan.store.beside import read_beside

    try:
        config = load_config(ground.home).store
    except SokovanError as error:
        yield problem(f"nobody knows where the store is: {error.message}", "mend the settings")
        return
    if config.url:
        yield from database(ground, config)
        return
    path = ground.home / "sokovan.db"
    if not path.exists():
        yield ok("there is no store yet; the first server makes it")
        return
    try:
        is_behind = read_beside(path, lambda tx: behind(ground, tx))
    except SchemaTooOldError as error:
        yield warning(error.message, "sokovan down; the next command starts a server that does it")
        return
    except SokovanError as error:
        yield problem(
            f"the store cannot be read: {error.message}",
            "see the guide to the server and its home; `sokovan db check` looks at all of it",
        )
        return
    size = sum(p.stat().st_size for p in path.parent.glob("sokovan.db*"))
    yield is_behind or ok(
        f"{path} ({format_size(size)}) can be read, and the clock is not behind it"
    )


def behind(ground: Ground, tx: "Transaction") -> Finding | None:
    """Look whether the clock stands behind what was written last."""
    from sqlalchemy import select

    from sokovan.store.tables import history

    last = select(history.c.at).order_by(history.c.line.desc()).limit(1)
    last_at: float | None = tx.execute(last).scalar()
    behind_s = 0.0 if last_at is None else last_at - ground.clock.now()
    if behind_s <= 1.0:
        return None
    return problem(
        f"the clock is {behind_s:.0f} s behind what was written last: it was set back, or was"
        " ahead before; ages and times that are shown are wrong until it has caught up",
        "set the clock (timedatectl), and restart the server: sokovan down",
    )


def server(ground: Ground) -> Iterator[Finding]:
    """Ask the server, and its agents; without one, try whether one could listen."""
    found = server_file(ground.home)
    if found is None:
        yield from _address(ground)
        return
    try:
        with Client(ground.home, timeout_s=ANSWER_S_MAX, retry_s=0) as client:
            status, agents = client.status(), client.agents()
    except UnauthorizedError as error:
        yield problem(
            f"the server (pid {found['pid']}) refuses the token: {error.message}",
            f"restart it: kill {found['pid']}, and any command starts it again",
        )
        return
    except SokovanError as error:
        yield problem(
            f"the server (pid {found['pid']}) does not answer: {error.message}",
            f"look into {ground.home / 'server.log'}; kill {found['pid']} loses nothing that was"
            " accepted, and the next command starts another",
        )
        return
    if status["version"] != __version__:
        yield warning(
            f"the server is sokovan {status['version']}, and this command {__version__}",
            "sokovan down; the next command starts the new one, and sessions go on",
        )
    else:
        yield ok(f"the server answers at {status['address']} (pid {status['pid']})")
    for agent in agents:
        yield _agent(agent, ground.home)
    if not agents:
        yield problem(
            "there are no agents: nothing can run",
            f"look into {ground.home / 'server.log'}",
        )


def _agent(agent: dict[str, object], home: Path) -> Finding:
    name = f"the agent {agent['name']}"
    if agent["status"] == "ALIVE":
        return ok(f"{name} is ALIVE{', and drained' * bool(agent.get('drained'))}")
    return problem(
        f"{name} is {agent['status']}: nothing starts on it",
        f"look into {home / 'agents' / str(agent['name']) / 'agent.log'}; one that is gone for good"
        f" is forgotten with: sokovan agents remove {agent['name']}",
    )


def _address(ground: Ground) -> Iterator[Finding]:
    """Listen for a moment where a server would."""
    from sokovan.config import load_config
    from sokovan.manager import listen

    try:
        with contextlib.closing(listen(load_config(ground.home))) as listener:
            host, port = listener.getsockname()[:2]
    except SokovanError as error:
        yield problem(
            f"no server runs, and none could: {error.message}",
            "mend the settings: `sokovan config api` shows what counts",
        )
        return
    yield ok(f"no server runs; the next command starts one, which can listen on {host}:{port}")


def _existing(path: Path) -> Path:
    """Return a directory, or the nearest one above it that is there."""
    return next(above for above in (path, *path.parents) if above.is_dir())


def _file_system(ground: Ground, path: Path) -> str:
    """Return the kind of file system that a path is on, "" when the system does not say."""
    kind, longest = "", -1
    real = path.resolve()
    for line in ground.text("proc/self/mountinfo").splitlines():
        fields, _, more = line.partition(" - ")
        mount = Path(fields.split()[4].encode().decode("unicode_escape"))
        if real.is_relative_to(mount) and len(mount.parts) >= longest:  # later ones hide earlier
            kind, longest = more.split()[0], len(mount.parts)
    return kind
