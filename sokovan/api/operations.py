"""`Operations`: the service itself, on this process's store, coordinator and agents."""

import asyncio
import contextlib
import os
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

from sokovan import __version__
from sokovan.api.acceptance import check_all
from sokovan.api.outlook import Outlook, standing
from sokovan.api.service import View
from sokovan.clock import Clock
from sokovan.domain.cluster import Agent
from sokovan.domain.errors import (
    AgentError,
    AgentNotFoundError,
    AmbiguousIdError,
    IllegalStateError,
    InfeasibleRequestError,
    InvalidRequestError,
    OutputUnavailableError,
)
from sokovan.domain.sessions import AgentId, SessionId, SessionSpec, SessionWithKernels
from sokovan.domain.statuses import PRE_RUNNING, SessionStatus
from sokovan.placement.sentences import sentence
from sokovan.scheduler.messages import OutputChunk
from sokovan.scheduler.moves import Applied
from sokovan.scheduler.ports import AgentGateway
from sokovan.store.engine import Database
from sokovan.store.queries import (
    Filter,
    agent_view,
    counts_by_status,
    history_of,
    page,
    resolve,
    session_view,
    sessions_with_specs,
    stamp,
)
from sokovan.store.repository import SqlRepository
from sokovan.store.submissions import rehearse

STREAMS = ("stdout", "stderr")
RECHECK_S = 30.0
"""A waiter looks again after so long, so that a lost notice only delays it."""


class Notices:
    """Wakes those who wait for a session to change. A post-processor of the coordinator."""

    def __init__(self) -> None:
        self._waiters: dict[SessionId, list[asyncio.Event]] = defaultdict(list)

    def __call__(self, applied: Applied) -> None:
        for moved in applied.moved:
            for event in self._waiters.get(moved.session_id, ()):
                event.set()

    @asynccontextmanager
    async def of(self, session_id: SessionId) -> AsyncIterator[asyncio.Event]:
        """Give an event that is set whenever the session changes."""
        event = asyncio.Event()
        self._waiters[session_id].append(event)
        try:
            yield event
        finally:
            self._waiters[session_id].remove(event)
            if not self._waiters[session_id]:
                del self._waiters[session_id]


