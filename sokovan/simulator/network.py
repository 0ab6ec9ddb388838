"""What lies between the manager and its agents: it loses, repeats, delays and reorders.

Agents are the real ones, in this process. What they say unasked travels as messages; what the
manager asks of them, as calls that may fail before or after they took effect.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol, TypeVar

from sokovan.agent.agent import Agent
from sokovan.clock import Clock
from sokovan.cluster.inprocess import InProcessHome, Place
from sokovan.domain.errors import AgentError
from sokovan.domain.sessions import AgentId
from sokovan.scheduler.messages import (
    KernelReport,
)
from sokovan.scheduler.ports import AgentEventSink
from sokovan.simulator.fate import Fate, ManagerDied
from sokovan.simulator.judge import Judge

T = TypeVar("T")

HELLO_AGAIN_S = 1.0
"""How long an agent waits for an answer to its hello before it says it again."""


class Surroundings(Protocol):
    """What the network asks of the world around it."""

    judge: Judge
    """Is told of what agents are asked, and of what they hear."""

    def later(self, seconds: float, what: str, action: Callable[[], Awaitable[None]]) -> None:
        """Have something happen later."""
        ...

    def note(self, what: str) -> None:
        """Remember that something happened, for the story of a failure."""
        ...

    async def meanwhile(self, seconds: float) -> None:
        """Let everything else go on for a while."""
        ...

    async def stand_still(self, seconds: float) -> None:
        """Have another manager take over, and everything else go on for a while."""
        ...

    def boundary(self, what: str) -> None:
        """Note that the manager may be killed here, and at what."""
        ...

    def sink(self) -> AgentEventSink | None:
        """Return the manager's ear, or `None` while there is no manager."""
        ...

    def incarnation_of(self, agent_id: AgentId) -> int | None:
        """Return the last incarnation that the manager gave an agent."""
        ...


@dataclass(frozen=True, slots=True)
class Letter:
    """What an agent says at one time."""

    agent: Agent
    incarnation: int
    reports: tuple[KernelReport, ...]
    tokens: tuple[str, ...] | None
    """With a heartbeat: what lives."""


