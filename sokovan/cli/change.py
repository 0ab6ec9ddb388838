"""Commands that make sessions otherwise: `edit` and `redo`."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sokovan.cli import completion, exits
from sokovan.cli.options import Home, Json, LiveRefs, Quiet, Refs, call_of
from sokovan.cli.sessions import each
from sokovan.domain.errors import InvalidRequestError
from sokovan.domain.quantities import parse_duration, parse_milli, parse_size

if TYPE_CHECKING:
    from sokovan.client import Client
    from sokovan.client.fields import EditOptions

OF_SESSION = "What to change"
WHERE = "Where it may go"
NONE = "none"
"""What is typed for no time at all."""


def _option(*names: str, panel: str = OF_SESSION, **settings: Any) -> Any:
    return typer.Option(*names, rich_help_panel=panel, show_default=False, **settings)


Text = str | None
Texts = list[str] | None


def change_options(
    name: Annotated[Text, _option("--name", "-n", help="Another name.")] = None,
    priority: Annotated[
        int | None, _option("--priority", metavar="0..100", help="Higher goes first.")
    ] = None,
    walltime: Annotated[
        Text,
        _option("--time", "-t", metavar="DURATION", help="Stop it after: 1h30m; none: never."),
    ] = None,
    pending_timeout: Annotated[
        Text,
        _option(
            "--pending-timeout", metavar="DURATION", help="Give up waiting after: 30m; none: never."
        ),
    ] = None,
    begin: Annotated[
        Text,
        _option("--begin", metavar="TIME", help="Not before: 18:30, +2h; none: as soon as it can."),
    ] = None,
    cpu: Annotated[Text, _option("--cpu", metavar="N", help="Cores: 2 or 0.5.")] = None,
    mem: Annotated[Text, _option("--mem", metavar="SIZE", help="Memory: 512M or 4G.")] = None,
    gpu: Annotated[Text, _option("--gpu", metavar="N", help="GPUs: 1, or 0.5 of one.")] = None,
    gpu_mem: Annotated[
        Text, _option("--gpu-mem", metavar="SIZE", help="Least memory of each GPU: 40G.")
    ] = None,
    grace: Annotated[
        Text, _option("--grace", metavar="DURATION", help="From SIGTERM to SIGKILL.")
    ] = None,
    requeue: Annotated[
        bool | None,
        _option(
            "--requeue/--no-requeue", help="Start it elsewhere when its agent is lost, or not."
        ),
    ] = None,
    retries: Annotated[
        int | None,
        _option("--retries", metavar="N", min=0, help="Try again after a failing exit code."),
    ] = None,
    constraint: Annotated[
        Texts,
        _option(
            "--constraint",
            "-C",
            metavar="EXPR",
            panel=WHERE,
            help="Only where this is so, instead of all constraints it had; repeatable.",
        ),
    ] = None,
    no_constraint: Annotated[
        bool, _option("--no-constraint", panel=WHERE, help="Take all its constraints back.")
    ] = False,
    agent: Annotated[
        Texts,
        _option(
            "--agent",
            metavar="NAME",
            panel=WHERE,
            help="Only on this agent; repeatable.",
            autocompletion=completion.agents,
        ),
    ] = None,
    prefer: Annotated[
        Texts,
        _option(
            "--prefer",
            metavar="NAME",
            panel=WHERE,
            help="There while it has room; repeatable.",
            autocompletion=completion.agents,
        ),
    ] = None,
    exclude: Annotated[
        Texts,
        _option(
            "--exclude",
            metavar="NAME",
            panel=WHERE,
            help="Never there; repeatable.",
            autocompletion=completion.agents,
        ),
    ] = None,
    anywhere: Annotated[
        bool, _option("--anywhere", panel=WHERE, help="Take back all of where it may go.")
    ] = False,
    allow_infeasible: Annotated[
        bool, _option("--allow-infeasible", help="Take it even if no agent of today could fit it.")
    ] = False,
) -> "EditOptions":
    """Read what is to change; what is not said is left out.

    Raises:
        InvalidRequestError: One of them cannot be read.
    """
    from sokovan.cli.parsing import parse_where

    if no_constraint and constraint:
        raise InvalidRequestError(
            "no-constraint: it contradicts --constraint; leave one of them out"
        )
    where: Any = parse_where(
        mode=None,
        constraints=constraint or (),
        arch=None,
        agents=agent,
        prefer=prefer,
        exclude=exclude,
    )
    if no_constraint:
        where["constraints"] = []
    if anywhere and where:
        raise InvalidRequestError(
            "anywhere: it contradicts what else is said of where it may go; leave one of them out"
        )
    changes: Any = {}
    for key, field, text, read in (
        ("cpu_milli", "cpu", cpu, parse_milli),
        ("mem_bytes", "mem", mem, parse_size),
        ("gpu_shares", "gpu", gpu, parse_milli),
        ("gpu_mem_bytes_min", "gpu-mem", gpu_mem, parse_size),
    ):
        if text is not None:
            changes[key] = read(text, field=field)
    plain = {"name": name, "priority": priority, "requeue": requeue, "retries": retries}
    changes |= {key: value for key, value in plain.items() if value is not None}
    if walltime is not None:
        changes["walltime_s"] = _seconds(walltime, "time")
    if pending_timeout is not None:
        changes["pending_timeout_s"] = _seconds(pending_timeout, "pending-timeout")
    if grace is not None:
        changes["grace_s"] = parse_duration(grace, field="grace")
    if begin is not None:
        changes["begin_at"] = _moment(begin)
    if where or anywhere:
        changes["where"] = where or None
    if allow_infeasible:
        changes["allow_infeasible"] = True
    found: EditOptions = changes
    return found


def _seconds(text: str, field: str) -> float | None:
    return None if text == NONE else parse_duration(text, field=field)


def _moment(text: str) -> str | None:
    from sokovan.cli.parsing import parse_begin
    from sokovan.clock import SystemClock

    return None if text == NONE else parse_begin(text, SystemClock().now())


def _takes_changes(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command the options for what is to change; it gets what they say as `changes`."""
    own = inspect.signature(command)
    shared = inspect.signature(change_options).parameters

    @wraps(command)
    def wrapped(**given: Any) -> int:
        said = {name: given.pop(name) for name in shared}
        try:
            changes = change_options(**said)
        except InvalidRequestError as error:
            raise exits.UsageError(f"--{error.message}", field=error.field) from None
        return command(**given, changes=changes)

    parameters = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in (*own.parameters.values(), *shared.values())
        if parameter.name != "changes"
    ]
    del wrapped.__wrapped__  # Typer is to see the signature below, not the command's own
    wrapped.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {p.name: p.annotation for p in parameters}
    return wrapped


