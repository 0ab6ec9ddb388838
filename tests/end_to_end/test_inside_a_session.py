"""Sessions that submit others while no server runs: what they start is no part of them."""

import json
import os
import resource
import shlex
import signal
import sys
from pathlib import Path

import pytest

from tests.end_to_end.test_command import Place, is_alive, until

pytestmark = [pytest.mark.real, pytest.mark.slow]

SOKOVAN = f"{shlex.quote(sys.executable)} -m sokovan"


@pytest.fixture(params=["auto", "off"])
def place(request):
    """A home with an agent that uses control groups where it may, or one that must do without."""
    place = Place()
    (place.path / "config.toml").write_text(f'[[agents]]\ncgroups = "{request.param}"\n')
    (place.path / "config.toml").chmod(0o600)
    yield place
    place.clean_up()


def a_job(place, then, *options):
    """Start a session that waits until told to go on, and then runs `then`."""
    script = f"echo $$ > up; until [ -e go ]; do sleep 0.05; done; {then}; echo $? > did"
    job = place("submit", *options, "--cwd", str(place.path), "--", "sh", "-c", script)
    until((place.path / "up").exists, "the start of the job")
    return job.stdout.strip()


def agents_pid(place):
    """Find the agent: whoever holds the lock of its directory."""
    lock = (place.path / "agents" / "local" / "agent.lock").stat()
    held = f":{lock.st_ino} "
    line = next(x for x in Path("/proc/locks").read_text().splitlines() if held in x)
    return int(line.split()[4])


def kill(pid):
    os.kill(pid, signal.SIGKILL)
    until(lambda: not is_alive(pid), f"the end of {pid}")


def let_it_start_a_server(place):
    """Have the job go on; return the pid of the server that it starts."""
    (place.path / "go").touch()
    until((place.path / "server.json").exists, "a server")
    return place.server_pid


def test_the_server_that_a_job_starts_outlives_the_job(place):
    job = a_job(place, f"{SOKOVAN} submit --name next -- true")
    agent = agents_pid(place)
    place("down")

    server = let_it_start_a_server(place)

    assert place.until_status(job, "TERMINATED")["exit_code"] == 0
    assert (place.path / "did").read_text() == "0\n"
    place("wait", place.json("ls", "--all", "--name", "next")[0]["id"])
    assert is_alive(server)
    assert place.server_pid == server
    assert agents_pid(place) == agent


def test_the_server_and_the_agent_that_a_job_starts_outlive_the_job(place):
    job = a_job(place, f"{SOKOVAN} submit --name next -- true", "--mem", "512M")
    agent = agents_pid(place)
    kill(place.server_pid)
    (place.path / "server.json").unlink()
    kill(agent)

    server = let_it_start_a_server(place)

    assert place.until_status(job, "TERMINATED")["exit_code"] == 0
    assert agents_pid(place) != agent
    agent = agents_pid(place)
    place("wait", place.json("ls", "--all", "--name", "next")[0]["id"])
    assert is_alive(server)
    assert place.server_pid == server
    assert agents_pid(place) == agent
    for pid in (server, agent):
        assert "/k-" not in Path(f"/proc/{pid}/cgroup").read_text()
        assert b"SOKOVAN_KERNEL_TOKEN=" not in Path(f"/proc/{pid}/environ").read_bytes()
        assert resource.prlimit(pid, resource.RLIMIT_DATA)[0] == resource.RLIM_INFINITY


def test_a_job_that_is_killed_below_its_own_server_takes_only_itself_along(place):
    job = a_job(place, f"{SOKOVAN} run --name next -- sleep 10000")
    place("down")

    server = let_it_start_a_server(place)

    until(lambda: place.json("ls", "--name", "next"), "the next one")
    next_id = place.json("ls", "--name", "next")[0]["id"]
    place.until_status(next_id, "RUNNING")
    place("cancel", "--force", job)
    place.until_status(job, "TERMINATED")
    assert is_alive(server)
    assert place.server_pid == server
    assert place.show(next_id)["status"] == "RUNNING"


def test_a_job_that_cannot_start_a_server_of_its_own_says_what_to_do(place, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import sokovan.outside\n"
        "sokovan.outside._kernel_groups = lambda *_: iter([('freezer', '/no/such')])\n"
        "sokovan.outside._enter_above = lambda *_: None\n"
    )
    path = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))

    refused = place("ls", "--json", env={"PYTHONPATH": path}, code=4)

    assert json.loads(refused.stderr)["code"] == "inside-session"
    assert "sokovan up" in json.loads(refused.stderr)["detail"]
    assert not (place.path / "server.json").exists()
