"""Every reason that Sokovan can give. A reason that no code can emit does not belong here.

Three kinds: why a session ended, why it waits, why a stage moved it. `docs/reference/reasons.md`
explains each; a test keeps the two in step.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class EndReason(StrEnum):
    """Why a session (or one of its kernels) ended; the first one stays."""

    SELF_TERMINATED = "SELF_TERMINATED"
    KERNEL_FAILED = "KERNEL_FAILED"
    ABNORMAL_TERMINATION = "ABNORMAL_TERMINATION"
    EXIT_STATUS_LOST = "EXIT_STATUS_LOST"
    STALE_KERNEL = "STALE_KERNEL"
    AGENT_LOST = "AGENT_LOST"
    USER_REQUESTED = "USER_REQUESTED"
    WALLTIME_EXCEEDED = "WALLTIME_EXCEEDED"
    PENDING_TIMEOUT_EXCEEDED = "PENDING_TIMEOUT_EXCEEDED"
    DEPENDENCY_FAILED = "DEPENDENCY_FAILED"
    REQUEUE_LIMIT_EXCEEDED = "REQUEUE_LIMIT_EXCEEDED"
    TERMINATION_TIMEOUT = "TERMINATION_TIMEOUT"
    COMMAND_NOT_FOUND = "COMMAND_NOT_FOUND"
    COMMAND_NOT_EXECUTABLE = "COMMAND_NOT_EXECUTABLE"
    DIRECTORY_NOT_FOUND = "DIRECTORY_NOT_FOUND"
    STOPPED_BEFORE_START = "STOPPED_BEFORE_START"


class WaitReason(StrEnum):
    """Why a session is not placed; refusals of a single agent among them."""

    NOT_EXAMINED_YET = "NOT_EXAMINED_YET"
    HELD = "HELD"
    BEGIN_TIME_NOT_REACHED = "BEGIN_TIME_NOT_REACHED"
    WAITING_FOR_DEPENDENCY = "WAITING_FOR_DEPENDENCY"
    WAITING_FOR_OLD_KERNELS = "WAITING_FOR_OLD_KERNELS"
    WAITING_FOR_RETRY = "WAITING_FOR_RETRY"
    NO_AGENTS = "NO_AGENTS"
    NEVER_FITS = "NEVER_FITS"
    AGENT_NOT_ALIVE = "AGENT_NOT_ALIVE"
    TOO_LITTLE_CPU = "TOO_LITTLE_CPU"
    TOO_LITTLE_MEM = "TOO_LITTLE_MEM"
    TOO_FEW_GPUS = "TOO_FEW_GPUS"
    GPU_MEM_TOO_SMALL = "GPU_MEM_TOO_SMALL"
    NOT_ALL_KERNELS_FIT = "NOT_ALL_KERNELS_FIT"


class MoveReason(StrEnum):
    """Why a stage, a report or a user moved a session or a kernel; the rest of what history says."""

    SUBMITTED = "submitted"
    SCHEDULED = "scheduled"
    PASSED_PRECONDITIONS = "passed-preconditions"
    TRIGGERED_BY_SCHEDULER = "triggered-by-scheduler"
    DEPRIORITIZED = "deprioritized-for-rescheduling"
    NOT_SCHEDULED_THIS_CYCLE = "not-scheduled-this-cycle"
    NO_SCHEDULING_DATA = "no-scheduling-data"
    PHASE_TIMEOUT = "phase-timeout"
    ATTEMPTS_EXHAUSTED = "attempts-exhausted"
    HANDLER_FAILED = "handler-failed"
    AGENT_FAILED = "agent-failed"
    HOLD_REFUSED = "hold-refused"
    KERNELS_PREPARED = "kernels-prepared"
    KERNELS_RUNNING = "kernels-running"
    KERNELS_ENDED = "kernels-ended"
    REPORTED_BY_AGENT = "reported-by-agent"
    REQUEUED = "requeued"
    NEVER_PLACED = "never-placed"
    PULL_FAILED = "pull-failed"
    START_FAILED = "start-failed"


@dataclass(frozen=True, slots=True)
class Wait:
    """Why a session waits.

    Attributes:
        code: The one binding reason.
        facts: The numbers behind it, JSON-able.
    """

    code: WaitReason
    facts: dict[str, Any] = field(default_factory=dict)
