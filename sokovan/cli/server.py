"""The server of a home: look whether it answers, start it in the background, make its directory."""

import contextlib
import fcntl
import json
import os
import select
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sokovan.client import Client, error_from, server_file
from sokovan.domain.errors import (
    AlreadyRunningError,
    HomeError,
    InsideSessionError,
    ServerUnreachableError,
    SokovanError,
)
from sokovan.home import prepare_home
from sokovan.outside import environment

START_S_MAX = 60.0
"""How long a server may take to answer after it was started."""
PING_S_MAX = 10.0
OTHER_START_S_MAX = 10.0
LOOK_EVERY_S = 0.05
LOG_LINES_SHOWN = 5


def ensure_server(home: Path) -> None:
    """Start a server for `home` in the background, unless one answers.

    Raises:
        HomeError: The home cannot be used.
        InsideSessionError: This is a session, and a server could not outlive it.
        ServerUnreachableError: The server did not start.
    """
    if answers(home):
        return
    prepare_home(home)
    with _only_one_starts(home):
        if not answers(home):
            _start(home)


def answers(home: Path) -> bool:
    """Say whether a server of this home answers."""
    try:
        with Client(home, timeout_s=PING_S_MAX) as client:
            client.ping()
    except ServerUnreachableError:
        return False
    return True


@contextlib.contextmanager
def _only_one_starts(home: Path) -> Iterator[None]:
    """Let one process at a time start the server of a home."""
    with _open(home, "start.lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _open(home: Path, name: str) -> Iterator[int]:
    """Open a file of the home for appending."""
    try:
        fd = os.open(home / name, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise HomeError(f"{home / name} cannot be written: {error.strerror}") from None
    try:
        yield fd
    finally:
        os.close(fd)


def _start(home: Path) -> None:
    """Start a server, and return when it answers; the other end of the pipe is `tell_parent`."""
    ours, its = os.pipe()
    with os.fdopen(ours, "rb", buffering=0) as ready, _open(home, "server.log") as log:
        try:
            child = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "sokovan",
                    "--home",
                    str(home),
                    "up",
                    "--background-child",
                    str(its),
                ],
                env=environment(home / "agents", os.environ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
                pass_fds=[its],
            )
        finally:
            os.close(its)
        said = _read_word(ready)
    if said is None:
        raise ServerUnreachableError(
            f"the server (pid {child.pid}) has not answered within {START_S_MAX:.0f} s;"
            f" see {home / 'server.log'}"
        )
    if "url" in said:
        child.returncode = 0  # it is to outlive this process: nobody waits for it here
        return
    child.wait()
    if said.get("code") == AlreadyRunningError.code and _answers_soon(home):
        return
    if not said:
        said = {"detail": _last_lines(home), "code": "it died"}
    if said["code"] == InsideSessionError.code:
        raise error_from(said)
    raise ServerUnreachableError(
        f"the server did not start: {error_from(said).message} [{said['code']}];"
        f" see {home / 'server.log'}"
    )


def tell_parent(fd: int, word: dict[str, Any]) -> None:
    """Tell the process that started this server how it went: `url`, or a problem object."""
    with contextlib.suppress(OSError), os.fdopen(fd, "wb") as pipe:  # it may be gone already
        pipe.write(json.dumps(word).encode() + b"\n")


def log_unexpected(error: Exception) -> None:
    """Write a bug's traceback into the log of a server in the background, which is its stderr."""
    if not isinstance(error, SokovanError):
        traceback.print_exception(error)


def _read_word(pipe: Any) -> dict[str, Any] | None:
    """Read what the server says of its start: empty when it died, `None` when it says nothing."""
    heard = b""
    while not heard.endswith(b"\n"):
        if not select.select([pipe], [], [], START_S_MAX)[0]:
            return None
        part = pipe.read(65536)
        if not part:
            return {}
        heard += part
    word: dict[str, Any] = json.loads(heard)
    return word


def _answers_soon(home: Path) -> bool:
    """Say whether a server that someone else is starting just now answers within some seconds."""
    for _ in range(int(OTHER_START_S_MAX / LOOK_EVERY_S)):
        if server_file(home) is not None:
            return answers(home)
        time.sleep(LOOK_EVERY_S)
    return False


def _last_lines(home: Path) -> str:
    text = (home / "server.log").read_bytes()[-65536:].decode(errors="replace")
    return " | ".join(text.strip().splitlines()[-LOG_LINES_SHOWN:]) or "it said nothing"
