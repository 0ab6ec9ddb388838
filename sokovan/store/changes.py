"""One transaction's worth of changes to sessions: load, change by the rules, save together.

The number of statements does not grow with the number of sessions: each table is read once and
written once, whatever the changes are.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from sqlalchemy import select, update

from sokovan.domain.cluster import AgentStatus, ScalingGroup
from sokovan.domain.reasons import EndReason
from sokovan.domain.resources import Hold, over_held, used_by
from sokovan.domain.sessions import AgentId, Dependency, Kernel, SessionId, SessionWithKernels
from sokovan.domain.statuses import WAITING, SessionResult
from sokovan.identity import IdSource
from sokovan.scheduler.change import SessionChange
from sokovan.scheduler.moves import Applied, Move, Moved, Verdict
from sokovan.scheduler.settle import caught_up
from sokovan.store.array_places import count_and_open
from sokovan.store.bulk import Among, Delete, Insert, Update
from sokovan.store.engine import Transaction, in_parts
from sokovan.store.live import Live
from sokovan.store.loading import load_sessions, load_specs
from sokovan.store.rows import (
    agent_of,
    hold_of,
    hold_values,
    kernel_values,
    line_values,
    session_values,
)
from sokovan.store.submissions import INSERT_LINES, Entry, insert_sessions, new_session
from sokovan.store.tables import agents, dependencies, holds, kernels, sessions

BY_DEPENDENCY = "dependencies"


class ChangeSet:
    """The changes of one transaction."""

    def __init__(self, tx: Transaction, live: Live, ids: IdSource, now: float) -> None:
        self._tx = tx
        self._live = live
        self._ids = ids
        self._now = now
        self._changes: dict[SessionId, SessionChange] = {}
        self._released: list[Hold] = []
        self._holds: dict[str, Hold] = {}
        self._followers: list[SessionWithKernels] = []

    def load(self, session_ids: Iterable[SessionId]) -> None:
        """Read sessions as they are in this transaction."""
        wanted = [i for i in dict.fromkeys(session_ids) if i not in self._changes]
        for session in load_sessions(self._tx, wanted):
            self._changes[session.session_id] = SessionChange(session, self._now)

    def load_holds(self, tokens: Iterable[str]) -> dict[str, Hold]:
        """Read holds by token as they are in this transaction; tokens without one are left out."""
        wanted = list(dict.fromkeys(tokens))
        for part in in_parts([token for token in wanted if token not in self._holds]):
            for row in self._tx.execute(_HOLDS_BY_TOKEN, part):
                self._holds[row.token] = hold_of(row)
        return {token: self._holds[token] for token in wanted if token in self._holds}

    def get(self, session_id: SessionId) -> SessionChange | None:
        """Return the change of a loaded session."""
        return self._changes.get(session_id)

    def __iter__(self) -> Iterator[SessionChange]:
        return iter(tuple(self._changes.values()))

    def apply(
        self, moves: Sequence[Move], group_of: Callable[[str], ScalingGroup]
    ) -> list[tuple[Move, Verdict]]:
        """Do what still holds of `moves`; say what became of each."""
        self.load(move.session_id for move in moves)
        room = _Room(self._tx, moves)
        verdicts = []
        for move in moves:
            change = self._changes.get(move.session_id)
            if change is None or not change.still_holds(move) or _held_back(change, move):
                verdicts.append((move, Verdict.SUPERSEDED))
                self._put_right(move.session_id, change)
                continue
            group = group_of(change.session.scaling_group)
            attempt = SessionChange(change.session, self._now)
            due = caught_up(move, change.session, group)
            attempt.move(due, self._ids.token, group.requeues_max)
            if attempt.added and not room.take(attempt.added):
                verdicts.append((move, Verdict.REJECTED))
                continue
            change.absorb(attempt)
            verdicts.append((move, Verdict.APPLIED))
        return verdicts

    def _put_right(self, session_id: SessionId, change: SessionChange | None) -> None:
        """The move was decided on a shadow that may have gone astray: show it what is true."""
        if change is None:
            self._tx.after_commit(lambda: self._live.forget_session(session_id))
        else:
            true = change.before
            self._tx.after_commit(lambda: self._live.put_sessions([true]))

    def release(self, hold: Hold) -> None:
        """End the hold of a leftover that its agent has confirmed gone."""
        self._released.append(hold)

    def save(self, verdicts: Sequence[tuple[Move, Verdict]] = ()) -> Applied:
        """Write everything, and move the shadow once it is durable."""
        self._settle_dependents()
        changed = [change for change in self._changes.values() if not change.is_empty]
        self._save_sessions(changed)
        pairs = [(change.before, change.session) for change in changed]
        opened = count_and_open(self._tx, pairs, self._followers, self._now)
        self._save_holds(changed)
        lines = [line_values(line) for change in changed for line in change.lines]
        if lines:
            self._tx.execute(INSERT_LINES, lines)
        moved = [
            Moved(
                change.session.session_id,
                change.session.scaling_group,
                change.before.status,
                change.session.status,
            )
            for change in changed
            if change.session.status_seq != change.before.status_seq
            or change.session.force != change.before.force  # stops are to be sent again
        ]
        moved += [
            Moved(session.session_id, session.scaling_group, None, session.status)
            for session in self._followers
        ]
        now_live = [*(change.session for change in changed), *self._followers, *opened]
        self._tx.after_commit(lambda: self._live.put_sessions(now_live))
        self._tx.news.sessions.update(session.session_id for session in now_live)
        self._tx.news.sessions.update(hold.session_id for hold in self._released)
        return Applied(
            tuple(moved),
            tuple(verdicts),
            frozenset((*self._groups_freed(changed), *(task.scaling_group for task in opened))),
            left_over=any(change.left_over for change in changed),
            wrote=bool(lines or self._followers),
        )

    def _groups_freed(self, changed: Iterable[SessionChange]) -> Iterator[str]:
        for change in changed:
            if change.released or change.session.unmet != change.before.unmet:
                yield change.session.scaling_group
        for hold in self._released:
            agent = self._live.agents.get(AgentId(hold.agent_id))
            if agent is not None:
                yield agent.scaling_group

    # --- dependents and retries -----------------------------------------------------------------

    def _settle_dependents(self) -> None:
        """Tell those who wait for a session that has ended; some of them end in turn."""
        told: set[SessionId] = set()
        while ended := {
            change.session.session_id: change.session
            for change in self._changes.values()
            if change.session.status.is_final
            and not change.before.status.is_final
            and change.session.session_id not in told
        }:
            told |= ended.keys()
            followers = self._retry(ended.values())
            rows = [
                row for ids in in_parts(list(ended)) for row in self._tx.execute(_DEPENDENTS, ids)
            ]
            self.load(SessionId(row.session_id) for row in rows)
            for row in rows:
                self._tell(
                    self._changes[row.session_id],
                    ended[row.depends_on],
                    followers.get(row.depends_on),
                )

    def _tell(
        self, change: SessionChange, ended: SessionWithKernels, follower: SessionId | None
    ) -> None:
        session = change.session
        if session.status not in WAITING:
            return
        unmet = []
        for dependency in session.unmet:
            if dependency.session_id != ended.session_id:
                unmet.append(dependency)
            elif follower is not None:
                unmet.append(replace(dependency, session_id=follower))
                self._tx.execute(
                    update(dependencies)
                    .where(dependencies.c.session_id == session.session_id)
                    .where(dependencies.c.depends_on == ended.session_id)
                    .values(depends_on=follower)
                )
            elif not dependency.kind.is_met_by(ended.result):
                change.request_termination(
                    force=False,
                    reason=EndReason.DEPENDENCY_FAILED,
                    detail=_why_failed(dependency, ended),
                    stage=BY_DEPENDENCY,
                )
                return
        change.session = replace(session, unmet=tuple(unmet))

    def _retry(self, ended: Iterable[SessionWithKernels]) -> dict[SessionId, SessionId]:
        """Submit again what failed by exit code and asked for it; return new ids by old ones."""
        failed = [
            session
            for session in ended
            if session.retries
            and session.result is SessionResult.FAILURE
            and session.reason == EndReason.KERNEL_FAILED
        ]
        if not failed:
            return {}
        specs = load_specs(self._tx, [session.session_id for session in failed])
        made = {}
        entries = []
        for session in failed:
            spec = replace(
                specs[session.session_id],
                retries=session.retries - 1,
                priority=session.priority,
                depends_on=(),
                begin_at=None,
                held=False,
                creation_id=None,
            )
            follower = new_session(spec, self._ids, self._now, again=session)
            made[session.session_id] = follower.session_id
            entries.append(Entry(spec, follower))
        self._followers += insert_sessions(self._tx, entries)
        return made

    # --- writing --------------------------------------------------------------------------------

    def _save_sessions(self, changed: Sequence[SessionChange]) -> None:
        rows = [
            session_values(change.session)
            | {"at_id": change.session.session_id, "at_seq": change.before.status_seq}
            for change in changed
            if change.session is not change.before
        ]
        if rows:
            done = self._tx.execute(_UPDATE_SESSION, rows)
            assert done == len(rows), "a session changed under its own transaction"
        kernel_rows = [
            kernel_values(kernel) | {"at_id": kernel.kernel_id}
            for change in changed
            for kernel, before in zip(change.session.kernels, change.before.kernels, strict=True)
            if kernel is not before
        ]
        if kernel_rows:
            self._tx.execute(_UPDATE_KERNEL, kernel_rows)

    def _save_holds(self, changed: Sequence[SessionChange]) -> None:
        added = [hold for change in changed for hold in change.added]
        released = [token for change in changed for token in change.released]
        left_over = [token for change in changed for token in change.left_over]
        released += [hold.token for hold in self._released]
        before = self.load_holds([*released, *left_over])
        begun = [replace(before[t], leftover_since=self._now) for t in left_over if t in before]
        ended = [before[token] for token in released if token in before]
        if added:
            self._tx.execute(_INSERT_HOLDS, [hold_values(hold) for hold in added])
        if begun:
            rows = [{"at_id": h.token, "leftover_since": h.leftover_since} for h in begun]
            self._tx.execute(_LEAVE_OVER, rows)
        if ended:
            self._tx.execute(_DELETE_HOLDS, [hold.token for hold in ended])

        def shadow() -> None:
            for hold in (*added, *begun):
                self._live.put_hold(hold)
            for hold in ended:
                self._live.drop_hold(hold)

        self._tx.after_commit(shadow)


class _Room:
    """What is free on the agents that a batch of moves assigns kernels to.

    Nothing on one that is lost, or was drained since.
    """

    def __init__(self, tx: Transaction, moves: Iterable[Move]) -> None:
        wanted = sorted({k.agent_id for move in moves for k in move.assignment or ()})
        if not wanted:
            return
        found = [agent_of(row) for row in tx.execute(_AGENTS_BY_ID, wanted)]
        self._capacity = {
            agent.agent_id: agent.capacity
            for agent in found
            if agent.status is AgentStatus.ALIVE and agent.drained_since is None
        }
        held: dict[str, list[Hold]] = {agent_id: [] for agent_id in wanted}
        for row in tx.execute(_HOLDS_BY_AGENT, wanted):
            held[row.agent_id].append(hold_of(row))
        self._used = {agent_id: used_by(on_agent) for agent_id, on_agent in held.items()}

    def take(self, added: Sequence[Hold]) -> bool:
        """Take all of `added`, or nothing when some agent has no room for its part."""
        used = dict(self._used)
        for hold in added:
            used[hold.agent_id] = used[hold.agent_id].plus(
                hold.cpu_milli, hold.mem_bytes, hold.devices
            )
        for agent_id in {hold.agent_id for hold in added}:
            capacity = self._capacity.get(AgentId(agent_id))
            if capacity is None or over_held(capacity, used[agent_id]) is not None:
                return False
        self._used = used
        return True


_UPDATE_SESSION = Update(
    sessions,
    "session_id",
    session_values(SessionWithKernels(SessionId(""))),
    guard="status_seq",
)
"""Compare-and-set: only where `status_seq` is still what was read."""
_UPDATE_KERNEL = Update(kernels, "kernel_id", kernel_values(Kernel()))
_INSERT_HOLDS = Insert(holds)
_LEAVE_OVER = Update(holds, "token", ["leftover_since"])
_DELETE_HOLDS = Delete(holds, "token")
_HOLDS_BY_TOKEN = Among(select(holds), holds.c.token)
_HOLDS_BY_AGENT = Among(select(holds), holds.c.agent_id)
_AGENTS_BY_ID = Among(select(agents), agents.c.agent_id)
_DEPENDENTS = Among(
    select(dependencies.c.session_id, dependencies.c.depends_on), dependencies.c.depends_on
)


def _held_back(change: SessionChange, move: Move) -> bool:
    """Its user may have held it back since the pass began, which changes no status."""
    return move.assignment is not None and (change.session.held or change.session.array_waits)


def _why_failed(dependency: Dependency, ended: SessionWithKernels) -> str:
    return f"{dependency.kind} {ended.session_id}, which ended {ended.status} ({ended.reason})"
