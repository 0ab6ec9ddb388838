"""The only wiring: builds every object from `Config` and runs the tasks."""

import asyncio
import contextlib
import gc
import ipaddress
import json
import math
import os
import secrets
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import structlog
import uvicorn
import uvloop
from fastapi import FastAPI

from sokovan import __version__
from sokovan.api.assembly import Core, assemble
from sokovan.api.http import http_config
from sokovan.api.notices import Notices
from sokovan.api.tls import Tls
from sokovan.clock import Clock, SystemClock
from sokovan.cluster.local import LocalHome
from sokovan.config import Config
from sokovan.domain.errors import AddressInUseError
from sokovan.home import held, prepare_home, write_private
from sokovan.identity import IdSource
from sokovan.peers import Peers
from sokovan.policies import check_agents, check_stages
from sokovan.scheduler.coordinator import Coordinator
from sokovan.scheduler.wiring import events_for, join
from sokovan.store.listening import publisher
from sokovan.store.managers import KnownManager
from sokovan.store.opening import open_prepared
from sokovan.store.repository import SqlRepository
from sokovan.store.threads import ThreadedDatabase

log = structlog.get_logger(__name__)

GARBAGE_THRESHOLDS = (50_000, 20, 100)
"""How many new objects bring a look for cycles, and so on: what lives here lives long, and there is
much of it. With Python's own thresholds the looks take a tenth of the time of a large submission.
"""
GIL_SWITCH_S = 0.0005
"""The writer thread waits so long for the interpreter at most, once the disk has answered."""
GOODBYE_S_MAX = 0.5
"""How long the end of an idle connection may take: with TLS, clients would have to agree to it."""
CERTIFICATE = "server.crt"
AGENTS_READY_S_MAX = 10.0
"""How long the first answer waits for the agents of this machine."""


def serve(config: Config, *, on_ready: Callable[[str], None] | None = None) -> None:
    """Run the manager of a home until it is told to stop; kernels and agents stay.

    Args:
        config: Everything that can be set.
        on_ready: Called with the address once requests are answered.

    Raises:
        HomeError: The home cannot be used.
        AlreadyRunningError: Another server holds it.
        AddressInUseError: The port asked for is taken.
        SchemaTooNewError: A newer Sokovan wrote the store.
        StoreUnavailableError: The store cannot be opened.
    """
    sys.setswitchinterval(GIL_SWITCH_S)
    gc.set_threshold(*GARBAGE_THRESHOLDS)
    structlog.configure(
        processors=[*structlog.get_config()["processors"][:-1], _log_line()],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    os.umask(0o077)  # the home itself may have been made for others to read
    for group in config.scaling_groups():
        check_stages(group)
    tls = Tls.of(config)
    prepare_home(config.home)
    with held(config.home), contextlib.closing(listen(config)) as listener:
        engine = open_prepared(config.home, config.store)
        token = _token(config.home)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            loop = runner.get_loop()
            database = ThreadedDatabase(engine, loop)
            try:
                runner.run(_serve(config, database, listener, token, tls, on_ready))
            finally:
                runner.run(asyncio.to_thread(database.close))


def _log_line() -> structlog.dev.ConsoleRenderer:
    """Return what writes a line; a traceback has no values in it, as there are passwords."""
    return structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
    )


async def _serve(
    config: Config,
    database: ThreadedDatabase,
    listener: socket.socket,
    token: str,
    tls: Tls | None,
    on_ready: Callable[[str], None] | None,
) -> None:
    clock: Clock = SystemClock()
    ids = IdSource()
    manager_id = _manager_id(config.home, ids)
    repository = await _repository(config, database, clock, ids, manager_id)
    check_agents(config, repository.groups.values())  # some groups are only in the store

    coordinator = Coordinator(repository, clock, config.scheduler)
    events = events_for(coordinator, repository)
    home = LocalHome(
        config.home,
        config.agents,
        events,
        call_timeout_s=config.scheduler.agent_call_timeout_s,
        clock=clock,
        duty=repository.duty,
        known=repository.live.agents.values,
    )
    notices = Notices()
    core = Core(repository, database, home, clock, ids, coordinator.tell, notices)
    stop = asyncio.Event()
    served = assemble(core, config, token, shutdown=stop.set)
    await served.load()
    repository.live.watcher = served.meters
    database.around_commit = served.meters.commit
    served.deliveries.is_ours = lambda: repository.leads(min(repository.groups, default=""))
    host = _reached_at(config.api.host)
    address = served.operations.address = _address(host, listener.getsockname()[1], tls)
    myself = KnownManager(
        manager_id, address, socket.gethostname(), os.getpid(), __version__, clock.now()
    )
    peers = Peers(repository, coordinator, myself, config.store, reload=served.load)
    join(
        coordinator,
        repository,
        home,
        events,
        config,
        post_processors=(notices,),
        observer=served.meters,
        chores=peers.chores(),
    )

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with peers.met(database.engine):
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(home.run())]
            with contextlib.suppress(TimeoutError):  # first hear what became of everything
                await asyncio.wait_for(home.all_connected(), AGENTS_READY_S_MAX)
            running.append(tasks.create_task(coordinator.run()))
            running.append(tasks.create_task(served.deliveries.run()))
            server = _server(served.app, tls)
            serving = tasks.create_task(server.serve(sockets=[listener]))
            gc.freeze()  # what is there now stays: no use looking through it again and again
            _announce(config.home, address, host, tls)
            if tls is None and not _is_loopback(config.api.host):
                log.warning("tokens go over the network in the clear", mend="set api.tls_cert_file")
            log.info("ready", address=address, pid=os.getpid(), version=__version__)
            if on_ready is not None:
                on_ready(address)
            await stop.wait()
            await _stop(served.app, server, serving)
            await _let_go(home, peers)
            for task in running:
                task.cancel()
        await home.aclose()
    for name in ("server.json", CERTIFICATE):
        (config.home / name).unlink(missing_ok=True)
    log.info("stopped")


