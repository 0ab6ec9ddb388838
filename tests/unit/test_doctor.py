"""Each check of `doctor` looks at the real thing, and says what it means and how to mend it."""

import json
import os
import pwd
import resource
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from sokovan.agent import cgroups, devices
from sokovan.cli import doctor
from sokovan.cli.checks import Ground, State, ask, kernels, machine, place
from sokovan.clock import ManualClock
from sokovan.config import StoreConfig
from sokovan.domain.resources import Device
from sokovan.store.schema import prepare
from sokovan.store.sqlite import open_sqlite

USER = pwd.getpwuid(os.geteuid()).pw_name
SESSION = "0::/user.slice/user-1000.slice/session-2.scope\n"
SERVICE = "0::/user.slice/user-1000.slice/user@1000.service/app.slice/sokovan.service\n"


@pytest.fixture
def home(tmp_path):
    (tmp_path / "home").mkdir(mode=0o700)
    return tmp_path / "home"


@pytest.fixture
def root(tmp_path):
    return tmp_path / "root"


def put(root, path, text=""):
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def found(check, ground):
    return [(finding.state, finding.says) for finding in check(ground)]


# --- kernels --------------------------------------------------------------------------------------


def test_without_control_groups_what_is_not_enforced_is_said(home, root):
    (finding,) = kernels.control_groups(Ground(home, root))

    assert finding.state is State.WARNING
    assert "--cpu is not enforced" in finding.says
    assert "Delegate=yes" in finding.mend


def test_groups_that_can_be_made_are_named_and_removed_again(home):
    before = cgroups.detect(home)
    if before is None:
        pytest.skip("this user may not make control groups")
    before.close()

    ((state, says),) = found(kernels.control_groups, Ground(home))

    assert (state is State.OK) == ({"cpu", "memory"} <= set(before.bases))
    assert before.description() in says
    assert not any(Path(base).exists() for base in before.bases.values())


def test_a_controller_that_is_not_delegated_is_a_warning(home, root, monkeypatch):
    monkeypatch.setattr(
        cgroups, "detect", lambda *_, **__: cgroups.Cgroups(2, "/none", {"memory": "/none"})
    )

    (finding,) = kernels.control_groups(Ground(home, root))

    assert finding.state is State.WARNING
    assert "--cpu cannot be enforced" in finding.says
    assert "Delegate=cpu" in finding.mend


def test_no_driver_is_fine_and_a_broken_one_is_a_problem(home, root, monkeypatch):
    monkeypatch.setattr(devices, "ask_driver", lambda: 1 / 0)

    assert found(kernels.gpus, Ground(home, root))[0][0] is State.OK

    put(root, "dev/nvidiactl")
    ((state, says),) = found(kernels.gpus, Ground(home, root))
    assert state is State.PROBLEM
    assert "does not answer (division by zero)" in says


@pytest.mark.parametrize(
    ("nodes", "state", "says"),
    [
        ({"nvidiactl": 0o666, "nvidia0": 0o666, "nvidia-uvm": 0o666}, State.OK, "GPUs 0 H100"),
        ({"nvidiactl": 0o666, "nvidia0": 0o666}, State.WARNING, "no /dev/nvidia-uvm"),
        (
            {"nvidiactl": 0o666, "nvidia0": 0o600, "nvidia-uvm": 0o666},
            State.PROBLEM,
            "/dev/nvidia0 may not be opened",
        ),
    ],
)
def test_gpus_that_may_not_be_opened_are_a_problem(home, root, monkeypatch, nodes, state, says):
    monkeypatch.setattr(devices, "ask_driver", lambda: [Device(0, "H100")])
    monkeypatch.setattr(os, "access", lambda path, _: path.stat().st_mode & 0o006 == 0o006)
    for name, mode in nodes.items():
        put(root, f"dev/{name}")
        (root / "dev" / name).chmod(mode)

    (finding,) = kernels.gpus(Ground(home, root))

    assert finding.state is state
    assert says in finding.says


