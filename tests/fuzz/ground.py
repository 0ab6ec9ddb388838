"""What hostile input is thrown at: the real API before a real store, on time that does not wait.

Nothing sleeps: where all wait for something, the one clock that all share is moved on to it.
"""

import asyncio
import json
import random
import selectors
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import unquote

from sokovan.agent.timers import Timers
from sokovan.api.assembly import Core, assemble
from sokovan.api.notices import Notices
from sokovan.clock import ManualClock
from sokovan.cluster.inprocess import InProcessHome
from sokovan.config import AgentConfig, ApiConfig, Config, SchedulerConfig
from sokovan.domain.access import Caller, Role
from sokovan.domain.resources import Capacity
from sokovan.domain.sessions import AgentId, SessionId, SessionSpec
from sokovan.identity import IdSource
from sokovan.scheduler.coordinator import Coordinator
from sokovan.scheduler.messages import AgentHello, KernelToPrepare, KernelToStart
from sokovan.scheduler.wiring import events_for, join
from sokovan.simulator.runtime import FakeRuntime, Script
from sokovan.simulator.workload import ROOT
from sokovan.store.repository import SqlRepository
from tests.build import A1, NOW, a_capacity, a_repository, a_spec, in_memory
from tests.served import accepted

T = TypeVar("T")
TOKEN = "correct-horse"
ROOT_TOO = (AgentConfig(allow_root="yes"),)
LIMITS = ApiConfig(
    body_bytes_max=100_000, submit_sessions_max=5, page_sessions_max=50, requests_per_s_max=0
)
MACHINE = a_capacity()
SHORT = Script()
ANN = Caller("ann")
"""Who owns what `tests.build` submits."""
Header = tuple[bytes, bytes]
BEARER: Header = (b"authorization", b"Bearer " + TOKEN.encode())


class _Selector(selectors.DefaultSelector):
    """Never waits: moves the clock on instead."""

    clock: ManualClock

    def select(self, timeout: float | None = None) -> list[Any]:
        found = super().select(0)
        if not found:
            assert timeout is not None, "it waits for something that no time brings"
            self.clock.advance(max(timeout, 0.0))
        return found


class HastyLoop(asyncio.SelectorEventLoop):
    """An event loop whose time is a `ManualClock`."""

    def __init__(self, clock: ManualClock) -> None:
        selector = _Selector()
        selector.clock = clock
        self._clock = clock
        super().__init__(selector)
        self._clock_resolution = 1e-3  # seconds since the epoch are too coarse for the usual one

    def time(self) -> float:
        return self._clock.now()


@dataclass(frozen=True)
class Answer:
    """What the API answered."""

    status: int
    headers: Sequence[Header]
    body: bytes

    def header(self, name: str) -> str:
        return next((v.decode() for n, v in self.headers if n == name.encode()), "")

    def json(self) -> Any:
        return json.loads(self.body, parse_constant=_refuse_constant)


def _refuse_constant(text: str) -> None:
    raise AssertionError(f"the answer has {text}, which is no JSON")


class House:
    """A server: the real API, service, store, coordinator and agents, in this process."""

    def __init__(self, *, kind: type[SqlRepository] = SqlRepository) -> None:
        self.clock = ManualClock(NOW)
        self.loop = HastyLoop(self.clock)
        self.database = in_memory()
        self.repository = a_repository(database=self.database, clock=self.clock, kind=kind)
        self.coordinator = Coordinator(self.repository, self.clock, SchedulerConfig())
        self.events = events_for(self.coordinator, self.repository)
        self.home = InProcessHome(self.events, self.clock)
        self.scripts: dict[SessionId, Script] = {}
        """What the kernels of a session do; the others end after a second."""
        join(self.coordinator, self.repository, self.home, self.events, Config())
        self.unread_parts = 0
        """How much of the last request's body nobody asked for."""
        core = Core(
            self.repository,
            self.database,
            self.home,
            self.clock,
            IdSource(random.Random(1)),
            self.coordinator.tell,
            Notices(),
        )
        config = Config(api=LIMITS, agents=ROOT_TOO)
        api = assemble(core, config, TOKEN, shutdown=lambda: None, connect=accepted)
        self.service, self.app, self.tokens = api.operations, api.app, api.tokens
        self.run(api.load())

    def add_agent(self, agent_id: AgentId = A1, capacity: Capacity = MACHINE) -> None:
        """Start a well-behaved agent."""
        timers = Timers(self.clock)
        runtime = FakeRuntime(self.clock, timers, capacity, self._script)
        self.home.add(AgentHello(agent_id, agent_id, capacity), runtime, machine=timers)

    def _script(self, order: KernelToPrepare | KernelToStart) -> Script:
        return self.scripts.get(order.session_id, Script())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end."""
        return self.loop.run_until_complete(work)

    def close(self) -> None:
        self.loop.close()
        self.database.close()

    def live(self, seconds: float) -> None:
        """Let time pass for the coordinator and the agents."""
        self.run(self._live(seconds))

    async def _live(self, seconds: float) -> None:
        end = self.clock.now() + seconds
        while self.clock.now() < end:
            await self.home.run_once()
            await self.coordinator.run_due()
            due_at = min(self.home.due_at(), self.coordinator.next_at(), end)
            self.clock.advance(max(due_at - self.clock.now(), 0.01))

    def submit(self, spec: SessionSpec, script: Script = SHORT) -> SessionId:
        """Submit a session whose kernels do as the script says."""
        (view,) = self.run(self.service.submit([spec], caller=ROOT))
        session_id = SessionId(view["id"])
        self.scripts[session_id] = script
        return session_id

    def bearers(self) -> list[Header]:
        """Return what lets in: the home's own token, and one of each role."""
        made = [
            self.run(self.tokens.create("ann", role, caller=ROOT))["token"].encode()
            for role in Role
        ]
        return [BEARER, *((b"authorization", b"Bearer " + token) for token in made)]

    def inhabit(self) -> list[SessionId]:
        """Have a session that has ended, one that runs, and one that waits; return their ids."""
        self.add_agent()
        ids = [
            self.submit(a_spec(name="ended"), Script(stdout=b"hello\n")),
            self.submit(a_spec(name="runs"), Script(1e9, stdout=b"hello\n")),
            self.submit(a_spec(name="waits", begin_at=2e9)),
        ]
        self.live(30.0)
        statuses = [self.run(self.service.session(i, caller=ROOT))["status"] for i in ids]
        assert statuses == ["TERMINATED", "RUNNING", "PENDING"]
        return ids

    def ask(
        self,
        method: str,
        target: bytes,
        *,
        headers: Sequence[Header] = (BEARER,),
        body: bytes | Sequence[bytes] = b"",
    ) -> Answer:
        """Send one request as uvicorn would hand it on; `target` is as on the wire."""
        return self.run(self._ask(method, target, headers, [body] if type(body) is bytes else body))

    async def _ask(
        self, method: str, target: bytes, headers: Sequence[Header], parts: Sequence[bytes]
    ) -> Answer:
        path, _, query = target.partition(b"?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote(path.decode("ascii", "replace")),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": [(name.lower(), value) for name, value in headers],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
            "state": {},
        }
        left = list(parts)
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            if not left:
                return {"type": "http.disconnect"}
            part = left.pop(0)
            return {"type": "http.request", "body": part, "more_body": bool(left)}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        self.unread_parts = len(left)
        self.app.state.stopping.told.clear()
        start, *rest = sent
        body = b"".join(message.get("body", b"") for message in rest)
        return Answer(start["status"], start["headers"], body)
