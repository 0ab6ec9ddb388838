"""What makes the command start quickly: `sokovan ls` is typed often.

None of this changes what a command does (docs/decisions/0019-a-command-that-starts-quickly.md).
Where a later Typer has nothing of that kind, nothing is done, and
`tests/unit/test_client_is_light.py` tells.
"""

import copy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer
import typer.core


def leave_out_what_is_not_needed() -> None:
    """Keep libraries from importing what no command needs; say nothing twice."""
    # httpx imports a command of its own, with Rich and Pygments, when it can: a sixth of the time
    # of `sokovan ls`. `None` says that there is no such module, and httpx does without.
    sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
    parameter = getattr(typer.core, "_TyperParameter", None)
    build = getattr(parameter, "get_runtime_param", None)
    if parameter is not None and build is not None:
        # Typer has Pydantic look at every value: a quarter of the time of `sokovan ls`.
        parameter.get_runtime_param = lambda self: _Coercion(self, build)


class _Coercion:
    """Leaves alone what is what it is to be, and has Typer see to the rest."""

    def __init__(self, parameter: Any, build: Any) -> None:
        self._parameter = parameter
        self._build = build

    def coerce(self, value: Any, *, param: Any, ctx: Any) -> Any:
        kind = self._parameter.type_descriptor
        says, wanted = kind.parameter_info, kind.annotation
        if value is None:
            return () if param.multiple or param.nargs == -1 else None
        if says.parser is None:
            if type(value) is wanted and (wanted is str or _is_within(value, says)):
                return value
            if wanted is Path and type(value) is str and not (says.exists or says.resolve_path):
                return Path(value)
            if wanted == list[str] and all(type(item) is str for item in value):
                return [*value]
        return self._build(self._parameter).coerce(value, param=param, ctx=ctx)


def _is_within(value: Any, says: Any) -> bool:
    """Whether a value is a number that an option may be."""
    return (
        type(value) is int
        and (says.min is None or value >= says.min)
        and (says.max is None or value <= says.max)
    )


def only_what_is_asked_for(app: Any, argv: Sequence[str]) -> Any:
    """Return `app` with no more commands than the one that is named; making them takes a while."""
    word = _first_word(argv)
    if word is None or not isinstance(app, typer.Typer):
        return app
    commands = [one for one in app.registered_commands if one.name == word]
    groups = [one for one in app.registered_groups if one.name == word]
    if not (commands or groups):
        return app
    chosen = copy.copy(app)
    chosen.registered_commands, chosen.registered_groups = commands, groups
    return chosen


def _first_word(argv: Sequence[str]) -> str | None:
    """Return the first word that is no option, if nothing but `--home` comes before it."""
    rest = [*argv]
    while rest and rest[0].startswith("-"):
        if rest[0] == "--home":
            del rest[:2]
        elif rest[0].startswith("--home="):
            del rest[0]
        else:
            return None
    return rest[0] if rest else None
