"""What the scheduler asks of the world: protocols, and the shapes of questions and answers."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from sokovan.domain.cluster import Agent, AgentStatus, ScalingGroup
from sokovan.domain.reasons import Wait
from sokovan.domain.resources import Hold
from sokovan.domain.sessions import AgentId, Assignment, SessionId, SessionWithKernels
from sokovan.domain.statuses import SessionStatus
from sokovan.placement.snapshot import Snapshot
from sokovan.scheduler.messages import (
    AgentHello,
    Answer,
    KernelReport,
    KernelToPrepare,
    KernelToStart,
    KernelToStop,
    OutputChunk,
)
from sokovan.scheduler.moves import Applied, Move, Verdict
from sokovan.scheduler.results import SessionTransitionInfo
from sokovan.scheduler.settle import StageLoad
from sokovan.scheduler.stages import Stage

# --- between the scheduler and the agents ---------------------------------------------------------


class AgentGateway(Protocol):
    """The way to the agents, wherever they live. Every call has a timeout of its own.

    Raises:
        AgentError: The agent is not connected, does not answer in time, or refuses the whole call.
    """

    async def prepare(
        self, agent_id: AgentId, kernels: Sequence[KernelToPrepare]
    ) -> Sequence[KernelReport]:
        """Begin to pull what the kernels need; answer each one's present state."""
        ...

    async def start(
        self, agent_id: AgentId, kernels: Sequence[KernelToStart]
    ) -> Sequence[KernelReport]:
        """Start kernels; a token known already is answered with its present state."""
        ...

    async def stop(
        self, agent_id: AgentId, kernels: Sequence[KernelToStop]
    ) -> Sequence[KernelReport]:
        """Begin to stop kernels; a token not known is remembered and answered ENDED."""
        ...

    async def states(self, agent_id: AgentId, tokens: Sequence[str]) -> Sequence[KernelReport]:
        """Answer the present state of each token, UNKNOWN included."""
        ...

    async def read_output(
        self,
        agent_id: AgentId,
        token: str,
        stream: str,
        *,
        offset: int,
        bytes_max: int,
        wait_s: float,
    ) -> OutputChunk:
        """Read from `stdout` or `stderr`; a negative offset counts from the end.

        Waits up to `wait_s` for more when there is nothing after `offset` and the kernel lives.
        """
        ...


# --- between the handlers and the store -----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SessionDataForPull:
    """A session whose agents are to pull images."""

    session_id: SessionId
    kernels: tuple[KernelToPrepare, ...] = ()


@dataclass(frozen=True, slots=True)
class SessionsForPullResult:
    """What the launcher needs to have images pulled."""

    sessions: list[SessionDataForPull] = field(default_factory=list)
    image_configs: dict[str, Any] = field(default_factory=dict)
    """By image name; empty while kernels are plain processes."""


@dataclass(frozen=True, slots=True)
class SessionQuerier:
    """Which sessions to load."""

    session_ids: Sequence[SessionId]


@dataclass(frozen=True, slots=True)
class SessionDataForStart:
    """A session whose kernels are to be started, with what its user submitted."""

    session_id: SessionId
    kernels: tuple[KernelToStart, ...] = ()
    owner: str = ""


@dataclass(frozen=True, slots=True)
class SessionsWithUserResult:
    """What the launcher needs to have kernels started."""

    sessions: list[SessionDataForStart] = field(default_factory=list)
    image_configs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TerminatingKernelData:
    """A kernel that is not confirmed gone."""

    agent_id: AgentId
    token: str


@dataclass(frozen=True, slots=True)
class TerminatingSessionData:
    """A session whose kernels are to be stopped."""

    session_id: SessionId
    kernels: tuple[TerminatingKernelData, ...] = ()
    grace_s: float = 10.0
    force: bool = False


