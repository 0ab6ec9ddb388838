"""What users of a simulated run do with arrays: submit, hold, release and end them, or a part."""

import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from sqlalchemy import select

from sokovan.domain.arrays import ArraySpec, Indexes
from sokovan.domain.errors import SokovanError
from sokovan.domain.resources import Request
from sokovan.domain.sessions import SessionId, SessionSpec
from sokovan.simulator.runtime import Script
from sokovan.simulator.workload import ROOT
from sokovan.simulator.world import World
from sokovan.store.engine import Transaction
from sokovan.store.tables import sessions

AGAIN_S = 5.0
SIZE_MAX = 8
DEEDS = ("hold", "release", "cancel")


@dataclass(frozen=True, slots=True)
class ArrayWish:
    """One array that a user submits, what its tasks do, and what becomes of the user's mind."""

    at: float
    """Seconds after the beginning."""
    array: ArraySpec
    scripts: tuple[Script, ...]
    """What each task does."""
    deeds: tuple[tuple[float, str, str], ...]
    """When what is asked of which part; an empty one is the whole."""

    @property
    def name(self) -> str:
        """What it is called in the story of a trial."""
        return self.array.template.name.partition("-")[0]


def array_wishes(
    rng: random.Random, count: int, over_s: float, groups: tuple[str, ...]
) -> list[ArrayWish]:
    """Draw what users submit within `over_s` seconds."""
    return [_wish(rng, f"a{number}", rng.uniform(0.0, over_s), groups) for number in range(count)]


def _wish(rng: random.Random, name: str, at: float, groups: tuple[str, ...]) -> ArrayWish:
    size = rng.randint(1, SIZE_MAX)
    template = SessionSpec(
        command=("simulated", "{index}"),
        name=f"{name}-{{index}}",
        owner=rng.choice(("ada", "grace")),
        scaling_group=rng.choice(groups),
        request=Request(cpu_milli=rng.choice([100, 500, 1000])),
        requeue=rng.random() < 0.5,
        retries=rng.choice([0, 0, 1]),
        held=rng.random() < 0.1,
        walltime_s=600.0,
        creation_id=name,
    )
    array = ArraySpec(
        template, Indexes((range(size),)), (), rng.choices([None, 1, 2, 3], [1, 2, 2, 1])[0]
    )
    scripts = tuple(
        Script(min(rng.expovariate(1 / 60), 300.0), exit_code=rng.choices([0, 1], [4, 1])[0])
        for _ in range(size)
    )
    deeds = [
        (at + rng.expovariate(1 / 200), rng.choice(DEEDS), _part(rng, size))
        for _ in range(rng.choice([0, 1, 2]))
    ]
    last_s = max((when for when, *_ in deeds), default=at)
    deeds.append((last_s + rng.expovariate(1 / 60), "release", ""))  # nothing is to wait for ever
    return ArrayWish(at, array, scripts, tuple(deeds))


def _part(rng: random.Random, size: int) -> str:
    if rng.random() < 0.4:
        return ""
    first, last = sorted((rng.randrange(size), rng.randrange(size)))
    return f"_{first}-{last}"


class ArrayUsers:
    """The users of a trial who have many tasks.

    Args:
        world: Where they live.
        wishes: What they submit.
    """

    def __init__(self, world: World, wishes: Sequence[ArrayWish]) -> None:
        self._world = world
        self._wishes = wishes
        self._ids: dict[str, str] = {}

    def plan(self) -> None:
        """Plan all they will do."""
        for wish in self._wishes:
            self._world.later(wish.at, "", partial(self._again, partial(self._submit, wish)))
            for at, what, part in wish.deeds:
                deed = partial(self._do, wish, what, part)
                self._world.later(at, "", partial(self._again, deed))

    async def _again(self, ask: Callable[[], Awaitable[None]]) -> None:
        """Ask, and again until it is answered."""
        try:
            await ask()
        except SokovanError:
            self._world.later(AGAIN_S, "", partial(self._again, ask))
        except BaseException:  # the manager died: it may have been recorded
            self._world.later(AGAIN_S, "", partial(self._again, ask))
            raise

    async def _submit(self, wish: ArrayWish) -> None:
        """Submit; its creation id makes it one array however often that is asked."""
        world, array = self._world, wish.array
        if world.manager is None:
            raise SokovanError("there is no manager")
        for index, script in enumerate(wish.scripts):
            name = array.name_of(index)
            world.scripts[name, 0] = script
            world.judge.asked[name] = replace(array.template, name=name)
        made = await world.manager.arrays.submit(array, caller=ROOT)
        first_tries = select(sessions.c.session_id).where(
            sessions.c.array_id == made["id"], sessions.c.retry_of.is_(None)
        )

        def read(tx: Transaction) -> list[SessionId]:
            return [SessionId(found) for found in tx.execute(first_tries).scalars()]

        for session_id in await world.manager.database.read(read):
            world.judge.accept(session_id, array.template)
        self._ids[wish.name] = made["id"]

    async def _do(self, wish: ArrayWish, what: str, part: str) -> None:
        world = self._world
        if wish.name not in self._ids or world.manager is None:
            raise SokovanError("not yet")
        array_id, arrays = self._ids[wish.name], world.manager.arrays
        if what == "cancel":
            world.judge.may_be_cancelled.add(SessionId(array_id))
            await arrays.cancel(f"{array_id}{part}", caller=ROOT)
        else:
            await arrays.set_held(f"{array_id}{part}", caller=ROOT, held=what == "hold")
        await arrays.why(array_id, caller=ROOT)