@pytest.mark.parametrize(
    ("group", "lingers", "kills", "state", "says"),
    [
        (SESSION, False, "yes", State.PROBLEM, "KillUserProcesses=yes"),
        (SESSION, True, "yes", State.PROBLEM, "KillUserProcesses=yes"),  # it saves services only
        (SESSION, False, "no", State.OK, "may stay after logout"),
        (SESSION, False, None, State.WARNING, "does not say"),
        (SERVICE, False, "no", State.PROBLEM, "ends at the last logout"),
        (SERVICE, True, "yes", State.OK, "go on after logout"),
        ("0::/system.slice/ssh.service\n", False, "yes", State.OK, "no login"),
    ],
)
def test_what_systemd_does_at_logout_is_found_out(home, root, group, lingers, kills, state, says):
    (root / "run/systemd/system").mkdir(parents=True)
    put(root, "proc/self/cgroup", group)
    if lingers:
        put(root, f"var/lib/systemd/linger/{USER}")

    (finding,) = kernels.logout(Ground(home, root, ask=lambda _: kills))

    assert finding.state is state
    assert says in finding.says


def test_without_systemd_nothing_is_killed_at_logout(home, root):
    put(root, "proc/self/cgroup", SESSION)

    assert found(kernels.logout, Ground(home, root, ask=lambda _: "yes"))[0][0] is State.OK


def test_a_program_that_is_not_there_or_fails_says_nothing():
    assert ask(["echo", "hi"]) == "hi"
    assert ask(["false"]) is None
    assert ask(["/there/is/no/such/program"]) is None


# --- the machine ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("answer", "state"), [(0, State.OK), (5, State.WARNING), (None, State.OK)])
def test_a_clock_that_nothing_keeps_right_is_a_warning(home, monkeypatch, answer, state):
    monkeypatch.setattr(machine, "_clock_state", lambda: answer)

    assert found(machine.clock, Ground(home))[0][0] is state


def test_the_system_says_how_its_clock_is_kept():
    assert machine._clock_state() in {None, *range(6)}


def test_few_open_files_are_a_warning_that_names_the_limit(home):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    try:
        (finding,) = machine.open_files(Ground(home))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert finding.state is State.WARNING
    assert "512 files" in finding.says


@pytest.mark.parametrize(
    ("own", "limit"),
    [
        ("0::/a/b\n", "sys/fs/cgroup/a/b/pids.max"),
        ("4:pids:/c\n1:cpu:/\n", "sys/fs/cgroup/pids/c/pids.max"),
    ],
)
def test_few_processes_in_the_control_group_are_a_warning(home, root, own, limit):
    put(root, "proc/self/cgroup", own)
    put(root, limit, "100\n")

    ((state, says),) = found(machine.processes, Ground(home, root))

    assert state is State.WARNING
    assert "100 processes" in says
    put(root, limit, "max\n")
    assert found(machine.processes, Ground(home, root))[0][0] is State.OK


def test_an_old_sqlite_is_a_problem(home, monkeypatch):
    assert found(machine.versions, Ground(home))[0][0] is State.OK

    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 9))
    assert found(machine.versions, Ground(home))[0][0] is State.PROBLEM


# --- the home -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "state"), [(0o700, State.OK), (0o750, State.WARNING), (0o770, State.PROBLEM)]
)
def test_a_home_that_is_open_to_others_is_said(home, mode, state):
    home.chmod(mode)

    (finding,) = place.directory(Ground(home))

    assert finding.state is state
    assert state is State.OK or finding.mend == f"chmod 700 {home}"


def test_a_home_that_is_not_there_is_fine_and_is_not_made(home):
    assert found(place.directory, Ground(home / "a/b"))[0][0] is State.OK
    assert not (home / "a").exists()


@pytest.mark.parametrize(("mode", "state"), [(0o600, State.OK), (0o640, State.PROBLEM)])
def test_a_token_that_others_can_read_is_a_problem(home, mode, state):
    put(home, "token", "secret\n")
    (home / "token").chmod(mode)

    ((found_state, says),) = found(place.token, Ground(home))

    assert found_state is state
    assert "secret" not in says


@pytest.mark.parametrize(
    ("kind", "state"),
    [("ext4", State.OK), ("nfs4", State.PROBLEM), ("tmpfs", State.WARNING)],
)
def test_the_file_system_of_the_home_is_told_by_its_nearest_mount(home, root, kind, state):
    mounts = [
        "27 1 254:0 / / rw - btrfs /dev/vda rw",
        f"28 27 0:9 / {home.parent} rw,relatime shared:1 - {kind} server:/x rw",
        f"29 28 0:8 / {home}/agents rw - tmpfs none rw",
    ]
    put(root, "proc/self/mountinfo", "\n".join(mounts))

    lies_on, kept = place.disk(Ground(home, root))

    assert lies_on.state is state
    assert f"free on {kind}" in lies_on.says
    assert kept.state is State.OK
    assert list(home.iterdir()) == []


