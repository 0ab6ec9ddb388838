"""The schema: migrations build what the tables say, and a newer store is left alone."""

import contextlib
import re
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import inspect, text

from sokovan.clock import ManualClock
from sokovan.config import StoreConfig
from sokovan.domain.cluster import AgentStatus
from sokovan.domain.errors import (
    SchemaTooNewError,
    StoreDamagedError,
    StoreUnavailableError,
)
from sokovan.domain.statuses import SessionStatus
from sokovan.scheduler.messages import ReportState
from sokovan.simulator.checks import violations
from sokovan.simulator.observe import read_picture
from sokovan.store.engine import InlineDatabase
from sokovan.store.postgresql import open_postgresql
from sokovan.store.schema import HEAD, STEPS, prepare, upgrade
from sokovan.store.sqlite import open_sqlite
from sokovan.store.tables import metadata
from tests.build import A1, NOW, a_repository, said

TABLES = "SELECT name FROM sqlite_master WHERE type = 'table'"
FIXTURES = Path(__file__).parents[1] / "fixtures"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "sokovan.db"


def opened(path):
    return open_sqlite(path, StoreConfig())


def described(engine):
    """Return everything that the database knows of its tables, Alembic's own apart."""
    inspector = inspect(engine)
    found = {}
    for table in set(inspector.get_table_names()) - {"alembic_version"}:
        found[table] = {
            "columns": [
                (column["name"], str(column["type"]), column["nullable"], column["default"])
                for column in inspector.get_columns(table)
            ],
            "key": inspector.get_pk_constraint(table)["constrained_columns"],
            "unique": sorted(
                sorted(constraint["column_names"])
                for constraint in inspector.get_unique_constraints(table)
            ),
            "indexes": sorted(
                (index["name"], index["column_names"], index["unique"])
                for index in inspector.get_indexes(table)
            ),
        }
    return found


def partial_indexes(engine):
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT sql FROM sqlite_master WHERE sql LIKE '%WHERE%'"))
        return sorted(re.sub(r"\s+", " ", row.sql) for row in rows)


def version(engine):
    with engine.connect() as connection:
        return connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one()


def test_migrations_build_the_same_schema_as_the_tables_say(tmp_path):
    by_tables, by_steps = opened(tmp_path / "tables.db"), opened(tmp_path / "steps.db")
    metadata.create_all(by_tables)
    with by_steps.begin() as connection:
        upgrade(connection)

    assert described(by_steps) == described(by_tables)
    assert partial_indexes(by_steps) == partial_indexes(by_tables)
    assert described(by_steps).keys() == metadata.tables.keys()
    assert version(by_steps) == HEAD


def test_an_empty_store_gets_the_schema_and_its_version(path):
    engine = opened(path)

    prepare(engine)

    assert described(engine).keys() == metadata.tables.keys()
    assert version(engine) == HEAD


def contents(path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())


def test_preparing_again_changes_nothing(path):
    prepare(opened(path))
    before = contents(path)

    prepare(opened(path))

    assert contents(path) == before


def written_by(step, path):
    """Write the store that an earlier version left behind, with sessions alive and over."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript((FIXTURES / f"store_{step}.sql").read_text())


def rows(path):
    """Return every row as a dictionary, by table; those of Alembic apart."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        names = [name for (name,) in connection.execute(TABLES)]
        return {
            table: [dict(row) for row in connection.execute(f"SELECT * FROM {table}")]
            for table in metadata.tables
            if table in names
        }


@pytest.mark.parametrize("step", STEPS[:-1])
def test_a_store_of_an_earlier_version_gets_this_schema_and_keeps_what_it_has(path, step):
    written_by(step, path)
    before = rows(path)
    assert all(before.values()), "an empty table proves nothing"

    engine = opened(path)
    prepare(engine)

    fresh = opened(path.with_name("fresh.db"))
    prepare(fresh)
    assert described(engine) == described(fresh)
    assert partial_indexes(engine) == partial_indexes(fresh)
    assert version(engine) == HEAD
    after = rows(path)
    for table, kept in before.items():
        columns = kept[0].keys()
        assert [{name: row[name] for name in columns} for row in after[table]] == kept


async def test_a_store_of_0001_goes_on_where_it_was(path):
    written_by("0001", path)
    engine = opened(path)
    prepare(engine)
    database = InlineDatabase(engine)

    repository = a_repository("default", "gpu", database=database, clock=ManualClock(NOW + 1000.0))

    live = {session.name: session.status for session in repository.live.sessions.values()}
    assert live == {
        "lost": SessionStatus.PENDING,
        "running": SessionStatus.RUNNING,
        "prepared": SessionStatus.PREPARED,
        "after": SessionStatus.PENDING,
        "held": SessionStatus.PENDING,
    }
    agents = repository.live.agents.values()
    assert {agent.name: agent.status for agent in agents} == {
        "left": AgentStatus.ALIVE,
        "right": AgentStatus.GONE,
    }
    assert not any(agent.is_drained for agent in agents)
    await repository.set_drained(A1, drained=True, reason="new disk")
    (running,) = [s.session_id for s in repository.live.sessions.values() if s.name == "running"]
    await said(repository, ReportState.ENDED, running, exit_code=0)
    assert repository.live.sessions.keys().isdisjoint({running})
    assert await database.read(lambda tx: violations(read_picture(tx))) == []
    database.close()


