"""A world: the real manager parts, the real agents, and everything between them, on a virtual clock.

The twin of `manager.py`: the other place where real things are joined. Time goes from one moment at
which something is due to the next; the invariants are checked after every transaction.
"""

import asyncio
import contextlib
import hashlib
import heapq
import logging
import random
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

import structlog

from sokovan.agent.timers import Timers
from sokovan.clock import ManualClock
from sokovan.config import AgentConfig, Config
from sokovan.domain.cluster import ScalingGroup
from sokovan.domain.errors import SokovanError
from sokovan.domain.resources import Capacity
from sokovan.domain.sessions import AgentId, KernelId, SessionId, SessionSpec, SessionWithKernels
from sokovan.identity import IdSource
from sokovan.scheduler.coordinator import Coordinator
from sokovan.scheduler.events import AgentEvents
from sokovan.scheduler.messages import AgentHello, KernelToStart
from sokovan.scheduler.moves import Applied, HistoryLine
from sokovan.scheduler.ports import AgentEventSink
from sokovan.scheduler.wiring import events_for, join
from sokovan.simulator import checks
from sokovan.simulator.database import ManagerDied, SimulatedDatabase
from sokovan.simulator.faults import NO_FAULTS, Faults
from sokovan.simulator.network import Network
from sokovan.simulator.observe import Observer, Picture
from sokovan.simulator.runtime import FakeRuntime, Script
from sokovan.store.engine import InlineDatabase, open_sqlite
from sokovan.store.repository import SqlRepository
from sokovan.store.schema import prepare

BEGINNING = 1_000_000_000.0
ROUNDS_PER_MOMENT_MAX = 500
"""More rounds than this at one moment, and something goes round in circles."""
STEPS_KEPT = 400
OVERDUE_S = 130.0
"""How late a limit may be acted on: two full cycles, and what the store refuses meanwhile."""


class InvariantViolatedError(AssertionError):
    """An invariant does not hold; the message tells the story."""


@dataclass(slots=True)
class Manager:
    """One life of the manager process: all that is lost with it."""

    database: SimulatedDatabase
    repository: SqlRepository
    coordinator: Coordinator
    events: AgentEvents
    since: float


