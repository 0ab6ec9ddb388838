"""The agent's small parts: what it writes and reads, its timers, its shell text."""

import dataclasses
import errno
import json
import logging
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from sokovan.agent import cgroups, devices, procfs, wrapper
from sokovan.agent import main as agent
from sokovan.agent.contact import ContactFile
from sokovan.agent.frames import directory_of
from sokovan.agent.journal import Journal, Order, Run
from sokovan.agent.processes import ProcessRuntime
from sokovan.agent.runtime import Ended, StartFailedError
from sokovan.agent.timers import Timers
from sokovan.agent.wire import (
    WireError,
    decode_hello,
    decode_prepare,
    decode_report,
    decode_start,
    decode_stop,
    encode_hello,
    encode_prepare,
    encode_report,
    encode_start,
    encode_stop,
    token_of,
)
from sokovan.clock import ManualClock, Origin, SystemClock
from sokovan.cluster.keeper import arguments
from sokovan.config import AgentConfig
from sokovan.domain.errors import ConfigError
from sokovan.domain.reasons import EndReason
from sokovan.domain.resources import Capacity, Device, Request
from sokovan.domain.sessions import AgentId, KernelId, SessionId
from sokovan.scheduler.messages import (
    AgentHello,
    KernelReport,
    KernelToPrepare,
    KernelToStart,
    KernelToStop,
    ReportState,
)

ORDER = KernelToStart(
    token="t1",
    session_id=SessionId("s1"),
    kernel_id=KernelId("s1.0"),
    agent_id=AgentId("a1"),
    command=("echo", "ü", "\udcff"),
    env={"A": "b"},
    cwd="/tmp",
    umask=0o077,
    request=Request(1500, 1 << 30, 500, 1),
    devices=((0, 500),),
    role="sub",
    index=1,
    kernel_count=2,
    name="job",
    owner="me",
    requeue=True,
)


def through_json(value):
    return json.loads(json.dumps(value))


# --- what goes over the wire ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "report",
    [
        KernelReport("t1", ReportState.RUNNING),
        KernelReport("t1", ReportState.ENDED, exit_code=0),
        KernelReport("t1", ReportState.ENDED, reason=EndReason.EXIT_STATUS_LOST, message="gone"),
        KernelReport("t1", ReportState.START_FAILED, message="no", failures=3, permanent=True),
        KernelReport("t1", ReportState.RUNNING, message="stuck", pids=(1, 2)),
    ],
)
def test_a_report_arrives_as_it_was_sent(report):
    assert decode_report(through_json(encode_report(report))) == report


def test_orders_and_greetings_arrive_as_they_were_sent():
    prepare = KernelToPrepare("t1", SessionId("s1"), KernelId("k"), AgentId("a1"), image="i")
    stop = KernelToStop("t1", 2.5, force=True)
    capacity = Capacity(1, 2, (Device(0, "m", 3, "u"),))
    hello = AgentHello(
        AgentId("a1"), "name", capacity, "x", "1", "b", "g", "h", labels={"rack": "r1"}
    )

    assert decode_start(through_json(encode_start(ORDER))) == ORDER
    assert decode_prepare(through_json(encode_prepare(prepare))) == prepare
    assert decode_stop(through_json(encode_stop(stop))) == stop
    assert decode_hello(through_json(encode_hello(hello))) == hello


def test_an_agent_that_says_nothing_of_labels_has_none():
    said = encode_hello(AgentHello(AgentId("a1"), "name", Capacity()))
    del said["labels"]

    assert decode_hello(said).labels == {}


@pytest.mark.parametrize(
    "labels", [["rack"], {"rack": 1}, {"rack": ""}, {"cpu": "1"}, {"a b": "1"}]
)
def test_labels_that_no_constraint_could_name_are_refused(labels):
    said = encode_hello(AgentHello(AgentId("a1"), "name", Capacity())) | {"labels": labels}

    with pytest.raises(WireError, match="labels"):
        decode_hello(said)


