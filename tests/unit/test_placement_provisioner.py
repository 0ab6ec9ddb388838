"""From a plan to what the handler is told."""

from sokovan.domain.sessions import SESSION_PRIORITY_MIN, KernelAssignment
from sokovan.domain.statuses import SessionStatus
from sokovan.scheduler.ports import ScheduledSessionData, SchedulingData, SessionProvisioner
from sokovan.scheduler.provisioner import PlacementProvisioner
from tests.property.strategies import a_session, an_agent, need


async def schedule(*pending):
    provisioner: SessionProvisioner = PlacementProvisioner(full_cycle_s=60.0)
    return await provisioner.schedule_scaling_group(
        "default", SchedulingData(agents=(an_agent(),), pending=pending)
    )


async def test_placed_sessions_carry_their_assignment_in_the_order_of_placing():
    result = await schedule(a_session("s1", number=2), a_session("s2", number=1))

    assert result.scheduled_sessions == [
        ScheduledSessionData("s2", (KernelAssignment("s2.0", "a1"),)),
        ScheduledSessionData("s1", (KernelAssignment("s1.0", "a1"),)),
    ]
    assert result.failures == []
    assert result.waits == {}


async def test_waiting_for_room_is_no_failure():
    result = await schedule(a_session("s1", need("6")), a_session("s2", need("6"), number=1))

    assert result.failures == []
    assert list(result.waits) == ["s2"]


async def test_a_request_that_never_fits_is_a_failure_once_per_full_cycle():
    result = await schedule(a_session("s1", need("64")))

    (failure,) = result.failures
    assert failure.session_id == "s1"
    assert failure.from_status is SessionStatus.PENDING
    assert failure.reason == "NEVER_FITS"
    assert failure.detail.startswith("can never start here: it asks for 64 cores")
    assert failure.counted_every_s == 60.0
    assert failure.wait is result.waits["s1"]


async def test_a_request_that_never_fits_only_waits_once_its_priority_is_lowest():
    result = await schedule(a_session("s1", need("64"), priority=SESSION_PRIORITY_MIN))

    assert result.failures == []
    assert result.waits["s1"].code == "NEVER_FITS"
