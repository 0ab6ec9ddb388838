"""Frozen values that are made and replaced faster than by `dataclasses`, and are no different."""

import copy
import dataclasses
import inspect
import pickle
from typing import Any

import pytest

from sokovan.domain.resources import Hold, Request
from sokovan.domain.sessions import (
    Dependency,
    DependencyKind,
    Kernel,
    KernelId,
    SessionId,
    SessionSpec,
    SessionWithKernels,
)
from sokovan.domain.values import quickly_made, replace

VALUES = [
    SessionWithKernels(SessionId("s"), kernels=(Kernel(KernelId("k")),), priority=3),
    SessionSpec(command=("true",), env={"A": "b"}),
    Kernel(KernelId("k"), index=2),
    Request(cpu_milli=1000),
    Hold("t", "s", "k", "a", 1, 2, ()),
    Dependency(SessionId("s"), DependencyKind.AFTER_ANY),
]
EACH_VALUE = pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Plain:
    one: int
    two: str = "two"
    many: list[int] = dataclasses.field(default_factory=list)


@quickly_made
@dataclasses.dataclass(frozen=True, slots=True)
class Quick:
    one: int
    two: str = "two"
    many: list[int] = dataclasses.field(default_factory=list)


def parts(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


@pytest.mark.parametrize(
    ("args", "given"),
    [((1,), {}), ((1, "x"), {}), ((), {"many": [3], "one": 1}), ((1, "x", []), {})],
)
def test_it_is_made_of_the_same_arguments(args, given):
    quick = Quick(*args, **given)

    assert type(quick) is Quick
    assert parts(quick) == parts(Plain(*args, **given))


@pytest.mark.parametrize(("args", "given"), [((), {}), ((1, 2, 3, 4), {}), ((1,), {"other": 2})])
def test_other_arguments_are_refused(args, given):
    for kind in (Plain, Quick):
        with pytest.raises(TypeError):
            kind(*args, **given)


def test_each_has_a_default_of_its_own():
    assert Quick(1).many is not Quick(1).many


@EACH_VALUE
def test_it_stays_as_it_was_made(value):
    name = dataclasses.fields(value)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, name, "other")
    with pytest.raises(dataclasses.FrozenInstanceError):
        delattr(value, name)
    with pytest.raises((AttributeError, TypeError)):
        value.something_else = 1


@EACH_VALUE
def test_a_copy_is_equal_and_of_the_same_class(value):
    for other in (
        copy.copy(value),
        copy.deepcopy(value),
        pickle.loads(pickle.dumps(value)),
        dataclasses.replace(value),
        replace(value),
        type(value)(**parts(value)),
    ):
        assert type(other) is type(value)
        assert other == value
        assert repr(other) == repr(value)


@EACH_VALUE
def test_every_part_is_what_it_was_given(value):
    parts_before = {field.name: object() for field in dataclasses.fields(value)}

    assert parts(type(value)(**parts_before)) == parts_before


def test_a_value_of_a_subclass_is_of_the_subclass():
    class Child(Quick):
        __slots__ = ()

    assert type(Child(1)) is Child
    assert Child(1).one == 1


def test_replaced_parts_are_the_only_ones_that_change():
    before = VALUES[0]

    after = replace(before, priority=7)

    assert parts(after) == parts(before) | {"priority": 7}
    assert before.priority == 3


def test_it_says_what_it_takes_like_the_original():
    assert [*inspect.signature(Quick).parameters] == ["one", "two", "many"]


def test_what_would_be_left_out_is_refused():
    with pytest.raises(AssertionError, match="would not be called"):

        @quickly_made
        @dataclasses.dataclass(frozen=True, slots=True)
        class Checked:
            one: int

            def __post_init__(self) -> None: ...
