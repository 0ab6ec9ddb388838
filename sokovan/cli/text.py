"""How things are printed: JSON for programs, columns for people.

Columns are cut to a terminal's width and coloured there (`NO_COLOR` is heard); into a pipe or a
file they go whole and plain. Nothing is printed that a terminal would take for an order.
"""

import json
import os
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple, TextIO

from sokovan.domain.errors import SokovanError


class Cell(NamedTuple):
    """A piece of text and how it looks."""

    text: str
    style: str = ""
    """In Rich's words, such as `red` or `bold cyan`."""


Row = Sequence[Cell | str]

NEVER_CUT = 16
"""Columns this narrow are whole on any terminal; the wider ones share what is left."""


def print_json(view: Any) -> None:
    """Print one JSON value: on one line, unless a person is looking."""
    indent = 2 if sys.stdout.isatty() else None
    print(json.dumps(view, ensure_ascii=False, indent=indent))


def problem_of(error: Exception) -> dict[str, Any]:
    """Return an error as a problem object, the same that the API answers."""
    if not isinstance(error, SokovanError):
        error = SokovanError(f"{type(error).__name__}: {error}")
    found: dict[str, Any] = {
        "type": f"urn:sokovan:error:{error.code}",
        "title": error.code.replace("-", " ").capitalize(),
        "status": error.http_status,
        "detail": error.message,
        "code": error.code,
    }
    if error.field is not None:
        found["field"] = error.field
    return found


def problem(error: SokovanError) -> str:
    """Return an error as a problem object, on one line."""
    return json.dumps(problem_of(error), ensure_ascii=False)


def plain(text: str) -> str:
    """Return `text` without what a terminal would obey: names and commands come from others."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def on_one_line(text: str) -> str:
    """Return `text` as a single line."""
    return plain(" ".join(text.split()))


def has_colour(stream: TextIO) -> bool:
    """Say whether colours may be written to a stream."""
    return (
        stream.isatty()
        and not os.environ.get("NO_COLOR")
        and os.environ.get("TERM") not in {"dumb", "unknown"}
    )


def dim(text: str, stream: TextIO) -> str:
    """Return a text that is to stay in the background, as the stream can show it."""
    return f"\x1b[2m{text}\x1b[0m" if has_colour(stream) else text


def print_rows(rows: Sequence[Row], *, headers: Sequence[str] = ()) -> None:
    """Print rows in columns."""
    cells = [[_cell(item) for item in row] for row in rows]
    if sys.stdout.isatty():
        _print_rich(headers, cells)
    else:
        _print_plain([[Cell(name) for name in headers], *cells] if headers else cells)


def local_time(text: str, *, timespec: str = "seconds") -> str:
    """Write an RFC 3339 time as this machine's clock shows it."""
    moment = datetime.fromisoformat(text).astimezone().replace(tzinfo=None)
    return moment.isoformat(" ", timespec)


def epoch(text: str) -> float:
    """Return an RFC 3339 time in seconds since the epoch."""
    return datetime.fromisoformat(text).timestamp()


def _cell(item: Cell | str) -> Cell:
    cell = Cell(item) if isinstance(item, str) else item
    return Cell(plain(cell.text), cell.style)


def _print_plain(rows: Sequence[Sequence[Cell]]) -> None:
    widths = [max(map(len, column)) for column in zip(*_texts(rows), strict=True)]
    for row in _texts(rows):
        line = "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True))
        print(line.rstrip())


def _texts(rows: Sequence[Sequence[Cell]]) -> list[list[str]]:
    return [[cell.text for cell in row] for row in rows]


def _print_rich(headers: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
    """Print on a terminal: a table is cut to its width, name and value (no headers) are folded."""
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    assert rows, "nothing to print"
    names = headers or [""] * len(rows[0])
    console = Console(highlight=False)
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=bool(headers), header_style="bold")
    whole = [
        max(cell_len(text) for text in (name, *(cell.text for cell in column)))
        for name, column in zip(names, zip(*rows, strict=True), strict=True)
    ]
    narrow = [width for width in whole if width <= NEVER_CUT]
    room = console.width - sum(narrow) - 2 * len(whole)
    share = max(NEVER_CUT, room // max(1, len(whole) - len(narrow)))
    for name, width in zip(names, whole, strict=True):
        if headers or width <= NEVER_CUT:
            cut = width if width <= NEVER_CUT else min(width, share)
            table.add_column(name, no_wrap=True, overflow="ellipsis", width=cut)
        else:
            table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell.text, cell.style) for cell in row))
    console.print(table)
