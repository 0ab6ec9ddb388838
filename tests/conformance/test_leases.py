"""Several managers on one store: who drives which group, and what the others may still do."""

import asyncio

import pytest
from sqlalchemy import select

from sokovan.config import SchedulerConfig
from sokovan.domain.access import Caller, Role
from sokovan.domain.cluster import AgentStatus
from sokovan.domain.errors import AgentError, LeaseLostError
from sokovan.domain.sessions import SessionId
from sokovan.domain.statuses import SessionStatus
from sokovan.placement.engine import place
from sokovan.scheduler import stages
from sokovan.scheduler.coordinator import Coordinator
from sokovan.scheduler.duty import Duty
from sokovan.scheduler.messages import ReportState
from sokovan.scheduler.moves import Verdict
from sokovan.scheduler.wiring import events_for
from sokovan.store.news import News
from sokovan.store.repository import SqlRepository
from sokovan.store.tables import managers
from tests.build import A1, A2, a_move, a_spec, an_agent_hello, brought_to, placed, said, submitted
from tests.conformance.conftest import known_as

S = SessionStatus
ROOT = Caller("root", Role.ADMIN)
MANAGERS = select(managers)


async def kept(repository):
    return await repository.keep_leases(known_as(repository))


@pytest.fixture
async def first(store):
    return await store.joined("default", "other")


@pytest.fixture
async def second(store, first):
    return await store.joined("default", "other")


# --- who drives -----------------------------------------------------------------------------------


async def test_the_first_drives_everything_and_the_second_stands_by(first, second):
    assert first.led == {"default", "other"}
    assert second.led == set()
    assert (first.duty("default"), second.duty("default")) == (Duty.LEADS, Duty.NONE)


async def test_a_lease_that_is_renewed_is_never_taken(store, first, second):
    for _ in range(20):
        store.clock.advance(4.0)
        assert await kept(first) == set()
        assert await kept(second) == set()

    assert first.led == {"default", "other"}


async def test_a_lease_that_is_not_renewed_is_taken_once_it_is_over(store, first, second):
    await kept(first)
    await kept(second)  # sees it as it is from now on
    store.clock.advance(9.9)
    assert await kept(second) == set()
    store.clock.advance(0.2)

    assert await kept(second) == {"default", "other"}

    assert second.led == {"default", "other"}


async def test_the_holder_stops_before_anybody_else_may_begin(store, first, second):
    await kept(first)
    await kept(second)
    store.clock.advance(9.9)
    assert first.duty("default") is Duty.LEADS
    store.clock.advance(0.1)

    assert first.led == set()
    assert first.duty("default") is Duty.UNSURE


async def test_who_was_alone_when_it_last_renewed_need_not_think_that_it_is_replaced(store, first):
    await kept(first)
    store.clock.advance(10.0)

    assert first.led == set()
    assert first.duty("default") is Duty.ALONE


async def test_who_could_not_renew_in_time_goes_on_when_nobody_has_taken_over(store, first):
    store.clock.advance(60.0)
    assert first.led == set()

    assert await kept(first) == {"default", "other"}

    assert first.led == {"default", "other"}


async def test_who_comes_late_drives_nothing_any_more(store, first, second):
    await kept(second)
    store.clock.advance(10.0)
    await kept(second)

    assert await kept(first) == set()

    assert first.duty("default") is Duty.NONE
    assert second.led == {"default", "other"}


async def test_who_stood_still_while_it_looked_takes_nothing_for_older_than_it_is(
    store, first, second, monkeypatch
):
    await kept(second)
    store.clock.advance(10.0)
    await kept(second)
    write = first._write

    async def written_late(job):
        store.clock.advance(30.0)
        await kept(second)
        return await write(job)

    with monkeypatch.context() as patch:
        patch.setattr(first, "_write", written_late)
        await kept(first)
    store.clock.advance(1.0)

    assert await kept(first) == set()

    assert second.led == {"default", "other"}


async def test_leases_that_are_given_up_are_taken_at_once(first, second):
    await first.give_up_leases()
    assert first.led == set()

    assert await kept(second) == {"default", "other"}


async def test_a_manager_that_comes_back_takes_its_own_leases_at_once(store, first):
    again = await store.joined("default", "other", holder=first.manager_id)

    assert again.led == {"default", "other"}
    with pytest.raises(LeaseLostError):
        await first.touch()


