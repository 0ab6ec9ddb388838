"""How sessions are found and shown; what others may not see of them is left out."""

from collections.abc import Callable, Iterable, Sequence

from sokovan.api.service import View
from sokovan.clock import Clock
from sokovan.domain.access import Caller, Role
from sokovan.domain.errors import ForbiddenError
from sokovan.domain.reasons import Wait
from sokovan.domain.sessions import SessionId, SessionSpec, SessionWithKernels
from sokovan.domain.statuses import SessionStatus
from sokovan.placement.sentences import sentence
from sokovan.scheduler.moves import Applied
from sokovan.store.engine import Database
from sokovan.store.queries import session_view, sessions_with_specs, stamp
from sokovan.store.refs import resolve
from sokovan.store.repository import SqlRepository


class Lookup:
    """What all that is done for users needs.

    Args:
        repository: Writes, and knows what is alive.
        database: Reads.
        clock: The time.
        tell: Takes what a request has changed.
    """

    def __init__(
        self,
        repository: SqlRepository,
        database: Database,
        clock: Clock,
        tell: Callable[[Applied], None],
    ) -> None:
        self._repository = repository
        self._database = database
        self._clock = clock
        self._tell = tell

    async def _resolve(self, ref: str, caller: Caller) -> SessionId:
        if ref in self._repository.live.sessions:
            return SessionId(ref)
        return await self._database.read(lambda tx: resolve(tx, ref, caller.user))

    async def _resolve_own(self, ref: str, caller: Caller) -> SessionId:
        """Find a session that the caller may change.

        Raises:
            ForbiddenError: It is somebody else's.
        """
        session_id = await self._resolve(ref, caller)
        owner = (await self._session(session_id)).owner
        may_change(caller, owner, f"session {session_id}")
        return session_id

    async def _session(self, session_id: SessionId) -> SessionWithKernels:
        live = self._repository.live.sessions.get(session_id)
        if live is not None:
            return live
        found = await self._database.read(lambda tx: sessions_with_specs(tx, [session_id]))
        return found[0][0]

    async def _views(self, ids: Sequence[SessionId], caller: Caller) -> list[View]:
        return self._views_of(
            await self._database.read(lambda tx: sessions_with_specs(tx, ids)), caller
        )

    def _views_of(
        self, found: Iterable[tuple[SessionWithKernels, SessionSpec]], caller: Caller
    ) -> list[View]:
        names: dict[str, str] = {a: agent.name for a, agent in self._repository.live.agents.items()}
        wait_view = self._wait_views()
        views = []
        for session, spec in found:
            wait = wait_view(session) if session.status is SessionStatus.PENDING else None
            view = session_view(session, spec, names, wait)
            views.append(view if caller.may_read(session.owner) else shape_of(view))
        return views

    def _wait_views(self) -> Callable[[SessionWithKernels], View]:
        """Return what shows of any number of PENDING sessions why they wait, for use at once."""
        live, now = self._repository.live, self._clock.now()
        wait_of = self._repository.waits_now()
        said: dict[int, tuple[Wait, str]] = {}  # many wait for the very same; kept, so do their ids

        def wait_view(session: SessionWithKernels) -> View:
            wait = wait_of(session)
            if id(wait) not in said:
                said[id(wait)] = wait, sentence(wait, now=now)
            noted = live.waits.get(session.session_id)
            return {
                "code": wait.code.value,
                "sentence": said[id(wait)][1],
                "facts": wait.facts,
                "since": stamp(noted.since if noted else session.status_since),
            }

        return wait_view


def may_change(caller: Caller, owner: str, what: str) -> None:
    """Make sure that a caller may change what belongs to `owner`.

    Raises:
        ForbiddenError: It is somebody else's.
    """
    if not caller.may_change(owner):
        raise ForbiddenError(
            f"{what} belongs to {owner}; only {owner} and administrators may change it, and you"
            f" are {caller.user} ({caller.role})"
        )


def may_submit(specs: Sequence[SessionSpec], caller: Caller) -> None:
    """Make sure that sessions are the caller's own, or that the caller may submit for others."""
    for spec in specs:
        if spec.owner != caller.user and caller.role is not Role.ADMIN:
            raise ForbiddenError(
                f"owner: you are {caller.user}, and only administrators may submit for others;"
                " leave it out",
                field="owner",
            )


def shape_of(view: View) -> View:
    """Return of a session what everybody may see: not what it runs, nor what it says."""
    kernels = [kernel | {"token": None, "error": None} for kernel in view["kernels"]]
    return view | {"command": None, "cwd": None, "kernels": kernels}


def shapes_of_lines(lines: Sequence[View]) -> list[View]:
    """Return of history what everybody may see: not what agents and users have said."""
    return [line | {"detail": ""} for line in lines]
