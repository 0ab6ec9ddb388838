"""What a store remembers, as one value to be checked; read whole, or step by step."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import bindparam, select, text

from sokovan.domain.cluster import Agent, ScalingGroup
from sokovan.domain.resources import Hold
from sokovan.domain.sessions import AgentId, Kernel, SessionId, SessionWithKernels
from sokovan.domain.statuses import FINAL
from sokovan.scheduler.moves import HistoryLine
from sokovan.store.engine import Transaction
from sokovan.store.leases import read_cursors
from sokovan.store.rows import agent_of, hold_of, kernel_of, line_of, session_of
from sokovan.store.tables import agents, history, holds, kernels, scaling_groups, sessions

Touched = dict[str, set[SessionId]]
"""Whose rows were written to, by table."""


@dataclass(frozen=True, slots=True)
class Picture:
    """Everything that a store remembers, at one moment.

    Attributes:
        sessions: All of them, by id.
        holds: All of them, by token.
        agents: All of them, by id.
        history: The lines of each session, oldest first.
        groups: The policies; a group that is not named has the defaults.
        cursors: Where the last kernel of each group went.
        changed: The sessions to look at one by one: those that changed since the last picture.
        shrunk: The agents on which too much is held because they came back with less.
    """

    sessions: Mapping[SessionId, SessionWithKernels]
    holds: Mapping[str, Hold] = field(default_factory=dict)
    agents: Mapping[AgentId, Agent] = field(default_factory=dict)
    history: Mapping[SessionId, Sequence[HistoryLine]] = field(default_factory=dict)
    groups: Mapping[str, ScalingGroup] = field(default_factory=dict)
    cursors: Mapping[str, AgentId | None] = field(default_factory=dict)
    changed: Collection[SessionId] = ()
    shrunk: Collection[AgentId] = ()

    def looked_at(self) -> Iterable[SessionWithKernels]:
        """Iterate over the sessions to look at one by one."""
        return (self.sessions[session_id] for session_id in self.changed)

    def live(self) -> Iterable[SessionWithKernels]:
        """Iterate over the sessions that are not over."""
        return (session for session in self.sessions.values() if session.status not in FINAL)

    def group_of(self, session: SessionWithKernels) -> ScalingGroup:
        """Return the policy that a session is under."""
        return self.groups.get(session.scaling_group, _DEFAULT_GROUP)


_DEFAULT_GROUP = ScalingGroup()


def read_picture(tx: Transaction, groups: Mapping[str, ScalingGroup] | None = None) -> Picture:
    """Read all that a store remembers."""
    return Observer(groups or {}).look(tx)


class Observer:
    """Takes one picture after the other.

    Args:
        groups: The policies.
    """

    def __init__(self, groups: Mapping[str, ScalingGroup]) -> None:
        self._groups = groups
        self._is_watching = False
        self._sessions: dict[SessionId, SessionWithKernels] = {}
        self._history: dict[SessionId, list[HistoryLine]] = {}
        self._last_line = 0
        self._holds: dict[str, Hold] = {}
        self._agents: dict[AgentId, Agent] = {}
        self._cursors: dict[str, AgentId | None] = {}

    def watch(self, tx: Transaction) -> None:
        """Have the database write down what is written to, so that a look reads no more than that.

        For SQLite, and for looks through the same connection.
        """
        self._is_watching = True
        tx.execute(text("CREATE TEMP TABLE touched (what TEXT, session_id TEXT)"))
        for table in (sessions, kernels, history, holds, agents, scaling_groups):
            for event, row in (("INSERT", "NEW"), ("UPDATE", "NEW"), ("DELETE", "OLD")):
                whose = f"{row}.session_id" if "session_id" in table.c else "''"
                tx.execute(
                    text(
                        f"CREATE TEMP TRIGGER {table.name}_{event} AFTER {event} ON {table.name}"
                        f" BEGIN INSERT INTO touched VALUES ('{table.name}', {whose}); END"
                    )
                )

    def look(self, tx: Transaction, *, whole: bool = False) -> Picture:
        """Take a picture; `whole` reads everything, whether or not it was written to."""
        touched = None if whole or not self._is_watching else _take_touched(tx)
        changed = self._read_sessions(tx, touched) | self._read_history(tx, touched)
        if touched is None or "holds" in touched:
            self._holds = {row.token: hold_of(row) for row in tx.execute(_HOLDS)}
        if touched is None or "agents" in touched:
            self._agents = {AgentId(row.agent_id): agent_of(row) for row in tx.execute(_AGENTS)}
        if touched is None or "scaling_groups" in touched:
            self._cursors = read_cursors(tx)
        return Picture(
            dict(self._sessions),
            self._holds,
            self._agents,
            self._history,
            self._groups,
            self._cursors,
            tuple(self._sessions if touched is None else sorted(changed & self._sessions.keys())),
        )

    def _read_sessions(self, tx: Transaction, touched: Touched | None) -> set[SessionId]:
        """Read the sessions that were written to; return those that are not what they were."""
        known: list[SessionId] = []
        if touched is None:
            rows, kernel_rows = tx.execute(_SESSIONS), tx.execute(_KERNELS)
        else:
            known = sorted(touched["sessions"] | touched["kernels"])
            if not known:
                return set()
            rows = tx.execute(_SESSIONS_BY_ID, {"ids": known})
            kernel_rows = tx.execute(_KERNELS_BY_ID, {"ids": known})
        parts: dict[str, list[Kernel]] = defaultdict(list)
        for row in kernel_rows:
            parts[row.session_id].append(kernel_of(row))
        found = {SessionId(row.session_id): session_of(row, parts[row.session_id]) for row in rows}
        changed = {i for i in found if found[i] != self._sessions.get(i)}
        if touched is None:
            self._sessions = found
        else:
            for gone in (i for i in known if i not in found):
                self._sessions.pop(gone, None)
            self._sessions |= found
        return changed

    def _read_history(self, tx: Transaction, touched: Touched | None) -> set[SessionId]:
        if touched is None:
            self._history, self._last_line = {}, 0
        elif "history" not in touched:
            return set()
        changed = set()
        for row in tx.execute(_LINES_AFTER, {"line": self._last_line}):
            line = line_of(row)
            self._history.setdefault(line.session_id, []).append(line)
            self._last_line = row.line
            changed.add(line.session_id)
        return changed


def _take_touched(tx: Transaction) -> Touched:
    touched: Touched = defaultdict(set)
    sqlite: Any = tx.connection.connection.driver_connection  # asked at every step: the short way
    for what, session_id in sqlite.execute("SELECT DISTINCT what, session_id FROM touched"):
        touched[what].add(SessionId(session_id))
    sqlite.execute("DELETE FROM touched")
    return touched


# Made once: building a statement takes longer than running it.
_AMONG: Any = bindparam("ids", expanding=True)
_SESSIONS = select(sessions).order_by(sessions.c.number)
_SESSIONS_BY_ID = _SESSIONS.where(sessions.c.session_id.in_(_AMONG))
_KERNELS = select(kernels).order_by(kernels.c.session_id, kernels.c.kernel_index)
_KERNELS_BY_ID = _KERNELS.where(kernels.c.session_id.in_(_AMONG))
_HOLDS = select(holds).order_by(holds.c.token)
_AGENTS = select(agents).order_by(agents.c.agent_id)
_LINES_AFTER = select(history).where(history.c.line > bindparam("line")).order_by(history.c.line)
