"""A world: the real manager parts, the real agents and all between them, on a virtual clock.

The twin of `manager.py`: the other place where real things are joined. Time goes from one moment at
which something is due to the next; the invariants are checked after every transaction.
"""

import contextlib
import heapq
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence

from sokovan.api.operations import Operations
from sokovan.clock import ManualClock
from sokovan.config import Config
from sokovan.domain.cluster import ScalingGroup
from sokovan.domain.errors import IllegalStateError, SokovanError
from sokovan.domain.resources import Capacity
from sokovan.domain.sessions import AgentId, SessionId, SessionSpec, SessionWithKernels
from sokovan.identity import IdSource
from sokovan.scheduler.messages import KernelToPrepare, KernelToStart
from sokovan.scheduler.moves import Applied, Moved
from sokovan.scheduler.ports import AgentEventSink, AgentGateway
from sokovan.simulator.database import Disk
from sokovan.simulator.fate import Fate, ManagerDied, StepReached, chance
from sokovan.simulator.faults import NO_FAULTS, Faults
from sokovan.simulator.judge import InvariantViolatedError, Judge
from sokovan.simulator.life import Manager, SteppedClock, end_other_tasks
from sokovan.simulator.line import Line
from sokovan.simulator.machine import hello_of, new_machine
from sokovan.simulator.network import Network
from sokovan.simulator.runtime import FakeRuntime, Script
from sokovan.simulator.succession import Succession
from sokovan.simulator.witness import everything_has_ended
from sokovan.simulator.workload import ROOT
from sokovan.store.news import News
from sokovan.store.schema import prepare
from sokovan.store.sqlite import open_sqlite

