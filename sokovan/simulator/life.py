"""One life of a simulated manager: the real parts, joined as `manager.py` joins them."""

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from sqlalchemy import Engine

from sokovan.api.arrays import Arrays
from sokovan.api.edits import Edits
from sokovan.api.groups import Groups
from sokovan.api.notices import Notices
from sokovan.api.operations import Operations
from sokovan.clock import Clock, Origin
from sokovan.config import Config
from sokovan.domain.cluster import ScalingGroup
from sokovan.domain.errors import SokovanError
from sokovan.identity import IdSource
from sokovan.scheduler.coordinator import Coordinator
from sokovan.scheduler.events import AgentEvents
from sokovan.scheduler.moves import Applied
from sokovan.scheduler.ports import AgentGateway
from sokovan.scheduler.wiring import events_for, join
from sokovan.simulator.database import Disk, SimulatedDatabase
from sokovan.simulator.fate import Fate
from sokovan.store.news import News
from sokovan.store.repository import SqlRepository


class Around(Protocol):
    """The world around a manager."""

    engine: Engine
    """The store, which outlives every manager."""
    ids: IdSource
    disk: Disk
    groups: Mapping[str, ScalingGroup]
    config: Config

    def gateway(self) -> AgentGateway:
        """Return a new manager's way to the agents."""
        ...

    def note_moves(self, applied: Applied) -> None:
        """Remember what was moved."""
        ...

    def check(self) -> None:
        """Look at what was committed."""
        ...

    async def meanwhile(self, seconds: float) -> None:
        """Let everything else go on for a while."""
        ...

    async def stand_still(self, seconds: float) -> None:
        """Have another manager take over, and everything else go on for a while."""
        ...

    def tell_others(self, news: News, teller: object) -> None:
        """Tell the manager that drives now what another one has written."""
        ...

    def boundary(self, what: str) -> None:
        """Note that the manager may be killed here, and at what."""
        ...


class SteppedClock:
    """The clock of one process, made when its machine's clock was set wrong by so much."""

    def __init__(self, truth: Clock, offset_s: float, boot_id: str) -> None:
        self._truth = truth
        self.offset_s = offset_s
        self.origin = Origin(boot_id, offset_s)

    def now(self) -> float:
        """Return the time as this process has it."""
        return self._truth.now() + self.offset_s

    async def sleep(self, seconds: float) -> None:
        """Let time pass."""
        await self._truth.sleep(seconds)


@dataclass(slots=True)
class Manager:
    """One life of the manager process: all that is lost with it."""

    clock: SteppedClock
    database: SimulatedDatabase
    repository: SqlRepository
    coordinator: Coordinator
    events: AgentEvents
    operations: Operations
    """What users ask it."""
    arrays: Arrays
    """What users ask it about arrays."""
    edits: Edits
    groups: Groups
    since: float = 0.0
    """By its own clock."""

    @classmethod
    def new(cls, around: Around, clock: SteppedClock, fate: Fate, holder: str) -> "Manager":
        """Join the parts of a new process; it has not looked at its store yet."""
        database = SimulatedDatabase(
            around.engine,
            fate,
            committed=around.check,
            meanwhile=around.meanwhile,
            stand_still=around.stand_still,
            told=lambda news: around.tell_others(news, database),
            boundary=around.boundary,
            disk=around.disk,
        )
        repository = SqlRepository(database, clock, around.ids, around.groups, holder=holder)
        coordinator = Coordinator(repository, clock, around.config.scheduler)
        events, notices = events_for(coordinator, repository), Notices()
        heard = (around.note_moves, notices)
        gateway = around.gateway()
        join(coordinator, repository, gateway, events, around.config, post_processors=heard)
        operations = Operations(repository, database, gateway, clock, coordinator.tell, notices)
        arrays = Arrays(repository, database, clock, coordinator.tell, notices)
        edits = Edits(repository, database, clock, coordinator.tell)
        elsewhere = replace(around.config, agents=())  # the machines are not of the settings
        groups = Groups(repository, database, clock, coordinator.tell, elsewhere)
        return cls(
            clock, database, repository, coordinator, events, operations, arrays, edits, groups
        )

    async def take_over(self) -> None:
        """Become the one writer of the store, however often that is refused."""
        while True:
            with contextlib.suppress(SokovanError):
                await self.repository.take_over()
                break
        self.since = self.clock.now()


async def end_other_tasks() -> None:
    """Have nothing of a dead manager go on."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
