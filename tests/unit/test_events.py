"""What agents say, as it comes in: hello, heartbeats, reports, answers."""

import pytest

from sokovan.clock import ManualClock
from sokovan.config import Config, SchedulerConfig
from sokovan.domain.cluster import AgentStatus
from sokovan.domain.errors import AgentError, StoreUnavailableError
from sokovan.domain.sessions import AgentId
from sokovan.domain.statuses import SessionStatus
from sokovan.scheduler.coordinator import Coordinator
from sokovan.scheduler.messages import KernelReport, ReportState
from sokovan.scheduler.wiring import events_for, join
from tests.build import (
    A1,
    A2,
    NOW,
    FakeGateway,
    a_repository,
    a_spec,
    an_agent_hello,
    brought_to,
)
from tests.checked import CheckedRepository

S = SessionStatus
GHOST = AgentId("ghost")


@pytest.fixture
def clock():
    return ManualClock(NOW)


@pytest.fixture
def repository(clock):
    return a_repository(clock=clock, kind=CheckedRepository)


@pytest.fixture
def gateway():
    return FakeGateway()


@pytest.fixture
async def coordinator(repository, clock, gateway):
    coordinator = Coordinator(repository, clock, SchedulerConfig())
    join(coordinator, repository, gateway, events_for(coordinator, repository), Config())
    return coordinator


@pytest.fixture
async def events(coordinator, repository):
    events = events_for(coordinator, repository)
    await events.connected(an_agent_hello(A1))
    return events


async def settled(coordinator):
    while await coordinator.run_due():
        pass


def agent(repository, agent_id=A1):
    return repository.live.agents[agent_id]


async def test_an_agent_is_registered_when_it_connects(events, repository):
    assert await events.connected(an_agent_hello(A2)) == 1
    assert await events.connected(an_agent_hello(A2)) == 2
    assert agent(repository, A2).status is AgentStatus.ALIVE


async def test_an_agent_that_cannot_be_registered_is_heard_of_all_the_same(
    events, repository, clock, monkeypatch
):
    async def full(*_):
        raise StoreUnavailableError("the disk is full")

    monkeypatch.setattr(repository, "register_agent", full)
    clock.advance(30)

    with pytest.raises(StoreUnavailableError):
        await events.connected(an_agent_hello(A1))

    assert agent(repository).last_seen_at == NOW + 30


async def test_a_new_agent_is_room_for_those_who_wait(
    events, repository, coordinator, gateway, clock
):
    await events.heartbeat(A1, 1, [])
    _, applied = await repository.submit([a_spec(kernel_count=5)])
    coordinator.tell(applied)
    await settled(coordinator)
    assert [session.status for session in repository.live.sessions.values()] == [S.PENDING]

    await events.connected(an_agent_hello(A2))
    await settled(coordinator)

    assert [session.status for session in repository.live.sessions.values()] == [S.PREPARING]


async def test_a_heartbeat_says_that_an_agent_is_alive(events, repository, clock):
    clock.advance(30)

    await events.heartbeat(A1, 1, [])

    assert agent(repository).last_seen_at == NOW + 30


@pytest.mark.parametrize("incarnation", [0, 2])
async def test_a_heartbeat_of_another_time_says_nothing(events, repository, clock, incarnation):
    clock.advance(30)

    await events.heartbeat(A1, incarnation, [])

    assert agent(repository).last_seen_at == NOW


async def test_an_agent_that_was_removed_while_it_hung_is_asked_who_it_is(events, repository):
    await repository.set_agent_status(A1, AgentStatus.GONE)
    await repository.remove_agent(A1)

    with pytest.raises(AgentError, match="not known any more"):
        await events.heartbeat(A1, 1, [])  # whoever brings this hangs up, and connects anew

    assert await events.connected(an_agent_hello(A1)) == 1
    await events.heartbeat(A1, 1, [])
    assert agent(repository).status is AgentStatus.ALIVE