def test_an_agent_says_what_machine_it_is_on_and_what_its_settings_say(tmp_path):
    config = AgentConfig(name="left", labels={"rack": "r1"})
    hello = agent.describe(AgentId("a1"), config, Capacity(), tmp_path)

    assert directory_of(hello.address) == tmp_path
    assert directory_of("elsewhere" + hello.address) is None
    assert hello.architecture == platform.machine()
    assert (hello.name, hello.labels) == ("left", {"rack": "r1"})


def test_an_agent_is_started_with_all_its_settings(tmp_path):
    config = AgentConfig(name="left", cpu="2", labels={"rack": "r1", "os": "Debian 13"})

    options = agent._parser().parse_args(arguments(tmp_path, config))

    assert agent._config_of(options) == config
    assert Path(options.dir) == tmp_path


@pytest.mark.parametrize("label", ["rack", "rack=", "cpu=1", "=r1"])
def test_an_agent_is_not_started_with_a_label_that_is_none(tmp_path, capsys, label):
    with pytest.raises(SystemExit):
        agent.main([f"--dir={tmp_path}", f"--label={label}"])

    assert "argument --label: label: " in capsys.readouterr().err


def test_every_field_of_an_order_is_sent():
    assert set(encode_start(ORDER)) == {field.name for field in dataclasses.fields(KernelToStart)}


@pytest.mark.parametrize(
    "token", ["", ".", "..", "../x", "a/b", "x" * 65, "a\0", "a\n", " ", "ü", None, 7, ".hidden"]
)
def test_what_could_leave_the_directory_is_no_token(token):
    with pytest.raises(WireError):
        token_of(token)


@pytest.mark.parametrize(
    "change",
    [
        {"command": "echo"},
        {"command": [1]},
        {"env": {"A": 1}},
        {"env": []},
        {"umask": "7"},
        {"devices": [1]},
        {"request": [None]},
        {"requeue": 1},
        {"cwd": None},
        {"session_id": 5},
    ],
)
def test_an_order_that_is_not_one_is_refused(change):
    with pytest.raises(WireError):
        decode_start({**encode_start(ORDER), **change})


@pytest.mark.parametrize("row", [None, [], ["t1"], ["t1", "DANCING"], ["t1", "ENDED", "x"], {}])
def test_a_report_that_is_not_one_is_refused(row):
    with pytest.raises(WireError):
        decode_report(row)


# --- timers ---------------------------------------------------------------------------------------


def test_timers_run_in_the_order_they_are_due_then_in_the_order_they_were_set():
    clock, seen = ManualClock(), []
    timers = Timers(clock)
    for name, seconds in (("late", 5), ("soon", 1), ("also soon", 1), ("never", 100)):
        timers.after(seconds, lambda name=name: seen.append(name))
    timers.after(1, lambda: seen.append("cancelled")).cancel()
    clock.advance(10)
    timers.run_due()

    assert seen == ["soon", "also soon", "late"]
    assert timers.due_at() == clock.now() + 90


def test_a_timer_set_by_a_timer_waits_for_the_next_round():
    clock, seen = ManualClock(), []
    timers = Timers(clock)
    timers.after(0, lambda: (seen.append(1), timers.after(0, lambda: seen.append(2))))
    timers.run_due()
    first = list(seen)
    timers.run_due()

    assert (first, seen) == ([1], [1, 2])


def test_a_timer_that_fails_does_not_lose_the_others():
    clock, seen = ManualClock(), []
    timers = Timers(clock)
    timers.after(0, lambda: 1 / 0)
    timers.after(0, lambda: seen.append(1))
    with pytest.raises(ZeroDivisionError):
        timers.run_due()
    timers.run_due()

    assert seen == [1]


# --- /proc ----------------------------------------------------------------------------------------


def test_the_name_of_a_program_cannot_spoil_its_line():
    line = "7 (a) b) S (x) R 1 2 3 " + " ".join(str(number) for number in range(7, 50))

    assert procfs.parse_stat(line) == procfs.Process(7, "R", 1, 2, 3, start=22, memory=23)


