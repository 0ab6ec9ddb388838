"""Whose user a kernel runs as, and the program that becomes that user."""

import ctypes
import os
import pwd
import shutil
import subprocess
from types import SimpleNamespace

import pytest

from sokovan.agent import users, wrapper
from sokovan.agent.runtime import StartFailedError
from sokovan.agent.users import User, user_of
from sokovan.domain.reasons import EndReason

ANN = User("ann", 1001, 1001, (1001, 60), "/home/ann", "/bin/zsh")
NOBODY = pwd.getpwnam("nobody")
KEYCTL_X86, GET_KEYRING_ID, SESSION_KEYRING = 250, 0, -3

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


@pytest.fixture
def agent_of(monkeypatch):
    """Have the agent run as the user of some number."""
    return lambda uid: monkeypatch.setattr(os, "geteuid", lambda: uid)


def refusal_of(owner, *, root_allowed=True):
    with pytest.raises(StartFailedError) as caught:
        user_of(owner, root_allowed=root_allowed)
    assert caught.value.permanent
    assert caught.value.message.startswith("owner: ")
    return caught.value.reason


def test_roots_agent_runs_a_kernel_as_its_owner(agent_of):
    agent_of(0)

    found = user_of("nobody", root_allowed=False)

    assert (found.uid, found.gid, found.home) == (NOBODY.pw_uid, NOBODY.pw_gid, NOBODY.pw_dir)
    assert NOBODY.pw_gid in found.groups


@pytest.mark.parametrize("owner", ["", "nobody", str(NOBODY.pw_uid)])
def test_an_ordinary_users_agent_runs_that_users_kernels_as_they_are(agent_of, owner):
    agent_of(NOBODY.pw_uid)

    assert user_of(owner, root_allowed=False) is None


@pytest.mark.parametrize("owner", ["root", "daemon"])
def test_an_ordinary_users_agent_serves_nobody_else(agent_of, owner):
    agent_of(NOBODY.pw_uid)

    assert refusal_of(owner) == EndReason.USER_REFUSED


@pytest.mark.parametrize("owner", ["", "root", "0", "toor"])
def test_root_is_refused_under_every_name_where_it_is_not_allowed(agent_of, monkeypatch, owner):
    agent_of(0)
    known = pwd.getpwnam
    toor = SimpleNamespace(pw_uid=0, pw_gid=0, pw_dir="/root", pw_shell="/bin/sh")
    monkeypatch.setattr(pwd, "getpwnam", lambda name: toor if name == "toor" else known(name))

    assert user_of(owner, root_allowed=True) is None
    assert refusal_of(owner, root_allowed=False) == EndReason.USER_REFUSED


@pytest.mark.parametrize("owner", ["no-such-user", "a\0b", "\udcff", "12345", "../root"])
def test_somebody_whom_the_machine_does_not_know_is_refused(agent_of, owner):
    agent_of(0)

    assert refusal_of(owner) == EndReason.USER_UNKNOWN


def test_variables_of_identity_are_the_owners_where_they_were_anothers():
    others = {"LOGNAME": "root", "USER": "root", "HOME": "/root", "SHELL": "/bin/sh", "X": "1"}
    own = {"LOGNAME": "ann", "HOME": "/scratch", "X": "1"}

    assert ANN.environment(others) == {
        "LOGNAME": "ann",
        "USER": "ann",
        "HOME": "/home/ann",
        "SHELL": "/bin/zsh",
        "X": "1",
    }
    assert ANN.environment(own) == own | {"USER": "ann", "SHELL": "/bin/zsh"}
    assert ANN.environment({})["HOME"] == "/home/ann"


@as_root
def test_looking_with_a_users_rights_ends_whatever_happens(tmp_path):
    (tmp_path / "closed").mkdir(mode=0o700)
    before = os.getresuid(), os.getresgid(), os.getgroups()
    nobody = user_of("nobody", root_allowed=True)

    with users.acting_as(nobody):
        during = os.getresuid()
    with pytest.raises(PermissionError), users.acting_as(nobody):
        list((tmp_path / "closed").iterdir())

    assert during == (0, nobody.uid, 0)  # so that the user cannot signal it
    assert (os.getresuid(), os.getresgid(), os.getgroups()) == before


