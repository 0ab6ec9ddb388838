"""`sokovan.Executor` with a real server, and its guide as it is written."""

import os
import re
import signal
import subprocess
import sys
from concurrent.futures import as_completed
from pathlib import Path

import pytest

from sokovan import Client, Executor, SessionDiedError
from tests.end_to_end.test_command import DEADLINE_S, Place, until

pytestmark = [pytest.mark.real, pytest.mark.slow]

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "python.md"


@pytest.fixture(scope="module")
def place():
    place = Place()
    until(lambda: place.json("agents"), "an agent")
    yield place
    place.clean_up()


@pytest.fixture
def executor(place):
    with Executor(cpu=0.05, home=place.path) as executor:
        yield executor


def test_a_hundred_calls_have_their_results_in_order(executor):
    assert list(executor.map(lambda n: n * n, range(100), timeout=240)) == [
        n * n for n in range(100)
    ]


def test_an_exception_of_ones_own_is_caught_as_such(executor):
    class MineError(Exception):
        pass

    def fail():
        raise MineError("gone wrong")

    with pytest.raises(MineError, match="gone wrong") as caught:
        executor.submit(fail).result(DEADLINE_S)
    assert "in fail" in str(caught.value.__cause__)


def test_one_call_runs_one_waits_one_is_done_and_all_is_said_of_them(place, tmp_path):
    has_begun = tmp_path / "begun"

    def linger():
        import time

        has_begun.touch()
        time.sleep(600)

    with Client(place.path) as client:
        cores = client.agents()[0]["capacity"]["cpu_milli"] / 1000
        with Executor(cpu=cores, home=place.path) as executor:
            done = executor.submit(os.getpid)
            assert next(as_completed([done], timeout=DEADLINE_S)).result() > 0
            running, waiting = executor.submit(linger), executor.submit(os.getpid)
            until(lambda: has_begun.exists() and running.running(), "the start")

            assert (running.cancel(), waiting.cancel()) == (False, True)
            assert client.get(waiting.session_id)["status"] == "CANCELLED"

            running.stop(force=True)
            with pytest.raises(SessionDiedError, match="somebody cancelled it"):
                running.result(DEADLINE_S)
    assert list((place.path / "python").iterdir()) == []


def test_a_session_that_is_killed_is_named_with_its_last_words(executor):
    def die():
        print("no more", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

    future = executor.submit(die)
    with pytest.raises(SessionDiedError) as caught:
        future.result(DEADLINE_S)

    assert caught.value.session_id == future.session_id
    assert (caught.value.exit_code, caught.value.stderr) == (137, "no more")


def test_the_guide_runs_as_written(place):
    blocks = re.findall(r"^```python\n(.*?)^```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL)

    # Like cells of a notebook: no file has the functions.
    done = subprocess.run(
        [sys.executable, "-"],
        input="\n\n".join(blocks),
        env=place.env,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    for said in ("KeyError: 'missing'", "SystemExit: 3", "\n6\n6\n[3, 8]\n", "FAILURE 3 b'hi\\n'"):
        assert said in done.stdout, done.stdout
    assert done.stdout.endswith("b'one\\n'\n['SUCCESS', 'SUCCESS']\n")