def test_this_process_is_alive_and_another_start_time_is_not():
    found = procfs.process(os.getpid())

    assert found is not None
    assert procfs.is_alive(found.pid, found.start)
    assert not procfs.is_alive(found.pid, found.start + 1)
    assert os.getpid() in procfs.processes()


def test_a_kernel_is_its_session_its_descendants_and_whatever_carries_its_token(monkeypatch):
    monkeypatch.setattr(procfs, "carries", lambda pid, token: pid in {100, 105, 202})

    def line(pid, parent, session, group=0):
        return procfs.Process(pid, "S", parent, group or session, session, 0)

    table = {
        p.pid: p
        for p in (
            line(100, 50, 100),  # the wrapper
            line(101, 100, 100),  # the command
            line(102, 101, 102),  # its child, which left the session
            line(103, 102, 102),
            line(104, 1, 7, group=100),  # an orphan in its process group
            line(105, 50, 105),  # given to the agent, with the token
            line(106, 105, 106),
            line(200, 50, 200),  # another kernel
            line(201, 200, 200),
            line(202, 1, 202),  # carries the token, but cannot be of a kernel that we started
        )
    }
    found = procfs.members(100, "t1", table, reapers=(50,))

    assert {p.pid for p in found} == {101, 102, 103, 104, 105, 106}


def test_a_session_whose_leader_is_somebody_else_by_now_is_left_alone(monkeypatch):
    monkeypatch.setattr(procfs, "carries", lambda pid, token: pid == 105)
    table = {
        100: procfs.Process(100, "S", 1, 100, 100, 0),
        101: procfs.Process(101, "S", 100, 100, 100, 0),
        105: procfs.Process(105, "S", 1, 105, 105, 0),
    }

    assert [p.pid for p in procfs.members(100, "t1", table, reapers=None)] == [105]


@pytest.mark.parametrize(
    ("was_seen", "carrying", "found"),
    [
        (True, set(), {101, 102}),
        (False, set(), set()),
        (False, {102}, {101, 102}),
        (False, {105}, {105}),
    ],
)
def test_the_session_of_a_wrapper_that_ended_unseen_is_its_only_if_something_in_it_says_so(
    monkeypatch, was_seen, carrying, found
):
    monkeypatch.setattr(procfs, "carries", lambda pid, token: pid in carrying)
    table = {
        101: procfs.Process(101, "S", 1, 101, 100, 0),
        102: procfs.Process(102, "S", 1, 102, 100, 0),
        105: procfs.Process(105, "S", 1, 105, 105, 0),
    }

    left = procfs.members(100, "t1", table, reapers=None, was_seen=was_seen)

    assert {p.pid for p in left} == found


# --- the last contact -----------------------------------------------------------------------------


def a_clock(boot_id="boot", wall_s=1_000.0):
    return SimpleNamespace(origin=Origin(boot_id, wall_s))


def test_the_last_contact_is_when_it_was_whatever_was_done_to_the_clock(tmp_path):
    path = tmp_path / "last-contact"
    nothing = ContactFile(path, a_clock()).read()
    ContactFile(path, a_clock()).write(1_500.25)

    assert nothing is None
    assert ContactFile(path, a_clock()).read() == 1_500.25
    assert ContactFile(path, a_clock(wall_s=4_600.0)).read() == 5_100.25
    assert ContactFile(path, a_clock("another boot")).read() is None


@pytest.mark.parametrize("text", ["", "boot", "boot x", "x", "boot 1 2"])
def test_a_last_contact_that_cannot_be_read_is_none(tmp_path, text):
    (tmp_path / "last-contact").write_text(text)

    assert ContactFile(tmp_path / "last-contact", a_clock()).read() is None


def test_a_last_contact_that_cannot_be_written_leaves_the_one_before(tmp_path):
    note = ContactFile(tmp_path / "last-contact", a_clock())
    note.write(1_500.0)
    (tmp_path / "last-contact.new").mkdir()
    note.write(1_600.0)

    assert note.read() == 1_500.0


