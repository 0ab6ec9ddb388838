"""One trial: a world, a workload and faults from one seed; run to the end, then judged."""

import asyncio
import random
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from sokovan.domain.cluster import ScalingGroup
from sokovan.domain.sessions import Limit
from sokovan.placement.rank import RANKINGS
from sokovan.simulator.array_users import ArrayUsers, array_wishes
from sokovan.simulator.fate import StepReached, chance
from sokovan.simulator.faults import ROUGH, Faults
from sokovan.simulator.judge import InvariantViolatedError
from sokovan.simulator.quiet import quiet
from sokovan.simulator.trouble import Trouble
from sokovan.simulator.users import Users
from sokovan.simulator.workload import machines, wishes
from sokovan.simulator.world import World

SUBMITTING = 0.6
"""Part of a trial in which users submit."""
FAULTY = 0.8
"""Part of a trial in which things go wrong."""
REST_S_MAX = 6 * 3600.0
"""Once faults have stopped, everything that can run must be over within so long.

The queue has to be worked off, and a phase may last 900 seconds before it expires.
"""
LOOK_EVERY_S = 60.0
SESSIONS_PER_ARRAY = 20
IMPATIENT = {
    "check-precondition": Limit(attempts_max=3, phase_s_max=20.0),
    "start-sessions": Limit(attempts_max=2, phase_s_max=12.0),
    "terminate-sessions": Limit(phase_s_max=60.0),
}
"""Limits that are reached often."""
NO_FAULT = frozenset({"looks", "nonsense"})
"""What is counted beside faults."""


@dataclass(frozen=True, slots=True)
class Least:
    """What a trial of the default size must have contained to count as one."""

    agents: int = 5
    sessions: int = 500
    faults: int = 200


LEAST = Least()
MAIN_FAULTS = (
    "manager_crashes",
    "agent_crashes",
    "reboots",
    "agent_cuts",
    "one_way_cuts",
    "clock_steps",
    "message_lost",
    "message_repeated",
    "message_delayed",
    "call_lost",
    "answer_lost",
    "store_fails",
    "store_outages",
    "commit_in_doubt",
    "machines_resized",
    "machines_replaced",
    "machines_returned",
)
"""What a trial of the default size must have had, each at least once."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a trial."""

    seed: object
    counts: Counter[str]
    """Sessions by how they ended, agents, moves, checks."""
    faults: Counter[str]
    """What went wrong, and how often."""
    digest: str
    rest_s: float
    """How long after the last fault everything was over."""
    violation: str = ""
    """The story of what went wrong; empty when nothing did."""
    story: str = ""
    """What there was at the step before which it was stopped."""

    def missing(self, least: Least) -> list[str]:
        """Say what there was too little of, one sentence each."""
        had = {
            "agents": self.counts["agents"],
            "sessions": self.counts["sessions"],
            "faults": sum(n for what, n in self.faults.items() if what not in NO_FAULT),
        }
        return [
            f"only {had[field.name]} {field.name}, of at least {getattr(least, field.name)}"
            for field in fields(least)
            if had[field.name] < getattr(least, field.name)
        ] + [f"no {kind}" for kind in MAIN_FAULTS if not self.faults[kind]]


