"""Makes a failing trial smaller, as long as it fails in the same way."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from sokovan.simulator.shape import KINDS, Shape

T = TypeVar("T")

TRIES_MAX = 200
_VARIES = re.compile(r"[0-9a-z]{12,}(\.\d+)?|\d+(\.\d+)?")
"""Ids, tokens and numbers: they differ from one trial to the next."""


def kind_of(violation: str) -> str:
    """Return the first violated sentence of a story, without what varies."""
    sentences = violation.splitlines()[1:2]
    return _VARIES.sub("…", sentences[0]) if sentences else ""


def fewest(items: Sequence[T], is_enough: Callable[[tuple[T, ...]], bool]) -> tuple[T, ...]:
    """Leave out as many items as can be left out, in parts of half of them down to single ones."""
    kept, size = tuple(items), max(1, len(items) // 2)
    while True:
        first = 0
        while first < len(kept):
            tried = kept[:first] + kept[first + size :]
            if is_enough(tried):
                kept = tried
            else:
                first += size
        if size == 1:
            return kept
        size //= 2


def shrink(
    shape: Shape,
    *,
    tries: int = TRIES_MAX,
    told: Callable[[Shape, int], None] = lambda *_: None,
) -> Shape:
    """Leave out sessions and kinds of faults, and end the faults early, while the failure stays.

    Args:
        shape: It fails.
        tries: How many trials may be run.
        told: Hears of each smaller shape that still fails, and how many trials are left.
    """
    wanted = kind_of(shape.trial().run().violation)
    left = tries

    def still_fails(tried: Shape) -> bool:
        nonlocal left, shape
        if left <= 0:
            return False
        left -= 1
        fails = kind_of(tried.trial().run().violation) == wanted
        if fails:
            shape = tried
            told(shape, left)
        return fails

    names = shape.only or tuple(shape.trial().names)
    fewest(names, lambda some: still_fails(replace(shape, only=some)))
    kinds = [kind for kind in KINDS if kind not in shape.without]
    fewest(
        kinds,
        lambda some: still_fails(
            replace(shape, without=tuple(kind for kind in KINDS if kind not in some))
        ),
    )
    hours = shape.hours if shape.calm_after_h is None else shape.calm_after_h
    while hours > shape.hours / 32 and still_fails(replace(shape, calm_after_h=hours / 2)):
        hours /= 2
    return shape
