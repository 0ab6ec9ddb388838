"""Commands that start at once: each is forked from a process that has imported what they need.

What is tested stays a command in a process of its own, with its own streams, environment and
directory; only to start Python and import the same modules again, which is most of what a short
command does, is left out. One that depends on how Python itself starts runs as usual.
"""

import atexit
import contextlib
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

REQUEST_BYTES_MAX = 150_000
"""More does not fit into one packet; such a command runs as usual."""
STARTS_OTHERWISE = ("PYTHON", "LC_", "LANG", "_SOKOVAN_COMPLETE", "TERM", "FORCE_COLOR")
"""Beginnings of variables that count when Python starts, or modules are imported."""


def run(
    argv: Sequence[str], env: Mapping[str, str], *, stdin: str, timeout_s: float
) -> "subprocess.CompletedProcess[str]":
    """Run a `sokovan` command to its end.

    Raises:
        subprocess.TimeoutExpired: It took longer, and was killed.
    """
    request = json.dumps({"argv": [*argv], "env": {**env}, "cwd": str(Path.cwd())}).encode()
    if len(request) > REQUEST_BYTES_MAX or _of_the_start(env) != _of_the_start(os.environ):
        return subprocess.run(
            [sys.executable, "-m", "sokovan", *argv],
            env=env,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            input=stdin,
        )
    return _the_one().run(request, argv, stdin, timeout_s)


def _of_the_start(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if name.startswith(STARTS_OTHERWISE)}


@cache
def _the_one() -> "_Starter":
    return _Starter()


class _Starter:
    """The process that commands are forked from, for as long as this one lives."""

    def __init__(self) -> None:
        self._socket, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            self._process = subprocess.Popen(
                [sys.executable, "-P", __file__, str(its.fileno())],
                pass_fds=[its.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        self._lock = threading.Lock()
        atexit.register(self._close)

    def run(
        self, request: bytes, argv: Sequence[str], stdin: str, timeout_s: float
    ) -> "subprocess.CompletedProcess[str]":
        with contextlib.ExitStack() as stack:
            its_in, in_end = os.pipe()
            to_it = stack.enter_context(os.fdopen(in_end, "w"))
            pipes = [os.pipe() for _ in ("stdout", "stderr", "how it ends")]
            out, err, ends = (stack.enter_context(os.fdopen(end)) for end, _ in pipes)
            theirs = [its_in, *(end for _, end in pipes)]
            with self._lock:
                socket.send_fds(self._socket, [request], theirs)
            for end in theirs:
                os.close(end)
            readers = stack.enter_context(ThreadPoolExecutor(2))
            pid = int(ends.readline())
            too_long = threading.Event()

            def kill() -> None:
                too_long.set()
                os.kill(pid, signal.SIGKILL)

            killer = threading.Timer(timeout_s, kill)
            killer.start()
            try:
                said = [readers.submit(stream.read) for stream in (out, err)]
                with contextlib.suppress(BrokenPipeError):
                    to_it.write(stdin)
                    to_it.close()
                code = int(ends.readline())
                output = [text.result() for text in said]
            finally:
                killer.cancel()
        if too_long.is_set():
            raise subprocess.TimeoutExpired(["sokovan", *argv], timeout_s)
        return subprocess.CompletedProcess(["sokovan", *argv], code, *output)

    def _close(self) -> None:
        self._socket.close()
        self._process.wait()


# --- in the process that commands are forked from ------------------------------------------------


def _serve(requests: socket.socket) -> None:
    import sokovan.cli.main
    import sokovan.client.sync_client

    del sokovan
    gc.freeze()
    while True:
        request, fds, _, _ = socket.recv_fds(requests, REQUEST_BYTES_MAX, 4)
        if not request:
            return
        if os.fork() == 0:
            requests.close()
            _see_it_through(json.loads(request), fds)
        for fd in fds:
            os.close(fd)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _see_it_through(request: dict[str, Any], fds: list[int]) -> None:
    """Start a command, say its process, wait for its end, say that, and end."""
    *streams, ends = fds
    pid = os.fork()
    if pid == 0:
        _become(request, streams)
    for stream in streams:
        os.close(stream)
    os.write(ends, b"%d\n" % pid)
    _, status = os.waitpid(pid, 0)
    os.write(ends, b"%d\n" % os.waitstatus_to_exitcode(status))
    os._exit(0)


def _become(request: dict[str, Any], streams: list[int]) -> None:
    from sokovan.cli.main import main

    code: Any = 1
    try:
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        sys.stdin = os.fdopen(0, closefd=False)
        sys.stdout = os.fdopen(1, "w", closefd=False)
        sys.stderr = os.fdopen(2, "w", errors="backslashreplace", buffering=1, closefd=False)
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["env"])
        sys.argv = ["sokovan", *request["argv"]]
        main()
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException:  # noqa: BLE001 - said and counted as Python itself does
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
