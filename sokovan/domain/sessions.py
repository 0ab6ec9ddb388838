"""Sessions and kernels as values, and what a submission says."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, NewType

from sokovan.domain.resources import DeviceShares, Request
from sokovan.domain.statuses import KernelStatus, SessionResult, SessionStatus
from sokovan.domain.values import quickly_made
from sokovan.domain.where import ANYWHERE, Where

SessionId = NewType("SessionId", str)
KernelId = NewType("KernelId", str)
AgentId = NewType("AgentId", str)

SESSION_PRIORITY_MIN = 0
SESSION_PRIORITY_MAX = 100
SESSION_PRIORITY_DEFAULT = 10
DEPRIORITIZE_AMOUNT = 10
DEPENDENCIES_MAX = 1000
"""Most sessions that one may depend on, the tasks of arrays included."""


class KernelRole(StrEnum):
    """`main` decides when the session is over; `sub` kernels serve it."""

    MAIN = "main"
    SUB = "sub"


class DependencyKind(StrEnum):
    """When a dependency counts as met."""

    AFTER_OK = "afterok"
    """The other session ended with SUCCESS."""
    AFTER_ANY = "afterany"
    """The other session ended, however."""
    AFTER_NOT_OK = "afternotok"
    """The other session ended with anything but SUCCESS."""

    def is_met_by(self, result: SessionResult) -> bool:
        """Say whether a session that ended with `result` meets this kind of dependency."""
        if self is DependencyKind.AFTER_ANY:
            return True
        return (result is SessionResult.SUCCESS) == (self is DependencyKind.AFTER_OK)


@quickly_made
@dataclass(frozen=True, slots=True)
class Dependency:
    """Wait until another session has ended."""

    session_id: SessionId
    kind: DependencyKind = DependencyKind.AFTER_OK


@quickly_made
@dataclass(frozen=True, slots=True)
class Limit:
    """How often a stage tries and how long one of its phases may last; `None` means no limit."""

    attempts_max: int | None = None
    phase_s_max: float | None = None


@quickly_made
@dataclass(frozen=True, slots=True)
class Attempts:
    """The failed attempts of one stage at one session, in its present phase."""

    count: int = 0
    last_at: float = 0.0
    retry_at: float = 0.0
    """The stage leaves the session alone until then."""


@quickly_made
@dataclass(frozen=True, slots=True)
class Kernel:
    """One process group or container of a session, as the scheduler sees it."""

    kernel_id: KernelId = KernelId("")
    role: KernelRole = KernelRole.MAIN
    index: int = 0
    status: KernelStatus = KernelStatus.PENDING
    status_since: float = 0.0
    request: Request = Request()
    agent_id: AgentId | None = None
    token: str | None = None
    """Names one attempt to run this kernel."""
    devices: DeviceShares = ()
    failures: int = 0
    """Failed pulls or starts of this token that its agent has reported."""
    exit_code: int | None = None
    """128 + n for signal n; `None` while it is not known, or never was."""
    reason: str | None = None
    error: str | None = None
    """The last thing that went wrong, in the agent's words."""
    started_at: float | None = None
    ended_at: float | None = None


@quickly_made
@dataclass(frozen=True, slots=True)
class SessionWithKernels:
    """A session as the scheduler sees it: everything that decides its next move, and its kernels.

    What only the agents need (command, environment, directory) stays in the store, see
    `SessionSpec`.
    """

    session_id: SessionId
    kernels: tuple[Kernel, ...] = ()
    status: SessionStatus = SessionStatus.PENDING
    status_seq: int = 0
    """Raised by every status change."""
    status_since: float = 0.0
    number: int = 0
    """Order of acceptance."""
    name: str = ""
    owner: str = ""
    scaling_group: str = "default"
    priority: int = SESSION_PRIORITY_DEFAULT
    created_at: float = 0.0
    pending_since: float = 0.0
    """Submission, last requeue or begin time: where the pending timeout counts from."""
    begin_at: float | None = None
    held: bool = False
    walltime_s: float | None = None
    pending_timeout_s: float | None = None
    requeue: bool = False
    """Go back to PENDING, instead of ending, when the agent is lost."""
    requeues: int = 0
    retries: int = 0
    """How many new sessions may follow after a failure by exit code."""
    retry_of: SessionId | None = None
    unmet: tuple[Dependency, ...] = ()
    """Dependencies that have not ended yet."""
    array_id: str | None = None
    """The array that it is a task of."""
    array_index: int | None = None
    array_max: int | None = None
    """How many tasks of its array may have a place at once; `None` where all may."""
    array_waits: bool = False
    """Whether it waits for a place among them."""
    where: Where = ANYWHERE
    avoid: tuple[AgentId, ...] = ()
    """Agents that failed this session; used only when nothing else fits."""
    limits: Mapping[str, Limit] = field(default_factory=dict)
    """Limits of its own, by stage name."""
    attempts: Mapping[str, Attempts] = field(default_factory=dict)
    """Failed attempts by stage name."""
    noted_reason: str | None = None
    """The last waiting reason that history has for this phase."""
    lowered_seq: int = -1
    """The `status_seq` at which its priority was last lowered."""
    grace_s: float = 10.0
    """From SIGTERM to SIGKILL."""
    force: bool = False
    """Stop its kernels with SIGKILL at once."""
    result: SessionResult = SessionResult.UNDEFINED
    reason: str | None = None
    """The first termination reason."""
    started_at: float | None = None
    ended_at: float | None = None

    @property
    def main(self) -> Kernel:
        """The kernel that decides when the session is over."""
        return next(k for k in self.kernels if k.role is KernelRole.MAIN)

    @property
    def has_array_place(self) -> bool:
        """Whether it is one of the tasks of its array that may be at work at once."""
        return self.array_max is not None and not (self.array_waits or self.status.is_final)

    @property
    def agent_ids(self) -> tuple[AgentId, ...]:
        """The agents its kernels are on, each once, in kernel order."""
        return tuple(dict.fromkeys(k.agent_id for k in self.kernels if k.agent_id is not None))


class KernelAssignment(NamedTuple):
    """Where one kernel goes."""

    kernel_id: KernelId
    agent_id: AgentId
    devices: DeviceShares = ()


Assignment = tuple[KernelAssignment, ...]
"""Where each kernel of a session goes; all or nothing."""


@quickly_made
@dataclass(frozen=True, slots=True)
class SessionSpec:
    """What a user submits; only an edit of its user changes it afterwards."""

    command: tuple[str, ...]
    name: str = ""
    owner: str = ""
    scaling_group: str = "default"
    priority: int = SESSION_PRIORITY_DEFAULT
    request: Request = Request()
    """What each kernel asks for."""
    kernel_count: int = 1
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str = "/"
    umask: int = 0o022
    walltime_s: float | None = None
    pending_timeout_s: float | None = None
    begin_at: float | None = None
    held: bool = False
    requeue: bool = False
    retries: int = 0
    grace_s: float = 10.0
    depends_on: tuple[Dependency, ...] = ()
    where: Where = ANYWHERE
    limits: Mapping[str, Limit] = field(default_factory=dict)
    allow_infeasible: bool = False
    creation_id: str | None = None


def ids_of(sessions: Iterable[SessionWithKernels]) -> list[SessionId]:
    """Return the ids in order."""
    return [session.session_id for session in sessions]
