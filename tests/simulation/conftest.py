"""The logs of simulated managers and agents are full of expected trouble: keep them quiet."""

from collections.abc import Iterator

import pytest

from sokovan.simulator.quiet import quiet


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with quiet():
        yield
