"""Holds a world against the invariants at every transaction, and tells the story of a failure."""

import hashlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Engine

from sokovan.clock import Clock
from sokovan.domain.cluster import ScalingGroup
from sokovan.domain.sessions import (
    AgentId,
    Dependency,
    SessionId,
    SessionSpec,
    SessionWithKernels,
)
from sokovan.domain.statuses import SessionStatus
from sokovan.scheduler.messages import KernelToStart, KernelToStop
from sokovan.scheduler.moves import HistoryLine
from sokovan.scheduler.ports import AgentEventSink
from sokovan.simulator import admission, checks, contact, ends, tries, witness
from sokovan.simulator.contact import Contact
from sokovan.simulator.ends import Evidence
from sokovan.simulator.observe import Observer, Picture
from sokovan.simulator.runtime import FakeRuntime, Script
from sokovan.store.engine import InlineDatabase, Transaction
from sokovan.store.live import Live

STEPS_KEPT = 400
STEPS_TOLD = 60
SWEEP_EVERY_S = 30.0
"""What goes wrong and stays wrong is looked for every so often, not at every picture."""
OVERDUE_S = 130.0
"""How late a limit may be acted on: two full cycles, and what the store refuses meanwhile."""


_COUNTED = frozenset({SessionStatus.PENDING, SessionStatus.RUNNING})
"""How long a session has been in these may end it."""


class InvariantViolatedError(AssertionError):
    """An invariant does not hold; the message tells the story."""


