"""The invariants of what is tried: it is counted, tried again, and not promoted after its end.

Like those in `checks`, each returns what is violated, as sentences; they need one picture of a
store.
"""

from collections import Counter
from collections.abc import Callable, Iterable

from sokovan.domain.reasons import WaitReason
from sokovan.domain.sessions import Attempts, KernelId
from sokovan.domain.statuses import KernelStatus, SessionStatus
from sokovan.scheduler.moves import HistoryLine
from sokovan.scheduler.promote import end_of
from sokovan.scheduler.stages import PROMOTE_TO_PREPARED, PROMOTE_TO_RUNNING, STAGES
from sokovan.simulator.observe import Picture

_STAGE_NAMED = {stage.name: stage for stage in STAGES}
_TRIED_BY = {
    status: stage
    for stage in STAGES
    if stage.success is not None
    for status in stage.takes - {SessionStatus.PENDING}
}
"""Who tries what is in a status; what is PENDING may wait for ever."""
_WAITS = frozenset(WaitReason)
_PROMOTES = (PROMOTE_TO_PREPARED.name, PROMOTE_TO_RUNNING.name)


def every_failure_is_counted(picture: Picture) -> list[str]:
    """A stage counts every failure that history tells of the phase, whoever looked meanwhile.

    What is counted stays below its limit, so that nothing is tried for ever.
    """
    found = []
    for session in picture.looked_at():
        told = _failures_told(picture.history.get(session.session_id, ()))
        for name, failures in told.items():
            counted = session.attempts.get(name, Attempts()).count
            if counted < failures:
                found.append(
                    f"session {session.session_id}: {name} failed {failures} times in this phase"
                    f" and counts {counted}"
                )
    return found


def _failures_told(lines: Iterable[HistoryLine]) -> Counter[str]:
    """Return what history tells of failures in the present phase, by stage."""
    told: Counter[str] = Counter()
    for line in lines:
        if line.kernel_id is not None:
            continue
        if line.from_status != line.to_status:
            for stage in [_STAGE_NAMED[name] for name in told]:
                if line.from_status not in stage.takes or line.to_status not in stage.awaits:
                    del told[stage.name]
        elif line.stage in _STAGE_NAMED and line.reason not in _WAITS:
            told[line.stage] += 1
    return told


def none_is_promoted_after_its_end(picture: Picture) -> list[str]:
    """No session goes on to PREPARED or RUNNING when kernels that are over are its end."""
    found = []
    for session in picture.looked_at():
        over: set[KernelId] = set()
        over_before: set[KernelId] = set()
        for line in picture.history.get(session.session_id, ()):
            if line.kernel_id is not None:
                is_over = KernelStatus(line.to_status).is_final
                (over.add if is_over else over.discard)(line.kernel_id)
            elif line.to_status == SessionStatus.PENDING:
                over_before.clear()
            elif line.stage in _PROMOTES:
                over_before |= over
        end = end_of(tuple(k for k in session.kernels if k.kernel_id in over_before))
        if end is not None:
            found.append(
                f"session {session.session_id}: it was promoted when it had ended: {end.reason}"
            )
    return found


CHECKS: tuple[Callable[[Picture], list[str]], ...] = (
    every_failure_is_counted,
    none_is_promoted_after_its_end,
)
"""What holds of each session at any moment, as those in `checks` do."""


def violations(picture: Picture) -> list[str]:
    """Say what is wrong with what was tried."""
    return [sentence for check in CHECKS for sentence in check(picture)]


def nothing_is_left_alone(
    picture: Picture, now: float, slack_s: float, taken_over_at: float = 0.0
) -> list[str]:
    """Nothing that a stage is to try is left alone for longer than its pause, and slack.

    A hint may be lost: that costs a full cycle, and no more.
    """
    found = []
    for session in picture.sessions.values():
        stage = _TRIED_BY.get(session.status)
        if stage is None:
            continue
        attempts = session.attempts.get(stage.name, Attempts())
        tried_at = max(session.status_since, attempts.last_at, attempts.retry_at, taken_over_at)
        if now > tried_at + slack_s:
            found.append(
                f"session {session.session_id}: {stage.name} has left it {session.status}"
                f" for {now - tried_at:.0f} s"
            )
    return found
