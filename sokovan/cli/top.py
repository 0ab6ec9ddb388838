"""`top`: what runs and what waits, kept up to date on a terminal."""

import os
import select
import shutil
import signal
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sokovan.cli.options import Home, Json, call_of
from sokovan.cli.screen import can_move, width_of
from sokovan.cli.sessions import now_of
from sokovan.domain.errors import ServerUnreachableError

if TYPE_CHECKING:
    from sokovan.client import Client

EVERY_S = 2.0
SHARE_OF_SERVER = 10
"""Where an answer takes the server long, it works on this for one part of so many of its time."""
LOOK_S = 0.25
"""How often to look whether the terminal has another size."""
ROWS_MAX = 100
"""As many agents and sessions of each kind as the server tells of at once."""


def top(
    ctx: typer.Context,
    every: Annotated[
        float,
        typer.Option("--every", metavar="SECONDS", min=0.5, help="How often to look again."),
    ] = EVERY_S,
    once: Annotated[
        bool, typer.Option("--once", help="Print it once and leave; so it is in a pipe.")
    ] = False,
    json: Json = False,
    home: Home = None,
) -> int:
    """Show what runs and what waits, with places and starts, until `q` or Ctrl-C."""
    from sokovan.cli.picture import WIDE, picture
    from sokovan.cli.text import print_json

    call = call_of(ctx, home, json)
    with call.client() as client:
        seen = client.overview(limit=ROWS_MAX)
        now = now_of(client)
    if call.json:
        print_json(seen)
    elif once or not (sys.stdin.isatty() and can_move(sys.stdout)):
        width = width_of(sys.stdout) if sys.stdout.isatty() else WIDE
        for line in picture(seen, now, width=width, height=None, stream=sys.stdout):
            print(line)
    else:
        with call.quiet_client() as client, _whole_terminal() as key_within:  # starts no server
            _keep_drawing(client, seen, now, every, key_within)
    return 0


def _keep_drawing(
    client: "Client",
    seen: dict[str, Any],
    now: float,
    every_s: float,
    key_within: Callable[[float], str],
) -> None:
    """Draw anew every so often, and at once when the terminal changes its size."""
    from sokovan.cli.picture import picture

    trouble = ""
    pause_s = every_s
    while True:
        until = time.perf_counter() + pause_s
        drawn = None
        size = shutil.get_terminal_size()
        while (left_s := until - time.perf_counter()) > 0:
            size = shutil.get_terminal_size()
            if size != drawn:
                width, height = drawn = size
                out = sys.stdout
                _draw(picture(seen, now, width=width, height=height, stream=out, trouble=trouble))
            key = key_within(min(left_s, LOOK_S))
            if key in {"q", "Q", "\x04"}:
                return
            if key == " ":
                break
        began = time.perf_counter()
        try:
            seen, trouble = client.overview(limit=min(ROWS_MAX, max(1, size.lines))), ""
            now = now_of(client)
        except ServerUnreachableError as error:
            trouble = f"not up to date: {error.message}"
        pause_s = max(every_s, SHARE_OF_SERVER * (time.perf_counter() - began))


def _draw(lines: Iterator[str]) -> None:
    """Write over what is on the screen, without a flicker."""
    text = "".join(f"{line}\x1b[K\r\n" for line in lines).removesuffix("\r\n")
    sys.stdout.write(f"\x1b[H{text}\x1b[J")
    sys.stdout.flush()


@contextmanager
def _whole_terminal() -> Iterator[Callable[[float], str]]:
    """Take over the terminal, with keys as they are pressed; give it back as it was."""
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    handler = signal.signal(signal.SIGTERM, signal.default_int_handler)

    def key_within(seconds: float) -> str:
        if not select.select([fd], [], [], seconds)[0]:
            return ""
        return os.read(fd, 1).decode(errors="replace") or "q"

    try:
        tty.setcbreak(fd)
        sys.stdout.write("\x1b[?1049h\x1b[?25l")  # the other screen, no cursor
        yield key_within
    except KeyboardInterrupt:
        pass
    finally:
        sys.stdout.write("\x1b[?25h\x1b[?1049l")
        sys.stdout.flush()
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
        signal.signal(signal.SIGTERM, handler)
