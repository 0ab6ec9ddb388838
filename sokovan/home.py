"""The home: the one directory that everything of a user's Sokovan lives in."""

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from sokovan.domain.errors import AlreadyRunningError, HomeError


def prepare_home(home: Path) -> None:
    """Make the home, for its owner alone, unless it is there.

    Raises:
        HomeError: It cannot be made or written, is not a directory, or is open to others.
    """
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = home.stat()
    except FileExistsError:
        raise HomeError(
            f"{home} is not a directory; name another with --home or SOKOVAN_HOME"
        ) from None
    except OSError as error:
        raise HomeError(
            f"{home} cannot be made: {error.strerror}; name another with --home or SOKOVAN_HOME"
        ) from None
    if found.st_uid != os.geteuid():
        raise HomeError(
            f"{home} belongs to another user (uid {found.st_uid}); name your own with --home or"
            " SOKOVAN_HOME"
        )
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise HomeError(f"{home} can be written by others; run: chmod 700 {home}")
    if not os.access(home, os.W_OK | os.X_OK):
        raise HomeError(f"{home} cannot be written; name another with --home or SOKOVAN_HOME")


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, all of it or nothing."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    temporary.rename(path)


@contextlib.contextmanager
def held(home: Path) -> Iterator[None]:
    """Hold the home against a second server; the lock goes with the process, however it ends.

    Raises:
        AlreadyRunningError: A server holds it.
        HomeError: The lock cannot be opened, or the disk is full.
    """
    try:
        descriptor = os.open(home / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise HomeError(f"{home / 'lock'} cannot be opened: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
        os.close(descriptor)
        raise AlreadyRunningError(
            f"a server already runs for the home {home} (pid {pid or 'unknown'});"
            " use it, or stop it with `sokovan down`"
        ) from None
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise HomeError(f"the home {home} cannot be written: {error.strerror}") from error
        raise
    finally:
        os.close(descriptor)
