"""Job files: a session's command and options, written down in TOML.

Each option of `session_options` is a field of the same name, without its dashes; there is no other
list of them. Errors name the file and the line.
"""

import datetime as dt
import inspect
import json
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, get_args

from sokovan.cli.exits import UsageError
from sokovan.cli.session_options import directory_of, session_options
from sokovan.domain.errors import InvalidRequestError
from sokovan.toml_lines import Path as Place
from sokovan.toml_lines import line_of_error, lines_of

FILE_BYTES_MAX = 1 << 20
LINE_WIDTH = 100
COMMAND = "command"
USES_ARGUMENTS = re.compile(r"\$(?:[1-9@*#]|\{[1-9@*#])")
"""Text for a shell that looks at the arguments it is given."""


@dataclass(frozen=True, slots=True)
class Field:
    """One option of a session, as a job file has it."""

    name: str
    """Its long option without the dashes."""
    parameter: str
    """What `session_options` calls it."""
    kind: str
    """`text`, `whole` (a number), `flag`, `list`, or `table` (for NAME=VALUE)."""
    metavar: str
    least: int | None
    default: Any


@cache
def fields() -> Mapping[str, Field]:
    """Return every field but the command, by name, in the order of the options."""
    found = {}
    for parameter in inspect.signature(session_options).parameters.values():
        says, option = get_args(parameter.annotation)
        names = (option.default, *option.param_decls)  # where Typer keeps the first one
        long = next(name for name in names if name.startswith("--"))
        metavar = option.metavar or ""
        kind = _kind(says, metavar)
        name = long.removeprefix("--")
        found[name] = Field(name, parameter.name, kind, metavar, option.min, parameter.default)
    return found


def _kind(says: Any, metavar: str) -> str:
    kinds = get_args(says) if isinstance(says, UnionType) else (says,)
    for kind, name in ((bool, "flag"), (int, "whole"), (str, "text")):
        if kind in kinds:
            return name
    return "table" if "=" in metavar else "list"


OF_API = {
    "begin_at": "begin",
    "cpu_milli": "cpu",
    "gpu_mem_bytes_min": "gpu-mem",
    "gpu_shares": "gpu",
    "indexes": "array",
    "params": "param",
    "running_max": "array",
    "grace_s": "grace",
    "held": "hold",
    "limits": "limit",
    "mem_bytes": "mem",
    "pending_timeout_s": "pending-timeout",
    "scaling_group": "group",
    "walltime_s": "time",
    "where.agents": "agent",
    "where.constraints": "constraint",
    "where.kernels_per_agent_max": "kernels-per-agent",
}
"""The options whose field has another name in the API."""


