"""`sokovan db backup restore check prune move`: the same on every database."""

import contextlib
import sqlite3
from dataclasses import replace

import pytest

from sokovan.cli.main import run
from sokovan.config import StoreConfig, load_config
from sokovan.domain.errors import HomeError
from sokovan.home import held
from sokovan.store.backups import back_up
from sokovan.store.files import whole_file
from sokovan.store.opening import FILE, open_store
from sokovan.store.schema import prepare
from sokovan.store.tables import metadata
from tests.stores import a_store_home, write_store

TABLES = sorted(metadata.tables)
NOT_THERE = {"marks", "managers"}
"""What a store of 0004 does not have."""
ANN_HAS_ENDED = "UPDATE sessions SET ended_at = 2e9 WHERE name = :name"


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def home(request, tmp_path, capsys):
    """A home with sessions of every kind, in either database."""
    home = a_store_home(tmp_path / "home", capsys)
    if request.param == "postgresql":
        home("move", "--to", request.getfixturevalue("postgresql").empty())
        for path in home.path.glob("sokovan.db*"):
            path.unlink()
    return home


@pytest.fixture
def emptied(home, request, tmp_path, capsys):
    """Another home of the same kind, without sessions."""
    other = type(home)(tmp_path / "other", capsys)
    other.path.mkdir(mode=0o700)
    if request.node.callspec.params["home"] == "postgresql":
        other.use(request.getfixturevalue("postgresql").empty())
    return other


def contents(home):
    return {table: home.rows(table) for table in TABLES}


def but_leases(found):
    return {table: rows for table, rows in found.items() if table != "scaling_groups"}


# --- backup and restore ---------------------------------------------------------------------------


def test_what_is_backed_up_and_restored_is_the_same(home, emptied, tmp_path):
    before = contents(home)
    filled = all(rows for table, rows in before.items() if table not in NOT_THERE)
    assert filled, "it proves nothing"

    said = home("backup", tmp_path / "b.db")
    emptied("restore", tmp_path / "b.db")

    assert said.startswith("wrote 22 sessions and 200 history lines into ")
    assert but_leases(contents(emptied)) == but_leases(before)
    assert contents(home) == before
    assert emptied.json("check")["ok"]


def test_a_backup_is_one_private_file_that_can_be_checked(home, tmp_path):
    home("backup", tmp_path / "b.db")

    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {"b.db"}
    assert (tmp_path / "b.db").stat().st_mode & 0o777 == 0o600
    assert home.json("check", tmp_path / "b.db")["sessions"] == 22
    with contextlib.closing(sqlite3.connect(tmp_path / "b.db")) as file:
        assert file.execute("PRAGMA journal_mode").fetchone() == ("delete",)


def test_a_file_that_exists_is_replaced_by_force_only(home, tmp_path):
    (tmp_path / "b.db").write_text("mine")

    said = home("backup", tmp_path / "b.db", code=4)

    assert "b.db exists already; name another file, or add --force" in said
    assert (tmp_path / "b.db").read_text() == "mine"
    home("backup", tmp_path / "b.db", "--force")
    assert home.json("check", tmp_path / "b.db")["ok"]


def test_a_store_with_sessions_is_replaced_by_force_only_and_kept(home, tmp_path, capsys):
    home("backup", tmp_path / "b.db")
    home.execute("UPDATE sessions SET name = 'later' WHERE name = 'finished'")
    later = contents(home)

    said = home("restore", tmp_path / "b.db", code=4)
    assert "has 22 sessions; add --force" in said
    assert contents(home) == later

    kept = home.json("restore", tmp_path / "b.db", "--force")["kept"]
    assert home.execute("SELECT count(*) FROM sessions WHERE name = 'later'") == [(0,)]
    home("restore", kept, "--force")
    assert but_leases(contents(home)) == but_leases(later)


def test_nobody_of_before_drives_a_group_of_what_was_restored(home, tmp_path):
    home("backup", tmp_path / "b.db")
    home.execute("UPDATE scaling_groups SET fencing_token = 40, lease_holder = 'paused'")

    home("restore", tmp_path / "b.db", "--force")

    found = home.execute("SELECT DISTINCT fencing_token, lease_holder FROM scaling_groups")
    assert found == [(41, None)]


