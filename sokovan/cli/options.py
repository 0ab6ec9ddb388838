"""Options that many commands share, and what they say about one call."""

import os
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sokovan.cli import completion

if TYPE_CHECKING:
    from sokovan.client import Client


@dataclass(slots=True)
class Call:
    """One use of the command."""

    home: Path
    json: bool
    url: str | None = None
    """SOKOVAN_URL, unless a home was named: the server there is not started from here."""
    quiet: bool = False

    def client(self) -> "Client":
        """Return a client that starts the server of the home where none answers."""
        if self.url is not None:
            return self.quiet_client()
        from sokovan.cli.server import ensure_server
        from sokovan.client import Client

        return Client(self.home, revive=partial(ensure_server, self.home))

    def quiet_client(self) -> "Client":
        """Return a client that starts nothing."""
        from sokovan.client import Client

        return Client(self.home, url=self.url)

    def say(self, sentence: str) -> None:
        """Print what an action did, for people: not with `--json`, nor with `--quiet`."""
        from sokovan.cli.text import plain

        if not (self.json or self.quiet):
            print(plain(sentence))

    def hint(self, command: str) -> None:
        """Name a command that is useful next, on stderr, to a person who looks at it."""
        from sokovan.cli.screen import paint
        from sokovan.cli.text import plain

        if not (self.json or self.quiet) and sys.stdout.isatty() and sys.stderr.isatty():
            print(paint(f"next: {plain(command)}", "dim", sys.stderr), file=sys.stderr)


@dataclass(slots=True)
class Said:
    """What was said before the command's name, and how errors are to be shown."""

    home: Path | None = None
    json: bool = False
    failure_code: int | None = None
    """What to exit with after any error of our own, where that is not for the error to say."""


def call_of(ctx: typer.Context, home: Path | None, json: bool = False, quiet: bool = False) -> Call:
    """Return what the options say: `--home` behind the command's name wins."""
    from sokovan.client import home_of

    said: Said = ctx.obj
    said.json = said.json or json
    said.home = home or said.home
    url = None if said.home else os.environ.get("SOKOVAN_URL") or None
    return Call(home_of(said.home), said.json, url, quiet)


Home = Annotated[
    Path | None,
    typer.Option(
        "--home",
        metavar="DIR",
        help="Directory of all state; else SOKOVAN_HOME, else ~/.sokovan.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Say only what was asked for, and errors.")
]
_SEVERAL = (
    "Session ids, or their first characters; @ is the last submitted, @~2 two before it; ID_0-9,20"
    " are tasks of an array."
)
Ref = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        help="Session id, or its first characters; @ is the last submitted, @~2 two before it;"
        " ID_7 is a task of an array.",
        show_default=False,
        autocompletion=completion.sessions,
    ),
]
Refs = Annotated[
    list[str],
    typer.Argument(
        metavar="ID...",
        help=_SEVERAL,
        show_default=False,
        autocompletion=completion.sessions,
    ),
]
LiveRefs = Annotated[
    list[str],
    typer.Argument(
        metavar="ID...",
        help=_SEVERAL,
        show_default=False,
        autocompletion=completion.live_sessions,
    ),
]
