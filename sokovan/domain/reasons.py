"""Every reason that Sokovan can give. A reason that no code can emit does not belong here.

`docs/reference/reasons.md` is printed from this file.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class EndReason(StrEnum):
    """Why a session (or one of its kernels) ended; the first one stays."""

    SELF_TERMINATED = "SELF_TERMINATED"
    """Its main kernel ended with code 0."""
    KERNEL_FAILED = "KERNEL_FAILED"
    """A kernel ended with another code than 0."""
    ABNORMAL_TERMINATION = "ABNORMAL_TERMINATION"
    """A kernel vanished: its agent does not know it any more."""
    EXIT_STATUS_LOST = "EXIT_STATUS_LOST"
    """The kernel ended, but its exit status was not written: it or its machine was killed."""
    STALE_KERNEL = "STALE_KERNEL"
    """Of a kernel: its agent, asked for it, does not know it."""
    AGENT_LOST = "AGENT_LOST"
    """The agent was silent for longer than its grace."""
    USER_REQUESTED = "USER_REQUESTED"
    """Somebody cancelled it."""
    WALLTIME_EXCEEDED = "WALLTIME_EXCEEDED"
    """It ran for as long as it may (`--time`)."""
    PENDING_TIMEOUT_EXCEEDED = "PENDING_TIMEOUT_EXCEEDED"
    """It waited for as long as it wanted to (`--pending-timeout`)."""
    DEPENDENCY_FAILED = "DEPENDENCY_FAILED"
    """A session it depends on ended otherwise than it needs."""
    REQUEUE_LIMIT_EXCEEDED = "REQUEUE_LIMIT_EXCEEDED"
    """It went back to PENDING too often; the detail names the last cause."""
    TERMINATION_TIMEOUT = "TERMINATION_TIMEOUT"
    """Its agents did not confirm its end in time; what may be left is a leftover."""
    COMMAND_NOT_FOUND = "COMMAND_NOT_FOUND"
    """There is no such command on the agent."""
    COMMAND_NOT_EXECUTABLE = "COMMAND_NOT_EXECUTABLE"
    """The command cannot be executed: a directory, no permission, no program."""
    DIRECTORY_NOT_FOUND = "DIRECTORY_NOT_FOUND"
    """Its working directory is not there on the agent, or may not be entered."""
    IMAGE_UNAVAILABLE = "IMAGE_UNAVAILABLE"
    """Its image cannot be had on its agent, however often it is tried."""
    STOPPED_BEFORE_START = "STOPPED_BEFORE_START"
    """Of a kernel: it was stopped before it was started."""


class WaitReason(StrEnum):
    """Why a session is not placed; refusals of a single agent among them."""

    NOT_EXAMINED_YET = "NOT_EXAMINED_YET"
    """No scheduling pass has looked at it yet."""
    HELD = "HELD"
    """Its user holds it back (`sokovan release`)."""
    BEGIN_TIME_NOT_REACHED = "BEGIN_TIME_NOT_REACHED"
    """Its begin time is in the future (`--begin`)."""
    WAITING_FOR_DEPENDENCY = "WAITING_FOR_DEPENDENCY"
    """A session it depends on has not ended yet."""
    ARRAY_LIMIT = "ARRAY_LIMIT"
    """As many tasks of its array as may at once are running or about to (`--array %N`)."""
    WAITING_FOR_OLD_KERNELS = "WAITING_FOR_OLD_KERNELS"
    """Kernels of its last attempt may still run; their agent has not confirmed them gone."""
    WAITING_FOR_RETRY = "WAITING_FOR_RETRY"
    """Its last attempt failed; the next one is due after a pause."""
    NO_AGENTS = "NO_AGENTS"
    """Its scaling group has no agent."""
    NEVER_FITS = "NEVER_FITS"
    """No agent of its group could take it, even when empty."""
    AGENT_NOT_ALIVE = "AGENT_NOT_ALIVE"
    """The agents that could take it are lost."""
    AGENT_DRAINED = "AGENT_DRAINED"
    """The agents that could take it are drained (`sokovan agents undrain`)."""
    TOO_LITTLE_CPU = "TOO_LITTLE_CPU"
    """Too few cores are free."""
    TOO_LITTLE_MEM = "TOO_LITTLE_MEM"
    """Too little memory is free."""
    TOO_FEW_GPUS = "TOO_FEW_GPUS"
    """Too few devices, or shares of one, are free."""
    GPU_MEM_TOO_SMALL = "GPU_MEM_TOO_SMALL"
    """The devices have less memory than asked for."""
    NOT_ALL_KERNELS_FIT = "NOT_ALL_KERNELS_FIT"
    """Some of its kernels would fit, but not all at once."""
    TOO_MANY_KERNELS = "TOO_MANY_KERNELS"
    """The agents have as many kernels as they may (`agent_kernels_max`)."""
    CONSTRAINT_NOT_MET = "CONSTRAINT_NOT_MET"
    """The agent does not meet a constraint (`--constraint`)."""
    AGENT_NOT_CHOSEN = "AGENT_NOT_CHOSEN"
    """The agent is not among those that it may go on (`--agent`)."""
    AGENT_EXCLUDED = "AGENT_EXCLUDED"
    """It may not go on this agent (`--exclude`)."""
    RESERVED_FOR_ANOTHER = "RESERVED_FOR_ANOTHER"
    """There is room now, but a session ahead of it will need that before it would end."""
    BEHIND_ANOTHER = "BEHIND_ANOTHER"
    """A session ahead of it finds no room, and nobody may overtake it in this group."""


class MoveReason(StrEnum):
    """Why a stage, a report or a user moved something; the rest of what history says."""

    SUBMITTED = "submitted"
    """Somebody submitted it."""
    SCHEDULED = "scheduled"
    """Agents were chosen for it."""
    PASSED_PRECONDITIONS = "passed-preconditions"
    """Its agents were asked to pull what it needs."""
    TRIGGERED_BY_SCHEDULER = "triggered-by-scheduler"
    """Its agents were asked to start it."""
    DEPRIORITIZED = "deprioritized-for-rescheduling"
    """Its priority was lowered, as nothing could ever fit it so far."""
    NOT_SCHEDULED_THIS_CYCLE = "not-scheduled-this-cycle"
    """The pass did not place it."""
    NO_SCHEDULING_DATA = "no-scheduling-data"
    """Its scaling group is not configured any more."""
    PHASE_TIMEOUT = "phase-timeout"
    """It stayed in a status for as long as the stage's phase limit."""
    HANDLER_FAILED = "handler-failed"
    """A stage failed with an error of its own; the detail names it."""
    AGENT_FAILED = "agent-failed"
    """An agent refused or did not answer; the detail says more."""
    HOLD_REFUSED = "hold-refused"
    """The chosen agents had no room any more."""
    KERNELS_PREPARED = "kernels-prepared"
    """All its kernels are prepared."""
    KERNELS_RUNNING = "kernels-running"
    """All its kernels run."""
    KERNELS_ENDED = "kernels-ended"
    """All its kernels are over."""
    REPORTED_BY_AGENT = "reported-by-agent"
    """Its agent said so."""
    NEVER_PLACED = "never-placed"
    """Of a kernel: it was never placed, so there was nothing to stop."""
    PULL_FAILED = "pull-failed"
    """An image could not be pulled; its agent tries again."""
    START_FAILED = "start-failed"
    """A kernel could not be started; its agent tries again."""
    AGENT_REMOVED = "agent-removed"
    """An agent was removed; what may be left of an earlier attempt there is not looked after."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Why a session waits.

    Attributes:
        code: The one binding reason.
        facts: The numbers behind it, JSON-able.
    """

    code: WaitReason
    facts: dict[str, Any] = field(default_factory=dict)
