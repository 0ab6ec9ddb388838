"""Keeping up with what other managers write: hints say what, the rows say how it is."""

from collections.abc import Callable, Collection, Iterable, Mapping

from sqlalchemy import select

from sokovan.domain.cluster import Agent
from sokovan.domain.resources import Hold
from sokovan.domain.sessions import SessionId, SessionWithKernels
from sokovan.scheduler.moves import Applied, Moved
from sokovan.store.bulk import Among
from sokovan.store.engine import Transaction, in_parts
from sokovan.store.leading import Leading
from sokovan.store.loading import load_sessions
from sokovan.store.news import News
from sokovan.store.rows import agent_of, hold_of
from sokovan.store.tables import agents, holds

_HOLDS_BY_SESSION = Among(select(holds), holds.c.session_id)


class Following(Leading):
    """The part of the repository that takes over what other managers have written."""

    async def catch_up(self, news: News) -> Applied:
        """Read again what another manager has changed; return what that means here.

        In turn with what this manager writes, so that the shadow only moves forward.
        """
        if news.groups:
            groups, before = set(self._groups), dict(self.live.sessions)
            await self.refresh()
            return Applied(
                moved=_moves(before, await self._read_since(before)),
                policies=frozenset(groups | set(self._groups)),
                freed=frozenset(self._groups),
                left_over=True,
                wrote=True,
            )
        applied: list[Applied] = []
        if await self._write(lambda tx: self.read_news(tx, news, applied.append)):
            return applied[0]
        return await self.catch_up(News(groups=True))

    async def _read_since(self, before: Collection[SessionId]) -> list[SessionWithKernels]:
        """Return what is alive, and what has ended of `before`, which the shadow has forgotten."""
        live = self.live.sessions
        ended = [session_id for session_id in before if session_id not in live]
        return [*live.values(), *await self._database.read(lambda tx: load_sessions(tx, ended))]

    def read_news(self, tx: Transaction, news: News, done: Callable[[Applied], None]) -> bool:
        """Read what has changed, to be shown once the transaction is over.

        Returns:
            Whether that is enough: there may be groups that are not known here.
        """
        ids = [SessionId(i) for i in sorted(news.sessions)]
        found = load_sessions(tx, ids)
        if any(session.scaling_group not in self._groups for session in found):
            return False
        held = [
            hold_of(row) for part in in_parts(ids) for row in tx.execute(_HOLDS_BY_SESSION, part)
        ]
        there = [agent_of(row) for row in tx.execute(select(agents))] if news.agents else None
        tx.after_commit(lambda: done(self._show(ids, found, held, there)))
        return True

    def _show(
        self,
        ids: Collection[SessionId],
        found: Collection[SessionWithKernels],
        held: Collection[Hold],
        there: Collection[Agent] | None,
    ) -> Applied:
        """Move the shadow to what was read."""
        before = {i: self.live.sessions.get(i) for i in ids}
        self.live.put_holds_of(set(ids), held)
        self.live.put_sessions(found)
        for session_id in before.keys() - {session.session_id for session in found}:
            self.live.forget_session(session_id)
        if there is not None:
            self.live.put_stored(there)
            self._hear_of_others(self.live)
        groups = {session.scaling_group for session in found}
        groups |= {agent.scaling_group for agent in there or ()}
        return Applied(
            moved=_moves(before, found),
            freed=frozenset(groups),
            left_over=any(hold.is_leftover for hold in held),
            wrote=bool(ids),
        )


def _moves(
    before: Mapping[SessionId, SessionWithKernels | None], now: Iterable[SessionWithKernels]
) -> tuple[Moved, ...]:
    """Return what has become of sessions, as another manager would have told."""
    return tuple(
        Moved(s.session_id, s.scaling_group, None if was is None else was.status, s.status)
        for s in now
        if (was := before.get(s.session_id)) is None
        or (was.status_seq, was.force) != (s.status_seq, s.force)
    )
