"""Two real users of this machine, and an agent that runs as root for both of them."""

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from sokovan.agent import procfs
from sokovan.agent.frames import SOCKET
from sokovan.agent.users import User, acting_as, user_of
from sokovan.client import Client
from sokovan.domain.reasons import EndReason
from sokovan.domain.resources import Request
from sokovan.outside import TOKEN_VARIABLE
from sokovan.scheduler.messages import ReportState
from tests.end_to_end.test_command import Place, until
from tests.homes import PATH, a_short_directory, real_ground

pytestmark = pytest.mark.real

EXTRA_GROUP = "games"
SLEEPS = "echo ready; while :; do sleep 1000; done"


@dataclass(frozen=True)
class TwoUsers:
    ann: User
    bob: User


@pytest.fixture(scope="module")
def users():
    """Two new users of this machine; only one of them is in another group, too."""
    if os.geteuid() != 0:
        pytest.skip("only root can make users, and run kernels as them")
    if shutil.which("useradd") is None:
        pytest.skip("useradd is missing: install the package passwd")
    tail = secrets.token_hex(3)
    names = [f"sokovan-ann-{tail}", f"sokovan-bob-{tail}"]
    try:
        for name, groups in zip(names, (["-G", EXTRA_GROUP], []), strict=True):
            made = ["useradd", "--create-home", "--shell", "/bin/sh", *groups, name]
            subprocess.run(made, check=True, capture_output=True)
            Path(pwd.getpwnam(name).pw_dir).chmod(0o755)  # what is private is a file's own mode
        both = TwoUsers(*(user_of(name, root_allowed=True) for name in names))
        yield both
        for pid in processes_of(both.ann) | processes_of(both.bob):  # a test has failed
            os.kill(pid, signal.SIGKILL)
    finally:
        for name in names:
            argv = ["userdel", "--force", "--remove", name]
            subprocess.run(argv, check=False, capture_output=True)


@pytest.fixture(params=["auto", "off"])
async def ground(request, users):
    """An agent that uses control groups where it may, and one that must do without."""
    async with real_ground(cgroups=request.param) as ground:
        yield ground


async def start(ground, token, owner, script, *arguments, **changes):
    """Start a shell script as a user; root's own is the agent's."""
    name = owner.name if isinstance(owner, User) else owner
    order = ground.command(token, "sh", "-c", script, "sh", *arguments, owner=name, **changes)
    (report,) = await ground.gateway.start(ground.agent_id, [order])
    return report


async def said(ground, token, owner, script, *arguments, **changes):
    """Run a script to its end; return its status and what it said."""
    await start(ground, token, owner, script, *arguments, **changes)
    end = await ground.end_of(token)
    stderr = await ground.read(token, "stderr")
    return end.exit_code, (await ground.read(token)).decode(), stderr.decode()


def processes_of(user):
    """Every process of a user that has not ended, whatever became of its parents."""
    found = set()
    for pid in procfs.processes():
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{pid}/status").read_text()
            if f"\nUid:\t{user.uid}\t" in status:
                found.add(pid)
    return found


def wrapper_of(ground, token):
    return int((ground.directory / "kernels" / token / "run").read_text().split()[0])


# --- who it runs as -------------------------------------------------------------------------------


async def test_a_kernel_is_its_owner_and_has_nothing_of_roots(ground, users):
    script = """
        id -u; id -g; id -G; pwd; umask; ls /proc/self/fd | wc -l
        echo "$HOME $USER $LOGNAME $SHELL $PWD $MINE ${OLDPWD-none}"
        grep -E '^Cap[IPEA]' /proc/self/status | sort -u -k 2 | wc -l
        grep CapEff /proc/self/status
    """
    env = {"HOME": "/root", "USER": "root", "LOGNAME": "root", "SHELL": "/bin/x", "OLDPWD": "/"}
    status, out, err = await said(
        ground, "t1", users.ann, script, cwd=users.ann.home, umask=0o027, env=env | {"MINE": "a b"}
    )

    ann = users.ann
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        str(ann.uid),
        str(ann.gid),
        " ".join(map(str, ann.groups)),
        ann.home,
        "0027",
        "4",  # the three standard streams, and the directory that `ls` reads
        f"{ann.home} {ann.name} {ann.name} /bin/sh {ann.home} a b none",
        "1",
        "CapEff:\t0000000000000000",
    ]
    assert len(ann.groups) == 2


async def test_signals_and_limits_are_those_of_any_kernel(ground, users):
    script = "grep -E 'Sig(Blk|Ign|Cgt)' /proc/self/status; ulimit -a; ulimit -aH"
    request = Request(mem_bytes=1024**3)

    of_root, of_ann = [
        await said(ground, f"t{number}", owner, script, request=request)
        for number, owner in enumerate(("root", users.ann))
    ]

    assert of_root[0] == 0
    assert of_ann == of_root


