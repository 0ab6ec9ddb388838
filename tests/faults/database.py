"""A home whose store is a PostgreSQL that tests may stop, crash, freeze and cut off."""

import contextlib
import os
import queue
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import psycopg

from sokovan.client import Client, View
from sokovan.config import StoreConfig
from sokovan.domain.errors import SokovanError
from sokovan.simulator.survey import survey
from sokovan.store.engine import Transaction
from sokovan.store.postgresql import open_postgresql
from tests.faults.ground import DEADLINE_S, RealHome, environment, real_home

AWAY_S = float(os.environ.get("SOKOVAN_TEST_AWAY_S", "4"))
"""How long the database is away: two minutes are for a soak, not for every run of the tests."""
CONFIG = """
[[agents]]
name = "a"
cpu = "40"
gpus = "none"
heartbeat_s = 0.5
[scheduler]
full_cycle_s = 3.0
agent_silence_s = 2.0
agent_call_timeout_s = 2.0
[store]
url = "{url}"
busy_timeout_s = 1.0
answer_s_max = 2.0
"""
BLOCK = 65536
COMMIT = b"COMMIT\0"
"""What a client sends, and what the server answers once it is done."""


@contextlib.contextmanager
def home_on(url: str) -> Iterator[RealHome]:
    """Make a home whose store is a database; after the test, everything in it must agree."""
    with real_home(CONFIG.format(url=url)) as home:
        yield home


def faults_in(url: str) -> tuple[str, ...]:
    """Return what `db check` would find wrong in a database."""
    engine = open_postgresql(url, StoreConfig())
    try:
        with engine.connect() as connection:
            return survey(Transaction(connection)).violations
    finally:
        engine.dispose()


def ended(home: RealHome, session_id: str) -> View | None:
    """Return a session that has ended; `None` before, and while nobody can tell."""
    with contextlib.suppress(SokovanError):
        view = home.client.get(session_id)
        return view if view["ended_at"] else None
    return None


class Job:
    """A session that runs for as long as a file is there, and then exits with 5."""

    def __init__(self, home: RealHome, name: str) -> None:
        self.home = home
        self.file = home.home / name
        self.file.touch()
        script = f"echo $$ >>{self.file}.ran; while [ -e {self.file} ]; do sleep 0.1; done; exit 5"
        env = environment(home)
        view = home.client.submit(["/bin/sh", "-c", script], name=name, env=env, cwd="/")
        self.id: str = view["id"]
        home.wait_for(lambda: home.client.get(self.id)["status"] == "RUNNING", "start")

    def end(self) -> None:
        """Have it end."""
        self.file.unlink()

    def pids(self) -> list[int]:
        """Return who has run it."""
        return [int(line) for line in Path(f"{self.file}.ran").read_text().split()]

    def is_running(self) -> bool:
        """Whether the process is there."""
        return Path(f"/proc/{self.pids()[-1]}").exists()


class Load:
    """Threads that submit one session after the other, and remember what became of each.

    Attributes:
        fates: `accepted`, or the code of the refusal, by creation id.
    """

    def __init__(self, home: RealHome, threads: int = 6) -> None:
        self.home = home
        self.fates: dict[str, str] = {}
        self._is_over = threading.Event()
        self._threads = [
            threading.Thread(target=self._submit, args=(number,)) for number in range(threads)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join(DEADLINE_S)

    def count(self, fate: str) -> int:
        """Return how many submissions came to an end like that."""
        return Counter(self.fates.copy().values())[fate]

    def _submit(self, number: int) -> None:
        rng = random.Random(number)
        with Client(home=self.home.home, retry_s=0, timeout_s=DEADLINE_S) as client:
            for turn in range(1_000_000):
                if self._is_over.is_set():
                    return
                creation_id = f"{number}-{turn}"
                try:
                    submit(client, self.home, creation_id)
                    self.fates[creation_id] = "accepted"
                except SokovanError as error:
                    self.fates[creation_id] = error.code
                time.sleep(rng.uniform(0, 0.05))

    def settle(self) -> None:
        """Ask again what became of the submissions of which that was not said."""
        for creation_id, fate in self.fates.items():
            if fate == "commit-unknown":
                submit(self.home.client, self.home, creation_id)

    def faults_found(self, url: str) -> list[str]:
        """Return which submissions the database knows more or less often than it should."""
        with psycopg.connect(url) as connection:
            rows = connection.execute("SELECT creation_id FROM sessions").fetchall()
        known = Counter(row[0] for row in rows)
        due = {"accepted": 1, "commit-unknown": 1, "store-unavailable": 0}
        return [
            f"{creation_id}: {fate}, and it is there {known[creation_id]} times"
            for creation_id, fate in self.fates.items()
            if known[creation_id] != due.get(fate, -1)
        ]


def submit(client: Client, home: RealHome, creation_id: str) -> View:
    """Submit a session that does nothing."""
    env = environment(home)
    return client.submit(["/bin/true"], env=env, cwd="/", creation_id=creation_id)


class Proxy:
    """Stands between a manager and its database, on a port of its own.

    Attributes:
        is_silent: Whether nothing is passed on, while every connection stays open.
        cut: The next transaction in which these bytes are sent loses its connection at its
            commit: `before` the server hears of it, or `after` it has answered.
    """

    def __init__(self, port: int) -> None:
        self._server = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.is_silent = False
        self.cut: tuple[bytes, str] | None = None
        self.cuts = 0
        self.held: queue.Queue[socket.socket] = queue.Queue()
        self._connections: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.is_silent = False
        for connection in (self._listener, *self._connections):
            hang_up(connection)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._connections.append(client)
                try:
                    server = socket.create_connection(("127.0.0.1", self._server))
                except OSError:  # the database is away: whoever asks is to see that
                    hang_up(client)
                    continue
                self._connections.append(server)
                link = _Link(self, client, server)
                threading.Thread(target=link.up, daemon=True).start()
                threading.Thread(target=link.down, daemon=True).start()


class _Link:
    """One connection through a proxy."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._is_marked = False
        self._cuts_at_answer = False

    def up(self) -> None:
        """Pass on what the client says."""
        with contextlib.suppress(OSError):
            while data := self._client.recv(BLOCK):
                self._wait_while_silent()
                cut = self._proxy.cut
                self._is_marked |= cut is not None and cut[0] in data
                if cut is not None and self._is_marked and COMMIT in data:
                    self._proxy.cut = None
                    self._proxy.cuts += 1
                    self._is_marked = False
                    if cut[1] == "hold":
                        self._proxy.held.put(self._client)
                        continue
                    if cut[1] == "before":
                        break
                    self._cuts_at_answer = True
                self._server.sendall(data)
        self._hang_up()

    def down(self) -> None:
        """Pass on what the server says."""
        with contextlib.suppress(OSError):
            while data := self._server.recv(BLOCK):
                self._wait_while_silent()
                if self._cuts_at_answer and COMMIT in data:
                    break
                self._client.sendall(data)
        self._hang_up()

    def _wait_while_silent(self) -> None:
        while self._proxy.is_silent:
            time.sleep(0.05)

    def _hang_up(self) -> None:
        hang_up(self._client)
        hang_up(self._server)


def hang_up(connection: socket.socket) -> None:
    """Close a connection, whoever reads from it."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
