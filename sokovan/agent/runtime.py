"""What an agent asks of whatever really runs kernels: processes, containers, or a script in tests.

A runtime starts, stops and remembers; the agent decides, retries and reports. Everything here is
synchronous and quick; what takes time ends in a call of `RuntimeEvents`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from sokovan.domain.errors import AgentError
from sokovan.domain.reasons import EndReason
from sokovan.domain.resources import Capacity
from sokovan.scheduler.messages import (
    KernelReport,
    KernelToPrepare,
    KernelToStart,
    OutputChunk,
    ReportState,
)

MESSAGE_HEAD, MESSAGE_TAIL = 700, 300
"""How much is kept of a longer message: it may name a command of a hundred thousand letters."""


class StartFailedError(AgentError):
    """A kernel could not be started; nothing of it is left.

    Args:
        message: What happened, for people; what is in the middle of a long one is left out.
        permanent: Trying again cannot help.
        reason: An `EndReason`; of what is permanent, the one that its session ends with.
    """

    def __init__(self, message: str, *, permanent: bool = False, reason: str | None = None) -> None:
        if len(message) > MESSAGE_HEAD + MESSAGE_TAIL:
            message = f"{message[:MESSAGE_HEAD]} … {message[-MESSAGE_TAIL:]}"
        super().__init__(message)
        self.permanent = permanent
        self.reason = reason


class PullFailedError(StartFailedError):
    """What a kernel needs could not be made ready, usually its image."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a kernel ended, once nothing of it is left."""

    exit_code: int | None = None
    """128 + n for signal n; `None` when it is not known."""
    reason: str | None = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class Recovered:
    """A kernel that a runtime remembers from before the agent was started."""

    order: KernelToStart
    accepted_at: float
    final: KernelReport | None = None
    """Its last report, when that was made already and nobody has acknowledged it."""
    alive: bool = False
    """Whether it runs, or its end is being cleared up; neither this nor `final`: it never ran."""
    cut_off: bool = False
    """Whether it was given up, because no manager was heard of."""


class ContactNote(Protocol):
    """Remembers when a manager was last heard of, until the machine is started anew."""

    def write(self, at: float) -> None:
        """Remember that it was then."""
        ...

    def read(self) -> float | None:
        """Return when it was, by the present clock; `None` when that is not known."""
        ...


class RuntimeEvents(Protocol):
    """What a runtime tells its agent, between two calls and never during one."""

    def ended(self, token: str, end: Ended) -> None:
        """Nothing of the kernel is left."""
        ...

    def prepared(self, token: str) -> None:
        """What was being made ready is ready."""
        ...

    def pull_failed(self, order: KernelToPrepare, error: PullFailedError) -> None:
        """What was being made ready could not be."""
        ...

    def start_failed(self, order: KernelToStart, error: StartFailedError) -> None:
        """A kernel that was started turned out never to have run its command."""
        ...

    def stuck(self, token: str, pids: tuple[int, ...], message: str) -> None:
        """These processes of the kernel cannot be killed; the runtime goes on trying."""
        ...


class Runtime(Protocol):
    """Runs kernels and remembers them, also beyond the end of the agent's process."""

    @property
    def contact_note(self) -> ContactNote:
        """Where the agent remembers that it heard of a manager."""
        ...

    def capacity(self) -> Capacity:
        """Return what there is to hand out."""
        ...

    def recover(self, events: RuntimeEvents) -> Sequence[Recovered]:
        """Return what is remembered and not acknowledged. Called once, before anything else."""
        ...

    def close(self) -> None:
        """Tell nobody anything any more; kernels run on."""
        ...

    def recall(self, token: str) -> KernelReport | None:
        """Return the last report of a token that was acknowledged or refused, if it was."""
        ...

    def prepare(self, order: KernelToPrepare) -> bool:
        """Make ready what a kernel needs; return whether it is ready at once.

        Raises:
            PullFailedError: It cannot be made ready, now or ever.
        """
        ...

    def start(self, order: KernelToStart) -> None:
        """Run a kernel.

        Raises:
            StartFailedError: It does not run.
        """
        ...

    def stop(self, token: str, grace_s: float, *, force: bool) -> None:
        """Begin to stop a running kernel; a second call may only hasten it."""
        ...

    def give_up(self, token: str) -> None:
        """Remember, durably, that a running kernel is to be stopped because no manager is heard of.

        Raises:
            OSError: That cannot be written.
        """
        ...

    def refuse(self, tokens: Sequence[str]) -> None:
        """Remember, durably, that these tokens must never be started; none of them runs.

        Raises:
            OSError: That cannot be written; it may hold for some of them all the same.
        """
        ...

    def conclude(self, report: KernelReport) -> None:
        """Remember the last report of a token that it was asked to start."""
        ...

    def acknowledged(self, token: str) -> None:
        """The last report arrived: it need not be repeated, only recalled."""
        ...

    def forget(self, token: str) -> None:
        """Drop a token that never ran, as if it had never been heard of."""
        ...

    def read(self, token: str, stream: str, offset: int, bytes_max: int) -> OutputChunk:
        """Read output; a negative offset counts from the end. `ended` is for the agent to say."""
        ...

    def prune(self, before: float) -> None:
        """Remove the output and the memory of what was acknowledged before then."""
        ...


def is_final(report: KernelReport) -> bool:
    """Say whether nothing can follow `report`, and nothing of the kernel is left."""
    return report.state is ReportState.ENDED or (
        report.permanent and report.state in {ReportState.START_FAILED, ReportState.PULL_FAILED}
    )


def needs_nothing(order: KernelToPrepare) -> bool:
    """Say that a plain process is ready at once.

    Raises:
        PullFailedError: It is no plain process.
    """
    if order.image is not None:
        raise PullFailedError(
            "this agent runs plain processes, which have no image",
            permanent=True,
            reason=EndReason.IMAGE_UNAVAILABLE,
        )
    return True
