"""Arrays: many sessions from one template, told apart by an index and by their parameters."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from math import prod

from sokovan.domain.errors import InvalidRequestError
from sokovan.domain.sessions import SessionSpec

INDEX = "index"
"""What a task's own index is called where it is put into a command."""
INDEX_MAX = 2**31 - 1
PARAMS_MAX = 100
PARAM_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}", re.ASCII)
VARIABLES = "SOKOVAN_ARRAY_"
PARAM_VARIABLES = "SOKOVAN_PARAM_"
"""How the names of the variables begin that every task is given."""
_RANGE = re.compile(r"([0-9]{1,10})(?:-([0-9]{1,10})(?::([0-9]{1,10}))?)?", re.ASCII)
RANGES_MAX = 1000
"""Most parts between commas that are not a single index."""

Params = tuple[tuple[str, tuple[str, ...]], ...]
"""The values of each parameter, in order: the first one changes slowest."""


@dataclass(frozen=True)
class Indexes:
    """Some indexes, as `0-99`, `0-99:5`, `1,3,7`, or a mixture of these."""

    ranges: tuple[range, ...]

    def __contains__(self, index: object) -> bool:
        return index in self._singles or any(index in one for one in self._long)

    @cached_property
    def _singles(self) -> frozenset[int]:
        return frozenset(one.start for one in self.ranges if len(one) == 1)

    @cached_property
    def _long(self) -> tuple[range, ...]:
        return tuple(one for one in self.ranges if len(one) > 1)

    def __len__(self) -> int:
        """Return how many they are; what is named twice counts twice."""
        return sum(map(len, self.ranges))

    def __iter__(self) -> Iterator[int]:
        """Iterate by ascending index, each once."""
        return iter(sorted({index for one in self.ranges for index in one}))

    def __str__(self) -> str:
        return ",".join(map(_range_text, self.ranges))


def _range_text(one: range) -> str:
    if len(one) == 1:
        return str(one.start)
    return f"{one.start}-{one[-1]}{f':{one.step}' if one.step > 1 else ''}"


def parse_indexes(text: str, *, field: str) -> Indexes:
    """Read indexes.

    Raises:
        InvalidRequestError: They make no sense; the message names `field`.
    """
    parts = text.split(",")
    if text.count("-") > RANGES_MAX:
        raise InvalidRequestError(f"{field}: more than {RANGES_MAX} ranges", field=field)
    found = []
    for part in parts:
        match = _RANGE.fullmatch(part.strip())
        if match is None:
            raise InvalidRequestError(
                f"{field}: {part!r} is no range of indexes; write such as 0-99, 0-99:5 or 1,3,7",
                field=field,
            )
        first, last, step = (int(number) if number else None for number in match.groups())
        assert first is not None
        last = first if last is None else last
        if last < first or last > INDEX_MAX or step == 0:
            raise InvalidRequestError(
                f"{field}: {part!r} is no range of indexes: they go up, by steps of 1 or more, to"
                f" at most {INDEX_MAX}",
                field=field,
            )
        found.append(range(first, last + 1, step or 1))
    return Indexes(tuple(found))


