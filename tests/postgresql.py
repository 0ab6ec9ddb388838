"""A real PostgreSQL server of one's own, on loopback, and empty databases in it.

It runs as the user `postgres` where the tests run as root, which `initdb` refuses to. It ends with
the process that started it, however that ends.
"""

import contextlib
import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import psutil
import psycopg
import pytest

from sokovan.config import StoreConfig
from sokovan.store.postgresql import open_postgresql
from sokovan.store.schema import prepare

FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
START_S_MAX = 60.0
REQUIRED = "SOKOVAN_REQUIRE_POSTGRESQL"
"""Set by `.ci/run`: there, a server that is missing is a failure."""


class Server:
    """One server; `FAST` unless it is to survive a crash of the machine.

    Args:
        durable: Whether what it has committed survives.
        settings: What else is to be set.
        copies: Another server, of which this one is to be a standby.
    """

    def __init__(
        self,
        *,
        durable: bool = False,
        settings: dict[str, str] | None = None,
        copies: "Server | None" = None,
    ) -> None:
        self._bin = _binaries()
        self.directory = Path(tempfile.mkdtemp(prefix="sokovan-pg-", dir="/tmp"))
        self.directory.chmod(0o755)
        self._user: list[str] = []
        if os.geteuid() == 0:
            shutil.chown(self.directory, "postgres", "postgres")
            self._user = ["--reuid=postgres", "--regid=postgres", "--init-groups"]
        self._settings = ({} if durable else FAST) | (settings or {})
        self._names = itertools.count(1)
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        data = f"{self.directory}/data"
        if copies is None:
            how = ("-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8")
            self._run("initdb", "-D", data, *how, "--no-sync", "--no-instructions")
        else:
            whom = ("-d", copies.url("postgres"), "-c", "fast", "--no-sync")
            self._run("pg_basebackup", "-D", data, "--write-recovery-conf", *whom)
        self.start()

    def start(self) -> None:
        """Start, and wait until it answers."""
        options = {
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self.directory),
            "max_connections": "100",
        } | self._settings
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *self._as_user("--pdeathsig=QUIT"),
                    self._bin / "postgres",
                    "-D",
                    f"{self.directory}/data",
                    *(f"-c{name}={value}" for name, value in options.items()),
                ],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        until = time.monotonic() + START_S_MAX
        while True:
            try:
                psycopg.connect(self.url("postgres"), connect_timeout=5).close()
                return
            except psycopg.OperationalError:
                if self._process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError((self.directory / "log").read_text()[-2000:]) from None
                time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End: SIGINT is a fast shutdown, SIGQUIT an immediate one, as after a crash."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(60)
            self._process = None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to every process of the server."""
        assert self._process is not None
        postmaster = psutil.Process(self._process.pid)
        for process in (postmaster, *postmaster.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def close(self) -> None:
        """End, and leave nothing behind."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.directory, ignore_errors=True)

    def url(self, database: str) -> str:
        """Return the address of a database."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def execute(self, statement: str, database: str = "postgres") -> list[tuple]:
        """Execute one statement by itself, and return its rows."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def empty(self) -> str:
        """Make an empty database, and return its address."""
        name = f"empty{next(self._names)}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def prepared(self) -> str:
        """Make a database with the schema in it, and return its address."""
        name = f"prepared{next(self._names)}"
        if not self.execute("SELECT 1 FROM pg_database WHERE datname = 'ready'"):
            self.execute("CREATE DATABASE ready")
            engine = open_postgresql(self.url("ready"), StoreConfig())
            prepare(engine)
            engine.dispose()
        self.execute(f"CREATE DATABASE {name} TEMPLATE ready")
        return self.url(name)

    def _as_user(self, *options: str) -> list[str]:
        return ["setpriv", *self._user, *options, "--"]

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [*(self._as_user() if self._user else ()), self._bin / program, *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
        )
        if done.returncode:
            raise RuntimeError(f"{program}: {done.stderr}")


def version() -> str:
    """Return the name and the number of what would be started."""
    done = subprocess.run(
        [_binaries() / "postgres", "--version"], capture_output=True, check=True, text=True
    )
    _, name, number, *_ = done.stdout.split()
    return f"{name.strip('()')} {number}"


def _binaries() -> Path:
    """Return where PostgreSQL's programs are; skip the test where there are none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    elsewhere = shutil.which("initdb")
    if not found and elsewhere:
        found = [Path(elsewhere).resolve()]
    if not found:
        missing = "PostgreSQL is not installed: apt-get install postgresql"
        if os.environ.get(REQUIRED):
            pytest.fail(missing)
        pytest.skip(missing)
    return found[-1].parent