@_takes_changes
def edit(
    ctx: typer.Context,
    refs: LiveRefs,
    changes: "EditOptions",
    json: Json = False,
    quiet: Quiet = False,
    home: Home = None,
) -> int:
    """Change sessions that wait: what they ask for, when, where, and how urgent they are.

    Of a session that runs, only its --time may be changed: its owner may make it shorter, an
    administrator longer, too.
    """
    from sokovan.cli.describe import short

    call = call_of(ctx, home, json, quiet)
    if not changes:
        raise exits.UsageError("there is nothing to change; say what, such as --priority 50")
    answers = each(
        call,
        refs,
        lambda client, ref: client.edit(ref, **changes),
        lambda session: f"{short(session['id'])} is changed",
    )
    call.hint(f"sokovan why {short(answers[-1]['id'])}")
    return exits.SUCCESS


@_takes_changes
def redo(
    ctx: typer.Context,
    refs: Refs,
    changes: "EditOptions",
    group: Annotated[
        Text,
        _option(
            "--group",
            metavar="NAME",
            help="Another scaling group.",
            autocompletion=completion.groups,
        ),
    ] = None,
    hold: Annotated[bool, typer.Option("--hold", help="Keep it waiting until `release`.")] = False,
    json: Json = False,
    home: Home = None,
) -> int:
    """Submit again what sessions were, for the same owner; print the new ids.

    Command, directory and environment are those of the first time; options say what is to be
    different.
    """
    from sokovan.cli.describe import short

    call = call_of(ctx, home, json)
    different: Any = {**changes}
    if group is not None:
        different["scaling_group"] = group
    if hold:
        different["held"] = True

    def again(client: "Client", ref: str) -> dict[str, Any]:
        if ref.startswith("@"):  # sent twice, it would be the new session the second time
            ref = client.get(ref)["id"]
        return client.redo(ref, **different)

    answers = each(call, refs, again, lambda session: str(session["id"]))
    ref = short(answers[-1]["id"])
    call.hint(f"sokovan release {ref}" if hold else f"sokovan logs -f {ref}")
    return exits.SUCCESS
