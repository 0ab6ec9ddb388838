"""Noticing the end of wrappers that an earlier agent started: they are no children of ours."""

import asyncio
import os
from collections.abc import Callable

from sokovan.agent import procfs
from sokovan.agent.running import Running
from sokovan.agent.timers import Timers

ASK_AFTER_S = 1.0
"""How often is asked after what cannot be watched."""


class Watch:
    """Watches wrappers through pidfds, or asks after them when no descriptor is free.

    Args:
        loop: Watches.
        timers: Runs what is to happen later.
        ended: Called when a wrapper has ended.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        timers: Timers,
        ended: Callable[[Running], None],
    ) -> None:
        self._loop = loop
        self._timers = timers
        self._ended = ended

    def begin(self, kernel: Running, found: procfs.Process) -> bool:
        """Have the end of a wrapper noticed; say whether it is alive."""
        try:
            kernel.pidfd = os.pidfd_open(found.pid)
        except ProcessLookupError:
            return False
        except OSError:  # no descriptor is free: asking from time to time must do
            return self._ask_after(kernel, found)
        if not procfs.is_alive(found.pid, found.start):
            os.close(kernel.pidfd)
            kernel.pidfd = None
            return False
        self._loop.add_reader(kernel.pidfd, self._ended, kernel)
        return True

    def end(self, kernel: Running) -> None:
        """Watch it no longer."""
        if kernel.pidfd is not None:
            self._loop.remove_reader(kernel.pidfd)
            os.close(kernel.pidfd)
            kernel.pidfd = None

    def _ask_after(self, kernel: Running, found: procfs.Process) -> bool:
        try:
            if not procfs.is_alive(found.pid, found.start):
                return False
        except OSError:  # nobody can tell now
            pass

        def ask() -> None:
            if not self._ask_after(kernel, found):
                self._ended(kernel)

        self._timers.after(ASK_AFTER_S, ask)
        return True
