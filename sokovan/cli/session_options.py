"""The options of a session: one table for the command line and for job files."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sokovan.cli import completion
from sokovan.domain.errors import InvalidRequestError
from sokovan.domain.quantities import parse_duration, parse_milli, parse_size

if TYPE_CHECKING:
    from sokovan.client import SessionOptions
    from sokovan.client.fields import ArrayFields
    from sokovan.domain.sessions import DependencyKind

OF_SESSION = "Options of the session"
WHERE = "Where it may go"
ARRAY = "Many at once"


def _option(*names: str, **settings: Any) -> Any:
    return typer.Option(*names, rich_help_panel=OF_SESSION, show_default=False, **settings)


def _where(*names: str, **settings: Any) -> Any:
    return typer.Option(*names, rich_help_panel=WHERE, show_default=False, **settings)


def _array(*names: str, **settings: Any) -> Any:
    return typer.Option(*names, rich_help_panel=ARRAY, show_default=False, **settings)


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
    hold: Annotated[bool, _option("--hold", help="Keep it waiting until `release`.")] = False,
    array: Annotated[
        Text,
        _array(
            "--array",
            metavar="RANGE[%N]",
            help="One task for each index: 0-999, 0-100:5, 1,3,7; with %16, at most 16 at once.",
        ),
    ] = None,
    param: Annotated[
        list[str] | None,
        _array(
            "--param",
            metavar="NAME=V,V...",
            help="One task for each value, which `{NAME}` stands for; repeatable: for each"
            " combination.",
        ),
    ] = None,
) -> "tuple[SessionOptions, Sequence[tuple[DependencyKind, str]], ArrayFields | None]":
    """Read the options of a session: each is a field of a job file, too.

    An option that is added here needs nothing else to be one: see `jobfile.fields`.

    Returns:
        The fields to submit, the dependencies, which may be named by the start of an id, and what
        makes it an array, if it is to be one.

    Raises:
        InvalidRequestError: One of them cannot be read.
    """
    from sokovan.cli.parsing import (
        parse_array,
        parse_begin,
        parse_dependencies,
        parse_env,
        parse_limits,
        parse_where,
    )
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
        session["cwd"] = directory_of(cwd)
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
    if hold:
        session["held"] = True
    if begin is not None:
        from sokovan.clock import SystemClock

        session["begin_at"] = parse_begin(begin, SystemClock().now())
    return session, parse_dependencies(depends_on or ()), parse_array(array, param or ())


def directory_of(text: str, *, below: Path = Path()) -> str:
    """Return a directory as an absolute path; whether it exists is for the agent to say.

    Args:
        text: What was written; `~` is the user's own.
        below: What a path that is not absolute begins at.

    Raises:
        InvalidRequestError: There is no such user, or the current directory was removed.
    """
    try:
        return str((below / Path(text).expanduser()).absolute())
    except (RuntimeError, OSError):
        raise InvalidRequestError(
            f"cwd: {text!r} leads nowhere; write the whole path", field="cwd"
        ) from None
