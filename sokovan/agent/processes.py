"""Kernels as plain processes: each a wrapper that leads a session, and whatever comes of it.

The agent is the parent of the wrappers that it started, and of every process that these leave
behind (it is their "subreaper"). Wrappers that an earlier agent started are watched through pidfds.
When a wrapper has ended, what is left of its kernel is killed; only then has the kernel ended.
"""

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from sokovan.agent import procfs, wrapper
from sokovan.agent.cgroups import Cgroups, Group
from sokovan.agent.contact import ContactFile
from sokovan.agent.journal import Journal, Order, Run, stopped_before_start
from sokovan.agent.running import Running
from sokovan.agent.runtime import Ended, Recovered, RuntimeEvents, StartFailedError, needs_nothing
from sokovan.agent.timers import Timers
from sokovan.agent.users import user_of
from sokovan.agent.watch import ASK_AFTER_S, Watch
from sokovan.agent.wire import encode_start
from sokovan.clock import Clock, boot_id
from sokovan.domain.quantities import format_size
from sokovan.domain.reasons import EndReason
from sokovan.domain.resources import Capacity
from sokovan.scheduler.messages import (
    KernelReport,
    KernelToPrepare,
    KernelToStart,
    OutputChunk,
    ReportState,
)

log = logging.getLogger(__name__)
KILL_AGAIN_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""Pauses between attempts to kill; the last one is repeated."""
STUCK_TRIES = 8
"""After so many attempts (about three seconds) it is reported that they fail."""
WRAPPER_TRIES = 6
"""After so many, a wrapper that has nothing left to wait for is killed too."""
NOT_YET_S = 0.01
"""How long to wait before asking again whether the command has been started."""
SHELL_FAILED = frozenset({1, 2, 125})
"""What shells, and our wrapper, return when they could not do what they were to."""
REMOVE_AGAIN_S = 0.5
LOOKS_PART = 4
"""Looking at all processes may take at most one part in so many, plus one, of the time."""
PRUNE_PAUSE_S = 0.02
BOUND_OUTPUT_EVERY_S = 1.0
_PR_SET_CHILD_SUBREAPER = 36

Step = Callable[[Running], None]


class ProcessRuntime:
    """Runs kernels as plain processes.

    Args:
        directory: The agent's own directory.
        clock: Tells when an order was accepted.
        timers: Runs what is to happen later.
        capacity: What there is to hand out.
        cgroups: Where control groups can be made; `None` makes none.
        output_bytes_max: Most of each stream that is kept on the disk; 0 means all of it.
        root_allowed: Whether kernels of root are run.
    """

    def __init__(
        self,
        directory: Path,
        *,
        clock: Clock,
        timers: Timers,
        capacity: Capacity,
        cgroups: Cgroups | None,
        output_bytes_max: int = 0,
        root_allowed: bool = True,
    ) -> None:
        self._journal = Journal(directory)
        self.contact_note = ContactFile(directory / "last-contact", clock)
        self._clock = clock
        self._timers = timers
        self._capacity = capacity
        self._cgroups = cgroups
        self._output_bytes_max = output_bytes_max
        self._root_allowed = root_allowed
        self._boot_id = boot_id()
        self._kernels: dict[str, Running] = {}
        self._tokens: dict[int, str] = {}
        self._unclear: list[Running] = []
        self._look_at = 0.0

    # --- the Runtime protocol: what is remembered -------------------------------------------------

    def capacity(self) -> Capacity:
        return self._capacity

    def recover(self, events: RuntimeEvents) -> Sequence[Recovered]:
        self._events = events
        self._loop = asyncio.get_running_loop()
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._loop.add_signal_handler(signal.SIGCHLD, self._reap)
        self._watch = Watch(self._loop, self._timers, self._wrapper_ended)
        orders = list(self._journal.orders())
        table = procfs.processes() if orders else {}
        found = [r for order, final in orders if (r := self._recover(order, final, table))]
        if self._cgroups:
            self._cgroups.sweep({r.order.token for r in found})
        self._bound_all_output()
        return found

    def close(self) -> None:
        self._loop.remove_signal_handler(signal.SIGCHLD)
        for kernel in self._kernels.values():
            self._watch.end(kernel)
        if self._cgroups:
            self._cgroups.sweep(set(self._kernels))
            self._cgroups.close()

    def recall(self, token: str) -> KernelReport | None:
        return self._journal.recall(token)

    def give_up(self, token: str) -> None:
        self._journal.give_up(token)

    def refuse(self, tokens: Sequence[str]) -> None:
        self._journal.refuse(tokens)

    def conclude(self, report: KernelReport) -> None:
        try:
            self._journal.conclude(report)
        except OSError as error:
            log.warning("the end of %s could not be written down: %s", report.token, error)

    def acknowledged(self, token: str) -> None:
        self._journal.file_away(token)

    def forget(self, token: str) -> None:
        self._journal.forget(token)

    def read(self, token: str, stream: str, offset: int, bytes_max: int) -> OutputChunk:
        return self._journal.read(token, stream, offset, bytes_max)

    def _bound_all_output(self) -> None:
        for token in self._kernels:
            self._journal.bound_output(token, self._output_bytes_max)
        self._timers.after(BOUND_OUTPUT_EVERY_S, self._bound_all_output)

    def prune(self, before: float) -> None:
        self._prune(self._journal.prune(before))

    def _prune(self, slices: Iterator[None]) -> None:
        with contextlib.suppress(StopIteration):
            next(slices)
            self._timers.after(PRUNE_PAUSE_S, lambda: self._prune(slices))

    # --- the Runtime protocol: what is done -------------------------------------------------------

    def prepare(self, order: KernelToPrepare) -> bool:
        return needs_nothing(order)

    def start(self, order: KernelToStart) -> None:
        group = self._cgroups.group_of(order.token, order.request) if self._cgroups else None
        now, origin_s = self._clock.now(), self._clock.origin.wall_s
        accepted = Order(order, now, self._boot_id, group.paths if group else (), origin_s)
        try:
            self._journal.begin(accepted, encode_start(order))
            if self._cgroups and group:
                self._cgroups.make(group, order.request)
        except OSError as error:
            raise StartFailedError(
                f"it could not be prepared: {error.filename or 'a file'}: {error.strerror}"
            ) from error
        limited_otherwise = self._cgroups and "memory" in self._cgroups.bases
        try:
            pid = wrapper.spawn(
                order,
                folder=self._journal.folder(order.token),
                env=wrapper.environment(order, self._capacity.devices),
                gates=group.gates() if group else [],
                data_bytes_max=0 if limited_otherwise else order.request.mem_bytes,
                user=user_of(order.owner, root_allowed=self._root_allowed),
            )
        except StartFailedError:
            if group:
                group.remove()
            raise
        self._kernels[order.token] = Running(order.token, pid, group, order.request.mem_bytes)
        self._tokens[pid] = order.token

    def stop(self, token: str, grace_s: float, *, force: bool) -> None:
        kernel = self._kernels.get(token)
        if kernel is None or kernel.wrapper_gone:
            return  # it is being cleared up, which no grace delays
        if force or grace_s <= 0:
            kernel.stopping = True
            self._step(kernel, self._kill)
        elif not kernel.stopping:
            kernel.stopping = True
            kernel.timer = self._timers.after(grace_s, lambda: self._step(kernel, self._kill))
            self._step(kernel, self._terminate)
        elif kernel.timer and kernel.timer.at > self._clock.now() + grace_s:
            kernel.timer.cancel()
            kernel.timer = self._timers.after(grace_s, lambda: self._step(kernel, self._kill))

    # --- starting again ---------------------------------------------------------------------------

    def _recover(
        self, order: Order, final: KernelReport | None, table: dict[int, procfs.Process]
    ) -> Recovered | None:
        token = order.kernel.token
        if final is not None:
            return Recovered(order.kernel, order.accepted_at, final=final)
        run = self._journal.run(token)
        if order.boot_id != self._boot_id:  # nothing of before is alive
            if not run.started:
                self._journal.forget(token)
                return None
            end = self._end_of(run, None)
            report = KernelReport(token, ReportState.ENDED, end.exit_code, end.reason, end.message)
            self.conclude(report)
            return Recovered(order.kernel, order.accepted_at, final=report)
        found = run.wrapper or procfs.wrapper_carrying(token, table.values())
        if found is None:
            self._journal.clear_run(token)
            return Recovered(order.kernel, order.accepted_by(self._clock))
        group = Group(order.groups) if order.groups else None
        if group:
            group.thaw()
        kernel = Running(token, found.pid, group, order.kernel.request.mem_bytes, is_child=False)
        self._kernels[token] = kernel
        kernel.was_seen = self._watch.begin(kernel, found)
        if not kernel.was_seen:
            self._timers.after(0, lambda: self._wrapper_ended(kernel))
        cut_off = self._journal.is_given_up(token)
        return Recovered(order.kernel, order.accepted_at, alive=True, cut_off=cut_off)

    # --- the end of a wrapper ---------------------------------------------------------------------

    def _reap(self) -> None:
        """Bury every child that has died: wrappers, and what kernels left behind."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            kernel = self._kernels.get(self._tokens.pop(pid, ""))
            if kernel is not None:
                kernel.exit_code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
                self._wrapper_ended(kernel)

    def _wrapper_ended(self, kernel: Running) -> None:
        if kernel.is_child and kernel.exit_code is None:
            # It was killed, perhaps before its child had joined the control group.
            procfs.send_group(kernel.pid, signal.SIGKILL)
        self._watch.end(kernel)
        kernel.wrapper_gone, kernel.tries = True, 0
        if kernel.timer:
            kernel.timer.cancel()
        self._step(kernel, self._clear)

    def _clear(self, kernel: Running) -> None:
        """Kill what is left of a kernel whose wrapper has ended, until nothing is."""
        if kernel.group is not None and (pids := kernel.group.pids()):
            kernel.group.kill()
            self._again(kernel, pids, self._clear)
        elif kernel.group is None or self._may_have_left(kernel):
            self._unclear.append(kernel)
            if len(self._unclear) == 1:  # one look at all processes serves all that end meanwhile
                self._timers.after(max(0.0, self._look_at - self._clock.now()), self._look)
        else:
            self._finish(kernel)

    def _may_have_left(self, kernel: Running) -> bool:
        """Say whether a kernel may have processes outside its empty group: they would be ours."""
        children = procfs.children() if kernel.is_child else None
        others = (pid for pid in children or () if pid not in self._tokens)
        return children is None or not all(map(procfs.is_service, others))

    def _look(self) -> None:
        began = self._clock.now()
        try:
            table = procfs.processes()
        except OSError:  # no descriptor is free
            self._timers.after(ASK_AFTER_S, self._look)
            return
        unclear, self._unclear = self._unclear, []
        for kernel in unclear:
            self._step(kernel, self._clear, lambda kernel: self._clear_by(table, kernel))
        now = self._clock.now()
        self._look_at = now + LOOKS_PART * (now - began)

    def _clear_by(self, table: dict[int, procfs.Process], kernel: Running) -> None:
        left = self._members(kernel, table) or procfs.ownerless(self._tokens, table)
        left = left or procfs.orphans(kernel.token, self._tokens) or kernel.dying(table)
        if left:
            self._again(kernel, kernel.kill(left), self._clear)
        else:
            self._finish(kernel)

    def _finish(self, kernel: Running) -> None:
        """Nothing is left: work out how it ended, and say so."""
        token = kernel.token
        run = self._journal.run(token)
        order = None if run.started else self._journal.order(token)
        self._journal.bound_output(token, self._output_bytes_max)
        del self._kernels[token]
        is_journaled = Path(self._journal.folder(token)).is_dir() if not run.started else True
        if not is_journaled and kernel.exit_code in SHELL_FAILED:
            kernel.exit_code = None  # the shell's or the command's: nobody can tell any more
        end = self._end_of(run, kernel.exit_code)
        if group := kernel.group:
            if end.exit_code != 0 and group.oom_killed():
                limit = format_size(kernel.mem_bytes)
                end = Ended(end.exit_code, end.reason, f"killed: over its memory limit of {limit}")
            if not group.remove():  # its last process is not quite gone
                self._timers.after(REMOVE_AGAIN_S, group.remove)
        if run.started or not is_journaled:
            self._events.ended(token, end)
        elif kernel.stopping:
            report = stopped_before_start(token)
            self._events.ended(token, Ended(None, report.reason, report.message))
        elif order is None:
            self._events.ended(token, end)
        else:
            why = self._journal.why_not_started(token) or "its wrapper ended before it"
            self._events.start_failed(order.kernel, StartFailedError(why))

    @staticmethod
    def _end_of(run: Run, exit_code: int | None) -> Ended:
        """Return how a command ended: what the wrapper wrote, else what it returned."""
        code = exit_code if run.status is None else run.status
        if code is None:
            return Ended(
                None,
                EndReason.EXIT_STATUS_LOST,
                "its wrapper ended before it could write the command's exit status",
            )
        return Ended(code)

    # --- stopping ---------------------------------------------------------------------------------

    def _terminate(self, kernel: Running) -> None:
        """Ask a kernel to end, once its command is there to hear it."""
        if kernel.wrapper_gone or kernel.tries:
            return
        if self._journal.run(kernel.token).started:
            procfs.send_group(kernel.pid, signal.SIGTERM)
            procfs.send_group(kernel.pid, signal.SIGCONT)
        else:
            self._timers.after(NOT_YET_S, lambda: self._step(kernel, self._terminate))

    def _kill(self, kernel: Running) -> None:
        """Kill everything but the wrapper, so that it writes the status; the wrapper last."""
        if kernel.wrapper_gone:
            return
        if kernel.timer:
            kernel.timer.cancel()
        if kernel.group is not None:
            pids = kernel.group.pids()
            kernel.group.kill()
        else:
            pids = kernel.kill(self._members(kernel, procfs.processes()))
        if pids:
            procfs.send_group(kernel.pid, signal.SIGCONT)
        elif kernel.tries >= WRAPPER_TRIES or not self._journal.run(kernel.token).started:
            procfs.send_group(kernel.pid, signal.SIGKILL)
        self._again(kernel, pids, self._kill)

    def _step(self, kernel: Running, step: Step, first: Step | None = None) -> None:
        """Take a step, `first` if given; take it later when nobody can see now what there is."""
        try:
            (first or step)(kernel)
        except OSError as error:
            log.warning("%s cannot be looked at: %s", kernel.token, error)
            later = self._timers.after(ASK_AFTER_S, lambda: self._step(kernel, step))
            if step != self._terminate:  # that has a deadline of its own
                kernel.timer = later

    def _again(self, kernel: Running, pids: set[int], step: Step) -> None:
        """Repeat a step of killing after a pause; report it when it has failed for long."""
        pause_s = KILL_AGAIN_S[min(kernel.tries, len(KILL_AGAIN_S) - 1)]
        kernel.tries += 1
        kernel.timer = self._timers.after(pause_s, lambda: self._step(kernel, step))
        if kernel.tries > STUCK_TRIES:
            stuck = tuple(sorted(pids)) or (kernel.pid,)
            self._events.stuck(kernel.token, stuck, "SIGKILL has had no effect yet")

    def _members(self, kernel: Running, table: dict[int, procfs.Process]) -> list[procfs.Process]:
        reapers = (os.getpid(),) if kernel.is_child else None
        seen = kernel.was_seen
        return procfs.members(kernel.pid, kernel.token, table, reapers, was_seen=seen)