@dataclass(frozen=True)
class ArraySpec:
    """What a user submits as one array; never changed afterwards.

    Attributes:
        template: What its tasks have in common, with `{name}` where a value goes.
        indexes: Its tasks' indexes; without any, there is one for each combination of parameters,
            from 0.
        params: The values of each parameter.
        running_max: How many tasks may be at work at once; `None` is all.
    """

    template: SessionSpec
    indexes: Indexes | None = None
    params: Params = ()
    running_max: int | None = None

    @property
    def size(self) -> int:
        """How many tasks it has, if each index is named once."""
        if self.indexes is not None:
            return len(self.indexes)
        return prod(len(values) for _, values in self.params)

    def numbers(self) -> Sequence[int]:
        """Return the tasks' indexes, in order."""
        return range(self.size) if self.indexes is None else tuple(self.indexes)

    def values(self, index: int) -> dict[str, str]:
        """Return the value of each parameter for a task."""
        found = {}
        for name, values in reversed(self.params):
            index, place = divmod(index, len(values))
            found[name] = values[place]
        return {name: found[name] for name, _ in self.params}

    def longest(self) -> SessionSpec:
        """Return a task none of which is longer: what fits it fits them all."""
        values = {name: max(values, key=_bytes_of) for name, values in self.params}
        return self._filled("", max(self.numbers()), values)

    def name_of(self, index: int) -> str:
        """Return the name of one task."""
        if not self._places[2]:
            return self.template.name
        return self._fill(self.template.name, {INDEX: str(index), **self.values(index)})

    def task(self, index: int, array_id: str) -> SessionSpec:
        """Return what one task is to run."""
        return self._filled(array_id, index, self.values(index))

    def _filled(self, array_id: str, index: int, values: Mapping[str, str]) -> SessionSpec:
        template, known = self.template, {INDEX: str(index), **values}
        words, env, name = self._places
        command = template.command
        if words:
            command = tuple(
                self._fill(word, known) if place in words else word
                for place, word in enumerate(command)
            )
        variables = dict(template.env)
        variables |= {variable: self._fill(template.env[variable], known) for variable in env}
        variables["SOKOVAN_ARRAY_ID"] = array_id
        variables["SOKOVAN_ARRAY_INDEX"] = str(index)
        variables["SOKOVAN_ARRAY_SIZE"] = str(self.size)
        for param, value in values.items():
            variables[f"{PARAM_VARIABLES}{param.upper()}"] = value
        return replace(
            template,
            command=command,
            env=variables,
            name=self._fill(template.name, known) if name else template.name,
            creation_id=None,
        )

    def _fill(self, text: str, values: Mapping[str, str]) -> str:
        return self._pattern.sub(
            lambda found: values[found[2]] if found[2] else f"{{{found[1]}}}", text
        )

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        """`{{name}}`, which stands for `{name}`, or `{name}`, but not `${name}`, a shell's own."""
        names = "|".join([INDEX, *(name for name, _ in self.params)])
        return re.compile(rf"\{{\{{({names})\}}\}}|(?<!\$)\{{({names})\}}")

    @cached_property
    def _places(self) -> tuple[frozenset[int], tuple[str, ...], bool]:
        """The words, the variables and whether the name: where anything is to be put in at all."""
        template, has = self.template, self._pattern.search
        return (
            frozenset(place for place, word in enumerate(template.command) if has(word)),
            tuple(name for name, value in template.env.items() if has(value)),
            bool(has(template.name)),
        )


def check_array(array: ArraySpec, *, tasks_max: int) -> None:
    """Refuse an array whose indexes or parameters make no sense.

    Raises:
        InvalidRequestError: It says which, and what would be right.
    """
    _require(
        (array.indexes is None) == bool(array.params),
        "indexes",
        "an array has either indexes or params; to combine both, make the indexes a parameter",
    )
    if array.indexes is not None:
        _require(
            len(array.indexes) <= tasks_max,
            "indexes",
            f"{len(array.indexes)} tasks are more than the {tasks_max} that one array may have",
        )
        twice = len(array.indexes) - sum(1 for _ in array.indexes)
        _require(not twice, "indexes", f"{twice} of them are named twice; name each once")
    _require(
        array.running_max is None or array.running_max >= 1,
        "running_max",
        "must be 1 or more; hold the array if none of it is to run",
    )
    _check_params(array.params, tasks_max)


def _check_params(params: Params, tasks_max: int) -> None:
    _require(len(params) <= PARAMS_MAX, "params", f"{len(params)} are more than {PARAMS_MAX}")
    size = 1
    seen: dict[str, str] = {INDEX.upper(): INDEX}
    for name, values in params:
        _require(
            PARAM_NAME.fullmatch(name) is not None,
            "params",
            f"{name[:80]!r} cannot be a name; use letters, digits and _, at most 64 of them",
        )
        other = seen.setdefault(name.upper(), name)
        _require(
            name != INDEX and other == name,
            "params",
            f"{name!r} is taken: {other!r} would give tasks the same variable; choose another name",
        )
        _require(bool(values), "params", f"{name!r} has no values; write such as {name}=1,2")
        size *= len(values)
        _require(
            size <= tasks_max,
            "params",
            f"their combinations are more than the {tasks_max} tasks that one array may have",
        )
    named = [name for name, _ in params]
    _require(len(set(named)) == len(named), "params", "one of them is named twice")


def first_of(array: ArraySpec, count: int) -> list[int]:
    """Return the indexes of the first tasks."""
    return list(islice(array.numbers(), count))


def _bytes_of(text: str) -> int:
    return len(text.encode())


def _require(holds: object, field: str, message: str) -> None:
    if not holds:
        raise InvalidRequestError(f"{field}: {message}", field=field)
