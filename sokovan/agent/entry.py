"""What an agent knows of one token."""

import asyncio
from dataclasses import dataclass

from sokovan.agent.timers import Timer
from sokovan.scheduler.messages import KernelReport, KernelToStart, ReportState

PULLS = frozenset({ReportState.PULLING, ReportState.PULL_FAILED})
UNSTARTED = PULLS | {ReportState.PREPARED}
"""What it was only asked to prepare."""


@dataclass(slots=True)
class Entry:
    """What is known of one token."""

    report: KernelReport
    """The latest."""
    order: KernelToStart | None = None
    """Kept while it may be tried again, or waits until what it needs is ready."""
    requeue: bool = False
    cut_off: bool = False
    """Stopped because no manager was heard of."""
    retry: Timer | None = None
    over: asyncio.Event | None = None
    """Set at the end; made when somebody waits for output."""

    @property
    def is_start_retried(self) -> bool:
        """Whether its start has failed and will be tried again; nothing of it runs."""
        return self.retry is not None and self.report.state not in UNSTARTED

    def stop_trying(self) -> None:
        """Forget what was to be tried again."""
        if self.retry is not None:
            self.retry.cancel()
            self.retry = None
        self.order = None
