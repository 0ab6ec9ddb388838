"""The directory in which functions go to their sessions, and results come back.

Both are pickles, and reading a pickle runs whatever it says. So nothing is read but regular files
of this user in a directory of this user that nobody else may enter. Files appear whole or not at
all. Each begins with a line of JSON, which says who wrote it: pickles of another Python are not
read.

    functions/HASH    a function, once for all its calls
    calls/KEY         one call: its function's hash and its arguments
    results/KEY       what came of it
"""

import hashlib
import json
import os
import pickle
import platform
import shutil
import stat
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import cloudpickle

from sokovan.client.errors import CallError
from sokovan.domain.errors import InvalidRequestError

FUNCTIONS, CALLS, RESULTS = PARTS = ("functions", "calls", "results")
HEAD_BYTES_MAX = 1 << 20
VERSIONS = {
    "python": ".".join(platform.python_version_tuple()[:2]),
    "cloudpickle": ".".join(cloudpickle.__version__.split(".")[:2]),
}
"""What must be the same on both sides."""

Head = dict[str, Any]


class Spool:
    """One such directory."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def made_below(cls, directory: Path) -> Self:
        """Make a new one below `directory`, which is made, too.

        Raises:
            InvalidRequestError: It cannot be made.
        """
        try:
            directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # perhaps a home
            directory.mkdir(mode=0o700, exist_ok=True)
            root = Path(tempfile.mkdtemp(prefix="calls-", dir=directory.resolve()))
            for part in PARTS:
                (root / part).mkdir(mode=0o700)
        except OSError as error:
            raise InvalidRequestError(
                f"directory: {directory} cannot be used ({error.strerror}); name one of yours that"
                " every agent of the group sees",
                field="directory",
            ) from None
        return cls(root)

    def remove(self) -> None:
        """Remove it with all that is in it; a session that has not begun finds no function then."""
        shutil.rmtree(self.root, ignore_errors=True)

    # --- functions and calls ----------------------------------------------------------------------

    def put_function(self, pickled: bytes) -> str:
        """Write a function, unless it is there, and return its hash."""
        name = hashlib.sha256(pickled).hexdigest()
        if not (self.root / FUNCTIONS / name).exists():
            self._write(FUNCTIONS, name, {}, pickled)
        return name

    def put_call(self, key: str, function: str, pickled: bytes, *, path: Sequence[str]) -> Path:
        """Write a call, and return its file.

        Args:
            key: What the result is to be called.
            function: The hash of the function.
            pickled: The arguments: a tuple and a mapping.
            path: Where the function's modules are looked for before anywhere else.
        """
        return self._write(CALLS, key, {"function": function, "path": list(path)}, pickled)

    def get_call(self, key: str) -> tuple[Head, bytes]:
        """Return what a call says first, and its pickled arguments.

        Raises:
            CallError: It is gone, not ours, or of another Python.
        """
        return self._read(CALLS, key)

    def get_function(self, name: str) -> bytes:
        """Return a pickled function; errors as for `get_call`."""
        return self._read(FUNCTIONS, name)[1]

    # --- results ----------------------------------------------------------------------------------

    def put_result(self, key: str, head: Mapping[str, Any], pickled: bytes) -> None:
        """Write what came of a call; where it was run twice, the last one stays."""
        self._write(RESULTS, key, head, pickled)

    def results(self) -> list[str]:
        """Return the keys of the results that are there, in no order."""
        with os.scandir(self.root / RESULTS) as entries:
            return [entry.name for entry in entries if not entry.name.startswith(".")]

    def has_result(self, key: str) -> bool:
        """Say whether a result is there."""
        return (self.root / RESULTS / key).exists()

    def take_result(self, key: str) -> tuple[Head, bytes]:
        """Return a result, and remove it with its call; errors as for `get_call`."""
        try:
            return self._read(RESULTS, key)
        finally:
            self.forget(key)

    def forget(self, key: str) -> None:
        """Remove a call and its result."""
        for part in (CALLS, RESULTS):
            (self.root / part / key).unlink(missing_ok=True)

    # --- files ------------------------------------------------------------------------------------

    def _write(self, part: str, name: str, head: Mapping[str, Any], pickled: bytes) -> Path:
        path = self.root / part / name
        new = path.with_name(f".{name}.{os.getpid()}.{platform.node()}")
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(json.dumps({**VERSIONS, **head}).encode() + b"\n")
            file.write(pickled)
        new.replace(path)
        return path

    def _read(self, part: str, name: str) -> tuple[Head, bytes]:
        path = self.root / part / name
        try:
            self._check(self.root.lstat(), self.root, mode=stat.S_IFDIR)
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            with os.fdopen(fd, "rb") as file:
                self._check(os.fstat(fd), path, mode=stat.S_IFREG)
                head: Head = json.loads(file.readline(HEAD_BYTES_MAX))
                pickled = file.read()
        except FileNotFoundError:
            raise CallError(
                f"{path} is not there: the program that submitted this has ended, or this agent"
                " does not see its directory; name a shared one with Executor(directory=...)"
            ) from None
        except OSError as error:
            raise CallError(f"{path} cannot be read: {error.strerror}") from None
        _check_versions(head)
        return head, pickled

    def _check(self, found: os.stat_result, path: Path, *, mode: int) -> None:
        if (
            stat.S_IFMT(found.st_mode) != mode
            or found.st_uid != os.geteuid()
            or found.st_mode & 0o077
        ):
            raise CallError(
                f"{path} is not read: it could be another user's, and reading a pickle may run"
                " anything; it must be yours alone, with the mode 0700 (files: 0600)"
            )


def _check_versions(head: Head) -> None:
    for what, ours in VERSIONS.items():
        if head[what] != ours:
            raise CallError(
                f"this was pickled with {what} {head[what]}, and here is {what} {ours}; run both"
                " sides with the same, see Executor(python=...)"
            )


def pickled(thing: object, *, what: str) -> bytes:
    """Return a thing as a pickle; functions and classes that no module has go along whole.

    Raises:
        CallError: It cannot be pickled; `what` says what it is.
    """
    try:
        found: bytes = cloudpickle.dumps(thing)
    except Exception as error:
        raise CallError(f"{what} cannot be pickled: {type(error).__name__}: {error}") from error
    return found


def unpickled(found: bytes, *, what: str) -> Any:
    """Return what was pickled, from a file of ours.

    Raises:
        CallError: It cannot be made again here; `what` says what it is.
    """
    try:
        return pickle.loads(found)  # noqa: S301 (see the head of this module)
    except Exception as error:
        raise CallError(
            f"{what} cannot be made again from its pickle: {type(error).__name__}: {error}"
        ) from error