def test_a_backup_that_is_not_whole_is_not_restored(home, tmp_path):
    home("backup", tmp_path / "b.db")
    with contextlib.closing(sqlite3.connect(tmp_path / "b.db")) as file:
        file.execute("UPDATE sessions SET ended_at = NULL WHERE name = 'finished'")
        file.commit()
    before = contents(home)

    said = home("restore", tmp_path / "b.db", "--force", code=4)

    assert "1 thing in the backup does not agree with the rest" in said
    assert contents(home) == before
    home("restore", tmp_path / "b.db", "--force", "--damaged")
    assert not home.json("check", code=1)["ok"]
    home("check", "--repair")
    assert home.json("check")["ok"]


@pytest.mark.parametrize("step", ["0001", "0003", "0004"])
def test_a_backup_of_an_earlier_version_is_brought_up_to_date(emptied, tmp_path, step):
    write_store(tmp_path / "old.db", step, upgraded=False)

    emptied("restore", tmp_path / "old.db")

    assert emptied.json("check")["ok"]
    with contextlib.closing(sqlite3.connect(tmp_path / "old.db")) as file:
        assert file.execute("SELECT version_num FROM alembic_version").fetchone() == (step,)


def test_a_backup_of_a_newer_version_is_refused(home, tmp_path):
    home("backup", tmp_path / "b.db")
    with contextlib.closing(sqlite3.connect(tmp_path / "b.db")) as file:
        file.execute("UPDATE alembic_version SET version_num = '9999'")
        file.commit()

    assert "a newer Sokovan has used it" in home("restore", tmp_path / "b.db", "--force", code=4)


@pytest.mark.parametrize("command", ["restore", "upgrade", "move", "repair"])
def test_while_a_server_runs_nothing_is_replaced(home, tmp_path, command):
    home("backup", tmp_path / "b.db")
    before = contents(home)
    words = {
        "restore": ("restore", tmp_path / "b.db", "--force"),
        "upgrade": ("upgrade",),
        "move": ("move", "--to", "postgresql://nobody@127.0.0.1:1/none"),
        "repair": ("check", "--repair"),
    }[command]
    if command == "upgrade":
        home.execute("DROP TABLE marks")
        home.execute("ALTER TABLE scaling_groups DROP COLUMN renewals")
        home.execute("UPDATE alembic_version SET version_num = '0004'")

    with held(home.path):
        said = home(*words, code=4)

    assert "a server already runs for the home" in said
    if command != "upgrade":
        assert contents(home) == before


@pytest.mark.postgres
def test_what_is_written_during_a_backup_is_not_in_it(tmp_path, capsys, postgresql):
    home = a_store_home(tmp_path / "home", capsys)
    home("move", "--to", postgresql.empty())
    before = contents(home)

    def write(_):
        home.execute("UPDATE sessions SET priority = priority + 1")
        home.execute("DELETE FROM history WHERE line = (SELECT max(line) FROM history)")

    back_up(home.path, load_config(home.path).store, tmp_path / "b.db", tell=write)

    assert contents(home) != before
    home("restore", tmp_path / "b.db", "--force")
    assert but_leases(contents(home)) == but_leases(before)


# --- moving ---------------------------------------------------------------------------------------


@pytest.mark.postgres
def test_a_move_there_and_back_changes_nothing(tmp_path, capsys, postgresql):
    home = a_store_home(tmp_path / "home", capsys)
    before = contents(home)
    url = postgresql.empty()

    there = home.json("move", "--to", url)
    assert home.json("check")["ok"]
    back = home.json("move", "--to", "file")

    assert contents(home) == before
    assert there["tables"] == back["tables"]
    assert home.json("check")["ok"]
    assert not (home.path / "database").exists()
    assert there["kept"].startswith(str(home.path / "sokovan.db.moved-"))


@pytest.mark.postgres
def test_numbers_go_on_behind_those_that_were_moved(tmp_path, capsys, postgresql):
    home = a_store_home(tmp_path / "home", capsys)
    home("move", "--to", postgresql.empty())

    columns = "session_id, status_seq, to_status, reason, detail, stage, at"
    (row,) = home.execute(
        f"INSERT INTO history ({columns}) VALUES ('s', 0, 'PENDING', '', '', '', 0) RETURNING line"
    )

    assert row == (201,)