class Operations:
    """The `Service` of a running manager.

    Args:
        repository: Writes, and knows what is alive.
        database: Reads.
        gateway: The way to the agents, for output.
        clock: The time.
        tell: Takes what a request has changed.
        notices: Wakes those who wait.
    """

    def __init__(
        self,
        repository: SqlRepository,
        database: Database,
        gateway: AgentGateway,
        clock: Clock,
        tell: Callable[[Applied], None],
        notices: Notices,
    ) -> None:
        self._repository = repository
        self._database = database
        self._gateway = gateway
        self._clock = clock
        self._tell = tell
        self._notices = notices
        self._outlook = Outlook(repository)
        self._started_at = clock.now()
        self.address = ""

    # --- requests -------------------------------------------------------------------------------

    async def submit(self, specs: Sequence[SessionSpec]) -> list[View]:
        for error in self._check(specs):
            if error is not None:
                raise error
        ids, applied = await self._repository.submit(specs)
        self._tell(applied)
        by_id = dict(zip(ids, specs, strict=True))
        made = {i: s for i in ids if (s := self._repository.live.sessions.get(i)) is not None}
        if len(made) < len(by_id):  # known before, or cancelled at once
            return await self._views(ids)
        return [self._view(made[session_id], by_id[session_id]) for session_id in ids]

    async def dry_run(self, specs: Sequence[SessionSpec], *, suggest: bool = False) -> list[View]:
        refused = self._check(specs)
        now = self._clock.now()
        made, failed = await self._database.read(lambda tx: rehearse(tx, specs, now))
        views = self._outlook.dry_run(made, failed, suggest=suggest)
        return [
            view | {"accepted": error is None} for view, error in zip(views, refused, strict=True)
        ]

    def _check(self, specs: Sequence[SessionSpec]) -> list[InfeasibleRequestError | None]:
        return check_all(specs, self._repository.groups, self._repository.machines_of)

    async def cancel(self, ref: str, *, owner: str, force: bool = False) -> View:
        session_id = await self._resolve(ref, owner)
        applied = await self._repository.request_termination(
            [session_id], force=force, detail=f"by {owner}"
        )
        self._tell(applied)
        (view,) = await self._views([session_id])
        moved = {moved.session_id: moved.to_status for moved in applied.moved}
        if view["status"] == SessionStatus.TERMINATING:
            outcome = "terminating"
        elif moved.get(session_id) is SessionStatus.CANCELLED:
            outcome = "cancelled"
        else:
            outcome = "terminating" if session_id in moved else "already-ended"
        return {"session": view, "outcome": outcome}

    async def set_held(self, ref: str, *, owner: str, held: bool) -> View:
        session_id = await self._resolve(ref, owner)
        applied = await self._repository.set_held(session_id, held=held)
        (view,) = await self._views([session_id])
        if applied is None:
            raise IllegalStateError(
                f"session {session_id} is {view['status']}; only a PENDING one can be held"
                " back or released"
            )
        self._tell(applied)
        return view

    # --- looks ----------------------------------------------------------------------------------

    async def sessions(
        self,
        *,
        live_only: bool = True,
        statuses: Sequence[str] = (),
        owner: str | None = None,
        name: str | None = None,
        scaling_group: str | None = None,
        limit: int = 1000,
        cursor: str | None = None,
    ) -> View:
        for status in statuses:
            if status not in SessionStatus.__members__:
                raise InvalidRequestError(
                    f"status: there is no {status!r}; choose of {', '.join(SessionStatus)}",
                    field="status",
                )
        asked = Filter(live_only, statuses, owner, name, scaling_group, limit, cursor)
        ids, following = await self._database.read(lambda tx: page(tx, asked))
        return {"items": await self._views(ids), "next_cursor": following}

    async def session(self, ref: str, *, owner: str) -> View:
        (view,) = await self._views([await self._resolve(ref, owner)])
        return view

    async def history(self, ref: str, *, owner: str) -> list[View]:
        session_id = await self._resolve(ref, owner)
        return await self._database.read(lambda tx: history_of(tx, session_id))

    async def why(self, ref: str, *, owner: str, suggest: bool = False) -> View:
        session_id = await self._resolve(ref, owner)
        (view,) = await self._views([session_id])
        session = self._repository.live.sessions.get(session_id)
        if view["status"] == SessionStatus.PENDING:
            told = {k: view["wait"][k] for k in ("sentence", "code", "facts")}
            if session is not None and session.status is SessionStatus.PENDING:
                told = self._outlook.why(session, suggest=suggest)
            return {"session": view, "suggestions": None, **told}
        code = view["reason"] or view["status"]
        lines = await self._database.read(lambda tx: history_of(tx, session_id))
        words = {"sentence": standing(view, lines), "code": code}
        return {"session": view, **words, "facts": {}, "suggestions": None}

    async def eta(self, ref: str, *, owner: str) -> View:
        session_id = await self._resolve(ref, owner)
        (view,) = await self._views([session_id])
        return {"session": view, **self._outlook.eta(await self._session(session_id))}

    async def wait(self, ref: str, *, owner: str, timeout_s: float) -> View:
        session_id = await self._resolve(ref, owner)
        deadline = self._clock.now() + timeout_s
        async with self._notices.of(session_id) as changed:
            while True:
                changed.clear()
                if session_id not in self._repository.live.sessions:
                    (view,) = await self._views([session_id])
                    if view["ended_at"] is not None:
                        return view
                left_s = deadline - self._clock.now()
                if left_s <= 0:
                    return (await self._views([session_id]))[0]
                await _for(changed, min(left_s, RECHECK_S))

    async def output(
        self,
        ref: str,
        *,
        owner: str,
        kernel_index: int = 0,
        stream: str = "stdout",
        offset: int = 0,
        bytes_max: int = 1 << 20,
        wait_s: float = 0.0,
    ) -> OutputChunk:
        if stream not in STREAMS:
            raise InvalidRequestError(
                f"stream: there is no {stream!r}; choose stdout or stderr", field="stream"
            )
        session_id = await self._resolve(ref, owner)
        deadline = self._clock.now() + wait_s
        async with self._notices.of(session_id) as changed:
            while True:
                changed.clear()
                session = await self._session(session_id)
                if not 0 <= kernel_index < len(session.kernels):
                    raise InvalidRequestError(
                        f"kernel: session {session_id} has kernels 0 to {len(session.kernels) - 1}",
                        field="kernel",
                    )
                kernel = session.kernels[kernel_index]
                if kernel.agent_id is None or kernel.token is None:
                    never = session.status.is_final
                elif kernel.status in PRE_RUNNING:
                    never = False
                elif kernel.started_at is None:
                    never = True
                else:
                    break
                left_s = deadline - self._clock.now()
                if never or left_s <= 0:
                    return OutputChunk(b"", 0, 0, ended=never)
                await _for(changed, min(left_s, RECHECK_S))
        try:
            return await self._gateway.read_output(
                kernel.agent_id,
                kernel.token,
                stream,
                offset=offset,
                bytes_max=bytes_max,
                wait_s=max(0.0, deadline - self._clock.now()),
            )
        except AgentError as error:
            raise OutputUnavailableError(
                f"the output of session {session_id} cannot be read now: {error}"
            ) from error

    async def status(self) -> View:
        counts = await self._database.read(counts_by_status)
        live = self._repository.live
        agents: dict[str, int] = defaultdict(int)
        for agent in live.agents.values():
            agents[agent.status.value] += 1
        return {
            "pid": os.getpid(),
            "version": __version__,
            "address": self.address,
            "started_at": stamp(self._started_at),
            "uptime_s": round(self._clock.now() - self._started_at, 3),
            "sessions": counts,
            "agents": dict(agents),
            "drained": sum(agent.is_drained for agent in live.agents.values()),
            "leftovers": sum(1 for _ in live.leftovers()),
        }

    async def agents(self) -> list[View]:
        live = self._repository.live
        by_name = sorted(live.agents.values(), key=lambda a: (a.name, a.agent_id))
        return [self._agent_view(agent.agent_id) for agent in by_name]

    async def set_drained(self, agent: str, *, drained: bool, reason: str = "") -> View:
        agent_id = self._agent(agent).agent_id
        self._tell(await self._repository.set_drained(agent_id, drained=drained, reason=reason))
        return self._agent_view(agent_id)

    async def set_labels(self, agent: str, changes: Mapping[str, str | None]) -> View:
        agent_id = self._agent(agent).agent_id
        self._tell(await self._repository.set_labels(agent_id, changes))
        return self._agent_view(agent_id)

    async def remove_agent(self, agent: str, *, force: bool = False) -> View:
        found = self._agent(agent)
        view = self._agent_view(found.agent_id)
        self._tell(await self._repository.remove_agent(found.agent_id, force=force))
        return view

    # --- how they are made ----------------------------------------------------------------------

    def _agent(self, ref: str) -> Agent:
        known = self._repository.live.agents
        named = [agent for agent in known.values() if agent.name == ref]
        if ref in known:
            return known[AgentId(ref)]
        if not named:
            raise AgentNotFoundError(f"there is no agent {ref!r}; `sokovan agents` lists them")
        if len(named) > 1:
            ids = ", ".join(f"{agent.agent_id} ({agent.status})" for agent in named)
            raise AmbiguousIdError(f"{ref!r} could be {ids}; name it by its id")
        return named[0]

    def _agent_view(self, agent_id: AgentId) -> View:
        live = self._repository.live
        return agent_view(live.agents[agent_id], live.holds_on(agent_id))

    async def _resolve(self, ref: str, owner: str) -> SessionId:
        if ref in self._repository.live.sessions:
            return SessionId(ref)
        return await self._database.read(lambda tx: resolve(tx, ref, owner))

    async def _session(self, session_id: SessionId) -> SessionWithKernels:
        live = self._repository.live.sessions.get(session_id)
        if live is not None:
            return live
        found = await self._database.read(lambda tx: sessions_with_specs(tx, [session_id]))
        return found[0][0]

    async def _views(self, ids: Sequence[SessionId]) -> list[View]:
        found = await self._database.read(lambda tx: sessions_with_specs(tx, ids))
        return [self._view(session, spec) for session, spec in found]

    def _view(self, session: SessionWithKernels, spec: SessionSpec) -> View:
        names: dict[str, str] = {a: agent.name for a, agent in self._repository.live.agents.items()}
        wait = self._wait_view(session) if session.status is SessionStatus.PENDING else None
        return session_view(session, spec, names, wait)

    def _wait_view(self, session: SessionWithKernels) -> View:
        live = self._repository.live
        noted = live.waits.get(session.session_id)
        wait = self._repository.wait_of(session)
        return {
            "code": wait.code.value,
            "sentence": sentence(wait, now=self._clock.now()),
            "facts": wait.facts,
            "since": stamp(noted.since if noted else session.status_since),
        }


async def _for(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