class Network(InProcessHome):
    """The agents of a world, and the ways to and from them.

    Args:
        surroundings: The world.
        clock: Its time.
        fate: Decides what goes wrong.
        call_timeout_s: How long a caller waits for an answer that does not come.
    """

    def __init__(
        self,
        surroundings: Surroundings,
        clock: Clock,
        fate: Fate,
        *,
        call_timeout_s: float = 10.0,
    ) -> None:
        super().__init__(_NOBODY, clock)
        self.before_call: Callable[[AgentId, str], Awaitable[None]] = _nothing
        """Awaited before each call takes effect; a test may have it raise."""
        self.after_call: Callable[[AgentId, str], Awaitable[None]] = _nothing
        """Awaited before each call is answered; a test may have it raise."""
        self._world = surroundings
        self._fate = fate
        self._timeout_s = call_timeout_s
        self._hello_at: dict[AgentId, float] = {}
        self._work: dict[asyncio.Future[list[KernelReport]], Agent] = {}
        """What agents are in the middle of doing."""
        self.deaf: set[AgentId] = set()
        """The agents that nothing reaches; what they say arrives."""
        self.mute: set[AgentId] = set()
        """The agents that are not heard; what they are told and asked arrives."""

    @property
    def places(self) -> dict[AgentId, Place]:
        """The machines, by the id of their agent."""
        return self._places

    # --- what agents say ----------------------------------------------------------------------

    def due_at(self) -> float:
        """Return when a round has something to do next; it may be past."""
        is_heard = self._world.sink() is not None
        due_at = math.inf
        for agent_id, place in self._places.items():
            due_at = min(due_at, place.machine.due_at())
            if place.agent is None:
                continue
            due_at = min(due_at, place.timers.due_at())
            if is_heard and place.is_reachable:
                due_at = min(due_at, self._talks_at(agent_id, place, place.agent))
        return due_at

    def _talks_at(self, agent_id: AgentId, place: Place, agent: Agent) -> float:
        """Return when an agent has something to say to whoever hears it."""
        if place.incarnation is None:
            return self._hello_at.get(agent_id, 0.0)
        return 0.0 if agent.has_news() else place.beat_at

    async def _talk(self, place: Place, agent: Agent) -> None:
        agent_id, now = place.hello.agent_id, self._clock.now()
        if self._talks_at(agent_id, place, agent) > now or self._world.sink() is None:
            return
        if place.incarnation is None:
            self._hello_at[agent_id] = now + HELLO_AGAIN_S
            self._send(
                f"{agent_id} says hello", lambda: self._hello(place, agent), self.mute, agent_id
            )
            return
        beats = place.beat_at <= now
        reports = tuple(agent.unacknowledged() if beats else agent.news())
        if beats:
            place.beat_at = now + place.config.heartbeat_s
        elif not reports:
            return
        tokens = tuple(agent.live_tokens()) if beats else None
        letter = Letter(agent, place.incarnation, reports, tokens)
        what = f"{agent_id} says {_brief(reports)}" if reports else ""
        self._send(what, lambda: self._deliver(place, letter), self.mute, agent_id)

    async def _hello(self, place: Place, agent: Agent) -> None:
        sink = self._world.sink()
        if sink is None or not _is_there(place, agent):
            return
        incarnation = await sink.connected(place.hello)

        async def welcome() -> None:
            if _is_there(place, agent) and self._world.sink() is sink:
                place.incarnation, place.beat_at = incarnation, 0.0
                self._heard(place.hello.agent_id, agent)

        self._send("", welcome, self.deaf, place.hello.agent_id)

    async def _deliver(self, place: Place, letter: Letter) -> None:
        sink, agent_id = self._world.sink(), place.hello.agent_id
        if sink is None:
            return
        is_hung_up_on = False
        if letter.reports:
            await sink.reported(agent_id, letter.incarnation, letter.reports)
        if letter.tokens is not None:
            try:
                await sink.heartbeat(agent_id, letter.incarnation, letter.tokens)
            except AgentError:
                is_hung_up_on = True
        if is_hung_up_on or self._world.incarnation_of(agent_id) != letter.incarnation:
            if place.incarnation == letter.incarnation:
                place.incarnation = None  # it must introduce itself again
            return

        async def acknowledge() -> None:
            if _is_there(place, letter.agent) and place.incarnation == letter.incarnation:
                letter.agent.acknowledge(letter.reports)
                self._heard(agent_id, letter.agent)

        self._send("", acknowledge, self.deaf, agent_id)

    def _send(
        self,
        what: str,
        arrive: Callable[[], Awaitable[None]],
        lost_by: Collection[AgentId],
        agent_id: AgentId,
    ) -> None:
        """Have a message from or to an agent arrive: at once, late, twice, or never."""
        if agent_id in lost_by or self._fate.happens("message_lost"):
            self._world.note(f"{what or 'an acknowledgement'}: lost")
            return
        late_s = self._fate.seconds("delay_s") if self._fate.happens("message_delayed") else 0.0
        self._world.later(late_s, what, arrive)
        if self._fate.happens("message_repeated"):
            again_s = self._fate.seconds("delay_s")
            self._world.later(again_s, f"{what or 'an acknowledgement'}, again", arrive)

    # --- what managers ask ----------------------------------------------------------------------

    async def call(
        self, agent_id: AgentId, op: str, items: Sequence[Any], is_late: Callable[[], bool]
    ) -> list[KernelReport]:
        """Have an agent do something for a manager.

        Args:
            agent_id: The agent.
            op: What it is to do.
            items: With which kernels.
            is_late: Says whether another manager has come after the one that asks.
        """
        what = f"{op} {', '.join(_token(item) for item in items)} on {agent_id}"
        if self._fate.happens("call_breaks"):
            raise RuntimeError(f"{what}: broken on purpose")
        await self._perhaps_meanwhile()
        self._perhaps_die()
        if agent_id in self.deaf or self._fate.happens("call_lost"):
            await self._time_out(f"{what}: lost")
        if self._fate.happens("call_late"):
            self._again(agent_id, op, items, f"{what}, late")
            await self._time_out(f"{what}: late")
        if self._fate.happens("agent_dies_in_call"):
            await self._die_half_way(agent_id, op, items, what, is_late)
        await self.before_call(agent_id, op)
        answers = await self._do(agent_id, op, items, is_late)
        self._world.note(f"{what}: {_brief(answers)}")
        await self.after_call(agent_id, op)
        if self._fate.happens("call_repeated"):
            self._again(agent_id, op, items, f"{what}, again")
        self._perhaps_die()
        if agent_id in self.mute or self._fate.happens("answer_lost"):
            await self._time_out(f"{what}: answer lost")
        await self._perhaps_meanwhile()
        return answers

    def _perhaps_die(self) -> None:
        """Every await of the manager ends at an agent or in the store: here, and there, it dies."""
        self._world.boundary("manager_dies_in_call")
        if self._fate.happens("manager_dies_in_call"):
            raise ManagerDied

    async def _do(
        self, agent_id: AgentId, op: str, items: Sequence[Any], is_late: Callable[[], bool]
    ) -> list[KernelReport]:
        place = self._places.get(agent_id)
        # the connection to a manager is closed by the agent when the next one bids it welcome
        has_next = place is not None and place.incarnation is not None
        if place is None or has_next is is_late() or not place.is_reachable:
            raise AgentError(f"agent {agent_id} is not connected")
        agent = self._reached(agent_id)
        answers = await self._carry_out(agent, op, items)
        if answers is None:
            await self._time_out(f"{op} on {agent_id}: it has died meanwhile")
        if op == "stop":
            self._world.judge.note_stops(items)
        self._heard(agent_id, agent)
        return answers

    async def _carry_out(
        self, agent: Agent, op: str, items: Sequence[Any]
    ) -> list[KernelReport] | None:
        """Have an agent do something, and return its answer; `None` when it dies half-way."""
        if op == "start":
            self._world.judge.note_orders(items)
        work = asyncio.ensure_future(getattr(agent, op)(items))
        self._work[work] = agent
        await asyncio.wait([work])
        del self._work[work]
        return None if work.cancelled() else work.result()

    def crash(self, agent_id: AgentId) -> None:
        """End the agent without a word, in whatever it is doing; its kernels go on."""
        agent = self._places[agent_id].agent
        for work, worker in self._work.items():
            if worker is agent:
                work.cancel()
        super().crash(agent_id)

    def _heard(self, agent_id: AgentId, agent: Agent) -> None:
        self._world.judge.note_contact(agent_id)
        agent.heard()

    def restart(self, agent_id: AgentId) -> None:
        """Start an agent on a machine that has none."""
        self._world.judge.note_start(agent_id)
        super().restart(agent_id)

    def _again(self, agent_id: AgentId, op: str, items: Sequence[Any], what: str) -> None:
        async def arrive() -> None:
            place = self._places.get(agent_id)
            if place is not None and place.agent is not None and place.is_reachable:
                await self._carry_out(place.agent, op, items)

        self._world.later(self._fate.seconds("delay_s"), what, arrive)

    async def _die_half_way(
        self,
        agent_id: AgentId,
        op: str,
        items: Sequence[Any],
        what: str,
        is_late: Callable[[], bool],
    ) -> None:
        done = self._fate.rng.randint(0, len(items))
        await self._do(agent_id, op, items[:done], is_late)
        if agent_id in self._places and self._places[agent_id].agent is not None:
            self._world.note(f"{what}: the agent dies after {done}")
            self.crash(agent_id)
            down_s = self._fate.seconds("agent_down_s")
            self._world.later(down_s, f"{agent_id} is started", lambda: self.revive(agent_id))
        await self._time_out(f"{what}: no answer")

    async def revive(self, agent_id: AgentId) -> None:
        """Start an agent where there is none, if its machine is still there."""
        place = self._places.get(agent_id)
        if place is not None and place.agent is None:
            self.restart(agent_id)

    def remove(self, agent_id: AgentId) -> None:
        """Take a machine away for ever; its agent must have crashed."""
        assert self._places.pop(agent_id).agent is None, "it is still there"

    async def _time_out(self, what: str) -> NoReturn:
        self._world.note(what)
        await self._world.meanwhile(self._timeout_s)
        raise AgentError(f"no answer within {self._timeout_s:.0f} s")

    async def _perhaps_meanwhile(self) -> None:
        if self._fate.happens("call_slow"):
            await self._world.meanwhile(self._fate.seconds("call_slow_s"))
        if self._fate.happens("manager_stands_still"):
            await self._world.stand_still(self._fate.seconds("stand_still_s"))


async def _nothing(agent_id: AgentId, op: str) -> None:
    """What happens in the middle of a call, usually."""


class _Nobody:
    """The agents' words go through `_talk`; nothing comes here."""

    async def connected(self, hello: Any) -> int:
        raise NotImplementedError

    async def heartbeat(self, agent_id: Any, incarnation: int, tokens: Any) -> None:
        raise NotImplementedError

    async def reported(self, agent_id: Any, incarnation: int, reports: Any) -> None:
        raise NotImplementedError


_NOBODY = _Nobody()


def _is_there(place: Place, agent: Agent) -> bool:
    return place.agent is agent and place.is_reachable


def _brief(reports: Sequence[KernelReport]) -> str:
    return ", ".join(
        f"{report.token} {report.state}"
        + (f" {report.exit_code}" if report.exit_code is not None else "")
        for report in reports
    )


def _token(item: Any) -> str:
    return item if isinstance(item, str) else str(item.token)
