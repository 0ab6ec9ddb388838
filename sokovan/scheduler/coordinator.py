"""Drives the stages: load, act, settle, save, tell; and keeps their time.

Each (scaling group, stage) runs by itself and never twice at once, so that one group's error or
slowness never delays another. What runs is decided by `Cadence`; what follows from a run, by
`settle`.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from sokovan.clock import Clock
from sokovan.config import SchedulerConfig
from sokovan.domain.cluster import Agent, AgentStatus
from sokovan.domain.errors import AgentError, LeaseLostError, StoreUnavailableError
from sokovan.domain.reasons import MoveReason, Wait, WaitReason
from sokovan.domain.sessions import SessionWithKernels
from sokovan.scheduler.cadence import Cadence
from sokovan.scheduler.calls import kept_answers
from sokovan.scheduler.handlers.base import LifecycleHandler
from sokovan.scheduler.messages import Answer
from sokovan.scheduler.moves import Applied, Verdict
from sokovan.scheduler.ports import SchedulerStore, StageObserver
from sokovan.scheduler.results import (
    SessionExecutionResult,
    SessionTransitionInfo,
    each,
)
from sokovan.scheduler.settle import StageLoad, expires_at, settle
from sokovan.scheduler.stages import SCHEDULE_SESSIONS, SWEEP_SESSIONS, WORK_AFTER, Stage

log = structlog.get_logger(__name__)

PostProcessor = Callable[[Applied], None]
AGENT_WATCH_S = 1.0
_NOT_EXAMINED = Wait(WaitReason.NOT_EXAMINED_YET)
PASS_REST_S_MAX = 0.05
"""A scheduling pass rests for as long as it took, but no longer than this: what is freed meanwhile
goes into one pass, and passes over a long queue leave time for the rest."""


@dataclass(frozen=True, slots=True)
class Chore:
    """Work that belongs to no stage and no group."""

    name: str
    every_s: float
    run: Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Run:
    """A handler for one group: the unit that the cadence keeps time for."""

    scaling_group: str
    handler: LifecycleHandler


class Coordinator:
    """Runs every stage of every group when it has work.

    Args:
        store: Loads and saves.
        clock: The time.
        config: Cadence and the silence after which an agent is lost.
    """

    def __init__(self, store: SchedulerStore, clock: Clock, config: SchedulerConfig) -> None:
        self._store = store
        self._clock = clock
        self._config = config
        self._handlers: dict[str, LifecycleHandler] = {}
        self._post_processors: list[PostProcessor] = []
        self._observer = StageObserver()
        self._chores: dict[str, Chore] = {}
        self._runs: dict[tuple[str, str], _Run] = {}
        self._cadence = Cadence({})
        self._wake = asyncio.Event()
        self._tasks: asyncio.TaskGroup | None = None

    def set_up(
        self,
        handlers: Sequence[LifecycleHandler],
        chores: Sequence[Chore] = (),
        post_processors: Sequence[PostProcessor] = (),
        observer: StageObserver | None = None,
    ) -> None:
        """Say what is to be run. Apart from construction, as handlers report back to here."""
        self._handlers = {handler.stage.name: handler for handler in handlers}
        watch = Chore("watch-agents", AGENT_WATCH_S, self.watch_agents)
        self._chores = {chore.name: chore for chore in (watch, *chores)}
        self._post_processors = list(post_processors)
        self._observer = observer or StageObserver()
        self._runs = {
            (group, handler.stage.name): _Run(group, handler)
            for group in self._store.groups
            for handler in handlers
        }
        self._cadence = Cadence(
            dict.fromkeys(self._runs, self._config.full_cycle_s)
            | {chore.name: chore.every_s for chore in self._chores.values()}
        )

    # --- what others tell -----------------------------------------------------------------------

    def hint(self, scaling_group: str, stage: Stage) -> None:
        """Note that a stage of a group has work now. Losing this costs delay, never correctness."""
        key = (scaling_group, stage.name)
        if key not in self._runs and stage.name in self._handlers:
            self._follow(scaling_group)
        if key in self._runs:
            self._cadence.hint(key)
            self._wake.set()

    def hint_chore(self, name: str) -> None:
        """Note that a chore has work now."""
        self._cadence.hint(name)
        self._wake.set()

    def tell(self, applied: Applied) -> None:
        """Hint at the work that follows from what was applied, and let the others know of it."""
        for moved in applied.moved:
            if (stage := WORK_AFTER.get(moved.to_status)) is not None:
                self.hint(moved.scaling_group, stage)
            self._wake_when_due(moved.scaling_group, moved.session_id)
        for scaling_group in applied.policies:
            self._follow(scaling_group)
        for scaling_group in applied.freed:
            self.hint(scaling_group, SCHEDULE_SESSIONS)
        if applied.left_over:
            self.hint_chore("stop-leftovers")
        for process in self._post_processors:
            process(applied)

    def _follow(self, scaling_group: str) -> None:
        """Have every stage of a group run that came, or has another policy; none if it went."""
        for handler in self._handlers.values():
            key = (scaling_group, handler.stage.name)
            if scaling_group not in self._store.groups:
                self._runs.pop(key, None)
                self._cadence.drop(key)
                continue
            if key not in self._runs:
                self._runs[key] = _Run(scaling_group, handler)
                self._cadence.add(key, self._config.full_cycle_s)
            self._cadence.hint(key)
        self._wake.set()

    # --- one stage ------------------------------------------------------------------------------

    async def run_stage(self, handler: LifecycleHandler, scaling_group: str) -> Applied:
        """Load, act, settle, save, tell; return what was applied."""
        stage, began_at = handler.stage, self._clock.now()
        load = self._store.load_for_stage(scaling_group, stage, self._config.full_cycle_s)
        if load.again_at is not None:
            self._cadence.wake_at((scaling_group, stage.name), load.again_at)
        if not load:
            return Applied()
        answers: list[Answer] = []
        try:
            with kept_answers(answers):
                report = await handler.execute(scaling_group, load.taken)
        except (LeaseLostError, StoreUnavailableError):
            raise  # no fault of the sessions'
        except Exception as error:  # the one place where a handler's failure is caught
            if not isinstance(error, AgentError):
                log.exception("stage failed", stage=stage.name, scaling_group=scaling_group)
            report = report_of_failure(load.taken, error)
        applied = await self._save(stage, load, report, answers)
        refused = [
            SessionTransitionInfo(move.session_id, move.from_status, MoveReason.HOLD_REFUSED)
            for move, verdict in applied.verdicts
            if verdict is Verdict.REJECTED
        ]
        verdicts = applied.verdicts
        if refused:
            again = await self._save(stage, load, SessionExecutionResult(failures=refused))
            verdicts += again.verdicts
        self._observer.ran(scaling_group, stage, self._clock.now() - began_at, verdicts)
        return applied

    async def _save(
        self,
        stage: Stage,
        load: StageLoad,
        report: SessionExecutionResult,
        answers: Sequence[Answer] = (),
    ) -> Applied:
        if stage is SCHEDULE_SESSIONS:
            self._note_waits(report)
        moves = settle(stage, load, report)
        applied = await self._store.apply(moves, answers) if moves or answers else Applied()
        self.tell(applied)
        self._keep_time(stage, load)
        return applied

    def _note_waits(self, report: SessionExecutionResult) -> None:
        """Keep why each PENDING session waits; one that failed waits for its next attempt."""
        waits = {info.session_id: info.wait or _NOT_EXAMINED for info in report.skipped}
        for info in report.failures:
            facts = {"reason": info.reason, "detail": info.detail}
            waits[info.session_id] = info.wait or Wait(WaitReason.WAITING_FOR_RETRY, facts)
        self._store.note_waits(waits)

    # --- time -----------------------------------------------------------------------------------

    def _keep_time(self, stage: Stage, load: StageLoad) -> None:
        """Have the stage run again when the next back-off or limit of its sessions is over."""
        for session in (*load.taken, *load.backing_off, *load.awaited):
            current = self._store.live.sessions.get(session.session_id)
            if current is not None and current.status in stage.takes | stage.awaits:
                for at in self._moments(stage, current):
                    if at > load.now:
                        self._cadence.wake_at((current.scaling_group, stage.name), at)

    def _wake_when_due(self, scaling_group: str, session_id: str) -> None:
        """Have the stages that look at a session run when its limits are over."""
        session = self._store.live.sessions.get(session_id)  # type: ignore[call-overload]
        if session is None:
            return
        for handler in self._handlers.values():
            stage = handler.stage
            if session.status in stage.takes | stage.awaits:
                for at in self._moments(stage, session):
                    self._cadence.wake_at((scaling_group, stage.name), at)

    def _moments(self, stage: Stage, session: SessionWithKernels) -> list[float]:
        """Return when the clock alone will give the stage work at a session."""
        moments = []
        attempts = session.attempts.get(stage.name)
        if attempts is not None and attempts.retry_at:
            moments.append(attempts.retry_at)
        if stage is SCHEDULE_SESSIONS:
            if session.begin_at is not None:
                moments.append(session.begin_at)
        elif stage is SWEEP_SESSIONS:
            if (timeout_s := self._store.pending_timeout_of(session)) is not None:
                moments.append(session.pending_since + timeout_s)
        elif at := self._expires_at(stage, session):
            moments.append(at)
        return moments

    def _expires_at(self, stage: Stage, session: SessionWithKernels) -> float | None:
        group = self._store.groups[session.scaling_group]
        return expires_at(stage, session, group, self._store.taken_over_at(group.name))

    async def run_due(self) -> int:
        """Run what is due, one after the other; return how much that was. For the simulator."""
        now = self._clock.now()
        due = self._cadence.due(now)
        for key in due:
            self._cadence.begin(key, now)
            await self._run_one(key)
        return len(due)

    def next_at(self) -> float:
        """Return when something will be due."""
        return self._cadence.next_at()

    async def run(self) -> None:
        """Run for ever.

        Of a group that another manager drives, nothing is run.
        """
        async with asyncio.TaskGroup() as self._tasks:
            while True:
                now = self._clock.now()
                for key in self._cadence.due(now):
                    self._cadence.begin(key, now)
                    self._tasks.create_task(self._run_one(key))
                self._wake.clear()
                pause_s = min(self._cadence.next_at() - now, self._config.hint_cycle_s)
                with contextlib.suppress(TimeoutError):
                    # not `wait_for`: it loses a cancellation that comes together with the event
                    async with asyncio.timeout(max(pause_s, 0.0)):
                        await self._wake.wait()

    async def beside(self, work: Coroutine[Any, Any, None]) -> None:
        """Have `work` done beside what else runs; at once, when `run` is not running."""
        if self._tasks is None:
            await self._guarded(work)
        else:
            self._tasks.create_task(self._guarded(work))

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except LeaseLostError as error:
            log.warning("what an agent answered is for another manager to record", why=str(error))
        except StoreUnavailableError as error:
            log.warning("what an agent answered cannot be written down yet", why=error.message)
        except Exception:
            log.exception("what an agent answered was not recorded; it will say it again")

    async def _run_one(self, key: object) -> None:
        began_at, rests = self._clock.now(), False
        try:
            if isinstance(key, str):
                await self._chores[key].run()
            elif (run := self._runs.get(key)) is None:  # type: ignore[call-overload]
                pass  # its group is gone
            elif self._store.leads(run.scaling_group):
                await self.run_stage(run.handler, run.scaling_group)
                rests = run.handler.stage is SCHEDULE_SESSIONS
        except LeaseLostError as error:
            log.warning("another manager has taken over", why=error.message)
        except Exception as error:
            if isinstance(error, StoreUnavailableError):  # a traceback would say no more
                log.warning("will be tried again", what=str(key), why=error.message)
            else:
                log.exception("will be tried again", what=str(key))
            self._cadence.wake_at(key, self._clock.now() + self._config.hint_cycle_s)
        finally:
            now = self._clock.now()
            rest_s = min(now - began_at, PASS_REST_S_MAX) if rests else 0.0
            self._cadence.end(key, rest_until=now + rest_s)
            self._wake.set()

    # --- agents that fall silent ----------------------------------------------------------------

    async def watch_agents(self) -> None:
        """Count silent agents as lost, and those lost beyond their grace as gone."""
        now = self._clock.now()
        for agent in list(self._store.live.agents.values()):
            if not self._store.leads(agent.scaling_group):
                continue
            try:
                await self._watch(agent, now)
            except (LeaseLostError, StoreUnavailableError):
                raise
            except Exception:  # one agent's trouble must not hide the others'
                log.exception("agent cannot be judged", agent=agent.name)

    async def _watch(self, agent: Agent, now: float) -> None:
        if agent.status is AgentStatus.ALIVE:
            if now - agent.last_seen_at >= self._config.agent_silence_s:
                log.warning("agent is lost", agent=agent.name)
                self.tell(await self._store.set_agent_status(agent.agent_id, AgentStatus.LOST))
        elif agent.status is AgentStatus.LOST:
            group = self._store.groups.get(agent.scaling_group)
            grace_s = group.agent_grace_s if group else 0.0
            # it may have been heard of since, while the store refused to have it back
            silent_since = max(agent.lost_since or now, agent.last_seen_at)
            if now - silent_since >= grace_s:
                log.warning("agent is given up", agent=agent.name)
                self.tell(await self._store.set_agent_status(agent.agent_id, AgentStatus.GONE))
                self.hint(agent.scaling_group, SCHEDULE_SESSIONS)


def report_of_failure(
    taken: Sequence[SessionWithKernels], error: Exception
) -> SessionExecutionResult:
    """Say what an exception means for the sessions of a batch.

    An `AgentError` that names sessions fails only those; the others succeeded. Anything else fails
    the whole batch.
    """
    if isinstance(error, AgentError):
        if error.session_ids is None:
            return SessionExecutionResult(failures=each(taken, MoveReason.AGENT_FAILED, str(error)))
        failed = set(error.session_ids)
        return SessionExecutionResult(
            successes=each(
                [s for s in taken if s.session_id not in failed],
                MoveReason.TRIGGERED_BY_SCHEDULER,
            ),
            failures=each(
                [s for s in taken if s.session_id in failed], MoveReason.AGENT_FAILED, str(error)
            ),
        )
    detail = f"{type(error).__name__}: {error}"
    return SessionExecutionResult(failures=each(taken, MoveReason.HANDLER_FAILED, detail))
