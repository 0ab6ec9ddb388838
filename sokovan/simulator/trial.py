"""One trial: a world, a workload and faults from one seed; run to the end, then judged."""

import asyncio
import random
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from sokovan.domain.cluster import AgentRanking, ScalingGroup
from sokovan.domain.errors import SokovanError
from sokovan.domain.sessions import Limit, SessionId
from sokovan.simulator.faults import NO_FAULTS, ROUGH, Faults
from sokovan.simulator.judge import InvariantViolatedError
from sokovan.simulator.workload import Wish, machines, wishes
from sokovan.simulator.world import World, quiet

SUBMITTING = 0.6
"""Part of a trial in which users submit."""
FAULTY = 0.8
"""Part of a trial in which things go wrong."""
REST_S_MAX = 6 * 3600.0
"""Once faults have stopped, everything that can run must be over within so long.

The queue has to be worked off, and a phase may last 900 seconds before it expires.
"""
LOOK_EVERY_S = 60.0
IMPATIENT = {
    "check-precondition": Limit(attempts_max=3, phase_s_max=20.0),
    "start-sessions": Limit(attempts_max=2, phase_s_max=12.0),
    "terminate-sessions": Limit(phase_s_max=60.0),
}
"""Limits that are reached often."""
AGAIN_S = 5.0
"""How long a user waits before asking again for what was not answered."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a trial."""

    seed: object
    counts: Counter[str]
    """Sessions by how they ended, moves, checks."""
    faults: Counter[str]
    """What went wrong, and how often."""
    digest: str
    rest_s: float
    """How long after the last fault everything was over."""
    violation: str = ""
    """The story of what went wrong; empty when nothing did."""


