"""Commands about scaling groups: `groups`, and `groups show create set rm`."""

import re
from typing import Annotated, Any

import typer

from sokovan.cli import completion, exits
from sokovan.cli.options import Home, Json, Quiet, call_of
from sokovan.domain.errors import InvalidRequestError

app = typer.Typer()
HEADERS = ("GROUP", "AGENTS", "CPU HELD", "MEM HELD", "GPU HELD", "WAITING", "RUNNING", "ORDER")
Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="Name of the group.",
        show_default=False,
        autocompletion=completion.groups,
    ),
]
SETTING_HELP = "Settings, by their names below [groups.NAME] in config.toml"


@app.callback(invoke_without_command=True)
def groups(ctx: typer.Context, json: Json = False, home: Home = None) -> int:
    """List the scaling groups: what their agents have, what is held of it, and who waits."""
    from sokovan.cli.text import print_json, print_rows

    call = call_of(ctx, home, json)
    if ctx.invoked_subcommand is not None:
        return 0
    with call.client() as client:
        found = client.groups()
    if call.json:
        print_json(found)
    else:
        print_rows([_row(group) for group in found], headers=HEADERS)
    return 0


@app.command()
def show(ctx: typer.Context, name: Name, json: Json = False, home: Home = None) -> int:
    """Print every setting of a group's policy, and where each comes from."""
    from sokovan.cli.text import print_json, print_rows

    call = call_of(ctx, home, json)
    with call.client() as client:
        found = client.group(name)
    if call.json:
        print_json(found)
    else:
        rows = [
            (key, _value(setting["value"]), setting["source"])
            for key, setting in found["policy"].items()
        ]
        print_rows(rows, headers=("SETTING", "VALUE", "SOURCE"))
    return 0


@app.command()
def create(
    ctx: typer.Context,
    name: Name,
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE...", help=f"{SETTING_HELP}.", show_default=False),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    home: Home = None,
) -> int:
    """Make a scaling group, beside those of config.toml; it stays until `groups rm`."""
    from sokovan.cli.text import print_json

    call = call_of(ctx, home, json, quiet)
    policy = _policy(settings or [])
    with call.client() as client:
        found = client.create_group(name, policy)
    if call.json:
        print_json(found)
    call.say(f'{name} is made; agents join it by `scaling_group = "{name}"` in config.toml')
    call.hint(f"sokovan groups show {name}")
    return 0


@app.command("set")
def set_policy(
    ctx: typer.Context,
    name: Name,
    settings: Annotated[
        list[str],
        typer.Argument(
            metavar="KEY=VALUE...",
            help=f"{SETTING_HELP}; KEY= takes what was set back.",
            show_default=False,
        ),
    ],
    json: Json = False,
    quiet: Quiet = False,
    home: Home = None,
) -> int:
    """Set some of a group's policy, at once and for good; this wins over config.toml."""
    from sokovan.cli.text import print_json

    call = call_of(ctx, home, json, quiet)
    changes = _policy(settings)
    with call.client() as client:
        found = client.set_group(name, changes)
    if call.json:
        print_json(found)
    for key in changes:
        setting = found["policy"].get(key)
        said = f"{_value(setting['value'])} ({setting['source']})" if setting else "not set"
        call.say(f"{name}: {key} is {said}")
    return 0


@app.command()
def rm(
    ctx: typer.Context, name: Name, json: Json = False, quiet: Quiet = False, home: Home = None
) -> int:
    """Forget a group that `groups create` made, when it has neither agents nor live sessions."""
    from sokovan.cli.text import print_json

    call = call_of(ctx, home, json, quiet)
    with call.client() as client:
        found = client.remove_group(name)
    if call.json:
        print_json(found)
    call.say(f"{name} is forgotten")
    return 0


def _policy(words: list[str]) -> dict[str, Any]:
    """Read `KEY=VALUE`, and `KEY=`, which takes a setting back."""
    policy: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not (key and equals):
            raise exits.UsageError(
                f"{word!r} is no setting; write KEY=VALUE, or KEY= to take one back", field="policy"
            )
        if key in policy:
            raise exits.UsageError(f"{key!r} is named twice; name it once", field="policy")
        try:
            policy[key] = _read(key, text)
        except InvalidRequestError as error:
            raise exits.UsageError(error.message, field=error.field) from None
    return policy


def _read(key: str, text: str) -> str | float | None:
    """Read a value: nothing, a number, for seconds also a duration such as 1h30m, or a word."""
    from sokovan.domain.quantities import parse_duration

    if not text:
        return None
    if re.fullmatch(r"-?\d{1,18}", text, re.ASCII):
        return int(text)
    if re.fullmatch(r"-?\d{1,18}\.\d{1,18}", text, re.ASCII):
        return float(text)
    if key.endswith(("_s", "_s_max")):
        return parse_duration(text, field=key)
    return text


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) and value < 1e6 else str(value)


def _row(group: dict[str, Any]) -> tuple[str, ...]:
    """Return one line of `sokovan groups`: what is held, of how much."""
    from sokovan.domain.quantities import format_milli, format_size

    held, capacity = group["held"], group["capacity"]
    devices = capacity["gpu_shares"]
    return (
        group["name"],
        str(group["agents"]),
        f"{format_milli(held['cpu_milli'])}/{format_milli(capacity['cpu_milli'])}",
        f"{format_size(held['mem_bytes'])}/{format_size(capacity['mem_bytes'])}",
        f"{format_milli(held['gpu_shares'])}/{format_milli(devices)}" if devices else "-",
        str(group["waiting"]),
        str(group["running"]),
        group["policy"]["order"]["value"],
    )
