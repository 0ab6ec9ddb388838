"""Every metric: its name, what it measures, and its labels. `docs/reference/metrics.md` is this.

No label has values that grow with use: no session, no owner, no address.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What a metric is to Prometheus."""

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric; the buckets are those of a histogram."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    meaning: str
    buckets: tuple[float, ...] = ()


_HOUR, _DAY = 3600.0, 86_400.0
WAITS = (0.1, 0.5, 1, 5, 15, 60, 300, 900, _HOUR, 4 * _HOUR, 12 * _HOUR, _DAY, 7 * _DAY)
REASONS = (1, 15, 60, 300, _HOUR, 4 * _HOUR, _DAY)
RUNS = (1, 5, 15, 60, 300, 900, _HOUR, 4 * _HOUR, 12 * _HOUR, _DAY, 3 * _DAY, 7 * _DAY)
WORK = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60)
ANSWERS = (0.005, 0.01, 0.025, 0.1, 0.25, 1, 2.5, 10, 60)
JOBS = (1, 2, 4, 8, 16, 32, 64, 128, 256)

# --- the state, read when Prometheus asks -------------------------------------------------------

INFO = Metric("sokovan_info", Kind.GAUGE, ("version",), "Always 1: which version runs.")
SESSIONS = Metric(
    "sokovan_sessions", Kind.GAUGE, ("group", "status"), "Sessions that have not ended."
)
WAITING = Metric(
    "sokovan_sessions_waiting",
    Kind.GAUGE,
    ("group", "reason"),
    "PENDING sessions by why they wait, as scheduling passes have noted it.",
)
OLDEST_WAIT = Metric(
    "sokovan_oldest_wait_seconds",
    Kind.GAUGE,
    ("group",),
    "How long the session has waited that has waited longest; 0 when none waits. Those held back, "
    "or whose dependencies or begin time have not come, do not count.",
)
KERNELS = Metric("sokovan_kernels_running", Kind.GAUGE, ("group",), "Kernels in RUNNING.")
AGENTS = Metric("sokovan_agents", Kind.GAUGE, ("group", "state"), "Agents, drained ones too.")
DRAINED = Metric(
    "sokovan_agents_drained", Kind.GAUGE, ("group",), "Agents taken out of service, in any state."
)
CAPACITY_CPU = Metric(
    "sokovan_capacity_cpu_cores", Kind.GAUGE, ("group", "state"), "Cores that agents offer."
)
CAPACITY_MEM = Metric(
    "sokovan_capacity_mem_bytes", Kind.GAUGE, ("group", "state"), "Memory that agents offer."
)
CAPACITY_GPUS = Metric(
    "sokovan_capacity_gpus", Kind.GAUGE, ("group", "state"), "GPUs that agents offer."
)
HELD_CPU = Metric(
    "sokovan_held_cpu_cores",
    Kind.GAUGE,
    ("group", "state"),
    "Cores held on agents, by leftovers too.",
)
HELD_MEM = Metric(
    "sokovan_held_mem_bytes",
    Kind.GAUGE,
    ("group", "state"),
    "Memory held on agents, by leftovers too.",
)
HELD_GPUS = Metric(
    "sokovan_held_gpus",
    Kind.GAUGE,
    ("group", "state"),
    "GPUs held on agents, by leftovers too; a share of one is a fraction.",
)
LEFTOVERS = Metric(
    "sokovan_leftovers",
    Kind.GAUGE,
    ("group",),
    "Kernels that may still exist although their session has moved on.",
)

# --- counted as it happens, since the server was started ----------------------------------------

