"""Every name that the scenarios use is importable from `sokovan.scheduler`."""

import importlib

import pytest

import sokovan.scheduler

NAMES = (
    "AgentError",
    "CheckPreconditionLifecycleHandler",
    "DEPRIORITIZE_AMOUNT",
    "DeprioritizeSessionsLifecycleHandler",
    "KernelStatus",
    "PendingTimeoutSessionData",
    "SESSION_PRIORITY_MIN",
    "ScheduleResult",
    "ScheduleSessionsLifecycleHandler",
    "ScheduledSessionData",
    "SchedulerRepository",
    "SchedulingData",
    "SessionExecutionResult",
    "SessionId",
    "SessionLauncher",
    "SessionProvisioner",
    "SessionQuerier",
    "SessionStatus",
    "SessionTerminator",
    "SessionTransitionInfo",
    "SessionWithKernels",
    "SessionsForPullResult",
    "SessionsWithUserResult",
    "StartSessionsLifecycleHandler",
    "SweepSessionsLifecycleHandler",
    "TerminateSessionsLifecycleHandler",
    "TerminatingSessionData",
    "TransitionStatus",
)

SOURCE_FILES = {
    "lifecycle.check_precondition": "CheckPreconditionLifecycleHandler",
    "lifecycle.schedule_sessions": "ScheduleSessionsLifecycleHandler",
    "lifecycle.start_sessions": "StartSessionsLifecycleHandler",
    "lifecycle.terminate_sessions": "TerminateSessionsLifecycleHandler",
    "lifecycle.deprioritize_sessions": "DeprioritizeSessionsLifecycleHandler",
    "maintenance.sweep_sessions": "SweepSessionsLifecycleHandler",
}


@pytest.mark.parametrize("name", NAMES)
def test_every_name_of_the_scenarios_is_importable(name):
    assert getattr(sokovan.scheduler, name).__doc__ or isinstance(
        getattr(sokovan.scheduler, name), int
    )
    assert name in dir(sokovan.scheduler)


@pytest.mark.parametrize("module", SOURCE_FILES)
def test_every_handler_is_in_the_file_that_the_scenarios_name(module):
    found = importlib.import_module(f"sokovan.scheduler.handlers.{module}")

    assert getattr(found, SOURCE_FILES[module]).__module__ == found.__name__


@pytest.mark.parametrize("name", sokovan.scheduler._MODULE_OF)
def test_every_exported_name_exists(name):
    assert getattr(sokovan.scheduler, name) is not None


def test_a_name_that_does_not_exist_is_refused():
    with pytest.raises(AttributeError, match="no attribute 'SessionConductor'"):
        sokovan.scheduler.SessionConductor  # noqa: B018
