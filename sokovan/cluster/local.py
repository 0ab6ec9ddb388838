"""Agents on this machine, each a process of its own behind a Unix socket: the default home.

An agent process is found again or started, and started again when it dies; it and its kernels
outlive the manager. Everything it says is brought to the sink, and acknowledged once the sink has
it. Answers to questions go to whoever asked; the agent repeats them as reports at its next heartbeat
unless something newer was acknowledged meanwhile, so that a lost answer costs one heartbeat.
"""

import asyncio
import base64
import contextlib
import dataclasses
import logging
import os
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import sokovan
from sokovan.agent.wire import (
    WireError,
    decode_report,
    encode_prepare,
    encode_start,
    encode_stop,
)
from sokovan.clock import Clock, SystemClock
from sokovan.cluster.link import Link, open_link
from sokovan.config import AgentConfig
from sokovan.domain.errors import AgentError, SokovanError
from sokovan.domain.sessions import AgentId
from sokovan.scheduler.ports import (
    AgentEventSink,
    KernelReport,
    KernelToPrepare,
    KernelToStart,
    KernelToStop,
    OutputChunk,
)

log = logging.getLogger(__name__)

START_S_MAX = 20.0
"""How long an agent process may take until it listens."""
POLL_S = 0.02
BACKOFF_S_MAX = 2.0
FRAME_ITEMS_MAX = 64
"""Most kernels in one frame: environments are long, and the agent does other things in between."""
_ANY_SIGNAL = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGCHLD]


