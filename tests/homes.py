"""Agents to test: the same few kernels, scripted in this process or real in an agent process."""

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sokovan.agent.timers import Timers
from sokovan.clock import ManualClock, SystemClock
from sokovan.cluster.inprocess import InProcessHome
from sokovan.cluster.local import LocalHome
from sokovan.config import AgentConfig
from sokovan.domain.errors import StoreUnavailableError
from sokovan.domain.resources import Request
from sokovan.domain.sessions import AgentId, KernelId, SessionId
from sokovan.scheduler.messages import (
    AgentHello,
    KernelReport,
    KernelToPrepare,
    KernelToStart,
    KernelToStop,
    ReportState,
)
from sokovan.scheduler.ports import AgentGateway
from sokovan.simulator.runtime import FakeRuntime, Script

DEADLINE_S = 60.0
"""Far more than anything here takes; only a failure waits so long."""
PATH = "/usr/local/bin:/usr/bin:/bin"


@dataclass(frozen=True)
class Deed:
    """What a kernel does, once as a script and once as a command."""

    script: Script
    command: tuple[str, ...]


SUCCEEDS = Deed(Script(seconds=1), ("true",))
FAILS = Deed(Script(seconds=1, exit_code=3), ("sh", "-c", "exit 3"))
RUNS_LONG = Deed(Script(seconds=10_000), ("sleep", "10000"))
IS_STUBBORN = Deed(
    Script(seconds=10_000, ignores_term=True, stdout=b"ready\n"),
    ("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1000; done"),
)
SPEAKS = Deed(Script(seconds=1, stdout=b"hello world\n"), ("echo", "hello world"))
SPEAKS_AND_STAYS = Deed(
    Script(seconds=10_000, stdout=b"hello world\n"),
    ("sh", "-c", "echo hello world; exec sleep 10000"),
)


class Sink:
    """Writes down what agents say; a test may have it fail."""

    def __init__(self) -> None:
        self.hellos: list[AgentHello] = []
        self.heartbeats: list[list[str]] = []
        self.reports: list[KernelReport] = []
        self.failures_left = 0
        self.failed: list[KernelReport] = []
        self.store_is_away = False

    async def connected(self, hello: AgentHello) -> int:
        self._need_store()
        self.hellos.append(hello)
        return len(self.hellos)

    async def heartbeat(self, agent_id: AgentId, incarnation: int, tokens: list[str]) -> None:
        assert incarnation == len(self.hellos)
        self.heartbeats.append(list(tokens))

    async def reported(
        self, agent_id: AgentId, incarnation: int, reports: list[KernelReport]
    ) -> None:
        assert incarnation == len(self.hellos)
        if self.failures_left:
            self.failures_left -= 1
            self.failed.extend(reports)
            raise ConnectionError("the store cannot be reached")
        if self.store_is_away:
            self.failed.extend(reports)
        self._need_store()
        self.reports.extend(reports)

    def _need_store(self) -> None:
        if self.store_is_away:
            raise StoreUnavailableError("the store cannot be written: database is locked")

    def of(self, token: str) -> list[KernelReport]:
        return [report for report in self.reports if report.token == token]

    def end_of(self, token: str) -> KernelReport | None:
        return next((r for r in self.of(token) if r.state is ReportState.ENDED), None)


class Ground:
    """One agent somewhere, and the ways to use it."""

    gateway: AgentGateway
    sink: Sink
    agent_id: AgentId

    def order(self, token: str, deed: Deed, **changes: object) -> KernelToStart:
        return self.command(token, *deed.command, **changes)

    def command(
        self, token: str, *command: str, env: Mapping[str, str] | None = None, **changes: object
    ) -> KernelToStart:
        fields = {"cwd": "/", "request": Request(), **changes}
        return KernelToStart(
            token=token,
            session_id=SessionId(f"s-{token}"),
            kernel_id=KernelId(f"s-{token}.0"),
            agent_id=self.agent_id,
            command=command,
            env={"PATH": PATH, **(env or {})},
            **fields,  # type: ignore[arg-type]
        )

    async def start(self, token: str, deed: Deed, **changes: object) -> KernelReport:
        (report,) = await self.gateway.start(self.agent_id, [self.order(token, deed, **changes)])
        return report

    async def prepare(self, token: str, image: str | None = None) -> KernelReport:
        kernel = KernelToPrepare(token, SessionId("s"), KernelId("s.0"), self.agent_id, image=image)
        (report,) = await self.gateway.prepare(self.agent_id, [kernel])
        return report

    async def stop(self, token: str, grace_s: float = 10.0, *, force: bool = False) -> KernelReport:
        (report,) = await self.gateway.stop(self.agent_id, [KernelToStop(token, grace_s, force)])
        return report

    async def state(self, token: str) -> KernelReport:
        (report,) = await self.gateway.states(self.agent_id, [token])
        return report

    async def read(
        self, token: str, stream: str = "stdout", *, offset: int = 0, wait_s: float = 0.0
    ) -> bytes:
        chunk = await self.gateway.read_output(
            self.agent_id, token, stream, offset=offset, bytes_max=1 << 20, wait_s=wait_s
        )
        return chunk.data

    async def end_of(self, token: str) -> KernelReport:
        await self.until(lambda: self.sink.end_of(token) is not None)
        end = self.sink.end_of(token)
        assert end is not None
        return end

    async def until(self, condition: Callable[[], bool]) -> None:
        raise NotImplementedError

    async def until_written(self, token: str, text: bytes) -> None:
        raise NotImplementedError


