"""From what agents say of tokens to changes of sessions."""

from collections.abc import Mapping, Sequence

from sokovan.domain.cluster import ScalingGroup
from sokovan.domain.reasons import EndReason, MoveReason
from sokovan.domain.resources import Hold
from sokovan.domain.sessions import SessionId
from sokovan.domain.statuses import KernelStatus
from sokovan.scheduler.change import SessionChange
from sokovan.scheduler.messages import KernelReport, ReportState
from sokovan.scheduler.stages import CHECK_PRECONDITION, STALE_SWEPT, START_SESSIONS
from sokovan.store.changes import ChangeSet

_FAILED = {
    ReportState.PULL_FAILED: (CHECK_PRECONDITION, MoveReason.PULL_FAILED),
    ReportState.START_FAILED: (START_SESSIONS, MoveReason.START_FAILED),
}


def record(
    changes: ChangeSet,
    reports: Sequence[KernelReport],
    on_agent: Mapping[str, Hold],
    groups: Mapping[str, ScalingGroup],
) -> None:
    """Change the sessions concerned as `reports` say.

    Args:
        changes: Has the sessions of `on_agent` loaded.
        reports: In the order they came.
        on_agent: The holds on the reporting agent, by token. Other tokens are long gone, or were
            never placed there: what is said of them changes nothing.
        groups: Policies by name.
    """
    known = []
    for report in reports:
        hold = on_agent.get(report.token)
        change = changes.get(SessionId(hold.session_id)) if hold else None
        if hold is None:
            continue
        if change is None:  # it came after the backup that was restored
            if hold.is_leftover and _is_gone(report):
                changes.release(hold)
            continue
        index = _kernel_with(change, report.token)
        if index is not None and not hold.is_leftover:
            known.append((change, index, report))
        elif _is_gone(report):
            changes.release(hold)
    for change, index, report in known:  # beginnings before ends: the end of one may end them all
        if report.exit_code is not None:
            change.kernel_running(index)
    for change, index, report in known:
        if change.session.kernels[index].token == report.token:
            _record_one(change, index, report, groups[change.session.scaling_group])
        elif _is_gone(report):  # sent back just now
            changes.release(on_agent[report.token])


def _record_one(
    change: SessionChange, index: int, report: KernelReport, group: ScalingGroup
) -> None:
    state = report.state
    if state in (ReportState.PULLING, ReportState.PREPARED):
        change.kernel_prepared(index, KernelStatus(state.value))
    elif state is ReportState.RUNNING:
        change.kernel_running(index, error=_trouble(report), failures=report.failures)
    elif _will_never_start(report) and change.start_forgotten(
        index, error=report.message, requeues_max=group.requeues_max
    ):
        pass
    elif state is ReportState.UNKNOWN:
        if change.session.kernels[index].status in STALE_SWEPT:
            change.kernel_gone(index, ran=False, exit_code=None, reason=EndReason.STALE_KERNEL)
    elif report.reason == EndReason.AGENT_LOST:
        change.kernel_lost(
            index,
            exit_code=report.exit_code,
            error=report.message,
            requeues_max=group.requeues_max,
        )
    elif state is ReportState.ENDED or report.permanent:
        change.kernel_gone(
            index,
            ran=report.exit_code is not None or report.reason == EndReason.EXIT_STATUS_LOST,
            exit_code=report.exit_code,
            reason=report.reason,
            error=report.message,
        )
    else:
        stage, reason = _FAILED[state]
        change.kernel_failed(
            index,
            stage,
            failures=report.failures,
            reason=reason,
            error=report.message,
            group_limit=group.limits.get(stage.name),
            requeues_max=group.requeues_max,
        )


def _will_never_start(report: KernelReport) -> bool:
    """Say whether it never ran, and its agent knows nothing of it but that it may not run."""
    return report.state is ReportState.UNKNOWN or report.reason == EndReason.STOPPED_BEFORE_START


def _is_gone(report: KernelReport) -> bool:
    return report.state is ReportState.ENDED or report.permanent


def _kernel_with(change: SessionChange, token: str) -> int | None:
    for index, kernel in enumerate(change.session.kernels):
        if kernel.token == token and not kernel.status.is_final:
            return index
    return None


def _trouble(report: KernelReport) -> str:
    if not report.pids:
        return ""
    return f"cannot be killed: pids {', '.join(map(str, report.pids))}: {report.message}"