@as_root
@pytest.mark.parametrize("call", ["setgroups", "seteuid"])
def test_an_agent_that_may_become_nobody_refuses_for_good(monkeypatch, call):
    nobody = user_of("nobody", root_allowed=True)
    real, before = getattr(os, call), os.getgroups()

    def refused(argument):
        if argument in (nobody.groups, nobody.uid):
            raise PermissionError(1, "Operation not permitted")
        real(argument)

    monkeypatch.setattr(os, call, refused)
    with pytest.raises(StartFailedError) as caught, users.acting_as(nobody):
        pass

    assert (caught.value.permanent, caught.value.reason) == (True, EndReason.USER_REFUSED)
    assert (os.getresuid(), os.getresgid(), os.getgroups()) == ((0, 0, 0), (0, 0, 0), before)


# --- the wrapper of other users -------------------------------------------------------------------

SHELLS = [path for name in ("sh", "dash", "bash", "mksh") if (path := shutil.which(name))]


def wrap(folder, *command, shell="/bin/sh", cwd="/", gates=(), program="", env=None):
    """Run a command as `nobody` by way of the wrapper; return its status."""
    who = [str(NOBODY.pw_uid), str(NOBODY.pw_gid), str(NOBODY.pw_gid)]
    options = [*who, "022", "0", str(len(gates)), *gates, cwd, program or f"/bin/{command[0]}"]
    argv = [shell, "-c", wrapper.WRAPPER_OF_OTHERS, "sokovan", str(folder), *wrapper.BECOME]
    passed = {f"SOKOVAN_PASSED_{name}": value for name, value in (env or {}).items()}
    return subprocess.run(
        [*argv, *options, *command], env=passed, check=False, stdin=subprocess.DEVNULL
    ).returncode


@as_root
@pytest.mark.real
@pytest.mark.parametrize("shell", SHELLS)
def test_the_wrapper_writes_the_status_of_another_users_command(shell, tmp_path):
    script = 'echo "$A $(id -u) $UID_"; exit 3'

    assert wrap(tmp_path, "sh", "-c", script, shell=shell, env={"A": "x y", "UID_": "7"}) == 3
    assert (tmp_path / "run").read_text().splitlines()[1:] == ["started", "3"]
    assert (tmp_path / "stdout").read_text() == f"x y {NOBODY.pw_uid} 7\n"


@as_root
@pytest.mark.real
@pytest.mark.parametrize("broken", [{"gates": ["/proc/no/such/gate"]}, {"cwd": "/no/such"}])
def test_another_users_command_that_could_not_be_confined_does_not_run(tmp_path, broken):
    assert wrap(tmp_path, "echo", "ran", **broken) == 125
    assert "started" not in (tmp_path / "run").read_text()
    assert (tmp_path / "stdout").read_text() == ""
    assert "/no/such" in (tmp_path / "stderr").read_text() or broken.get("gates")


@as_root
@pytest.mark.real
@pytest.mark.parametrize(("program", "status"), [("/no/such", 127), ("/etc/passwd", 126)])
def test_another_users_command_that_vanished_in_between_has_a_status(tmp_path, program, status):
    assert wrap(tmp_path, "x", program=program) == status
    assert (tmp_path / "run").read_text().endswith(f"started\n{status}\n")
    assert program in (tmp_path / "stderr").read_text()


@as_root
@pytest.mark.real
def test_another_users_command_has_no_keys_of_roots(tmp_path):
    if os.uname().machine != "x86_64":
        pytest.skip("the number of keyctl is known here for x86_64 alone")
    keyctl = ctypes.CDLL(None, use_errno=True).syscall
    if keyctl(KEYCTL_X86, GET_KEYRING_ID, SESSION_KEYRING, 0) < 0:
        pytest.skip(f"this machine has no keys: {os.strerror(ctypes.get_errno())}")

    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        wrap(tmp_path / name, "grep", " _ses", "/proc/keys")

    one, two = ((tmp_path / name / "stdout").read_text().split() for name in ("one", "two"))
    assert one
    assert two
    assert one[0] != two[0]