@pytest.mark.postgres
def test_a_store_is_not_moved_over_another_one(tmp_path, capsys, postgresql):
    home, url = a_store_home(tmp_path / "home", capsys), postgresql.prepared()
    database = url.rsplit("/", 1)[1]
    postgresql.execute("INSERT INTO tokens VALUES ('t', 'ann', 'user', '', '', 0, 'ann')", database)

    said = home("move", "--to", url, code=4)

    assert "there is another store already" in said
    assert home.json("check")["ok"]
    assert not (home.path / "database").exists()
    assert postgresql.execute("SELECT count(*) FROM sessions", database) == [(0,)]


@pytest.mark.postgres
def test_a_foreign_database_is_left_alone(tmp_path, capsys, postgresql):
    home, url = a_store_home(tmp_path / "home", capsys), postgresql.empty()
    database = url.rsplit("/", 1)[1]
    postgresql.execute("CREATE TABLE cats (name text)", database)

    assert "this is no store of Sokovan" in home("move", "--to", url, code=4)

    tables = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
    assert postgresql.execute(tables, database) == [("cats",)]


@pytest.mark.postgres
def test_a_move_that_was_killed_before_the_home_knew_of_it_is_finished(
    tmp_path, capsys, postgresql, monkeypatch
):
    home, url = a_store_home(tmp_path / "home", capsys), postgresql.empty()
    monkeypatch.setattr("sokovan.store.moving.write_private", _die)
    home("move", "--to", url, code=1)
    monkeypatch.undo()
    assert (home.path / FILE).exists()
    assert home.json("check")["ok"]

    home("move", "--to", url)

    assert not (home.path / FILE).exists()
    assert home.json("check")["sessions"] == 22


def _die(*_):
    raise ZeroDivisionError


@pytest.mark.postgres
def test_what_postgresql_cannot_keep_is_named_or_replaced(tmp_path, capsys, postgresql):
    home, url = a_store_home(tmp_path / "home", capsys), postgresql.empty()
    home.execute("UPDATE kernels SET error = :error WHERE rowid = 1", error="a\0b")
    home.execute("UPDATE history SET detail = :detail WHERE line = 3", detail="\0")

    said = home("move", "--to", url, code=4)
    assert "kernels '" in said
    assert "error has a NUL character" in said
    assert "history 3: detail has a NUL character" in said
    assert not (home.path / "database").exists()

    home("move", "--to", url, "--replace-nul")
    assert home.execute("SELECT detail FROM history WHERE line = 3") == [("\ufffd",)]
    assert home.execute("SELECT error FROM kernels WHERE error IS NOT NULL") == [("a\ufffdb",)]


@pytest.mark.postgres
@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE sessions SET name = :long WHERE number = 1", "name is longer than 200"),
        (
            "UPDATE sessions SET status_seq = 3000000000 WHERE number = 1",
            "status_seq is too large a number",
        ),
        ("UPDATE sessions SET priority = 'x' WHERE number = 1", "priority is no int"),
    ],
)
def test_what_no_version_can_have_written_is_named(tmp_path, capsys, postgresql, statement, words):
    home = a_store_home(tmp_path / "home", capsys)
    home.execute(statement, **({"long": "x" * 201} if ":long" in statement else {}))

    said = home("move", "--to", postgresql.empty(), code=4)

    assert f"sessions 1: {words}" in said


@pytest.mark.postgres
@pytest.mark.parametrize("side", ["source", "target"])
def test_a_database_that_a_manager_of_another_home_uses_is_not_moved(
    tmp_path, capsys, postgresql, side
):
    home, url = a_store_home(tmp_path / "home", capsys), postgresql.empty()
    if side == "source":
        home("move", "--to", url)
    engine = open_store(tmp_path, replace(StoreConfig(), url=url))
    prepare(engine)
    with engine.connect():
        said = home("move", "--to", "file" if side == "source" else url, code=4)
    engine.dispose()

    assert "others of Sokovan are connected to this database (1)" in said
    home("move", "--to", "file" if side == "source" else url)