# --- the journal ----------------------------------------------------------------------------------


def an_order(token="t1"):
    return Order(dataclasses.replace(ORDER, token=token), 5.0, "boot", ("/group",))


def begin(journal, token="t1"):
    order = an_order(token)
    journal.begin(order, encode_start(order.kernel))
    return Path(journal.folder(token))


def test_an_order_is_read_back_as_it_was_written(tmp_path):
    begin(Journal(tmp_path))

    assert list(Journal(tmp_path).orders()) == [(an_order(), None)]


def test_an_order_that_was_not_written_to_its_end_was_never_started(tmp_path):
    journal = Journal(tmp_path)
    folder = begin(journal)
    text = (folder / "kernel.json").read_text()
    (folder / "kernel.json").write_text(text[:-3])

    assert list(journal.orders()) == []
    assert not folder.exists()


@pytest.mark.parametrize(
    ("text", "started", "status"),
    [
        ("", False, None),
        ("LINE", False, None),
        ("LINE\n", False, None),
        ("LINE\nstarted", False, None),
        ("LINE\nstarted\n", True, None),
        ("LINE\nstarted\n12", True, None),
        ("LINE\nstarted\n12\n", True, 12),
        ("LINE\nstart125\n", False, None),
        ("LINE\n125\n", False, None),
    ],
)
def test_only_whole_lines_of_the_wrapper_count(tmp_path, text, started, status):
    journal = Journal(tmp_path)
    stat = Path("/proc/self/stat").read_text().strip()
    (begin(journal) / "run").write_text(text.replace("LINE", stat))
    run = journal.run("t1")

    assert (run.started, run.status) == (started, status)


def test_a_status_that_could_not_be_written_is_what_the_wrapper_returned():
    run = Run(procfs.process(os.getpid()), started=True)

    assert ProcessRuntime._end_of(run, 5) == Ended(5)
    assert ProcessRuntime._end_of(run, None).reason == EndReason.EXIT_STATUS_LOST


def test_an_acknowledged_kernel_keeps_its_report_and_its_output(tmp_path):
    journal = Journal(tmp_path)
    folder = begin(journal)
    (folder / "stdout").write_text("hello")
    (folder / "stderr").touch()
    report = KernelReport("t1", ReportState.ENDED, exit_code=4)
    journal.conclude(report)
    journal.file_away("t1")

    assert journal.recall("t1") == report
    assert journal.read("t1", "stdout", 0, 10).data == b"hello"
    assert journal.read("t1", "stderr", 0, 10).data == b""
    assert list(journal.orders()) == []


@pytest.mark.parametrize("bytes_kept", [0, 1, 2, 20, 60])
def test_a_last_report_that_was_cut_short_does_not_count_and_is_written_again(tmp_path, bytes_kept):
    journal = Journal(tmp_path)
    record = begin(journal) / "kernel.json"
    order = record.read_bytes()
    report = KernelReport("t1", ReportState.ENDED, exit_code=4, message="it is a longer one" * 5)
    journal.conclude(report)
    record.write_bytes(record.read_bytes()[: len(order) + bytes_kept])
    (_, cut_short) = next(journal.orders())
    journal.conclude(report)

    assert cut_short is None
    assert [final for _, final in Journal(tmp_path).orders()] == [report]


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_agent_that_is_killed_while_it_files_a_kernel_away_loses_nothing(
    tmp_path, monkeypatch, when
):
    class KilledError(BaseException):
        """The agent was killed here."""

    rename, changed = os.rename, []

    def killed(*args):
        if when == "after":
            rename(*args)
        changed.append(args)
        raise KilledError

    journal = Journal(tmp_path)
    folder = begin(journal)
    for name, text in (("run", "x"), ("stdout", "precious"), ("stderr", ""), ("given-up", "")):
        (folder / name).write_text(text)
    report = KernelReport("t1", ReportState.ENDED, exit_code=4)
    journal.conclude(report)
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", killed)
        patch.setattr(os, "unlink", killed)
        with pytest.raises(KilledError):
            journal.file_away("t1")
    again = Journal(tmp_path)
    known = [final for _, final in again.orders()] or [again.recall("t1")]

    assert len(changed) == 1
    assert known == [report]
    assert again.recall("t1") == report
    assert again.read("t1", "stdout", 0, 100).data == b"precious"


