"""Where things stand in a TOML text: `tomllib` reads the values, but does not say on which line.

The text has been read by `tomllib` before: what is wrong in it was said already, so that only as
much of the grammar is known here as it takes to find the keys.
"""

import re
import tomllib
from collections.abc import Iterator
from typing import Any

Path = tuple[str | int, ...]
"""Keys, and numbers of items of lists from 0 on: `("env", "HOME")`, `("prefer", 1)`."""

BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
STRING = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}|' + r"'''.*?'{3,5}|" + r'"(?:\\.|[^"\\\n])*"|' + r"'[^'\n]*'",
    re.DOTALL,
)
KEY = re.compile(r"""(?:"(?:\\.|[^"\\\n])*"|'[^'\n]*'|[A-Za-z0-9_\-. \t])+""")
PLAIN = re.compile(r"[^,\]}#\n]+")
"""A number, a date, true or false."""


def lines_of(text: str) -> dict[Path, int]:
    """Return the line, from 1 on, on which each key, table and item of a list begins.

    Args:
        text: What `tomllib.loads` has read without complaint.
    """
    return Locator(text).lines


def line_of_error(error: tomllib.TOMLDecodeError, text: str) -> tuple[int, str]:
    """Return the line at which a text stops being TOML, and what is wrong there."""
    found = re.fullmatch(r"(.*) \(at line (\d+), column (\d+)\)", str(error), re.DOTALL)
    if found:
        return int(found[2]), f"{found[1]} (column {found[3]})"
    return max(1, len(text.splitlines())), str(error).replace(" (at end of document)", "")


class Locator:
    """Walks through a text once."""

    def __init__(self, text: str) -> None:
        self.lines: dict[Path, int] = {}
        self._text = text.replace("\r\n", "\n")
        self._at = 0
        self._counts: dict[Path, int] = {}
        self._counted_to, self._line = 0, 1
        table: Path = ()
        while self._skip_blank():
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)

    def _header(self) -> Path:
        """Read `[a.b]` or `[[a.b]]`; return where the keys below it belong."""
        brackets = 2 if self._text.startswith("[[", self._at) else 1
        line = self._line_here()
        self._at += brackets
        path = self._inside(self._key(), line)
        self._at += brackets
        if brackets == 2:
            self._note(path, line)
            number = self._counts.get(path, 0)
            self._counts[path] = number + 1
            path = (*path, number)
        self._note(path, line)
        return path

    def _inside(self, keys: list[str], line: int) -> Path:
        """Put the number of the last table of a list behind its key."""
        path: Path = ()
        for key in keys[:-1]:
            path = (*path, key)
            self._note(path, line)
            if path in self._counts:
                path = (*path, self._counts[path] - 1)
        return (*path, keys[-1])

    def _pair(self, table: Path) -> None:
        """Read `key = value`."""
        line = self._line_here()
        path = table
        for key in self._key():
            path = (*path, key)
            self._note(path, line)
        self._at += 1  # the equals sign
        self._skip_blank()
        self._value(path)

    def _value(self, path: Path) -> None:
        first = self._text[self._at]
        if first == "[":
            for number, _ in enumerate(self._items("]")):
                item = (*path, number)
                self._note(item, self._line_here())
                self._value(item)
        elif first == "{":
            for _ in self._items("}"):
                self._pair(path)
        else:
            found = STRING.match(self._text, self._at) or PLAIN.match(self._text, self._at)
            assert found is not None, "it is TOML"
            self._at = found.end()

    def _items(self, end: str) -> Iterator[None]:
        """Stop before each item of what is in brackets; whoever asks reads the item."""
        self._at += 1
        while self._skip_blank() and self._text[self._at] != end:
            yield
            self._skip_blank()
            if self._text[self._at] == ",":
                self._at += 1
        self._at += 1

    def _key(self) -> list[str]:
        """Read a key with its dots."""
        self._skip_blank()
        found = KEY.match(self._text, self._at)
        assert found is not None, "it is TOML"
        self._at = found.end()
        read: Any = tomllib.loads(f"{found[0]} = 0")
        keys = []
        while isinstance(read, dict):
            ((key, read),) = read.items()
            keys.append(key)
        return keys

    def _note(self, path: Path, line: int) -> None:
        self.lines.setdefault(path, line)

    def _line_here(self) -> int:
        self._line += self._text.count("\n", self._counted_to, self._at)
        self._counted_to = self._at
        return self._line

    def _skip_blank(self) -> bool:
        """Go on to where something stands; say whether anything does."""
        found = BLANK.match(self._text, self._at)
        assert found is not None, "it may be empty"
        self._at = found.end()
        return self._at < len(self._text)
