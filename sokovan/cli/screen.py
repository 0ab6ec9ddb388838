"""How text is fitted to a terminal: widths, cutting, folding, colours, tables.

Rich could do it, but `sokovan ls` would take a third longer: importing Rich costs that much. Only
`--help` uses it (docs/decisions/0019-a-command-that-starts-quickly.md).
"""

import os
import unicodedata
from collections.abc import Iterator, Sequence
from typing import TextIO

STYLES = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "magenta": "35",
    "cyan": "36",
}
GAP = 2
"""Cells between two columns."""
NEVER_CUT = 16
"""Columns this narrow are whole while there are others that one can do without."""
VALUE_WIDTH_MIN = 16
"""Where a value has less room than this beside its name, it is put below it."""


def width_of(stream: TextIO) -> int:
    """Return how many cells a line of a terminal has; COLUMNS wins."""
    told = os.environ.get("COLUMNS", "")
    if told.isdecimal() and int(told) > 0:
        return int(told)
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def has_colour(stream: TextIO) -> bool:
    """Say whether colours may be written to a stream."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and can_move(stream)


def can_move(stream: TextIO) -> bool:
    """Say whether what was written to a stream can be overwritten."""
    return stream.isatty() and os.environ.get("TERM") not in {"dumb", "unknown"}


def paint(text: str, style: str, stream: TextIO) -> str:
    """Return a text in a style (a name of `STYLES`, or none), where the stream has colours."""
    if not style or not has_colour(stream):
        return text
    return f"\x1b[{STYLES[style]}m{text}\x1b[0m"


def cells(text: str) -> int:
    """Return how many cells of a terminal a text takes."""
    return len(text) if text.isascii() else sum(map(_cells_of_one, text))


def cut(text: str, width: int) -> str:
    """Return a text that takes at most `width` cells; what is cut off becomes `…`."""
    if cells(text) <= width:
        return text
    kept, used = "", 0
    for one in text:
        used += _cells_of_one(one)
        if used > width - 1:
            break
        kept += one
    return f"{kept.rstrip()}…" if width > 0 else ""


def fold(text: str, width: int, *, indent: str = "") -> Iterator[str]:
    """Yield a text as lines of at most `width` cells, all but the first with an indent.

    Spaces at its beginning stay; a word that is longer than a line is broken.
    """
    plain = text.lstrip(" ")
    line = text[: len(text) - len(plain)]
    fresh = True
    for word in plain.split(" "):
        joined = word if fresh else f" {word}"
        if cells(line) + cells(joined) <= width or (fresh and cells(word) <= 1):
            line, fresh = line + joined, False
            continue
        if not fresh:
            yield line
            line = indent
        rest = word
        while cells(line) + cells(rest) > width and cells(line) < width - 1:
            part = _start(rest, width - cells(line))
            yield line + part
            line, rest = indent, rest[len(part) :]
        line, fresh = line + rest, False
    yield line


def table(
    headers: Sequence[str],
    rows: Sequence[Sequence[tuple[str, str]]],
    stream: TextIO,
    *,
    least: Sequence[str] = (),
    room: int | None = None,
) -> Iterator[str]:
    """Yield the lines of a table that fits a terminal.

    Args:
        headers: Of the columns.
        rows: A text and its style for each column.
        stream: The terminal.
        least: Headers of columns that are left out where there is no room, in this order.
        room: Cells of a line; left out, as many as the terminal has.
    """
    room = width_of(stream) if room is None else room
    natural = [
        max(cells(text) for text in (name, *(cell[0] for cell in column)))
        for name, column in zip(headers, zip(*rows, strict=True), strict=True)
    ]
    shown = list(range(len(headers)))
    for name in least:
        if _least_width([natural[i] for i in shown]) <= room:
            break
        shown = [i for i in shown if headers[i] != name]
    widths = dict(zip(shown, _fitted([natural[i] for i in shown], room), strict=True))
    lines = [[(name, "bold") for name in headers], *rows]
    for line in lines:
        yield _line([(cut(line[i][0], widths[i]), line[i][1], widths[i]) for i in shown], stream)


def pairs(rows: Sequence[Sequence[tuple[str, str]]], stream: TextIO) -> Iterator[str]:
    """Yield names and values; a value that has no room on its line goes on below."""
    room = width_of(stream)
    beside = max(cells(row[0][0]) for row in rows) + GAP
    if room - beside < VALUE_WIDTH_MIN:
        beside = GAP
    for (name, _), (value, style) in rows:
        lines = [*fold(value, max(1, room - beside))]
        if beside == GAP:
            yield name
            yield from (" " * GAP + paint(line, style, stream) for line in lines)
            continue
        for number, line in enumerate(lines):
            start = "" if number else name
            yield start + " " * (beside - cells(start)) + paint(line, style, stream)


def _line(row: Sequence[tuple[str, str, int]], stream: TextIO) -> str:
    """Join the cells of a line: text, style, and the width of the column."""
    parts = []
    for number, (text, style, width) in enumerate(row):
        space = 0 if number == len(row) - 1 else width - cells(text) + GAP
        parts.append(paint(text, style, stream) + " " * space)
    return "".join(parts).rstrip(" ")


def _least_width(widths: Sequence[int]) -> int:
    return sum(min(width, NEVER_CUT) for width in widths) + GAP * (len(widths) - 1)


def _fitted(widths: Sequence[int], room: int) -> list[int]:
    """Cut the widest columns until the line has room."""
    most = max(widths)
    while most > 1:
        if sum(min(width, most) for width in widths) + GAP * (len(widths) - 1) <= room:
            break
        most -= 1
    return [min(width, most) for width in widths]


def _start(text: str, width: int) -> str:
    """Return as much of a text as has room, and one character at least."""
    used = 0
    for number, one in enumerate(text):
        used += _cells_of_one(one)
        if used > width and number:
            return text[:number]
    return text


def _cells_of_one(one: str) -> int:
    if unicodedata.combining(one):
        return 0
    return 2 if unicodedata.east_asian_width(one) in "WF" else 1
