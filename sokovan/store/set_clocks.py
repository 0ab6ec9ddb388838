"""What becomes of times that were written by a clock that has been set since."""

from collections.abc import Callable
from dataclasses import replace

from sokovan.domain.sessions import Attempts, SessionWithKernels


def shifted(session: SessionWithKernels, step_s: float) -> SessionWithKernels:
    """Return a session whose ages are what they were before the clock was set by `step_s`."""
    is_due_later = session.begin_at is not None and session.pending_since >= session.begin_at
    return replace(
        _with_times(session, lambda at: at + step_s),
        pending_since=session.pending_since + (0.0 if is_due_later else step_s),
        attempts={
            name: Attempts(a.count, a.last_at + step_s, a.retry_at + step_s)
            for name, a in session.attempts.items()
        },
    )


def pulled_back(session: SessionWithKernels, now: float) -> SessionWithKernels:
    """Return a session of which nothing has begun in the future; usually an equal one.

    For a step that is not known, because the machine was started anew: else its phase, its walltime
    and its next attempt would take longer by what the clock has lost.
    """
    return replace(
        _with_times(session, lambda at: min(at, now)),
        pending_since=min(session.pending_since, max(now, session.begin_at or now)),
        attempts={
            name: a if a.last_at <= now else Attempts(a.count, now, now)
            for name, a in session.attempts.items()
        },
    )


def _with_times(session: SessionWithKernels, put: Callable[[float], float]) -> SessionWithKernels:
    """Return a session with `put` done to the times at which it and its kernels began something."""

    def put_if_any(at: float | None) -> float | None:
        return None if at is None else put(at)

    return replace(
        session,
        status_since=put(session.status_since),
        started_at=put_if_any(session.started_at),
        kernels=tuple(
            replace(
                kernel,
                status_since=put(kernel.status_since),
                started_at=put_if_any(kernel.started_at),
                ended_at=put_if_any(kernel.ended_at),
            )
            for kernel in session.kernels
        ),
    )