class Judge:
    """Sees everything: the store, the machines, the manager's memory, and what users were told.

    Args:
        engine: The store.
        groups: The policies.
        runtimes: The machines.
        clock: The true time.
        script_of: What the kernels of a session were to do.
        silence_s: After how long an agent counts as lost.
        title: What the story begins with.
    """

    def __init__(
        self,
        engine: Engine,
        groups: Mapping[str, ScalingGroup],
        runtimes: Mapping[AgentId, FakeRuntime],
        *,
        clock: Clock,
        script_of: Callable[[SessionWithKernels, int], Script],
        silence_s: float,
        title: str,
    ) -> None:
        self.picture = Picture({})
        self.accepted: dict[SessionId, None] = {}
        self.cancelled: dict[SessionId, None] = {}
        self.may_be_cancelled: set[SessionId] = set()
        """Every session whose end was asked for, whether or not that was answered."""
        self.asked: dict[str, SessionSpec] = {}
        """The last submission of each name, whether or not it was answered."""
        self.waits_for: dict[SessionId, Sequence[Dependency]] = {}
        """What each accepted session was submitted to wait for."""
        self.contact = Contact()
        self.ordered: set[str] = set()
        """Every token that an agent was asked to start."""
        self.violations: list[str] = []
        self.pictures = 0
        self.moves = 0
        self.clock_is_steady = True
        """Whether nobody has set the manager's clock back."""
        self.on_picture: Callable[[Picture], None] = lambda _: None
        """Called with each new picture."""
        self._store = InlineDatabase(engine)
        self._observer = Observer(groups)
        self._store.write_now(self._observer.watch)
        self._sqlite: Any = self._store.write_now(_connection_of)
        self._runtimes = runtimes
        self._title = title
        self._given_up: set[str] = set()
        self._ear: witness.Ear | None = None
        self._changes_seen = -1
        self._sweep_at = 0.0
        self._clock = clock
        self._silence_s = silence_s
        self.contact.looked_at = clock.now()
        self._since: dict[SessionId, float] = {}
        """When each session came to be RUNNING or PENDING, at the latest look before it did; what
        clocks were set forward since counts as passed."""
        self._forward_s = self._clock_off_s = 0.0
        self._evidence = Evidence(
            runtimes, script_of, self.may_be_cancelled, self._lasted_s, self._waits_for
        )
        self._starts: Counter[str] = Counter()
        self._starts_seen: Counter[AgentId] = Counter()
        self._steps: deque[tuple[int, float, str]] = deque(maxlen=STEPS_KEPT)

    def look(self, live: Live | None, now: float, *, watched_since: float | None) -> None:
        """Take a picture if the store has changed, and remember what is violated first.

        Args:
            live: What the manager remembers, if there is one.
            now: Seconds since the epoch.
            watched_since: Since when a manager has been at work.
        """
        if self._sqlite.total_changes == self._changes_seen:
            return
        before = self.picture
        picture = self._look()
        self._changes_seen = self._sqlite.total_changes
        self.pictures += 1
        self._given_up |= witness.given_up_tokens(picture)
        running, started = self.running(), self._new_starts()
        found = self._checked(before, picture)
        found += witness.cancels_hold(picture, [i for i in picture.changed if i in self.cancelled])
        found += witness.what_runs_is_held(picture, running)
        found += witness.kernels_run_once(running, self._given_up)
        found += witness.tokens_run_once(started)
        found += witness.what_is_creating_was_ordered(picture, self.ordered)
        found += self._judged_by_time(before, picture, running)
        sweeps = not now < self._sweep_at <= now + SWEEP_EVERY_S  # the clock may have been set
        if sweeps:
            self._sweep_at = now + SWEEP_EVERY_S
            found += contact.what_is_cut_off_is_stopped(
                self._runtimes, self.contact, self._clock.now()
            )
        if live is not None:
            found += witness.the_shadow_is_true(picture, live, None if sweeps else picture.changed)
        if sweeps and watched_since is not None and now - watched_since > OVERDUE_S:
            found += checks.nothing_is_overdue(picture, now, OVERDUE_S, watched_since)
            found += tries.nothing_is_left_alone(picture, now, OVERDUE_S, watched_since)
        self.violations = self.violations or found
        self.on_picture(picture)

    def _judged_by_time(
        self, before: Picture, picture: Picture, running: Iterable[witness.Run]
    ) -> list[str]:
        """Hold what has changed against what happened outside, and when."""
        at = self._clock.now()
        for session in picture.looked_at():
            old = before.sessions.get(session.session_id)
            if old is None or (
                session.status is not old.status
                and session.status in _COUNTED
                and old.status is not SessionStatus.DEPRIORITIZING
            ):
                self._since[session.session_id] = self.contact.looked_at - self._forward_s
        found = ends.kernels_end_as_they_did(before, picture, self._evidence)
        found += ends.every_end_is_explained(before, picture, self._evidence)
        found += contact.agents_are_lost_in_time(before, picture, self.contact, at, self._silence_s)
        found += contact.forced_ends_are_remembered(picture, self.contact)
        found += contact.what_is_killed_is_gone(running, self.contact, at)
        found += admission.dependencies_were_met(picture, self.waits_for)
        found += admission.failures_are_retried(picture)
        self.contact.looked_at = at
        return found

    def _lasted_s(self, session_id: SessionId) -> float:
        return self._clock.now() + self._forward_s - self._since[session_id]

    def _waits_for(self, session: SessionWithKernels) -> Sequence[Dependency]:
        """Return what a session was submitted to wait for, though its user may not know it yet."""
        if session.session_id in self.waits_for or session.name not in self.asked:
            return self.waits_for.get(session.session_id, ())
        return self.asked[session.name].depends_on

    def begin_life(self, clock_off_s: float) -> None:
        """Note that a manager begins to listen, its clock wrong by so much."""
        self.contact.managed_since = self._clock.now()
        self._forward_s += max(clock_off_s - self._clock_off_s, 0.0)
        self._clock_off_s = clock_off_s

    def accept(self, session_id: SessionId, spec: SessionSpec) -> None:
        """Note that a user was told that a session is accepted."""
        self.accepted[session_id] = None
        self.waits_for[session_id] = spec.depends_on

    def note_contact(self, agent_id: AgentId) -> None:
        """Note that an agent has heard of the manager."""
        self.contact.heard[agent_id] = self._clock.now()

    def note_start(self, agent_id: AgentId) -> None:
        """Note that the process of an agent was started."""
        self.contact.started[agent_id] = self._clock.now()
        self.contact.heard.setdefault(agent_id, self._clock.now())

    def note_orders(self, orders: Iterable[KernelToStart]) -> None:
        """Note that an agent was asked to start these."""
        self.ordered.update(order.token for order in orders)

    def note_stops(self, stops: Iterable[KernelToStop]) -> None:
        """Note that an agent was told to stop these; what is forced is to be gone at once."""
        at = self._clock.now()
        self.contact.killed.update((stop.token, at) for stop in stops if stop.force)

    def _hear_of(self, agent_id: AgentId, incarnation: int | None) -> None:
        agent = self.picture.agents.get(agent_id)
        if incarnation is None or (agent is not None and agent.incarnation == incarnation):
            self.contact.heard_of[agent_id] = self._clock.now()

    def look_at_rest(
        self, live: Live, script_of: Callable[[SessionWithKernels, int], Script]
    ) -> list[str]:
        """Say what is wrong once nothing has gone wrong for long enough; looks at everything."""
        before, picture = self.picture, self._look(whole=True)
        return (
            self.violations
            + self._checked(before, picture)
            + admission.failures_are_retried(picture)
            + witness.every_accepted_session_is_there(picture, self.accepted)
            + witness.cancels_hold(picture, self.cancelled)
            + witness.everything_has_ended(picture, live.waits)
            + witness.results_are_true(picture, script_of)
            + witness.the_shadow_is_true(picture, live)
        )

    def _look(self, *, whole: bool = False) -> Picture:
        """Take the next picture."""
        picture = self._store.write_now(lambda tx: self._observer.look(tx, whole=whole))
        self.picture = replace(picture, shrunk=checks.shrunk_agents(self.picture, picture))
        return self.picture

    def _checked(self, before: Picture, picture: Picture) -> list[str]:
        found = checks.violations(picture) + tries.violations(picture)
        for check_each in admission.OF_EACH_SESSION:
            found += check_each(picture)
        if self.clock_is_steady:
            found += checks.history_goes_forward_in_time(picture)
        for check in checks.STEP_CHECKS:
            found += check(before, picture)
        return found

    def look_at_cursors(self, remembered: Mapping[str, ScalingGroup]) -> None:
        """Hold against the store what a manager remembers of where last kernels went."""
        self._find(witness.the_cursors_are_true(remembered, self.picture.cursors))

    def listening(self, sink: AgentEventSink, now: Callable[[], float]) -> AgentEventSink:
        """Return `sink` such that what comes of what it is told is seen."""
        if self._ear is None or self._ear.sink is not sink:
            self._ear = witness.Ear(sink, now, self._latest, self._find, self._hear_of)
        return self._ear

    def _latest(self) -> Picture | None:
        return self.picture if self._sqlite.total_changes == self._changes_seen else None

    def _find(self, found: list[str]) -> None:
        self.violations = self.violations or found

    def starts(self) -> Counter[str]:
        """Return how often each token's command was run."""
        return Counter(token for runtime in self._runtimes.values() for token in runtime.started)

    def _new_starts(self) -> dict[str, int]:
        """Return how often each token's command was run, of those run since the last picture."""
        new = []
        for agent_id, runtime in self._runtimes.items():
            new += runtime.started[self._starts_seen[agent_id] :]
            self._starts_seen[agent_id] = len(runtime.started)
        self._starts.update(new)
        return {token: self._starts[token] for token in new}

    def running(self) -> list[witness.Run]:
        """Return what runs on the machines."""
        return [run for a, runtime in self._runtimes.items() for run in _runs(a, runtime)]

    # --- the story --------------------------------------------------------------------------------

    def note(self, step: int, at: float, what: str) -> None:
        """Remember that something happened, so many seconds after the beginning."""
        self._steps.append((step, at, what))

    def story(self, found: Sequence[str], beginning: float, *, everything: bool = False) -> str:
        """Tell what is violated, what became of the sessions concerned, and the last steps.

        Args:
            found: What is violated.
            beginning: When it all began, in seconds since the epoch.
            everything: Tell of everything that lives, whether or not it is concerned.
        """
        title = self._title if everything else f"{self._title}: {len(found)} violations"
        told = [title, *found]
        for session_id, session in self.picture.sessions.items():
            is_told = everything and not session.status.is_final
            if is_told or any(session_id in sentence for sentence in found):
                lines = self.picture.history.get(session_id, ())
                told += ["", f"session {session_id}: {session}"]
                told += [_told(line, beginning) for line in lines]
        if everything:
            told += ["", *map(str, self.picture.agents.values())]
            told += ["", *map(str, self.picture.holds.values())]
        told += ["", "the last steps:"]
        for step, at, what in list(self._steps)[-STEPS_TOLD:]:
            told.append(f"{step:7d} {at:12.3f}  {what}")
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


def _connection_of(tx: Transaction) -> object:
    """Return the one connection to a store in memory; it counts the rows that were written."""
    return tx.connection.connection.driver_connection


def _runs(agent_id: AgentId, runtime: FakeRuntime) -> list[witness.Run]:
    return [(agent_id, token, runtime.kernels[token].order.kernel_id) for token in runtime.running]


def _told(line: HistoryLine, beginning: float) -> str:
    who = "" if line.kernel_id is None else f" {line.kernel_id}"
    what = f"{line.from_status} -> {line.to_status}: {line.reason} {line.detail}"
    return f"{line.at - beginning:12.3f}  {line.status_seq:3d}{who} {what}"
