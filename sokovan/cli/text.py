"""How things are printed: JSON for programs, columns for people.

Columns are cut to a terminal's width and coloured there (`NO_COLOR` is heard); into a pipe or a
file they go whole and plain. Nothing is printed that a terminal would take for an order.
"""

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sokovan.domain.errors import SokovanError


class Cell(NamedTuple):
    """A piece of text and how it looks."""

    text: str
    style: str = ""
    """A name of `screen.STYLES`, or none."""


Row = Sequence[Cell | str]


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


def print_rows(
    rows: Sequence[Row], *, headers: Sequence[str] = (), least: Sequence[str] = ()
) -> None:
    """Print rows in columns; without headers they are names and values.

    Args:
        rows: What to print; there is at least one.
        headers: Of the columns.
        least: Headers of columns that a narrow terminal does without, in this order.
    """
    cells = [[_cell(item) for item in row] for row in rows]
    if not sys.stdout.isatty():
        _print_plain([[Cell(name) for name in headers], *cells] if headers else cells)
        return
    from sokovan.cli.screen import pairs, table

    found = table(headers, cells, sys.stdout, least=least) if headers else pairs(cells, sys.stdout)
    for line in found:
        print(line)


def print_lines(lines: Iterable[str]) -> None:
    """Print sentences; a terminal's are folded between words."""
    if not sys.stdout.isatty():
        for line in lines:
            print(plain(line))
        return
    from sokovan.cli.screen import fold, width_of

    width = width_of(sys.stdout)
    for line in lines:
        begins = len(line) - len(line.lstrip(" "))
        for part in fold(plain(line), width, indent=" " * (begins + 2)):
            print(part)


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
