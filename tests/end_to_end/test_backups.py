"""Backups with a real server: taken while it writes, restored while agents have newer kernels."""

import threading

import pytest

from sokovan.agent.journal import Journal
from tests.end_to_end.test_command import Place, until

pytestmark = [pytest.mark.real, pytest.mark.slow]


@pytest.fixture
def place():
    """A home of this test's own."""
    place = Place()
    yield place
    place.clean_up()


def in_order(place, *args):
    found = place.json("db", "check", *args)
    assert found["ok"], found
    return found


def test_a_backup_under_writers_is_one_moment_of_the_store(place):
    """And what was there before is pruned meanwhile."""
    place.submit("--", "true")
    over = threading.Event()

    def submit_on_and_on():
        while not over.wait(0.3):
            place.submit("--array", "0-9", "--", "true")

    writer = threading.Thread(target=submit_on_and_on)
    writer.start()
    try:
        counts = []
        for number in range(2):
            backup = str(place.path / f"{number}.db")
            place("db", "backup", backup)
            counts.append(in_order(place, backup)["sessions"])
            until(lambda: in_order(place)["sessions"] > counts[-1], "more sessions")
        until(lambda: place.json("db", "prune", "--older-than", "1s")["sessions"], "old sessions")
        in_order(place)
    finally:
        over.set()
        writer.join()

    assert counts == sorted(set(counts))
    in_order(place)


def test_what_has_ended_since_the_backup_ends_as_it_did(place):
    go, backup = place.path / "go", str(place.path / "b.db")
    script = f"until [ -e {go} ]; do sleep 0.05; done; exit 7"
    session_id = place.submit("--", "sh", "-c", script)
    place.until_status(session_id, "RUNNING")
    place("db", "backup", backup)
    go.touch()
    place.until_status(session_id, "TERMINATED")
    place("down")

    place("db", "restore", backup, "--force")

    assert place.until_status(session_id, "TERMINATED")["exit_code"] == 7
    in_order(place)


@pytest.mark.parametrize("choice", ["stop", "leave"])
def test_kernels_that_are_newer_than_the_backup_are_stopped_or_left(place, choice):
    started, backup = place.path / "started", str(place.path / "b.db")
    script = f"echo $SOKOVAN_KERNEL_TOKEN >> {started}; exec sleep 600"
    known = place.submit("--hold", "--", "sh", "-c", script)
    place("db", "backup", backup)
    place("release", known)
    new = place.submit("--", "sh", "-c", script)
    for ref in (known, new):
        place.until_status(ref, "RUNNING")
    until(lambda: len(started.read_text().split()) == 2, "both run")
    place("down")

    refused = place("db", "restore", backup, "--force", code=4)
    assert "2 kernels may run that the backup knows nothing of" in refused.stderr
    said = place.json("db", "restore", backup, "--force", "--kernels", choice)
    assert said["to_stop"] == (2 if choice == "stop" else 0)

    place("release", known)
    place.until_status(known, "RUNNING")
    until(lambda: len(started.read_text().split()) == 3, "it runs again")
    place("show", new, code=3)
    if choice == "stop":
        until(lambda: place.json("status")["leftovers"] == 0, "nothing is left over")
    kernels = place.path / "agents" / "local" / "kernels"
    alive = [
        token
        for token in started.read_text().split()
        if (kernels / token).exists() and not Journal(kernels.parent).is_over(token)
    ]
    assert len(alive) == (1 if choice == "stop" else 3)
    in_order(place)


@pytest.mark.postgres
def test_a_session_runs_on_while_its_store_moves_to_postgresql_and_back(place, postgresql):
    go = place.path / "go"
    script = f"until [ -e {go} ]; do sleep 0.05; done; exit 7"
    session_id = place.submit("--", "sh", "-c", script)
    place.until_status(session_id, "RUNNING")
    url = postgresql.empty()
    assert "a server already runs" in place("db", "move", "--to", url, code=4).stderr
    place("down")

    place("db", "move", "--to", url)
    place.until_status(session_id, "RUNNING")
    place.until_status(place.submit("--", "true"), "TERMINATED")
    place("db", "backup", str(place.path / "b.db"))
    assert in_order(place)["sessions"] == in_order(place, str(place.path / "b.db"))["sessions"] == 2
    place("down")

    place("db", "move", "--to", "file")
    go.touch()
    assert place.until_status(session_id, "TERMINATED")["exit_code"] == 7
    assert in_order(place)["sessions"] == 2