class Trial:
    """A random run of a world.

    Args:
        seed: Decides everything.
        hours: How long users submit, things go wrong, and all calms down.
        agents: How many there are at first.
        sessions: How many are submitted.
        faults: What goes wrong.
        only: Submit only the sessions of these names, and what they depend on is forgotten.
        calm_after_h: Have nothing go wrong from then on.
        until: Stop before this step.
    """

    def __init__(
        self,
        seed: object,
        *,
        hours: float = 6.0,
        agents: int = 5,
        sessions: int = 500,
        faults: Faults = ROUGH,
        only: Sequence[str] | None = None,
        calm_after_h: float | None = None,
        until: int | None = None,
    ) -> None:
        self._length_s = hours * 3600
        self._faulty_s = self._length_s * FAULTY
        if calm_after_h is not None:
            self._faulty_s = min(self._faulty_s, calm_after_h * 3600)
        self.world = World(
            seed,
            machines=machines(chance(seed, "machines"), agents),
            groups=_groups(chance(seed, "groups"), agents),
            faults=faults,
        )
        self.world.until_step = until
        wanted = wishes(
            self.world.rng("workload"),
            sessions,
            self._length_s * SUBMITTING,
            tuple(self.world.groups),
        )
        if only is not None:
            wanted = [
                replace(
                    wish,
                    spec=replace(
                        wish.spec,
                        depends_on=tuple(d for d in wish.spec.depends_on if d.session_id in only),
                    ),
                )
                for wish in wanted
                if wish.spec.name in only
            ]
        self.names = [wish.spec.name for wish in wanted]
        """Of the sessions and arrays that are submitted."""
        of_arrays = [
            wish
            for wish in array_wishes(
                self.world.rng("arrays"),
                max(1, sessions // SESSIONS_PER_ARRAY),
                self._length_s * SUBMITTING,
                tuple(self.world.groups),
            )
            if only is None or wish.name in only
        ]
        self.names += [wish.name for wish in of_arrays]
        self._users = Users(self.world, wanted)
        self._array_users = ArrayUsers(self.world, of_arrays)
        self._trouble = Trouble(self.world)

    def run(self) -> Outcome:
        """Run to the end; never raises for what it is there to find."""
        with quiet():
            return asyncio.run(self._run())

    async def _run(self) -> Outcome:
        world = self.world
        violation, story, rest_s = "", "", 0.0
        try:
            world.later(0.0, "", world.start_manager)
            self._users.plan(self._moments)
            self._array_users.plan()
            self._trouble.plan(self._moments)
            await world.run_for(self._faulty_s)
            await self._trouble.make_peace()
            await world.run_for(self._length_s - self._faulty_s)
            rest_s = await self._come_to_rest()
            found = world.check_at_rest()
            if found:
                violation = world.story(found)
        except InvariantViolatedError as error:
            violation = str(error)
        except StepReached:
            story = world.story([f"stopped before step {world.until_step}"], everything=True)
        except Exception:  # noqa: BLE001 - whatever breaks where nobody catches it is a finding
            violation = world.story([traceback.format_exc()])
        return Outcome(
            world.seed, self._counts(), world.counts, world.judge.digest(), rest_s, violation, story
        )

    async def _come_to_rest(self) -> float:
        began = self.world.clock.now()
        while not self.world.is_at_rest() and self.world.clock.now() - began < REST_S_MAX:
            await self.world.run_for(LOOK_EVERY_S)
        return self.world.clock.now() - began

    def _moments(self, rate: str) -> list[float]:
        """Draw when something happens that happens so often in an hour, while things go wrong.

        What is to be expected at all happens at least once.
        """
        per_hour: float = getattr(self.world.faults, rate)
        rng, at, found = self.world.rng(rate), 0.0, []
        while per_hour > 0:
            at += rng.expovariate(per_hour / 3600)
            if at >= self._faulty_s:
                break
            found.append(at)
        if not found and per_hour * self._faulty_s >= 3600:
            found.append(rng.uniform(0.0, self._faulty_s))
        return found

    def _counts(self) -> Counter[str]:
        judge = self.world.judge
        counts: Counter[str] = Counter(moves=judge.moves, checks=judge.pictures)
        counts["steps"] = self.world.steps
        counts["sessions"] = len(judge.accepted)
        counts["agents"] = len(self.world.network.places)
        for session in judge.picture.sessions.values():
            over = session.status.is_final
            counts[f"ended {session.reason}" if over else f"still {session.status}"] += 1
        return counts


def _groups(rng: random.Random, agents: int) -> tuple[ScalingGroup, ...]:
    """Draw the policies: two groups when there are agents for two, half of them impatient."""
    return tuple(
        ScalingGroup(
            name,
            ranking=rng.choice(tuple(RANKINGS)),
            limits=rng.choice([{}, IMPATIENT]),
            pending_timeout_s=rng.choice([None, None, 3000.0]),
            requeues_max=rng.choice([1, 5]),
            agent_grace_s=rng.choice([120.0, 300.0]),
        )
        for name in ("default", "other")[: 1 if agents < 4 else 2]
    )
