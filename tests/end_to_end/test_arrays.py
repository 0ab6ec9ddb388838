"""Arrays through the command and a real server."""

import json

import pytest

from tests.end_to_end.test_command import Place, until

pytestmark = [pytest.mark.real, pytest.mark.slow]

TWO_CORES = """
[[agents]]
name = "left"
cpu = "2"
gpus = "none"
"""


@pytest.fixture
def own():
    place = Place()
    (place.path / "config.toml").write_text(TWO_CORES)
    yield place
    place.clean_up()


def test_an_array_runs_so_many_at_once_and_is_asked_as_a_whole(own):
    at_work = own.path / "at-work"
    at_work.mkdir()
    script = f"touch {at_work}/$$; ls {at_work} | wc -l; sleep 0.3; rm {at_work}/$$; exit $1"
    own(
        "submit", "--array", "0-7%2", "--cpu", "0.1", "-n", "t{index}",
        "--", "sh", "-c", script, "sh", "{index}",
    )  # fmt: skip

    assert own("wait", "@", code=1).stdout.endswith(": 1 done, 7 failed\n")

    array = own.json("show", "@")
    assert (array["succeeded"], array["failed"], array["result"]) == (1, 7, "FAILURE")
    assert array["first_failure"]["index"] == 1
    (line,) = own("ls", "-a").stdout.splitlines()[1:]
    assert "8 tasks: 1 done, 7 failed" in line
    tasks = own.json("ls", "@")
    assert [task["exit_code"] for task in tasks] == list(range(8))
    assert [task["name"] for task in tasks] == [f"t{index}" for index in range(8)]
    said = own("logs", "@").stdout.splitlines()
    assert [text.split()[0] for text in said] == [f"[{index}]" for index in range(8)]
    assert max(int(text.split()[1]) for text in said) <= 2
    assert own("logs", "@_3-4").stdout.splitlines() == said[3:5]
    assert own("wait", "@_5", code=5)
    assert own("history", "@_5").stdout.count("TERMINATED") >= 1
    assert "name a task of it, such as @_0" in own("eta", "@", code=4).stderr


def test_a_sweep_is_held_released_and_ended_in_part(own):
    job = own.path / "sweep.toml"
    job.write_text(
        'command = "echo {lr} $SOKOVAN_PARAM_BS ${lr}"\ncpu = 0.1\nhold = true\narray = "%1"\n'
        '[param]\nlr = ["1e-3", "1e-4"]\nbs = [32, 64]\n'
    )
    array_id = own("submit", str(job)).stdout.strip()
    assert [task["reason"] for task in own.json("ls", array_id)] == ["HELD"] * 4
    assert "4 wait, HELD" in own("why", array_id).stdout

    assert own("release", f"{array_id}_1,3").stdout.endswith(": 2 released\n")
    own("wait", f"{array_id}_1,3")
    assert own("cancel", array_id).stdout.endswith(": 2 cancelled, 2 had ended already\n")

    assert own("logs", array_id).stdout == "[1] 1e-3 64\n[3] 1e-4 64\n"
    answer = json.loads(own("submit", "--dry-run", "--json", str(job)).stdout)
    assert (answer["size"], answer["command"][-1]) == (4, "echo 1e-3 $SOKOVAN_PARAM_BS ${lr}")
    after = own.submit("--depends-on", f"afterany:{array_id}", "--", "true")
    until(lambda: own.show(after)["status"] == "TERMINATED", "the end of what depends on it")
    assert "run` attends one" in own("run", "--array", "0-1", "--", "true", code=125).stderr
