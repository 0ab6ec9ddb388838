"""Real agents with real kernels: deaths, restarts, limits and everything a kernel leaves behind."""

import asyncio
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

from sokovan.agent.cgroups import detect
from sokovan.agent.frames import SOCKET
from sokovan.agent.main import EXIT_HELD
from sokovan.agent.wire import encode_start
from sokovan.cluster.keeper import arguments
from sokovan.domain.reasons import EndReason
from sokovan.domain.resources import Request
from sokovan.scheduler.messages import KernelReport, ReportState
from tests.homes import RUNS_LONG, RealGround, a_short_directory, real_ground

pytestmark = pytest.mark.real

MIB = 1024**2


@pytest.fixture(params=["auto", "off"])
async def ground(request):
    """An agent that uses control groups where it may, and one that must do without."""
    async with real_ground(cgroups=request.param) as ground:
        yield ground


def kernels_of(ground: RealGround) -> list[int]:
    """Every process that carries a token of the tests, wherever it has gone."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                environ = (process / "environ").read_bytes()
                state = (process / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if f"GROUND={ground.directory}".encode() in environ and state not in "ZX":
                found.append(int(process.name))
    return found


async def start(ground: RealGround, token: str, *command: str, **changes: object) -> KernelReport:
    env = {"GROUND": str(ground.directory), **changes.pop("env", {})}
    order = ground.command(token, *command, env=env, **changes)
    (report,) = await ground.gateway.start(ground.agent_id, [order])
    return report


async def test_kernels_outlive_their_agent_and_are_taken_up_by_the_next(ground):
    script = "echo before; while [ ! -e go ]; do sleep 0.05; done; echo after; exit 5"
    await start(ground, "t1", "sh", "-c", script, cwd=str(ground.directory))
    await ground.until_written("t1", b"before\n")
    first = ground.kill_agent()
    await ground.until(lambda: len(ground.sink.hellos) > 1)
    await ground.home.all_connected()

    assert ground.agent_pid() != first
    assert ground.sink.hellos[1].agent_id == ground.sink.hellos[0].agent_id
    assert (await ground.state("t1")).state is ReportState.RUNNING
    (ground.directory / "go").touch()
    assert (await ground.end_of("t1")).exit_code == 5
    assert await ground.read("t1") == b"before\nafter\n"


async def test_a_kernel_that_is_taken_up_can_be_stopped(ground):
    await start(ground, "t1", "sh", "-c", "echo up; exec sleep 10000")
    await ground.until_written("t1", b"up\n")
    ground.kill_agent()
    await ground.until(lambda: len(ground.sink.hellos) > 1)
    await ground.home.all_connected()
    await ground.stop("t1")

    assert (await ground.end_of("t1")).exit_code == 143
    assert kernels_of(ground) == []


async def test_kernels_are_watched_and_stopped_without_a_descriptor_for_each(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(
        "import errno, os\n"
        "def pidfd_open(pid, flags=0):\n"
        "    raise OSError(errno.EMFILE, 'Too many open files')\n"
        "os.pidfd_open = pidfd_open\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    async with real_ground(cgroups="off") as ground:
        script = "while [ ! -e go ]; do sleep 0.05; done; exit 5"
        await start(ground, "t1", "sh", "-c", script, cwd=str(ground.directory))
        await start(ground, "t2", "sh", "-c", "echo up; exec sleep 10000")
        await ground.until_written("t2", b"up\n")
        ground.kill_agent()
        await ground.until(lambda: len(ground.sink.hellos) > 1)
        await ground.home.all_connected()
        (ground.directory / "go").touch()
        await ground.stop("t2")

        assert (await ground.end_of("t1")).exit_code == 5
        assert (await ground.end_of("t2")).exit_code == 143
        assert kernels_of(ground) == []


async def test_the_status_of_a_kernel_that_ended_without_an_agent_is_known(ground):
    script = "echo before; while [ ! -e go ]; do sleep 0.05; done; echo after; touch gone; exit 7"
    await start(ground, "t1", "sh", "-c", script, cwd=str(ground.directory))
    await ground.until_written("t1", b"before\n")
    await ground.disconnect()
    ground.kill_agent()
    (ground.directory / "go").touch()
    await ground.until(lambda: (ground.directory / "gone").exists() and not kernels_of(ground))
    await ground.connect()

    assert (await ground.end_of("t1")).exit_code == 7
    assert await ground.read("t1") == b"before\nafter\n"


async def test_an_end_that_nobody_acknowledged_is_reported_by_the_next_agent(ground):
    ground.sink.failures_left = 1_000_000
    await start(ground, "t1", "sh", "-c", "exit 9")
    await ground.until(lambda: any(r.state is ReportState.ENDED for r in ground.sink.failed))
    killed = ground.kill_agent()
    await ground.until(lambda: ground.agent_pid() != killed)
    ground.sink.failures_left = 0

    assert (await ground.end_of("t1")).exit_code == 9


async def test_an_agent_is_not_cut_off_while_only_the_store_is_away():
    async with real_ground(cut_off_stop_s=8.0) as ground:
        await ground.start("t1", RUNS_LONG, requeue=True)
        ground.sink.store_is_away = True
        await start(ground, "t2", "sh", "-c", "exit 9")
        try:
            await ground.until(lambda: bool(ground.sink.failed))
            seen = len(ground.sink.heartbeats)
            await ground.until(lambda: len(ground.sink.heartbeats) > seen + 50)  # ten seconds
        finally:
            ground.sink.store_is_away = False

        assert (await ground.end_of("t2")).exit_code == 9
        assert (await ground.state("t1")).state is ReportState.RUNNING
        assert len(ground.sink.hellos) == 1


async def test_a_status_that_was_never_written_is_lost_and_never_a_success(ground):
    await start(ground, "t1", "sh", "-c", "echo $PPID; exec sleep 10000")
    await ground.until_written("t1", b"\n")
    os.kill(int(await ground.read("t1")), signal.SIGKILL)
    end = await ground.end_of("t1")

    assert (end.exit_code, end.reason) == (None, EndReason.EXIT_STATUS_LOST)
    assert kernels_of(ground) == []


async def test_a_wrapper_that_died_without_an_agent_has_lost_its_status(ground):
    await start(ground, "t1", "sh", "-c", "echo $PPID; exec sleep 10000")
    await ground.until_written("t1", b"\n")
    wrapper = int(await ground.read("t1"))
    await ground.disconnect()
    ground.kill_agent()
    await ground.until(lambda: ground.agent_pid() == 0)
    os.kill(wrapper, signal.SIGKILL)
    await ground.connect()

    assert (await ground.end_of("t1")).reason == EndReason.EXIT_STATUS_LOST
    assert kernels_of(ground) == []


async def test_what_an_agent_had_frozen_when_it_was_killed_is_ended_by_the_next(ground):
    groups = detect(ground.directory)
    if groups is None or ground.config.cgroups == "off":
        pytest.skip("no control group can be made here")
    await start(ground, "t1", "sh", "-c", "echo $PPID; exec sleep 10000")
    await ground.until_written("t1", b"\n")
    wrapper = int(await ground.read("t1"))
    (group, *_) = groups.group_of("t1", Request()).paths
    file, word = ("cgroup.freeze", "1") if groups.version == 2 else ("freezer.state", "FROZEN")
    await ground.disconnect()
    ground.kill_agent()
    await ground.until(lambda: ground.agent_pid() == 0)
    Path(group, file).write_text(word)
    os.kill(wrapper, signal.SIGKILL)
    await ground.connect()

    assert (await ground.end_of("t1")).reason == EndReason.EXIT_STATUS_LOST
    assert kernels_of(ground) == []


async def test_nothing_survives_a_restart_of_the_machine_but_what_was_written_down(ground):
    await ground.disconnect()
    ground.kill_agent()
    await ground.until(lambda: ground.agent_pid() == 0)
    line = Path("/proc/self/stat").read_text()  # the pid is in use again: by this very process
    for token, run in (("ended", f"{line}started\n3\n"), ("ran", f"{line}started\n"), ("not", "")):
        order = encode_start(ground.command(token, "sleep", "10000"))
        record = {"order": order, "accepted_at": 0, "boot_id": "another", "groups": []}
        folder = ground.directory / "kernels" / token
        folder.mkdir(mode=0o700)
        (folder / "kernel.json").write_text(json.dumps(record))
        (folder / "run").write_text(run)
    await ground.connect()

    assert (await ground.end_of("ended")).exit_code == 3
    assert (await ground.end_of("ran")).reason == EndReason.EXIT_STATUS_LOST
    assert (await ground.state("not")).state is ReportState.UNKNOWN


async def test_what_a_kernel_leaves_behind_is_gone_when_its_end_is_reported(ground):
    daemon = "(setsid sh -c 'sleep 10000 & sleep 10000' & ) ; sleep 10000 & exit 4"
    await start(ground, "t1", "sh", "-c", daemon)

    assert (await ground.end_of("t1")).exit_code == 4
    assert kernels_of(ground) == []


async def test_a_stop_reaches_what_has_left_the_session_too(ground):
    daemon = "trap '' TERM; setsid sh -c 'trap \"\" TERM; sleep 10000 & sleep 10000' & "
    await start(ground, "t1", "sh", "-c", daemon + "echo up; wait; wait; sleep 10000")
    await ground.until_written("t1", b"up\n")
    await ground.stop("t1", grace_s=0.2)

    assert (await ground.end_of("t1")).exit_code == 137
    assert kernels_of(ground) == []


async def test_a_suspended_kernel_can_be_stopped(ground):
    await start(ground, "t1", "sh", "-c", "echo $$; exec sleep 10000")
    await ground.until_written("t1", b"\n")
    os.killpg(os.getpgid(int(await ground.read("t1"))), signal.SIGSTOP)
    await ground.stop("t1")

    assert (await ground.end_of("t1")).exit_code == 143


async def test_a_kernel_stopped_at_the_moment_of_its_start_is_stopped(ground):
    for number in range(20):
        token = f"t{number}"
        await start(ground, token, "sleep", "10000")
        await ground.stop(token)
    ends = [await ground.end_of(f"t{number}") for number in range(20)]

    assert {(end.exit_code, end.reason) for end in ends} <= {
        (143, None),
        (None, EndReason.STOPPED_BEFORE_START),
    }


async def test_a_kernel_killed_at_the_moment_of_its_start_is_gone(ground):
    for number in range(20):
        token = f"t{number}"
        await start(ground, token, "sleep", "10000")
        await ground.stop(token, force=True)
    for number in range(20):
        await ground.end_of(f"t{number}")

    assert kernels_of(ground) == []


@pytest.mark.parametrize(
    ("command", "changes", "reason"),
    [
        (("no-such-command",), {}, EndReason.COMMAND_NOT_FOUND),
        (("/no/such/command",), {}, EndReason.COMMAND_NOT_FOUND),
        ((), {}, EndReason.COMMAND_NOT_FOUND),
        ((__file__,), {}, EndReason.COMMAND_NOT_EXECUTABLE),
        (("/etc",), {}, EndReason.COMMAND_NOT_EXECUTABLE),
        (("true", "x" * 4_000_000), {}, EndReason.COMMAND_NOT_EXECUTABLE),
        (("true", "\0"), {}, EndReason.COMMAND_NOT_EXECUTABLE),
        (("true",), {"cwd": "/no/such/directory"}, EndReason.DIRECTORY_NOT_FOUND),
        (("true",), {"cwd": "/etc/hostname"}, EndReason.DIRECTORY_NOT_FOUND),
    ],
)
async def test_what_can_never_start_says_so_exactly(ground, command, changes, reason):
    report = await start(ground, "t1", *command, **changes)

    assert (report.state, report.permanent) == (ReportState.START_FAILED, True)
    assert report.reason == reason
    assert report.message


async def test_a_start_that_fails_for_the_moment_is_tried_again(ground):
    kernels = ground.directory / "kernels"
    shutil.rmtree(kernels)
    kernels.touch()
    first = await start(ground, "t1", "sh", "-c", "exit 6")
    kernels.unlink()
    kernels.mkdir()

    assert (first.state, first.permanent, first.failures) == (ReportState.START_FAILED, False, 1)
    assert (await ground.end_of("t1")).exit_code == 6


async def test_an_order_accepted_before_the_agent_died_is_carried_out_by_the_next(ground):
    """A start that fails for the moment is retried across a restart of the agent."""
    place = ground.directory / "kernels" / "t1"
    place.mkdir()
    (place / "run").mkdir()  # the wrapper cannot write who it is, so it runs nothing
    await start(ground, "t1", "sh", "-c", "exit 6")
    await ground.until(lambda: any(r.failures for r in ground.sink.of("t1")))
    killed = ground.kill_agent()
    await ground.until(lambda: ground.agent_pid() != killed)
    (place / "run").rmdir()

    assert (await ground.end_of("t1")).exit_code == 6


async def test_a_kernel_finds_the_environment_it_was_given_and_ours(ground):
    await start(
        ground,
        "t1",
        "env",
        env={"dir": "x", "status": "y", "line": "z", "ODD": "a b\n$c'\""},
        cwd="/tmp",
        name="job",
        index=2,
        kernel_count=3,
        role="sub",
    )
    await ground.end_of("t1")
    output = (await ground.read("t1")).decode()
    lines = set(output.splitlines())

    assert lines >= {"dir=x", "status=y", "line=z", "PWD=/tmp", "ODD=a b", "$c'\""}
    assert lines >= {
        "SOKOVAN_SESSION_ID=s-t1",
        "SOKOVAN_KERNEL_ID=s-t1.0",
        "SOKOVAN_KERNEL_TOKEN=t1",
        "SOKOVAN_SESSION_NAME=job",
        "SOKOVAN_KERNEL_INDEX=2",
        "SOKOVAN_KERNEL_COUNT=3",
        "SOKOVAN_KERNEL_ROLE=sub",
    }
    assert not {"OLDPWD", "CUDA_VISIBLE_DEVICES", "sokovan_dir"} & {
        line.partition("=")[0] for line in lines
    }


async def test_a_kernel_has_its_umask_its_directory_and_no_descriptors_of_ours(ground):
    script = "umask; pwd; ls /proc/self/fd | wc -l; cat; echo $0 | cut -c1-2"
    await start(ground, "t1", "sh", "-c", script, cwd="/usr", umask=0o027)
    await ground.end_of("t1")

    # Three standard streams and the one with which `ls` reads its directory.
    assert (await ground.read("t1")).split() == [b"0027", b"/usr", b"4", b"sh"]
    assert await ground.read("t1", "stderr") == b""


async def test_a_script_without_an_interpreter_line_runs_as_in_a_shell(ground):
    script = ground.directory / "-script"
    script.write_text("exit 8")
    script.chmod(0o700)
    await start(ground, "t1", "-script", env={"PATH": str(ground.directory)})

    assert (await ground.end_of("t1")).exit_code == 8


async def test_devices_are_passed_on_by_name(tmp_path):
    async with real_ground(gpus="0,1") as ground:
        await start(ground, "t1", "sh", "-c", "echo [$CUDA_VISIBLE_DEVICES]", devices=((1, 1000),))
        await start(ground, "t2", "sh", "-c", "echo [${CUDA_VISIBLE_DEVICES-unset}]")
        await ground.end_of("t1")
        await ground.end_of("t2")

        assert len(ground.sink.hellos[0].capacity.devices) == 2
        assert await ground.read("t1") == b"[1]\n"
        assert await ground.read("t2") == b"[]\n"


async def test_without_devices_nothing_is_hidden():
    async with real_ground(gpus="none") as ground:
        env = {"CUDA_VISIBLE_DEVICES": "7"}
        await start(ground, "t1", "sh", "-c", "echo $CUDA_VISIBLE_DEVICES", env=env)
        await ground.end_of("t1")

        assert await ground.read("t1") == b"7\n"


async def test_memory_beyond_the_request_is_refused(ground):
    groups = detect(ground.directory) if ground.config.cgroups == "auto" else None
    if ground.config.cgroups == "auto" and not (groups and "memory" in groups.bases):
        pytest.skip("no control group with a memory limit can be made here")
    command = "import sys; x = bytearray(300 << 20); sys.exit(0)"
    await start(
        ground, "t1", "/usr/bin/env", "python3", "-c", command, request=Request(mem_bytes=64 * MIB)
    )
    end = await ground.end_of("t1")

    if groups:
        assert (end.exit_code, end.message) == (137, "killed: over its memory limit of 64M")
    else:  # a limit of the process: it is told, and gives up by itself
        assert end.exit_code == 1
        assert b"MemoryError" in await ground.read("t1", "stderr")


async def test_control_groups_are_gone_with_their_kernels(ground):
    groups = detect(ground.directory)
    if groups is None or ground.config.cgroups == "off":
        pytest.skip("no control group can be made here")
    request = Request(cpu_milli=1500, mem_bytes=64 * MIB)
    script = "cat /proc/self/cgroup; exec sleep 10000"
    await start(ground, "t1", "sh", "-c", script, request=request)
    await ground.until_written("t1", b"/k-t1\n")
    paths = [Path(path) for path in groups.group_of("t1", request).paths]
    there = [path.is_dir() for path in paths]
    quota = (
        (Path(groups.bases["cpu"]) / "k-t1" / "cpu.cfs_quota_us") if "cpu" in groups.bases else None
    )
    limited = quota is None or not quota.exists() or quota.read_text() == "150000\n"
    await ground.stop("t1")
    await ground.end_of("t1")
    await ground.until(lambda: not any(path.exists() for path in paths))

    assert there
    assert all(there)
    assert limited


async def test_a_home_with_a_very_long_path_works():
    base = a_short_directory()
    home = base / ("d" * 100) / ("e" * 100)
    async with real_ground(home) as ground:
        await start(ground, "t1", "sh", "-c", "exit 2")

        assert (await ground.end_of("t1")).exit_code == 2
    shutil.rmtree(base)


async def test_everything_below_the_directory_is_private(ground):
    await start(ground, "t1", "echo", "secret")
    await ground.end_of("t1")
    await ground.until((ground.directory / "done" / "t1").is_dir)  # where it is acknowledged
    seen = [ground.directory, *ground.directory.rglob("*")]

    assert len(seen) > 5
    assert not [path for path in seen if path.stat().st_mode & 0o077]


async def test_an_agent_ends_at_sigterm_and_leaves_its_kernels(ground):
    await ground.start("t1", RUNS_LONG)
    first = ground.kill_agent(signal.SIGTERM)
    await ground.until(lambda: len(ground.sink.hellos) > 1)
    await ground.home.all_connected()

    assert ground.agent_pid() != first
    assert (await ground.state("t1")).state is ReportState.RUNNING


async def test_a_second_agent_in_the_same_directory_is_refused(ground):
    argv = ["-m", "sokovan.agent", *arguments(ground.directory, ground.config)]
    second = await asyncio.create_subprocess_exec(
        sys.executable, *argv, stderr=asyncio.subprocess.PIPE
    )
    _, complaint = await second.communicate()

    assert second.returncode == EXIT_HELD
    assert b"another agent runs" in complaint


async def test_new_settings_restart_the_agent_and_not_its_kernels():
    async with real_ground(cpu="4") as ground:
        await ground.start("t1", RUNS_LONG)
        await ground.disconnect()
        again = RealGround(ground._home_path, cpu="2")
        await again.connect()
        capacities = [
            hello.capacity.cpu_milli for hello in (*ground.sink.hellos, *again.sink.hellos)
        ]
        state = (await again.state("t1")).state
        await again.disconnect()
        ground.config = again.config

        assert capacities == [4000, 2000]
        assert state is ReportState.RUNNING


async def test_nonsense_is_answered_and_harms_nothing(ground):
    reader, writer = await asyncio.open_unix_connection(str(ground.directory / SOCKET))
    await reader.readline()  # its hello
    nonsense = [
        b"\xff\xfe",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b'{"id": 1, "op": "dance"}',
        b'{"id": 2, "op": "start", "kernels": [{"token": "../../etc"}]}',
        b'{"id": 3, "op": "start", "kernels": 7}',
        b'{"id": 4, "op": "stop", "kernels": [{"token": "t", "grace_s": NaN, "force": false}]}',
        b'{"op": "ack", "reports": [["t1"]]}',
        b'{"id": 5, "op": "read", "token": "t", "stream": "../x", "offset": 0, "bytes_max": 1}',
    ]
    writer.write(b"\n".join(nonsense) + b"\n")
    answers = [json.loads(await reader.readline()) for _ in nonsense]
    writer.close()
    await writer.wait_closed()
    await ground.start("t1", RUNS_LONG)

    assert all("error" in answer for answer in answers)
    assert (await ground.state("t1")).state is ReportState.RUNNING
    assert len(ground.sink.hellos) == 1


async def test_orders_that_are_too_long_for_one_frame_come_in_several():
    async with real_ground() as ground:
        largest = {f"X{i}": "\x01" * 100_000 for i in range(19)}  # six bytes for each
        orders = [ground.command(f"t{i}", "true", env=largest) for i in range(6)]
        reports = await ground.gateway.start(ground.agent_id, orders)

        assert [report.token for report in reports] == [order.token for order in orders]
        for order in orders:
            assert (await ground.end_of(order.token)).exit_code == 0
        assert len(ground.sink.hellos) == 1


async def test_what_cannot_start_says_so_in_few_words_however_long_its_name(ground):
    report = await start(ground, "t1", "\x01" * 130_000)

    assert report.state is ReportState.START_FAILED
    assert report.message.endswith("not found on the PATH of the session")
    assert len(report.message) < 1100


async def test_a_newer_manager_takes_over_from_an_older_one():
    async with real_ground() as ground:
        await ground.start("t1", RUNS_LONG)
        newer = RealGround(ground._home_path)
        newer.config = ground.config
        await newer.connect()
        await ground.until(lambda: len(ground.sink.hellos) > 1)  # and the older one comes again
        await newer.disconnect()

        assert newer.sink.hellos[0].agent_id == ground.agent_id


async def test_a_removed_socket_is_made_again(ground):
    (ground.directory / "agent.sock").unlink()
    await ground.until((ground.directory / SOCKET).exists)
    await ground.disconnect()
    await ground.connect()

    assert len({hello.agent_id for hello in ground.sink.hellos}) == 1


def removed_at_once(directory: Path) -> None:
    """Remove a directory; piece by piece, its agent would make its socket again meanwhile."""
    shutil.rmtree(directory.rename(f"{directory}-gone"))


async def test_an_agent_without_a_directory_and_without_kernels_ends():
    directory = a_short_directory()
    ground = RealGround(directory)
    await ground.connect()
    pid = ground.agent_pid()
    await ground.disconnect()
    removed_at_once(directory)

    await ground.until(lambda: os.waitpid(pid, os.WNOHANG)[0] == pid)


async def test_an_agent_without_a_directory_stays_for_its_kernels():
    directory = a_short_directory()
    ground = RealGround(directory)
    await ground.connect()
    await start(
        ground,
        "t1",
        "sh",
        "-c",
        "echo up; while [ -d $D ]; do sleep 0.1; done; sleep 1; exit 3",
        env={"D": str(directory)},
    )
    await ground.until_written("t1", b"up\n")
    removed_at_once(directory)
    end = await ground.end_of("t1")
    pid = ground.home._keepers[0]._pid
    await ground.disconnect()

    assert end.exit_code == 3
    await ground.until(lambda: os.waitpid(pid, os.WNOHANG)[0] == pid)
