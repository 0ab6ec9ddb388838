"""What a store remembers, as one value to be checked; read whole, or step by step."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Row, select

from sokovan.domain.cluster import Agent, ScalingGroup
from sokovan.domain.resources import Hold
from sokovan.domain.sessions import AgentId, SessionId, SessionWithKernels
from sokovan.domain.statuses import FINAL
from sokovan.scheduler.moves import HistoryLine
from sokovan.store.engine import Transaction
from sokovan.store.rows import agent_of, hold_of, kernel_of, line_of, session_of
from sokovan.store.tables import agents, history, holds, kernels, sessions

WHOLE_EVERY = 200
"""Every so many looks, an observer reads again what should never change."""


@dataclass(frozen=True, slots=True)
class Picture:
    """Everything that a store remembers, at one moment.

    Attributes:
        sessions: All of them, by id.
        holds: All of them, by token.
        agents: All of them, by id.
        history: The lines of each session, oldest first.
        groups: The policies; a group that is not named has the defaults.
        changed: The sessions to look at one by one: those that changed since the last picture.
    """

    sessions: Mapping[SessionId, SessionWithKernels]
    holds: Mapping[str, Hold] = field(default_factory=dict)
    agents: Mapping[AgentId, Agent] = field(default_factory=dict)
    history: Mapping[SessionId, Sequence[HistoryLine]] = field(default_factory=dict)
    groups: Mapping[str, ScalingGroup] = field(default_factory=dict)
    changed: Collection[SessionId] = ()

    def looked_at(self) -> Iterable[SessionWithKernels]:
        """Iterate over the sessions to look at one by one."""
        return (self.sessions[session_id] for session_id in self.changed)

    def group_of(self, session: SessionWithKernels) -> ScalingGroup:
        """Return the policy that a session is under."""
        return self.groups.get(session.scaling_group, _DEFAULT_GROUP)


_DEFAULT_GROUP = ScalingGroup()


def read_picture(tx: Transaction, groups: Mapping[str, ScalingGroup] | None = None) -> Picture:
    """Read all that a store remembers."""
    return Observer(groups or {}).look(tx)


class Observer:
    """Takes one picture after the other, and reads each time only what may have changed.

    Sessions that are over, and old history, are read again every `WHOLE_EVERY` pictures, so that a
    change there is seen too, only later.

    Args:
        groups: The policies.
    """

    def __init__(self, groups: Mapping[str, ScalingGroup]) -> None:
        self._groups = groups
        self._sessions: dict[SessionId, SessionWithKernels] = {}
        self._rows: dict[SessionId, tuple[Any, ...]] = {}
        self._history: dict[SessionId, list[HistoryLine]] = {}
        self._last_line = 0
        self._looks = 0

    def look(self, tx: Transaction, *, whole: bool = False) -> Picture:
        """Take a picture; `whole` reads everything again."""
        whole = whole or self._looks % WHOLE_EVERY == 0
        self._looks += 1
        changed = self._read_sessions(tx, whole=whole)
        changed |= self._read_history(tx, whole=whole)
        if whole:
            changed = set(self._sessions)
        return Picture(
            dict(self._sessions),
            {row.token: hold_of(row) for row in tx.execute(select(holds).order_by(holds.c.token))},
            {
                AgentId(row.agent_id): agent_of(row)
                for row in tx.execute(select(agents).order_by(agents.c.agent_id))
            },
            self._history,
            self._groups,
            tuple(session_id for session_id in self._sessions if session_id in changed),
        )

    def _read_sessions(self, tx: Transaction, *, whole: bool) -> set[SessionId]:
        rows = self._session_rows(tx, whole=whole)
        parts: dict[str, list[Row[Any]]] = {session_id: [] for session_id in rows}
        of_kernels = select(kernels).order_by(kernels.c.session_id, kernels.c.kernel_index)
        if not whole:
            of_kernels = of_kernels.where(kernels.c.session_id.in_(list(rows)))
        for row in tx.execute(of_kernels):
            parts.setdefault(row.session_id, []).append(row)
        changed = set()
        for session_id, row in rows.items():
            raw = (row, *parts[session_id])
            if self._rows.get(session_id) != raw:
                self._rows[session_id] = raw
                own = [kernel_of(kernel) for kernel in parts[session_id]]
                self._sessions[session_id] = session_of(row, own)
                changed.add(session_id)
        if whole:
            for session_id in [known for known in self._sessions if known not in rows]:
                del self._sessions[session_id]
        return changed

    def _session_rows(self, tx: Transaction, *, whole: bool) -> dict[SessionId, Row[Any]]:
        query = select(sessions).order_by(sessions.c.number)
        if whole:
            return {SessionId(row.session_id): row for row in tx.execute(query)}
        live = query.where(sessions.c.status.not_in(sorted(FINAL)))
        rows = {SessionId(row.session_id): row for row in tx.execute(live)}
        over = [
            session_id
            for session_id, session in self._sessions.items()
            if not session.status.is_final and session_id not in rows
        ]
        for row in tx.execute(query.where(sessions.c.session_id.in_(over))) if over else ():
            rows[SessionId(row.session_id)] = row
        return rows

    def _read_history(self, tx: Transaction, *, whole: bool) -> set[SessionId]:
        if whole:
            self._history, self._last_line = {}, 0
        query = select(history).where(history.c.line > self._last_line).order_by(history.c.line)
        changed = set()
        for row in tx.execute(query):
            line = line_of(row)
            self._history.setdefault(line.session_id, []).append(line)
            self._last_line = row.line
            changed.add(line.session_id)
        return changed