class World:
    """Everything there is, from one seed.

    Args:
        seed: Decides whatever can vary.
        machines: What each agent has; the first is `agent-0`.
        groups: The scaling groups; agents are dealt to them in turn.
        faults: What goes wrong, and how often.
        config: The manager's settings.
    """

    def __init__(
        self,
        seed: object = 0,
        *,
        machines: Sequence[Capacity] = (Capacity(4000, 16 * 1024**3),),
        groups: Sequence[ScalingGroup] = (ScalingGroup(),),
        faults: Faults = NO_FAULTS,
        config: Config | None = None,
    ) -> None:
        self.seed = seed
        self.clock = ManualClock(BEGINNING)
        self.faults = faults
        self.config = config or Config()
        self.groups: Mapping[str, ScalingGroup] = {group.name: group for group in groups}
        self.manager: Manager | None = None
        self.scripts: dict[tuple[str, int], Script] = {}
        """What kernels do, by the name of their session and their index."""
        self.accepted: dict[SessionId, None] = {}
        self.cancelled: dict[SessionId, None] = {}
        self.counts: Counter[str] = Counter()
        self.picture = Picture({})
        self._ids = IdSource(self.rng("ids"))
        self._engine = open_sqlite(None, self.config.store)
        prepare(self._engine)
        self._looker = InlineDatabase(self._engine)
        self._observer = Observer(self.groups)
        self._seen_changes = -1
        self._given_up: set[str] = set()
        self._plan: list[tuple[float, int, str, Callable[[], Awaitable[None]]]] = []
        self._planned = 0
        self._steps: deque[str] = deque(maxlen=STEPS_KEPT)
        self._nested = False
        self._lives = 0
        self._violations: list[str] = []
        self.network = Network(
            self,
            self.clock,
            self.rng("network"),
            faults,
            call_timeout_s=self.config.scheduler.agent_call_timeout_s,
        )
        self.runtimes: dict[AgentId, FakeRuntime] = {}
        for index, machine in enumerate(machines):
            self._add_machine(index, machine)

    @staticmethod
    def chance(seed: object, purpose: str) -> random.Random:
        """Return a source of chance of its own, so that a draw here changes nothing there."""
        return random.Random(f"{seed}/{purpose}")

    def rng(self, purpose: str) -> random.Random:
        """Return the source of chance that this world has for a purpose."""
        return self.chance(self.seed, purpose)

    def make_peace(self, faults: Faults) -> None:
        """Change what goes wrong from now on; what is under way still arrives."""
        self.faults = self.network.faults = faults
        if self.manager is not None:
            self.manager.database.faults = faults

    def _add_machine(self, index: int, capacity: Capacity) -> None:
        agent_id = AgentId(f"agent-{index}")
        group = tuple(self.groups)[index % len(self.groups)]
        timers = Timers(self.clock)
        runtime = FakeRuntime(self.clock, timers, capacity, self._script)
        self.runtimes[agent_id] = runtime
        self.network.add(
            AgentHello(agent_id, f"agent-{index}", capacity, scaling_group=group),
            runtime,
            machine=timers,
            config=AgentConfig(name=f"agent-{index}", scaling_group=group),
        )

    def _script(self, order: KernelToStart) -> Script:
        return self.scripts.get((order.name, order.index), Script())

    # --- the manager ------------------------------------------------------------------------------

    async def start_manager(self) -> None:
        """Begin a life of the manager on the store as it is."""
        if self.manager is not None:
            return
        self._lives += 1
        self.note(f"the manager starts for the {self._lives}. time")
        database = SimulatedDatabase(
            self._engine,
            self.rng(f"database-{self._lives}"),
            self.faults,
            committed=self.check,
            meanwhile=self.meanwhile,
        )
        repository = SqlRepository(
            database, self.clock, self._ids, self.groups, holder=f"life-{self._lives}"
        )
        coordinator = Coordinator(repository, self.clock, self.config.scheduler)
        events = events_for(coordinator, repository)
        join(
            coordinator,
            repository,
            self.network,
            events,
            self.config,
            post_processors=(self._note_moves,),
        )
        while True:
            with contextlib.suppress(SokovanError):
                await repository.take_over()
                break
        self.network.disconnect()
        self.manager = Manager(database, repository, coordinator, events, self.clock.now())
        self.check(always=True)

    async def crash_manager(self) -> None:
        """End the manager without a word; only the store remains. Not from inside of it."""
        if self.manager is not None:
            self.note("the manager dies")
            self.counts["manager crashes"] += 1
            self.manager.database.is_dead = True
            self.manager = None
            await _end_other_tasks()

    async def kill_manager(self) -> None:
        """Have the manager die here and now, wherever it is, and come back after a while."""
        if self.manager is not None:
            raise ManagerDied

    def sink(self) -> AgentEventSink | None:
        """Return where agents' words go, or `None` while there is no manager."""
        return None if self.manager is None else self.manager.events

    def incarnation_of(self, agent_id: AgentId) -> int | None:
        """Return the last incarnation that the manager gave an agent."""
        if self.manager is None:
            return None
        agent = self.manager.repository.live.agents.get(agent_id)
        return None if agent is None else agent.incarnation

    # --- what users do ----------------------------------------------------------------------------

    async def submit(self, spec: SessionSpec, *scripts: Script) -> SessionId:
        """Submit a session whose kernels do as `scripts` say, the last one for all that follow.

        Raises:
            SokovanError: It was not accepted.
        """
        assert self.manager is not None
        for index in range(spec.kernel_count):
            if scripts:
                self.scripts[spec.name, index] = scripts[min(index, len(scripts) - 1)]
        (session_id,), applied = await self.manager.repository.submit([spec])
        self.manager.coordinator.tell(applied)
        self.accepted[session_id] = None
        return session_id

    async def cancel(self, session_id: SessionId, *, force: bool = False) -> None:
        """Ask for a session's end.

        Raises:
            SokovanError: The request was not recorded.
        """
        assert self.manager is not None
        applied = await self.manager.repository.request_termination(
            [session_id], force=force, detail="by its user"
        )
        self.manager.coordinator.tell(applied)
        self.cancelled[session_id] = None

    # --- the passage of time ----------------------------------------------------------------------

    def later(self, seconds: float, what: str, action: Callable[[], Awaitable[None]]) -> None:
        """Have something happen later; `what` is for the story."""
        self._planned += 1
        heapq.heappush(self._plan, (self.clock.now() + seconds, self._planned, what, action))

    def note(self, what: str) -> None:
        """Remember that something happened."""
        self._steps.append(f"{self.clock.now() - BEGINNING:12.3f}  {what}")

    def next_at(self) -> float:
        """Return when something will be due."""
        times = [self.network.due_at()]
        if self._plan:
            times.append(self._plan[0][0])
        if self.manager is not None:
            times.append(self.manager.coordinator.next_at())
        return min(times)

    async def run_until(self, is_enough: Callable[[], bool], *, seconds_max: float) -> bool:
        """Let time pass until something is so; return whether it came about."""
        end = self.clock.now() + seconds_max
        while not is_enough():
            if not await self._moment(end):
                return is_enough()
        return True

    async def run_for(self, seconds: float) -> None:
        """Let time pass."""
        await self.run_until(lambda: False, seconds_max=seconds)

    async def meanwhile(self, seconds: float) -> None:
        """Let everything else go on, from inside a call or a transaction that takes long."""
        if self._nested or self.manager is None:
            return
        self._nested = True
        try:
            end = self.clock.now() + seconds
            while not self._violations and await self._moment(end, may_end=False):
                pass
        finally:
            self._nested = False

    async def _moment(self, end: float, *, may_end: bool = True) -> bool:
        """Do all that is due at the next moment before `end`; return whether there was one."""
        now = self.clock.now()
        at = max(self.next_at(), now)
        if at >= end:
            self.clock.advance(max(end - now, 0.0))
            return False
        self.clock.advance(at - now)
        for _ in range(ROUNDS_PER_MOMENT_MAX):
            try:
                await self._round()
            except ManagerDied:
                if not may_end:
                    raise
                await self.crash_manager()
                down_s = self.rng(f"down-{self._lives}").uniform(*self.faults.manager_down_s)
                self.later(down_s, "", self.start_manager)
            if self._violations and may_end:
                raise InvariantViolatedError(self.story(self._violations))
            if self.next_at() > self.clock.now():
                return True
        self._violations.append("it goes round in circles, and time does not pass")
        return True

    async def _round(self) -> None:
        now = self.clock.now()
        while self._plan and self._plan[0][0] <= now:
            _, _, what, action = heapq.heappop(self._plan)
            if what:
                self.note(what)
            with contextlib.suppress(SokovanError):  # whoever sent it sends it again
                await action()
        await self.network.run_once()
        if self.manager is not None:
            await self.manager.coordinator.run_due()

    # --- the invariants ---------------------------------------------------------------------------

    def check(self, *, always: bool = False) -> None:
        """Look at the store and at the machines, and remember what is violated."""
        changes = self._total_changes()
        if changes == self._seen_changes and not always:
            return
        self._seen_changes = changes
        before = self.picture
        now = self._looker.write_now(lambda tx: self._observer.look(tx, whole=always))
        self.picture = now
        self.counts["pictures"] += 1
        self._given_up |= checks.given_up_tokens(now)
        running = list(self.running())
        found = checks.violations(now)
        for check in checks.STEP_CHECKS:
            found += check(before, now)
        found += checks.cancels_hold(now, [i for i in now.changed if i in self.cancelled])
        found += checks.what_runs_is_held(now, running)
        found += checks.kernels_run_once(running, self._given_up)
        found += checks.tokens_run_once(self.starts())
        if self.manager is not None:
            found += checks.the_shadow_is_true(now, self.manager.repository.live)
            if self.clock.now() - self.manager.since > OVERDUE_S:
                found += checks.nothing_is_overdue(now, self.clock.now(), OVERDUE_S)
        self._violations = self._violations or found

    def check_at_rest(self) -> list[str]:
        """Say what is wrong once faults have stopped for long enough."""
        assert self.manager is not None
        self.check(always=True)
        live = self.manager.repository.live
        return (
            self._violations
            + checks.every_accepted_session_is_there(self.picture, self.accepted)
            + checks.cancels_hold(self.picture, self.cancelled)
            + checks.everything_has_ended(self.picture, live.waits)
            + checks.results_are_true(self.picture, self._script_of)
        )

    def is_at_rest(self) -> bool:
        """Say whether nothing is left to be done."""
        return self.manager is not None and not checks.everything_has_ended(
            self.picture, self.manager.repository.live.waits
        )

    def running(self) -> Iterator[tuple[AgentId, str, KernelId]]:
        """Iterate over what runs on the machines."""
        for agent_id, runtime in self.runtimes.items():
            for token, kernel in runtime.kernels.items():
                if kernel.runs and kernel.end is None:
                    yield agent_id, token, kernel.order.kernel_id

    def starts(self) -> Counter[str]:
        """Return how often each token's command was run."""
        return Counter(token for runtime in self.runtimes.values() for token in runtime.started)

    def _script_of(self, session: SessionWithKernels, index: int) -> Script:
        return self.scripts.get((session.name, index), Script())

    def _total_changes(self) -> int:
        with self._engine.connect() as connection:
            changes: int = connection.connection.driver_connection.total_changes  # type: ignore[union-attr]
            return changes

    # --- the story --------------------------------------------------------------------------------

    def history(self, session_id: SessionId) -> Sequence[HistoryLine]:
        """Return the history of a session as it was last seen."""
        return self.picture.history.get(session_id, ())

    def digest(self) -> str:
        """Return a digest of all that the store remembers."""
        whole = hashlib.sha256()
        picture = self._looker.write_now(lambda tx: self._observer.look(tx, whole=True))
        for session in picture.sessions.values():
            whole.update(repr(session).encode())
            for line in picture.history.get(session.session_id, ()):
                whole.update(repr(line).encode())
        for part in (*picture.holds.values(), *picture.agents.values()):
            whole.update(repr(part).encode())
        return whole.hexdigest()

    def story(self, found: Sequence[str], *, steps_max: int = 60) -> str:
        """Tell what is violated, what became of the sessions concerned, and the last steps."""
        told = [f"seed {self.seed}: {len(found)} violations", *found]
        for session_id, session in self.picture.sessions.items():
            if any(session_id in sentence for sentence in found):
                told += ["", f"session {session_id}: {session}"]
                told += [_told(line) for line in self.history(session_id)]
        told += ["", f"the last {steps_max} steps:", *list(self._steps)[-steps_max:]]
        return "\n".join(told)

    def _note_moves(self, applied: Applied) -> None:
        for moved in applied.moved:
            self.counts["moves"] += 1
            self.note(f"{moved.session_id}: {moved.from_status} -> {moved.to_status}")


def _told(line: HistoryLine) -> str:
    who = f" {line.kernel_id}" if line.kernel_id else ""
    what = f"{line.from_status} -> {line.to_status}"
    return f"{line.at - BEGINNING:12.3f}  {line.status_seq:3d}{who} {what}: {line.reason} {line.detail}"


async def _end_other_tasks() -> None:
    """Have nothing of a dead manager go on."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the logs of manager and agents, which are full of expected trouble, to themselves."""
    before, level = structlog.get_config(), logging.root.manager.disable
    structlog.configure(processors=[_drop])
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        structlog.configure(**before)
        logging.disable(level)


def _drop(logger: object, method: str, event: object) -> NoReturn:
    raise structlog.DropEvent