def test_a_home_is_not_moved_where_it_is(home):
    where = "file"
    if (home.path / "database").exists():
        where = (home.path / "database").read_text().strip()

    assert "the store is there already" in home("move", "--to", where, code=4)


def test_an_address_in_the_settings_is_not_left_behind(tmp_path, capsys):
    (tmp_path / "config.toml").write_text('[store]\nurl = "postgresql://a@127.0.0.1:1/b"\n')

    assert run(["db", "move", "--home", str(tmp_path), "--to", "file"]) == 4

    assert "the settings name the database" in capsys.readouterr().err


# --- pruning --------------------------------------------------------------------------------------


def test_old_sessions_go_with_all_that_is_theirs(home):
    home.execute("DELETE FROM webhooks")

    counted = home.json("prune", "--older-than", "30d", "--dry-run")
    found = home.json("prune", "--older-than", "30d")

    assert {**counted, "dry_run": False} == found
    assert (found["sessions"], found["arrays"], found["untold"]) == (7, 1, 0)
    left = {name for (name,) in home.execute("SELECT name FROM sessions")}
    assert not left & {"finished", "failed", "cancelled", "prepared", "over-3"}
    assert {"lost", "running", "after", "again", "sweep-0"} <= left
    assert home.json("check")["ok"]
    (orphans,) = home.execute(
        "SELECT count(*) FROM dependencies WHERE session_id NOT IN"
        " (SELECT session_id FROM sessions) OR depends_on NOT IN (SELECT session_id FROM sessions)"
    )
    assert orphans == (0,)
    assert home.json("prune", "--older-than", "30d")["sessions"] == 0


@pytest.mark.parametrize(
    ("what", "statement"),
    [
        ("is young", "UPDATE sessions SET ended_at = 4e9 WHERE name = 'finished'"),
        (
            "is what a live session depends on",
            (
                "INSERT INTO dependencies SELECT l.session_id, f.session_id, 'afterok'"
                " FROM sessions l, sessions f WHERE l.name = 'held' AND f.name = 'finished'"
            ),
        ),
        (
            "has a leftover",
            (
                "INSERT INTO holds SELECT 'token', session_id, 'kernel', 'a1', 1, 0, NULL, 1"
                " FROM sessions WHERE name = 'finished'"
            ),
        ),
        (
            "has a retry that lives",
            (
                "UPDATE sessions SET retry_of = (SELECT session_id FROM sessions WHERE name ="
                " 'finished') WHERE name = 'held'"
            ),
        ),
        (
            "was not told to a webhook",
            (
                "INSERT INTO webhooks VALUES"
                " ('w', 'root', 'http://x', '', NULL, 0, 3, 0, NULL, NULL, NULL)"
            ),
        ),
    ],
)
def test_who_is_needed_stays(home, what, statement):
    home.execute("DELETE FROM webhooks")
    home.execute(statement)

    home("prune", "--older-than", "30d")

    names = "SELECT name FROM sessions WHERE name = 'finished'"
    assert home.execute(names) == [("finished",)], what


def test_a_session_goes_together_with_its_retries(home):
    home.execute("DELETE FROM webhooks")
    home.execute(
        "UPDATE sessions SET retry_of = (SELECT session_id FROM sessions WHERE name = 'finished')"
        " WHERE name = 'failed'"
    )
    home.execute("UPDATE sessions SET ended_at = 4e9 WHERE name = 'failed'")
    home("prune", "--older-than", "30d")
    both = "SELECT count(*) FROM sessions WHERE name IN ('finished', 'failed')"
    assert home.execute(both) == [(2,)]

    home.execute("UPDATE sessions SET ended_at = 1e9 WHERE name = 'failed'")
    home("prune", "--older-than", "30d")

    assert home.execute(both) == [(0,)]


def test_the_last_line_and_the_last_session_stay_for_their_numbers(home):
    home.execute("DELETE FROM webhooks")
    home.execute("DELETE FROM holds")
    home.execute("UPDATE arrays SET ended_at = 1e9")
    home.execute("UPDATE sessions SET status = 'TERMINATED', ended_at = 1e9")
    highest = "SELECT (SELECT max(number) FROM sessions), (SELECT max(line) FROM history)"
    before = home.execute(highest)

    home("prune", "--older-than", "30d")

    assert home.execute(highest) == before
    assert home.execute("SELECT count(*) FROM sessions")[0][0] <= 2


