"""What follows from the statuses of a session's kernels. Pure; termination before promotion."""

from dataclasses import dataclass

from sokovan.domain.reasons import EndReason
from sokovan.domain.sessions import Kernel, KernelRole, SessionWithKernels
from sokovan.domain.statuses import (
    KERNEL_FINAL,
    PRE_PREPARED,
    PRE_RUNNING,
    KernelStatus,
    SessionResult,
)
from sokovan.scheduler.stages import (
    DETECT_TERMINATION,
    PROMOTE_TO_PREPARED,
    PROMOTE_TO_RUNNING,
    PROMOTE_TO_TERMINATED,
    Promotion,
)

_VANISHED = (None, EndReason.STALE_KERNEL, EndReason.STOPPED_BEFORE_START)
"""Why a kernel is gone that nobody meant to end; what is unknown is stopped before it may start."""


@dataclass(frozen=True, slots=True)
class End:
    """How a session's own kernels end it."""

    reason: str
    result: SessionResult
    detail: str = ""


def end_of(kernels: tuple[Kernel, ...]) -> End | None:
    """Return the end that the end policy sees in the kernels that are final, if any.

    A session ends when its main kernel ends, or any kernel ends with a non-zero code or without
    one. It succeeded when every kernel that has ended by then had code 0.
    """
    ended = [kernel for kernel in kernels if kernel.status in KERNEL_FINAL]
    by_role = sorted(ended, key=lambda kernel: (kernel.role is not KernelRole.MAIN, kernel.index))
    failed = next((kernel for kernel in by_role if kernel.exit_code != 0), None)
    if failed is not None:
        return End(_reason_of(failed), SessionResult.FAILURE, _detail_of(failed))
    if any(kernel.role is KernelRole.MAIN for kernel in ended):
        return End(EndReason.SELF_TERMINATED, SessionResult.SUCCESS)
    return None


def next_promotion(session: SessionWithKernels) -> Promotion | None:
    """Return the one promotion that is due, or `None`."""
    if session.status in DETECT_TERMINATION.takes and end_of(session.kernels) is not None:
        return DETECT_TERMINATION
    statuses = {kernel.status for kernel in session.kernels}
    one_is_live = bool(statuses - KERNEL_FINAL)
    if session.status in PROMOTE_TO_PREPARED.takes and one_is_live and not statuses & PRE_PREPARED:
        return PROMOTE_TO_PREPARED
    if session.status in PROMOTE_TO_RUNNING.takes and one_is_live and not statuses & PRE_RUNNING:
        return PROMOTE_TO_RUNNING
    if session.status in PROMOTE_TO_TERMINATED.takes and not one_is_live:
        return PROMOTE_TO_TERMINATED
    return None


def has_run(kernel: Kernel) -> bool:
    """Say whether the kernel's command was ever started, as far as its agent knows."""
    return kernel.started_at is not None or kernel.status is KernelStatus.RUNNING


def _reason_of(kernel: Kernel) -> str:
    if kernel.exit_code is not None:
        return EndReason.KERNEL_FAILED
    if kernel.reason in _VANISHED:
        return EndReason.ABNORMAL_TERMINATION
    return str(kernel.reason)


def _detail_of(kernel: Kernel) -> str:
    what = (
        f"kernel {kernel.index} ended with code {kernel.exit_code}"
        if kernel.exit_code is not None
        else f"kernel {kernel.index}: {kernel.reason or 'vanished'}"
    )
    return f"{what}: {kernel.error}" if kernel.error else what
