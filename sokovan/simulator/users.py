"""What the users of a simulated run do: they ask, ask again, look, and ask for nonsense."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from sokovan.domain.errors import IllegalStateError, SokovanError, StoreUnavailableError
from sokovan.domain.resources import Request
from sokovan.domain.sessions import Dependency, DependencyKind, Limit, SessionId, SessionSpec
from sokovan.domain.where import ANYWHERE, Where
from sokovan.scheduler.moves import Moved
from sokovan.simulator.workload import ROOT, Wish
from sokovan.simulator.world import World

AGAIN_S = 5.0
"""How long a user waits before asking again for what was not answered."""

NONSENSE: dict[str, dict[str, Any]] = {
    "no command": {"command": ()},
    "a relative directory": {"cwd": "here"},
    "a variable without a name": {"env": {"": "x"}},
    "no such group": {"scaling_group": "nowhere"},
    "a priority out of range": {"priority": 101},
    "no kernels": {"kernel_count": 0},
    "too many kernels": {"kernel_count": 10**6},
    "a walltime in the past": {"walltime_s": -1.0},
    "a walltime that is no number": {"walltime_s": float("nan")},
    "an endless grace": {"grace_s": float("inf")},
    "fewer than no retries": {"retries": -1},
    "less than no memory": {"request": Request(mem_bytes=-1)},
    "one and a half devices": {"request": Request(gpu_shares=1500)},
    "a dependency on nobody": {
        "depends_on": (Dependency(SessionId("nobody"), DependencyKind.AFTER_ANY),)
    },
    "a limit of nothing": {"limits": {"no-such-stage": Limit(attempts_max=1)}},
}
"""What must be refused, and leave nothing behind."""


class Users:
    """All the users of a trial.

    Args:
        world: Where they live.
        wishes: What they submit.
    """

    def __init__(self, world: World, wishes: Sequence[Wish]) -> None:
        self._world = world
        self._wishes = wishes
        self._rng = world.rng("users")
        self._chances = world.rng("edits")
        self._ids: dict[str, SessionId] = {}
        """By the name of the wish."""
        self._waiting_for: dict[SessionId, Wish] = {}
        """What is to be cancelled when it comes to a status."""
        world.on_moves = self._watch

    def plan(self, moments: Callable[[str], Sequence[float]]) -> None:
        """Plan all they will do; `moments` draws the times of what happens so often in an hour."""
        for wish in self._wishes:
            self._plan_wish(wish)
        for at in moments("nonsense_per_hour"):
            self._world.later(at, "", self._ask_for_nonsense)
        for at in moments("looks_per_hour"):
            self._world.later(at, "", self._look)
        for at in moments("edits_per_hour"):
            self._world.later(at, "", self._edit)

    def _plan_wish(self, wish: Wish) -> None:
        world, name = self._world, wish.spec.name
        world.later(wish.at, "", lambda: self._submit(wish))
        if wish.release_at is not None:
            world.later(wish.release_at, "", lambda: self._ask(name, world.release))
        if wish.cancel_at is not None:
            cancel = partial(world.cancel, force=wish.force)
            world.later(wish.cancel_at, "", lambda: self._ask(name, cancel))
        if wish.force_at is not None:
            kill = partial(world.cancel, force=True)
            world.later(wish.force_at, "", lambda: self._ask(name, kill))

    def _watch(self, moved: Iterable[Moved]) -> None:
        """Cancel what comes to where its user wants it cancelled, at that very moment."""
        for move in moved:
            wish = self._waiting_for.get(move.session_id)
            if wish is not None and wish.cancel_when is move.to_status:
                del self._waiting_for[move.session_id]
                cancel = partial(self._world.cancel, force=wish.force)
                self._world.later(0.0, "", partial(self._ask, wish.spec.name, cancel))

    async def _submit(self, wish: Wish) -> None:
        """Submit, and again until it is answered: its creation id makes it one session."""
        spec, world = wish.spec, self._world
        try:
            if world.manager is None or any(d.session_id not in self._ids for d in spec.depends_on):
                raise SokovanError("not yet")
            if wish.begin_after_s is not None and spec.begin_at is None:
                begin_at = world.manager.clock.now() + wish.begin_after_s
                wish = replace(wish, spec=replace(spec, begin_at=begin_at))
            depends_on = tuple(
                replace(d, session_id=self._ids[d.session_id]) for d in spec.depends_on
            )
            self._ids[spec.name] = await world.submit(
                replace(wish.spec, depends_on=depends_on), *wish.scripts
            )
            if wish.cancel_when is not None:
                self._waiting_for[self._ids[spec.name]] = wish
        except SokovanError:
            world.later(AGAIN_S, "", lambda: self._submit(wish))
        except BaseException:  # the manager died: it may have been accepted
            world.later(AGAIN_S, "", lambda: self._submit(wish))
            raise

    async def _ask(self, name: str, ask: Callable[[SessionId], Awaitable[None]]) -> None:
        """Ask something of a session, and again until it is answered."""
        try:
            if name not in self._ids:
                raise SokovanError("not yet")
            await ask(self._ids[name])
        except SokovanError:
            self._world.later(AGAIN_S, "", lambda: self._ask(name, ask))
        except BaseException:  # the manager died: it may have been recorded
            self._world.later(AGAIN_S, "", lambda: self._ask(name, ask))
            raise

    async def _edit(self) -> None:
        """Change something of a session that has not ended; whoever has moved on is left alone."""
        world, rng = self._world, self._chances
        live = [i for i in self._ids.values() if self._is_live(i)]
        if not live or world.manager is None:
            return
        session_id = rng.choice(live)
        changes: list[dict[str, Any]] = [
            {"priority": rng.choice([0, 10, 90])},
            {"walltime_s": rng.choice([30.0, 600.0, None])},
            {"pending_timeout_s": rng.choice([60.0, 3600.0, None])},
            {"begin_at": None},
            {"request": Request(cpu_milli=rng.choice([100, 2000, 4000]))},
            {"where": Where(exclude=(rng.choice(list(world.network.places)),))},
            {"where": ANYWHERE},
        ]
        change = rng.choice(changes)
        world.counts["edits"] += 1
        world.note(f"{session_id}: it is to have {change}")
        with suppress(IllegalStateError):  # it is not PENDING
            edit = world.manager.edits.edit
            await edit(session_id, lambda spec: replace(spec, **change), caller=ROOT)

    # --- what makes no sense --------------------------------------------------------------------

    async def _ask_for_nonsense(self) -> None:
        """Ask for what must be refused; whoever accepts it is told."""
        world = self._world
        operations = world.operations
        world.counts["nonsense"] += 1
        what = self._rng.choice([*NONSENSE, "another body", "cancel nobody", "cancel the dead"])
        try:
            if what == "cancel nobody":
                await operations.cancel("nobody", caller=ROOT)
            elif what == "cancel the dead":
                over = [i for i in self._ids.values() if not self._is_live(i)]
                if over:  # no error: it is over, which is what was wanted
                    await operations.cancel(self._rng.choice(over), caller=ROOT)
                return
            elif what == "another body":
                spec = self._rng.choice(self._wishes).spec
                if spec.name not in self._ids:
                    return
                await operations.submit([replace(spec, command=("another",))], caller=ROOT)
            else:
                sound = SessionSpec(command=("nonsense",), name=what)
                await operations.submit([replace(sound, **NONSENSE[what])], caller=ROOT)
        except StoreUnavailableError:
            return
        except SokovanError as error:
            world.note(f"refused: {what}: {error}")
            return
        world.judge.violations.append(f"nobody refused {what}")

    async def _look(self) -> None:
        """Look at a session, and ask why it is as it is: there is always an answer."""
        world = self._world
        if not self._ids:
            return
        operations, session_id = world.operations, self._rng.choice(list(self._ids.values()))
        world.counts["looks"] += 1
        view = await operations.session(session_id, caller=ROOT)
        told = await operations.why(session_id, caller=ROOT)
        await operations.history(session_id, caller=ROOT)
        await operations.sessions(caller=ROOT, limit=10)
        if not told["sentence"] or not told["code"]:
            world.judge.violations.append(f"session {session_id}: no answer to why: {view}")

    def _is_live(self, session_id: SessionId) -> bool:
        return not self._world.judge.picture.sessions[session_id].status.is_final
