"""`sokovan db` killed at any moment: what was there is there, or what was to be."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from sqlalchemy import Engine, event

from sokovan.cli.main import run
from sokovan.store.tables import metadata
from tests.stores import StoreHome, write_store

pytestmark = [pytest.mark.faults, pytest.mark.slow]

POINTS_MAX = 10
"""So many moments of one command are tried at most, evenly over all that there are."""


class Killed:
    """Runs a command in a process of its own, which kills itself at a point of its way.

    Points are the statements that it executes, and what it does to files.
    """

    def __init__(self, home: Path) -> None:
        self._home = home

    def __call__(self, *args: str, point: int | None = None) -> int:
        """Return how many points it came by; with `point` it gets no further than that one."""
        ours, its = os.pipe()
        child = os.fork()
        if child == 0:
            self._run(args, point, its)
        os.close(its)
        with os.fdopen(ours) as pipe:
            said = pipe.read()
        _, status = os.waitpid(child, 0)
        if point is not None:
            assert os.WIFSIGNALED(status), (args, point, said)
            return point
        return int(json.loads(said))

    def _run(self, args: tuple[str, ...], point: int | None, pipe: int) -> None:
        try:
            passed = 0

            def pass_by(*_: object) -> None:
                nonlocal passed
                passed += 1
                if passed == point:
                    os.kill(os.getpid(), signal.SIGKILL)

            event.listen(Engine, "before_cursor_execute", pass_by)
            event.listen(Engine, "commit", pass_by)
            for owner, name in (
                (os, "fsync"),
                (os, "link"),
                (Path, "rename"),
                (Path, "hardlink_to"),
                (Path, "unlink"),
            ):
                setattr(owner, name, _counted(getattr(owner, name), pass_by))
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            code = run(["db", args[0], "--home", str(self._home), *args[1:]])
            os.write(pipe, json.dumps(passed if code == 0 else f"exit code {code}").encode())
        finally:
            os._exit(0)


def _counted(function, pass_by):
    def counting(*args, **options):
        pass_by()
        return function(*args, **options)

    return counting


@pytest.fixture
def home(tmp_path, capsys):
    home = StoreHome(tmp_path / "home", capsys)
    home.path.mkdir(mode=0o700)
    return home


def contents(home):
    found = {table: home.rows(table) for table in metadata.tables}
    del found["scaling_groups"]  # leases are freed by a restore
    return found


def points(count):
    return range(1, count + 1, max(1, count // POINTS_MAX))


def begin_anew(home, step="0005"):
    shutil.rmtree(home.path)
    home.path.mkdir(mode=0o700)
    if step == "0005":
        write_store(home.path / "sokovan.db")
        home.execute("DELETE FROM webhooks")
    else:
        write_store(home.path / "sokovan.db", step, upgraded=False)


def no_parts(home):
    return not any(".sokovan-part" in name for name in home.names())


@pytest.mark.parametrize("step", ["0001", "0004"])
def test_an_upgrade_is_all_or_nothing(home, step):
    begin_anew(home, step)
    count = Killed(home.path)("upgrade")
    assert count > 10
    after = contents(home)

    for point in points(count):
        begin_anew(home, step)
        Killed(home.path)("upgrade", point=point)
        assert home.execute("SELECT version_num FROM alembic_version")[0][0] in {step, "0005"}
        home("upgrade")
        assert contents(home) == after, point
        assert home.json("check")["ok"]
        assert no_parts(home)


def test_a_restore_is_all_or_nothing(home, tmp_path):
    begin_anew(home)
    backup = str(tmp_path / "b.db")
    home("backup", backup)
    restored = contents(home)
    home("prune", "--older-than", "30d")
    before = contents(home)
    assert before != restored
    shutil.copytree(home.path, tmp_path / "kept")
    count = Killed(home.path)("restore", backup, "--force")
    assert count > 10

    for point in points(count):
        shutil.rmtree(home.path)
        shutil.copytree(tmp_path / "kept", home.path)
        Killed(home.path)("restore", backup, "--force", point=point)
        assert contents(home) in (before, restored), point
        assert home.json("check")["ok"]
        home("restore", backup, "--force")
        assert contents(home) == restored
        assert no_parts(home)


def test_what_was_pruned_before_the_end_is_pruned(home, monkeypatch):
    monkeypatch.setattr("sokovan.store.pruning.REMOVED_AT_ONCE", 1)
    begin_anew(home)
    count = Killed(home.path)("prune", "--older-than", "30d")
    assert count > 10
    after = contents(home)

    for point in points(count):
        begin_anew(home)
        Killed(home.path)("prune", "--older-than", "30d", point=point)
        assert home.json("check")["ok"], point
        home("prune", "--older-than", "30d")
        assert contents(home) == after


@pytest.mark.postgres
def test_a_move_leaves_one_whole_store_and_is_finished_by_the_next(home, postgresql):
    begin_anew(home)
    before = contents(home)
    count = Killed(home.path)("move", "--to", postgresql.empty())
    assert count > 10

    for point in points(count):
        begin_anew(home)
        url = postgresql.empty()
        Killed(home.path)("move", "--to", url, point=point)
        assert contents(home) == before, point
        assert home.json("check")["ok"]
        if not (home.path / "database").exists():
            home("move", "--to", url)
        assert contents(home) == before
        there = home.json("check")
        assert there["ok"]


@pytest.mark.postgres
def test_a_move_back_leaves_one_whole_store_and_is_finished_by_the_next(home, postgresql):
    begin_anew(home)
    before, url = contents(home), postgresql.empty()
    home("move", "--to", url)
    count = Killed(home.path)("move", "--to", "file")
    assert count > 10

    for point in points(count):
        shutil.rmtree(home.path)
        home.path.mkdir(mode=0o700)
        home.use(url)
        Killed(home.path)("move", "--to", "file", point=point)
        assert contents(home) == before, point
        if (home.path / "database").exists():
            home("move", "--to", "file")
        assert contents(home) == before
        assert home.json("check")["ok"]
        assert no_parts(home)
