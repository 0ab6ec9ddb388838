"""A recorded job log, replayed over the engine, against the starts of another simulator."""

from itertools import islice
from pathlib import Path

import pytest

from benchmarks.swf import (
    EVENT_ORDERS,
    POLICIES,
    Job,
    cleaned,
    metrics,
    read_jobs,
    starts_of,
)

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "swf"
KTH = "KTH-SP2-1996-2.1-cln.swf.gz"
recorded = pytest.mark.skipif(not DATA.is_dir(), reason=f"the recorded workloads are not at {DATA}")


def test_a_line_that_makes_no_sense_is_a_job_of_one_second():
    line = [7, 100, -1, 0, 4, 0, 0, 4, 600, *[-1] * 9]

    assert cleaned(line, procs=100) == Job(7, submit=100, run=1, estimate=1, procs=4)


def test_a_job_runs_for_no_longer_than_it_may_and_uses_no_more_than_there_is():
    line = [7, 100, -1, 900, 400, 0, 0, 4, 600, *[-1] * 9]

    assert cleaned(line, procs=100) == Job(7, submit=100, run=600, estimate=900, procs=100)


def test_the_shortest_behind_the_oldest_start_first():
    jobs = [
        Job(n, 0, run, run, procs)
        for n, (run, procs) in enumerate([(5, 3), (5, 4), (5, 1), (3, 1)])
    ]

    starts = POLICIES["easy-sjbf"](jobs, 4).batch()

    assert starts == {0: 0, 3: 0, 1: 5, 2: 10}


def test_metrics_are_of_waits_and_of_the_whole_machine():
    jobs = [Job(0, 0, 10, 10, 2), Job(1, 0, 5, 5, 4)]

    found = metrics(jobs, {0: 0, 1: 10}, procs=4)

    assert found["mean_wait"] == 5.0
    assert found["mean_bounded_slowdown"] == (1.0 + 1.5) / 2
    assert found["makespan"] == 15
    assert found["utilisation"] == 40 / 60


@recorded
@pytest.mark.parametrize("order", EVENT_ORDERS)
def test_the_first_jobs_of_a_log_start_as_under_another_easy(order):
    assert starts_as_under_another_easy(order, jobs_max=3_000) > 2_900


@recorded
@pytest.mark.slow
def test_a_third_of_a_log_starts_as_under_another_easy():
    """In one order of events: `benchmarks/swf.py` does all of it in both."""
    assert starts_as_under_another_easy("batch", jobs_max=9_000) > 8_900


def starts_as_under_another_easy(order: str, *, jobs_max: int) -> int:
    """Compare the starts of the first jobs; return how many there are of which that can be told."""
    jobs = list(islice(read_jobs(DATA / KTH, 100), jobs_max))
    expected = starts_of(DATA, KTH, "easy", order)
    starts = EVENT_ORDERS[order](POLICIES["easy"](jobs, 100))

    # Jobs that come later could overtake those that still wait when the cut comes.
    settled = [n for n, job in enumerate(jobs) if starts[n] <= jobs[-1].submit]
    assert [starts[n] for n in settled] == [expected[jobs[n].job_id] for n in settled]
    return len(settled)
