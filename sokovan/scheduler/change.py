"""What one transaction does to one session. Pure: the store loads and saves, these rules change.

Moves, agents' reports and users' requests all come through here, and each is followed by
termination, then promotion, until nothing more follows. Every status change appends its history
line.
"""

from collections.abc import Callable, Iterable
from typing import Any

from sokovan.domain.reasons import EndReason, MoveReason
from sokovan.domain.resources import Hold
from sokovan.domain.sessions import AgentId, Assignment, Attempts, Kernel
from sokovan.domain.statuses import (
    KERNEL_RANK,
    PRE_CREATING,
    PRE_RUNNING,
    WAITING,
    KernelStatus,
    SessionResult,
    SessionStatus,
)
from sokovan.domain.values import replace
from sokovan.scheduler.ledger import BY_USER, SessionLedger
from sokovan.scheduler.moves import Move, Outcome
from sokovan.scheduler.promote import end_of, has_run, next_promotion
from sokovan.scheduler.stages import (
    DETECT_TERMINATION,
    PROMOTE_TO_TERMINATED,
    START_SESSIONS,
    Stage,
    limit_of,
)

_BY_AGENT = "agent-report"
_BY_WATCH = "agent-watch"


class SessionChange(SessionLedger):
    """Why a session changes: what a stage decided, an agent said, a user asked for."""

    # --- what a stage decided -----------------------------------------------------------------

    def still_holds(self, move: Move) -> bool:
        """Say whether the session is as it was when `move` was decided."""
        return (
            self.session.status is move.from_status and self.session.status_seq == move.status_seq
        )

    def move(self, move: Move, mint: Callable[[], str], requeues_max: int) -> None:
        """Do what a stage decided; `mint` names the new attempts of a session that was placed."""
        if move.to is None:
            self._note(move)
            return
        to, reason, detail = move.to.session, move.reason, move.detail
        if to is SessionStatus.TERMINATING:
            self._begin_termination(reason, SessionResult.FAILURE, detail, move.stage)
        elif to is SessionStatus.TERMINATED:
            self._give_up_kernels(EndReason.TERMINATION_TIMEOUT, move.stage)
            self._set_session(to, reason, detail, move.stage)
        elif to is SessionStatus.PENDING and self.session.status not in WAITING:
            self.send_back(reason, detail, requeues_max, stage=move.stage, failed=self._behind())
        else:
            if move.assignment is not None:
                self._assign(move.assignment, mint)
            self._set_session(to, reason, detail, move.stage)
            if move.to.kernel is not None:
                for index in range(len(self.session.kernels)):
                    self._advance_kernel(index, move.to.kernel, reason, move.stage)
        self.follow()

    def _note(self, move: Move) -> None:
        changes: dict[str, Any] = {}
        if move.attempts is not None:
            counted = self.session.attempts.get(move.stage, Attempts()).count
            count = max(move.attempts.count, counted + 1)  # agents may have reported some since
            attempts = replace(move.attempts, count=count)
            changes["attempts"] = {**self.session.attempts, move.stage: attempts}
        if move.outcome is Outcome.SKIPPED:
            changes["noted_reason"] = move.reason
        self.session = replace(self.session, **changes)
        self._line(move.reason, move.detail, move.stage)

    def _assign(self, assignment: Assignment, mint: Callable[[], str]) -> None:
        where = {kernel.kernel_id: kernel for kernel in assignment}
        kernels = []
        for kernel in self.session.kernels:
            place = where[kernel.kernel_id]
            token = mint()
            kernels.append(
                replace(kernel, agent_id=place.agent_id, devices=place.devices, token=token)
            )
            self.added.append(
                Hold(
                    token,
                    self.session.session_id,
                    kernel.kernel_id,
                    place.agent_id,
                    kernel.request.cpu_milli,
                    kernel.request.mem_bytes,
                    place.devices,
                )
            )
        self.session = replace(self.session, kernels=tuple(kernels))

    # --- what an agent reported -----------------------------------------------------------------

    def kernel_prepared(self, index: int, status: KernelStatus) -> None:
        """Record that the agent pulls, or has pulled, what the kernel needs."""
        if self.session.kernels[index].status not in PRE_RUNNING:
            return
        self._advance_kernel(index, status, MoveReason.REPORTED_BY_AGENT, _BY_AGENT)
        self.follow()

    def kernel_running(self, index: int, error: str = "", failures: int = 0) -> None:
        """Record that the command was started; `error` when it cannot be stopped either.

        Earlier failures that are reported only later count for nothing then.
        """
        kernel = self.session.kernels[index]
        if kernel.status.is_final:
            return
        if failures > kernel.failures:
            self._set_kernel(index, failures=failures)
        if error and error != kernel.error:
            self._set_kernel(index, error=error)
        if kernel.status in PRE_RUNNING:
            self._advance_kernel(
                index, KernelStatus.RUNNING, MoveReason.REPORTED_BY_AGENT, _BY_AGENT
            )
            self.follow()

    def kernel_gone(
        self, index: int, *, ran: bool, exit_code: int | None, reason: str | None, error: str = ""
    ) -> None:
        """Record that nothing is left of the kernel on its agent."""
        kernel = self.session.kernels[index]
        if kernel.status.is_final:
            return
        if ran and kernel.status in PRE_RUNNING:
            self._advance_kernel(
                index, KernelStatus.RUNNING, MoveReason.REPORTED_BY_AGENT, _BY_AGENT
            )
        elif ran and kernel.started_at is None:  # its stop was decided on before this was known
            self._set_kernel(index, started_at=self._now)
        self._set_kernel(index, exit_code=exit_code, reason=reason, error=error or kernel.error)
        self._advance_kernel(
            index, KernelStatus.TERMINATED, reason or MoveReason.REPORTED_BY_AGENT, _BY_AGENT
        )
        if kernel.token is not None:
            self.released.append(kernel.token)
        self.follow()

    def kernel_lost(
        self, index: int, *, exit_code: int | None, error: str, requeues_max: int
    ) -> None:
        """Record that the agent stopped the kernel, cut off for so long that it counts as lost."""
        session, kernel = self.session, self.session.kernels[index]
        if session.requeue and session.status is not SessionStatus.TERMINATING:
            failed = () if kernel.agent_id is None else (kernel.agent_id,)
            self.send_back(
                EndReason.AGENT_LOST, error, requeues_max, stage=_BY_AGENT, failed=failed
            )
            self._let_go(kernel)
        if self.session.status is not SessionStatus.PENDING:  # not sent back, or once too often
            ran, reason = exit_code is not None, EndReason.AGENT_LOST
            self.kernel_gone(index, ran=ran, exit_code=exit_code, reason=reason, error=error)

    def start_forgotten(self, index: int, *, error: str, requeues_max: int) -> bool:
        """Send a session back whose agent will never carry out a start that it was asked for.

        An agent that could not write an order down, or was away for long before it carried it out,
        does not know of it after its own restart; it has refused it for good by now.

        Returns:
            Whether that is what the session was waiting for.
        """
        kernel = self.session.kernels[index]
        waits = self.session.status is SessionStatus.CREATING
        if not waits or kernel.status is not KernelStatus.CREATING:
            return False
        failed = () if kernel.agent_id is None else (kernel.agent_id,)
        words = f"kernel {kernel.index} was never started: {error or kernel.error or 'forgotten'}"
        self.send_back(
            MoveReason.START_FAILED, words, requeues_max, stage=START_SESSIONS.name, failed=failed
        )
        self._let_go(kernel)
        return self.session.status is SessionStatus.PENDING

    def _let_go(self, kernel: Kernel) -> None:
        """When its session was sent back: nothing is left of a kernel after all."""
        if self.session.status is SessionStatus.PENDING and kernel.token is not None:
            self.left_over.remove(kernel.token)
            self.released.append(kernel.token)

    def kernel_failed(
        self,
        index: int,
        stage: Stage,
        *,
        failures: int,
        reason: str,
        error: str,
        group_limit: Any,
        requeues_max: int,
    ) -> None:
        """Count failed pulls or starts that the agent goes on trying; too many end the phase.

        A start may turn out to have failed after it was taken for running.
        """
        kernel, session = self.session.kernels[index], self.session
        fresh = failures - kernel.failures
        concerned = stage.takes | stage.awaits
        if stage is START_SESSIONS:
            concerned |= {SessionStatus.RUNNING}
        if fresh <= 0 or session.status not in concerned:
            return
        self._set_kernel(index, failures=failures, error=error)
        before = session.attempts.get(stage.name, Attempts())
        attempts = replace(before, count=before.count + fresh, last_at=self._now)
        self.session = replace(
            self.session, attempts={**self.session.attempts, stage.name: attempts}
        )
        self._line(reason, error, stage.name)
        limit = limit_of(stage, session.limits.get(stage.name), group_limit)
        if limit.attempts_max is not None and attempts.count >= limit.attempts_max:
            failed = () if kernel.agent_id is None else (kernel.agent_id,)
            self.send_back(reason, error, requeues_max, stage=stage.name, failed=failed)
            self.follow()

    # --- what became of an agent ----------------------------------------------------------------

    def agent_lost(self, agent_id: AgentId, requeues_max: int) -> None:
        """Take a session that has not reached CREATING off an agent that fell silent."""
        if self.session.status in PRE_CREATING and agent_id in self.session.agent_ids:
            self.send_back(
                EndReason.AGENT_LOST, "", requeues_max, stage=_BY_WATCH, failed=(agent_id,)
            )
            self.follow()

    def agent_given_up(self, agent_id: AgentId, requeues_max: int) -> None:
        """Count the kernels of an agent that was lost for too long as gone; they stay leftovers."""
        lost = [
            index
            for index, kernel in enumerate(self.session.kernels)
            if kernel.agent_id == agent_id and not kernel.status.is_final
        ]
        if not lost:
            return
        status = self.session.status
        if status in PRE_CREATING or (
            self.session.requeue and status is not SessionStatus.TERMINATING
        ):
            self.send_back(
                EndReason.AGENT_LOST, "", requeues_max, stage=_BY_WATCH, failed=(agent_id,)
            )
        if self.session.status is not SessionStatus.PENDING:  # not sent back, or once too often
            for index in lost:
                self._leave_over(index)
                self._set_kernel(index, reason=EndReason.AGENT_LOST)
                self._advance_kernel(
                    index, KernelStatus.TERMINATED, EndReason.AGENT_LOST, _BY_WATCH
                )
        self.follow()

    def agent_removed(self, name: str) -> None:
        """Note that a leftover of this session counts as gone, as its agent was removed."""
        self._line(MoveReason.AGENT_REMOVED, f"{name}: what may be left there is given up", BY_USER)

    # --- what a user asked for ------------------------------------------------------------------

    def request_termination(
        self, *, force: bool, reason: str, detail: str = "", stage: str = BY_USER
    ) -> bool:
        """End the session; return whether that changed anything."""
        status = self.session.status
        if status.is_final or (
            status is SessionStatus.TERMINATING and (self.session.force or not force)
        ):
            return False
        if status in WAITING:
            self._set_end(reason, SessionResult.UNDEFINED)
            for index in range(len(self.session.kernels)):
                self._advance_kernel(index, KernelStatus.CANCELLED, reason, stage)
            self._set_session(SessionStatus.CANCELLED, reason, detail, stage)
            return True
        self.session = replace(self.session, force=force)
        if status is SessionStatus.TERMINATING:
            self._line(reason, "forced", stage)
            return True
        end = end_of(self.session.kernels)
        result = end.result if end else SessionResult.FAILURE
        self._begin_termination(reason, result, detail, stage)
        self.follow()
        return True

    def set_held(self, *, held: bool) -> bool:
        """Hold a waiting session back or release it; return whether it waits.

        A task that is held gives up its place in its array, and is given one again in its turn.
        """
        if self.session.status is not SessionStatus.PENDING:
            return False
        waits = self.session.array_waits or (held and self.session.array_max is not None)
        self.session = replace(self.session, held=held, array_waits=waits)
        return True

    # --- the steps these are made of ------------------------------------------------------------

    def send_back(
        self,
        reason: str,
        detail: str,
        requeues_max: int,
        *,
        stage: str,
        failed: Iterable[AgentId],
    ) -> None:
        """Requeue: forget the assignment, remember who failed, leave over what may still exist."""
        session = self.session
        if session.requeues >= requeues_max:
            self._begin_termination(
                EndReason.REQUEUE_LIMIT_EXCEEDED,
                SessionResult.FAILURE,
                f"{session.requeues} times back to PENDING, the last cause: {reason} {detail}",
                stage,
            )
            return
        for index, kernel in enumerate(session.kernels):
            if not kernel.status.is_final:
                self._leave_over(index)
            self._set_kernel(
                index,
                agent_id=None,
                token=None,
                devices=(),
                failures=0,
                exit_code=None,
                reason=None,
                started_at=None,
                ended_at=None,
            )
            self._write_kernel_status(index, KernelStatus.PENDING, reason, stage)
        self.session = replace(
            self.session,
            requeues=session.requeues + 1,
            started_at=None,
            pending_since=self._now,
            avoid=tuple(dict.fromkeys((*session.avoid, *failed))),
        )
        self._set_session(SessionStatus.PENDING, reason, detail, stage)

    def _behind(self) -> list[AgentId]:
        """Return the agents whose kernels hold up the others: who failed, when nobody says."""
        least = min((KERNEL_RANK[kernel.status] for kernel in self.session.kernels), default=0)
        return [
            kernel.agent_id
            for kernel in self.session.kernels
            if kernel.agent_id is not None and KERNEL_RANK[kernel.status] == least
        ]

    def follow(self) -> None:
        """Do what follows from the kernels' statuses: termination first, then promotion."""
        while (due := next_promotion(self.session)) is not None:
            if due is DETECT_TERMINATION:
                self._detect_termination()
            else:
                if due is PROMOTE_TO_TERMINATED and self.session.result is SessionResult.UNDEFINED:
                    self._set_end(self.session.reason or due.reason, SessionResult.FAILURE)
                self._set_session(due.to, due.reason, "", due.name)

    def _detect_termination(self) -> None:
        end = end_of(self.session.kernels)
        assert end is not None, "next_promotion saw an end"
        if any(has_run(kernel) for kernel in self.session.kernels):
            started = not any(kernel.status in PRE_RUNNING for kernel in self.session.kernels)
            self._walk_to(SessionStatus.RUNNING if started else SessionStatus.CREATING)
        self._begin_termination(end.reason, end.result, end.detail, DETECT_TERMINATION.name)

    def _begin_termination(
        self, reason: str, result: SessionResult, detail: str, stage: str
    ) -> None:
        self._set_end(reason, result)
        self._set_session(SessionStatus.TERMINATING, reason, detail, stage)
        for index, kernel in enumerate(self.session.kernels):
            self._advance_kernel(index, KernelStatus.TERMINATING, reason, stage)
            if kernel.agent_id is None:
                self._advance_kernel(index, KernelStatus.TERMINATED, MoveReason.NEVER_PLACED, stage)

    def _give_up_kernels(self, reason: str, stage: str) -> None:
        for index, kernel in enumerate(self.session.kernels):
            if not kernel.status.is_final:
                self._leave_over(index)
                self._set_kernel(index, reason=reason)
                self._advance_kernel(index, KernelStatus.TERMINATED, reason, stage)
