"""How settings are read: parsed TOML and variables become dataclasses, and mistakes are named.

Which settings there are is for `sokovan/config.py` to say; this knows only of what types they are.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from types import UnionType
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

from sokovan.domain.errors import ConfigError

T = TypeVar("T")

SECONDS_MAX = 1e9
COUNT_MAX = 2**53
PORT_MAX = 65535
_KINDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


@dataclass(frozen=True, slots=True)
class Reader:
    """Makes dataclasses of what was written."""

    not_less: Mapping[str, float]
    """The least that numbers may be, by how their names end; the first that fits counts."""

    def table(self, kind: type[T], data: Any) -> T:
        """Make `kind` from parsed TOML.

        Raises:
            ConfigError: A setting does not exist, or cannot have that value.
        """
        return cast("T", self._build(kind, data, ""))

    def with_environment(self, config: T, environ: Mapping[str, str]) -> T:
        """Return a tree of settings with those that variables set.

        Raises:
            ConfigError: One cannot have that value.
        """
        for section, part in sections(config):
            hints = get_type_hints(type(part))
            changed = {
                f.name: self._from_text(hints[f.name], environ[name], name)
                for f in fields(part)
                if (name := variable(section, f.name)) in environ
            }
            config = replace(cast("Any", config), **{section: replace(part, **changed)})
        return config

    def _build(self, kind: Any, data: Any, path: str) -> Any:
        """Make `kind` from parsed TOML, checking every name and type."""
        if is_dataclass(kind):
            if not isinstance(data, dict):
                raise ConfigError(f"{path or 'config'}: expected a table of settings")
            hints = get_type_hints(kind)
            known = {f.name for f in fields(kind)} - {"home"}
            if unknown := sorted(set(data) - known):
                raise ConfigError(
                    f"{dotted(path, unknown[0])}: no such setting;"
                    f" there are {', '.join(sorted(known))}"
                )
            parts = {n: self._build(hints[n], v, dotted(path, n)) for n, v in data.items()}
            return cast("Any", kind)(**parts)
        origin, args = get_origin(kind), get_args(kind)
        if origin is tuple:
            if not isinstance(data, list):
                raise ConfigError(f"{path}: expected a list of tables, written [[{path}]]")
            return tuple(self._build(args[0], item, f"{path}[{n}]") for n, item in enumerate(data))
        if origin is not None and origin is not UnionType:  # Mapping[str, X]
            if not isinstance(data, dict):
                raise ConfigError(f"{path}: expected a table")
            return {n: self._build(args[1], item, dotted(path, n)) for n, item in data.items()}
        kinds = (int, float) if kind is float else (kind,)
        if not isinstance(data, kinds) or (isinstance(data, bool) and kind is not bool):
            raise ConfigError(f"{path}: expected {_KINDS[kind]}, not {brief(data)}")
        return self._in_range(kind, data, path) if kind in {int, float} else data

    def _in_range(self, kind: Any, number: Any, path: str) -> Any:
        said = path.lower()  # in the file, or in capitals in the environment
        least = next((least for name, least in self.not_less.items() if said.endswith(name)), 0)
        most = PORT_MAX if said.endswith("port") else COUNT_MAX if kind is int else SECONDS_MAX
        if not least <= number <= most:
            raise ConfigError(
                f"{path}: {brief(number)} is out of range; it must be from {least:g} to {most:g}"
            )
        return kind(number)

    def _from_text(self, kind: Any, text: str, name: str) -> Any:
        if kind is bool:
            if text.lower() not in {"true", "false", "1", "0"}:
                raise ConfigError(f"{name}: expected true or false, not {text!r}")
            return text.lower() in {"true", "1"}
        try:
            return self._build(kind, kind(text), name)
        except ValueError:
            raise ConfigError(f"{name}: expected {_KINDS[kind]}, not {brief(text)}") from None


def sections(config: Any) -> Iterator[tuple[str, Any]]:
    """Yield the parts of a tree that variables can set: those that are there once."""
    for f in fields(config):
        if is_dataclass(part := getattr(config, f.name)):
            yield f.name, part


def variable(section: str, name: str) -> str:
    """Return the name of the variable that sets a setting."""
    return f"SOKOVAN_{section}_{name}".upper()


def dotted(path: str, name: str) -> str:
    """Return the name of what stands below `path`."""
    return f"{path}.{name}" if path else name


def brief(value: object) -> str:
    """Return a value as an error may show it."""
    try:
        text = repr(value)
    except ValueError:  # a number of thousands of digits
        return "that"
    return text if len(text) <= 60 else f"{text[:60]}…"
