"""The agent: which tokens there are on this machine, what was last said of each, and to whom.

It is the same object behind a Unix socket, behind another transport, and inside a test. It runs
nothing itself: a `Runtime` does. It reads no time and sleeps nowhere: a `Clock` and `Timers` do.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from sokovan.agent.contact import Contact
from sokovan.agent.entry import PULLS, UNSTARTED, Entry
from sokovan.agent.journal import stopped_before_start
from sokovan.agent.runtime import Ended, PullFailedError, Runtime, StartFailedError, is_final
from sokovan.agent.timers import Timers, first_of
from sokovan.clock import Clock
from sokovan.config import AgentConfig
from sokovan.domain.errors import AgentError
from sokovan.domain.reasons import EndReason
from sokovan.scheduler.messages import (
    AgentHello,
    KernelReport,
    KernelToPrepare,
    KernelToStart,
    KernelToStop,
    OutputChunk,
    ReportState,
)

log = logging.getLogger(__name__)

RETRY_S_MAX = 60.0
"""Longest pause before a failed start is tried again; the first ones are 1, 2, 4 … seconds."""
HELD_S = 5.0
"""How often it is looked whether what is held up may be done: while no manager is heard of, or
while what must be written down first cannot be."""
PRUNE_EVERY_S = 3600.0
POLL_S_MIN = 0.01
POLL_S_MAX = 0.1
STREAMS = ("stdout", "stderr")
_DAY_S = 86400.0


class Agent:
    """Runs kernels by token, each at most once, and repeats what became of it until it is heard.

    Answers and reports are the same thing: the latest state of a token. Whoever carries them takes
    `news()` whenever `on_news` is called and `unacknowledged()` at every heartbeat, and gives back
    what was recorded through `acknowledge`.

    Args:
        hello: How it introduces itself.
        config: Its limits.
        runtime: Runs the kernels.
        clock: Tells the time.
        timers: Runs what is to happen later; whoever made them drives them.
    """

    def __init__(
        self,
        hello: AgentHello,
        *,
        config: AgentConfig,
        runtime: Runtime,
        clock: Clock,
        timers: Timers,
    ) -> None:
        self.hello = hello
        self.on_news: Callable[[], None] = lambda: None
        self._config = config
        self._runtime = runtime
        self._clock = clock
        self._timers = timers
        self._entries: dict[str, Entry] = {}
        self._news: dict[str, None] = {}
        self._unacknowledged: dict[str, None] = {}
        self._contact = Contact(config, runtime.contact_note, clock, timers, self._stop_requeued)

    def recover(self) -> None:
        """Take up whatever an earlier agent left. Called once, before anything else."""
        now = self._clock.now()
        for found in self._runtime.recover(self):
            token, order = found.order.token, found.order
            if found.final is not None:
                self._say(found.final)
            elif found.alive:
                entry = self._say(KernelReport(token, ReportState.RUNNING))
                entry.requeue, entry.cut_off = order.requeue, found.cut_off
                if entry.cut_off:
                    self._runtime.stop(token, KernelToStop(token).grace_s, force=False)
            elif now - found.accepted_at < self._config.cut_off_stop_s:
                # Accepted so lately that nobody can have taken it for lost: it is still wanted.
                why = StartFailedError("the agent was restarted before it could start it")
                self.start_failed(order, why)
            else:
                self._runtime.forget(token)
        self._contact.watch()
        if self._config.output_keep_days:
            self._prune()

    # --- what it is asked -------------------------------------------------------------------------

    async def prepare(self, kernels: Sequence[KernelToPrepare]) -> list[KernelReport]:
        """Make ready what kernels need; a token known already is answered with its state."""
        for kernel in kernels:
            if self._known(kernel.token) is None:
                self._prepare(kernel)
                self._news.pop(kernel.token, None)  # it is told at once
        return [self._state(kernel.token) for kernel in kernels]

    async def start(self, kernels: Sequence[KernelToStart]) -> list[KernelReport]:
        """Start kernels; a token known already is answered with its present state."""
        for kernel in kernels:
            report = self._known(kernel.token)
            if report is None or report.state is ReportState.PREPARED:
                self._start(kernel)
                await asyncio.sleep(0)  # a long batch holds up nobody
            elif report.state in PULLS and not is_final(report):
                self._entries[kernel.token].order = kernel  # as soon as it is ready
        return [self._state(kernel.token) for kernel in kernels]

    async def stop(self, kernels: Sequence[KernelToStop]) -> list[KernelReport]:
        """Begin to stop kernels; one that never ran is remembered, and may never be started.

        Raises:
            AgentError: That cannot be remembered; nothing was done.
        """
        tokens = [kernel.token for kernel in kernels]
        unstarted = [token for token in tokens if self._is_unstarted(token)]
        failing = [t for t in tokens if (e := self._entries.get(t)) and e.is_start_retried]
        if unstarted or failing:
            try:
                self._runtime.refuse([*unstarted, *failing])
            except OSError as error:
                raise AgentError(f"cannot write down what was stopped: {error}") from error
        for token in unstarted:
            self._say(stopped_before_start(token), told=True).stop_trying()
        for token in failing:
            self._conclude(stopped_before_start(token))
        for kernel in kernels:
            entry = self._entries.get(kernel.token)
            if entry is not None and not is_final(entry.report):
                self._runtime.stop(kernel.token, kernel.grace_s, force=kernel.force)
        return [self._state(kernel.token) for kernel in kernels]

    async def states(self, tokens: Sequence[str]) -> list[KernelReport]:
        """Answer the present state of each token, UNKNOWN included."""
        return [self._state(token) for token in tokens]

    async def read_output(
        self, token: str, stream: str, *, offset: int, bytes_max: int, wait_s: float
    ) -> OutputChunk:
        """Read from `stdout` or `stderr`; a negative offset counts from the end.

        Waits up to `wait_s` for more when there is nothing after `offset` and the kernel lives.

        Raises:
            AgentError: There is no such output.
        """
        if stream not in STREAMS:
            raise AgentError(f"{stream!r}: no such output; there are stdout and stderr")
        entry = self._entries.get(token)
        if entry is None and self._runtime.recall(token) is None:
            raise AgentError(f"the output of {token} is not kept here, or no longer")
        until, pause_s = self._clock.now() + wait_s, POLL_S_MIN
        while True:
            ended = entry is None or is_final(entry.report)  # before reading: else some may follow
            chunk = self._runtime.read(token, stream, offset, bytes_max)
            left_s = until - self._clock.now()
            if chunk.data or ended or left_s <= 0:
                return replace(chunk, ended=ended)
            assert entry is not None
            offset = chunk.offset
            entry.over = entry.over or asyncio.Event()
            await first_of(self._clock.sleep(min(pause_s, left_s)), entry.over.wait())
            pause_s = min(pause_s * 1.5, POLL_S_MAX)

    # --- what it says -----------------------------------------------------------------------------

    def news(self) -> list[KernelReport]:
        """Take the reports that nobody has been told yet."""
        news = [self._entries[token].report for token in self._news if token in self._entries]
        self._news.clear()
        return news

    def has_news(self) -> bool:
        """Say whether there is something that nobody has been told yet."""
        return bool(self._news)

    def unacknowledged(self) -> list[KernelReport]:
        """Return every report that is still to be repeated."""
        self._news.clear()
        return [self._entries[token].report for token in self._unacknowledged]

    def live_tokens(self) -> list[str]:
        """Return the tokens of which something may be alive, or is to be."""
        return [
            token
            for token, entry in self._entries.items()
            if not is_final(entry.report) and entry.report.state is not ReportState.PREPARED
        ]

    def acknowledge(self, reports: Iterable[KernelReport]) -> None:
        """Stop repeating these, unless there is something newer to say by now."""
        for report in reports:
            entry = self._entries.get(report.token)
            if entry is None or entry.report != report:
                continue
            self._unacknowledged.pop(report.token, None)
            if is_final(report):
                del self._entries[report.token]
                self._runtime.acknowledged(report.token)

    def heard(self) -> None:
        """Note that a manager is there."""
        self._contact.heard()

    @property
    def is_cut_off(self) -> bool:
        """Whether no manager has been heard of for so long that its orders may be out of date."""
        return self._contact.is_cut_off

    # --- what the runtime says --------------------------------------------------------------------

    def ended(self, token: str, end: Ended) -> None:
        """Nothing of the kernel is left; that it never ran is said once it never can."""
        if end.reason == EndReason.STOPPED_BEFORE_START:
            try:
                self._runtime.refuse([token])
            except OSError as error:
                log.warning("that %s was stopped cannot be written down yet: %s", token, error)
                self._timers.after(HELD_S, lambda: self.ended(token, end))
                return
        report = KernelReport(token, ReportState.ENDED, end.exit_code, end.reason, end.message)
        self._conclude(report)

    def prepared(self, token: str) -> None:
        """What a kernel needs is ready."""
        entry = self._entries.get(token)
        if entry is not None and entry.report.state in PULLS:  # else it was stopped meanwhile
            self._ready(token)

    def pull_failed(self, order: KernelToPrepare, error: PullFailedError) -> None:
        """What a kernel needs could not be made ready. What may mend by itself is tried again."""
        entry = self._entries.get(order.token)
        if entry is not None and entry.report.state not in PULLS:
            return  # stopped meanwhile
        entry = self._say(self._failure(order.token, ReportState.PULL_FAILED, error))
        if not error.permanent:
            self._try_again(entry, lambda: self._prepare(order))

    def start_failed(self, order: KernelToStart, error: StartFailedError) -> None:
        """A kernel does not run. What may be mended by itself is tried again."""
        report = self._failure(order.token, ReportState.START_FAILED, error)
        if error.permanent:
            self._conclude(report)
            return
        log.warning("%s does not start (%d): %s", order.token, report.failures, error)
        entry = self._say(report)
        entry.order, entry.requeue = order, order.requeue
        self._try_again(entry, lambda: self._retry(order.token))

    def stuck(self, token: str, pids: tuple[int, ...], message: str) -> None:
        """These processes of the kernel cannot be killed."""
        report = KernelReport(token, ReportState.RUNNING, message=message, pids=pids)
        if report != self._entries[token].report:
            log.warning("%s cannot be killed, pids %s: %s", token, pids, message)
            self._say(report)

    # --- inside -----------------------------------------------------------------------------------

    def _known(self, token: str) -> KernelReport | None:
        """Return the present state of a token, if it has one; it counts as told."""
        entry = self._entries.get(token)
        if entry is None:
            return self._runtime.recall(token)
        self._news.pop(token, None)
        return entry.report

    def _state(self, token: str) -> KernelReport:
        return self._known(token) or KernelReport(token, ReportState.UNKNOWN)

    def _is_unstarted(self, token: str) -> bool:
        """Say whether it was never asked to start this token, nor to refuse it."""
        entry = self._entries.get(token)
        if entry is None:
            return self._runtime.recall(token) is None
        return entry.report.state in UNSTARTED and not is_final(entry.report)

    def _failure(self, token: str, state: ReportState, error: StartFailedError) -> KernelReport:
        before = self._entries.get(token)
        return KernelReport(
            token,
            state,
            reason=error.reason,
            message=error.message,
            failures=1 + (before.report.failures if before else 0),
            permanent=error.permanent,
        )

    def _try_again(self, entry: Entry, call: Callable[[], None]) -> None:
        pause_s = min(2.0 ** min(entry.report.failures - 1, 10), RETRY_S_MAX)
        entry.retry = self._timers.after(pause_s, call)

    def _prepare(self, order: KernelToPrepare) -> None:
        before = self._entries.get(order.token)
        if before is not None:
            before.retry = None
        try:
            is_ready = self._runtime.prepare(order)
        except PullFailedError as error:
            self.pull_failed(order, error)
            return
        if is_ready:
            self._ready(order.token)
        else:
            failures = before.report.failures if before else 0
            self._say(KernelReport(order.token, ReportState.PULLING, failures=failures))

    def _ready(self, token: str) -> None:
        """Start what is ready by now, if it is to be started already."""
        entry = self._entries.get(token)
        if entry is not None and entry.order is not None:
            self._retry(token)
        else:
            failures = entry.report.failures if entry else 0
            self._say(KernelReport(token, ReportState.PREPARED, failures=failures))

    def _start(self, order: KernelToStart) -> None:
        refused = self._runtime.recall(order.token)
        if refused is not None:  # by a stop that failed half-way, and was not confirmed
            self._say(refused).stop_trying()
            return
        try:
            self._runtime.start(order)
        except StartFailedError as error:
            self.start_failed(order, error)
            return
        before = self._entries.get(order.token)
        failures = before.report.failures if before else 0
        entry = self._say(KernelReport(order.token, ReportState.RUNNING, failures=failures))
        entry.order, entry.requeue = None, order.requeue

    def _retry(self, token: str) -> None:
        entry = self._entries[token]
        assert entry.order is not None
        if self.is_cut_off:  # it may have been given to another agent meanwhile
            entry.retry = self._timers.after(HELD_S, lambda: self._retry(token))
        else:
            entry.retry = None
            self._start(entry.order)

    def _say(self, report: KernelReport, *, told: bool = False) -> Entry:
        """Make `report` what is known of its token, and see that it is heard of."""
        token = report.token
        entry = self._entries.setdefault(token, Entry(report))
        entry.report = report
        if entry.over is not None and is_final(report):
            entry.over.set()
        self._unacknowledged[token] = None
        if told:
            self._news.pop(token, None)
        else:
            self._news[token] = None
            self.on_news()
        return entry

    def _conclude(self, report: KernelReport) -> None:
        """Remember and say the last thing that will be said of a token."""
        entry = self._entries.get(report.token)
        if entry is not None and entry.cut_off:
            why = f"no manager was heard of for {self._config.cut_off_stop_s:.0f} seconds"
            report = replace(report, reason=EndReason.AGENT_LOST, message=why)
        self._runtime.conclude(report)
        self._say(report).stop_trying()

    def _stop_requeued(self) -> None:
        """Stop the kernels that will be started elsewhere: no manager is heard of for long."""
        for token, entry in list(self._entries.items()):
            if not entry.requeue or entry.cut_off or is_final(entry.report):
                continue
            log.warning("%s is stopped: no manager is heard of", token)
            try:
                self._runtime.give_up(token)  # or its end would count as its own
                if entry.retry is not None:
                    self._runtime.refuse([token])
            except OSError as error:
                log.warning("%s is not stopped yet: %s", token, error)
                continue
            entry.cut_off = True
            if entry.retry is not None:
                self._conclude(stopped_before_start(token))
            else:
                self._runtime.stop(token, KernelToStop(token).grace_s, force=False)

    def _prune(self) -> None:
        keep_s = self._config.output_keep_days * _DAY_S
        self._runtime.prune(self._clock.now() - keep_s)
        self._timers.after(PRUNE_EVERY_S, self._prune)
