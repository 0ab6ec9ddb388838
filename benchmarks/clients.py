"""How many sessions a second many clients get accepted that each submit one at a time.

The clients are one process of their own, which speaks HTTP by hand over plain sockets, so that it
is not they who are measured.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.ground import (
    add_database,
    conditions,
    cpu_seconds,
    occupy,
    quantile,
    report,
    server,
)

BODY = json.dumps({"command": ["/bin/true"], "cpu_milli": 1000, "cwd": "/"}).encode()
CREATED = b"HTTP/1.1 201"


class OneByOne(asyncio.Protocol):
    """A client that submits again as soon as it was answered, until the time is up."""

    def __init__(self, token: str, until: float, took: list[float]) -> None:
        self._request = (
            b"POST /v1/sessions HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
            + f"Authorization: Bearer {token}\r\nContent-Length: {len(BODY)}\r\n\r\n".encode()
            + BODY
        )
        self._until, self._took = until, took
        self._got = b""
        self._sent_at = 0.0
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._submit()

    def _submit(self) -> None:
        self._got, self._sent_at = b"", time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._got += data
        head, found, body = self._got.partition(b"\r\n\r\n")
        if not found:
            return
        _, _, after = head.lower().partition(b"content-length:")
        if len(body) < int(after.partition(b"\r\n")[0]):
            return
        if not head.startswith(CREATED):
            self._end(SystemExit(f"not accepted: {self._got.decode()}"))
            return
        now = time.perf_counter()
        self._took.append(now - self._sent_at)
        if now < self._until:
            self._submit()
        else:
            self._end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(SystemExit(f"the server closed the connection: {exc}"))

    def _end(self, error: BaseException | None) -> None:
        if not self.over.done():
            self.over.set_exception(RuntimeError(str(error))) if error else self.over.set_result(
                None
            )
            self._transport.close()


async def drive(url: str, token: str, clients: int, seconds: float) -> dict[str, float]:
    """Have that many clients submit for so long; return what came of it."""
    at, loop = urlsplit(url), asyncio.get_running_loop()
    took: list[float] = []
    begun, cpu = time.perf_counter(), time.process_time()
    host, port = at.hostname or "", at.port or 80
    made = [
        loop.create_connection(lambda: OneByOne(token, begun + seconds, took), host, port)
        for _ in range(clients)
    ]
    await asyncio.gather(*(client.over for _, client in await asyncio.gather(*made)))
    wall = time.perf_counter() - begun
    return {
        "accepted": len(took),
        "accepted_per_s": round(len(took) / wall, 1),
        "ms_median": round(quantile(took, 0.5) * 1000, 1),
        "ms_p90": round(quantile(took, 0.9) * 1000, 1),
        "ms_p99": round(quantile(took, 0.99) * 1000, 1),
        "ms_max": round(max(took) * 1000, 1),
        "clients_cpu_of_a_core": round((time.process_time() - cpu) / wall, 3),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=100, help="how many at once")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long a round lasts")
    parser.add_argument("--rounds", type=int, default=3, help="the best counts: others disturb")
    parser.add_argument("--finished", type=int, default=0, help="finished sessions beforehand")
    parser.add_argument("--profile", type=Path, help="write down there where the manager is")
    parser.add_argument("--drive", help=argparse.SUPPRESS)
    parser.add_argument("--token", help=argparse.SUPPRESS)
    add_database(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    if args.drive:
        print(json.dumps(asyncio.run(drive(args.drive, args.token, args.clients, args.seconds))))
        return

    rounds = []
    with server(1, db=args.db, prefill=args.finished, profile=args.profile) as (client, home):
        occupy(client, 1000)
        url = json.loads((home / "server.json").read_text())["url"]
        token = (home / "token").read_text().strip()
        for _ in range(args.rounds):
            before = cpu_seconds(home)["manager"]
            argv = [sys.executable, __file__, f"--drive={url}", f"--token={token}"]
            argv += ["--clients", str(args.clients), "--seconds", str(args.seconds)]
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(done.stderr)
            found = json.loads(done.stdout)
            used = cpu_seconds(home)["manager"] - before
            rounds.append(found | {"manager_cpu_ms": round(used / found["accepted"] * 1000, 3)})
    best = max(rounds, key=lambda found: found["accepted_per_s"])
    report(
        {
            "clients": args.clients,
            **best,
            "rounds": str([found["accepted_per_s"] for found in rounds]),
            "finished_before": args.finished,
            "conditions": conditions(args.db),
        },
        as_json=args.json,
    )


if __name__ == "__main__":
    main()
