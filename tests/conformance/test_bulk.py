"""Statements about many rows do on every database what they say."""

import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from sokovan.store.bulk import COPIED_FROM, Among, Delete, Insert, Update
from sokovan.store.tables import holds, sessions, webhooks
from tests.build import a_spec, submitted

ALL = Among(select(holds).order_by(holds.c.token), holds.c.token)
AWKWARD = "a 'quote', a \"double\" one, a \\ backslash, 100 %s, ünï, 🐟, {}, \t"


def a_row(token, **changes):
    return {
        "token": token,
        "session_id": "s",
        "kernel_id": "s.0",
        "agent_id": "a",
        "cpu_milli": 2**53,
        "mem_bytes": 0,
        "devices": None,
        "leftover_since": 1.1 + 2**-40,
    } | changes


MANY = pytest.mark.parametrize("count", [2, COPIED_FROM])


@MANY
async def test_what_is_inserted_is_read_as_it_was(store, count):
    rows = [a_row(f"t{n:03}") for n in range(count - 1)]
    rows.append(a_row("u", devices=f"{AWKWARD}\n\\N", leftover_since=None))

    await store.database.write(lambda tx: tx.execute(Insert(holds), rows))
    found = await store.database.read(
        lambda tx: tx.execute(ALL, ["v", *(row["token"] for row in reversed(rows))])
    )

    assert [row._asdict() for row in found] == rows


async def test_values_of_two_columns_are_found_by_both(store):
    pairs = Among(select(holds).order_by(holds.c.token), holds.c.agent_id, holds.c.devices)
    rows = [
        a_row("t1", agent_id="a", devices="1"),
        a_row("t2", agent_id="a", devices="2"),
        a_row("t3", agent_id="b", devices=AWKWARD),
    ]

    await store.database.write(lambda tx: tx.execute(Insert(holds), rows))
    found = await store.database.read(
        lambda tx: tx.execute(pairs, [("b", AWKWARD), ("a", "2"), ("b", "1"), ("a", "c")])
    )

    assert [row.token for row in found] == ["t2", "t3"]


async def test_what_is_deleted_is_gone_and_nothing_else(store):
    def job(tx):
        tx.execute(Insert(holds), [a_row("t1"), a_row("t2"), a_row("t3")])
        gone = tx.execute(Delete(holds, "token"), ["t1", "t3", "t4"])
        return gone, [row.token for row in tx.execute(ALL, ["t1", "t2", "t3"])]

    assert await store.database.write(job) == (2, ["t2"])


async def test_among_no_values_is_nothing(store):
    await store.database.write(lambda tx: tx.execute(Insert(holds), [a_row("t1")]))

    assert await store.database.read(lambda tx: tx.execute(ALL, [])) == []


async def test_an_update_changes_only_rows_that_are_still_what_they_were(store):
    rows = [a_row("t1", cpu_milli=1), a_row("t2", cpu_milli=2)]
    moved = Update(holds, "token", ["agent_id", "devices"], guard="cpu_milli")
    new = {"agent_id": "b", "devices": AWKWARD, "at_seq": 1}

    def job(tx):
        tx.execute(Insert(holds), rows)
        done = tx.execute(moved, [{"at_id": "t1"} | new, {"at_id": "t2"} | new])
        return done, [(row.agent_id, row.devices) for row in tx.execute(ALL, ["t1", "t2"])]

    assert await store.database.write(job) == (1, [("b", AWKWARD), ("a", None)])


@MANY
async def test_numbers_come_in_the_order_of_the_rows(repository, store, count):
    before = await submitted(repository, a_spec())
    ids = await submitted(repository, *(a_spec(name=f"n{n}") for n in range(count)))

    query = select(sessions.c.session_id).order_by(sessions.c.number)
    by_number = await store.database.read(lambda tx: list(tx.execute(query).scalars()))

    live = repository.live.sessions
    assert by_number == [*before, *ids]
    assert [live[i].number for i in ids] == sorted(live[i].number for i in ids)
    assert [live[i].name for i in ids] == [f"n{n}" for n in range(count)]


@MANY
async def test_what_the_database_refuses_is_raised_as_by_sqlalchemy(store, count):
    with pytest.raises(IntegrityError):
        await store.database.write(lambda tx: tx.execute(Insert(holds), [a_row("t1")] * count))

    assert await store.database.read(lambda tx: tx.execute(ALL, ["t1"])) == []


def test_a_query_with_parameters_of_its_own_is_no_use():
    from sqlalchemy.dialects import sqlite

    query = select(webhooks.c.url).where(webhooks.c.owner == "me")

    with pytest.raises(AssertionError, match="parameters of its own"):
        Among(query, webhooks.c.webhook_id)._for_sqlite(sqlite.dialect())