class JobFile:
    """What a job file says.

    Attributes:
        command: Words, or text for the shell; `None` when it has none.
        values: What the command line would give for each parameter that it names.
    """

    def __init__(self, name: str, text: str, directory: Path) -> None:
        self._name = name
        try:
            read = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            line, what = line_of_error(error, text)
            raise UsageError(f"{name}:{line}: this is not TOML: {what}") from None
        except RecursionError:
            raise UsageError(f"{name}: it is nested too deeply") from None
        self._lines = lines_of(text)
        self.command = self._command(read.pop(COMMAND)) if COMMAND in read else None
        self.values: dict[str, Any] = {}
        for key, value in read.items():
            field = fields().get(key)
            if field is None:
                raise self._unknown(key)
            self.values[field.parameter] = self._read(field, value)
        if "cwd" in self.values:
            try:
                self.values["cwd"] = directory_of(self.values["cwd"], below=directory)
            except InvalidRequestError as error:
                raise UsageError(f"{name}:{self.line(('cwd',))}: {error.message}") from None

    def full_command(self, arguments: Sequence[str]) -> list[str]:
        """Return the command with what was typed after the file's name.

        Raises:
            UsageError: There is no command, or one that does not look at arguments.
        """
        if self.command is None:
            if arguments:
                return [*arguments]
            raise UsageError(
                f'{self._name}: it has no command; write command = ["python", "train.py"], or the'
                " command after --",
                field=COMMAND,
            )
        if not isinstance(self.command, str):
            return [*self.command, *arguments]
        if arguments and not USES_ARGUMENTS.search(self.command):
            raise self.error(
                (COMMAND,),
                f'{arguments[0]!r} is not used by this text for the shell; write "$@" in it where'
                " arguments belong, or write the command as a list",
            )
        return ["/bin/sh", "-c", self.command, *(["sh", *arguments] if arguments else [])]

    def error(self, place: Place, sentence: str) -> UsageError:
        """Return an error that says on which line it is."""
        name = str(place[0])
        where = f"{self._name}:{self.line(place)}"
        return UsageError(f"{where}: {name}: {sentence}", field=name)

    def line(self, place: Place) -> int:
        """Return the line of a key or an item, or of what it stands in."""
        while place not in self._lines:
            place = place[:-1]
        return self._lines[place]

    def located(self, field: Field, item: int | str | None, message: str) -> str:
        """Return an error's message with the line before it."""
        place: Place = (field.name,) if item is None else (field.name, item)
        return f"{self._name}:{self.line(place)}: {message}"

    def _command(self, value: Any) -> str | list[str]:
        place = (COMMAND,)
        if isinstance(value, str) and value.strip():
            return value
        if not isinstance(value, list) or not value:
            raise self.error(
                place, f'{_shown(value)} is no command; write ["python", "train.py"] or text'
            )
        return [self._text((*place, number), item) for number, item in enumerate(value)]

    def _unknown(self, key: str) -> UsageError:
        names = [COMMAND, *fields()]
        if key.replace("_", "-") in names:
            advice = f"write {key.replace('_', '-')}, with hyphens, as the option is written"
        elif near := [OF_API[key]] if key in OF_API else get_close_matches(key, names, n=1):
            advice = f"did you mean {near[0]}?"
        else:
            advice = "the fields are the options of `sokovan submit`, without their dashes"
        return self.error((key,), f"there is no such field; {advice}")

    # --- values, by kind --------------------------------------------------------------------------

    def _text(self, place: Place, value: Any) -> str:
        if isinstance(value, str):
            return value
        if isinstance(value, dt.date | dt.time):
            return value.isoformat()
        if isinstance(value, int | float) and not isinstance(value, bool):
            return str(value)
        raise self.error(place, f"{_shown(value)} is neither text nor a number; write one value")

    def _read(self, field: Field, value: Any) -> Any:
        """Return what the command line would give for a value."""
        match field.kind:
            case "text":
                return self._text((field.name,), value)
            case "whole":
                return self._whole(field, value)
            case "list":
                return self._items(field, value)
            case "table":
                return self._pairs(field, value)
        if not isinstance(value, bool):
            raise self.error((field.name,), f"{_shown(value)} is neither; write true or false")
        return value

    def _whole(self, field: Field, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.error((field.name,), f"{_shown(value)} is no whole number; write such as 2")
        if field.least is not None and value < field.least:
            raise self.error((field.name,), f"{value} is too little; write {field.least} or more")
        return value

    def _items(self, field: Field, value: Any) -> list[str]:
        items = value if isinstance(value, list) else [value]
        return [self._text((field.name, number), item) for number, item in enumerate(items)]

    def _pairs(self, field: Field, value: Any) -> list[str]:
        if not isinstance(value, dict):
            name, _, what = field.metavar.partition("=")
            raise self.error(
                (field.name,),
                f"{_shown(value)} is no table; write [{field.name}], and lines below it such as"
                f' {name} = "{what}"',
            )
        pairs = []
        for name, item in value.items():
            place = (field.name, name)
            if isinstance(item, list) and "," in field.metavar:
                text = ",".join(
                    self._text((*place, number), one) for number, one in enumerate(item)
                )
            else:
                text = self._text(place, item)
            if not name or "=" in name:
                raise self.error(place, f"{name!r} is no name; it may not be empty or have a =")
            pairs.append(f"{name}={text}")
        return pairs


def read_job(name: str) -> JobFile:
    """Read a job file; `-` is what comes on stdin.

    Raises:
        UsageError: It cannot be read, or does not say what a job file may.
    """
    shown = "stdin" if name == "-" else name
    try:
        if name == "-":
            data = sys.stdin.buffer.read(FILE_BYTES_MAX + 1)
        else:
            with Path(name).expanduser().open("rb") as file:
                data = file.read(FILE_BYTES_MAX + 1)
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            f"{shown}: this job file cannot be read: {reason}; if it is a command, write -- before"
            " it",
            field="file",
        ) from None
    if len(data) > FILE_BYTES_MAX:
        raise UsageError(f"{shown}: it is larger than {FILE_BYTES_MAX} bytes", field="file")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{shown}:{line}: this is not UTF-8; save it as such") from None
    directory = Path() if name == "-" else Path(name).expanduser().parent
    return JobFile(shown, text, directory)


def written(command: Sequence[str], values: Mapping[str, Any]) -> str:
    """Write a job file.

    Args:
        command: Its words.
        values: What `session_options` is given; what is not set is left out.

    Raises:
        UsageError: Something in it is not UTF-8, which TOML must be.
    """
    simple, tables = [f"{COMMAND} = {_list(command, len(COMMAND))}"], []
    for field in fields().values():
        value = values.get(field.parameter)
        if value in (None, [], field.default):
            continue
        if field.kind == "table":
            tables += ["", f"[{field.name}]", *_table(value)]
        else:
            simple.append(f"{field.name} = {_value(field, value)}")
    return "\n".join(["# sokovan submit FILE.toml", *simple, *tables, ""])


def _value(field: Field, value: Any) -> str:
    if field.kind == "flag":
        return "true"
    if field.kind == "list":
        return _list(value, len(field.name))
    is_number = field.metavar == "N" and re.fullmatch(r"(0|[1-9]\d{0,9})(\.\d{1,3})?", str(value))
    return str(value) if field.kind == "whole" or (is_number and _same(value)) else _quoted(value)


def _same(text: str) -> bool:
    """Whether a number is written again as it was."""
    return str(tomllib.loads(f"x = {text}")["x"]) == text


def _list(items: Sequence[str], before: int) -> str:
    quoted = [_quoted(item) for item in items]
    line = f"[{', '.join(quoted)}]"
    if before + 3 + len(line) <= LINE_WIDTH:
        return line
    return "\n".join(["[", *(f"    {item}," for item in quoted), "]"])


def _table(pairs: Sequence[str]) -> Iterator[str]:
    """Write NAME=VALUE as lines of a table; of several with one name, the last."""
    for name, value in dict(pair.split("=", 1) for pair in pairs).items():
        key = name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _quoted(name)
        yield f"{key} = {_quoted(value)}"


def _quoted(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{text!r} is not UTF-8, and a job file must be") from None
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _shown(value: Any) -> str:
    """Write a value so that one finds it in the file."""
    if isinstance(value, dict):
        return "a table"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 40 else f"{text[:39]}…"
