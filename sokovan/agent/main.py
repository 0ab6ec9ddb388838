"""The agent as a process: its options, its directory, its life.

It detaches from nothing by itself. SIGTERM ends it and leaves every kernel running; the next agent
in the same directory takes them up again.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import fcntl
import gc
import logging
import logging.handlers
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from sokovan import __version__, outside
from sokovan.agent import cgroups
from sokovan.agent.agent import Agent
from sokovan.agent.devices import discover
from sokovan.agent.frames import address_at
from sokovan.agent.processes import ProcessRuntime
from sokovan.agent.server import Server
from sokovan.agent.timers import Timers
from sokovan.clock import SystemClock, boot_id
from sokovan.config import ALLOW_ROOT, AgentConfig
from sokovan.domain.errors import InvalidRequestError, SokovanError
from sokovan.domain.labels import check_labels
from sokovan.domain.resources import Capacity
from sokovan.domain.sessions import AgentId
from sokovan.scheduler.messages import AgentHello

log = logging.getLogger("sokovan.agent")

LOG_BYTES_MAX = 10 * 1024 * 1024
FIRST_OWN = 3
"""Descriptors below are the standard streams."""
EXIT_USAGE = 2
EXIT_HELD = 3
"""Another agent has the directory."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run an agent until it is told to end.

    Args:
        argv: Its options; `None` takes those of the process.

    Returns:
        The exit status of the process.
    """
    options = _parser().parse_args(argv)
    directory = Path(options.dir).absolute()
    config = _config_of(options)
    os.umask(0o077)
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 (names are all that is wanted)
        with contextlib.suppress(OSError):  # what it was listed with is closed by now
            os.set_inheritable(int(name), int(name) < FIRST_OWN)  # kernels get nothing of ours
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.chmod(0o700)
        lock = os.open(directory / "agent.lock", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"another agent runs in {directory}", file=sys.stderr)  # noqa: T201
        return EXIT_HELD
    except OSError as error:
        print(f"{directory}: {error.strerror}", file=sys.stderr)  # noqa: T201
        return EXIT_USAGE
    _log_to(directory / "agent.log")
    os.chdir("/")
    try:
        outside.leave(directory.parent)
        capacity = discover(config)
        reason = asyncio.run(_serve(directory, config, capacity))
    except SokovanError as error:
        print(error, file=sys.stderr)  # noqa: T201
        log.error("%s", error)  # noqa: TRY400 (a sentence for the user, not a fault of ours)
        return EXIT_USAGE
    except Exception:
        log.exception("the agent failed")
        raise
    log.info("the agent ends: %s", reason)
    return 0


async def _serve(directory: Path, config: AgentConfig, capacity: Capacity) -> str:
    """Serve until there is a reason to end; return it."""
    clock = SystemClock()
    timers = Timers(clock)
    groups = cgroups.detect(directory) if config.cgroups != "off" else None
    runtime = ProcessRuntime(
        directory,
        clock=clock,
        timers=timers,
        capacity=capacity,
        cgroups=groups,
        output_bytes_max=config.output_bytes_max,
        root_allowed=config.allow_root != "no",
    )
    hello = describe(_agent_id(directory), config, capacity, directory)
    agent = Agent(hello, config=config, runtime=runtime, clock=clock, timers=timers)
    agent.recover()
    leaving: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def leave(reason: str) -> None:
        if not leaving.done():
            leaving.set_result(reason)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, leave, number.name)
    server = Server(
        agent,
        directory,
        timers=timers,
        heartbeat_s=config.heartbeat_s,
        config=dataclasses.asdict(config),
        leave=leave,
    )
    await server.open()
    log.info("the agent %s of %s is ready, pid %d", hello.agent_id, directory, os.getpid())
    log.info("%s", groups.description() if groups else _WITHOUT_GROUPS)
    gc.freeze()  # what is there now stays; looking at it again and again costs time
    driving = asyncio.create_task(timers.run())
    try:
        return await leaving
    finally:
        driving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await driving
        await server.close()
        runtime.close()


_WITHOUT_GROUPS = (
    "no control groups: cpu is not enforced, memory only as a limit on the private memory of each"
    " process; what a kernel leaves behind is found by its session and by SOKOVAN_KERNEL_TOKEN"
)


def describe(
    agent_id: AgentId, config: AgentConfig, capacity: Capacity, directory: Path
) -> AgentHello:
    """Return how an agent on this machine introduces itself."""
    machine = os.uname()
    return AgentHello(
        agent_id=agent_id,
        name=config.name,
        capacity=capacity,
        architecture=machine.machine,
        version=__version__,
        boot_id=boot_id(),
        scaling_group=config.scaling_group,
        address=address_at(directory),
        labels=config.labels,
    )


def _agent_id(directory: Path) -> AgentId:
    """Return the name of the agent of this directory, the same one for ever."""
    path = directory / "agent_id"
    with contextlib.suppress(OSError):
        if known := path.read_text().strip():
            return AgentId(known)
    new = AgentId(os.urandom(6).hex())
    written = path.with_name("agent_id.new")
    with written.open("w") as file:
        file.write(f"{new}\n")
        file.flush()
        os.fsync(file.fileno())
    written.rename(path)
    return new


def _log_to(path: Path) -> None:
    logging.raiseExceptions = False  # the directory may be removed below a running agent
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=LOG_BYTES_MAX, backupCount=1)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.getLogger("sokovan").addHandler(handler)
    logging.getLogger("sokovan").setLevel(logging.INFO)
    logging.getLogger("asyncio").addHandler(handler)


def _parser() -> argparse.ArgumentParser:
    default = AgentConfig()
    parser = argparse.ArgumentParser("sokovan agent", description="Run kernels on this machine.")
    add = parser.add_argument
    add("--dir", required=True, help="directory of everything it keeps")
    add("--name", default=default.name, help="its name")
    add("--group", dest="scaling_group", default=default.scaling_group, help="its scaling group")
    add("--cpu", default=default.cpu, help="cores it offers; all by default")
    add("--mem", default=default.mem, help="memory it offers, such as 8G; all by default")
    add("--gpus", default=default.gpus, help="auto, none, or device indexes such as 0,1")
    add("--cgroups", default=default.cgroups, choices=("auto", "off"), help="use control groups")
    add(
        "--allow-root",
        default=default.allow_root,
        choices=ALLOW_ROOT,
        help="whether kernels of root are run; `auto` is `yes` here",
    )
    add(
        "--label",
        dest="labels",
        type=_label,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="what constraints may name; repeatable",
    )
    add("--heartbeat-s", type=float, default=default.heartbeat_s, help="seconds between heartbeats")
    add(
        "--cut-off-stop-s",
        type=float,
        default=default.cut_off_stop_s,
        help="seconds without a manager before kernels to be requeued are stopped",
    )
    add(
        "--output-keep-days",
        type=float,
        default=default.output_keep_days,
        help="days to keep output after a kernel's end; 0 keeps it for ever",
    )
    add(
        "--output-bytes-max",
        type=int,
        default=default.output_bytes_max,
        help="bytes of each stream to keep: beyond them its middle is dropped; 0 keeps all",
    )
    return parser


def _config_of(options: argparse.Namespace) -> AgentConfig:
    said = {field.name: getattr(options, field.name) for field in dataclasses.fields(AgentConfig)}
    return AgentConfig(**said | {"labels": dict(options.labels)})


def _label(text: str) -> tuple[str, str]:
    """Read NAME=VALUE."""
    name, _, value = text.partition("=")
    try:
        check_labels({name: value}, field="label")
    except InvalidRequestError as error:
        raise argparse.ArgumentTypeError(error.message) from None
    return name, value
