"""What the texts of a request may be: how long, and of which characters.

Most sessions come with dozens of variables, and thousands come at once: what is plainly in order is
seen from all texts together, and each is looked at only to say what is wrong.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import AfterValidator, Field, WithJsonSchema

from sokovan.domain.quantities import bytes_of

STRING_BYTES_MAX = 128 * 1024 - 1
"""Longest word of a command, or `NAME=value`: Linux starts no program with a longer one."""
PROGRAM_BYTES_MAX = 2 * 1024 * 1024 - 64 * 1024
"""Most that a command and its environment may take together; Linux allows 2 MiB in all."""
NAME_LENGTH_MAX = 255
PATH_BYTES_MAX = 4095
CURSOR = "[0-9]{1,18}"
"""A session's number; a longer one would be more than a database can count."""
_CHARACTER_BYTES_MAX = 4


def program_bytes(command: Sequence[str], env: Mapping[str, str]) -> int:
    """Return what a command and its environment take when Linux starts them."""
    texts = "".join((*command, *env, *env.values()))
    return bytes_of(texts) + 9 * len(command) + 10 * len(env)


def printable(text: str | None) -> str | None:
    """Refuse what nothing can be called: no database need be asked for it."""
    return text if text is None else _label(text)


def _word(text: str) -> str:
    if "\0" in text:
        raise ValueError("contains a NUL byte, which no program can be given; remove it")
    if bytes_of(text) > STRING_BYTES_MAX:
        raise ValueError(f"is longer than {STRING_BYTES_MAX} bytes; put it into a file instead")
    return text


def _label(text: str) -> str:
    if not text.isprintable():
        raise ValueError("contains a control character, such as a line break; remove it")
    return text


def _directory(text: str) -> str:
    if "\0" in text or len(text.encode()) > PATH_BYTES_MAX:
        raise ValueError(f"must be a path of at most {PATH_BYTES_MAX} bytes, without NUL bytes")
    if not text.startswith("/"):
        raise ValueError("must be an absolute path, one that begins with /")
    return text


def _environment(env: dict[str, str]) -> dict[str, str]:
    names, values = "".join(env), "".join(env.values())
    is_short = (len(names) + len(values)) * _CHARACTER_BYTES_MAX < STRING_BYTES_MAX
    if is_short and "" not in env and not ("=" in names or "\0" in names or "\0" in values):
        return env
    for name, value in env.items():
        if not name or "=" in name or "\0" in name:
            raise ValueError(f"{name!r} cannot name a variable: empty, or with = or a NUL byte")
        if "\0" in value:
            raise ValueError(f"the value of {name!r} contains a NUL byte; remove it")
        if bytes_of(name) + bytes_of(value) + 1 > STRING_BYTES_MAX:
            raise ValueError(
                f"{name!r} and its value are longer than {STRING_BYTES_MAX} bytes;"
                " put the value into a file instead"
            )
    return env


def _cursor(text: str) -> str:
    if not re.fullmatch(CURSOR, text, re.ASCII):
        raise ValueError("pass on the one that the last page gave you")
    return text


Word = Annotated[str, AfterValidator(_word)]
Label = Annotated[str, Field(max_length=NAME_LENGTH_MAX), AfterValidator(_label)]
Name = Annotated[str, Field(min_length=1, max_length=NAME_LENGTH_MAX), AfterValidator(_label)]
Directory = Annotated[str, AfterValidator(_directory)]
Environment = Annotated[dict[str, str], AfterValidator(_environment)]
Cursor = Annotated[
    str, AfterValidator(_cursor), WithJsonSchema({"type": "string", "pattern": f"^{CURSOR}$"})
]