async def test_a_new_group_is_driven_by_who_made_it(first, second):
    await second.create_group("third", {}, check=lambda _: None, by=ROOT)

    assert second.led == {"third"}
    assert await kept(first) == set()
    assert first.led == {"default", "other"}


async def test_a_group_that_is_made_while_leases_are_kept_is_not_lost(first):
    await asyncio.gather(
        kept(first), first.create_group("third", {}, check=lambda _: None, by=ROOT)
    )

    assert first.led == {"default", "other", "third"}


async def test_managers_know_of_each_other_until_one_is_silent(store, first, second):
    await kept(first)
    both = [first.manager_id, second.manager_id]
    assert sorted(m.manager_id for m in first.others.managers(store.clock.now())) == both
    assert first.others.holders() == dict.fromkeys(("default", "other"), first.manager_id)
    for _ in range(3):
        store.clock.advance(5.0)
        await kept(first)

    assert [m.manager_id for m in first.others.managers(store.clock.now())] == both[:1]
    assert not first.others.were_there()


async def test_a_manager_that_is_long_gone_is_forgotten(store, first, second):
    for _ in range(3):
        await kept(first)
        store.clock.advance(1000.0)

    await kept(first)
    await kept(first)

    found = await store.database.read(lambda tx: [row.manager_id for row in tx.execute(MANAGERS)])
    assert found == [first.manager_id]


# --- late writes ----------------------------------------------------------------------------------


async def test_late_writes_of_the_one_before_are_refused(store, first, second):
    await first.register_agent(an_agent_hello(A1))
    (session_id,) = await brought_to(first, S.SCHEDULED)
    move = a_move(first.live.sessions[session_id], stages.CHECK_PRECONDITION)
    await kept(second)
    store.clock.advance(10.0)
    await kept(second)

    for late in (
        lambda: SqlRepository.apply(first, [move]),
        lambda: SqlRepository.record_reports(first, A1, 1, []),
        lambda: SqlRepository.set_agent_status(first, A1, AgentStatus.LOST),
        lambda: SqlRepository.lower_session_priority(first, [session_id], 10, 0),
        lambda: SqlRepository.register_agent(first, an_agent_hello(A1)),
    ):
        for _ in range(2):  # the first refusal tells it; it is refused all the same after that
            with pytest.raises(LeaseLostError, match="another manager drives the group 'default'"):
                await late()

    assert [v for _, v in (await second.apply([move])).verdicts] == [Verdict.APPLIED]


async def test_who_drives_another_group_is_not_disturbed(first, store):
    await first.register_agent(an_agent_hello(A1))
    (session_id,) = await brought_to(first, S.SCHEDULED)
    await store.joined("third")

    applied = await SqlRepository.apply(
        first, [a_move(first.live.sessions[session_id], stages.CHECK_PRECONDITION)]
    )

    assert [verdict for _, verdict in applied.verdicts] == [Verdict.APPLIED]


# --- what the others see, and may do --------------------------------------------------------------


def same_picture(one, other):
    assert one.live.sessions == other.live.sessions
    assert set(one.live.leftovers()) == set(other.live.leftovers())
    agents = one.live.agents.keys() | other.live.agents.keys()
    for agent_id in agents:
        assert set(one.live.holds_on(agent_id)) == set(other.live.holds_on(agent_id))
        assert one.live.agents[agent_id].status is other.live.agents[agent_id].status
        assert one.live.agents[agent_id].is_drained is other.live.agents[agent_id].is_drained


@pytest.mark.parametrize("groups", [False, True])
async def test_a_session_s_life_is_followed_by_who_only_hears_of_it(first, second, groups):
    """Also where all is read again: who waits for a session must hear of its end."""
    await first.register_agent(an_agent_hello(A1))
    await second.catch_up(News(agents=True))
    (session_id,) = await submitted(first, a_spec(kernel_count=2))
    news = News({session_id}, groups=groups)
    seen = []
    for step in ("submitted", "placed", "started", "ended"):
        if step == "placed":
            await placed(first, session_id, on=(A1, A1))
        elif step == "started":
            await first.apply([a_move(first.live.sessions[session_id], stages.CHECK_PRECONDITION)])
        elif step == "ended":
            await said(first, ReportState.ENDED, session_id, exit_code=0)
        applied = await second.catch_up(news)
        seen += [moved.to_status for moved in applied.moved]
        same_picture(first, second)

    assert seen[:3] == [S.PENDING, S.SCHEDULED, S.PREPARING]
    assert seen[-1].is_final
    assert session_id not in second.live.sessions


