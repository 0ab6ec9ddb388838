"""The schema: migrations build what the tables say, and a newer store is left alone."""

import contextlib
import re
import sqlite3

import pytest
from sqlalchemy import inspect, text

from sokovan.config import StoreConfig
from sokovan.domain.errors import SchemaTooNewError, StoreUnavailableError
from sokovan.store.engine import open_sqlite
from sokovan.store.schema import HEAD, prepare, upgrade
from sokovan.store.tables import metadata


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


def test_a_directory_is_no_store(tmp_path):
    with pytest.raises(StoreUnavailableError, match="cannot be opened"):
        prepare(opened(tmp_path))


def test_a_file_of_another_kind_is_no_store(path):
    path.write_text("this is not a database, and it is long enough to have a header\n" * 20)

    with pytest.raises(StoreUnavailableError, match="not a database"):
        prepare(opened(path))
