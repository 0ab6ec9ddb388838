"""`run` and `submit`, and the options of a session."""

import inspect
import os
import sys
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sokovan.cli import completion, exits
from sokovan.cli.options import Home, Json, call_of
from sokovan.domain.errors import InvalidRequestError
from sokovan.domain.quantities import parse_duration, parse_milli, parse_size

if TYPE_CHECKING:
    from sokovan.client import Client, SessionOptions

Command = Annotated[
    list[str],
    typer.Argument(metavar="[--] COMMAND...", help="What to run.", show_default=False),
]
"""The session's own command."""
OF_SESSION = "Options of the session"
WHERE = "Where it may go"


def _option(*names: str, **settings: Any) -> Any:
    return typer.Option(*names, rich_help_panel=OF_SESSION, show_default=False, **settings)


def _where(*names: str, **settings: Any) -> Any:
    return typer.Option(*names, rich_help_panel=WHERE, show_default=False, **settings)


Text = str | None


def session_options(
    name: Annotated[str, _option("--name", "-n", help="A name, for you.")] = "",
    cpu: Annotated[
        Text, _option("--cpu", metavar="N", help="Cores: 2 or 0.5; 1 if left out.")
    ] = None,
    mem: Annotated[Text, _option("--mem", metavar="SIZE", help="Memory: 512M or 4G.")] = None,
    gpu: Annotated[Text, _option("--gpu", metavar="N", help="GPUs: 1, or 0.5 of one.")] = None,
    gpu_mem: Annotated[
        Text, _option("--gpu-mem", metavar="SIZE", help="Least memory of each GPU: 40G.")
    ] = None,
    kernels: Annotated[
        int, _option("--kernels", metavar="N", min=1, help="Start it N times, each with the above.")
    ] = 1,
    walltime: Annotated[
        Text, _option("--time", "-t", metavar="DURATION", help="Stop it after: 1h30m.")
    ] = None,
    priority: Annotated[
        int | None,
        _option("--priority", metavar="0..100", help="Higher goes first; 10 if left out."),
    ] = None,
    group: Annotated[
        Text,
        _option(
            "--group",
            metavar="NAME",
            help="Scaling group; `default` if left out.",
            autocompletion=completion.groups,
        ),
    ] = None,
    env: Annotated[
        list[str] | None, _option("--env", metavar="NAME=VALUE", help="Set a variable; repeatable.")
    ] = None,
    cwd: Annotated[Text, _option("--cwd", metavar="DIR", help="Directory to run in.")] = None,
    pending_timeout: Annotated[
        Text, _option("--pending-timeout", metavar="DURATION", help="Give up waiting after: 30m.")
    ] = None,
    depends_on: Annotated[
        list[str] | None,
        _option(
            "--depends-on",
            metavar="[KIND:]ID",
            help="Wait for a session's end; KIND: afterok (the default), afterany, afternotok.",
            autocompletion=completion.live_sessions,
        ),
    ] = None,
    begin: Annotated[
        Text, _option("--begin", metavar="TIME", help="Not before: 18:30, +2h, 2026-11-23T18:30.")
    ] = None,
    grace: Annotated[
        Text,
        _option("--grace", metavar="DURATION", help="From SIGTERM to SIGKILL; 10s if left out."),
    ] = None,
    requeue: Annotated[
        bool, _option("--requeue", help="Start it elsewhere when its agent is lost.")
    ] = False,
    retries: Annotated[
        int, _option("--retries", metavar="N", min=0, help="Try again after a failing exit code.")
    ] = 0,
    limit: Annotated[
        list[str] | None,
        _option(
            "--limit",
            metavar="STAGE=DURATION",
            help="Most time a phase of a stage may take.",
            autocompletion=completion.stages,
        ),
    ] = None,
    constraint: Annotated[
        list[str] | None,
        _where(
            "--constraint",
            "-C",
            metavar="EXPR",
            help="Only where this is so: rack=r1, gpu_model!=T4, mem_gpu>=40G; repeatable.",
        ),
    ] = None,
    arch: Annotated[
        Text, _where("--arch", metavar="NAME", help="Only on this architecture: x86_64.")
    ] = None,
    agent: Annotated[
        list[str] | None,
        _where(
            "--agent",
            metavar="NAME",
            help="Only on this agent; repeatable: or on that one.",
            autocompletion=completion.agents,
        ),
    ] = None,
    prefer: Annotated[
        list[str] | None,
        _where(
            "--prefer",
            metavar="NAME",
            help="On this agent while it has room; repeatable.",
            autocompletion=completion.agents,
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        _where(
            "--exclude",
            metavar="NAME",
            help="Never on this agent; repeatable.",
            autocompletion=completion.agents,
        ),
    ] = None,
    mode: Annotated[
        Text,
        _where(
            "--mode",
            metavar="MODE",
            help="single-node: all kernels on one agent; multi-node, the default: on any.",
        ),
    ] = None,
    kernels_per_agent: Annotated[
        int | None,
        _where("--kernels-per-agent", metavar="N", min=1, help="At most N kernels on one agent."),
    ] = None,
    same: Annotated[
        Text,
        _where("--same", metavar="LABEL", help="All kernels where this label has one value: rack."),
    ] = None,
    spread_with: Annotated[
        list[str] | None,
        _where(
            "--spread-with",
            metavar="SESSION",
            help="Away from kernels of this session, by name or id, while it is possible;"
            " repeatable.",
            autocompletion=completion.live_sessions,
        ),
    ] = None,
    pack_with: Annotated[
        list[str] | None,
        _where(
            "--pack-with",
            metavar="SESSION",
            help="Beside kernels of this session, by name or id, while there is room; repeatable.",
            autocompletion=completion.live_sessions,
        ),
    ] = None,
    allow_infeasible: Annotated[
        bool, _option("--allow-infeasible", help="Take it even if no agent of today could fit it.")
    ] = False,
) -> "tuple[SessionOptions, list[str]]":
    """Read the options of a session.

    Returns:
        The fields to submit, and the dependencies as they were typed.

    Raises:
        InvalidRequestError: One of them cannot be read.
    """
    from sokovan.cli.parsing import parse_begin, parse_env, parse_limits, parse_where
    from sokovan.client.fields import captured

    session = captured()
    session["env"] = {**session["env"], **parse_env(env or ())}
    session |= {
        "name": name,
        "kernels": kernels,
        "requeue": requeue,
        "retries": retries,
        "limits": parse_limits(limit or ()),
        "allow_infeasible": allow_infeasible,
        "cpu_milli": parse_milli(cpu or "1", field="cpu"),
        "mem_bytes": parse_size(mem or "0", field="mem"),
        "gpu_shares": parse_milli(gpu or "0", field="gpu"),
        "gpu_mem_bytes_min": parse_size(gpu_mem or "0", field="gpu-mem"),
    }
    if where := parse_where(
        mode=mode,
        constraints=constraint or (),
        arch=arch,
        kernels_per_agent_max=kernels_per_agent,
        same=same,
        agents=agent,
        prefer=prefer,
        exclude=exclude,
        spread_with=spread_with,
        pack_with=pack_with,
    ):
        session["where"] = where
    if cwd is not None:
        session["cwd"] = _directory(cwd)
    if walltime is not None:
        session["walltime_s"] = parse_duration(walltime, field="time")
    if pending_timeout is not None:
        session["pending_timeout_s"] = parse_duration(pending_timeout, field="pending-timeout")
    if grace is not None:
        session["grace_s"] = parse_duration(grace, field="grace")
    if priority is not None:
        session["priority"] = priority
    if group is not None:
        session["scaling_group"] = group
    if begin is not None:
        from sokovan.clock import SystemClock

        session["begin_at"] = parse_begin(begin, SystemClock().now())
    return session, depends_on or []


def takes_session_options(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command the options of a session; it gets what they say as `read`, a function."""
    own = inspect.signature(command)
    shared = inspect.signature(session_options).parameters

    @wraps(command)
    def wrapped(**given: Any) -> int:
        said = {name: given.pop(name) for name in shared}
        return command(**given, read=lambda: session_options(**said))

    parameters = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in (*own.parameters.values(), *shared.values())
        if parameter.name != "read"
    ]
    del wrapped.__wrapped__  # Typer is to see the signature below, not the command's own
    wrapped.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {p.name: p.annotation for p in parameters}
    return wrapped


Read = Callable[[], "tuple[SessionOptions, list[str]]"]


@takes_session_options
def submit(
    ctx: typer.Context,
    command: Command,
    read: Read,
    hold: Annotated[bool, typer.Option("--hold", help="Keep it waiting until `release`.")] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Submit nothing; say whether it would start now, or why not.",
        ),
    ] = False,
    json: Json = False,
    home: Home = None,
) -> int:
    """Submit a session and return; print its id.

    The current directory, environment and umask go with it. With `--dry-run` nothing is submitted:
    0 means that it would be accepted, whether it would start or wait, and 4 that it would not.
    """
    from sokovan.cli.describe import short
    from sokovan.cli.text import print_json

    call = call_of(ctx, home, json)
    with call.client() as client:
        session = _submit(client, command, read, held=hold, dry_run=dry_run)
        if dry_run:
            return _say_what_would_be(client, session, as_json=call.json)
    if call.json:
        print_json(session)
        return exits.SUCCESS
    print(session["id"])
    ref = short(session["id"])
    hint = f"sokovan release {ref}" if hold else f"sokovan logs -f {ref}"
    print(f"next: {hint}", file=sys.stderr)  # stdout has the id alone: id=$(sokovan submit ...)
    return exits.SUCCESS


@takes_session_options
def run(
    ctx: typer.Context,
    command: Command,
    read: Read,
    json: Json = False,
    home: Home = None,
) -> int:
    """Submit a session, show its output, and exit with its command's exit code.

    Ctrl-C asks whether to leave it running or to cancel it; without a terminal, SIGINT and SIGTERM
    cancel it. 125 is an error of sokovan itself; 127 and 126 mean that the command was not found or
    may not be executed; 128 + n means signal n.
    """
    from sokovan.cli.attend import Attendance

    call = call_of(ctx, home, json)
    ctx.obj.failure_code = exits.RUN_FAILED
    with call.client() as client:
        session = _submit(client, command, read, held=False)
        return Attendance(call, client, session).until_it_ends()


def _say_what_would_be(client: "Client", answer: dict[str, Any], *, as_json: bool) -> int:
    from sokovan.cli.explained import dry_run_lines
    from sokovan.cli.sessions import now_of
    from sokovan.cli.text import plain, print_json

    if as_json:
        print_json(answer)
    else:
        for line in dry_run_lines(answer, now_of(client)):
            print(plain(line))
    return exits.SUCCESS if answer["accepted"] else exits.REFUSED


def _submit(
    client: "Client", command: list[str], read: Read, *, held: bool, dry_run: bool = False
) -> dict[str, Any]:
    from sokovan.cli.parsing import parse_dependencies

    try:
        session, typed = read()
        dependencies = parse_dependencies(typed)
    except InvalidRequestError as error:
        raise exits.UsageError(f"--{error.message}", field=error.field) from None
    if dependencies:
        session["depends_on"] = [
            {"session_id": client.get(ref)["id"], "kind": kind.value} for kind, ref in dependencies
        ]
    where = session.get("where") or {}
    for key in ("spread_with", "pack_with"):
        if key in where:
            where[key] = [_named(client, ref) for ref in where[key]]
    if held:
        session["held"] = True
    for variable in sorted(os.environ.keys() - session["env"].keys()):
        print(f"sokovan: {variable!r} is not UTF-8, and is left out", file=sys.stderr)
    if dry_run:
        return client.dry_run(command, suggest=True, **session)
    return client.submit(command, **session)


def _named(client: "Client", ref: str) -> str:
    """Return a session's name, or the whole id where an id was begun, or @ was typed.

    A name need not be anybody's yet: the first of several sessions may name them all.
    """
    from sokovan.domain.errors import SessionNotFoundError

    if not ref.startswith("@") and client.list(live_only=False, name=ref, limit=1):
        return ref
    try:
        found: str = client.get(ref)["id"]
    except SessionNotFoundError:
        if ref.startswith("@"):
            raise
        return ref
    return found


def _directory(text: str) -> str:
    """Return a directory as an absolute path; whether it exists is for the agent to say."""
    from pathlib import Path

    try:
        return str(Path(text).expanduser().absolute())
    except (RuntimeError, OSError):  # no such user; or the current directory was removed
        raise InvalidRequestError(
            f"cwd: {text!r} leads nowhere; write the whole path", field="cwd"
        ) from None
