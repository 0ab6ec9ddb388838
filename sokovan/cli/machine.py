"""Commands about the server: `status up down`."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sokovan.cli.options import Call, Home, Json, Quiet, call_of

if TYPE_CHECKING:
    from sokovan.client import Client

STOP_S_MAX = 60.0
"""How long `down` waits for the server to be gone."""
NAMED_MAX = 10


def status(ctx: typer.Context, json: Json = False, home: Home = None) -> int:
    """Say whether the server runs, where, and what it has to do; starts nothing."""
    from sokovan.cli.text import print_json, print_rows
    from sokovan.domain.quantities import format_duration

    call = call_of(ctx, home, json)
    with call.quiet_client() as client:
        found = client.status()
        me = client.whoami()
    if call.json:
        print_json(found)
        return 0
    rows = [
        ("server", f"sokovan {found['version']}, pid {found['pid']}"),
        ("up for", format_duration(found["uptime_s"])),
        ("address", found["address"]),
        ("you", f"{me['user']}, {me['role']}"),
    ]
    if call.url is None:
        rows.append(("home", str(call.home)))
    for name in ("sessions", "agents"):
        counts = [f"{count} {status}" for status, count in found[name].items() if count]
        rows.append((name, ", ".join(counts) or "none"))
    if found.get("drained"):
        rows.append(("drained", f"{found['drained']} of the agents, which get nothing new"))
    if found.get("leftovers"):
        rows.append(("leftovers", f"{found['leftovers']} kernels that are not confirmed gone"))
    rows += [("manager", _manager(one, found["manager_id"])) for one in found.get("managers", ())]
    print_rows(rows)
    return 0


def _manager(one: dict[str, Any], here: str) -> str:
    where = "this one" if one["id"] == here else f"pid {one['pid']} on {one['host']}"
    drives = f"drives {', '.join(one['drives'])}" if one["drives"] else "stands by"
    return f"{one['url']}, sokovan {one['version']}, {where}, {drives}"


def up(
    ctx: typer.Context,
    port: Annotated[
        int | None,
        typer.Option("--port", metavar="N", min=0, max=65535, help="Port to listen on; 0 is any."),
    ] = None,
    db: Annotated[
        str | None,
        typer.Option(
            "--db",
            metavar="URL",
            help="PostgreSQL database, postgresql://USER@HOST:PORT/NAME; this home keeps to it.",
        ),
    ] = None,
    home: Home = None,
    background_child: Annotated[int | None, typer.Option(hidden=True, metavar="FD")] = None,
) -> int:
    """Run the server in the foreground; Ctrl-C stops it and leaves sessions running.

    Other commands start one in the background by themselves.
    """
    from sokovan.cli.server import log_unexpected, tell_parent
    from sokovan.cli.text import problem_of
    from sokovan.home import prepare_home
    from sokovan.outside import leave

    call = call_of(ctx, home)
    if background_child is not None:
        os.set_inheritable(background_child, False)

    parent = background_child  # to be told once how it went

    def ready(url: str) -> None:
        nonlocal parent
        if parent is not None:
            tell_parent(parent, {"url": url})
            parent = None
            return
        print(
            f"sokovan serves {call.home} at {url} (pid {os.getpid()}); Ctrl-C stops it, and leaves"
            " sessions running",
            flush=True,
        )

    try:
        if background_child is not None:
            leave(call.home / "agents")
        prepare_home(call.home)
        _serve(call, port, db, ready, waits=background_child is None)
    except Exception as error:
        if background_child is not None:
            log_unexpected(error)
        if parent is not None:
            tell_parent(parent, problem_of(error))
        raise
    return 0


def _serve(
    call: Call,
    port: int | None,
    db: str | None,
    ready: Callable[[str], None],
    *,
    waits: bool,
) -> None:
    """Serve; unless it `waits`, whoever started it is told at once that the database is away."""
    from dataclasses import replace

    from sokovan.config import load_config
    from sokovan.manager import serve, with_port
    from sokovan.store.opening import remember

    if db is not None:
        remember(call.home, load_config(call.home).store, db)
    config = with_port(load_config(call.home), port)
    if not waits:
        config = replace(config, store=replace(config.store, wait_s=0.0))
    serve(config, on_ready=ready)


def down(ctx: typer.Context, json: Json = False, quiet: Quiet = False, home: Home = None) -> int:
    """Stop the server; sessions keep running, and the next command starts it again."""
    from sokovan.cli.text import print_json
    from sokovan.client import Client, server_file
    from sokovan.domain.errors import ServerUnreachableError

    call = call_of(ctx, home, json, quiet)
    found = server_file(call.home)
    if found is None:
        if call.json:
            print_json({"stopped": False, "pid": None, "live_sessions": []})
        call.say(f"no server runs for {call.home}")
        return 0
    try:
        with Client(call.home) as client:  # whatever SOKOVAN_URL says: that one is not ours
            live, pid = _stop(client, found["pid"])
    except ServerUnreachableError as error:
        raise ServerUnreachableError(
            f"{error.message}; its process is {found['pid']}, and `kill -9 {found['pid']}` loses"
            " nothing that was accepted"
        ) from None
    if call.json:
        ids = [session["id"] for session in live]
        print_json({"stopped": True, "pid": pid, "live_sessions": ids})
    call.say(f"stopped the server (pid {pid})")
    _say_what_goes_on(call, live)
    return 0


def _stop(client: "Client", pid: int) -> tuple[list[dict[str, Any]], int]:
    """Ask the server to stop; return the live sessions and its pid once the process is gone."""
    import select

    from sokovan.domain.errors import ServerUnreachableError

    handle = os.pidfd_open(pid)  # before it goes: the number may be given to another process
    try:
        live = client.list()
        pid = client.shut_down()
        if not select.select([handle], [], [], STOP_S_MAX)[0]:
            raise ServerUnreachableError(
                f"the server has not stopped within {STOP_S_MAX:.0f} s of being asked to"
            )
    finally:
        os.close(handle)
    return live, pid


def _say_what_goes_on(call: Call, live: list[dict[str, Any]]) -> None:
    """Say what becomes of the sessions that have not ended."""
    from sokovan.cli.describe import short
    from sokovan.domain.statuses import WAITING

    waiting = sum(session["status"] in WAITING for session in live)
    placed = [session for session in live if session["status"] not in WAITING]
    if placed:
        names = [f"{short(s['id'])} {s['name']}".strip() for s in placed[:NAMED_MAX]]
        more = f" and {len(placed) - NAMED_MAX} more" if len(placed) > NAMED_MAX else ""
        call.say(f"{len(placed)} keep running: {', '.join(names)}{more}")
    if waiting:
        call.say(f"{waiting} wait, and will be placed when the server is back")
    if live:
        call.say("any command starts the server again")
        call.hint("sokovan ls")
