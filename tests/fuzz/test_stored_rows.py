"""Rows of older and newer versions are read; damage is refused by the name of the row."""

import contextlib
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from sokovan.config import StoreConfig
from sokovan.domain.errors import SchemaTooNewError, SokovanError, StoreDamagedError
from sokovan.domain.resources import Capacity
from sokovan.domain.sessions import Dependency, Limit, SessionId
from sokovan.domain.statuses import SessionStatus
from sokovan.domain.where_fields import where_of
from sokovan.scheduler.stages import START_SESSIONS
from sokovan.store import rows
from sokovan.store.engine import InlineDatabase
from sokovan.store.schema import HEAD, prepare
from sokovan.store.sqlite import open_sqlite
from tests.build import (
    A1,
    S1,
    a_kernel,
    a_repository,
    a_session,
    a_spec,
    an_agent,
    an_agent_hello,
    at_once,
    attempts_of,
    brought_to,
    submitted,
)
from tests.fuzz.ground import ANN, House

WHERE = {
    "mode": "single-node",
    "same": "rack",
    "constraints": ["gpu_model=A100|H100", "mem_gpu>=40G"],
    "agents": ["left"],
    "prefer": ["left"],
    "exclude": ["right"],
    "spread_with": ["web"],
    "pack_with": ["db"],
}
SESSION = a_session(
    unmet=(Dependency(SessionId("other")),),
    avoid=(A1,),
    limits={"start-sessions": Limit(3, 60.0)},
    attempts=attempts_of(START_SESSIONS, 2),
    where=where_of(WHERE),
)
SPEC = a_spec(
    depends_on=(Dependency(S1),),
    limits={"start-sessions": Limit(3, 60.0)},
    where=where_of(WHERE),
)
OWN, SAID = {"rack": "r1", "zone": "north"}, {"rack": "r2", "zone": ""}
ROWS: dict[str, tuple[Any, dict[str, Any]]] = {
    "sessions": (
        lambda row: rows.session_of(row, [a_kernel()]),
        rows.new_session_values(SESSION) | {"number": 1},
    ),
    "kernels": (rows.kernel_of, rows.new_kernel_values(S1, a_kernel(devices=((0, 500),)))),
    "agents": (rows.agent_of, rows.agent_values(an_agent()) | rows.label_values(OWN, SAID)),
}
KEYS = {"sessions": "session_id", "kernels": "kernel_id", "agents": "agent_id"}
TEXTS = st.text(max_size=12) | st.sampled_from(
    ["WALKING", "\0", "NaN", "null", "[]", "{}", '{"a":']
)
JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=8,
)
CELLS = (
    st.none() | st.integers() | st.floats() | TEXTS | st.binary(max_size=8) | JSONS.map(json.dumps)
)


def refusal_of(read: Callable[[], object]) -> str | None:
    """Return why something cannot be read, when it is damaged."""
    try:
        read()
    except StoreDamagedError as error:
        return error.message
    return None


@pytest.mark.parametrize("table", ROWS)
def test_a_row_with_anything_in_a_cell_is_read_or_named(table):
    read, values = ROWS[table]
    key = KEYS[table]

    @given(st.sampled_from(sorted(values)), CELLS)
    def try_it(column, cell):
        row = SimpleNamespace(**values | {column: cell})
        refusal = refusal_of(lambda: read(row))
        assert refusal is None or f"in {table}: the row {getattr(row, key)}" in refusal

    try_it()


@given(JSONS.map(json.dumps) | TEXTS)
@example('{"command": 5}')
@example('{"command": ["true"], "request": []}')
def test_a_submission_that_is_none_is_named(spec):
    refusal = refusal_of(lambda: rows.spec_of(spec))
    assert refusal is None or refusal.startswith("the store is damaged, in specs")


def test_a_submission_of_an_older_version_has_today_s_defaults():
    assert rows.spec_of('{"command": ["true"]}') == rows.spec_of(
        rows.spec_text(type(SPEC)(command=("true",)))
    )


def test_a_session_that_says_nothing_of_where_is_written_as_it_always_was():
    """The digest of a creation id stays the same, whichever version took the first submission."""
    assert "where" not in json.loads(rows.spec_text(a_spec()))
    assert rows.new_session_values(a_session())["where_to"] is None