class LocalHome:
    """Keeps the agents of this machine, and is the `AgentGateway` to them.

    Args:
        home: The home directory; each agent lives in `agents/NAME` below it.
        agents: The agents to keep.
        sink: Takes what they say.
        call_timeout_s: How long one call to an agent may take.
        clock: Waits between attempts.
    """

    def __init__(
        self,
        home: Path,
        agents: Iterable[AgentConfig],
        sink: AgentEventSink,
        *,
        call_timeout_s: float = 10.0,
        clock: Clock | None = None,
    ) -> None:
        self._timeout_s = call_timeout_s
        self._clock = clock or SystemClock()
        self._keepers = [
            AgentKeeper(home / "agents" / config.name, config, sink, self._clock)
            for config in agents
        ]
        self._tasks: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        """Keep every agent alive and connected, until `aclose` or `stop_idle_agents`."""
        async with asyncio.TaskGroup() as group:
            self._tasks = [group.create_task(keeper.run()) for keeper in self._keepers]

    async def aclose(self) -> None:
        """Hang up; the agents and their kernels go on."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def stop_idle_agents(self) -> Mapping[str, str]:
        """Ask the agents on which nothing lives to end.

        Returns:
            Why each of the others stays, by name.
        """
        staying = {}
        for keeper in self._keepers:
            try:
                async with asyncio.timeout(self._timeout_s):
                    live = await keeper.let_go()
            except (AgentError, TimeoutError) as error:
                staying[keeper.name] = str(error) or "it does not answer"
            else:
                if live:
                    staying[keeper.name] = f"{live} kernels live on it"
        return staying

    # --- AgentGateway -----------------------------------------------------------------------------

    async def prepare(
        self, agent_id: AgentId, kernels: Sequence[KernelToPrepare]
    ) -> Sequence[KernelReport]:
        return await self._ask_each(
            agent_id, "prepare", "kernels", [encode_prepare(kernel) for kernel in kernels]
        )

    async def start(
        self, agent_id: AgentId, kernels: Sequence[KernelToStart]
    ) -> Sequence[KernelReport]:
        return await self._ask_each(
            agent_id, "start", "kernels", [encode_start(kernel) for kernel in kernels]
        )

    async def stop(
        self, agent_id: AgentId, kernels: Sequence[KernelToStop]
    ) -> Sequence[KernelReport]:
        return await self._ask_each(
            agent_id, "stop", "kernels", [encode_stop(kernel) for kernel in kernels]
        )

    async def states(self, agent_id: AgentId, tokens: Sequence[str]) -> Sequence[KernelReport]:
        return await self._ask_each(agent_id, "states", "tokens", list(tokens))

    async def read_output(
        self,
        agent_id: AgentId,
        token: str,
        stream: str,
        *,
        offset: int,
        bytes_max: int,
        wait_s: float,
    ) -> OutputChunk:
        data, begin, size, ended = await self._ask(
            agent_id,
            "read",
            self._timeout_s + wait_s,
            token=token,
            stream=stream,
            offset=offset,
            bytes_max=bytes_max,
            wait_s=wait_s,
        )
        return OutputChunk(base64.b64decode(data), begin, size, ended)

    async def _ask_each(
        self, agent_id: AgentId, op: str, field: str, items: Sequence[Any]
    ) -> list[KernelReport]:
        """Ask about a batch, in as many frames as it takes."""
        parts = [
            items[begin : begin + FRAME_ITEMS_MAX]
            for begin in range(0, len(items), FRAME_ITEMS_MAX)
        ]
        answers = await asyncio.gather(
            *(self._ask(agent_id, op, self._timeout_s, **{field: part}) for part in parts)
        )
        try:
            return [decode_report(row) for rows in answers for row in rows]
        except WireError as error:
            raise AgentError(f"agent {agent_id}: {error}") from error

    async def _ask(self, agent_id: AgentId, op: str, timeout_s: float, **fields: Any) -> Any:
        link = next((k.link for k in self._keepers if k.link and k.agent_id == agent_id), None)
        if link is None:
            raise AgentError(f"agent {agent_id} is not connected")
        try:
            async with asyncio.timeout(timeout_s):
                return await link.ask(op, **fields)
        except TimeoutError:
            raise AgentError(f"agent {agent_id} did not answer within {timeout_s:g} s") from None


class AgentKeeper:
    """Keeps one agent process alive, connected and heard.

    Args:
        directory: Where the agent keeps everything.
        config: What it is to be started with.
        sink: Takes what it says.
        clock: Waits between attempts.
    """

    def __init__(
        self, directory: Path, config: AgentConfig, sink: AgentEventSink, clock: Clock
    ) -> None:
        self.name = config.name
        self.agent_id: AgentId | None = None
        self.link: Link | None = None
        """Set while the agent is connected and has been registered."""
        self._directory = directory
        self._config = config
        self._sink = sink
        self._clock = clock
        self._incarnation = 0
        self._pid: int | None = None
        self._is_current = False
        self._is_let_go = False

    async def run(self) -> None:
        """Connect, listen, and begin again when the agent is lost, until it is let go."""
        backoff_s = POLL_S
        while not self._is_let_go:
            try:
                await self.run_once()
                backoff_s = POLL_S
            except (OSError, SokovanError) as error:
                log.warning("agent %s: %s", self.name, error)
            except Exception:
                log.exception("agent %s: listening to it failed", self.name)
            finally:
                self._hang_up()
            if not self._is_let_go:
                await self._clock.sleep(backoff_s)
                backoff_s = min(2 * backoff_s, BACKOFF_S_MAX)
        await self._bury()

    async def run_once(self) -> None:
        """Find the agent or start it, register it, and bring in what it says until it is lost.

        Raises:
            AgentError: It could not be started, or talks nonsense.
            OSError: It could not be started.
        """
        link = await self._reach()
        try:
            if not self._is_current and not self._fits(link):
                link = await self._replace(link)
            self._is_current = True  # asked for once: two managers must not do it by turns
            self._incarnation = await self._sink.connected(link.hello)
            self.agent_id, self.link = link.hello.agent_id, link
            link.welcome(self._incarnation)
            while not link.is_lost:
                await link.told.wait()
                await self._bring_in(link)
        finally:
            link.close()

    async def let_go(self) -> int:
        """Have the agent end if nothing lives on it; return how many kernels do.

        Raises:
            AgentError: It is not connected.
        """
        if self.link is None:
            raise AgentError("it is not connected")
        self._is_let_go = True  # first of all: its end must not bring another one to life
        try:
            live, goes = await self.link.ask("exit", if_idle=True)
        except BaseException:
            self._is_let_go = False
            raise
        self._is_let_go = bool(goes)
        return 0 if goes else int(live)

    def _hang_up(self) -> None:
        if self.link is not None:
            self.link.close()
            self.link = None

    async def _bring_in(self, link: Link) -> None:
        """Bring what the agent has said to the sink; what came meanwhile goes along."""
        rows: list[Any] = []
        tokens: list[str] | None = None
        for frame in link.take():
            rows.extend(frame.get("reports", ()))
            if frame["op"] == "heartbeat":
                tokens = [str(token) for token in frame["tokens"]]
        agent_id = link.hello.agent_id
        if rows:
            reports = [decode_report(row) for row in rows]
            await self._sink.reported(agent_id, self._incarnation, reports)
            link.acknowledge(rows)
        if tokens is not None:
            await self._sink.heartbeat(agent_id, self._incarnation, tokens)
            link.seen()

    # --- the process ------------------------------------------------------------------------------

    def _fits(self, link: Link) -> bool:
        """Say whether the running agent is what the configuration asks for."""
        wanted = dataclasses.asdict(self._config)
        return link.config == wanted and link.hello.version == sokovan.__version__

    async def _replace(self, link: Link) -> Link:
        """Have the agent end and another one take over its kernels."""
        log.info("agent %s is started anew: its settings or its version changed", self.name)
        with contextlib.suppress(AgentError):
            await link.ask("exit", if_idle=False)
        while not link.is_lost:
            link.take()
            await link.told.wait()
        return await self._reach()

    async def _reach(self) -> Link:
        """Connect to the agent, starting it when there is none.

        Raises:
            AgentError: It does not start, or does not listen in time.
        """
        until = self._clock.now() + START_S_MAX
        has_started = False
        while True:
            with contextlib.suppress(OSError, AgentError):
                return await open_link(self._directory)
            if self._pid is not None and (status := _ended(self._pid)) is not None:
                self._pid = None
                if has_started and status != os.EX_OK:
                    raise AgentError(
                        f"its process ended with status {status}; see {self._directory}/agent.log"
                    )
            if self._clock.now() > until:
                raise AgentError(f"it does not listen below {self._directory}")
            if self._pid is None:
                self._pid = start_agent(self._directory, self._config)
                has_started = True
            await self._clock.sleep(POLL_S)

    async def _bury(self) -> None:
        """Wait for the end of our own child, so that no zombie stays."""
        until = self._clock.now() + START_S_MAX
        while self._pid is not None and _ended(self._pid) is None and self._clock.now() < until:
            await self._clock.sleep(POLL_S)


def start_agent(directory: Path, config: AgentConfig) -> int:
    """Start the process of an agent, detached from this one; return its pid.

    Raises:
        OSError: It could not be started.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    root = str(Path(sokovan.__file__).parent.parent)  # so that it runs the very same code
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    log_file = os.fspath(directory / "agent.log")
    write = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    return os.posix_spawn(
        sys.executable,
        [sys.executable, "-P", "-m", "sokovan.agent", *arguments(directory, config)],
        {**os.environ, "PYTHONPATH": path},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, log_file, write, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
        setsigmask=[],
        setsigdef=_ANY_SIGNAL,
    )


def arguments(directory: Path, config: AgentConfig) -> list[str]:
    """Return the options of `python -m sokovan.agent` that say the same as `config`."""
    options = {
        "--dir": directory,
        "--name": config.name,
        "--group": config.scaling_group,
        "--cpu": config.cpu,
        "--mem": config.mem,
        "--gpus": config.gpus,
        "--cgroups": config.cgroups,
        "--heartbeat-s": config.heartbeat_s,
        "--cut-off-stop-s": config.cut_off_stop_s,
        "--output-keep-days": config.output_keep_days,
    }
    return [f"{option}={value}" for option, value in options.items()]


def _ended(pid: int) -> int | None:
    """Return the exit status of a child if it has ended."""
    try:
        found, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return os.EX_OK
    return os.waitstatus_to_exitcode(status) if found else None
