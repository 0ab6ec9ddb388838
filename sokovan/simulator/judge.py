"""Holds a world against the invariants at every transaction, and tells the story of a failure."""

import hashlib
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence

from sqlalchemy import Engine

from sokovan.domain.cluster import ScalingGroup
from sokovan.domain.sessions import AgentId, SessionId, SessionWithKernels
from sokovan.scheduler.moves import HistoryLine
from sokovan.simulator import checks, witness
from sokovan.simulator.observe import Observer, Picture
from sokovan.simulator.runtime import FakeRuntime, Script
from sokovan.store.engine import InlineDatabase
from sokovan.store.live import Live

STEPS_KEPT = 400
STEPS_TOLD = 60
OVERDUE_S = 130.0
"""How late a limit may be acted on: two full cycles, and what the store refuses meanwhile."""


class InvariantViolatedError(AssertionError):
    """An invariant does not hold; the message tells the story."""


class Judge:
    """Sees everything: the store, the machines, the manager's memory, and what users were told.

    Args:
        engine: The store.
        groups: The policies.
        runtimes: The machines.
        title: What the story begins with.
    """

    def __init__(
        self,
        engine: Engine,
        groups: Mapping[str, ScalingGroup],
        runtimes: Mapping[AgentId, FakeRuntime],
        title: str,
    ) -> None:
        self.picture = Picture({})
        self.accepted: dict[SessionId, None] = {}
        self.cancelled: dict[SessionId, None] = {}
        self.violations: list[str] = []
        self.pictures = 0
        self.moves = 0
        self.on_picture: Callable[[Picture], None] = lambda _: None
        """Called with each new picture."""
        self._engine = engine
        self._store = InlineDatabase(engine)
        self._observer = Observer(groups)
        self._runtimes = runtimes
        self._title = title
        self._given_up: set[str] = set()
        self._changes_seen = -1
        self._steps: deque[tuple[float, str]] = deque(maxlen=STEPS_KEPT)

    def look(self, live: Live | None, now: float, *, watched_since: float | None) -> None:
        """Take a picture if the store has changed, and remember what is violated first.

        Args:
            live: What the manager remembers, if there is one.
            now: Seconds since the epoch.
            watched_since: Since when a manager has been at work.
        """
        if (changes := self._total_changes()) == self._changes_seen:
            return
        self._changes_seen = changes
        before = self.picture
        picture = self.picture = self._store.write_now(self._observer.look)
        self.pictures += 1
        self._given_up |= witness.given_up_tokens(picture)
        running = [run for a, runtime in self._runtimes.items() for run in _runs(a, runtime)]
        found = checks.violations(picture)
        for check in checks.STEP_CHECKS:
            found += check(before, picture)
        found += witness.cancels_hold(picture, [i for i in picture.changed if i in self.cancelled])
        found += witness.what_runs_is_held(picture, running)
        found += witness.kernels_run_once(running, self._given_up)
        found += witness.tokens_run_once(self.starts())
        if live is not None:
            found += witness.the_shadow_is_true(picture, live)
        if watched_since is not None and now - watched_since > OVERDUE_S:
            found += checks.nothing_is_overdue(picture, now, OVERDUE_S, watched_since)
        self.violations = self.violations or found
        self.on_picture(picture)

    def look_at_rest(
        self, live: Live, script_of: Callable[[SessionWithKernels, int], Script]
    ) -> list[str]:
        """Say what is wrong once nothing has gone wrong for long enough; looks at everything."""
        before = self.picture
        picture = self.picture = self._store.write_now(
            lambda tx: self._observer.look(tx, whole=True)
        )
        found = checks.violations(picture)
        for check in checks.STEP_CHECKS:
            found += check(before, picture)
        return (
            self.violations
            + found
            + witness.every_accepted_session_is_there(picture, self.accepted)
            + witness.cancels_hold(picture, self.cancelled)
            + witness.everything_has_ended(picture, live.waits)
            + witness.results_are_true(picture, script_of)
            + witness.the_shadow_is_true(picture, live)
        )

    def starts(self) -> Counter[str]:
        """Return how often each token's command was run."""
        return Counter(token for runtime in self._runtimes.values() for token in runtime.started)

    def running(self) -> list[witness.Run]:
        """Return what runs on the machines."""
        return [run for a, runtime in self._runtimes.items() for run in _runs(a, runtime)]

    # --- the story --------------------------------------------------------------------------------

    def note(self, at: float, what: str) -> None:
        """Remember that something happened, so many seconds after the beginning."""
        self._steps.append((at, what))

    def story(self, found: Sequence[str], beginning: float) -> str:
        """Tell what is violated, what became of the sessions concerned, and the last steps."""
        told = [f"{self._title}: {len(found)} violations", *found]
        for session_id, session in self.picture.sessions.items():
            if any(session_id in sentence for sentence in found):
                lines = self.picture.history.get(session_id, ())
                told += ["", f"session {session_id}: {session}"]
                told += [_told(line, beginning) for line in lines]
        steps = list(self._steps)[-STEPS_TOLD:]
        told += ["", "the last steps:", *(f"{at:12.3f}  {what}" for at, what in steps)]
        return "\n".join(told)

    def digest(self) -> str:
        """Return a digest of all that the store remembers."""
        whole = hashlib.sha256()
        picture = self._store.write_now(lambda tx: self._observer.look(tx, whole=True))
        for session in picture.sessions.values():
            for part in (session, *picture.history.get(session.session_id, ())):
                whole.update(repr(part).encode())
        for other in (*picture.holds.values(), *picture.agents.values()):
            whole.update(repr(other).encode())
        return whole.hexdigest()

    def _total_changes(self) -> int:
        """Return how many rows were ever written; SQLite counts them."""
        with self._engine.connect() as connection:
            sqlite: object = connection.connection.driver_connection
            changes: int = getattr(sqlite, "total_changes", -1)
            return changes


def _runs(agent_id: AgentId, runtime: FakeRuntime) -> list[witness.Run]:
    return [
        (agent_id, token, kernel.order.kernel_id)
        for token, kernel in runtime.kernels.items()
        if kernel.runs and kernel.end is None
    ]


def _told(line: HistoryLine, beginning: float) -> str:
    who = "" if line.kernel_id is None else f" {line.kernel_id}"
    what = f"{line.from_status} -> {line.to_status}: {line.reason} {line.detail}"
    return f"{line.at - beginning:12.3f}  {line.status_seq:3d}{who} {what}"
