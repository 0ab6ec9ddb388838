"""`sokovan db check`: what it finds in a store, and that it leaves no trace."""

import contextlib
import json
import shutil
import sqlite3
from pathlib import Path

import pytest

from sokovan.cli.main import run
from sokovan.config import StoreConfig
from sokovan.simulator import admission, checks, tries
from sokovan.simulator import survey as survey_module
from sokovan.simulator.observe import read_picture
from sokovan.simulator.survey import survey
from sokovan.store.engine import InlineDatabase
from sokovan.store.schema import HEAD, prepare
from sokovan.store.sqlite import open_sqlite
from tests.stores import StoreHome, write_store

OLD_STORE = Path(__file__).parents[1] / "fixtures" / "store_0001.sql"
FAULTS = {
    "a status that history does not lead to": (
        "UPDATE sessions SET status = 'PREPARING' WHERE name = 'prepared'",
        "history ends with PREPARED, 3, but it is PREPARING, 3",
    ),
    "a kernel without its hold": (
        "DELETE FROM holds WHERE leftover_since IS NULL AND agent_id = 'a1'",
        "holds nothing",
    ),
    "a hold that nobody has": (
        "UPDATE holds SET leftover_since = NULL WHERE agent_id = 'a2'",
        "has no kernel and is no leftover",
    ),
    "a device that is held more than once": (
        "UPDATE holds SET devices = '[[0, 1001]]' WHERE agent_id = 'a2'",
        "agent a2: more gpu0 is held than it has",
    ),
    "a failure that nobody retried": (
        "UPDATE sessions SET retries = 1 WHERE name = 'failed'",
        "with 1 retries left, and is retried 0 times",
    ),
    "what is held back and placed": (
        "UPDATE sessions SET held = 1 WHERE name = 'prepared'",
        "it is PREPARED while it is held back",
    ),
    "an agent that is not there": ("DELETE FROM agents WHERE agent_id = 'a2'", "is not known"),
    "a gap in history": (
        "DELETE FROM history WHERE to_status = 'RUNNING' AND kernel_id IS NULL",
        "history has a gap before",
    ),
    "another reason than the first": (
        "UPDATE sessions SET reason = 'WALLTIME_EXCEEDED' WHERE name = 'failed'",
        "it first ended for KERNEL_FAILED, but its reason is WALLTIME_EXCEEDED",
    ),
    "an end without its time": (
        "UPDATE sessions SET ended_at = NULL WHERE name = 'finished'",
        "it is TERMINATED and ended at None",
    ),
    "a failure that nobody counted": (
        (
            "INSERT INTO history (session_id, status_seq, from_status, to_status, reason, detail,"
            " stage, at) SELECT session_id, status_seq, status, status, 'AGENT_FAILED', '',"
            " 'start-sessions', status_since FROM sessions WHERE name = 'prepared'"
        ),
        "start-sessions failed 1 times in this phase and counts 0",
    ),
}


@pytest.fixture
def home(tmp_path):
    """A home with a store of this version, with sessions alive and over, that nobody has open."""
    with contextlib.closing(sqlite3.connect(tmp_path / "sokovan.db")) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.executescript(OLD_STORE.read_text())
    engine = open_sqlite(tmp_path / "sokovan.db", StoreConfig())
    prepare(engine)
    engine.dispose()
    assert [path.name for path in tmp_path.iterdir()] == ["sokovan.db"]
    return tmp_path


def broken(home, statement):
    with contextlib.closing(sqlite3.connect(home / "sokovan.db")) as connection:
        assert connection.execute(statement).rowcount > 0, "the fault is not there"
        connection.commit()


def checked(home, capsys, *args):
    code = run(["db", "check", "--home", str(home), *args])
    said = capsys.readouterr()
    return code, said.out, said.err


def found_in(home, look):
    database = InlineDatabase(open_sqlite(home / "sokovan.db", StoreConfig()))
    with contextlib.closing(database):
        return database.write_now(look)


def test_a_store_in_order_is_said_to_be(home, capsys):
    code, out, _ = checked(home, capsys)

    assert code == 0
    assert out == (
        "looked at 8 sessions, 9 kernels, 3 holds, 2 agents, 82 history lines: all is well\n"
    )


