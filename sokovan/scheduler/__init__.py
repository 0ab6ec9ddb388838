"""When a session may move: a table of stages, pure rules, a thin asynchronous shell.

The names that the specification uses are importable from here; each is loaded when it is first
used, so that importing a pure module loads nothing else.
"""

import importlib
from typing import Any

_HOME_OF = {
    "sokovan.domain.errors": ("AgentError",),
    "sokovan.domain.sessions": (
        "DEPRIORITIZE_AMOUNT",
        "SESSION_PRIORITY_MAX",
        "SESSION_PRIORITY_MIN",
        "AgentId",
        "Kernel",
        "KernelId",
        "SessionId",
        "SessionWithKernels",
    ),
    "sokovan.domain.statuses": ("KernelStatus", "SessionResult", "SessionStatus"),
    "sokovan.scheduler.handlers.lifecycle.check_precondition": (
        "CheckPreconditionLifecycleHandler",
    ),
    "sokovan.scheduler.handlers.lifecycle.deprioritize_sessions": (
        "DeprioritizeSessionsLifecycleHandler",
    ),
    "sokovan.scheduler.handlers.lifecycle.schedule_sessions": ("ScheduleSessionsLifecycleHandler",),
    "sokovan.scheduler.handlers.lifecycle.start_sessions": ("StartSessionsLifecycleHandler",),
    "sokovan.scheduler.handlers.lifecycle.terminate_sessions": (
        "TerminateSessionsLifecycleHandler",
    ),
    "sokovan.scheduler.handlers.maintenance.sweep_sessions": ("SweepSessionsLifecycleHandler",),
    "sokovan.scheduler.ports": (
        "PendingTimeoutSessionData",
        "ScheduleResult",
        "ScheduledSessionData",
        "SchedulerRepository",
        "SchedulingData",
        "SessionDataForPull",
        "SessionDataForStart",
        "SessionLauncher",
        "SessionProvisioner",
        "SessionQuerier",
        "SessionTerminator",
        "SessionsForPullResult",
        "SessionsWithUserResult",
        "TerminatingSessionData",
    ),
    "sokovan.scheduler.results": ("SessionExecutionResult", "SessionTransitionInfo"),
    "sokovan.scheduler.stages": ("STAGES", "Stage", "TransitionStatus"),
}
_MODULE_OF = {name: module for module, names in _HOME_OF.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_MODULE_OF]
