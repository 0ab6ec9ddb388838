"""What the server forgets by itself, and what is left over from before a restored backup."""

import pytest

from sokovan.clock import ManualClock
from sokovan.config import Config, SchedulerConfig, StoreConfig
from sokovan.domain.errors import EventsGoneError
from sokovan.domain.sessions import SessionId
from sokovan.domain.statuses import SessionStatus
from sokovan.scheduler.coordinator import Coordinator
from sokovan.scheduler.messages import KernelReport, ReportState
from sokovan.scheduler.wiring import PRUNE_EVERY_S, events_for, join
from sokovan.simulator.survey import survey
from sokovan.store import pruning
from sokovan.store.events import EVERY_EVENT, events_after
from sokovan.store.pruning import find_old, prune
from sokovan.store.repository import SqlRepository
from sokovan.store.tables import holds
from tests.build import (
    A1,
    NOW,
    FakeGateway,
    a_repository,
    a_spec,
    an_agent_hello,
    brought_to,
    in_memory,
    said,
    submitted,
)

DAY_S = 86400.0


@pytest.fixture
def clock():
    return ManualClock(NOW)


@pytest.fixture
async def repository(clock):
    repository = a_repository(database=in_memory(), clock=clock)
    await repository.register_agent(an_agent_hello())
    return repository


async def ended(repository: SqlRepository) -> SessionId:
    (session_id,) = await brought_to(repository, SessionStatus.RUNNING)
    await said(repository, ReportState.ENDED, session_id, exit_code=0)
    return session_id


async def names(repository):
    return await repository._database.read(
        lambda tx: [i for (i,) in tx.connection.exec_driver_sql("SELECT session_id FROM sessions")]
    )


@pytest.mark.parametrize(("keep_days", "is_kept"), [(0.0, True), (2.0, True), (0.5, False)])
async def test_the_server_forgets_what_ended_too_long_ago(
    repository, clock, tmp_path, keep_days, is_kept
):
    old = await ended(repository)
    clock.advance(DAY_S)
    young = await ended(repository)
    (waiting,) = await submitted(repository, a_spec(held=True))
    coordinator = Coordinator(repository, clock, SchedulerConfig())
    config = Config(tmp_path, store=StoreConfig(keep_days=keep_days))
    events = events_for(coordinator, repository)
    join(coordinator, repository, FakeGateway(), events, config)

    clock.advance(PRUNE_EVERY_S)
    await coordinator.run_due()

    assert await names(repository) == ([old] if is_kept else []) + [young, waiting]


@pytest.mark.parametrize("at_once", [1, 3, 5000])
async def test_it_is_looked_for_in_pieces(repository, clock, monkeypatch, at_once):
    monkeypatch.setattr(pruning, "LOOKED_FOR_AT_ONCE", at_once)
    for _ in range(7):
        await ended(repository)
    clock.advance(DAY_S)
    last = await ended(repository)

    total = await repository.prune(DAY_S / 2)

    assert total.sessions == 7
    assert await names(repository) == [last]


async def test_what_is_alive_knows_nothing_of_it(repository, clock):
    await ended(repository)
    clock.advance(DAY_S)
    (running,) = await brought_to(repository, SessionStatus.RUNNING)
    await repository.prune(1.0)

    await repository.refresh()
    await said(repository, ReportState.ENDED, running, exit_code=0)

    found = await repository._database.read(survey)
    assert found.violations == ()


async def test_who_reads_events_misses_none_without_being_told(repository, clock):
    first = await ended(repository)
    clock.advance(DAY_S)
    await ended(repository)
    lines = await repository._database.read(
        lambda tx: [e["id"] for e in events_after(tx, EVERY_EVENT, 0, 1000).items]
    )
    await repository.prune(DAY_S / 2)

    kept = await repository._database.read(
        lambda tx: [e["id"] for e in events_after(tx, EVERY_EVENT, 0, 1000).items]
    )

    gone = [line for line in lines if line not in kept]
    assert gone
    assert first not in await names(repository)
    with pytest.raises(EventsGoneError, match="not all is kept"):
        await repository._database.read(
            lambda tx: events_after(tx, EVERY_EVENT, gone[-1] - 1, 1000)
        )
    after = await repository._database.read(
        lambda tx: events_after(tx, EVERY_EVENT, gone[-1], 1000)
    )
    assert [event["id"] for event in after.items] == kept


async def test_a_dry_run_changes_nothing_and_says_the_same(repository, clock):
    await ended(repository)
    clock.advance(DAY_S)
    await ended(repository)

    def look(tx, *, dry_run):
        found = find_old(tx, clock.now() - 1.0)
        return prune(tx, found, clock.now() - 1.0, dry_run=dry_run)

    before = await names(repository)
    told = await repository._database.write(lambda tx: look(tx, dry_run=True))
    assert await names(repository) == before

    assert await repository._database.write(lambda tx: look(tx, dry_run=False)) == told
    assert told.sessions == 1


async def test_a_leftover_of_a_session_that_a_backup_lacks_goes_when_it_is_gone(repository):
    agent = repository.live.agents[A1]
    row = {"token": "t", "session_id": "unknown", "kernel_id": "unknown.0", "agent_id": A1}
    numbers = {"cpu_milli": 1000, "mem_bytes": 1, "leftover_since": NOW}
    await repository._database.write(lambda tx: tx.execute(holds.insert(), [row | numbers]))
    await repository.refresh()
    assert (await repository._database.read(survey)).violations == ()

    for state, left in ((ReportState.RUNNING, 1), (ReportState.ENDED, 0)):
        await repository.record_reports(A1, agent.incarnation, [KernelReport("t", state)])
        assert len(list(repository.live.leftovers())) == left
