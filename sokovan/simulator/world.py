"""A world: the real manager parts, the real agents and all between them, on a virtual clock.

The twin of `manager.py`: the other place where real things are joined. Time goes from one moment at
which something is due to the next; the invariants are checked after every transaction.
"""

import asyncio
import contextlib
import heapq
import logging
import random
from collections import Counter
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
from sokovan.domain.sessions import AgentId, SessionId, SessionSpec, SessionWithKernels
from sokovan.identity import IdSource
from sokovan.scheduler.coordinator import Coordinator
from sokovan.scheduler.events import AgentEvents
from sokovan.scheduler.messages import AgentHello, KernelToStart
from sokovan.scheduler.moves import Applied
from sokovan.scheduler.ports import AgentEventSink
from sokovan.scheduler.wiring import events_for, join
from sokovan.simulator.database import ManagerDied, SimulatedDatabase
from sokovan.simulator.faults import NO_FAULTS, Faults
from sokovan.simulator.judge import InvariantViolatedError, Judge
from sokovan.simulator.network import Network
from sokovan.simulator.runtime import FakeRuntime, Script
from sokovan.simulator.witness import everything_has_ended
from sokovan.store.engine import open_sqlite
from sokovan.store.repository import SqlRepository
from sokovan.store.schema import prepare

