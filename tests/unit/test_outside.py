"""What a session starts and is no part of it: servers and agents."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from sokovan import outside
from sokovan.agent import cgroups, procfs, wrapper
from sokovan.domain.errors import InsideSessionError
from sokovan.domain.sessions import AgentId, KernelId, SessionId
from sokovan.scheduler.messages import KernelToStart


def test_what_a_kernel_has_in_its_environment_is_what_a_server_started_by_it_has_not(tmp_path):
    (tmp_path / "local" / "kernels" / "t1").mkdir(parents=True)
    order = KernelToStart("t1", SessionId("s"), KernelId("s.0"), AgentId("a"), command=("true",))
    env = wrapper.environment(order, ())

    assert outside.environment(tmp_path, env) == {
        "PATH": env["PATH"],
        "SOKOVAN_SERVICE": str(tmp_path),
        "SOKOVAN_STARTED_BY": "t1",
    }


def test_a_server_that_a_session_of_another_home_starts_stays_part_of_it(tmp_path):
    env = {"SOKOVAN_KERNEL_TOKEN": "t1", "PATH": "/bin"}

    assert outside.environment(tmp_path, env) == env | {"SOKOVAN_SERVICE": str(tmp_path)}


@pytest.mark.parametrize(
    ("line", "entered"),
    [
        ("4:freezer:/mine/sokovan-0123/k-t1/below", "freezer/mine"),
        ("3:cpu,cpuacct:/sokovan-0123/k-t1", "cpu"),
        ("0::/not/visible/sokovan-0123/k-t1", "."),
        ("0::/full/sokovan-0123/k-t1", "full/sokovan"),
    ],
)
def test_a_server_goes_above_our_control_groups_or_does_not_start(tmp_path, line, entered):
    mount, own, agents = tmp_path / "mount", tmp_path / "own", tmp_path / "agents"
    (agents / "local" / "kernels" / "t1").mkdir(parents=True)
    for group in ("freezer/mine", "cpu", "full/sokovan"):
        (mount / group).mkdir(parents=True)
    (mount / "full" / "cgroup.procs").mkdir()  # it takes no process
    own.write_text(f"7:pids:/elsewhere/k-t2\n{line}\n")

    with pytest.raises(InsideSessionError, match="control group"):
        outside.leave(agents, mount=str(mount), own=own)

    assert [p.relative_to(mount) for p in mount.rglob("cgroup.procs") if p.is_file()] == [
        Path(entered) / "cgroup.procs"
    ]


@pytest.mark.real
def test_what_serves_our_home_is_part_of_no_kernel(monkeypatch):
    monkeypatch.setenv("SOKOVAN_SERVICE", "/ours")
    command = ["sh", "-c", "echo up; read -r end"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "start_new_session": True}
    with (
        subprocess.Popen(command, env={"SOKOVAN_SERVICE": "/ours"}, **pipes) as ours,
        subprocess.Popen(command, env={"SOKOVAN_SERVICE": "/ours2"}, **pipes) as other,
    ):
        for child in (ours, other):
            child.stdout.readline()
        table = procfs.processes()
        found = procfs.members(os.getppid(), "t1", table, reapers=())
        left = procfs.ownerless((), {pid: table[pid] for pid in (ours.pid, other.pid)})
        ours.communicate(b"\n")
        other.communicate(b"\n")

    assert {os.getpid(), ours.pid} & {p.pid for p in found} == set()
    assert [p.pid for p in left] == [other.pid]


@pytest.mark.real
def test_an_agent_that_is_in_a_group_itself_neither_kills_nor_freezes_itself(tmp_path):
    with subprocess.Popen(["sleep", "1000"]) as child:
        (tmp_path / "cgroup.procs").write_text(f"{os.getpid()}\n{child.pid}\n")
        for name in ("cgroup.kill", "freezer.state"):
            (tmp_path / name).touch()
        group = cgroups.Group((str(tmp_path),))
        inside = group.pids()
        group.kill()

    assert inside == {child.pid}
    assert child.returncode == -signal.SIGKILL
    assert (tmp_path / "cgroup.kill").read_text() == ""
    assert (tmp_path / "freezer.state").read_text() == "THAWED"
