"""Keeping one agent process of this machine alive, connected and heard.

It is found again or started, and started again when it dies; it and its kernels outlive the
manager. What it says is brought to the sink, and acknowledged once the sink has it.
"""

import contextlib
import dataclasses
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import sokovan
from sokovan import outside
from sokovan.agent.wire import decode_report
from sokovan.clock import Clock
from sokovan.cluster.link import Link, open_link
from sokovan.config import AgentConfig
from sokovan.domain.errors import AgentError, SokovanError, StoreUnavailableError
from sokovan.domain.sessions import AgentId
from sokovan.scheduler.duty import Duty
from sokovan.scheduler.ports import AgentEventSink

log = logging.getLogger(__name__)

START_S_MAX = 20.0
"""How long an agent process may take until it listens."""
POLL_S = 0.02
SECRETS = frozenset({"SOKOVAN_STORE_URL", "PGPASSWORD"})
"""The manager's alone: no agent needs the database."""
BACKOFF_S_MAX = 2.0
LOOK_AT_DUTY_S = 0.2
STAND_BY_S = 2.0
"""How often a manager looks whether an agent of its home runs that another one drives."""
_ANY_SIGNAL = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGCHLD]


class AgentKeeper:
    """Keeps one agent process alive, connected and heard.

    Connected only while this manager drives the agent's group.

    Args:
        directory: Where the agent keeps everything.
        name: What it is called.
        config: What it is to be started with; `None` for one that another manager's home keeps
            alive.
        duty: Says what this manager is to the agent's group.
        sink: Takes what it says.
        clock: Waits between attempts.
    """

    def __init__(
        self,
        directory: Path,
        name: str,
        config: AgentConfig | None,
        duty: Callable[[], Duty],
        sink: AgentEventSink,
        clock: Clock,
    ) -> None:
        self.name = name
        self.directory = directory
        self.agent_id: AgentId | None = None
        self.link: Link | None = None
        """Set while the agent is connected and has been registered."""
        self._config = config
        self._duty = duty
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
                if self._duty() is Duty.LEADS:
                    await self.run_once()
                else:
                    await self._stand_by()
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
            while not (link.is_lost or self._duty() is Duty.NONE):
                await link.told.wait()
                await self._bring_in(link)
        finally:
            link.close()

    async def _stand_by(self) -> None:
        """Have the agent run, while another manager is its manager."""
        if self._config is not None:
            link = await self._reach()
            try:
                if not self._fits(link):
                    link = await self._replace(link)
            finally:
                link.close()
        until = self._clock.now() + STAND_BY_S
        while self._clock.now() < until and self._duty() is not Duty.LEADS:
            await self._clock.sleep(LOOK_AT_DUTY_S)

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
        with self._unless_store_is_away("what it reports"):
            if rows:
                reports = [decode_report(row) for row in rows]
                await self._sink.reported(agent_id, self._incarnation, reports)
                link.acknowledge(rows)
        with self._unless_store_is_away("that it is back"):
            if tokens is not None:
                await self._sink.heartbeat(agent_id, self._incarnation, tokens)
                if self._duty() in {Duty.LEADS, Duty.ALONE}:  # else, somebody may count it as lost
                    link.seen()

    @contextlib.contextmanager
    def _unless_store_is_away(self, what: str) -> Iterator[None]:
        """Go on when something cannot be written now: the agent says it again at every heartbeat.

        Hanging up instead would leave it without a manager, as no other link could be registered.
        """
        try:
            yield
        except StoreUnavailableError as error:
            log.warning("agent %s: %s cannot be written down yet: %s", self.name, what, error)

    # --- the process ------------------------------------------------------------------------------

    def _fits(self, link: Link) -> bool:
        """Say whether the running agent is what the configuration asks for."""
        if self._config is None:
            return True
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
        """Connect to the agent, starting it when there is none and it is ours to start.

        Raises:
            AgentError: It does not start, or does not listen in time.
        """
        if self._config is None:
            return await open_link(self.directory)
        until = self._clock.now() + START_S_MAX
        has_started = False
        while True:
            with contextlib.suppress(OSError, AgentError):
                return await open_link(self.directory)
            if self._pid is not None and (status := _ended(self._pid)) is not None:
                self._pid = None
                if has_started and status != os.EX_OK:
                    raise AgentError(
                        f"its process ended with status {status}; see {self.directory}/agent.log"
                    )
            if self._clock.now() > until:
                raise AgentError(f"it does not listen below {self.directory}")
            if self._pid is None:
                self._pid = start_agent(self.directory, self._config)
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
    ours = {name: value for name, value in os.environ.items() if name not in SECRETS}
    log_file = os.fspath(directory / "agent.log")
    write = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    return os.posix_spawn(
        sys.executable,
        [sys.executable, "-P", "-m", "sokovan.agent", *arguments(directory, config)],
        {**outside.environment(directory.parent, ours), "PYTHONPATH": path},
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
        "--output-bytes-max": config.output_bytes_max,
        "--allow-root": config.allow_root,
    }
    labels = [f"--label={name}={value}" for name, value in config.labels.items()]
    return [*(f"{option}={value}" for option, value in options.items()), *labels]


def _ended(pid: int) -> int | None:
    """Return the exit status of a child if it has ended."""
    try:
        found, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return os.EX_OK
    return os.waitstatus_to_exitcode(status) if found else None