class Trial:
    """A random run of a world.

    Args:
        seed: Decides everything.
        hours: How long users submit, things go wrong, and all calms down.
        agents: How many.
        sessions: How many are submitted.
        faults: What goes wrong.
    """

    def __init__(
        self,
        seed: object,
        *,
        hours: float = 6.0,
        agents: int = 5,
        sessions: int = 500,
        faults: Faults = ROUGH,
    ) -> None:
        self._length_s = hours * 3600
        self._faults = faults
        self.world = World(
            seed,
            machines=machines(World.chance(seed, "machines"), agents),
            groups=_groups(World.chance(seed, "groups"), agents),
            faults=faults,
        )
        self._rng = self.world.rng("faults")
        self._ids: dict[str, SessionId] = {}
        self._wishes = wishes(
            self.world.rng("workload"),
            sessions,
            self._length_s * SUBMITTING,
            tuple(self.world.groups),
        )

    def run(self) -> Outcome:
        """Run to the end; never raises for what it is there to find."""
        with quiet():
            return asyncio.run(self._run())

    async def _run(self) -> Outcome:
        world = self.world
        violation, rest_s = "", 0.0
        try:
            world.later(0.0, "", world.start_manager)
            for wish in self._wishes:
                self._plan_wish(wish)
            self._plan_faults()
            await world.run_for(self._length_s * FAULTY)
            await self._make_peace()
            await world.run_for(self._length_s * (1 - FAULTY))
            rest_s = await self._come_to_rest()
            found = world.check_at_rest()
            if found:
                violation = world.story(found)
        except InvariantViolatedError as error:
            violation = str(error)
        except Exception:  # noqa: BLE001 - whatever breaks where nobody catches it is a finding
            violation = world.story([traceback.format_exc()])
        return Outcome(
            world.seed, self._counts(), world.counts, world.judge.digest(), rest_s, violation
        )

    async def _come_to_rest(self) -> float:
        began = self.world.clock.now()
        while not self.world.is_at_rest() and self.world.clock.now() - began < REST_S_MAX:
            await self.world.run_for(LOOK_EVERY_S)
        return self.world.clock.now() - began

    # --- users --------------------------------------------------------------------------------

    def _plan_wish(self, wish: Wish) -> None:
        world, name = self.world, wish.spec.name
        world.later(wish.at, "", lambda: self._submit(wish))
        if wish.release_at is not None:
            world.later(wish.release_at, "", lambda: self._ask(name, world.release))
        if wish.cancel_at is not None:
            cancel = partial(world.cancel, force=wish.force)
            world.later(wish.cancel_at, "", lambda: self._ask(name, cancel))

    async def _submit(self, wish: Wish) -> None:
        """Submit, and again until it is answered: its creation id makes it one session."""
        spec, world = wish.spec, self.world
        try:
            if world.manager is None or any(d.session_id not in self._ids for d in spec.depends_on):
                raise SokovanError("not yet")
            if wish.begin_after_s is not None and spec.begin_at is None:
                wish = replace(
                    wish, spec=replace(spec, begin_at=world.clock.now() + wish.begin_after_s)
                )
            depends_on = tuple(
                replace(d, session_id=self._ids[d.session_id]) for d in spec.depends_on
            )
            self._ids[spec.name] = await world.submit(
                replace(wish.spec, depends_on=depends_on), *wish.scripts
            )
        except SokovanError:
            world.later(AGAIN_S, "", lambda: self._submit(wish))
        except BaseException:  # the manager died: it may have been accepted
            world.later(AGAIN_S, "", lambda: self._submit(wish))
            raise

    async def _ask(self, name: str, ask: Callable[[SessionId], Awaitable[None]]) -> None:
        """Ask something of a session, and again until it is answered."""
        try:
            if self.world.manager is None or name not in self._ids:
                raise SokovanError("not yet")
            await ask(self._ids[name])
        except SokovanError:
            self.world.later(AGAIN_S, "", lambda: self._ask(name, ask))
        except BaseException:  # the manager died: it may have been recorded
            self.world.later(AGAIN_S, "", lambda: self._ask(name, ask))
            raise

    # --- faults -------------------------------------------------------------------------------

    def _plan_faults(self) -> None:
        faults, network = self._faults, self.world.network
        for at in self._moments(faults.manager_crashes_per_hour):
            self.world.later(at, "", self.world.kill_manager)
        for agent_id in network.places:
            for at in self._moments(faults.agent_crashes_per_hour / len(network.places)):
                self.world.later(at, "", self._agent_crash(agent_id, reboots=False))
            for at in self._moments(faults.reboots_per_hour / len(network.places)):
                self.world.later(at, "", self._agent_crash(agent_id, reboots=True))
            for at in self._moments(faults.agent_cuts_per_hour / len(network.places)):
                self.world.later(at, "", self._cut(agent_id))

    def _moments(self, per_hour: float) -> list[float]:
        found = []
        at = 0.0
        while per_hour > 0:
            at += self._rng.expovariate(per_hour / 3600)
            if at >= self._length_s * FAULTY:
                break
            found.append(at)
        return found

    def _agent_crash(self, agent_id: Any, *, reboots: bool) -> Any:
        down_s = self._rng.uniform(*self._faults.agent_down_s)

        async def crash() -> None:
            world = self.world
            if world.network.places[agent_id].agent is None:
                return
            world.counts["reboots" if reboots else "agent_crashes"] += 1
            world.note(f"{agent_id} {'reboots' if reboots else 'crashes'} for {down_s:.1f} s")
            world.network.crash(agent_id)
            if reboots:
                world.runtimes[agent_id].reboot()
            world.later(down_s, f"{agent_id} is started", lambda: world.network.revive(agent_id))

        return crash

    def _cut(self, agent_id: Any) -> Any:
        cut_s = self._rng.uniform(*self._faults.agent_cut_s)

        async def mend() -> None:
            self.world.network.mend(agent_id)

        async def cut() -> None:
            if not self.world.network.places[agent_id].is_reachable:
                return
            self.world.counts["agent_cuts"] += 1
            self.world.note(f"{agent_id} is cut off for {cut_s:.1f} s")
            self.world.network.cut_off(agent_id)
            self.world.later(cut_s, f"{agent_id} can be reached again", mend)

        return cut

    async def _make_peace(self) -> None:
        """From now on nothing goes wrong any more."""
        world = self.world
        world.note("from here on, nothing goes wrong")
        world.change_faults(NO_FAULTS)
        await world.start_manager()
        for agent_id, place in world.network.places.items():
            await world.network.revive(agent_id)
            if not place.is_reachable:
                world.network.mend(agent_id)

    def _counts(self) -> Counter[str]:
        judge = self.world.judge
        counts: Counter[str] = Counter(moves=judge.moves, checks=judge.pictures)
        counts["sessions"] = len(judge.accepted)
        for session in judge.picture.sessions.values():
            over = session.status.is_final
            counts[f"ended {session.reason}" if over else f"still {session.status}"] += 1
        return counts


def _groups(rng: random.Random, agents: int) -> tuple[ScalingGroup, ...]:
    """Draw the policies: two groups when there are agents for two, half of them impatient."""
    return tuple(
        ScalingGroup(
            name,
            ranking=rng.choice(tuple(AgentRanking)),
            limits=rng.choice([{}, IMPATIENT]),
            pending_timeout_s=rng.choice([None, None, 3000.0]),
            requeues_max=rng.choice([1, 5]),
            agent_grace_s=rng.choice([120.0, 300.0]),
        )
        for name in ("default", "other")[: 1 if agents < 4 else 2]
    )
