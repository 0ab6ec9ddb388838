"""`sokovan sim`: what it prints, what it refuses, how it makes a failure small, what it keeps."""

import re
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace

import psutil
import pytest

from sokovan.cli.exits import REFUSED, USAGE
from sokovan.cli.main import run
from sokovan.simulator import shrink, soak
from sokovan.simulator.shape import KINDS, Shape
from sokovan.simulator.trial import MAIN_FAULTS, Outcome
from sokovan.store.changes import ChangeSet

SMALL = Shape(hours=0.5, agents=2, sessions=12, faults="none")
ARGS = ["--hours", "0.5", "--agents", "2", "--sessions", "12", "--faults", "none"]


@pytest.fixture
def sim(capsys):
    """Run the command; return its exit code and what it printed."""

    def sim(*args: str):
        code = run(["sim", *ARGS, *args])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return sim


@pytest.fixture
def _forgetful(monkeypatch):
    """A scheduler in which the holds of what has ended are never released."""
    monkeypatch.setattr(ChangeSet, "_save_holds", lambda self, changed: None)


def test_a_clean_run_prints_its_counts_and_its_digest(sim):
    code, out, err = sim("--seed", "3")

    assert (code, err) == (0, "")
    counted = re.search(r"^sessions +(\d+)$", out, re.MULTILINE)
    assert counted is not None
    assert int(counted[1]) >= 12  # an array has several
    assert re.search(r"^digest [0-9a-f]{64}$", out, re.MULTILINE)
    assert "seed 3: all is well" in out


@pytest.mark.usefixtures("_forgetful")
def test_a_failing_run_tells_the_story_of_the_session_concerned(sim):
    code, _, err = sim("--seed", "3")

    assert code == 1
    assert "holds nothing" in err
    assert "None -> PENDING: submitted" in err
    assert "the last steps:" in err


def test_a_run_until_a_step_ends_just_before_it_and_shows_what_lives(sim):
    whole = SMALL.trial().run()
    half = whole.counts["steps"] // 2

    code, _, err = sim("--until", str(half))

    assert code == 0
    last = err[err.index("the last steps:") :].splitlines()[-1]
    assert int(last.split()[0]) == half - 1
    assert "Agent(agent_id='agent-0'" in err


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--faults", "drizzle"], "--faults: there is no 'drizzle'; choose of none, rough, storm"),
        (["--sessions", "0"], "--sessions: 0 makes no sense"),
        (["--seeds", "9-1"], "--seeds: '9-1' is no range"),
        (["--without", "rain"], "--without: there is no 'rain'"),
        (["--jobs", "-1"], "--jobs: -1 makes no sense"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(sim, args, words):
    code, out, err = sim(*args)

    assert (code, out) == (USAGE, "")
    assert words in err


def test_a_time_that_makes_no_sense_is_refused(sim):
    code, out, err = sim("--for", "soon")

    assert (code, out) == (REFUSED, "")
    assert "--for: 'soon'" in err


def test_a_default_run_that_did_too_little_fails():
    outcome = Outcome(1, Counter(), Counter(dict.fromkeys(MAIN_FAULTS[1:], 1)), "", 0.0)
    faults = len(MAIN_FAULTS) - 1

    assert Shape().missing(outcome) == [
        "only 0 agents, of at least 5",
        "only 0 sessions, of at least 500",
        f"only {faults} faults, of at least 200",
        "no manager_crashes",
    ]
    assert Shape(sessions=499).missing(outcome) == []
    assert Shape(faults="none").missing(outcome) == []


def test_a_shape_is_said_as_the_command_that_makes_it():
    shape = Shape(7, 1.5, 3, 100, "storm", ("call_lost",), ("s1", "s2"), 0.5)

    assert Shape(7).command() == "sokovan sim --seed 7"
    assert shape.command() == (
        "sokovan sim --seed 7 --hours 1.5 --agents 3 --sessions 100 --faults storm"
        " --without call_lost --only s1,s2 --calm-after 0.5"
    )


def test_the_fewest_of_many_are_found():
    wanted = {3, 17, 64}

    assert shrink.fewest(range(100), wanted.issubset) == (3, 17, 64)
    assert shrink.fewest([5], lambda some: True) == ()


@pytest.mark.usefixtures("_forgetful")
def test_a_failure_is_made_small():
    shape = replace(SMALL, faults="rough", seed=1)

    found = shrink.shrink(shape, tries=60)

    assert len(found.only) == 1
    assert found.without == KINDS
    kinds = {shrink.kind_of(tried.trial().run().violation) for tried in (shape, found)}
    assert len(kinds) == 1


def test_many_seeds_run_and_what_fails_is_kept(sim, tmp_path):
    code, out, _ = sim("--seeds", "1-3", "--jobs", "2", "--keep", str(tmp_path))

    assert code == 0
    counted = re.search(r"3 seeds, 0 failed: (\d+) sessions", out)
    assert counted is not None
    assert int(counted[1]) >= 36  # an array has several
    assert not list(tmp_path.iterdir())
    kept = soak.keep(soak.Result(SMALL, 12, 0, 9, "a\nb"), tmp_path)
    assert kept.read_text().splitlines() == [SMALL.command(), "", "a", "b"]


def test_a_soak_begins_nothing_more_once_its_time_is_over():
    left = [False, False, True]

    results = soak.soak(
        (replace(SMALL, seed=seed) for seed in range(100)), jobs=1, is_over=lambda: left.pop(0)
    )

    assert [result.shape.seed for result in results] == [0, 1]


@pytest.mark.real
def test_no_process_is_left_when_a_soak_is_killed():
    command = [sys.executable, "-m", "sokovan", "sim", "--seeds", "0-9", "--jobs", "2"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as soaking:
        process = psutil.Process(soaking.pid)
        workers = poll(lambda: [c for c in process.children() if "spawn_main" in str(c.cmdline())])

        soaking.kill()

        assert poll(lambda: all(is_over(worker) for worker in workers))


def is_over(process):
    """Say whether a process has ended, though nobody may have asked after it."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def poll(holds):
    """Wait until something holds, and return it."""
    for _ in range(600):
        if found := holds():
            return found
        time.sleep(0.1)
    pytest.fail("it never holds")