async def test_a_removed_agent_says_nothing_of_kernels(events, repository):
    (session_id,) = await brought_to(repository, S.RUNNING)
    token = repository.live.sessions[session_id].main.token
    await repository.set_agent_status(A1, AgentStatus.GONE)
    await repository.remove_agent(A1, force=True)

    await events.reported(A1, 1, [KernelReport(token, ReportState.ENDED, exit_code=0)])

    assert repository.live.sessions == {}


async def test_a_session_that_waits_for_a_drained_agent_is_placed_when_it_is_undrained(
    repository, coordinator, events
):
    coordinator.tell(await repository.set_drained(A1, drained=True, reason="new disk"))
    _, applied = await repository.submit([a_spec()])
    coordinator.tell(applied)
    await settled(coordinator)
    (session,) = repository.live.sessions.values()
    assert repository.live.waits[session.session_id].code == "AGENT_DRAINED"

    coordinator.tell(await repository.set_drained(A1, drained=False))
    await settled(coordinator)

    (session,) = repository.live.sessions.values()
    assert session.status is S.PREPARING


@pytest.mark.parametrize("status", [AgentStatus.LOST, AgentStatus.GONE])
async def test_an_agent_that_is_heard_of_again_is_back(events, repository, status):
    await repository.set_agent_status(A1, status)

    await events.heartbeat(A1, 1, [])

    assert agent(repository).status is AgentStatus.ALIVE
    assert agent(repository).lost_since is None


async def test_a_kernel_that_a_heartbeat_does_not_list_is_asked_after(
    events, repository, coordinator, gateway
):
    (session_id,) = await brought_to(repository, S.RUNNING)
    await settled(coordinator)
    gateway.asked.clear()
    token = repository.live.sessions[session_id].main.token

    await events.heartbeat(A1, 1, [token])
    await settled(coordinator)
    assert gateway.asked == []

    await events.heartbeat(A1, 1, [])
    await settled(coordinator)
    assert gateway.asked == [("states", A1, (token,))]


async def test_a_leftover_is_stopped_on_every_contact(events, repository, coordinator, gateway):
    await brought_to(repository, S.RUNNING)
    await repository.set_agent_status(A1, AgentStatus.GONE)
    (leftover,) = repository.live.leftovers()
    await settled(coordinator)

    for contact in (events.heartbeat(A1, 1, []), events.connected(an_agent_hello(A1))):
        gateway.asked.clear()
        await contact
        await settled(coordinator)
        assert ("stop", A1, (leftover.token,)) in gateway.asked


async def test_reports_are_durable_when_they_are_acknowledged(events, repository):
    (session_id,) = await brought_to(repository, S.CREATING)
    token = repository.live.sessions[session_id].main.token

    await events.reported(A1, 1, [KernelReport(token, ReportState.RUNNING)])

    await repository.refresh()
    assert repository.live.sessions[session_id].status is S.RUNNING


async def test_a_report_is_a_sign_of_life(events, repository, clock):
    clock.advance(30)

    await events.reported(A1, 1, [KernelReport("old", ReportState.ENDED)])

    assert agent(repository).last_seen_at == NOW + 30


async def test_an_empty_report_costs_nothing(events, repository, clock):
    clock.advance(30)

    await events.reported(A1, 1, [])

    assert agent(repository).last_seen_at == NOW


async def test_a_report_that_cannot_be_recorded_is_not_acknowledged(
    events, repository, monkeypatch
):
    async def full(*_):
        raise StoreUnavailableError("the disk is full")

    monkeypatch.setattr(repository, "record_reports", full)

    with pytest.raises(StoreUnavailableError):
        await events.reported(A1, 1, [KernelReport("t", ReportState.ENDED)])


async def test_an_answer_is_a_report(events, repository):
    (session_id,) = await brought_to(repository, S.CREATING)
    token = repository.live.sessions[session_id].main.token

    await events.answered(A1, [KernelReport(token, ReportState.RUNNING)])

    assert repository.live.sessions[session_id].status is S.RUNNING


async def test_an_answer_of_nobody_is_passed_over(events):
    await events.answered(GHOST, [KernelReport("t", ReportState.RUNNING)])
