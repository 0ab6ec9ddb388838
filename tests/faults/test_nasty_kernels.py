"""Kernels that do what they can to get away, to fill the disk and to take the machine down."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.faults.crowd import processes_left
from tests.faults.ground import RealHome, environment, real_home

pytestmark = [pytest.mark.real, pytest.mark.faults]

MIB = 1024**2
OUTPUT_BYTES_MAX = 8 * MIB
CONFIG = f"""
[[agents]]
name = "a"
cpu = "4"
gpus = "none"
cgroups = "{{cgroups}}"
output_bytes_max = {OUTPUT_BYTES_MAX}
"""
RESIDENT_BYTES_MAX = 400 * MIB
"""Far more than a server and its agent need, far less than what is written here."""
BOMB_S = 30
"""A bomb ends by itself after so long, whatever becomes of this test."""
BOMB = f"""
import os, resource, sys, time
until = time.monotonic() + {BOMB_S}
resource.setrlimit(resource.RLIMIT_NPROC, (int(sys.argv[1]),) * 2)
if os.geteuid() == 0:
    os.setgid(54321)
    os.setuid(54321)  # root has no limit
print("armed", flush=True)
while time.monotonic() < until:
    try:
        os.fork()
    except OSError:
        time.sleep(0.001)
"""
RELAY = f"""
import os, time
until = time.monotonic() + {BOMB_S}
os.setsid()
print("armed", flush=True)
while time.monotonic() < until:
    if os.fork():
        os._exit(0)
    os.setsid()