async def _repository(
    config: Config, database: ThreadedDatabase, clock: Clock, ids: IdSource, manager_id: str
) -> SqlRepository:
    """Return the store as the scheduler sees it, with what is alive read."""
    groups = {group.name: group for group in config.scaling_groups()}
    is_shared = bool(config.store.url)
    repository = SqlRepository(
        database,
        clock,
        ids,
        groups,
        holder=manager_id,
        lease_s=config.store.lease_s if is_shared else math.inf,
    )
    if is_shared:
        database.publish = publisher(manager_id)
        await repository.refresh()
    else:
        await repository.take_over()  # nobody else has this home's file
    return repository


async def _let_go(home: LocalHome, peers: Peers) -> None:
    """Have agents end that nobody needs."""
    if await peers.are_there():
        log.info("agents stay", why="other managers drive them")
        return
    for name, why in (await home.stop_idle_agents()).items():
        log.info("agent stays", agent=name, why=why)


def _server(app: FastAPI, tls: Tls | None) -> "_Server":
    return _Server(
        http_config(
            app,
            log_level="warning",
            ssl_context_factory=None if tls is None else lambda *_: tls.context,
        )
    )


async def _stop(app: FastAPI, server: uvicorn.Server, serving: "asyncio.Task[None]") -> None:
    app.state.stopping.told.set()
    server.should_exit = True
    while not (await asyncio.wait({serving}, timeout=GOODBYE_S_MAX))[0]:
        if not server.server_state.tasks:  # nobody is being answered
            for connection in list(server.server_state.connections):
                connection.transport.abort()
    await serving


class _Server(uvicorn.Server):
    """Leaves the signals to `_serve`."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def listen(config: Config) -> socket.socket:
    """Return a socket that listens where the settings say.

    Raises:
        AddressInUseError: It cannot.
    """
    api = config.api
    family = socket.AF_INET6 if ":" in api.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((api.host, api.port))
    except (OSError, OverflowError) as error:
        listener.close()
        raise AddressInUseError(
            f"cannot listen on {api.host}:{api.port}: {getattr(error, 'strerror', error)};"
            " choose another --port, or leave it out to take a free one"
        ) from error
    listener.listen(1024)
    return listener


def _manager_id(home: Path, ids: IdSource) -> str:
    """Return what this home's managers are called, one after the other, in leases."""
    path = home / "manager_id"
    with contextlib.suppress(FileNotFoundError):
        if known := path.read_text().strip():
            return known
    made = ids.token()
    write_private(path, made + "\n")
    return made


def _token(home: Path) -> str:
    """Return the home's token, minted when there is none; only its owner can read it."""
    path = home / "token"
    try:
        known = path.read_text().strip()
    except FileNotFoundError:
        known = ""
    if not known:
        known = secrets.token_urlsafe(32)
        write_private(path, known + "\n")
    return known


def _announce(home: Path, address: str, host: str, tls: Tls | None) -> None:
    """Tell clients of this home where to find the server, and which certificate it has."""
    found = {"pid": os.getpid(), "url": address, "version": __version__}
    if tls is not None:  # a copy: the file may be replaced by a newer one while the server runs
        write_private(home / CERTIFICATE, tls.certificate)
        found["ca_file"] = str(home / CERTIFICATE)
        if name := tls.name_for(host):
            found["tls_name"] = name
    write_private(home / "server.json", json.dumps(found) + "\n")


def _reached_at(host: str) -> str:
    """Return where commands on this machine reach a server that listens on `host`."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.is_unspecified:
        return "127.0.0.1" if address.version == 4 else "::1"
    return host


def _address(host: str, port: int, tls: Tls | None) -> str:
    written = f"[{host}]" if ":" in host else host
    return f"{'http' if tls is None else 'https'}://{written}:{port}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def with_port(config: Config, port: int | None) -> Config:
    """Return the configuration with another port to listen on."""
    return config if port is None else replace(config, api=replace(config.api, port=port))
