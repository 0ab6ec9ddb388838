"""Replays of the published openb placements; skipped where the recorded workloads are not."""

import pytest

from benchmarks import openb

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not openb.DATA.is_dir(), reason="the recorded workloads are not here"),
]


@pytest.fixture(scope="module")
def curves():
    nodes = openb.load_nodes()
    trace = openb.load_trace("default", 42, nodes)
    return {
        policy: openb.curve(nodes, trace, openb.replay(nodes, trace, policy))
        for policy in ("best-fit", "fgd", "useful")
    }


@pytest.mark.parametrize("policy", ["best-fit", "fgd"])
def test_the_published_policies_come_out_as_published(curves, policy):
    published = openb.load_published()["default", policy, 42]

    assert curves[policy] == pytest.approx(published, abs=0.0101)


def test_the_default_ranking_places_more_than_the_best_published_policy(curves):
    assert curves["useful"][100] > curves["fgd"][100] + 0.3
    assert curves["useful"][130] > curves["fgd"][130] + 0.3