async def test_a_home_and_a_shell_that_its_owner_chose_are_kept(ground, users):
    env = {"LOGNAME": users.ann.name, "HOME": "/tmp/x", "SHELL": "/bin/bash"}

    _, out, _ = await said(ground, "t1", users.ann, 'echo "$HOME $SHELL $USER"', env=env)

    assert out == f"/tmp/x /bin/bash {users.ann.name}\n"


async def test_output_can_be_opened_by_its_name_and_read_by_the_agent_alone(ground, users):
    script = "echo one; echo two >>/dev/stdout; echo three >>/dev/stderr; exit 4"

    assert await said(ground, "t1", users.ann, script) == (4, "one\ntwo\n", "three\n")


async def test_limits_of_memory_hold_for_a_kernel_of_another_user(ground, users):
    script = "head -c 200000000 /dev/zero | tail -c 200000000 | wc -c"
    request = Request(mem_bytes=64 * 1024**2)

    _, out, _ = await said(ground, "t1", users.ann, script, request=request)

    assert out.strip() in ("", "0")


async def test_nothing_of_a_users_environment_reaches_what_is_still_root(ground, users):
    env = {"LD_PRELOAD": "", "PYTHONPATH": "/tmp/evil", "BASH_ENV": "/tmp/evil", "SECRET": "1"}
    await start(ground, "t1", users.ann, SLEEPS, env=env)
    await ground.until_written("t1", b"ready\n")

    wrapper = wrapper_of(ground, "t1")
    names = {
        line.partition(b"=")[0].decode()
        for line in Path(f"/proc/{wrapper}/environ").read_bytes().split(b"\0")
        if line
    }
    assert {n for n in names if not n.startswith("SOKOVAN_PASSED_")} == {TOKEN_VARIABLE}
    assert b"SECRET" not in Path(f"/proc/{wrapper}/cmdline").read_bytes()
    children = processes_of(users.ann)
    found = b"\0".join(Path(f"/proc/{pid}/environ").read_bytes() for pid in children)
    assert b"\0SECRET=1\0" in b"\0" + found
    assert b"SOKOVAN_PASSED_" not in found


# --- what is not theirs ---------------------------------------------------------------------------

TRIES = """
    deed() { name=$1; shift; if "$@" >/dev/null 2>&1; then echo "$name"; fi; }
    deed file cat "$1/private"
    deed environment cat "/proc/$2/environ"
    deed descriptors ls "/proc/$2/fd/"
    deed signal kill -0 "$2"
    deed signal-wrapper kill -0 "$3"
    deed wrapper cat "/proc/$3/environ"
    deed signal-agent kill -0 "$4"
    deed agent cat "/proc/$4/environ"
    deed home ls "$5"
    deed agents ls "$5/agents"
    deed journal cat "$5/agents/local/kernels/t1/kernel.json"
    deed output cat "$5/agents/local/kernels/t1/stdout"
    deed status sh -c 'echo started >>"$1"' sh "$5/agents/local/kernels/t1/run"
    deed socket test -e "$5/agents/local/agent.sock"
"""
OWN = {"file", "environment", "descriptors", "signal"}
REACHED_BY = {
    "root": OWN
    | {"signal-wrapper", "wrapper", "signal-agent", "agent"}
    | {"home", "agents", "journal", "output", "status", "socket"},
    "ann": OWN,
    "bob": set(),
}


async def test_nobody_reaches_what_is_anothers_nor_what_is_the_agents(ground, users):
    script = f"umask 077; echo secret >private; chmod 600 private; {SLEEPS}"
    await start(ground, "t1", users.ann, script, cwd=users.ann.home, env={"SECRET": "1"})
    await ground.until_written("t1", b"ready\n")
    wrapper = wrapper_of(ground, "t1")
    (shell,) = procfs.children(wrapper)
    things = [users.ann.home, *map(str, (shell, wrapper, ground.agent_pid()))]
    things.append(str(ground.directory.parent.parent))

    reached = {}
    for name, owner in (("root", "root"), ("ann", users.ann), ("bob", users.bob)):
        _, out, _ = await said(ground, f"by-{name}", owner, TRIES, *things)
        reached[name] = set(out.split())

    assert reached == REACHED_BY


async def test_an_agents_socket_takes_no_other_user(ground, users):
    path = str(ground.directory / SOCKET)
    with socket.socket(socket.AF_UNIX) as link:
        with acting_as(users.bob), pytest.raises(PermissionError):
            link.connect(path)
        link.connect(path)


async def test_a_directory_and_a_command_are_looked_at_with_the_owners_rights(ground, users):
    private = Path(users.ann.home) / "closed"
    private.mkdir(mode=0o700)
    script = private / "mine"
    script.write_text("echo here\n")  # without a first line, as any shell runs it
    script.chmod(0o755)
    os.chown(private, users.ann.uid, users.ann.gid)

    def order(token, user, command, cwd):
        return ground.command(token, command, owner=user.name, cwd=cwd)

    mine = order("t1", users.ann, "./mine", str(private))
    wrong = [
        order("t2", users.bob, "./mine", str(private)),
        order("t3", users.bob, str(script), "/"),
    ]
    reports = await ground.gateway.start(ground.agent_id, [mine, *wrong])
    await ground.end_of("t1")
    shutil.rmtree(private)

    assert [report.reason for report in reports] == [
        None,
        EndReason.DIRECTORY_NOT_FOUND,
        EndReason.COMMAND_NOT_FOUND,
    ]
    assert str(private) in reports[1].message
    assert await ground.read("t1") == b"here\n"


