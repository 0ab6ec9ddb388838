"""`doctor` asks a PostgreSQL what the server will need of it."""

import psycopg
import pytest

from sokovan.cli.checks import Ground, State, database, place
from sokovan.clock import ManualClock
from sokovan.config import StoreConfig
from tests.postgresql import Server

pytestmark = pytest.mark.postgres


@pytest.fixture(scope="module")
def durable():
    server = Server(durable=True)
    yield server
    server.close()


def found(url, tmp_path, now=1e12):
    checked = database.database(Ground(tmp_path, clock=ManualClock(now)), StoreConfig(url=url))
    return [(finding.state, finding.says) for finding in checked]


def test_a_database_that_is_ready_is_named_with_its_version(durable, tmp_path):
    answers, clock = found(durable.prepared(), tmp_path)

    assert answers[0] is State.OK
    assert answers[1].endswith("answers and can be written")
    assert clock == (State.OK, "the clock is not behind the store")


def test_an_empty_database_is_fine(durable, tmp_path):
    _, content = found(durable.empty(), tmp_path)

    assert content == (State.OK, "the database is empty; the first server makes its tables")


def test_an_older_schema_is_a_warning_and_a_newer_one_a_problem(durable, tmp_path):
    url = durable.prepared()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0001'")
        older = found(url, tmp_path)[1]
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        newer = found(url, tmp_path)[1]

    assert older[0] is State.WARNING
    assert newer[0] is State.PROBLEM


def test_a_clock_behind_what_was_written_last_is_a_problem(durable, tmp_path):
    url = durable.prepared()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO history"
            " (line, session_id, status_seq, at, to_status, reason, detail, stage)"
            " VALUES (1, 's', 1, 5000, 'PENDING', 'SUBMITTED', '', '')"
        )

    state, says = found(url, tmp_path, now=1000)[1]

    assert state is State.PROBLEM
    assert says.startswith("the clock is 4000 s behind")


def test_one_that_may_lose_what_it_was_given_is_a_problem(postgresql, tmp_path):
    states = [state for state, says in found(postgresql.empty(), tmp_path) if "lose" in says]

    assert states == [State.PROBLEM]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda url: url + "x", "there is no such database"),
        (lambda url: url.replace("postgres@", "nobody:hush@"), "does not let Sokovan in"),
        (lambda url: url.replace("postgres@127.0.0.1", "u:hush@127.0.0.1:1,127.0.0.1"), "let"),
        (lambda url: url.replace("postgresql:", "mysql:"), "it is no address of a database"),
    ],
)
def test_one_that_cannot_be_used_is_a_problem_and_says_why(postgresql, tmp_path, change, says):
    ((state, said),) = found(change(postgresql.empty()), tmp_path)

    assert state is State.PROBLEM
    assert says in said
    assert "hush" not in said


def test_a_standby_and_one_made_read_only_are_a_problem(durable, tmp_path):
    standby = Server(copies=durable)
    try:
        state, says = found(standby.url("postgres"), tmp_path)[0]
    finally:
        standby.close()
    url = durable.empty()
    name = url.rpartition("/")[2]
    durable.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")

    assert (state, "is a standby" in says) == (State.PROBLEM, True)
    assert found(url, tmp_path)[0][0] is State.PROBLEM


def test_the_check_of_the_store_asks_the_database_that_the_settings_name(postgresql, tmp_path):
    url = postgresql.prepared()
    (tmp_path / "config.toml").write_text(f'store.url = "{url}"\n')

    says = [finding.says for finding in place.store(Ground(tmp_path))]

    assert says[0].startswith(f"{url}, PostgreSQL ")


def test_settings_that_cannot_be_read_leave_nothing_to_check(tmp_path):
    (tmp_path / "config.toml").write_text("store.urk = 1\n")

    (finding,) = place.store(Ground(tmp_path))

    assert finding.state is State.PROBLEM
