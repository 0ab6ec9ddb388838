"""What was written by a clock that has been set back since."""

from dataclasses import replace

from sokovan.domain.sessions import Attempts, Kernel, SessionWithKernels


def pulled_back(session: SessionWithKernels, now: float) -> SessionWithKernels:
    """Return a session of which nothing has begun in the future; usually, the very same.

    Else its phase, its walltime and its next attempt would take longer by what the clock lost.
    """
    begun = max(now, session.begin_at or now)
    return replace(
        session,
        status_since=min(session.status_since, now),
        pending_since=min(session.pending_since, begun),
        started_at=_not_after(session.started_at, now),
        attempts={
            name: attempts if attempts.last_at <= now else Attempts(attempts.count, now, now)
            for name, attempts in session.attempts.items()
        },
        kernels=tuple(_kernel(kernel, now) for kernel in session.kernels),
    )


def _kernel(kernel: Kernel, now: float) -> Kernel:
    return replace(
        kernel,
        status_since=min(kernel.status_since, now),
        started_at=_not_after(kernel.started_at, now),
    )


def _not_after(at: float | None, now: float) -> float | None:
    return None if at is None else min(at, now)
