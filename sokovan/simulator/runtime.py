"""A runtime that runs nothing: what each kernel would do is written in a script.

The kernels live on the machine's timers, so they go on, and end, while their agent is down.
"""

import errno
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from sokovan.agent.journal import stopped_before_start
from sokovan.agent.runtime import (
    Ended,
    PullFailedError,
    Recovered,
    RuntimeEvents,
    StartFailedError,
    needs_nothing,
)
from sokovan.agent.timers import Timer, Timers
from sokovan.clock import Clock
from sokovan.domain.reasons import EndReason
from sokovan.domain.resources import Capacity
from sokovan.domain.sessions import KernelId
from sokovan.scheduler.messages import (
    KernelReport,
    KernelToPrepare,
    KernelToStart,
    OutputChunk,
    ReportState,
)

_SIGKILLED = 137
_SIGTERMED = 143


@dataclass(frozen=True, slots=True)
class Script:
    """What a kernel does."""

    seconds: float = 1.0
    """How long it runs when nobody stops it."""
    exit_code: int = 0
    ignores_term: bool = False
    start_failures: int = 0
    """How many starts fail, in a way that passes, before one succeeds."""
    refusal: EndReason | None = None
    """Why it can never be started."""
    stdout: bytes = b""
    """What it has written by the time it runs."""
    children_s: float = 0.0
    """How long it takes to kill the children that it leaves behind."""
    pull_s: float = 0.0
    """How long its image takes to pull."""
    pull_failures: int = 0
    """How many pulls fail, in a way that passes, before one succeeds."""
    has_no_image: bool = False
    """Its image does not exist, and never will."""


@dataclass(slots=True)
class Scripted:
    """One kernel of a scripted machine."""

    order: KernelToStart
    accepted_at: float
    failures: int = 0
    runs: bool = False
    exit_code: int | None = None
    """Of its command, once that has ended."""
    end: Ended | None = None
    final: KernelReport | None = None
    is_acknowledged: bool = False
    is_given_up: bool = False
    timer: Timer | None = None
    stdout: bytes = b""


@dataclass(slots=True)
class FakeNote:
    """Remembers when a manager was last heard of, as long as its machine runs."""

    at: float | None = None

    def write(self, at: float) -> None:
        self.at = at

    def read(self) -> float | None:
        return self.at


