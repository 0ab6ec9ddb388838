"""The command `config`: every setting, its value that counts, and where that comes from."""

import json as json_text
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sokovan.cli import completion
from sokovan.cli.options import Home, Json, call_of

if TYPE_CHECKING:
    from sokovan.sources import Setting

HEADERS = ("SETTING", "VALUE", "SOURCE")


def config(
    ctx: typer.Context,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SETTING...]",
            help="Only these: api.port, or all of api, agents[0] or groups.default.",
            show_default=False,
            autocompletion=completion.settings,
        ),
    ] = None,
    long: Annotated[bool, typer.Option("--long", "-l", help="What each means, too.")] = False,
    json: Json = False,
    home: Home = None,
) -> int:
    """Print the settings: each with its value, and where that comes from.

    Reads the files as a server that is started now would; needs none, and starts none.
    """
    from sokovan.cli.text import Cell, print_json, print_rows
    from sokovan.sources import DEFAULT, settings_of

    call = call_of(ctx, home, json)
    found = _named(settings_of(call.home), names or [])
    if call.json:
        keys = ("name", "value", "source", "meaning")
        print_json([{key: getattr(setting, key) for key in keys} for setting in found])
    else:
        rows = []
        for setting in found:
            style = "dim" if setting.source == DEFAULT else "bold"
            row = [setting.name, _shown(setting.value), setting.source]
            rows.append([Cell(text, style) for text in (*row, *[setting.meaning][:long])])
        print_rows(rows, headers=() if long else HEADERS)  # without them, it is not cut
    _warn_of_older(call.home)
    return 0


def _named(settings: "list[Setting]", names: list[str]) -> "list[Setting]":
    """Return those that are named, or are below what is named.

    Raises:
        UsageError: Nothing has such a name.
    """
    from sokovan.cli.exits import UsageError

    for name in names:
        if not any(_is_below(setting.name, name) for setting in settings):
            parts = ", ".join(dict.fromkeys(s.name.partition(".")[0] for s in settings))
            raise UsageError(f"{name}: no such setting; there are {parts}, and what is below them")
    return [s for s in settings if not names or any(_is_below(s.name, name) for name in names)]


def _is_below(setting: str, name: str) -> bool:
    return setting == name or setting.startswith((f"{name}.", f"{name}["))


def _shown(value: object) -> str:
    """Write a value as TOML does, for those types that settings have."""
    return json_text.dumps(value, ensure_ascii=False)


def _warn_of_older(home: Path) -> None:
    """Say on stderr when the server that runs has not read the file as it is now."""
    import sys

    from sokovan.client import server_file
    from sokovan.config import FILE_NAME

    file, lock = home / FILE_NAME, home / "lock"
    if server_file(home) is None or not file.exists() or not lock.exists():
        return
    if file.stat().st_mtime_ns > lock.stat().st_mtime_ns:  # written right after the settings
        print(
            f"note: {FILE_NAME} was changed after the server read it; `sokovan down` stops it, and"
            " the next command starts it with these settings",
            file=sys.stderr,
        )
