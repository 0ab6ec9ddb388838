"""A repository that checks after every change what must always hold."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from sqlalchemy import select

from sokovan.domain.resources import Hold, over_held, used_by
from sokovan.domain.sessions import SessionId, SessionWithKernels
from sokovan.domain.statuses import FINAL, KERNEL_RANK, KernelStatus
from sokovan.placement.engine import place
from sokovan.scheduler.moves import HistoryLine
from sokovan.simulator.array_checks import OF_ARRAYS
from sokovan.simulator.observe import Picture
from sokovan.store.engine import Transaction
from sokovan.store.grounds import Grounds
from sokovan.store.leases import read_live
from sokovan.store.live import Live
from sokovan.store.loading import load_sessions
from sokovan.store.repository import SqlRepository
from sokovan.store.rows import line_of
from sokovan.store.tables import history, sessions

CHANGES = (
    "apply",
    "create_group",
    "edit",
    "end_tasks",
    "lower_session_priority",
    "record_reports",
    "refresh",
    "register_agent",
    "remove_agent",
    "remove_group",
    "request_termination",
    "set_agent_status",
    "set_drained",
    "set_held",
    "set_labels",
    "set_policy",
    "set_tasks_held",
    "submit",
    "submit_array",
)


class CheckedRepository(SqlRepository):
    """A `SqlRepository` that fails the test when a change leaves something wrong behind.

    Attributes:
        checks_holds: Whether agents may not be over-held; an agent that shrinks is, for a while.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.checks_holds = True
        self._under_way = 0
        self._ended: dict[SessionId, SessionWithKernels] = {}
        self._reasons: dict[SessionId, str] = {}
        self._seqs: dict[SessionId, int] = defaultdict(int)

    async def check(self) -> None:
        """Compare the store with its shadow and with itself."""

        def job(tx: Transaction) -> tuple[Live, list[SessionWithKernels], list[HistoryLine]]:
            ids = list(tx.execute(select(sessions.c.session_id)).scalars())
            lines = tx.execute(select(history).order_by(history.c.line))
            return read_live(tx), load_sessions(tx, ids), [line_of(row) for row in lines]

        true, everything, lines = await self._database.read(job)
        self._check_shadow(true)
        self._check_grounds(true)
        self._check_holds(true)
        self._check_sessions(everything)
        check_history(everything, lines)
        picture = Picture({s.session_id: s for s in everything}, changed=list(true.sessions))
        assert [sentence for check in OF_ARRAYS for sentence in check(picture)] == []

    def _check_shadow(self, true: Live) -> None:
        assert self.live.sessions == true.sessions, "the shadow shows other sessions than there are"
        assert _buckets(self.live) == _buckets(true), "a session is filed under another status"
        for array_id in {s.array_id for s in true.sessions.values()} - {None}:
            shown, alive = (
                {task.session_id for task in live.tasks_of(array_id)} for live in (self.live, true)
            )
            assert shown == alive, f"the shadow shows other tasks of {array_id}"
        assert set(self.live.leftovers()) == set(true.leftovers())
        assert _timeless(self.live) == _timeless(true), "the shadow shows other agents"
        for agent_id in self.live.agents:
            assert set(self.live.holds_on(agent_id)) == set(true.holds_on(agent_id))
        assert self.live.waits.keys() <= true.sessions.keys(), "a wait without its session"

    def _check_grounds(self, true: Live) -> None:
        """What placement works on equals what is built anew; see tests/property too."""
        now = self._clock.now()
        for group in self.groups.values():
            kept = self.snapshot(group.name)
            anew = Grounds(true.sessions, self.live._as_placement_sees).of(
                group,
                self.live.agents_of,
                lambda: (hold for agent_id in true.agents for hold in true.holds_on(agent_id)),
            )
            expected = anew.at(now, group, kept.waiting_for_old)
            expected.promises, expected.usual = kept.promises, kept.usual
            kept.memory.clear()  # as in every full cycle: times may have moved a reservation
            found, wanted = place(kept), place(expected)
            assert dict(found.placed) == dict(wanted.placed), "a kept snapshot gives another plan"
            assert dict(found.waits) == dict(wanted.waits), "a kept snapshot gives other reasons"

    def _check_holds(self, true: Live) -> None:
        held: list[Hold] = [hold for agent_id in true.agents for hold in true.holds_on(agent_id)]
        alive = {
            kernel.token
            for session in true.sessions.values()
            for kernel in session.kernels
            if kernel.token is not None and not kernel.status.is_final
        }
        assert {hold.token for hold in held if not hold.is_leftover} == alive, (
            "every live kernel holds what it asked for, and nothing else does but leftovers"
        )
        if self.checks_holds:
            for agent in true.agents.values():
                over = over_held(agent.capacity, used_by(true.holds_on(agent.agent_id)))
                assert over is None, f"{agent.agent_id} is over-held: {over}"

    def _check_sessions(self, everything: Iterable[SessionWithKernels]) -> None:
        for session in everything:
            session_id = session.session_id
            assert session.status_seq >= self._seqs[session_id], "status_seq went back"
            self._seqs[session_id] = session.status_seq
            first = self._reasons.setdefault(session_id, session.reason) if session.reason else None
            assert session.reason == first, "the first reason stays"
            if session.status in FINAL:
                before = self._ended.setdefault(session_id, session)
                assert session == before, "what has ended never changes"
                assert all(kernel.status.is_final for kernel in session.kernels)
                assert session.ended_at is not None
                assert session.reason is not None


def check_history(everything: Iterable[SessionWithKernels], lines: Iterable[HistoryLine]) -> None:
    """Replay history: no gap, no step back, and it ends where the session and its kernels are."""
    reached: dict[str, str | None] = defaultdict(lambda: None)
    seqs: dict[str, int] = {}
    for line in lines:
        who = line.kernel_id or line.session_id
        assert line.from_status == reached[who], f"history of {who} has a gap before {line}"
        reached[who] = line.to_status
        if line.kernel_id is None:
            step = line.is_step and line.from_status is not None
            assert line.status_seq == seqs.get(who, 0) + step, f"status_seq jumps at {line}"
            seqs[who] = line.status_seq
        elif line.from_status is not None and line.to_status != KernelStatus.PENDING:
            ranks = [KERNEL_RANK[KernelStatus(s)] for s in (line.from_status, line.to_status)]
            assert ranks[0] < ranks[1], f"{who} went backwards: {line}"
    for session in everything:
        assert reached[session.session_id] == session.status
        assert seqs[session.session_id] == session.status_seq
        for kernel in session.kernels:
            assert reached[kernel.kernel_id] == kernel.status


def _buckets(live: Live) -> dict[tuple[str, str], set[SessionId]]:
    return {key: set(ids) for key, ids in live._by_status.items() if ids}


def _timeless(live: Live) -> dict[str, Any]:
    """Return the agents without the times that only memory knows exactly."""
    return {
        agent_id: replace(agent, last_seen_at=0.0, lost_since=None)
        for agent_id, agent in live.agents.items()
    }


def _checking(name: str) -> Any:
    async def changed(self: CheckedRepository, *args: Any, **kwargs: Any) -> Any:
        self._under_way += 1
        try:
            return await getattr(SqlRepository, name)(self, *args, **kwargs)
        finally:
            self._under_way -= 1
            if not self._under_way:  # what runs at the same time is checked when the last is done
                await self.check()

    return changed


for _name in CHANGES:
    setattr(CheckedRepository, _name, _checking(_name))
