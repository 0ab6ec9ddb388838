"""Events with a real server that is killed, real readers, and a receiver that misbehaves."""

import contextlib
import json
import select
import sqlite3
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from sokovan.client import Client
from tests.end_to_end.test_command import Place, until

pytestmark = [pytest.mark.real, pytest.mark.slow]

DEADLINE_S = 60.0


@pytest.fixture
def place():
    """A home of this test's own."""
    place = Place()
    yield place
    place.clean_up()


def lines_of(place):
    """Return what history holds: number, session and status of every line."""
    with contextlib.closing(sqlite3.connect(place.path / "sokovan.db")) as store:
        return store.execute(
            "SELECT line, session_id, to_status FROM history ORDER BY 1"
        ).fetchall()


def seen(events):
    return [(event["id"], event["session_id"], event["to_status"]) for event in events]


def all_ended(place):
    sessions = place.json("ls", "--all")
    return len(sessions) if all(s["status"] == "TERMINATED" for s in sessions) else 0


def stream(place, last_id):
    """Yield events of one connection, until it breaks."""
    server = json.loads((place.path / "server.json").read_text())
    headers = {
        "authorization": f"Bearer {(place.path / 'token').read_text().strip()}",
        "last-event-id": str(last_id),
    }
    url = f"{server['url']}/v1/events/stream"
    with (
        contextlib.suppress(httpx.TransportError),
        httpx.stream("GET", url, headers=headers, timeout=DEADLINE_S) as answer,
    ):
        for line in answer.iter_lines():
            if line.startswith("data:"):
                yield json.loads(line[5:])


class Readers:
    """Two readers that come again whenever they are cut off, until they are told to end."""

    def __init__(self, place):
        self.followed, self.streamed = [], []
        self._place = place
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=w, daemon=True) for w in (self._follow, self._read)
        ]
        for thread in self._threads:
            thread.start()

    def _follow(self):
        with Client(self._place.path) as client:
            for event in client.events(after=0):
                self.followed.append(event)
                if self._over.is_set():
                    return

    def _read(self):
        while not self._over.is_set():
            last_id = self.streamed[-1]["id"] if self.streamed else 0
            with contextlib.suppress(OSError, ValueError, LookupError):
                for event in stream(self._place, last_id):
                    self.streamed.append(event)
                    if self._over.is_set():
                        return
            time.sleep(0.05)

    def end(self):
        self._over.set()
        self._place.submit("--", "true")  # they wake, and see that they may go
        for thread in self._threads:
            thread.join(DEADLINE_S)


def test_readers_of_a_server_that_is_killed_again_and_again_miss_nothing(place):
    place("ls")
    readers = Readers(place)
    for _ in range(2):
        known = len(readers.streamed)
        for _ in range(2):
            place.submit("--", "true")
        until(lambda known=known: len(readers.streamed) > known, "an event in the stream")
        place.kill_server()
        place("ls")
    until(lambda: all_ended(place) == 4, "the end of all sessions")
    lines = lines_of(place)
    for events in (readers.followed, readers.streamed):
        until(lambda events=events: len(events) >= len(lines), "the end of the story")

    assert seen(readers.followed) == lines
    assert seen(readers.streamed) == lines
    readers.end()


class Receiver:
    """A server that answers wrongly, slowly or not at all before it does what it should."""

    def __init__(self):
        self.events = []
        self.tried = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                message = json.loads(self.rfile.read(int(self.headers["content-length"])))
                outer.tried += 1
                misdeed = outer.tried % 5
                if misdeed == 1:
                    self.send_error(500)
                elif misdeed == 2:
                    self.close_connection = True
                elif misdeed == 3:
                    self.send_response(302)
                    self.send_header("location", "/elsewhere")
                    self.end_headers()
                elif misdeed == 4:
                    time.sleep(1.0)  # longer than the server waits
                else:
                    outer.events += message["events"]
                    self.send_response(200)
                    self.end_headers()

            def log_message(self, *args):
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()


def test_a_receiver_that_misbehaves_is_told_all_in_order_by_a_server_that_is_killed(place):
    place.env |= {
        "SOKOVAN_API_WEBHOOK_TIMEOUT_S": "0.5",
        "SOKOVAN_API_WEBHOOK_RETRY_S_MAX": "0.05",
    }
    receiver = Receiver()
    with contextlib.closing(receiver):
        place("webhooks", "add", receiver.url, "--kind", "session")
        for _ in range(2):
            tried = receiver.tried
            place.submit("--", "true")
            until(lambda tried=tried: receiver.tried > tried, "another try")
            place.kill_server()
            place("ls")
        until(lambda: all_ended(place) == 2, "the end of all sessions")
        with contextlib.closing(sqlite3.connect(place.path / "sokovan.db")) as store:
            query = "SELECT line FROM history WHERE kernel_id IS NULL ORDER BY line"
            wanted = [line for (line,) in store.execute(query)]
        until(lambda: wanted[-1] in [e["id"] for e in receiver.events], "the last event")
        (webhook,) = until(
            lambda: [w for w in place.json("webhooks", "ls") if not w["failures"]], "a well webhook"
        )

    assert list(dict.fromkeys(event["id"] for event in receiver.events)) == wanted
    assert webhook["position"] >= wanted[-1]
    assert Path(place.path / "sokovan.db").stat().st_mode & 0o777 == 0o600


def test_the_command_shows_what_happened_and_goes_on_with_what_happens(place):
    first = place.submit("--", "true")
    place.until_status(first, "TERMINATED")

    shown = place("events", "--session", first, "--after", "0").stdout.splitlines()
    told = place.json("history", first)
    follows = place.start("events", "-f", "--last", "0", "--kind", "session.running", "--json")
    until(lambda: place.submit("--", "true") and select_line(follows), "an event")

    assert [line.split()[2] for line in shown] == [str(line[0]) for line in lines_of(place)][
        : len(told)
    ]
    assert all(first in line for line in shown)
    assert "session" in shown[0]
    follows.terminate()


def select_line(process):
    """Return the next line of a process's output as JSON, if there is one."""
    ready, _, _ = select.select([process.stdout], [], [], 0.5)
    return json.loads(process.stdout.readline()) if ready else None
