"""Where the value of each setting comes from: a line of the file, a variable, or the default."""

import ast
import inspect
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from sokovan.config import DATABASE_FILE, FILE_NAME, Config, load_config, without_password
from sokovan.settings import dotted, sections, variable
from sokovan.toml_lines import lines_of

DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting, and its value that counts."""

    name: str
    """Such as `api.port`, `agents[0].cpu` or `groups.default.order`."""
    value: Any
    source: str
    """`default`, the name of a variable, or the file with the line."""
    meaning: str


def settings_of(home: Path, environ: Mapping[str, str] = os.environ) -> list[Setting]:
    """Return every setting of a home, in the order of the reference page.

    Raises:
        ConfigError: The file is not TOML, or names a setting or a value that does not exist.
    """
    config = load_config(home, environ)
    written = written_in(home / FILE_NAME)
    variables = {
        dotted(section, f.name): name
        for section, part in sections(config)
        for f in fields(part)
        if (name := variable(section, f.name)) in environ
    }
    found = []
    for name, value, meaning in _leaves(config):
        line = written.get(name)
        source = variables.get(name) or (f"{FILE_NAME}:{line}" if line else DEFAULT)
        if name == "store.url":
            source = DATABASE_FILE if value and source == DEFAULT else source
            value = without_password(value)  # noqa: PLW2901 - it is only ever shown
        found.append(Setting(name, value, source, meaning))
    return found


def written_in(file: Path) -> dict[str, int]:
    """Return at which line of a file each setting and each table of them is, by its name."""
    text = file.read_text() if file.exists() else ""
    return {_named(path): line for path, line in lines_of(text).items()}


def _named(path: tuple[str | int, ...]) -> str:
    """Return the name of what stands at a place of the file."""
    name = ""
    for part in path:
        name = f"{name}[{part}]" if isinstance(part, int) else dotted(name, part)
    return name


def _leaves(part: Any, path: str = "") -> Iterator[tuple[str, Any, str]]:
    """Yield name, value and meaning of every setting below `part`."""
    meanings = field_meanings(type(part))
    for f in fields(part):
        name, value = dotted(path, f.name), getattr(part, f.name)
        if is_dataclass(value):
            yield from _leaves(value, name)
        elif isinstance(value, tuple):
            for number, item in enumerate(value):
                yield from _leaves(item, f"{name}[{number}]")
        elif isinstance(value, Mapping) and any(map(is_dataclass, value.values())):
            for key, item in value.items():
                yield from _leaves(item, dotted(name, key))
        elif not (isinstance(part, Config) and f.name == "home"):
            yield name, value, meanings.get(f.name, "")


def field_meanings(kind: type) -> dict[str, str]:
    """Return the string that stands below each field of a class, by field."""
    tree = ast.parse(inspect.getsource(sys.modules[kind.__module__]))
    (found,) = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == kind.__name__]
    said: dict[str, str] = {}
    for node, below in zip(found.body, found.body[1:], strict=False):
        target: ast.expr | None = node.target if isinstance(node, ast.AnnAssign) else None
        if isinstance(node, ast.Assign):
            target = node.targets[0]
        if (
            isinstance(target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
        ):
            said[target.id] = " ".join(str(below.value.value).split())
    return said