@dataclass(frozen=True, slots=True)
class PendingTimeoutSessionData:
    """A session that has waited longer than it wanted to."""

    session_id: SessionId
    waited_s: float = 0.0
    timeout_s: float = 0.0


@dataclass(frozen=True, slots=True)
class SchedulingData:
    """All that decides a scheduling pass of one group."""

    group: ScalingGroup = field(default_factory=ScalingGroup)
    agents: tuple[Agent, ...] = ()
    holds: tuple[Hold, ...] = ()
    """Of these agents, leftovers included."""
    pending: tuple[SessionWithKernels, ...] = ()
    """Those whose last failed attempt is long enough ago."""
    running: tuple[SessionWithKernels, ...] = ()
    """Those on the agents: whose they are, and when they should end."""
    waiting_for_old: frozenset[SessionId] = frozenset()
    """Sessions with leftovers whose agent's grace has not passed."""
    now: float = 0.0
    snapshot: Snapshot | None = None
    """All of this as kept up to date from pass to pass; the rest is then left empty."""


@dataclass(frozen=True, slots=True)
class ScheduledSessionData:
    """A session that was placed."""

    session_id: SessionId
    assignment: Assignment = ()


@dataclass(frozen=True, slots=True)
class ScheduleResult:
    """What one scheduling pass decided."""

    scheduled_sessions: list[ScheduledSessionData] = field(default_factory=list)
    failures: list[SessionTransitionInfo] = field(default_factory=list)
    """Sessions whose failure to be placed counts as an attempt."""
    waits: Mapping[SessionId, Wait] = field(default_factory=dict)
    """Why each session waits that was not placed."""


class SchedulerRepository(Protocol):
    """What the handlers ask of the store."""

    async def get_sessions_for_pull_by_ids(
        self, session_ids: list[SessionId]
    ) -> SessionsForPullResult:
        """Load what the launcher needs to have images pulled."""
        ...

    async def get_scheduling_data(self, scaling_group: str) -> SchedulingData | None:
        """Load what decides a scheduling pass; `None` when there is no such group."""
        ...

    async def search_sessions_with_kernels_and_user(
        self, querier: SessionQuerier
    ) -> SessionsWithUserResult:
        """Load what the launcher needs to start kernels."""
        ...

    async def get_terminating_sessions_by_ids(
        self, session_ids: list[SessionId]
    ) -> list[TerminatingSessionData]:
        """Load the kernels that are not confirmed gone of the sessions still TERMINATING."""
        ...

    async def lower_session_priority(
        self, session_ids: list[SessionId], amount: int, min_priority: int
    ) -> None:
        """Lower the priority of the sessions still DEPRIORITIZING, once per phase."""
        ...

    async def get_pending_timeout_sessions_by_ids(
        self, session_ids: list[SessionId]
    ) -> list[PendingTimeoutSessionData]:
        """Find those that have waited longer than their pending timeout."""
        ...


class SessionLauncher(Protocol):
    """Has images pulled and kernels started."""

    async def trigger_image_pulling(
        self, sessions: Sequence[SessionDataForPull], image_configs: Mapping[str, Any]
    ) -> None:
        """Ask every agent concerned to pull.

        Raises:
            AgentError: Some agents failed; names their sessions.
        """
        ...

    async def start_sessions_for_handler(
        self, sessions: Sequence[SessionDataForStart], image_configs: Mapping[str, Any]
    ) -> None:
        """Ask every agent concerned to start kernels.

        Raises:
            AgentError: Some agents failed; names their sessions.
        """
        ...


class SessionTerminator(Protocol):
    """Has kernels stopped."""

    async def terminate_sessions_for_handler(
        self, terminating_sessions: Sequence[TerminatingSessionData]
    ) -> None:
        """Ask every agent concerned to stop kernels; the agents report each one's end.

        Raises:
            AgentError: Some agents failed; names their sessions.
        """
        ...