def test_an_upgrade_that_fails_leaves_the_store_as_it_was(path, monkeypatch):
    written_by("0001", path)
    before = contents(path)
    engine = opened(path)
    monkeypatch.setattr("sokovan.store.schema.upgrade", _upgrade_and_fail)

    with pytest.raises(ZeroDivisionError):
        prepare(engine)

    engine.dispose()
    assert contents(path) == before


def _upgrade_and_fail(connection):
    upgrade(connection)
    raise ZeroDivisionError


def test_a_newer_store_is_refused_and_left_as_it_is(path):
    engine = opened(path)
    prepare(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    before = contents(path)

    engine = opened(path)
    with pytest.raises(SchemaTooNewError, match="has schema 9999, this version knows up to"):
        prepare(engine)
    engine.dispose()

    assert contents(path) == before


def test_a_store_that_was_only_half_created_is_not_taken_for_whole(path, monkeypatch):
    """The schema and its version come together or not at all."""
    engine = opened(path)
    monkeypatch.setattr("sokovan.store.schema.HEAD", object())  # cannot be written
    with pytest.raises(StoreUnavailableError):
        prepare(engine)
    monkeypatch.undo()

    assert described(engine) == {}
    prepare(engine)
    assert version(engine) == HEAD


# --- PostgreSQL, which has had this schema from the beginning -------------------------------------


@pytest.fixture
def url(postgresql):
    return postgresql.empty()


@contextlib.contextmanager
def connected(url):
    engine = open_postgresql(url, StoreConfig())
    yield engine
    engine.dispose()


@pytest.mark.postgres
def test_an_empty_database_gets_the_schema_and_its_version(url):
    with connected(url) as engine:
        prepare(engine)
        prepare(engine)

        assert version(engine) == HEAD
        found = described(engine)
        assert found.keys() == metadata.tables.keys()
        for name, table in metadata.tables.items():
            columns = [(column[0], column[2]) for column in found[name]["columns"]]
            assert columns == [(column.name, column.nullable) for column in table.c]
            assert found[name]["key"] == [column.name for column in table.primary_key]
        with engine.connect() as connection:
            partial = connection.execute(
                text("SELECT indexname FROM pg_indexes WHERE indexdef LIKE '%WHERE%'")
            ).scalars()
            assert set(partial) == {
                index.name
                for table in metadata.tables.values()
                for index in table.indexes
                if index.dialect_options["postgresql"]["where"] is not None
            }


@pytest.mark.postgres
def test_text_sorts_by_code_point_in_every_key_and_index(url):
    with connected(url) as engine:
        prepare(engine)
        with engine.connect() as connection:
            query = """
                SELECT a.attname FROM pg_attribute a
                JOIN pg_index i ON i.indrelid = a.attrelid AND a.attnum = ANY (i.indkey)
                JOIN pg_class c ON c.oid = a.attrelid
                JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = current_schema()
                JOIN pg_collation o ON o.oid = a.attcollation
                WHERE o.collname <> 'C' AND c.relname <> 'alembic_version'
            """
            assert connection.execute(text(query)).scalars().all() == []


@pytest.mark.postgres
def test_a_newer_database_is_refused_and_left_as_it_is(url):
    with connected(url) as engine:
        prepare(engine)
        with engine.begin() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))

        with pytest.raises(SchemaTooNewError, match="has schema 9999, this version knows up to"):
            prepare(engine)

        assert version(engine) == "9999"


@pytest.mark.postgres
def test_a_database_of_another_program_is_refused_and_left_as_it_is(url):
    with connected(url) as engine:
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE cats (name text)"))

        with pytest.raises(StoreDamagedError, match="no store of Sokovan: it has tables"):
            prepare(engine)

        assert described(engine).keys() == {"cats"}


@pytest.mark.postgres
def test_a_database_that_was_only_half_created_is_not_taken_for_whole(url, monkeypatch):
    with connected(url) as engine:
        monkeypatch.setattr("sokovan.store.schema.HEAD", object())  # cannot be written
        with pytest.raises(StoreUnavailableError):
            prepare(engine)
        monkeypatch.undo()

        assert described(engine) == {}
        prepare(engine)
        assert version(engine) == HEAD


def test_a_directory_is_no_store(tmp_path):
    with pytest.raises(StoreUnavailableError, match="cannot be opened"):
        prepare(opened(tmp_path))


def test_a_file_of_another_kind_is_no_store(path):
    path.write_text("this is not a database, and it is long enough to have a header\n" * 20)

    with pytest.raises(StoreUnavailableError, match="no database"):
        prepare(opened(path))
