"""Files of stores: made whole or not at all, and old ones kept aside."""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from sokovan.domain.errors import (
    HomeError,
    IllegalStateError,
    StoreDamagedError,
    StoreUnavailableError,
)

LOGS = ("-wal", "-shm", "-journal")
"""What SQLite keeps beside a file while it is open, or after it was not closed."""
_PART = ".sokovan-part"


@contextlib.contextmanager
def whole_file(path: Path, *, force: bool = False) -> Iterator[Path]:
    """Yield where to write a SQLite file; at the end it is on the disk, private, and named `path`.

    Until then, nothing is seen of it under that name, whatever happens.

    Args:
        path: What it is to be called.
        force: Replace what is there.

    Raises:
        IllegalStateError: There is something of that name.
        HomeError: It cannot be written there.
    """
    if os.path.isdir(path):  # noqa: PTH112 - that of pathlib fails under a name that is too long
        raise HomeError(f"{path} is a directory; name a file in it")
    if not force and os.path.lexists(path):
        raise IllegalStateError(f"{path} exists already; name another file, or add --force")
    _clear_parts(path.parent)
    part = path.with_name(f".{path.name}{_PART}-{os.getpid()}")
    try:
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        yield part
        _be_one_file(part)
        synchronise(part)
        part.rename(path)
        synchronise(path.parent)
    except OSError as error:
        raise HomeError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        for name in ("", *LOGS):
            with contextlib.suppress(OSError):  # its name may be longer than any can be
                part.with_name(part.name + name).unlink(missing_ok=True)


def copy_sqlite(source: Path, target: Path) -> None:
    """Copy a SQLite file into an empty one as it is between two transactions, and check the copy.

    Whoever works with it goes on meanwhile.

    Raises:
        HomeError: There is no such file.
        StoreDamagedError: What was copied is damaged.
        StoreUnavailableError: It cannot be read, or the copy not written.
    """
    try:
        while True:
            before, is_open = state_of(source), is_in_use(source)
            address = f"{source.absolute().as_uri()}?{'mode=ro' if is_open else 'immutable=1'}"
            with (
                contextlib.closing(sqlite3.connect(address, uri=True)) as ours,
                contextlib.closing(sqlite3.connect(target)) as copy,
            ):
                ours.backup(copy)
                found = copy.execute("PRAGMA quick_check(1)").fetchone()[0]
            if is_open or state_of(source) == before:
                break
    except sqlite3.Error as error:
        raise StoreUnavailableError(f"{source} cannot be copied: {error}") from error
    if found != "ok":
        raise StoreDamagedError(f"{source} is damaged: {found}; restore the last good backup")


def aside(path: Path, why: str, now: float) -> Path:
    """Return a name that nothing has yet, beside `path`, for what it was."""
    stamp = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    first = path.with_name(f"{path.name}.{why}-{stamp}")
    found, number = first, 1
    while os.path.lexists(found):
        number += 1
        found = first.with_name(f"{first.name}-{number}")
    return found


def keep_aside(path: Path, other: Path) -> None:
    """Give a store that nobody has open a second name; its log is in the file first, if it can."""
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(path)) as store:
        store.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for name in LOGS:  # left only by one that is damaged
        log = path.with_name(path.name + name)
        if log.exists():
            log.rename(other.with_name(other.name + name))
    try:
        other.hardlink_to(path)
    except OSError as error:
        raise HomeError(f"{path} cannot be kept as {other.name}: {error.strerror}") from error
    synchronise(path.parent)


def remove(path: Path) -> None:
    """Take a name away from a file, durably."""
    path.unlink(missing_ok=True)
    synchronise(path.parent)


def state_of(path: Path) -> tuple[int, ...]:
    """Return what changes whenever a SQLite file does.

    Raises:
        HomeError: There is none.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        raise HomeError(f"there is no store {path}: no server has run for this home yet") from None
    except OSError as error:
        raise HomeError(f"{path} cannot be read: {error.strerror}") from error
    return found.st_ino, found.st_size, found.st_mtime_ns, is_in_use(path)


def is_in_use(path: Path) -> bool:
    """Say whether somebody has a SQLite file open, or has not closed it."""
    return Path(f"{path}-wal").exists()


def synchronise(path: Path) -> None:
    """Have a file, or the names in a directory, on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _be_one_file(path: Path) -> None:
    """Have a SQLite file need no log beside it, so that it can be moved by itself."""
    with contextlib.closing(sqlite3.connect(path)) as store:
        store.execute("PRAGMA journal_mode=DELETE")


def _clear_parts(directory: Path) -> None:
    """Remove what others have begun to write in a directory and did not live to finish."""
    for part in directory.glob(f".*{_PART}-*"):
        pid = part.name.rpartition(f"{_PART}-")[2].partition("-")[0]
        if pid.isdecimal() and not Path(f"/proc/{pid}").exists():
            part.unlink(missing_ok=True)
