"""A cancel wins over whatever stage is at work on its session, whenever it comes."""

from collections.abc import Awaitable, Callable

import pytest

from sokovan.domain.reasons import EndReason
from sokovan.domain.resources import Request
from sokovan.domain.sessions import SessionId, SessionSpec
from sokovan.domain.statuses import SessionStatus
from sokovan.scheduler.handlers.base import LifecycleHandler
from sokovan.scheduler.stages import STAGES, Stage
from sokovan.simulator.runtime import Script
from sokovan.simulator.world import World
from tests.simulation.drill import a_spec, a_world, session, to_the_end

S = SessionStatus
LONG = Script(seconds=300, ignores_term=True)
SUBMITTED: dict[str, tuple[SessionSpec, Script]] = {
    "check-precondition": (a_spec(), LONG),
    "schedule-sessions": (a_spec(), LONG),
    "start-sessions": (a_spec(kernel_count=2), LONG),
    "terminate-sessions": (a_spec(walltime_s=5.0), LONG),
    "deprioritize-sessions": (a_spec(request=Request(10**6)), LONG),
    "sweep-sessions": (a_spec(request=Request(10**6), pending_timeout_s=100.0), LONG),
    "enforce-walltime": (a_spec(walltime_s=100.0), LONG),
    "sweep-stale-kernels": (a_spec(), LONG),
}
"""What to submit so that a stage has work at it."""
ENDED_FOR = {
    "terminate-sessions": dict.fromkeys(
        ("before the load", "in the act", "after the act", "after the save"),
        EndReason.WALLTIME_EXCEEDED,
    ),
    "sweep-sessions": {"after the save": EndReason.PENDING_TIMEOUT_EXCEEDED},
    "enforce-walltime": {"after the save": EndReason.WALLTIME_EXCEEDED},
}
"""Where the session had begun to end before its user asked for it: the first reason stays."""
MOMENTS = ("before the load", "in the act", "after the act", "after the save")


def has_work(world: World, stage: Stage, session_id: SessionId) -> bool:
    """Say whether this run of the stage does something about the session."""
    now = session(world, session_id)
    assert world.manager is not None
    if stage.name == "sweep-sessions":
        return now.status is S.PENDING and world.clock.now() >= now.pending_since + 100
    if stage.name == "enforce-walltime":
        return now.status is S.RUNNING and world.clock.now() >= now.started_at + 100
    return now.status in stage.takes


class Race:
    """Has something happen once, at one moment of a stage's run."""

    def __init__(
        self, world: World, stage: Stage, moment: str, action: Callable[[], Awaitable[None]]
    ) -> None:
        self._world = world
        self._stage = stage
        self._moment = moment
        self._action = action
        self.is_over = False
        assert world.manager is not None
        self._coordinator = world.manager.coordinator
        self._run_stage = self._coordinator.run_stage
        self._coordinator.run_stage = self.run_stage

    async def run_stage(self, handler: LifecycleHandler, scaling_group: str):
        session_id = next(iter(self._world.judge.accepted), None)
        if (
            self.is_over
            or session_id is None
            or handler.stage is not self._stage
            or not has_work(self._world, self._stage, session_id)
        ):
            return await self._run_stage(handler, scaling_group)
        self.is_over = True
        if self._moment == "before the load":
            await self._action()
        applied = await self._run_stage(_Racing(handler, self), scaling_group)
        if self._moment == "after the save":
            await self._action()
        return applied

    async def at(self, moment: str) -> None:
        if moment == self._moment:
            await self._action()


class _Racing:
    """A handler in whose act something happens."""

    def __init__(self, handler: LifecycleHandler, race: Race) -> None:
        self.stage = handler.stage
        self._handler = handler
        self._race = race

    async def execute(self, scaling_group, sessions):
        await self._race.at("in the act")
        report = await self._handler.execute(scaling_group, sessions)
        await self._race.at("after the act")
        return report


@pytest.mark.parametrize("force", [False, True], ids=["politely", "by force"])
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
async def test_a_cancel_wins_over_a_stage(stage, moment, force):
    world = await a_world()
    spec, script = SUBMITTED[stage.name]

    async def cancel() -> None:
        await world.cancel(next(iter(world.judge.accepted)), force=force)

    race = Race(world, stage, moment, cancel)
    session_id = await world.submit(spec, script)
    assert await world.run_until(lambda: race.is_over, seconds_max=600), "the stage had its work"
    await to_the_end(world)

    ended = session(world, session_id)
    expected = ENDED_FOR.get(stage.name, {}).get(moment, EndReason.USER_REQUESTED)
    assert (ended.status.is_final, ended.reason) == (True, expected)
    assert max(world.judge.starts().values(), default=1) == 1
