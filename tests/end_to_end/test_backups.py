"""Backups with a real server: taken while it writes, restored while agents have newer kernels."""

import json
import threading

import pytest

from tests.end_to_end.test_command import Place, until

pytestmark = [pytest.mark.real, pytest.mark.slow]


@pytest.fixture
def place():
    """A home of this test's own."""
    place = Place()
    yield place
    place.clean_up()


def is_in_order(place, *args):
    found = place.json("db", "check", *args)
    assert found["ok"], found
    return found


def test_a_backup_under_writers_is_one_moment_of_the_store(place):
    place.submit("--", "true")
    over = threading.Event()

    def submit_on_and_on():
        while not over.is_set():
            place.submit("--array", "0-9", "--", "true")

    writer = threading.Thread(target=submit_on_and_on)
    writer.start()
    try:
        counts = []
        for number in range(5):
            place("db", "backup", str(place.path / f"{number}.db"))
            counts.append(is_in_order(place, str(place.path / f"{number}.db"))["sessions"])
    finally:
        over.set()
        writer.join()

    assert counts == sorted(counts)
    assert counts[-1] > counts[0]


def test_what_ended_after_the_backup_ends_as_it_did(place):
    long = place.submit("--", "sh", "-c", "until [ -e go ]; do sleep 0.05; done; exit 7")
    place.until_status(long, "RUNNING")
    place("db", "backup", str(place.path / "b.db"))
    (place.path / "go").touch()
    cwd = place.show(long)["spec"]["cwd"] if "spec" in place.show(long) else None
    print(cwd, json.dumps(place.show(long))[:300])
    place("cancel", long)
    place.until_status(long, "TERMINATED")
    place("down")

    place("db", "restore", str(place.path / "b.db"), "--force")

    found = place.until_status(long, "TERMINATED")
    print(found)
    is_in_order(place)


@pytest.mark.parametrize("choice", ["stop", "leave"])
def test_kernels_that_are_newer_than_the_backup_are_stopped_or_left(place, choice):
    mark = place.path / "runs"
    word = f"echo $SOKOVAN_KERNEL_TOKEN >> {mark}; exec sleep 600"
    known = place.submit("--hold", "--name", "known", "--", "sh", "-c", word)
    place("db", "backup", str(place.path / "b.db"))
    place("release", known)
    new = place.submit("--name", "new", "--", "sh", "-c", word)
    for ref in (known, new):
        place.until_status(ref, "RUNNING")
    until(lambda: len(mark.read_text().split()) == 2, "both run")
    place("down")

    refused = place("db", "restore", str(place.path / "b.db"), "--force", code=4)
    assert "2 kernels may run that the backup knows nothing of" in refused.stderr
    place("db", "restore", str(place.path / "b.db"), "--force", "--kernels", choice)

    place("release", known)
    place.until_status(known, "RUNNING")
    until(lambda: len(mark.read_text().split()) == 3, "it runs again")
    place("show", new, code=3)
    print(place("agents").stdout, place.json("status"))
    alive = [
        t
        for t in mark.read_text().split()
        if (place.path / f"agents/local/kernels/{t}").exists()
        and not (place.path / f"agents/local/kernels/{t}/ended.json").exists()
    ]
    print(alive)
    assert len(alive) == (1 if choice == "stop" else 3)
    if choice == "stop":
        until(lambda: place.json("status")["leftovers"] == 0, "leftovers are gone")
    is_in_order(place)
