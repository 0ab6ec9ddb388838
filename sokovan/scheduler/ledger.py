"""What changes about one session within one transaction, written down as it changes. Pure.

These are the steps; why they are taken stands in `change.py`.
"""

from collections.abc import Iterable
from typing import Any

from sokovan.domain.reasons import MoveReason
from sokovan.domain.resources import Hold
from sokovan.domain.sessions import Kernel, SessionWithKernels
from sokovan.domain.statuses import (
    KERNEL_PATH,
    KERNEL_RANK,
    SESSION_PATH,
    KernelStatus,
    SessionResult,
    SessionStatus,
)
from sokovan.domain.values import replace
from sokovan.scheduler.moves import HistoryLine
from sokovan.scheduler.stages import DETECT_TERMINATION, STAGES

_STAGE_NAMED = {stage.name: stage for stage in STAGES}
BY_USER = "user-request"


class SessionLedger:
    """One session, and what is to be saved of its changes.

    Attributes:
        session: As it is after the changes so far.
        lines: The history lines to append, in order.
        added: Holds that begin.
        released: Tokens whose hold ends: the kernel is confirmed gone.
        left_over: Tokens whose hold becomes that of a leftover.
    """

    def __init__(self, session: SessionWithKernels, now: float) -> None:
        self.before = session
        self.session = session
        self.lines: list[HistoryLine] = []
        self.added: list[Hold] = []
        self.released: list[str] = []
        self.left_over: list[str] = []
        self._now = now

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to save."""
        return not self.lines and self.session is self.before and not self.released

    def edit(self, session: SessionWithKernels, detail: str) -> None:
        """Take the session over as its user has changed it.

        It takes a step: what was decided on the session as it was before holds no more.
        """
        self.session = replace(session, status_seq=session.status_seq + 1, noted_reason=None)
        self._line(MoveReason.EDITED, detail, BY_USER)

    def absorb(self, other: "SessionLedger") -> None:
        """Take over what `other` went on to do from where this one stands."""
        self.session = other.session
        self.lines += other.lines
        self.added += other.added
        self.released += other.released
        self.left_over += other.left_over

    def _walk_to(self, last: SessionStatus) -> None:
        """Catch up with kernels that were faster than the moves: history shows every status."""
        here, there = SESSION_PATH.index(self.session.status), SESSION_PATH.index(last)
        for status in SESSION_PATH[here + 1 : there + 1]:
            self._set_session(status, MoveReason.REPORTED_BY_AGENT, "", DETECT_TERMINATION.name)

    def _leave_over(self, index: int) -> None:
        token = self.session.kernels[index].token
        if token is not None:
            self.left_over.append(token)

    def _set_end(self, reason: str, result: SessionResult) -> None:
        """The first reason and the first result stay."""
        session = self.session
        self.session = replace(
            session,
            reason=session.reason or reason,
            result=result if session.result is SessionResult.UNDEFINED else session.result,
        )

    def _set_session(self, to: SessionStatus, reason: str, detail: str, stage: str) -> None:
        session = self.session
        assert not session.status.is_final, f"{session.session_id} is over"
        kept = {
            name: attempts
            for name, attempts in session.attempts.items()
            if (row := _STAGE_NAMED.get(name)) is not None
            and session.status in row.takes
            and to in row.awaits
        }
        self.session = replace(
            session,
            status=to,
            status_seq=session.status_seq + 1,
            status_since=self._now,
            attempts=kept,
            noted_reason=None,
            started_at=self._now if to is SessionStatus.RUNNING else session.started_at,
            ended_at=self._now if to.is_final else session.ended_at,
        )
        self._line(reason, detail, stage, from_status=session.status)

    def _advance_kernel(self, index: int, to: KernelStatus, reason: str, stage: str) -> None:
        """Take a kernel forward, through every status on the way; never backwards."""
        kernel = self.session.kernels[index]
        if kernel.status.is_final or KERNEL_RANK[to] <= KERNEL_RANK[kernel.status]:
            return
        if KERNEL_RANK[to] <= KERNEL_RANK[KernelStatus.RUNNING]:
            first = KERNEL_RANK[kernel.status] + 1
            for status in KERNEL_PATH[first : KERNEL_RANK[to]]:
                if status is not KernelStatus.PULLING:
                    self._write_kernel_status(index, status, reason, stage)
        elif to is KernelStatus.TERMINATED and kernel.status is KernelStatus.RUNNING:
            self._write_kernel_status(index, KernelStatus.TERMINATING, reason, stage)
        self._write_kernel_status(index, to, reason, stage)

    def _write_kernel_status(self, index: int, to: KernelStatus, reason: str, stage: str) -> None:
        kernel = self.session.kernels[index]
        if kernel.status is to:
            return
        times: dict[str, Any] = {"status": to, "status_since": self._now}
        if to is KernelStatus.RUNNING:
            times["started_at"] = self._now
        if to.is_final:
            times["ended_at"] = self._now
        self._set_kernel(index, **times)
        self.lines.append(
            HistoryLine(
                self.session.session_id,
                kernel.kernel_id,
                self.session.status_seq,
                kernel.status,
                to,
                str(reason),
                "",
                stage,
                self._now,
            )
        )

    def _set_kernel(self, index: int, **changes: Any) -> None:
        kernels: list[Kernel] = list(self.session.kernels)
        kernels[index] = replace(kernels[index], **changes)
        self.session = replace(self.session, kernels=tuple(kernels))

    def _line(
        self, reason: str, detail: str, stage: str, *, from_status: SessionStatus | None = None
    ) -> None:
        session = self.session
        self.lines.append(
            HistoryLine(
                session.session_id,
                None,
                session.status_seq,
                from_status or session.status,
                session.status,
                str(reason),
                detail,
                stage,
                self._now,
            )
        )


def submission_lines(session: SessionWithKernels) -> Iterable[HistoryLine]:
    """Return the first lines of a new session and its kernels."""
    for kernel_id, status in (
        (None, str(session.status)),
        *((kernel.kernel_id, str(kernel.status)) for kernel in session.kernels),
    ):
        yield HistoryLine(
            session.session_id,
            kernel_id,
            session.status_seq,
            None,
            status,
            MoveReason.SUBMITTED,
            "",
            BY_USER,
            session.created_at,
        )