def test_a_full_disk_is_a_problem(home, monkeypatch):
    real = os.statvfs(home)
    few = os.statvfs_result((real.f_bsize, 4096, real.f_blocks, 99, 99, *tuple(real)[5:]))
    monkeypatch.setattr(os, "statvfs", lambda _: few)

    state, says = found(place.disk, Ground(home))[0]

    assert state is State.PROBLEM
    assert "396K free" in says


def test_a_clock_behind_the_store_is_a_problem(home):
    assert found(place.store, Ground(home))[0] == (
        State.OK,
        "there is no store yet; the first server makes it",
    )
    engine = open_sqlite(home / "sokovan.db", StoreConfig())
    prepare(engine)
    engine.dispose()
    with sqlite3.connect(home / "sokovan.db") as store:
        store.execute("PRAGMA foreign_keys=OFF")
        store.execute(
            "INSERT INTO history (session_id, status_seq, to_status, reason, detail, stage, at)"
            " VALUES ('x', 1, 'PENDING', '', '', '', 1000.0)"
        )
    store.close()

    assert found(place.store, Ground(home, clock=ManualClock(1001.0)))[0][0] is State.OK
    ((state, says),) = found(place.store, Ground(home, clock=ManualClock(940.0)))
    assert state is State.PROBLEM
    assert "60 s behind" in says


def test_a_store_that_the_next_server_brings_up_to_date_is_a_warning(home):
    with sqlite3.connect(home / "sokovan.db") as store:
        store.executescript((Path(__file__).parents[1] / "fixtures/store_0001.sql").read_text())
    store.close()

    ((state, says),) = found(place.store, Ground(home))

    assert state is State.WARNING
    assert "0001" in says


def test_a_store_that_cannot_be_read_is_a_problem(home):
    put(home, "sokovan.db", "no database")

    assert found(place.store, Ground(home))[0][0] is State.PROBLEM


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[api]\nprot = 1", "api.prot: no such setting"),
        ("[groups.default.limits.sweeping]\nphase_s_max = 9", "no stage 'sweeping' has a limit"),
        ('[api]\ntls_cert_file = "a"\ntls_key_file = "b"', "api.tls_cert_file: "),
    ],
)
def test_settings_with_which_no_server_starts_are_a_problem(home, text, says):
    put(home, "config.toml", text)

    ((state, said),) = found(place.settings, Ground(home))

    assert state is State.PROBLEM
    assert says in said


def test_an_address_that_is_taken_is_a_problem(home):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        put(home, "config.toml", f"[api]\nport = {taken.getsockname()[1]}\n")
        ((state, says),) = found(place.server, Ground(home))

    assert state is State.PROBLEM
    assert "cannot listen on 127.0.0.1" in says
    assert found(place.server, Ground(home))[0][0] is State.OK


def test_a_server_that_does_not_answer_is_a_problem(home):
    with socket.create_server(("127.0.0.1", 0)) as other:
        url = f"http://127.0.0.1:{other.getsockname()[1]}"
        put(home, "server.json", json.dumps({"pid": os.getpid(), "url": url}))
    put(home, "token", "t\n")

    ((state, says),) = found(place.server, Ground(home))

    assert state is State.PROBLEM
    assert "does not answer" in says


# --- the command ----------------------------------------------------------------------------------


def test_the_command_starts_nothing_changes_nothing_and_fails_for_problems_alone(home):
    def run(*more):
        argv = [sys.executable, "-m", "sokovan", "--home", home, "doctor", *more]
        return subprocess.run(argv, capture_output=True, text=True, check=False)

    good = run("--json")
    said = json.loads(good.stdout)
    assert {finding["check"] for finding in said["findings"]} == set(doctor.checks())
    assert all(finding["mend"] for finding in said["findings"] if finding["state"] != "ok")
    assert said["ok"] == (good.returncode == 0)
    assert list(home.iterdir()) == []

    home.chmod(0o777)
    bad = run()
    assert bad.returncode == 1
    assert f"→ chmod 700 {home}" in bad.stdout


def test_a_check_that_breaks_keeps_no_other_from_looking(home):
    def broken(ground):
        yield from ()
        raise KeyError("uid")

    (finding,) = doctor._findings(broken, Ground(home))

    assert finding.state is State.PROBLEM
    assert "KeyError" in finding.says
