"""No descriptor is free, or the disk is full: what cannot be looked at is not taken for absent."""

import contextlib
import dataclasses
import errno
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from sokovan.agent import journal as journals
from sokovan.agent import procfs
from sokovan.agent.cgroups import Group
from sokovan.agent.journal import Journal, Order
from sokovan.agent.wire import encode_start
from sokovan.domain.sessions import AgentId, KernelId, SessionId
from sokovan.scheduler.messages import KernelReport, KernelToStart, ReportState

TOKEN = "t1"
ORDER = Order(
    KernelToStart(
        token=TOKEN,
        session_id=SessionId("s"),
        kernel_id=KernelId("s.0"),
        agent_id=AgentId("a"),
        command=("true",),
    ),
    accepted_at=5.0,
    boot_id="boot",
)
ENDED = KernelReport(TOKEN, ReportState.ENDED, exit_code=3)
NOBODYS_PID = 2**22
"""Linux gives out none from here on: whoever looks such a process up finds nothing."""


@contextlib.contextmanager
def no_descriptor_free() -> Iterator[None]:
    """Let this process open nothing more."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path)
    journal.begin(ORDER, encode_start(ORDER.kernel))
    return journal


def test_a_kernel_whose_run_cannot_be_read_did_not_fail_to_start(journal):
    """Else it would be started once more."""
    stat = Path("/proc/self/stat").read_text()
    (Path(journal.folder(TOKEN)) / "run").write_text(f"{stat}started\n3\n")

    with no_descriptor_free(), pytest.raises(OSError, match="Too many open files"):
        journal.run(TOKEN)
    assert journal.run(TOKEN).status == 3


def test_an_order_that_cannot_be_read_is_not_forgotten(journal, monkeypatch):
    monkeypatch.setattr(os, "listdir", lambda _: [TOKEN])  # for this one is still free

    with no_descriptor_free(), pytest.raises(OSError, match="Too many open files"):
        list(journal.orders())

    assert journal.order(TOKEN) == ORDER


def test_a_last_report_that_cannot_be_read_is_not_lost(journal):
    journal.conclude(ENDED)
    journal.file_away(TOKEN)

    with no_descriptor_free(), pytest.raises(OSError, match="Too many open files"):
        journal.recall(TOKEN)
    assert journal.recall(TOKEN) == ENDED


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOSPC])
def test_an_order_stays_when_it_cannot_be_written_again(journal, monkeypatch, number):
    """Else the next agent would not know of it, and the session would end without having run."""

    def refuse(path: str, text: str) -> None:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.close(fd)
        raise OSError(number, os.strerror(number), path)

    again = dataclasses.replace(ORDER, accepted_at=9.0)
    with monkeypatch.context() as patch:
        patch.setattr(journals, "_write", refuse)
        with pytest.raises(OSError, match=os.strerror(number)):
            journal.begin(again, encode_start(ORDER.kernel))
    kept = journal.order(TOKEN)
    journal.begin(again, encode_start(ORDER.kernel))

    assert kept == ORDER
    assert journal.order(TOKEN) == again
    assert [p.name for p in Path(journal.folder(TOKEN)).iterdir()] == ["kernel.json"]


def test_an_order_that_could_never_be_written_leaves_nothing(tmp_path):
    journal = Journal(tmp_path)
    with no_descriptor_free(), pytest.raises(OSError, match="Too many open files"):
        journal.begin(ORDER, encode_start(ORDER.kernel))

    assert list(journal.orders()) == []
    assert not Path(journal.folder(TOKEN)).exists()


def test_a_process_that_cannot_be_looked_at_has_not_ended():
    me = procfs.process(os.getpid())
    assert me is not None

    with no_descriptor_free(), pytest.raises(OSError, match="Too many open files"):
        procfs.is_alive(me.pid, me.start)
    with no_descriptor_free(), pytest.raises(OSError, match="Too many open files"):
        procfs.carries(me.pid, TOKEN)
    with no_descriptor_free(), pytest.raises(OSError, match="Too many open files"):
        procfs.processes()
    assert procfs.is_alive(me.pid, me.start)


def test_a_control_group_that_cannot_be_looked_at_is_not_empty(tmp_path):
    (tmp_path / "cgroup.procs").write_text("17\n")
    group = Group((str(tmp_path),))

    with no_descriptor_free(), pytest.raises(OSError, match="Too many open files"):
        group.pids()
    assert group.pids() == {17}
    assert Group((str(tmp_path / "gone"),)).pids() == set()


def test_what_is_older_than_every_wrapper_belongs_to_a_kernel_that_has_ended():
    mine, parent = os.getsid(0), os.getpid()  # a session that began outside a container is 0 here
    theirs = mine + 1
    old, wrapper, young, other, own = (
        procfs.Process(pid, "S", parent, group=pid, session=session, start=start)
        for pid, session, start, parent in (
            (NOBODYS_PID + 10, theirs, 100, parent),
            (NOBODYS_PID + 20, theirs, 200, parent),
            (NOBODYS_PID + 30, theirs, 300, parent),
            (NOBODYS_PID + 40, theirs, 50, 1 if parent != 1 else 2),
            (NOBODYS_PID + 50, mine, 50, parent),
        )
    )
    table = {p.pid: p for p in (old, wrapper, young, other, own)}

    assert procfs.ownerless({NOBODYS_PID + 20}, table) == [old]
    assert procfs.ownerless({}, table) == [old, wrapper, young]
