"""Who may be placed at all, whatever is free. A new check: one function, one entry in `CHECKS`."""

from collections.abc import Callable

from sokovan.domain.reasons import Wait, WaitReason
from sokovan.domain.sessions import SessionWithKernels
from sokovan.placement.snapshot import Snapshot

Check = Callable[[SessionWithKernels, Snapshot], Wait | None]

HELD = Wait(WaitReason.HELD)


def held(session: SessionWithKernels, snapshot: Snapshot) -> Wait | None:
    """Its user holds it back."""
    return HELD if session.held else None


def begin_time(session: SessionWithKernels, snapshot: Snapshot) -> Wait | None:
    """It asked to begin later."""
    if session.begin_at is None or session.begin_at <= snapshot.now:
        return None
    return Wait(WaitReason.BEGIN_TIME_NOT_REACHED, {"begin_at": session.begin_at})


def dependencies(session: SessionWithKernels, snapshot: Snapshot) -> Wait | None:
    """Sessions that it depends on have not ended."""
    if not session.unmet:
        return None
    unmet = [{"session_id": d.session_id, "kind": d.kind.value} for d in session.unmet]
    return Wait(WaitReason.WAITING_FOR_DEPENDENCY, {"unmet": unmet})


def array_place(session: SessionWithKernels, snapshot: Snapshot) -> Wait | None:
    """As many tasks of its array as may have a place at once have one."""
    if not session.array_waits:
        return None
    facts = {"array_id": session.array_id, "running_max": session.array_max}
    return Wait(WaitReason.ARRAY_LIMIT, facts)


def old_kernels(session: SessionWithKernels, snapshot: Snapshot) -> Wait | None:
    """Kernels of its last attempt may still exist."""
    if session.session_id not in snapshot.waiting_for_old:
        return None
    agents = {
        hold.agent_id
        for hold in snapshot.machines.holds.values()
        if hold.is_leftover and hold.session_id == session.session_id
    }
    return Wait(WaitReason.WAITING_FOR_OLD_KERNELS, {"agents": sorted(agents)})


CHECKS: tuple[Check, ...] = (held, begin_time, dependencies, array_place, old_kernels)
"""In the order in which they bind; quotas will be one more."""


def admission(session: SessionWithKernels, snapshot: Snapshot) -> Wait | None:
    """Return why a session may not be placed now, or `None` when it may."""
    for check in CHECKS:
        wait = check(session, snapshot)
        if wait is not None:
            return wait
    return None