def test_a_kernel_that_cannot_be_filed_away_stays_known(tmp_path):
    journal = Journal(tmp_path)
    folder = begin(journal)
    (folder / "run").touch()
    report = KernelReport("t1", ReportState.ENDED, exit_code=4)
    journal.conclude(report)
    (tmp_path / "done").rmdir()
    journal.file_away("t1")

    assert journal.recall("t1") == report
    assert (folder / "run").exists(), "without it, a late start would run it again"
    assert [final for _, final in Journal(tmp_path).orders()] == [report]


def test_a_kernel_of_which_only_the_last_report_can_be_read_is_filed_away(tmp_path):
    journal = Journal(tmp_path)
    folder = begin(journal)
    report = KernelReport("t1", ReportState.ENDED, exit_code=4)
    journal.conclude(report)
    (folder / "stdout").write_text("precious")
    damaged = (folder / "kernel.json").read_text()[1:]
    (folder / "kernel.json").write_text(damaged)

    assert list(journal.orders()) == []
    assert not folder.exists()
    assert journal.recall("t1") == report
    assert journal.read("t1", "stdout", 0, 100).data == b"precious"


def test_what_was_stopped_before_its_start_is_remembered_across_restarts(tmp_path):
    Journal(tmp_path).refuse(["t1", "t2"])
    report = Journal(tmp_path).recall("t2")

    assert report is not None
    assert report.reason == EndReason.STOPPED_BEFORE_START


def test_an_order_that_was_stopped_is_over_although_its_end_could_not_be_written(tmp_path):
    journal = Journal(tmp_path)
    for token in ("t1", "t2"):
        begin(journal, token)
    journal.give_up("t2")
    journal.refuse(["t1", "t2"])
    finals = [final for _, final in Journal(tmp_path).orders()]

    assert [final.reason for final in finals] == [
        EndReason.STOPPED_BEFORE_START,
        EndReason.AGENT_LOST,
    ]


def test_what_can_never_start_is_not_started_because_that_could_not_be_written(
    tmp_path, monkeypatch
):
    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    journal = Journal(tmp_path)
    begin(journal)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", refuse)
        with pytest.raises(OSError, match="No space left"):
            journal.conclude(KernelReport("t1", ReportState.START_FAILED, permanent=True))

    assert list(Journal(tmp_path).orders()) == []


def test_pruning_removes_what_is_old_and_nothing_else(tmp_path):
    journal = Journal(tmp_path)
    for token in ("old", "new"):
        begin(journal, token)
        journal.conclude(KernelReport(token, ReportState.ENDED, exit_code=0))
        journal.file_away(token)
    begin(journal, "live")
    journal.refuse(["refused"])
    for path in (tmp_path / "done" / "old", tmp_path / "stopped" / "refused"):
        os.utime(path, (1, 1))
    list(journal.prune(before=1_000))

    assert [journal.recall(token) is None for token in ("old", "new", "refused")] == [
        True,
        False,
        True,
    ]
    assert journal.order("live") is not None


# --- the wrapper ----------------------------------------------------------------------------------

SHELLS = {
    f"{path} {' '.join(options)}".strip(): [path, *options]
    for name, *options in (["sh"], ["dash"], ["bash", "--posix"], ["busybox", "sh"], ["mksh"])
    if (path := shutil.which(name))
}


@pytest.fixture(params=SHELLS)
def shell(request):
    return SHELLS[request.param]


def wrap(shell, folder, *command, cwd="/", data=0, gates=(), **env):
    options = ["sokovan", str(folder), "022", cwd, str(data), str(len(gates)), *gates]
    argv = [*shell, "-c", wrapper.WRAPPER, *options, *command]
    return subprocess.run(
        argv, env={"PATH": "/usr/bin:/bin", **env}, check=False, stdin=subprocess.DEVNULL
    ).returncode