def test_where_a_session_may_go_is_read_as_it_was_written():
    read, values = ROWS["sessions"]

    assert json.loads(values["where_to"]) == WHERE
    assert read(SimpleNamespace(**values)).where == SESSION.where
    assert rows.spec_of(rows.spec_text(SPEC)) == SPEC


def test_an_agent_s_labels_are_an_administrator_s_and_else_its_own():
    read, values = ROWS["agents"]

    assert read(SimpleNamespace(**values)).labels == {"rack": "r2"}
    assert read(SimpleNamespace(**values | {"labels": None})).labels == OWN
    assert read(SimpleNamespace(**values | {"labels": None, "own_labels": None})).labels == {}


@pytest.mark.parametrize(
    ("table", "column", "cell"),
    [
        ("sessions", "where_to", '{"constraints": ["rack"]}'),
        ("sessions", "where_to", '{"constraints": "rack=r1"}'),
        ("sessions", "where_to", '{"agents": [5]}'),
        ("sessions", "where_to", '{"same": null}'),
        ("sessions", "where_to", '{"kernels_per_agent_max": "2"}'),
        ("sessions", "where_to", '{"mode": "all-over"}'),
        ("sessions", "where_to", "[]"),
        ("agents", "labels", '{"rack": 5}'),
        ("agents", "own_labels", '["rack"]'),
    ],
)
def test_damaged_wishes_and_labels_are_named(table, column, cell):
    read, values = ROWS[table]

    refusal = refusal_of(lambda: read(SimpleNamespace(**values | {column: cell})))

    assert refusal is not None
    assert f"in {table}: the row " in refusal


def test_what_a_newer_version_has_added_is_left_out():
    data = json.loads(rows.spec_text(SPEC))
    data["request"]["tpu"] = data["new"] = data["limits"]["start-sessions"]["new"] = 1
    data["where"]["new"] = 1
    data["depends_on"][0]["new"] = 1
    capacity = json.loads(rows.agent_values(an_agent())["capacity"])
    capacity["tpus"] = capacity["devices"][0]["cores"] = 1
    limits = '{"start-sessions": [3, 60.0, "new"]}'
    attempts = '{"start-sessions": [2, 0.0, 0.0, "new"]}'
    _, of_session = ROWS["sessions"]
    _, of_agent = ROWS["agents"]

    session = ROWS["sessions"][0](
        SimpleNamespace(**of_session | {"limits": limits, "attempts": attempts})
    )
    agent = rows.agent_of(SimpleNamespace(**of_agent | {"capacity": json.dumps(capacity)}))

    assert rows.spec_of(json.dumps(data)) == SPEC
    assert (session.limits, session.attempts) == (SESSION.limits, SESSION.attempts)
    assert agent.capacity == an_agent().capacity


def test_an_agent_of_an_older_version_may_have_said_less():
    row = SimpleNamespace(**ROWS["agents"][1] | {"capacity": '{"cpu_milli": 4000}'})

    assert rows.agent_of(row).capacity == Capacity(cpu_milli=4000)


@pytest.mark.parametrize(
    "column", ["unmet", "avoid", "limits", "attempts", "reason", "begin_at", "where_to"]
)
def test_what_may_be_null_may_be_null(column):
    read, values = ROWS["sessions"]

    assert read(SimpleNamespace(**values | {column: None})).session_id == S1


# --- a store with a damaged row -------------------------------------------------------------------


def a_store_with(*statements: str) -> Any:
    """Return a repository whose sessions run, and whose rows were changed behind its back."""
    repository = a_repository()
    at_once(repository.register_agent(an_agent_hello()))
    at_once(brought_to(repository, SessionStatus.RUNNING, a_spec(name="runs")))
    at_once(submitted(repository, a_spec(name="waits")))

    def damage(tx: Any) -> None:
        for statement in statements:
            tx.execute(text(statement))

    repository._database.write_now(damage)
    return repository


DAMAGES = {
    "sessions": "UPDATE sessions SET status = 'WALKING' WHERE name = 'runs'",
    "kernels": "UPDATE kernels SET status = 'WALKING' WHERE token IS NOT NULL",
    "holds": "UPDATE holds SET devices = '{'",
    "agents": "UPDATE agents SET capacity = 'none'",
}