def test_what_a_reader_has_missed_is_known(home):
    home.execute("DELETE FROM webhooks")

    home("prune", "--older-than", "30d")

    ((pruned,),) = home.execute("SELECT number FROM marks WHERE name = 'pruned_to'")
    assert 0 < pruned < 200
    home("prune", "--older-than", "30d")
    assert home.execute("SELECT number FROM marks") == [(pruned,)]


# --- repairs --------------------------------------------------------------------------------------

MENDED = {
    "rows of a session that does not exist": (
        "INSERT INTO specs VALUES ('nobody', '{}')",
        "session nobody: removed from specs, as it does not exist",
    ),
    "a hold that nobody has": (
        "UPDATE holds SET leftover_since = NULL WHERE agent_id = 'a2'",
        "has no kernel, a leftover from now on",
    ),
    "a hold on an agent that is not there": (
        "INSERT INTO holds VALUES ('token', 'nobody', 'nobody.0', 'a9', 1, 0, NULL, NULL)",
        "hold token: removed, as its agent a9 is not known",
    ),
    "a kernel without its hold": (
        "DELETE FROM holds WHERE cpu_milli = 500",
        "holds on a1 again what it asked for",
    ),
    "an end without its time": (
        "UPDATE sessions SET ended_at = NULL WHERE name = 'finished'",
        "ended when its history says that it did",
    ),
    "an array that counts wrong": (
        "UPDATE arrays SET failed = 0 WHERE size = 6",
        "counted again: 1 succeeded, 1 failed, 1 cancelled",
    ),
    "an array that is over and does not know": (
        "UPDATE arrays SET ended_at = NULL WHERE size = 3",
        "counted again: 0 succeeded, 0 failed, 3 cancelled",
    ),
    "one who waits for what was met": (
        (
            "UPDATE sessions SET unmet = (SELECT '[[\"' || session_id || '\",\"afterany\"]]'"
            " FROM sessions WHERE name = 'finished') WHERE name = 'after'"
        ),
        "waits no more for",
    ),
}


@pytest.mark.parametrize("fault", MENDED)
def test_what_follows_from_the_rest_is_mended(home, fault):
    statement, words = MENDED[fault]
    whole = contents(home)
    assert home.execute(statement) == [1]
    assert not home.json("check", code=1)["ok"], "the fault is not there"

    said = home("check", "--repair")

    assert words in said
    assert said.splitlines()[-1].endswith("all is well")
    assert home("check", "--repair").count("mended") == 0
    if fault in {"a kernel without its hold", "an end without its time"}:
        assert contents(home) == whole


def test_what_two_things_could_be_true_of_is_left_and_said(home):
    home.execute("UPDATE sessions SET status = 'PREPARING' WHERE name = 'running'")
    before = contents(home)

    said = home.json("check", "--repair", code=1)

    assert said["repairs"] == []
    assert said["violations"]
    assert contents(home) == before


def test_a_repair_that_makes_it_worse_is_taken_back(home, monkeypatch):
    def spoil(tx, _now):
        tx.connection.exec_driver_sql("DELETE FROM history WHERE kernel_id IS NULL")
        yield "all is fine"

    monkeypatch.setattr("sokovan.simulator.mending.mend.__defaults__", ((spoil,),))
    before = contents(home)

    said = home("check", "--repair", code=4)

    assert "to mend the store made it worse, so that nothing was changed" in said
    assert contents(home) == before


def test_a_password_on_a_command_line_is_refused_and_not_repeated(home):
    before = contents(home)

    said = home("move", "--to", "postgresql://ann:secret@127.0.0.1:1/none", code=4)

    assert "--to: everybody on this machine can read a password" in said
    assert "secret" not in said
    assert contents(home) == before


@pytest.mark.parametrize("letters", [240, 300])
def test_a_backup_under_a_name_that_is_too_long_is_refused(tmp_path, letters):
    too_long = pytest.raises(HomeError, match="cannot be written: File name too long")
    with too_long, whole_file(tmp_path / ("x" * letters)):
        pass

    assert list(tmp_path.iterdir()) == []
