"""Changing sessions that are there: what they were submitted as, and submitting them again."""

from collections.abc import Callable
from dataclasses import replace

from sokovan.api.acceptance import check_all
from sokovan.api.lookup import Lookup
from sokovan.api.root_rule import ANYBODY, RootRule
from sokovan.api.service import View
from sokovan.clock import Clock
from sokovan.domain.access import Caller, Role
from sokovan.domain.errors import ForbiddenError, IllegalStateError
from sokovan.domain.sessions import SessionId, SessionSpec, SessionWithKernels
from sokovan.domain.statuses import SessionStatus
from sokovan.scheduler.moves import Applied
from sokovan.store.edits import Again
from sokovan.store.engine import Database
from sokovan.store.queries import sessions_with_specs
from sokovan.store.repository import SqlRepository

Change = Callable[[SessionSpec], SessionSpec]
"""Returns what was submitted as it is to be."""


class Edits(Lookup):
    """Edits sessions, and submits them again.

    Args:
        repository: Writes, and knows what is alive.
        database: Reads.
        clock: The time.
        tell: Takes what a request has changed.
        root_rule: Says whether sessions of root are accepted.
    """

    def __init__(
        self,
        repository: SqlRepository,
        database: Database,
        clock: Clock,
        tell: Callable[[Applied], None],
        root_rule: RootRule = ANYBODY,
    ) -> None:
        super().__init__(repository, database, clock, tell)
        self._root_rule = root_rule

    async def edit(self, ref: str, change: Change, *, caller: Caller) -> View:
        """Change what a session was submitted as; return the session.

        Raises:
            IllegalStateError: It does not wait any more.
            ForbiddenError: It is somebody else's; or it runs, and may not run for longer.
            InvalidRequestError, InfeasibleRequestError: Nobody could have submitted it like that.
        """
        session_id = await self._resolve_own(ref, caller)
        applied = None
        while applied is None:  # it has moved on meanwhile: whatever is to be said is said of that
            session, before = await self._as_stored(session_id)
            after = change(before)
            if after == before:
                return self._views_of([(session, before)], caller)[0]
            _may_become(session, before, after, caller)
            self._check(after, is_other=_asks(after) != _asks(before))
            applied = await self._repository.edit(session, before, after, by=caller)
        self._tell(applied)
        (view,) = await self._views([session_id], caller)
        return view

    async def redo(self, ref: str, change: Change, asked: str, *, caller: Caller) -> View:
        """Submit again what a session was, for the same owner; return the new session.

        What the first one still waits for, the new one waits for, too.

        Args:
            ref: The session.
            change: What is to be different.
            asked: The same in words, so that it is known again under the same creation id.
            caller: Who asks.
        """
        session_id = await self._resolve_own(ref, caller)
        session, before = await self._as_stored(session_id)
        begin_at = before.begin_at
        is_past = begin_at is not None and begin_at <= self._clock.now()
        before = replace(
            before,
            begin_at=None if is_past else begin_at,
            depends_on=() if session.status.is_final else session.unmet,
        )
        spec = change(before)
        self._root_rule.check([spec])
        self._check(spec, is_other=True)
        again = Again(session_id, asked)
        (made,), applied = await self._repository.submit([spec], by=caller, again=again)
        self._tell(applied)
        (view,) = await self._views([made], caller)
        return view

    async def _as_stored(self, session_id: SessionId) -> tuple[SessionWithKernels, SessionSpec]:
        found = await self._database.read(lambda tx: sessions_with_specs(tx, [session_id]))
        return found[0]

    def _check(self, spec: SessionSpec, *, is_other: bool) -> None:
        """Check a submission; one that asks for nothing new may wait for agents as it did."""
        if not is_other:
            spec = replace(spec, allow_infeasible=True)
        (error,) = check_all([spec], self._repository.groups, self._repository.machines_of)
        if error is not None:
            raise error


def _asks(spec: SessionSpec) -> tuple[object, ...]:
    return spec.request, spec.where, spec.allow_infeasible


def _may_become(
    session: SessionWithKernels, before: SessionSpec, after: SessionSpec, caller: Caller
) -> None:
    """Make sure that a session is in a status in which it can be changed like that."""
    only_walltime = after == replace(before, walltime_s=after.walltime_s)
    if session.status is SessionStatus.RUNNING and only_walltime:
        was, will_be = before.walltime_s, after.walltime_s
        is_longer = will_be is None or (was is not None and will_be > was)
        if is_longer and caller.role is not Role.ADMIN:
            raise ForbiddenError(
                f"walltime_s: session {session.session_id} runs, and others count on its end; you"
                " may make its time shorter, and only an administrator may make it longer",
                field="walltime_s",
            )
    elif session.status is not SessionStatus.PENDING:
        raise IllegalStateError(
            f"session {session.session_id} is {session.status}; only a PENDING one can be edited,"
            " and of a RUNNING one its walltime (--time); to run it otherwise, `sokovan redo` it"
        )