async def test_an_agent_that_introduced_itself_elsewhere_counts_as_there(first, second):
    await first.register_agent(an_agent_hello(A1))
    (session_id,) = await submitted(first, a_spec())

    await second.catch_up(News({session_id}, agents=True))

    shown = place(second.snapshot("default")).placed
    assert shown.keys() == {session_id}


async def test_what_users_ask_of_any_manager_is_done(first, second):
    await first.register_agent(an_agent_hello(A1))
    await second.catch_up(News(agents=True))
    (session_id,) = await submitted(second, a_spec())
    await first.catch_up(News({session_id}))
    await placed(first, session_id)
    await second.request_termination([session_id], force=False, detail="")
    await second.set_drained(A1, drained=True, reason="new disk")

    await first.catch_up(News({session_id}, agents=True))
    await second.catch_up(News({session_id}))

    assert first.live.sessions[session_id].status is S.TERMINATING
    assert first.live.agents[A1].is_drained
    same_picture(first, second)


async def test_a_move_decided_before_another_manager_s_cancel_is_dropped(first, second):
    await first.register_agent(an_agent_hello(A1))
    (session_id,) = await submitted(first, a_spec())
    await second.catch_up(News({session_id}, agents=True))
    await second.request_termination([session_id], force=False, detail="")

    applied = await placed(first, session_id)  # it has not heard of that

    assert [verdict for _, verdict in applied.verdicts] == [Verdict.SUPERSEDED]
    assert session_id not in first.live.sessions


async def test_an_agent_that_was_removed_elsewhere_is_forgotten(store, first, second):
    await first.register_agent(an_agent_hello(A1))
    await first.register_agent(an_agent_hello(A2))
    await second.catch_up(News(agents=True))
    await first.set_agent_status(A1, AgentStatus.GONE)
    await second.remove_agent(A1, by=ROOT)

    await first.catch_up(News(agents=True))

    assert first.live.agents.keys() == {A2}
    same_picture(first, second)


async def test_a_session_of_a_group_that_is_not_known_has_everything_read(first, second):
    await second.create_group("third", {}, check=lambda _: None, by=ROOT)
    (session_id,) = await submitted(second, a_spec(scaling_group="third"))

    applied = await first.catch_up(News({session_id}))

    assert "third" in applied.policies
    assert first.live.sessions[session_id].scaling_group == "third"


async def test_who_takes_over_waits_for_the_agents_to_introduce_themselves(store, first, second):
    await first.register_agent(an_agent_hello(A1))
    await second.catch_up(News(agents=True))
    assert A1 in second.live.heard
    await first.give_up_leases()

    await kept(second)

    assert A1 not in second.live.heard
    assert A1 in first.live.heard, "the other manager's word counts now"


async def test_who_drives_again_has_an_agent_that_stayed_connected_introduce_itself(
    store, first, second
):
    coordinator = Coordinator(first, store.clock, SchedulerConfig())
    events = events_for(coordinator, first)
    await events.connected(an_agent_hello(A1))
    await first.give_up_leases()
    await kept(second)
    await second.give_up_leases()
    await kept(first)

    with pytest.raises(AgentError, match="another manager"):
        await events.heartbeat(A1, 1, [])  # whoever brings this hangs up, and connects anew

    incarnation = await events.connected(an_agent_hello(A1))
    await events.heartbeat(A1, incarnation, [])
    (agent,) = first.machines_of("default").agents
    assert agent.status is AgentStatus.ALIVE


async def test_a_session_that_is_not_in_the_store_is_forgotten(first):
    applied = await first.catch_up(News({SessionId("nobody")}))

    assert applied.moved == ()


# --- hints as texts -------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 399, 400, 401, 1000])
def test_news_travel_in_short_messages(count):
    from sokovan.store.news import read_message

    news = News({f"session-{n:05}" for n in range(count)}, agents=True, tokens=True)
    heard = News()
    for message in news.messages("me"):
        assert len(message.encode()) < 8000
        sender, part = read_message(message)
        assert sender == "me"
        heard.add(part)

    assert heard == news


@pytest.mark.parametrize("text", ["", "[]", "{}", "[1,2,3]", '["a",["b"],["nonsense"]]', "\x00"])
def test_a_message_of_nobody_says_nothing_that_matters(text):
    from sokovan.store.news import read_message

    _, news = read_message(text)

    assert not news or news.sessions