def test_an_agent_that_has_less_than_it_holds_is_noted_and_no_failure(home, capsys):
    broken(home, "UPDATE holds SET cpu_milli = 5000 WHERE agent_id = 'a2'")

    code, out, _ = checked(home, capsys)
    _, said, _ = checked(home, capsys, "--json")

    assert code == 0
    note, summary = out.splitlines()
    assert note.startswith("note: agent a2: more cpu is held than it has; this is in order if")
    assert summary.endswith("all is well")
    assert json.loads(said)["notes"] == [note.removeprefix("note: ")]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_a_sentence_and_a_failure(home, capsys, fault):
    statement, words = FAULTS[fault]
    broken(home, statement)

    code, out, _ = checked(home, capsys)

    assert code == 1
    *sentences, summary = out.splitlines()
    assert any(words in sentence for sentence in sentences)
    assert summary.endswith("wrong")


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("at_once", [1, 3, 1000])
def test_part_by_part_finds_what_a_whole_picture_finds(home, monkeypatch, fault, at_once):
    monkeypatch.setattr(survey_module, "SESSIONS_AT_ONCE", at_once)
    broken(home, FAULTS[fault][0])

    parts = found_in(home, survey)

    picture = found_in(home, read_picture)
    whole = checks.violations(picture) + tries.violations(picture)
    for check in (*admission.OF_EACH_SESSION, admission.failures_are_retried):
        whole += check(picture)
    assert whole
    assert sorted(parts.violations) == sorted(whole)


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE sessions SET status = 'SLEEPING' WHERE name = 'held'", "cannot be read"),
        ("UPDATE sessions SET unmet = '{' WHERE name = 'after'", "cannot be read"),
        ("UPDATE history SET to_status = 'SLEEPING' WHERE line = 4", "cannot be judged"),
        ("UPDATE holds SET devices = 'none' WHERE agent_id = 'a2'", "a row cannot be read"),
        ("DELETE FROM specs WHERE session_id IN (SELECT session_id FROM sessions LIMIT 1)",
         "what was submitted is not there"),
        ("DELETE FROM sessions WHERE name = 'cancelled'", "is in history, but does not exist"),
    ],
)  # fmt: skip
def test_what_no_version_can_have_written_is_a_fault_too(home, capsys, statement, words):
    broken(home, statement)

    code, out, _ = checked(home, capsys)

    assert code == 1
    assert words in out
    assert "looked at" in out.splitlines()[-1]


def test_one_session_that_makes_no_sense_does_not_hide_the_others(home, capsys):
    broken(home, "UPDATE history SET to_status = 'SLEEPING' WHERE line = 4")
    broken(home, "UPDATE sessions SET ended_at = NULL WHERE name = 'cancelled'")

    _, out, _ = checked(home, capsys)

    assert "cannot be judged" in out
    assert "it is CANCELLED and ended at None" in out


def test_more_requeues_than_the_settings_allow_now_are_no_fault(home, capsys):
    broken(home, "UPDATE sessions SET requeues = 20 WHERE name = 'lost'")

    assert checked(home, capsys)[0] == 0


def test_programs_are_told_the_same(home, capsys):
    broken(home, "UPDATE sessions SET ended_at = NULL WHERE name = 'finished'")

    code, out, _ = checked(home, capsys, "--json")

    found = json.loads(out)
    assert code == 1
    assert found["ok"] is False
    assert len(found["violations"]) == 1
    assert (found["sessions"], found["kernels"], found["holds"]) == (8, 9, 3)
    assert (found["agents"], found["history_lines"]) == (2, 82)


# --- leaving no trace -----------------------------------------------------------------------------


def traces(home):
    return {
        path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in sorted(home.iterdir())
    }


def test_without_a_server_the_home_stays_as_it_is(home, capsys):
    before = traces(home)

    assert checked(home, capsys)[0] == 0

    assert traces(home) == before


def test_a_home_without_a_store_is_not_given_one(tmp_path, capsys):
    code, out, err = checked(tmp_path / "none", capsys)

    assert (code, out) == (5, "")
    assert "there is no store" in err
    assert list(tmp_path.iterdir()) == []


def test_what_only_the_log_has_is_seen_too(home, capsys):
    """A server that runs, or was killed, has changes that are not in the file yet."""
    with contextlib.closing(sqlite3.connect(home / "sokovan.db")) as connection:
        connection.execute("UPDATE sessions SET ended_at = NULL WHERE name = 'finished'")
        connection.commit()

        assert checked(home, capsys)[0] == 1

        killed = home / "killed"
        killed.mkdir()
        for name in ("sokovan.db", "sokovan.db-wal"):
            shutil.copy(home / name, killed)
        assert checked(killed, capsys)[0] == 1


def test_a_transaction_under_way_neither_stops_it_nor_is_seen(home, capsys):
    with contextlib.closing(sqlite3.connect(home / "sokovan.db")) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("DELETE FROM history")

        assert checked(home, capsys)[0] == 0


def test_a_store_that_changes_while_it_is_read_without_a_log_is_read_again(home):
    from sokovan.store.beside import read_beside

    seen = []

    def look(tx):
        seen.append(tx.connection.exec_driver_sql("SELECT max(number) FROM sessions").scalar_one())
        if len(seen) == 1:
            broken(home, "UPDATE sessions SET number = 1000 WHERE name = 'held'")
        return seen[-1]

    assert read_beside(home / "sokovan.db", look) == 1000
    assert seen == [8, 1000]


