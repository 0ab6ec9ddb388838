"""The home: the one directory that everything of a user's Sokovan lives in."""

import os
import stat
from pathlib import Path

from sokovan.domain.errors import HomeError


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