@pytest.mark.real
@pytest.mark.parametrize(
    ("script", "status"),
    [("exit 0", 0), ("exit 3", 3), ("exit 255", 255), ("kill -9 $$", 137), ("kill $$", 143)],
)
def test_the_wrapper_writes_the_status_in_every_shell(shell, tmp_path, script, status):
    returned = wrap(shell, tmp_path, "sh", "-c", script, SHELLOPTS="errexit")
    lines = (tmp_path / "run").read_text().splitlines()

    assert procfs.parse_stat(lines[0]).pid > 0
    assert lines[1:] == ["started", str(status)]
    assert returned == status


@pytest.mark.real
def test_the_wrapper_runs_nothing_twice(shell, tmp_path):
    wrap(shell, tmp_path, "sh", "-c", "echo once")
    again = wrap(shell, tmp_path, "sh", "-c", "echo twice")

    assert again != 0
    assert (tmp_path / "stdout").read_text() == "once\n"
    assert len((tmp_path / "run").read_text().splitlines()) == 3


@pytest.mark.real
def test_the_wrapper_runs_nothing_that_it_could_not_report(shell, tmp_path):
    (tmp_path / "run").mkdir()
    wrap(shell, tmp_path, "sh", "-c", f"touch {tmp_path}/ran")

    assert not (tmp_path / "ran").exists()


@pytest.mark.real
@pytest.mark.parametrize("broken", [{"gates": ["/proc/no/such/gate"]}, {"cwd": "/no/such"}])
def test_a_command_that_could_not_be_confined_does_not_run(shell, tmp_path, broken):
    wrap(shell, tmp_path, "sh", "-c", f"touch {tmp_path}/ran", **broken)

    assert not (tmp_path / "ran").exists()
    assert "started" not in (tmp_path / "run").read_text()
    assert (tmp_path / "stderr").read_text()


@pytest.mark.real
def test_a_command_that_vanished_in_between_has_a_status(shell, tmp_path):
    assert wrap(shell, tmp_path, "/no/such/command") == 127
    assert (tmp_path / "run").read_text().endswith("started\n127\n")


@pytest.mark.real
def test_the_limit_of_private_memory_holds_for_the_command_alone(shell, tmp_path):
    wrap(shell, tmp_path, "sh", "-c", "ulimit -d; ulimit -v", data=50_000)

    assert (tmp_path / "stdout").read_text() == "50000\nunlimited\n"


@pytest.mark.parametrize(
    ("command", "cwd", "reason"),
    [
        (("no-such-command",), "/", EndReason.COMMAND_NOT_FOUND),
        (("./x",), "/usr", EndReason.COMMAND_NOT_FOUND),
        (("",), "/", EndReason.COMMAND_NOT_FOUND),
        (("bin",), "/", EndReason.COMMAND_NOT_FOUND),
        (("./bin",), "/usr", EndReason.COMMAND_NOT_EXECUTABLE),
        (("true",), "/no/such", EndReason.DIRECTORY_NOT_FOUND),
        (("true",), "/\0", EndReason.DIRECTORY_NOT_FOUND),
    ],
)
def test_a_command_that_cannot_be_run_is_named_exactly(command, cwd, reason):
    with pytest.raises(StartFailedError) as caught:
        wrapper.find(command, "/usr/bin:/bin", cwd)

    assert (caught.value.permanent, caught.value.reason) == (True, reason)


def test_a_command_is_found_as_a_shell_would_from_its_directory(tmp_path):
    script = tmp_path / "bin" / "mine"
    script.parent.mkdir()
    script.touch(0o700)

    assert Path(wrapper.find(("mine",), "/usr/bin:bin", str(tmp_path))) == script
    assert Path(wrapper.find(("bin/mine",), "/usr/bin", str(tmp_path))) == script


# --- control groups, devices ----------------------------------------------------------------------


