"""What the scheduler and the agents tell each other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from sokovan.domain.resources import Capacity, DeviceShares, Request
from sokovan.domain.sessions import AgentId, KernelId, SessionId


@dataclass(frozen=True, slots=True)
class KernelToPrepare:
    """A kernel whose image, if any, its agent is to pull."""

    token: str
    session_id: SessionId
    kernel_id: KernelId
    agent_id: AgentId
    image: str | None = None


@dataclass(frozen=True, slots=True)
class KernelToStart:
    """All that an agent needs to run one kernel."""

    token: str
    session_id: SessionId
    kernel_id: KernelId
    agent_id: AgentId
    command: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    """The complete environment, the variables that Sokovan adds apart."""
    cwd: str = "/"
    umask: int = 0o022
    request: Request = Request()
    devices: DeviceShares = ()
    role: str = "main"
    index: int = 0
    kernel_count: int = 1
    name: str = ""
    owner: str = ""
    requeue: bool = False
    """An agent cut off for too long stops such a kernel itself: it will be started elsewhere."""


@dataclass(frozen=True, slots=True)
class KernelToStop:
    """A kernel to stop: SIGTERM, after `grace_s` SIGKILL; at once SIGKILL when `force`."""

    token: str
    grace_s: float = 10.0
    force: bool = False


class ReportState(StrEnum):
    """What an agent says of a token."""

    PULLING = "PULLING"
    PREPARED = "PREPARED"
    RUNNING = "RUNNING"
    ENDED = "ENDED"
    """Nothing of the kernel is left on the agent."""
    PULL_FAILED = "PULL_FAILED"
    """The agent tries again by itself, unless the error is permanent."""
    START_FAILED = "START_FAILED"
    """The agent tries again by itself, unless the error is permanent."""
    UNKNOWN = "UNKNOWN"
    """The agent has never heard of the token."""


@dataclass(frozen=True, slots=True)
class KernelReport:
    """The latest state of one token on one agent. Repeated and reordered reports change nothing."""

    token: str
    state: ReportState
    exit_code: int | None = None
    """With ENDED: the command's status, 128 + n for signal n; `None` when it is not known."""
    reason: str | None = None
    """With ENDED or a permanent failure: an `EndReason` when there is one to name."""
    message: str = ""
    """What went wrong, for people."""
    failures: int = 0
    """With a failure: how many times pulling or starting this token has failed so far."""
    permanent: bool = False
    """With a failure: trying again cannot help; nothing of the kernel is left on the agent."""
    pids: tuple[int, ...] = ()
    """Processes that could not be killed."""


class Answer(NamedTuple):
    """What an agent answered, and which of its incarnations did."""

    agent_id: AgentId
    incarnation: int
    reports: Sequence[KernelReport]


@dataclass(frozen=True, slots=True)
class AgentHello:
    """How an agent introduces itself when a connection is made."""

    agent_id: AgentId
    name: str
    capacity: Capacity
    architecture: str = ""
    version: str = ""
    boot_id: str = ""
    scaling_group: str = "default"
    address: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    """What its settings say of it; an administrator may say otherwise."""


@dataclass(frozen=True, slots=True)
class OutputChunk:
    """A piece of a kernel's output."""

    data: bytes
    offset: int
    """Where `data` begins, in bytes from the start of the stream."""
    size: int
    """How long the stream is by now."""
    ended: bool
    """Whether the kernel is over, so that nothing will follow `size`."""
