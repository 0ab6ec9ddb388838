"""A home with real processes that tests may kill, and that leaves nothing behind."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from sokovan.client import Client
from sokovan.domain.errors import OutputUnavailableError, SokovanError
from tests.control_groups import clear_control_groups

DEADLINE_S = 120.0
CRASHING = Path(__file__).with_name("crashing_manager.py")


class RealHome:
    """A home directory, its manager and its agents.

    Args:
        home: The directory.
        environ: What managers, and the agents that they start, are given; ours when left out.
    """

    def __init__(self, home: Path, environ: Mapping[str, str] | None = None) -> None:
        self.home = home
        self._environ = environ
        self._managers: list[subprocess.Popen[bytes]] = []
        self._client: Client | None = None
        self._said = ""

    @property
    def client(self) -> Client:
        """A client of the server that runs now."""
        where = self.home / "server.json"
        said = where.read_text() if where.exists() else ""
        if self._client is None or said != self._said:
            self._hang_up()
            self._client, self._said = Client(home=self.home), said
        return self._client

    def _hang_up(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def start(self, point: str = "never", count: int = 1) -> None:
        """Start a manager that may die at `point`."""
        with (self.home / "server.log").open("ab") as log:
            self._managers.append(
                subprocess.Popen(
                    [sys.executable, str(CRASHING), str(self.home), point, str(count)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    cwd=Path(__file__).parents[2],
                    env=self._environ,
                )
            )

    def revive(self) -> None:
        """Start a manager if the last one is dead, and wait for nothing."""
        if self._managers and self._managers[-1].poll() is not None:
            self.start()

    def is_up(self) -> bool:
        """Whether the server answers."""
        try:
            self.client.status()
        except SokovanError:
            return False
        return True

    def up(self, point: str = "never", count: int = 1) -> None:
        """Have a server that answers: start one unless it does."""
        if not self.is_up():
            if not self._managers or self._managers[-1].poll() is not None:
                self.start(point, count)
            self.wait_for(lambda: self.is_up() or self._managers[-1].poll() is not None, "a start")
            if not self.is_up():
                self.up()

    def processes(self, word: str) -> list[psutil.Process]:
        """Return this home's processes whose command line has `word`.

        One that is about to become something else has its parent's command line until then: what an
        agent starts is no agent.
        """
        found = {}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                line = process.cmdline()
                if any(str(self.home) in part for part in line) and word in line:
                    found[process.pid] = process, process.ppid()
        return [process for process, parent in found.values() if parent not in found]

    def kill(self, whom: str, number: int = signal.SIGKILL) -> None:
        """Send a signal to the `manager`, the `agent`, or `both`."""
        words = {"manager": [str(CRASHING)], "agent": ["sokovan.agent"]}
        for word in words.get(whom) or [w for ws in words.values() for w in ws]:
            for process in self.processes(word):
                with contextlib.suppress(psutil.Error):
                    process.send_signal(number)
        for manager in self._managers:
            if whom != "agent" and number == signal.SIGKILL:
                manager.wait(DEADLINE_S)

    def wait_for(self, holds: Callable[[], Any], what: str) -> Any:
        """Wait until `holds` returns something true, and return that."""
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            if value := holds():
                return value
            time.sleep(0.05)
        log = (self.home / "server.log").read_text(errors="replace")[-3000:]
        raise AssertionError(f"no {what} within {DEADLINE_S} s; server.log:\n{log}")

    def live_ids(self) -> set[str] | None:
        """Return the sessions that have not ended, or `None` while the server does not answer."""
        try:
            return {view["id"] for view in self.client.list(live_only=True)}
        except SokovanError:
            return None

    def output_of(self, session_id: str, kernel: int = 0) -> bytes:
        """Return what a kernel said, as soon as its agent is there to tell."""

        def told() -> list[bytes]:
            with contextlib.suppress(OutputUnavailableError):
                return [b"".join(self.client.output(session_id, kernel=kernel))]
            return []

        return bytes(self.wait_for(told, "output")[0])

    def clear_away(self, *, keep_home: bool = False) -> list[str]:
        """Kill whatever is left and remove the directory; return what kernels were left."""
        self._hang_up()
        self.kill("both")
        left = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("SOKOVAN_TEST_HOME") == str(self.home):
                    left.append(" ".join(process.cmdline()))
                    process.kill()
        clear_control_groups(self.home)
        if not keep_home:
            shutil.rmtree(self.home, ignore_errors=True)
        return left


@contextlib.contextmanager
def real_home(config: str = "", environ: Mapping[str, str] | None = None) -> Iterator[RealHome]:
    """Make a home with a configuration, and clear everything away after."""
    home = Path(tempfile.mkdtemp(prefix="skvn-"))
    (home / "config.toml").write_text(config)
    real = RealHome(home, environ)
    try:
        yield real
    finally:
        real.clear_away()


def environment(home: RealHome, **more: str) -> dict[str, str]:
    """Return an environment that marks kernels as this test's."""
    return {"PATH": os.environ["PATH"], "SOKOVAN_TEST_HOME": str(home.home), **more}


def fill_up(filler: Path) -> None:
    """Make a file so large that the file system that it is on is full."""
    with filler.open("ab", buffering=0) as file:
        size = 1 << 20
        while size:
            try:
                file.write(b"\0" * size)
            except OSError:
                size //= 2
