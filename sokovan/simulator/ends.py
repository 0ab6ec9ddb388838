"""The invariants of ends: each is what happened on the machines, or something explains another.

Like those in `checks`, each returns what is violated, as sentences.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from sokovan.agent.runtime import Ended
from sokovan.domain.cluster import AgentStatus
from sokovan.domain.reasons import EndReason
from sokovan.domain.sessions import AgentId, Dependency, Kernel, SessionId, SessionWithKernels
from sokovan.domain.statuses import KernelStatus, SessionResult, SessionStatus
from sokovan.simulator.admission import last_of, retries_in
from sokovan.simulator.checks import ENDS
from sokovan.simulator.observe import Picture
from sokovan.simulator.runtime import FakeRuntime, Script

_NEVER_RAN = frozenset({EndReason.STALE_KERNEL, EndReason.STOPPED_BEFORE_START})
_UNHEARD = frozenset({EndReason.AGENT_LOST, EndReason.TERMINATION_TIMEOUT})
"""Why a kernel counts as over whatever became of it: nobody could be asked."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known outside of the store, to hold an end against.

    Attributes:
        runtimes: The machines: what their kernels did, and what befell them.
        script_of: What a kernel was to do.
        may_be_cancelled: The sessions, and arrays, that users asked to end.
        lasted_s: For how long at most a session has been in its status, or PENDING before.
        waits_for: What a session was submitted to wait for.
    """

    runtimes: Mapping[AgentId, FakeRuntime]
    script_of: Callable[[SessionWithKernels, int], Script]
    may_be_cancelled: AbstractSet[str] = frozenset()
    lasted_s: Callable[[SessionId], float] = lambda _: 0.0
    waits_for: Callable[[SessionWithKernels], Sequence[Dependency]] = field(default=lambda _: ())

    def machine_of(self, kernel: Kernel) -> FakeRuntime | None:
        """Return the machine that a kernel was placed on."""
        return None if kernel.agent_id is None else self.runtimes.get(kernel.agent_id)

    def end_of(self, kernel: Kernel) -> Ended | None:
        """Return how a kernel ended on its machine, if it has run there and ended."""
        machine = self.machine_of(kernel)
        return None if machine is None else machine.ends.get(kernel.token or "")


def kernels_end_as_they_did(before: Picture, now: Picture, evidence: Evidence) -> list[str]:
    """A kernel that ended on its machine is over with the code it had there, and no other has one.

    Its status counts as lost only when its machine restarted, its agent as lost only when that was
    given up or gave the kernel up, and it vanished only when it never ran.
    """
    found = []
    for session_id in now.changed:
        old = before.sessions.get(session_id)
        known = () if old is None else old.kernels
        for kernel in now.sessions[session_id].kernels:
            if kernel.status is not KernelStatus.TERMINATED or kernel.token is None:
                continue
            if kernel.index < len(known) and known[kernel.index].status.is_final:
                continue
            found += [
                f"session {session_id}: kernel {kernel.index} {what}"
                for what in _faults_of(kernel, now, evidence)
            ]
    return found


def _faults_of(kernel: Kernel, picture: Picture, evidence: Evidence) -> Iterator[str]:
    end, machine = evidence.end_of(kernel), evidence.machine_of(kernel)
    told = None if end is None else end.exit_code
    code, reason = kernel.exit_code, kernel.reason
    if code is not None and code != told:
        yield f"is over with code {code}, but ended on its machine as {end}"
    if code is None and told is not None and reason not in _UNHEARD:
        yield f"ended with code {told}, which is not recorded: {reason}"
    if code is None and reason is None:
        yield "is over without a code and without a reason"
    if reason == EndReason.EXIT_STATUS_LOST and (end is None or end.reason != reason):
        yield f"has lost its exit status, but its machine says {end}"
    if reason in _NEVER_RAN and machine is not None and kernel.token in machine.started:
        yield f"has run, and is over for {reason}"
    if reason == EndReason.AGENT_LOST and not _is_lost(kernel, picture, machine):
        yield f"counts as lost, but nobody gave up {kernel.agent_id}, nor it the kernel"


def _is_lost(kernel: Kernel, picture: Picture, machine: FakeRuntime | None) -> bool:
    agent = None if kernel.agent_id is None else picture.agents.get(kernel.agent_id)
    if agent is None or agent.status is AgentStatus.GONE or machine is None:
        return True
    there = machine.kernels.get(kernel.token or "")
    if there is None:
        return False
    said = None if there.final is None else there.final.reason
    return there.is_given_up or said == EndReason.AGENT_LOST


def every_end_is_explained(before: Picture, now: Picture, evidence: Evidence) -> list[str]:
    """A session begins to end for what its kernels did, or for what really happened to it.

    That is: a user asked for it, it ran or waited for as long as it may, what it depends on ended
    otherwise, its agent was lost, or it went back to PENDING as often as it may.
    """
    found = []
    for session_id in now.changed:
        session, old = now.sessions[session_id], before.sessions.get(session_id)
        if session.status not in ENDS or (old is not None and old.status in ENDS):
            continue
        explains = _EXPLAINS.get(session.reason or "", _refused)
        if not explains(session, now, evidence):
            kernels = [(k.status.value, k.exit_code, k.reason) for k in session.kernels]
            found.append(
                f"session {session_id}: nothing explains its end, {session.reason}: {kernels}"
            )
        if session.status is SessionStatus.CANCELLED:
            due = SessionResult.UNDEFINED
        elif session.reason == EndReason.SELF_TERMINATED:
            due = SessionResult.SUCCESS
        else:
            due = SessionResult.FAILURE
        if session.result is not due:
            found.append(f"session {session_id}: it ended {session.reason} with {session.result}")
    return found


_Explains = Callable[[SessionWithKernels, Picture, Evidence], bool]


def _own_codes(session: SessionWithKernels, evidence: Evidence) -> list[int]:
    """Return the codes of the kernels that have ended by themselves, as they were to."""
    return [
        kernel.exit_code
        for kernel in session.kernels
        if kernel.exit_code is not None
        and kernel.exit_code == evidence.script_of(session, kernel.index).exit_code
    ]


def _by_itself(session: SessionWithKernels, _: Picture, evidence: Evidence) -> bool:
    main = session.main
    return main.exit_code == 0 == evidence.script_of(session, main.index).exit_code


def _failed(session: SessionWithKernels, _: Picture, evidence: Evidence) -> bool:
    return any(_own_codes(session, evidence))


def _lost(session: SessionWithKernels, _: Picture, evidence: Evidence) -> bool:
    return not session.requeue and any(k.reason == session.reason for k in session.kernels)


def _status_lost(session: SessionWithKernels, _: Picture, evidence: Evidence) -> bool:
    return any(k.reason == session.reason for k in session.kernels)


def _cancelled(session: SessionWithKernels, _: Picture, evidence: Evidence) -> bool:
    return not evidence.may_be_cancelled.isdisjoint((session.session_id, session.array_id))


def _ran_too_long(session: SessionWithKernels, _: Picture, evidence: Evidence) -> bool:
    limit_s = session.walltime_s
    return limit_s is not None and evidence.lasted_s(session.session_id) >= limit_s - _EXACT_S


def _waited_too_long(session: SessionWithKernels, picture: Picture, evidence: Evidence) -> bool:
    limit_s = session.pending_timeout_s
    if limit_s is None:
        limit_s = picture.group_of(session).pending_timeout_s
    return limit_s is not None and evidence.lasted_s(session.session_id) >= limit_s - _EXACT_S


_EXACT_S = 0.001
"""What is lost where large numbers are added."""


def _depends_in_vain(session: SessionWithKernels, picture: Picture, evidence: Evidence) -> bool:
    kin = retries_in(picture)
    for dependency in evidence.waits_for(session):
        other = last_of(picture.sessions[dependency.session_id], kin)
        if other.status.is_final and not dependency.kind.is_met_by(other.result):
            return True
    return False


def _went_back_too_often(session: SessionWithKernels, picture: Picture, _: Evidence) -> bool:
    back = [
        line
        for line in picture.history.get(session.session_id, ())
        if line.kernel_id is None
        and line.to_status == SessionStatus.PENDING
        and line.from_status not in _NOT_BACK
    ]
    return len(back) >= picture.group_of(session).requeues_max


_NOT_BACK = (None, SessionStatus.PENDING, SessionStatus.DEPRIORITIZING)


def _refused(session: SessionWithKernels, _: Picture, evidence: Evidence) -> bool:
    """Say whether a kernel can never be started, for the reason that its session ended for."""
    scripts = [evidence.script_of(session, kernel.index) for kernel in session.kernels]
    if session.reason == EndReason.IMAGE_UNAVAILABLE:
        return any(script.has_no_image for script in scripts)
    return any(script.refusal == session.reason for script in scripts)


_EXPLAINS: Mapping[str, _Explains] = {
    EndReason.SELF_TERMINATED: _by_itself,
    EndReason.KERNEL_FAILED: _failed,
    EndReason.EXIT_STATUS_LOST: _status_lost,
    EndReason.AGENT_LOST: _lost,
    EndReason.USER_REQUESTED: _cancelled,
    EndReason.WALLTIME_EXCEEDED: _ran_too_long,
    EndReason.PENDING_TIMEOUT_EXCEEDED: _waited_too_long,
    EndReason.DEPENDENCY_FAILED: _depends_in_vain,
    EndReason.REQUEUE_LIMIT_EXCEEDED: _went_back_too_often,
}
"""What must have happened for a session to end for a reason; any other is a script's refusal."""