"""
HUNT = """
import contextlib, ctypes, os, signal, subprocess, sys
from sokovan.agent import procfs
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # what our children leave behind is given to us
for _ in range(30):
    relay = [sys.executable, "-c", sys.argv[1]]
    subprocess.run(relay, env={procfs.TOKEN_VARIABLE: "t"}, check=True)
    left = [None]
    while left:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        with contextlib.suppress(BlockingIOError):
            left = procfs.orphans("t", ())
        for process in filter(None, left):
            procfs.send(process, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        for _ in range(1000):
            os.wait()
        sys.exit("one lives that no look has seen")
"""
"""Kills one relay after the other, as an agent does, and buries what has ended of it."""


@pytest.fixture(scope="module", params=["auto", "off"])
def home(request):
    """A home whose agent uses control groups where it may, and one that must do without."""
    with real_home(CONFIG.format(cgroups=request.param)) as home:
        home.up()
        yield home


def run(home: RealHome, script: str, **options: object) -> dict[str, object]:
    """Run a shell script as a session to its end; nothing of it may be left then."""
    view = submit(home, "/bin/sh", "-c", script, **options)
    ended = home.client.wait(view["id"])
    assert_nothing_is_left(home)
    return ended


def submit(home: RealHome, *command: str, **options: object) -> dict[str, object]:
    return home.client.submit(command, env=environment(home), cwd="/", **options)


def assert_nothing_is_left(home: RealHome) -> None:
    assert processes_left(home) == []
    (agent,) = home.client.agents()
    assert agent["held"] == {"cpu_milli": 0, "mem_bytes": 0}
    assert agent["kernels"] == agent["leftovers"] == 0


def said(home: RealHome, view: dict[str, object], **options: object) -> bytes:
    return b"".join(home.client.output(str(view["id"]), **options))


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def until_there(path: Path) -> str:
    """Return what waits in a shell until a file has something in it."""
    return f"while [ ! -s {path} ]; do sleep 0.05; done"


def leaving_groups() -> str:
    """Return what goes back to the topmost control groups, of whatever kind they are here."""
    mount = Path("/sys/fs/cgroup")
    gates = " ".join(map(str, [*mount.glob("*/cgroup.procs"), *mount.glob("cgroup.procs")]))
    return f"for gate in {gates}; do echo 0 >$gate; done 2>/dev/null"


@pytest.mark.parametrize(
    "leaving",
    [
        "(sleep 300 & ) ",
        "setsid sleep 300 & ",
        "(setsid sh -c '(sleep 300 &) ; (setsid sleep 300 &)' &) ",
        "trap '' TERM HUP INT; (trap '' TERM HUP INT; setsid sleep 300 &) ",
        "setsid sh -c 'exec </dev/null >/dev/null 2>&1; cd /; sleep 300 & sleep 300' & ",
    ],
)
def test_what_forks_twice_and_leads_a_session_of_its_own_is_gone_at_the_end(home, leaving):
    ended = run(home, f"{leaving}\nsleep 0.2; exit 5")

    assert (ended["reason"], ended["exit_code"]) == ("KERNEL_FAILED", 5)


@pytest.mark.parametrize("output", ["", ">/dev/null 2>&1"])
def test_a_daemon_with_an_empty_environment_is_gone_at_the_end(home, tmp_path, output):
    """Without control groups, and with its output elsewhere, nothing says whose it is."""
    deed = f"env -i setsid sh -c 'echo $$ >{tmp_path}/pid; exec sleep 300' {output}"
    ended = run(home, f"({deed} &); {until_there(tmp_path / 'pid')}; exit 5")

    assert ended["exit_code"] == 5
    assert not is_alive(int((tmp_path / "pid").read_text()))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may leave a control group")
def test_what_leaves_its_control_group_is_gone_at_the_end(home, tmp_path):
    mark = f"echo $$ >{tmp_path}/pid"
    deed = f"setsid sh -c '{leaving_groups()}; {mark}; exec env -i sleep 300'"
    ended = run(home, f"({deed} &); {until_there(tmp_path / 'pid')}; exit 5")

    assert ended["exit_code"] == 5
    assert not is_alive(int((tmp_path / "pid").read_text()))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may leave a control group")
def test_a_kernel_outside_its_control_group_can_be_cancelled(home):
    stays = "trap '' TERM; setsid sleep 300 & echo out; sleep 300"
    view = submit(home, "/bin/sh", "-c", f"{leaving_groups()}; {stays}", grace_s=0.1)
    home.wait_for(lambda: said(home, view) == b"out\n", "escape")
    home.client.cancel(view["id"])
    ended = home.client.wait(view["id"])

    assert (ended["status"], ended["reason"]) == ("TERMINATED", "USER_REQUESTED")
    assert_nothing_is_left(home)


def test_a_kernel_that_ignores_every_polite_signal_is_killed_when_cancelled(home):
    script = "trap '' TERM HUP INT QUIT USR1; echo up; while :; do sleep 300; done"
    view = submit(home, "/bin/sh", "-c", script, grace_s=0.1)
    home.wait_for(lambda: said(home, view) == b"up\n", "start")
    home.client.cancel(view["id"])
    ended = home.client.wait(view["id"])

    assert (ended["reason"], ended["exit_code"]) == ("USER_REQUESTED", 137)
    assert_nothing_is_left(home)


def test_what_is_another_process_every_moment_is_killed_at_the_end(home):
    view = submit(home, sys.executable, "-c", RELAY)
    ended = home.client.wait(view["id"])

    assert ended["result"] == "SUCCESS"
    assert said(home, ended) == b"armed\n"
    assert_nothing_is_left(home)


def test_what_is_another_process_every_moment_is_seen_by_every_look():
    hunt = subprocess.run([sys.executable, "-c", HUNT, RELAY], check=False, capture_output=True)

    assert (hunt.stdout, hunt.stderr) == (b"armed\n" * 30, b"")


def test_sixty_processes_that_fork_faster_than_they_are_killed_are_killed(home):
    view = submit(home, sys.executable, "-c", BOMB, "60", grace_s=0.1)
    home.wait_for(lambda: b"armed" in said(home, view), "start")
    home.client.cancel(view["id"])
    ended = home.client.wait(view["id"])

    assert (ended["status"], ended["reason"]) == ("TERMINATED", "USER_REQUESTED")
    assert_nothing_is_left(home)


def test_closed_standard_streams_are_no_trouble(home):
    ended = run(home, "exec <&- >&- 2>&-; sleep 0.1; exit 6")

    assert ended["exit_code"] == 6
    assert said(home, ended) == b""


def test_much_output_is_bounded_and_says_so(home):
    """The manager and the agent answer meanwhile, and grow no larger for it."""
    written = 300 * MIB
    pump = f"echo begin; head -c {written} /dev/zero | tr '\\0' x; echo; echo the end; exit 4"
    quick = submit(home, "/bin/sh", "-c", "echo quick")
    view = submit(home, "/bin/sh", "-c", pump)
    answers = 0
    while not home.client.get(view["id"])["ended_at"]:
        answers += 1
    ended = home.client.get(view["id"])
    output = said(home, ended)

    assert home.client.wait(quick["id"])["result"] == "SUCCESS"
    assert answers
    assert ended["exit_code"] == 4
    assert output.startswith(b"begin\nxxx")
    assert output.endswith(b"xxx\nthe end\n")
    assert b"[sokovan: 2" in output
    assert b"M of output were dropped here]" in output
    assert len(output) <= OUTPUT_BYTES_MAX
    assert on_disk(home.home) < 4 * OUTPUT_BYTES_MAX
    assert said(home, ended, offset=-9) == b"\nthe end\n"
    for process in [*home.processes("sokovan.agent"), *home.processes(str(home.home))]:
        assert process.memory_info().rss < RESIDENT_BYTES_MAX


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_ten_gigabytes_of_output_are_bounded(home):
    view = submit(home, "/bin/sh", "-c", f"head -c {10 * 1024 * MIB} /dev/zero; echo the end")
    ended = home.client.wait(view["id"])
    output = said(home, ended)

    assert ended["result"] == "SUCCESS"
    assert len(output) <= OUTPUT_BYTES_MAX
    assert output.endswith(b"the end\n")
    assert on_disk(home.home) < 4 * OUTPUT_BYTES_MAX


def on_disk(path: Path) -> int:
    """Return how many bytes of the disk a directory takes."""
    answer = subprocess.run(["du", "-s", "-B1", path], check=True, capture_output=True, text=True)
    return int(answer.stdout.split()[0])