@dataclass(slots=True)
class FakeRuntime:
    """A machine on which kernels do as they are told.

    Args:
        clock: Tells when orders were accepted.
        timers: The machine's own, which go on while no agent is there.
        machine: What there is to hand out.
        script: Says what the kernel of an order does.
    """

    clock: Clock
    timers: Timers
    machine: Capacity = Capacity()
    script: Callable[[KernelToPrepare | KernelToStart], Script] = lambda _: Script()
    started: list[str] = field(default_factory=list)
    """Every token whose command was run, in order: none may be there twice."""
    kernels: dict[str, Scripted] = field(default_factory=dict)
    running: dict[str, None] = field(default_factory=dict)
    """The tokens of which something runs, in the order in which they were started."""
    ends: dict[str, Ended] = field(default_factory=dict)
    """How each token ended of which something ran; never forgotten."""
    refused: set[str] = field(default_factory=set)
    contact_note: FakeNote = field(default_factory=FakeNote)
    is_full: bool = False
    """Whether nothing can be written down."""
    events: RuntimeEvents | None = None
    pull_failures: Counter[KernelId] = field(default_factory=Counter)
    _stepped_s: float = 0.0

    def step_clock(self, seconds: float) -> None:
        """Set the machine's clock; who runs now does not see it, the next agent does."""
        self._stepped_s += seconds

    def reboot(self) -> None:
        """Lose what runs, how it would have ended, and what was still to be started.

        Its agent must have crashed.
        """
        assert self.events is None, "an agent does not survive its machine"
        self.contact_note.at = None
        lost = Ended(None, EndReason.EXIT_STATUS_LOST, "the machine restarted")
        for token in list(self.running):
            code = self.kernels[token].exit_code
            self._end(token, lost if code is None else Ended(code))
        for token in [t for t, k in self.kernels.items() if not k.runs and k.final is None]:
            del self.kernels[token]

    # --- the Runtime protocol ---------------------------------------------------------------------

    def capacity(self) -> Capacity:
        return self.machine

    def recover(self, events: RuntimeEvents) -> Sequence[Recovered]:
        self.events = events
        for kernel in self.kernels.values():  # written down by the clock as it was
            kernel.accepted_at -= self._stepped_s
        self._stepped_s = 0.0
        found = []
        for token, kernel in self.kernels.items():
            if kernel.is_acknowledged:
                continue
            if kernel.final is None and token in self.refused:
                kernel.final = self._refusal(token, kernel)
            alive = kernel.runs and kernel.final is None
            if kernel.end is not None and alive:
                self.timers.after(0, lambda token=token: self._tell(token))  # type: ignore[misc]
            found.append(
                Recovered(kernel.order, kernel.accepted_at, kernel.final, alive, kernel.is_given_up)
            )
        return found

    @staticmethod
    def _refusal(token: str, kernel: Scripted) -> KernelReport:
        report = stopped_before_start(token)
        return replace(report, reason=EndReason.AGENT_LOST) if kernel.is_given_up else report

    def close(self) -> None:
        self.events = None

    def recall(self, token: str) -> KernelReport | None:
        kernel = self.kernels.get(token)
        if kernel is not None and kernel.is_acknowledged:
            return kernel.final
        return stopped_before_start(token) if token in self.refused else None

    def prepare(self, order: KernelToPrepare) -> bool:
        needs_nothing(order)  # a script decides, as long as sessions cannot name an image
        script = self.script(order)
        if script.has_no_image:
            why = EndReason.IMAGE_UNAVAILABLE
            raise PullFailedError("there is no such image", permanent=True, reason=why)
        if self.pull_failures[order.kernel_id] < script.pull_failures:
            self.pull_failures[order.kernel_id] += 1
            raise PullFailedError("the registry does not answer")
        if script.pull_s:
            self.timers.after(script.pull_s, lambda agent=self.events: self._pulled(order, agent))  # type: ignore[misc]
        return not script.pull_s

    def _pulled(self, order: KernelToPrepare, agent: RuntimeEvents) -> None:
        if self.events is agent:  # a pull ends with the agent that asked for it
            agent.prepared(order.token)

    def start(self, order: KernelToStart) -> None:
        script = self.script(order)
        if self.is_full:
            raise StartFailedError("No space left on device")
        kernel = self.kernels.setdefault(order.token, Scripted(order, self.clock.now()))
        if script.refusal is not None:
            raise StartFailedError("it is scripted so", permanent=True, reason=script.refusal)
        if kernel.failures < script.start_failures:
            kernel.failures += 1
            raise StartFailedError("Resource temporarily unavailable")
        kernel.runs = True
        kernel.stdout = script.stdout
        self.started.append(order.token)
        self.running[order.token] = None
        kernel.timer = self.timers.after(script.seconds, lambda: self._command_ended(order.token))

    def stop(self, token: str, grace_s: float, *, force: bool) -> None:
        kernel = self.kernels.get(token)
        if kernel is None or kernel.end is not None or kernel.timer is None:
            return
        ignores = self.script(kernel.order).ignores_term
        after_s = grace_s if ignores and not force else 0.0
        code = _SIGKILLED if ignores or force else _SIGTERMED
        if kernel.exit_code is not None:  # only its children are left
            code = kernel.exit_code
        if kernel.timer.at > self.clock.now() + after_s:
            kernel.timer.cancel()
            kernel.timer = self.timers.after(after_s, lambda: self._end(token, Ended(code)))

    def give_up(self, token: str) -> None:
        self._write()
        self.kernels[token].is_given_up = True

    def refuse(self, tokens: Sequence[str]) -> None:
        self._write()
        self.refused.update(tokens)

    def conclude(self, report: KernelReport) -> None:
        kernel = self.kernels.get(report.token)
        if kernel is None:
            return  # its order could not be written down either
        if not self.is_full:
            kernel.final = report
        elif report.state is ReportState.START_FAILED:
            del self.kernels[report.token]

    def _write(self) -> None:
        if self.is_full:
            raise OSError(errno.ENOSPC, "No space left on device")

    def acknowledged(self, token: str) -> None:
        if token in self.kernels:
            self.kernels[token].is_acknowledged = True

    def forget(self, token: str) -> None:
        self.kernels.pop(token, None)

    def read(self, token: str, stream: str, offset: int, bytes_max: int) -> OutputChunk:
        kernel = self.kernels.get(token)
        data = kernel.stdout if kernel is not None and stream == "stdout" else b""
        begin = max(0, len(data) + offset) if offset < 0 else offset
        return OutputChunk(data[begin : begin + bytes_max], begin, len(data), ended=False)

    def prune(self, before: float) -> None:
        gone = [t for t, k in self.kernels.items() if k.is_acknowledged and k.accepted_at < before]
        for token in gone:
            del self.kernels[token]

    def _command_ended(self, token: str) -> None:
        kernel = self.kernels[token]
        script = self.script(kernel.order)
        kernel.exit_code = script.exit_code
        kernel.timer = self.timers.after(
            script.children_s, lambda: self._end(token, Ended(script.exit_code))
        )

    def _end(self, token: str, end: Ended) -> None:
        kernel = self.kernels[token]
        if kernel.timer is not None:
            kernel.timer.cancel()
            kernel.timer = None
        kernel.end = self.ends[token] = end
        self.running.pop(token, None)
        self._tell(token)

    def _tell(self, token: str) -> None:
        kernel = self.kernels[token]
        if self.events is not None and kernel.end is not None and kernel.final is None:
            self.events.ended(token, kernel.end)
