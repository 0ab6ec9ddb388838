"""Copying every row from one database to another: whatever is in them arrives, or is refused."""

import random

import pytest
from sqlalchemy import Boolean, Float, Integer, String

from sokovan.config import StoreConfig
from sokovan.store.copying import copy_rows, digests, rows_of
from sokovan.store.ownership import alone, closing, reading
from sokovan.store.postgresql import open_postgresql
from sokovan.store.schema import prepare
from sokovan.store.sqlite import open_sqlite
from sokovan.store.tables import metadata

pytestmark = pytest.mark.postgres

ROWS = 60
NASTY = (
    "",
    "\\N",
    "\\.",
    "a\tb\nc\r\\",
    "'\"",
    "\x01\x7f",
    "Ko\u0308ln \u2603 \U0001f600",
    "%s :a",
)
REALS = (0.0, -0.0, 1e-300, 1.7e308, 0.1 + 0.2, 1000000000.123456, float("inf"), -1.0)


def silently(_):
    pass


def a_value(rng, column, number):
    """Return what a column may have; different ones for different numbers where it is a key."""
    if column.nullable and rng.random() < 0.3:
        return None
    if isinstance(column.type, Boolean):
        return rng.random() < 0.5
    if isinstance(column.type, Float):
        return rng.choice(REALS)
    if isinstance(column.type, Integer):
        most = 2**31 if type(column.type) is Integer else 2**63
        is_key = column.primary_key
        return number * 3 + 1 if is_key else rng.choice((0, -1, most - 1, -most, number))
    assert isinstance(column.type, String)
    own = f"{number}" if column.primary_key or column.unique or column.name == "creation_id" else ""
    return f"{own}{rng.choice(NASTY)}"[: column.type.length]


@pytest.mark.parametrize("seed", range(5))
def test_whatever_is_in_a_store_is_the_same_there_and_back(tmp_path, postgresql, seed):
    rng, url = random.Random(seed), postgresql.prepared()
    here, back = (open_sqlite(tmp_path / name, StoreConfig()) for name in ("here.db", "back.db"))
    there = open_postgresql(url, StoreConfig())
    with closing(here), closing(there), closing(back):
        prepare(here)
        prepare(back)
        with alone(here) as connection:
            for table in metadata.sorted_tables:
                for number in range(ROWS):
                    row = {c.name: a_value(rng, c, number) for c in table.c}
                    connection.execute(table.insert(), [row])
        for source, target in ((here, there), (there, back)):
            with reading(source) as ours, alone(target) as theirs:
                counts = copy_rows(ours, theirs, tell=silently)
                assert set(counts.values()) == {ROWS}

        found = []
        for engine in (here, there, back):
            with reading(engine) as connection:
                found.append(digests(connection, tell=silently))
        assert found[0] == found[1] == found[2]
        with reading(here) as ours, reading(back) as theirs:
            for table in metadata.sorted_tables:
                assert list(rows_of(ours, table)) == list(rows_of(theirs, table))


def test_a_digest_tells_any_difference(postgresql):
    engine = open_postgresql(postgresql.prepared(), StoreConfig())
    table = metadata.tables["marks"]
    with closing(engine):
        seen = []
        for statement in (
            table.insert().values(name="a", number=1),
            table.update().values(number=2),
            table.update().values(name="b"),
            table.insert().values(name="a", number=2),
            table.delete(),
        ):
            with alone(engine) as connection:
                connection.execute(statement)
                seen.append(digests(connection, tell=silently)["marks"])
        assert len(set(seen)) == 5
