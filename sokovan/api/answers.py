"""The shape of what the API answers, for the OpenAPI document; the store's queries build it.

Fields may be added: a program leaves alone what it does not know.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from sokovan.domain.cluster import AgentStatus
from sokovan.domain.sessions import DependencyKind, KernelRole
from sokovan.domain.statuses import KernelStatus, SessionResult, SessionStatus
from sokovan.domain.where import ClusterMode

Stamp = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
"""RFC 3339 in UTC."""


class Kernel(BaseModel):
    """One kernel of a session."""

    id: str
    role: KernelRole
    index: int
    status: KernelStatus
    agent: str | None
    token: str | None
    exit_code: int | None
    reason: str | None
    error: str | None
    cpu_milli: int
    mem_bytes: int
    gpu_shares: int
    gpu_mem_bytes_min: int
    devices: list[tuple[int, int]]
    started_at: Stamp | None
    ended_at: Stamp | None


class Dependency(BaseModel):
    """Another session that has not ended yet."""

    session_id: str
    kind: DependencyKind


class Waiting(BaseModel):
    """Why a session waits."""

    code: str
    sentence: str
    facts: dict[str, Any]
    since: Stamp


class Where(BaseModel):
    """Where a session's kernels may go; what is not said is left out."""

    mode: ClusterMode | None = None
    kernels_per_agent_max: int | None = None
    same: str | None = None
    constraints: list[str] | None = None
    agents: list[str] | None = None
    prefer: list[str] | None = None
    exclude: list[str] | None = None
    spread_with: list[str] | None = None
    pack_with: list[str] | None = None


class Session(BaseModel):
    """A session as it is now."""

    id: str
    name: str
    owner: str
    status: SessionStatus
    result: SessionResult
    reason: str | None
    priority: int
    scaling_group: str
    agents: list[str]
    exit_code: int | None
    created_at: Stamp
    started_at: Stamp | None
    ended_at: Stamp | None
    kernels: list[Kernel]
    command: list[str] | None
    cwd: str | None
    cpu_milli: int
    mem_bytes: int
    gpu_shares: int
    gpu_mem_bytes_min: int
    status_since: Stamp
    number: int
    walltime_s: float | None
    pending_timeout_s: float | None
    begin_at: Stamp | None
    held: bool
    requeue: bool
    requeues: int
    retries: int
    retry_of: str | None
    array_id: str | None
    array_index: int | None
    depends_on: list[Dependency]
    where: Where | None
    wait: Waiting | None


class Sessions(BaseModel):
    """What became of several sessions that were submitted together."""

    sessions: list[Session]


class Page(BaseModel):
    """A part of a list, and where it goes on."""

    items: list[Session]
    next_cursor: str | None


class HistoryLine(BaseModel):
    """One recorded change."""

    at: Stamp
    session_id: str
    kernel_id: str | None
    from_status: str | None
    to_status: str
    status_seq: int
    reason: str
    detail: str
    stage: str


class History(BaseModel):
    """Every recorded change of a session and its kernels, oldest first."""

    items: list[HistoryLine]


class Suggestion(BaseModel):
    """One change with which a session would start now."""

    dimension: Literal[
        "cpu",
        "mem",
        "gpu",
        "gpu_mem",
        "walltime",
        "constraint",
        "spread",
        "kernels",
        "priority",
        "group",
    ]
    from_: Annotated[Any, Field(alias="from")]
    """In base units: milli-cores, bytes, shares, seconds."""
    to: Any
    change: str
    as_new: bool
    """Whether it also helps who submits the session anew, so that it is the last in the queue."""


class Why(BaseModel):
    """Where a session stands."""

    session: Session
    sentence: str
    code: str
    facts: dict[str, Any]
    suggestions: list[Suggestion] | None


class OnAgent(BaseModel):
    """Where one kernel goes."""

    agent_id: str
    agent: str
    devices: list[tuple[int, int]]


class Start(BaseModel):
    """When something should start, if that is known."""

    starts_at: Stamp | None
    ends_at: Stamp | None
    not_before: Stamp | None
    reserved: bool
    agents: list[OnAgent]
    sentence: str


class Eta(Start):
    """When a session should start, or has started."""

    session: Session
    position: int | None
    """In the queue: how many are looked at before it, and one."""
    queue_length: int | None


class DryRun(BaseModel):
    """What would become of a session, were it submitted now."""

    name: str
    scaling_group: str
    accepted: bool
    starts_now: bool
    agents: list[OnAgent]
    sentence: str
    code: str | None
    facts: dict[str, Any]
    eta: Start | None
    suggestions: list[Suggestion] | None


class DryRuns(BaseModel):
    """What would become of several sessions that are submitted together."""

    sessions: list[DryRun]


class Cancelled(BaseModel):
    """What became of a request to end a session."""

    session: Session
    outcome: Literal["cancelled", "terminating", "already-ended"]


class Amounts(BaseModel):
    """Amounts of an agent."""

    cpu_milli: int
    mem_bytes: int


class DeviceView(BaseModel):
    """One GPU of an agent."""

    index: int
    model: str
    mem_bytes: int
    uuid: str
    shares: int
    shares_held: int


class Agent(BaseModel):
    """An agent as it is now."""

    id: str
    name: str
    scaling_group: str
    status: AgentStatus
    architecture: str
    version: str
    incarnation: int
    address: str
    last_seen_at: Stamp
    drained_since: Stamp | None
    drain_reason: str | None
    labels: dict[str, str]
    capacity: Amounts
    held: Amounts
    free: Amounts
    devices: list[DeviceView]
    kernels: int
    leftovers: int


class Agents(BaseModel):
    """All agents, by name."""

    items: list[Agent]


class Manager(BaseModel):
    """One of the managers that share a store."""

    id: str
    url: str
    host: str
    pid: int
    version: str
    started_at: Stamp
    drives: list[str]
    """The scaling groups whose lease it holds."""


class Status(BaseModel):
    """The server, and how much it has to do."""

    pid: int
    version: str
    address: str
    started_at: Stamp
    uptime_s: float
    sessions: dict[str, int]
    agents: dict[str, int]
    drained: int
    leftovers: int
    manager_id: str
    drives: list[str]
    """The scaling groups that this server drives now."""
    managers: list[Manager]
    """Those that share a PostgreSQL database, as last seen; none where the store is a file."""


class AllAmounts(Amounts):
    """Amounts of all agents together."""

    gpu_shares: int
    """1000 are a whole device."""


class Turn(BaseModel):
    """A waiting session, and when its turn should come."""

    session: Session
    position: int | None
    """In the queue of its group; null while it may not be placed, whatever is free."""
    queue_length: int
    starts_at: Stamp | None
    reserved: bool
    """Whether what it needs is kept free for it then; else the start is an estimate."""


class Overview(BaseModel):
    """All at a glance."""

    status: Status
    capacity: AllAmounts
    """Of the agents that are there."""
    held: AllAmounts
    agents: list[Agent]
    placed: list[Session]
    """Those that have a place, the newest first."""
    waiting: list[Turn]
    """In the order of their turns; then those that may not be placed."""


class Stopping(BaseModel):
    """The process that is about to end."""

    pid: int


class Problem(BaseModel):
    """What went wrong, as RFC 9457 has it; `code` is stable, `detail` is for people."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    field: str = ""
    """The submitted field at fault; left out where there is none."""
    stopping: bool = False
    """Whether the server was told to stop: a client need not look for it."""