class ScriptedGround(Ground):
    """An agent in this process, on a clock that only a test moves."""

    def __init__(self, **config: object) -> None:
        self.clock = ManualClock()
        self.sink = Sink()
        self.agent_id = AgentId("a1")
        self.scripts: dict[str, Script] = {}
        machine = Timers(self.clock)
        self.runtime = FakeRuntime(
            self.clock, machine, script=lambda order: self.scripts.get(order.token, Script())
        )
        self.home = InProcessHome(self.sink, self.clock)
        hello = AgentHello(self.agent_id, "scripted", self.runtime.capacity())
        self.home.add(
            hello,
            self.runtime,
            machine=machine,
            config=AgentConfig(**config),  # type: ignore[arg-type]
        )
        self.gateway = self.home

    def order(self, token: str, deed: Deed, **changes: object) -> KernelToStart:
        self.scripts[token] = deed.script
        return super().order(token, deed, **changes)

    async def round(self) -> None:
        """Let what is due happen, as `InProcessHome.run` does."""
        try:
            await self.home.run_once()
        except ConnectionError:
            self.home.disconnect()

    async def pass_time(self, seconds: float) -> None:
        """Let `seconds` pass, stopping wherever something happens."""
        until = self.clock.now() + seconds
        while self.clock.now() < until:
            await self.round()
            step = self.home.due_at() - self.clock.now()
            self.clock.advance(min(max(step, 0.001), until - self.clock.now()))
        await self.round()

    async def until(self, condition: Callable[[], bool]) -> None:
        for _ in range(10_000):
            await self.round()
            if condition():
                return
            self.clock.advance(max(self.home.due_at() - self.clock.now(), 0.001))
        raise AssertionError("it does not come about")

    async def until_written(self, token: str, text: bytes) -> None:
        assert text in self.scripts[token].stdout


class RealGround(Ground):
    """A real agent process below a directory of its own, and a manager that may come and go."""

    def __init__(self, home: Path, **config: object) -> None:
        self.directory = home / "agents" / "local"
        settings: dict[str, object] = {"heartbeat_s": 0.2, "gpus": "none", **config}
        self.config = AgentConfig(**settings)  # type: ignore[arg-type]
        self.sink = Sink()
        self._home_path = home
        self._running: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        """Have a manager come, which finds the agent or starts it."""
        self.home = LocalHome(self._home_path, [self.config], self.sink, call_timeout_s=DEADLINE_S)
        self.gateway = self.home
        self._running = asyncio.create_task(self.home.run())
        before = len(self.sink.hellos)
        await self.until(lambda: len(self.sink.hellos) > before)
        await self.home.all_connected()
        self.agent_id = self.sink.hellos[-1].agent_id

    async def disconnect(self) -> None:
        """Have the manager go; the agent stays."""
        await self.home.aclose()
        assert self._running is not None
        await self._running

    def agent_pid(self) -> int:
        """Find the agent's process: whoever has its lock open."""
        lock = str(self.directory / "agent.lock")
        for process in Path("/proc").iterdir():
            if process.name.isdigit() and int(process.name) != os.getpid():
                with contextlib.suppress(OSError):
                    if any(str(fd.readlink()) == lock for fd in (process / "fd").iterdir()):
                        return int(process.name)
        return 0

    def kill_agent(self, number: signal.Signals = signal.SIGKILL) -> int:
        pid = self.agent_pid()
        assert pid, "there is no agent"
        os.kill(pid, number)
        return pid

    async def until(self, condition: Callable[[], bool]) -> None:
        clock = SystemClock()
        deadline = clock.now() + DEADLINE_S
        while not condition():
            assert clock.now() < deadline, "it does not come about"
            await clock.sleep(0.01)

    async def until_written(self, token: str, text: bytes) -> None:
        while text not in (seen := await self.read(token, wait_s=1.0)):
            assert seen or (await self.state(token)).state is ReportState.RUNNING

    async def close(self) -> None:
        """Leave no process behind: kernels first, then the agent."""
        if self._running is None or self._running.done():
            await self.connect()
        await self.until(lambda: bool(self.sink.heartbeats))
        seen = len(self.sink.heartbeats)
        await self.until(lambda: len(self.sink.heartbeats) > seen)
        live = self.sink.heartbeats[-1]
        if live:
            await self.gateway.stop(self.agent_id, [KernelToStop(t, force=True) for t in live])
        while live:
            seen = len(self.sink.heartbeats)
            await self.until(lambda seen=seen: len(self.sink.heartbeats) > seen)  # type: ignore[misc]
            live = self.sink.heartbeats[-1]
        staying = await self.home.stop_idle_agents()
        assert not staying, staying
        assert self._running is not None
        await self._running


def a_short_directory() -> Path:
    """Make a directory; the caller removes it."""
    return Path(tempfile.mkdtemp(prefix="sok-", dir="/tmp"))


@contextlib.asynccontextmanager
async def real_ground(home: Path | None = None, **config: object) -> AsyncIterator[RealGround]:
    """A real agent, ready; gone without a trace at the end, however the test ended."""
    directory = home or a_short_directory()
    ground = RealGround(directory, **config)
    await ground.connect()
    try:
        yield ground
    finally:
        await ground.close()
        shutil.rmtree(directory)