# --- the end of it --------------------------------------------------------------------------------


async def test_a_stop_ends_all_that_a_user_has_started(ground, users):
    stubborn = "trap '' TERM; while :; do sleep 1000; done"
    script = f'setsid sh -c "{stubborn}" & (setsid sh -c "{stubborn}" &); {stubborn}'
    await start(ground, "t1", users.ann, f"echo ready; {script}")
    await ground.until_written("t1", b"ready\n")
    await ground.until(lambda: len(processes_of(users.ann)) >= 6)

    await ground.stop("t1", grace_s=0.1)
    await ground.end_of("t1")

    assert processes_of(users.ann) == set()


async def test_a_user_cannot_end_the_wrapper_and_the_status_is_the_commands(ground, users):
    script = "trap '' TERM; kill -9 $PPID; kill -TERM 0; exit 7"

    assert (await said(ground, "t1", users.ann, script))[0] == 7


async def test_a_user_cannot_hide_from_the_agent_as_a_service(ground, users):
    alone = "setsid env -i SOKOVAN_SERVICE=$1 sleep 1000 >/dev/null 2>&1 </dev/null"
    script = f"({alone} &); until pgrep -u $(id -u) sleep; do :; done"

    status, *_ = await said(ground, "t1", users.ann, script, str(ground.directory.parent))

    assert status == 0
    await ground.until(lambda: processes_of(users.ann) == set())
    assert processes_of(users.ann) == set()


async def test_kernels_of_users_are_found_again_by_the_next_agent(ground, users):
    await start(ground, "t1", users.ann, SLEEPS)
    await ground.until_written("t1", b"ready\n")
    await ground.disconnect()
    ground.kill_agent(signal.SIGKILL)
    await ground.connect()

    assert (await ground.state("t1")).state is ReportState.RUNNING
    await ground.stop("t1", force=True)
    assert (await ground.end_of("t1")).exit_code == 137
    assert processes_of(users.ann) == set()


# --- whom it refuses ------------------------------------------------------------------------------


async def test_owners_that_it_does_not_know_or_may_not_serve_are_refused_for_good(users):
    async with real_ground(a_short_directory(), allow_root="no") as ground:
        unknown = await start(ground, "t1", "nobody-of-this-name", "true")
        root = [await start(ground, f"t2{owner}", owner, "true") for owner in ("root", "")]
        known = await said(ground, "t3", users.ann, "id -un")

    assert (unknown.state, unknown.permanent) == (ReportState.START_FAILED, True)
    assert unknown.reason == EndReason.USER_UNKNOWN
    assert "nobody-of-this-name" in unknown.message
    assert {(r.permanent, r.reason) for r in root} == {(True, EndReason.USER_REFUSED)}
    assert known == (0, f"{users.ann.name}\n", "")


# --- through the whole ----------------------------------------------------------------------------


@pytest.mark.slow
def test_sessions_submitted_for_users_run_as_them_and_end_as_any_other(users):
    place = Place()
    place.path.chmod(0o755)  # as somebody may have made it
    try:
        until(lambda: place.json("agents"), "an agent")
        with Client(place.path) as client:
            env = {"PATH": PATH}
            where = {"env": env, "cwd": "/"}
            who = client.submit(["id", "-un"], owner=users.ann.name, **where)
            lost = client.submit(["true"], owner="nobody-of-this-name", **where)
            script = "trap '' TERM; setsid sleep 1000 & echo ready; while :; do sleep 1000; done"
            slow, timed = (
                client.submit(["sh", "-c", script], owner=user.name, **where, **more)
                for user, more in ((users.bob, {}), (users.ann, {"walltime_s": 2, "grace_s": 1}))
            )
            assert client.wait(who["id"])["exit_code"] == 0
            assert b"".join(client.output(who["id"])) == f"{users.ann.name}\n".encode()
            ended = client.wait(lost["id"])
            assert (ended["reason"], ended["result"]) == ("USER_UNKNOWN", "FAILURE")
            assert client.wait(timed["id"])["reason"] == "WALLTIME_EXCEEDED"
            assert processes_of(users.ann) == set()
            until(lambda: len(processes_of(users.bob)) >= 3, "the start of a session")
            client.cancel(slow["id"], force=True)
            assert client.wait(slow["id"])["reason"] == "USER_REQUESTED"
            assert processes_of(users.bob) == set()
        open_to_others = [p for p in place.path.rglob("*") if p.lstat().st_mode & 0o077]
        assert open_to_others == []
    finally:
        place.clean_up()