BEGINNING = 1_000_000_000.0
START_AGAIN_S = 5.0
"""How long after a start of the manager that failed it is started again."""
ROUNDS_PER_MOMENT_MAX = 500
"""More rounds than this at one moment, and something goes round in circles."""


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
        self.on_moves: Callable[[Sequence[Moved]], None] = lambda _: None
        """Called with what was moved, as soon as it is known."""
        self.counts: Counter[str] = Counter()
        """What went wrong, and how often."""
        self.clock_off_s = 0.0
        """How wrong the clock of the manager's machine is; the next manager goes by it."""
        self.steps = 0
        """How much has been noted."""
        self.until_step: int | None = None
        """Stop before this one."""
        self.boundaries: list[str] = []
        """The moments so far at which the manager may be killed, each by its fault."""
        self.dies_at: int | None = None
        """Kill it at this one of them."""
        self.ids = IdSource(self.rng("ids"))
        self.engine = open_sqlite(None, self.config.store)
        prepare(self.engine)
        self._succession = Succession(self.engine)
        self.judge = Judge(
            self.engine,
            self.groups,
            self.runtimes,
            clock=self.clock,
            script_of=self._script_of,
            silence_s=self.config.scheduler.agent_silence_s,
            title=f"seed {seed}",
        )
        self._plan: list[tuple[float, int, str, Callable[[], Awaitable[None]]]] = []
        self._planned = 0
        self._lives = 0
        self.disk = Disk()
        self._boots = 0
        self._is_nested = False
        self.network = Network(
            self,
            self.clock,
            self.fate("network"),
            call_timeout_s=self.config.scheduler.agent_call_timeout_s,
        )
        for index, machine in enumerate(machines):
            group = tuple(self.groups)[index % len(self.groups)]
            self.add_machine(AgentId(f"agent-{index}"), machine, group)

    def rng(self, purpose: str) -> random.Random:
        """Return the source of chance that this world has for a purpose."""
        return chance(self.seed, purpose)

    def set_clock(self, step_s: float, *, reboots: bool = False) -> None:
        """Set the clock of the manager's machine; who runs now does not see it.

        When that machine `reboots`, nobody can tell by how much the clock was set.
        """
        self._boots += reboots
        self.clock_off_s += step_s
        self.judge.clock_is_steady &= step_s >= 0

    def fate(self, purpose: str) -> Fate:
        """Return what decides on the faults of one part of this world."""
        return Fate(self.rng(purpose), lambda: self.faults, self.counts)

    def add_machine(
        self, agent_id: AgentId, capacity: Capacity, scaling_group: str, address: str = ""
    ) -> None:
        """Add a machine with its agent."""
        hello = hello_of(agent_id, capacity, scaling_group, address)
        grace_s = self.groups[scaling_group].agent_grace_s
        made = new_machine(self.clock, hello, grace_s, self._script_for)
        self.runtimes[agent_id] = made.runtime
        self.judge.contact.cut_off_stop_s[agent_id] = made.config.cut_off_stop_s
        self.network.add(hello, made.runtime, machine=made.timers, config=made.config)

    def _script_for(self, order: KernelToPrepare | KernelToStart) -> Script:
        session_id, _, index = order.kernel_id.rpartition(".")
        session = self.judge.picture.sessions[SessionId(session_id)]
        return self.scripts.get((session.name, int(index)), Script())

    # --- the manager ------------------------------------------------------------------------------

    async def start_manager(self) -> None:
        """Begin a life of the manager on the store as it is."""
        if self.manager is not None:
            return
        if self.disk.is_full:  # it cannot take over, says so, and ends
            self.later(START_AGAIN_S, "", self.start_manager)
            return
        self._lives += 1
        self.note(f"the manager begins life {self._lives}")
        manager = Manager.new(
            self,
            SteppedClock(self.clock, self.clock_off_s, f"boot-{self._boots}"),
            self.fate(f"database-{self._lives}"),
            holder=f"life-{self._lives}",
        )
        await manager.take_over()
        self.judge.begin_life(self.clock_off_s)
        self.network.disconnect()
        self.manager = manager

    async def stand_still(self, seconds: float) -> None:
        """Have the manager stop where it is, and go on later; another one takes over meanwhile."""
        if self._is_nested or self.manager is None:
            return
        self.note("the manager stands still")
        stopped, self.manager = self.manager, None
        await self.start_manager()
        await self.meanwhile(seconds)
        self.note("the manager that stood still goes on")
        self._succession.add(stopped)

    def tell_others(self, news: News, teller: object) -> None:
        """Tell the manager that drives now what another one has written."""
        self._succession.tell(self.manager, news, teller)

    async def crash_manager(self) -> None:
        """End the manager without a word; only the store remains. Not from inside of it."""
        self.note("the manager dies")
        self.counts["manager_crashes"] += 1
        self._succession.forget()
        if self.manager is not None:
            self.manager.database.is_dead = True
            self.manager = None
        await end_other_tasks()

    async def kill_manager(self) -> None:
        """Have the manager die here and now, wherever it is, and come back after a while."""
        if self.manager is not None:
            raise ManagerDied

    def boundary(self, what: str) -> None:
        """Note that the manager may be killed here, and at what.

        Raises:
            ManagerDied: It is.
        """
        self.boundaries.append(what)
        if len(self.boundaries) == self.dies_at:
            self.note("the manager is killed")
            if self.manager is not None:
                self.manager.database.is_dead = True
            raise ManagerDied

    def sink(self) -> AgentEventSink | None:
        """Return where agents' words go, or `None` while there is no manager."""
        if self.manager is None:
            return None
        return self.judge.listening(self.manager.events, self.clock.now)

    def incarnation_of(self, agent_id: AgentId) -> int | None:
        """Return the last incarnation that the manager gave an agent."""
        agents = {} if self.manager is None else self.manager.repository.live.agents
        return agents[agent_id].incarnation if agent_id in agents else None

    # --- what users do ----------------------------------------------------------------------------

    async def submit(self, spec: SessionSpec, *scripts: Script) -> SessionId:
        """Submit a session whose kernels do as `scripts` say, the last one for all that follow.

        Raises:
            SokovanError: It was not accepted.
        """
        for index in range(spec.kernel_count if scripts else 0):
            self.scripts[spec.name, index] = scripts[min(index, len(scripts) - 1)]
        self.judge.asked[spec.name] = spec
        session_id = SessionId((await self.operations.submit([spec], caller=ROOT))[0]["id"])
        self.judge.accept(session_id, spec)
        return session_id

    async def cancel(self, session_id: SessionId, *, force: bool = False) -> None:
        """Ask for a session's end.

        Raises:
            SokovanError: The request was not recorded.
        """
        self.judge.may_be_cancelled.add(session_id)
        await self.operations.cancel(session_id, caller=ROOT, force=force)
        self.judge.cancelled[session_id] = None
        if force:
            self.judge.contact.forced[session_id] = None

    async def release(self, session_id: SessionId) -> None:
        """Release a session that was held back.

        Raises:
            SokovanError: The request was not recorded.
        """
        with contextlib.suppress(IllegalStateError):  # it does not wait any more
            await self.operations.set_held(session_id, caller=ROOT, held=False)

    def gateway(self) -> AgentGateway:
        """Return the way to the agents that the manager of this life has."""
        life = self._lives
        return Line(self.network, lambda: life != self._lives)

    @property
    def operations(self) -> Operations:
        """The manager, as users see it.

        Raises:
            SokovanError: There is none at present.
        """
        if self.manager is None:
            raise SokovanError("there is no manager")
        return self.manager.operations

    # --- the passage of time ----------------------------------------------------------------------

    def later(self, seconds: float, what: str, action: Callable[[], Awaitable[None]]) -> None:
        """Have something happen later; `what` is for the story."""
        self._planned += 1
        heapq.heappush(self._plan, (self.clock.now() + seconds, self._planned, what, action))

    def note(self, what: str) -> None:
        """Remember that something happened, for the story of a failure."""
        self.steps += 1
        if self.steps == self.until_step:
            raise StepReached
        self.judge.note(self.steps, self.clock.now() - BEGINNING, what)

    def next_at(self) -> float:
        """Return when something will be due."""
        times = [self.network.due_at(), *(at for at, *_ in self._plan[:1])]
        times += self._succession.due_at()
        if self.manager is not None:
            manager = self.manager
            times.append(manager.coordinator.next_at() - manager.clock.offset_s)
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
        at = max(self.next_at(), now := self.clock.now())
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
                down_s = self.fate(f"down-{self._lives}").seconds("manager_down_s")
                self.later(down_s, "", self.start_manager)
            if self.judge.violations and not is_nested:
                raise InvariantViolatedError(self.story(self.judge.violations))
            if self.clock.now() > at or self.next_at() > at:
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
        await self._succession.run_due()
        if self.manager is not None:
            await self.manager.coordinator.run_due()

    # --- the invariants ---------------------------------------------------------------------------

    def check(self) -> None:
        """Hold everything against the invariants, if the store has changed."""
        manager = self.manager
        if manager is None:
            self.judge.look(None, self.clock.now(), watched_since=None)
        else:
            live = None if manager.repository.is_in_doubt else manager.repository.live
            since = max(manager.since, self.disk.written_since + manager.clock.offset_s)
            self.judge.look(live, manager.clock.now(), watched_since=since)
            if live is not None:
                self.judge.look_at_cursors(manager.repository.groups)

    def check_at_rest(self) -> list[str]:
        """Say what is wrong once nothing has gone wrong for long enough."""
        assert self.manager is not None
        return self.judge.look_at_rest(self.manager.repository.live, self._script_of)

    def is_at_rest(self) -> bool:
        """Say whether nothing is left to be done."""
        return self.manager is not None and not everything_has_ended(
            self.judge.picture, self.manager.repository.live.waits
        )

    def story(self, found: Sequence[str], *, everything: bool = False) -> str:
        """Tell what is violated, and how it came about."""
        return self.judge.story(found, BEGINNING, everything=everything)

    def _script_of(self, session: SessionWithKernels, index: int) -> Script:
        return self.scripts.get((session.name, index), Script())

    def note_moves(self, applied: Applied) -> None:
        """Remember what was moved, for the story."""
        self.judge.moves += len(applied.moved)
        for moved in applied.moved:
            self.note(f"{moved.session_id}: {moved.from_status} -> {moved.to_status}")
        self.on_moves(applied.moved)
