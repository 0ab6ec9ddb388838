"""From live sessions to what the launcher and the terminator are given."""

from sokovan.domain.sessions import SessionSpec, SessionWithKernels
from sokovan.scheduler.messages import KernelToPrepare, KernelToStart
from sokovan.scheduler.ports import (
    SessionDataForPull,
    SessionDataForStart,
    TerminatingKernelData,
    TerminatingSessionData,
)


def to_prepare(session: SessionWithKernels) -> SessionDataForPull:
    """Say what its agents need to prepare a session's kernels."""
    return SessionDataForPull(
        session.session_id,
        tuple(
            KernelToPrepare(kernel.token, session.session_id, kernel.kernel_id, kernel.agent_id)
            for kernel in session.kernels
            if kernel.token and kernel.agent_id and not kernel.status.is_final
        ),
    )


def to_start(session: SessionWithKernels, spec: SessionSpec) -> SessionDataForStart:
    """Say what its agents need to start a session's kernels."""
    kernels = tuple(
        KernelToStart(
            token=kernel.token,
            session_id=session.session_id,
            kernel_id=kernel.kernel_id,
            agent_id=kernel.agent_id,
            command=spec.command,
            env=spec.env,
            cwd=spec.cwd,
            umask=spec.umask,
            request=kernel.request,
            devices=kernel.devices,
            role=kernel.role.value,
            index=kernel.index,
            kernel_count=len(session.kernels),
            name=session.name,
            owner=session.owner,
            requeue=session.requeue,
        )
        for kernel in session.kernels
        if kernel.token and kernel.agent_id and not kernel.status.is_final
    )
    return SessionDataForStart(session.session_id, kernels, session.owner)


def to_terminate(session: SessionWithKernels) -> TerminatingSessionData:
    """Say which kernels of a session are not confirmed gone."""
    return TerminatingSessionData(
        session.session_id,
        tuple(
            TerminatingKernelData(kernel.agent_id, kernel.token)
            for kernel in session.kernels
            if kernel.agent_id and kernel.token and not kernel.status.is_final
        ),
        session.grace_s,
        session.force,
    )