SUBMITTED = Metric(
    "sokovan_sessions_submitted_total", Kind.COUNTER, ("group",), "Sessions accepted from users."
)
RETRIED = Metric(
    "sokovan_sessions_retried_total",
    Kind.COUNTER,
    ("group",),
    "Sessions made to follow one that failed by its exit code.",
)
REQUEUED = Metric(
    "sokovan_sessions_requeued_total",
    Kind.COUNTER,
    ("group",),
    "Sessions that went back to PENDING.",
)
ENDED = Metric(
    "sokovan_sessions_ended_total",
    Kind.COUNTER,
    ("group", "result", "reason"),
    "Sessions that ended, by how and why.",
)
SESSION_WAIT = Metric(
    "sokovan_session_wait_seconds",
    Kind.HISTOGRAM,
    ("group",),
    "From submission, begin time or return to PENDING until agents were chosen.",
    WAITS,
)
SESSION_START = Metric(
    "sokovan_session_start_seconds",
    Kind.HISTOGRAM,
    ("group",),
    "The same until all kernels ran: waiting, pulling and starting together.",
    WAITS,
)
SESSION_RUN = Metric(
    "sokovan_session_run_seconds",
    Kind.HISTOGRAM,
    ("group", "result"),
    "From RUNNING to the end, of sessions that ran.",
    RUNS,
)
REASON_WAIT = Metric(
    "sokovan_reason_wait_seconds",
    Kind.HISTOGRAM,
    ("group", "reason"),
    "For how long sessions waited for one reason, observed when it changes or the wait ends.",
    REASONS,
)
STAGE_RUN = Metric(
    "sokovan_stage_run_seconds",
    Kind.HISTOGRAM,
    ("group", "stage"),
    "How long one run of a stage took, from loading to saving; a run of `schedule-sessions` is a "
    "scheduling pass.",
    WORK,
)
STAGE_OUTCOMES = Metric(
    "sokovan_stage_outcomes_total",
    Kind.COUNTER,
    ("group", "stage", "outcome"),
    "Moves of stages that were made, by outcome.",
)
MOVES_DROPPED = Metric(
    "sokovan_moves_dropped_total",
    Kind.COUNTER,
    ("group", "stage", "verdict"),
    "Moves of stages that were not made: superseded by another, or rejected for want of room.",
)
COMMIT = Metric(
    "sokovan_store_commit_seconds",
    Kind.HISTOGRAM,
    (),
    "How long a transaction of the store took, up to the disk.",
    WORK,
)
COMMIT_JOBS = Metric(
    "sokovan_store_commit_jobs",
    Kind.HISTOGRAM,
    (),
    "How many writes one transaction of the store held.",
    JOBS,
)
REQUESTS = Metric(
    "sokovan_http_requests_total",
    Kind.COUNTER,
    ("operation", "status"),
    "HTTP requests, by class of status.",
)
REQUEST = Metric(
    "sokovan_http_request_seconds",
    Kind.HISTOGRAM,
    ("operation",),
    "From an HTTP request to the end of its answer; some wait, or follow something, on purpose.",
    ANSWERS,
)

OTHER = "other"
"""A label's value where the true one is not among those that are known beforehand."""

METRICS: tuple[Metric, ...] = tuple(m for m in globals().values() if isinstance(m, Metric))
"""All of them, in this order."""

LABELS: Mapping[str, str] = {
    "group": "a scaling group",
    "status": "of sessions: a [session status](states.md#all-statuses); "
    "of requests: `2xx` to `5xx`, or `none` when whoever asked had gone",
    "reason": "why a session [waits](reasons.md#waitreason), or [ended](reasons.md#endreason), "
    f"or `{OTHER}`",
    "state": "ALIVE, LOST or GONE",
    "result": "SUCCESS, FAILURE or UNDEFINED",
    "stage": "a [stage](states.md#stages)",
    "outcome": "`success`, `need-retry`, `expired`, `give-up`, or `skipped` when only the history "
    "was told why a session waits",
    "verdict": "`superseded` or `rejected`",
    "operation": "an operation of the [API](openapi.json), "
    f"or `{OTHER}` for a request that reached none",
    "version": "of Sokovan",
}
"""What the values of each label are."""