@pytest.mark.parametrize(
    ("version", "words"),
    [("0001", "start the server"), ("9999", "a newer Sokovan has used it")],
)
def test_a_store_of_another_version_is_refused(home, capsys, version, words):
    broken(home, f"UPDATE alembic_version SET version_num = '{version}'")
    before = traces(home)

    code, out, err = checked(home, capsys)

    assert (code, out) == (4, "")
    assert version in err
    assert words in err
    assert traces(home) == before


def test_a_file_that_is_no_store_is_said(home, capsys):
    (home / "sokovan.db").write_text("this is not a database, and long enough for a header\n" * 20)

    code, _, err = checked(home, capsys)

    assert code == 4
    assert "cannot be read: file is not a database" in err


# --- upgrading ------------------------------------------------------------------------------------


@pytest.fixture
def old(tmp_path, capsys):
    """A home whose store an earlier version has left."""
    home = StoreHome(tmp_path / "home", capsys)
    home.path.mkdir(mode=0o700)
    write_store(home.path / "sokovan.db", "0003", upgraded=False)
    return home


def test_an_upgrade_says_what_it_did_and_keeps_what_was_there(old):
    said = old("upgrade")

    assert said.startswith(f"brought the store from schema 0003 to {HEAD}\n")
    (kept,) = (old.path / name for name in old.names() if ".schema-0003-" in name)
    assert str(kept) in said
    assert kept.stat().st_mode & 0o777 == 0o600
    with contextlib.closing(sqlite3.connect(kept)) as store:
        assert store.execute("SELECT version_num FROM alembic_version").fetchone() == ("0003",)
    assert old.json("check")["ok"]


def test_what_is_kept_by_an_upgrade_can_be_restored(old):
    kept = old.json("upgrade")["backup"]

    old("restore", kept, "--force")

    assert old.json("check")["sessions"] == 8


def test_without_a_backup_nothing_is_kept(old):
    assert old.json("upgrade", "--no-backup") == {
        "from": "0003",
        "to": HEAD,
        "schema": HEAD,
        "backup": None,
    }
    assert old.names() == {"sokovan.db", "lock"}


def test_an_upgrade_can_be_asked_for_first(old):
    said = old("upgrade", "--check", code=1)

    assert said == f"the store has schema 0003, and would be brought to {HEAD}\n"
    assert old.json("upgrade", "--check", code=1)["schema"] == "0003"
    old("upgrade")
    assert old("upgrade", "--check") == old("upgrade")
    assert "already" in old("upgrade")


def test_a_newer_store_is_not_upgraded(old):
    old.execute("UPDATE alembic_version SET version_num = '9999'")

    assert "a newer Sokovan has used it" in old("upgrade", code=4)
    assert "a newer Sokovan has used it" in old("backup", old.path / "b.db", code=4)
    assert old.names() == {"sokovan.db"}


@pytest.mark.parametrize(
    "words",
    [
        ("upgrade",),
        ("backup", "b.db"),
        ("check", "--repair"),
        ("prune", "--older-than", "1d"),
        ("move", "--to", "postgresql://a@127.0.0.1:1/b"),
    ],
)
def test_a_home_without_a_store_is_said_to_have_none(tmp_path, capsys, words):
    words = [str(tmp_path / word) if word.endswith(".db") else word for word in words]

    assert "there is no store" in StoreHome(tmp_path, capsys)(*words, code=5)
    assert not list(tmp_path.glob("*.db"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("restore", "none.db", "--force"), "there is no backup none.db"),
        (("move", "--to", "mysql://x"), "store.url: it is no address of a database"),
        (("prune", "--older-than", "soon"), "older-than"),
    ],
)
def test_what_makes_no_sense_is_said(old, words, said):
    old("upgrade")

    assert said in old(*words, code=5 if words[0] == "restore" else 4)


@pytest.mark.parametrize("words", [("check", "x.db", "--repair"), ("restore", "x", "--kernels=no")])
def test_options_that_do_not_go_together_are_misuse(old, words):
    old(*words, code=2)


def test_a_damaged_store_is_not_backed_up_over_a_good_backup(old):
    old("upgrade")
    old("backup", old.path / "b.db")
    good = (old.path / "b.db").read_bytes()
    data = bytearray((old.path / "sokovan.db").read_bytes())
    data[8192:12288] = b"\xff" * 4096
    (old.path / "sokovan.db").write_bytes(data)

    said = old("backup", old.path / "b.db", "--force", code=4)

    assert "damaged" in said or "malformed" in said
    assert (old.path / "b.db").read_bytes() == good
    assert not [name for name in old.names() if "part" in name]


def test_a_store_beyond_reading_is_replaced_by_a_backup(old):
    old("upgrade")
    old("backup", old.path / "b.db")
    (old.path / "sokovan.db").write_bytes(b"this is no database\n" * 500)

    assert "add --force" in old("restore", old.path / "b.db", code=4)
    kept = old.json("restore", old.path / "b.db", "--force")["kept"]

    assert old.json("check")["ok"]
    assert Path(kept).read_bytes().startswith(b"this is no database")