@pytest.mark.parametrize("table", DAMAGES)
def test_a_manager_that_finds_a_damaged_row_says_which(table):
    repository = a_store_with(DAMAGES[table])

    with pytest.raises(StoreDamagedError, match=f"in {table}: the row "):
        at_once(repository.take_over())


@pytest.mark.parametrize("table", ["sessions", "kernels"])
def test_a_row_that_is_damaged_while_the_manager_runs_holds_up_no_other_session(table):
    house = House()
    house.inhabit()
    house.database.write_now(lambda tx: tx.execute(text(DAMAGES[table])))

    others = [house.submit(a_spec(name=f"next-{number}")) for number in range(3)]
    house.live(600.0)

    assert {house.repository.live.sessions.get(session_id) for session_id in others} == {None}
    ends = [house.run(house.service.session(i, caller=ANN))["reason"] for i in others]
    assert ends == ["SELF_TERMINATED"] * 3
    with pytest.raises(StoreDamagedError):
        at_once(house.repository.refresh())
    house.close()


# --- a file that is no store of ours --------------------------------------------------------------


@pytest.fixture
def path(tmp_path):
    return tmp_path / "sokovan.db"


def prepared(path: Path) -> None:
    engine = open_sqlite(path, StoreConfig())
    try:
        prepare(engine)
    finally:
        engine.dispose()


def changed(path: Path, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def contents(path: Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())


@pytest.mark.parametrize(
    "content", [b"SQLite format 3\0" + b"\xff" * 5000, b"\0" * 5000, b"x" * 999]
)
def test_a_file_that_is_no_database_is_refused_and_left_alone(path, content):
    path.write_bytes(content)

    with pytest.raises(SokovanError):
        prepared(path)

    assert path.read_bytes() == content


@settings(max_examples=settings().max_examples // 4)
@given(st.integers(100, 4000), st.binary(min_size=1, max_size=200))
def test_a_database_with_damaged_pages_is_refused_in_a_sentence(tmp_path_factory, at, noise):
    path = tmp_path_factory.mktemp("store") / "sokovan.db"
    prepared(path)
    whole = bytearray(path.read_bytes())
    whole[at : at + len(noise)] = noise
    path.write_bytes(whole)

    with contextlib.suppress(SokovanError):
        prepared(path)


@pytest.mark.parametrize("version", ["'9999'", "'zzz'", f"'{HEAD}-beta'"])
def test_an_unknown_version_is_refused_and_the_store_left_alone(path, version):
    prepared(path)
    changed(path, f"UPDATE alembic_version SET version_num = {version}")
    before = contents(path)

    with pytest.raises(SchemaTooNewError):
        prepared(path)

    assert contents(path) == before


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM alembic_version",
        f"INSERT INTO alembic_version VALUES ('{HEAD}')",
        "UPDATE alembic_version SET version_num = ''",
        "UPDATE alembic_version SET version_num = '0000'",
        "UPDATE alembic_version SET version_num = '0001x'",
        "UPDATE alembic_version SET version_num = x'00ff'",
    ],
)
def test_a_version_that_is_none_is_refused_in_a_sentence(path, statement):
    prepared(path)
    changed(path, statement)
    before = contents(path)

    with pytest.raises(SokovanError):
        prepared(path)

    assert contents(path) == before


@pytest.mark.parametrize("table", ["things", "sessions"])
def test_the_database_of_another_program_is_refused_and_left_alone(path, table):
    changed(path, f"CREATE TABLE {table} (a)")
    before = contents(path)

    with pytest.raises(SokovanError):
        prepared(path)

    assert contents(path) == before


def test_a_database_that_is_damaged_further_in_is_refused_in_a_sentence(path):
    prepared(path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (size,) = connection.execute("PRAGMA page_size").fetchone()
        query = "SELECT rootpage FROM sqlite_master WHERE name = 'sessions'"
        (page,) = connection.execute(query).fetchone()
    whole = bytearray(path.read_bytes())
    whole[(page - 1) * size : (page - 1) * size + 200] = b"\xff" * 200
    path.write_bytes(whole)
    engine = open_sqlite(path, StoreConfig())

    try:
        repository = a_repository(database=InlineDatabase(engine))  # reads only what is alive
        with pytest.raises(SokovanError):
            at_once(repository.submit([a_spec()]))
    finally:
        engine.dispose()