class SessionProvisioner(Protocol):
    """Decides which sessions go where."""

    async def schedule_scaling_group(
        self, scaling_group: str, scheduling_data: SchedulingData
    ) -> ScheduleResult:
        """Place what can be placed; give a reason for everything that waits."""
        ...


class AgentEventSink(Protocol):
    """Where the homes of agents bring what the agents say."""

    async def connected(self, hello: AgentHello) -> int:
        """Register an agent, durably; return the incarnation its reports must carry."""
        ...

    async def heartbeat(self, agent_id: AgentId, incarnation: int, tokens: Sequence[str]) -> None:
        """Note that an agent is alive, and which tokens live on it.

        Raises:
            AgentError: It is not known, or not any more: it is to be hung up on, so that it
                introduces itself again.
        """
        ...

    async def reported(
        self, agent_id: AgentId, incarnation: int, reports: Sequence[KernelReport]
    ) -> None:
        """Record reports; returns when they are durable, so that they may be acknowledged."""
        ...


class StageObserver:
    """Hears of every run of a stage; this one lets it pass."""

    def ran(
        self,
        scaling_group: str,
        stage: Stage,
        seconds: float,
        verdicts: Sequence[tuple[Move, Verdict]],
    ) -> None:
        """Hear that a stage has run for a group, for how long, and what became of its moves."""


# --- between the coordinator and the store --------------------------------------------------------


class SchedulerStore(SchedulerRepository, Protocol):
    """What the coordinator and the agents' events ask of the store, beyond what the handlers do."""

    @property
    def groups(self) -> Mapping[str, ScalingGroup]:
        """The scaling groups by name."""
        ...

    @property
    def live(self) -> "LiveView":
        """What is alive."""
        ...

    def taken_over_at(self, scaling_group: str) -> float:
        """Return since when this manager has been driving a group."""
        ...

    def leads(self, scaling_group: str) -> bool:
        """Say whether this manager drives a group now, and no other may."""
        ...

    def load_for_stage(self, scaling_group: str, stage: Stage, note_after_s: float) -> StageLoad:
        """Return the sessions a stage takes and those it awaits. Costs no query."""
        ...

    def note_waits(self, waits: Mapping[SessionId, Wait]) -> None:
        """Keep the present waiting reason of each session that was left alone."""
        ...

    def pending_timeout_of(self, session: SessionWithKernels) -> float | None:
        """Return how long a session may stay PENDING."""
        ...

    async def apply(self, moves: Sequence[Move], answers: Sequence[Answer] = ()) -> Applied:
        """Record what agents answered, then make moves, each only where it still holds."""
        ...

    async def record_reports(
        self, agent_id: AgentId, incarnation: int, reports: Sequence[KernelReport]
    ) -> Applied:
        """Record what an agent says of its kernels."""
        ...

    async def register_agent(self, hello: AgentHello) -> Agent:
        """Take an agent in, with a new incarnation."""
        ...

    async def set_agent_status(self, agent_id: AgentId, status: AgentStatus) -> Applied:
        """Note that an agent is back, lost or given up, and do what follows."""
        ...

    def heard_of(self, agent_id: AgentId) -> None:
        """Note that an agent is alive."""
        ...

    async def refresh(self) -> None:
        """Read what is alive again."""
        ...

    async def prune(self, age_s: float) -> object:
        """Remove sessions that ended longer ago, with their history."""
        ...


class LiveView(Protocol):
    """What is alive, to look at."""

    @property
    def sessions(self) -> Mapping[SessionId, SessionWithKernels]: ...

    @property
    def agents(self) -> Mapping[AgentId, Agent]: ...

    @property
    def heard(self) -> Collection[AgentId]: ...

    def in_statuses(
        self, scaling_group: str, statuses: Iterable[SessionStatus]
    ) -> Iterable[SessionWithKernels]: ...

    def holds_on(self, agent_id: AgentId) -> Iterable[Hold]: ...

    def leftovers(self) -> Iterable[Hold]: ...