@pytest.mark.real
@pytest.mark.parametrize("mount", ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"])
def test_a_group_holds_what_enters_it_and_kills_it(mount, tmp_path):
    found = cgroups.detect(tmp_path, mount=mount) if Path(mount).exists() else None
    if found is None:
        pytest.skip(f"no control group can be made below {mount}")
    request = Request(cpu_milli=500, mem_bytes=1 << 28)
    group = found.group_of("t1", request)
    found.make(group, request)
    enter = 'for gate; do echo 0 >"$gate"; done; sleep 1000 & echo in; wait'
    child = subprocess.Popen(
        ["sh", "-c", enter, "sh", *group.gates()], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    with child:
        child.stdout.readline()
        inside = group.pids()
        too_early = group.remove()
        clock = SystemClock()
        until = clock.now() + 30
        while group.pids() and clock.now() < until:
            group.kill()
        child.wait()
    while not (removed := group.remove()) and clock.now() < until:
        pass
    found.close()

    assert child.pid in inside
    assert len(inside) == 2
    assert not too_early
    assert child.returncode == -9
    assert removed
    assert not group.oom_killed()
    assert not Path(found.tracker).exists()


def test_the_configuration_wins_over_what_the_machine_has():
    found = devices.discover(AgentConfig(cpu="1.5", mem="2G", gpus="3,1"))

    assert found == Capacity(1500, 2 << 30, (Device(1), Device(3)))


def test_a_machine_has_processors_and_memory():
    found = devices.discover(AgentConfig(gpus="none"))

    assert 0 < found.cpu_milli <= len(os.sched_getaffinity(0)) * 1000
    assert found.mem_bytes > 1 << 26
    assert found.devices == ()


def test_gpus_that_are_not_indexes_are_refused():
    with pytest.raises(ConfigError, match="gpus"):
        devices.discover(AgentConfig(gpus="all"))


def test_a_broken_driver_offers_no_gpu_and_says_so(monkeypatch, caplog):
    def fail():
        raise OSError("driver/library version mismatch")

    monkeypatch.setattr(devices, "_DRIVER", ("/",))
    monkeypatch.setitem(sys.modules, "pynvml", SimpleNamespace(nvmlInit=fail))
    with caplog.at_level(logging.WARNING):
        found = devices.nvidia_gpus()

    assert found == []
    assert "mismatch" in caplog.text


def test_gpus_are_what_the_driver_says(monkeypatch):
    answers = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: 2,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetName": lambda _: b"H100",
        "nvmlDeviceGetUUID": lambda index: f"GPU-{index}",
        "nvmlDeviceGetMemoryInfo": lambda _: SimpleNamespace(total=80 << 30),
        "NVMLError": RuntimeError,
    }
    monkeypatch.setattr(devices, "_DRIVER", ("/",))
    monkeypatch.setitem(sys.modules, "pynvml", SimpleNamespace(**answers))

    assert devices.discover(AgentConfig(gpus="1")).devices == (
        Device(1, "H100", 80 << 30, "GPU-1"),
    )


@pytest.mark.parametrize("step_s", [-3600.0, 0.0, 3600.0])
def test_an_order_is_as_old_as_it_is_whatever_was_done_to_the_clock(tmp_path, step_s):
    journal = Journal(tmp_path)
    journal.begin(Order(ORDER, 1000.0, "boot", (), 900.0), encode_start(ORDER))

    found = journal.order(ORDER.token)
    clock = ManualClock(1010.0 + step_s)
    clock.origin = Origin("boot", 900.0 + step_s)

    assert clock.now() - found.accepted_by(clock) == 10.0
    assert Order(ORDER, 1000.0, "boot").accepted_by(clock) == 1000.0, "of an earlier version"


def test_what_some_database_could_not_keep_is_replaced_or_refused():
    report = decode_report(["t1", "ENDED", 2**31 - 1, None, "a\0b"])

    assert report.message == "a\ufffdb"
    with pytest.raises(WireError, match="exit_code: 2147483648 is out of range"):
        decode_report(["t1", "ENDED", 2**31])
