"""The statuses of sessions and kernels, and the few named sets of them."""

from enum import StrEnum


class SessionStatus(StrEnum):
    """Where a session stands. RESERVED and PREEMPTED are kept free for later."""

    PENDING = "PENDING"
    DEPRIORITIZING = "DEPRIORITIZING"
    SCHEDULED = "SCHEDULED"
    PREPARING = "PREPARING"
    PREPARED = "PREPARED"
    CREATING = "CREATING"
    RUNNING = "RUNNING"
    TERMINATING = "TERMINATING"
    TERMINATED = "TERMINATED"
    CANCELLED = "CANCELLED"

    @property
    def is_final(self) -> bool:
        """Whether no move leads out of this status."""
        return self in FINAL


class KernelStatus(StrEnum):
    """Where one kernel stands."""

    PENDING = "PENDING"
    SCHEDULED = "SCHEDULED"
    PREPARING = "PREPARING"
    PULLING = "PULLING"
    PREPARED = "PREPARED"
    CREATING = "CREATING"
    RUNNING = "RUNNING"
    TERMINATING = "TERMINATING"
    TERMINATED = "TERMINATED"
    CANCELLED = "CANCELLED"

    @property
    def is_final(self) -> bool:
        """Whether the kernel is over."""
        return self in KERNEL_FINAL


class SessionResult(StrEnum):
    """How a session ended; fixed once, at the moment its end policy is met."""

    UNDEFINED = "UNDEFINED"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"


FINAL = frozenset({SessionStatus.TERMINATED, SessionStatus.CANCELLED})
KERNEL_FINAL = frozenset({KernelStatus.TERMINATED, KernelStatus.CANCELLED})

PRE_PREPARED = frozenset(
    {
        KernelStatus.PENDING,
        KernelStatus.SCHEDULED,
        KernelStatus.PREPARING,
        KernelStatus.PULLING,
    }
)
PRE_RUNNING = PRE_PREPARED | {KernelStatus.PREPARED, KernelStatus.CREATING}

WAITING = frozenset({SessionStatus.PENDING, SessionStatus.DEPRIORITIZING})
"""Not placed: nothing of the session exists on any agent, leftovers apart."""

PRE_CREATING = frozenset({SessionStatus.SCHEDULED, SessionStatus.PREPARING, SessionStatus.PREPARED})
"""Placed, but nothing was started: such a session can go elsewhere without a loss."""

SESSION_PATH = (
    SessionStatus.PENDING,
    SessionStatus.SCHEDULED,
    SessionStatus.PREPARING,
    SessionStatus.PREPARED,
    SessionStatus.CREATING,
    SessionStatus.RUNNING,
    SessionStatus.TERMINATING,
    SessionStatus.TERMINATED,
)
"""The way of a session without accidents, in order."""

KERNEL_PATH = (
    KernelStatus.PENDING,
    KernelStatus.SCHEDULED,
    KernelStatus.PREPARING,
    KernelStatus.PULLING,
    KernelStatus.PREPARED,
    KernelStatus.CREATING,
    KernelStatus.RUNNING,
    KernelStatus.TERMINATING,
    KernelStatus.TERMINATED,
)
"""The way of a kernel without accidents, in order; PULLING is left out when nothing is pulled."""

KERNEL_RANK = {status: rank for rank, status in enumerate(KERNEL_PATH)} | {
    KernelStatus.CANCELLED: len(KERNEL_PATH) - 1
}
"""A report never takes a kernel to a lower rank."""