BEGINNING = 1_000_000_000.0
CUT_OFF_MARGIN_S = 30.0
"""So much before its grace is over, an agent that is cut off stops what will be requeued."""
ROUNDS_PER_MOMENT_MAX = 500
"""More rounds than this at one moment, and something goes round in circles."""


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
        self.runtimes: dict[AgentId, FakeRuntime] = {}
        self.scripts: dict[tuple[str, int], Script] = {}
        """What kernels do, by the name of their session and their index."""
        self.counts: Counter[str] = Counter()
        self._ids = IdSource(self.rng("ids"))
        self._engine = open_sqlite(None, self.config.store)
        prepare(self._engine)
        self.judge = Judge(self._engine, self.groups, self.runtimes, f"seed {seed}")
        self._plan: list[tuple[float, int, str, Callable[[], Awaitable[None]]]] = []
        self._planned = 0
        self._lives = 0
        self._is_nested = False
        self.network = Network(
            self,
            self.clock,
            self.rng("network"),
            faults,
            call_timeout_s=self.config.scheduler.agent_call_timeout_s,
        )
        for index, machine in enumerate(machines):
            self._add_machine(index, machine)

    @staticmethod
    def chance(seed: object, purpose: str) -> random.Random:
        """Return a source of chance of its own, so that a draw here changes nothing there."""
        return random.Random(f"{seed}/{purpose}")

    def rng(self, purpose: str) -> random.Random:
        """Return the source of chance that this world has for a purpose."""
        return self.chance(self.seed, purpose)

    def change_faults(self, faults: Faults) -> None:
        """Change what goes wrong from now on; what is under way still arrives."""
        self.faults = self.network.faults = faults
        if self.manager is not None:
            self.manager.database.faults = faults

    def _add_machine(self, index: int, capacity: Capacity) -> None:
        agent_id = AgentId(f"agent-{index}")
        group = tuple(self.groups.values())[index % len(self.groups)]
        timers = Timers(self.clock)
        runtime = FakeRuntime(self.clock, timers, capacity, self._script)
        self.runtimes[agent_id] = runtime
        self.network.add(
            AgentHello(agent_id, f"agent-{index}", capacity, scaling_group=group.name),
            runtime,
            machine=timers,
            config=AgentConfig(
                name=f"agent-{index}",
                scaling_group=group.name,
                cut_off_stop_s=group.agent_grace_s - CUT_OFF_MARGIN_S,
            ),
        )

    def _script(self, order: KernelToStart) -> Script:
        return self.scripts.get((order.name, order.index), Script())

    # --- the manager ------------------------------------------------------------------------------

    async def start_manager(self) -> None:
        """Begin a life of the manager on the store as it is."""
        if self.manager is not None:
            return
        self._lives += 1
        self.note(f"the manager begins life {self._lives}")
        database = SimulatedDatabase(
            self._engine,
            self.rng(f"database-{self._lives}"),
            self.faults,
            self.counts,
            committed=self.check,
            meanwhile=self.meanwhile,
        )
        holder = f"life-{self._lives}"
        repository = SqlRepository(database, self.clock, self._ids, self.groups, holder=holder)
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
        await _until_done(repository.take_over)
        self.network.disconnect()
        self.manager = Manager(database, repository, coordinator, events, self.clock.now())

    async def crash_manager(self) -> None:
        """End the manager without a word; only the store remains. Not from inside of it."""
        if self.manager is not None:
            self.note("the manager dies")
            self.counts["manager_crashes"] += 1
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
        self.judge.accepted[session_id] = None
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
        self.judge.cancelled[session_id] = None

    async def release(self, session_id: SessionId) -> None:
        """Release a session that was held back.

        Raises:
            SokovanError: The request was not recorded.
        """
        assert self.manager is not None
        applied = await self.manager.repository.set_held(session_id, held=False)
        if applied is not None:  # it still waits
            self.manager.coordinator.tell(applied)

    # --- the passage of time ----------------------------------------------------------------------

    def later(self, seconds: float, what: str, action: Callable[[], Awaitable[None]]) -> None:
        """Have something happen later; `what` is for the story."""
        self._planned += 1
        heapq.heappush(self._plan, (self.clock.now() + seconds, self._planned, what, action))

    def note(self, what: str) -> None:
        """Remember that something happened, for the story of a failure."""
        self.judge.note(self.clock.now() - BEGINNING, what)

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
        if self._is_nested or self.manager is None:
            return
        self._is_nested = True
        try:
            end = self.clock.now() + seconds
            while not self.judge.violations and await self._moment(end, is_nested=True):
                pass
        finally:
            self._is_nested = False

    async def _moment(self, end: float, *, is_nested: bool = False) -> bool:
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
                if is_nested:
                    raise  # up through the manager's own calls, as far as where it was run from
                await self.crash_manager()
                down_s = self.rng(f"down-{self._lives}").uniform(*self.faults.manager_down_s)
                self.later(down_s, "", self.start_manager)
            if self.judge.violations and not is_nested:
                raise InvariantViolatedError(self.story(self.judge.violations))
            if self.next_at() > self.clock.now():
                return True
        self.judge.violations.append("it goes round in circles, and time does not pass")
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

    def check(self) -> None:
        """Hold everything against the invariants, if the store has changed."""
        if self.manager is None:
            self.judge.look(None, self.clock.now(), watched_since=None)
        else:
            live, since = self.manager.repository.live, self.manager.since
            self.judge.look(live, self.clock.now(), watched_since=since)

    def check_at_rest(self) -> list[str]:
        """Say what is wrong once nothing has gone wrong for long enough."""
        assert self.manager is not None
        return self.judge.look_at_rest(self.manager.repository.live, self._script_of)

    def is_at_rest(self) -> bool:
        """Say whether nothing is left to be done."""
        return self.manager is not None and not everything_has_ended(
            self.judge.picture, self.manager.repository.live.waits
        )

    def story(self, found: Sequence[str]) -> str:
        """Tell what is violated, and how it came about."""
        return self.judge.story(found, BEGINNING)

    def _script_of(self, session: SessionWithKernels, index: int) -> Script:
        return self.scripts.get((session.name, index), Script())

    def _note_moves(self, applied: Applied) -> None:
        for moved in applied.moved:
            self.judge.moves += 1
            self.note(f"{moved.session_id}: {moved.from_status} -> {moved.to_status}")


async def _until_done(action: Callable[[], Awaitable[None]]) -> None:
    """Do something, and again until nothing refuses it."""
    while True:
        with contextlib.suppress(SokovanError):
            await action()
            return


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
