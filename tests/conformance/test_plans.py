"""What is asked again and again costs what is alive, however many sessions there have been."""

import pytest

from sokovan.store.leases import every_group, live_ids
from sokovan.store.queries import Filter, counts_by_status, page

LOOKS = {
    "counts": counts_by_status,
    "groups": lambda tx: every_group(tx, ["default"]),
    "live ids": live_ids,
    "live page": lambda tx: page(tx, Filter(live_only=True)),
    "one's own live ones": lambda tx: page(tx, Filter(live_only=True, owner="me")),
    "those that wait": lambda tx: page(tx, Filter(statuses=["PENDING"])),
}


@pytest.mark.parametrize("store", ["sqlite-memory", "sqlite-file"], indirect=True)
@pytest.mark.parametrize("look", LOOKS)
async def test_sqlite_looks_for_live_sessions_among_the_live_ones(store, look):
    with store.counting() as asked:
        await store.database.read(LOOKS[look])

    def explained(tx):
        of_sessions = [text for text in asked.texts if "FROM sessions" in text]
        return [
            [row[-1] for row in tx.connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {t}", places(t))]
            for t in of_sessions
        ]

    plans = await store.database.read(explained)

    assert plans
    for plan in plans:
        assert any("ix_sessions_live" in step for step in plan), plan
        assert "SCAN sessions" not in plan, plan


def places(text):
    return (None,) * text.count("?")
