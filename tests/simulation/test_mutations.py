"""Planted bugs are found: the invariants bite, and trials come to where they do."""

from functools import cache

import pytest

from tests.simulation.mutations import MUTATIONS, Mutation, Recipe, planted

pytestmark = pytest.mark.slow

SEEDS_MAX = 200
"""A bug that so many trials do not show is not found."""


@pytest.mark.timeout(900)  # a rare bug may take fifty trials
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.number)
def test_a_planted_bug_is_found(mutation: Mutation):
    seed, story = first_violation(mutation)
    print(f"{mutation.number}, {mutation.name}: found at seed {seed}")

    violated = story.partition("\n\n")[0]
    assert "Traceback" not in story, f"the bug itself breaks, or what it meets:\n{story}"
    assert any(words in violated for words in mutation.found), story
    assert not violation_without_a_bug(mutation.recipe, seed)


def first_violation(mutation: Mutation) -> tuple[int, str]:
    """Return the first seed whose trial goes wrong because of a bug, and the story of it."""
    with planted(mutation):
        for seed in range(mutation.seed, mutation.seed + SEEDS_MAX):
            if violation := mutation.recipe.trial(seed).run().violation:
                return seed, violation
    pytest.fail(f"{mutation.number}, {mutation.name}: not found within {SEEDS_MAX} seeds")


@cache
def violation_without_a_bug(recipe: Recipe, seed: int) -> str:
    """Return what goes wrong in a trial of the product as it is."""
    return recipe.trial(seed).run().violation


def test_every_bug_of_the_list_is_planted_and_no_number_is_left_out():
    numbers = {int(m.number.rstrip("bc")) for m in MUTATIONS}

    assert numbers >= set(range(1, 16))
    assert numbers == set(range(1, max(numbers) + 1))
