"""What is counted and measured as it happens."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

from sokovan.api.metrics import table
from sokovan.api.metrics.table import Metric
from sokovan.clock import Clock
from sokovan.domain.reasons import EndReason, MoveReason
from sokovan.domain.sessions import SessionWithKernels
from sokovan.domain.statuses import SessionStatus
from sokovan.scheduler.moves import Move, Verdict
from sokovan.scheduler.ports import StageObserver
from sokovan.scheduler.stages import Stage
from sokovan.store.live import Watcher

_END_REASONS = frozenset((*EndReason, *MoveReason))


class _Series(dict[tuple[str, ...], Any]):
    """The series of a metric by the values of its labels; looking them up there takes longer."""

    def __init__(self, metric: Counter | Histogram) -> None:
        super().__init__()
        self._metric = metric

    def __missing__(self, values: tuple[str, ...]) -> Any:
        series = self[values] = self._metric.labels(*values)
        return series


class Meters(Watcher, StageObserver):
    """The counters and histograms of one server, in a registry of its own.

    It watches what is alive, hears of every run of a stage, and is told of commits and requests.

    Args:
        clock: Measures what takes long.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        # They would double the series, and nobody asks for them.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        self._submitted = _Series(self._counter(table.SUBMITTED))
        self._retried = _Series(self._counter(table.RETRIED))
        self._requeued = _Series(self._counter(table.REQUEUED))
        self._ended = _Series(self._counter(table.ENDED))
        self._session_wait = _Series(self._histogram(table.SESSION_WAIT))
        self._session_start = _Series(self._histogram(table.SESSION_START))
        self._session_run = _Series(self._histogram(table.SESSION_RUN))
        self._reason_wait = _Series(self._histogram(table.REASON_WAIT))
        self._stage_run = _Series(self._histogram(table.STAGE_RUN))
        self._stage_outcomes = _Series(self._counter(table.STAGE_OUTCOMES))
        self._moves_dropped = _Series(self._counter(table.MOVES_DROPPED))
        self._commit = self._histogram(table.COMMIT)
        self._commit_jobs = self._histogram(table.COMMIT_JOBS)
        self._requests = _Series(self._counter(table.REQUESTS))
        self._request = _Series(self._histogram(table.REQUEST))

    def _counter(self, metric: Metric) -> Counter:
        return Counter(metric.name, metric.meaning, metric.labels, registry=self.registry)

    def _histogram(self, metric: Metric) -> Histogram:
        return Histogram(
            metric.name,
            metric.meaning,
            metric.labels,
            buckets=metric.buckets,
            registry=self.registry,
        )

    # --- sessions ---------------------------------------------------------------------------------

    def changed(self, before: SessionWithKernels | None, after: SessionWithKernels) -> None:
        """Count a session that is new, and one that has another status."""
        group = after.scaling_group
        if before is None:
            if after.status_seq == 0:  # else the shadow had gone astray
                made = self._submitted if after.retry_of is None else self._retried
                made[group,].inc()
            return
        if after.requeues > before.requeues:
            self._requeued[group,].inc()
        if after.status is SessionStatus.SCHEDULED:
            self._session_wait[group,].observe(after.status_since - after.pending_since)
        elif after.status is SessionStatus.RUNNING:
            self._session_start[group,].observe(after.status_since - after.pending_since)
        elif after.status.is_final:
            reason = str(after.reason) if after.reason in _END_REASONS else table.OTHER
            self._ended[group, after.result.value, reason].inc()
            if after.started_at is not None and after.ended_at is not None:
                ran_s = after.ended_at - after.started_at
                self._session_run[group, after.result.value].observe(ran_s)

    def waited(self, scaling_group: str, code: str, seconds: float) -> None:
        """Measure for how long a session has waited for a reason."""
        self._reason_wait[scaling_group, code].observe(seconds)

    # --- stages -----------------------------------------------------------------------------------

    def ran(
        self,
        scaling_group: str,
        stage: Stage,
        seconds: float,
        verdicts: Sequence[tuple[Move, Verdict]],
    ) -> None:
        """Measure a run of a stage, and count what became of its moves."""
        self._stage_run[scaling_group, stage.name].observe(seconds)
        for move, verdict in verdicts:
            if verdict is Verdict.APPLIED:
                self._stage_outcomes[scaling_group, stage.name, move.outcome.value].inc()
            else:
                self._moves_dropped[scaling_group, stage.name, verdict.value].inc()

    # --- store and API ----------------------------------------------------------------------------

    @contextmanager
    def commit(self, jobs: int) -> Iterator[None]:
        """Measure a transaction of the store; on any thread."""
        began_at = self._clock.now()
        try:
            yield
        finally:
            self._commit.observe(self._clock.now() - began_at)
            self._commit_jobs.observe(jobs)

    def answered(self, operation: str, status: int | None, seconds: float) -> None:
        """Count and measure an HTTP request; `None` is one that had no answer."""
        outcome = "none" if status is None else f"{status // 100}xx"
        self._requests[operation, outcome].inc()
        self._request[operation,].observe(seconds)
