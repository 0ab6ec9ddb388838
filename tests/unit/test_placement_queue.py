"""Who is looked at first, and who may be placed at all."""

from sokovan.domain.reasons import Wait, WaitReason
from sokovan.domain.sessions import Dependency, DependencyKind, SessionId
from sokovan.placement.admit import admission
from sokovan.placement.engine import place
from sokovan.placement.order import fifo
from tests.property.strategies import a_hold, a_session, a_snapshot, an_agent, need


def test_a_higher_priority_comes_first_then_the_earlier_submission():
    late_and_high = a_session("s1", number=9, priority=20)
    second, first = a_session("s2", number=2), a_session("s3", number=1)

    queue = fifo(a_snapshot(second, late_and_high, first))

    assert queue == [late_and_high, first, second]


def test_a_session_that_nothing_holds_back_is_admitted():
    session = a_session(begin_at=100.0)

    assert admission(session, a_snapshot(session, now=100.0)) is None


def test_a_held_session_waits_for_its_user():
    session = a_session(held=True, begin_at=100.0)

    assert admission(session, a_snapshot(session)) == Wait(WaitReason.HELD)


def test_a_session_waits_for_its_begin_time():
    session = a_session(begin_at=100.0)

    wait = admission(session, a_snapshot(session, now=99.9))

    assert wait == Wait(WaitReason.BEGIN_TIME_NOT_REACHED, {"begin_at": 100.0})


def test_a_session_waits_for_those_it_depends_on():
    session = a_session(unmet=(Dependency(SessionId("other"), DependencyKind.AFTER_ANY),))

    wait = admission(session, a_snapshot(session))

    assert wait == Wait(
        WaitReason.WAITING_FOR_DEPENDENCY,
        {"unmet": [{"session_id": "other", "kind": "afterany"}]},
    )


def test_a_session_waits_until_the_kernels_of_its_last_attempt_are_gone():
    session = a_session("s1")
    left = a_hold("a7", session_id="s1", leftover_since=1.0)
    others = a_hold("a8", session_id="s2", leftover_since=1.0)

    wait = admission(
        session,
        a_snapshot(session, holds=(left, others), waiting_for_old=frozenset({session.session_id})),
    )

    assert wait == Wait(WaitReason.WAITING_FOR_OLD_KERNELS, {"agents": ["a7"]})


def test_a_blocked_session_does_not_block_those_behind_it():
    big, small = a_session("big", need("8"), number=1), a_session("small", need("1"), number=2)

    plan = place(a_snapshot(big, small, holds=(a_hold(),)))

    assert list(plan.placed) == ["small"]
    assert list(plan.waits) == ["big"]


def test_holds_of_an_agent_that_left_take_nothing_from_the_others():
    plan = place(a_snapshot(a_session("s1", need("8")), holds=(a_hold("a9"),)))

    assert "s1" in plan.placed


def test_an_agent_that_shrank_below_what_it_holds_has_nothing_free():
    snapshot = a_snapshot(agents=[an_agent(cpu="2")], holds=(a_hold("a1", need("3")),))

    assert snapshot.free["a1"].cpu_milli == 0
