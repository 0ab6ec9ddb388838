"""`Operations`: the service itself, on this process's store, coordinator and agents."""

import os
from collections import defaultdict
from collections.abc import Callable, Sequence

from sokovan import __version__
from sokovan.api.acceptance import check_all
from sokovan.api.agent_operations import AgentOperations
from sokovan.api.lookup import may_submit, shapes_of_lines
from sokovan.api.notices import RECHECK_S, Notices, at_most
from sokovan.api.outlook import Outlook, standing
from sokovan.api.overview import glance, turn_views
from sokovan.api.readiness import Readiness
from sokovan.api.root_rule import ANYBODY, RootRule
from sokovan.api.service import View
from sokovan.clock import Clock
from sokovan.domain.access import Caller
from sokovan.domain.errors import (
    AgentError,
    ForbiddenError,
    IllegalStateError,
    InfeasibleRequestError,
    InvalidRequestError,
    OutputUnavailableError,
)
from sokovan.domain.sessions import SessionId, SessionSpec, SessionWithKernels
from sokovan.domain.statuses import PRE_RUNNING, SessionStatus
from sokovan.scheduler.messages import OutputChunk
from sokovan.scheduler.moves import Applied
from sokovan.scheduler.ports import AgentGateway
from sokovan.store.accepting import rehearse
from sokovan.store.engine import Database, Transaction
from sokovan.store.queries import (
    Filter,
    counts_by_status,
    history_of,
    page,
    stamp,
)
from sokovan.store.refs import resolve_array
from sokovan.store.repository import SqlRepository

STREAMS = ("stdout", "stderr")


class Operations(AgentOperations):
    """The `Service` of a running manager.

    Args:
        repository: Writes, and knows what is alive.
        database: Reads.
        gateway: The way to the agents, for output.
        clock: The time.
        tell: Takes what a request has changed.
        notices: Wakes those who wait.
        root_rule: Says whether sessions of root are accepted.
    """

    def __init__(
        self,
        repository: SqlRepository,
        database: Database,
        gateway: AgentGateway,
        clock: Clock,
        tell: Callable[[Applied], None],
        notices: Notices,
        root_rule: RootRule = ANYBODY,
    ) -> None:
        super().__init__(repository, database, clock, tell)
        self._gateway = gateway
        self._notices = notices
        self._root_rule = root_rule
        self._outlook = Outlook(repository)
        self._readiness = Readiness(repository, clock)
        self._started_at = clock.now()
        self.address = ""

    # --- requests -------------------------------------------------------------------------------

    async def submit(self, specs: Sequence[SessionSpec], *, caller: Caller) -> list[View]:
        may_submit(specs, caller)
        self._root_rule.check(specs)
        for error in self._check(specs):
            if error is not None:
                raise error
        ids, applied = await self._repository.submit(specs, by=caller)
        self._tell(applied)
        by_id = dict(zip(ids, specs, strict=True))
        made = {i: s for i in ids if (s := self._repository.live.sessions.get(i)) is not None}
        if len(made) < len(by_id):  # known before, or cancelled at once
            return await self._views(ids, caller)
        return self._views_of([(made[i], by_id[i]) for i in ids], caller)

    async def dry_run(
        self, specs: Sequence[SessionSpec], *, caller: Caller, suggest: bool = False
    ) -> list[View]:
        may_submit(specs, caller)
        refused = self._check(specs)
        now = self._clock.now()
        made, failed = await self._database.read(lambda tx: rehearse(tx, specs, now))
        views = self._outlook.dry_run(made, failed, suggest=suggest)
        return [
            view | {"accepted": error is None} for view, error in zip(views, refused, strict=True)
        ]

    def _check(self, specs: Sequence[SessionSpec]) -> list[InfeasibleRequestError | None]:
        return check_all(specs, self._repository.groups, self._repository.machines_of)

    async def cancel(self, ref: str, *, caller: Caller, force: bool = False) -> View:
        session_id = await self._resolve_own(ref, caller)
        applied = await self._repository.request_termination(
            [session_id], force=force, detail=f"by {caller.user}", by=caller
        )
        self._tell(applied)
        (view,) = await self._views([session_id], caller)
        moved = {moved.session_id: moved.to_status for moved in applied.moved}
        if view["status"] == SessionStatus.TERMINATING:
            outcome = "terminating"
        elif moved.get(session_id) is SessionStatus.CANCELLED:
            outcome = "cancelled"
        else:
            outcome = "terminating" if session_id in moved else "already-ended"
        return {"session": view, "outcome": outcome}

    async def set_held(self, ref: str, *, caller: Caller, held: bool) -> View:
        session_id = await self._resolve_own(ref, caller)
        applied = await self._repository.set_held(session_id, held=held, by=caller)
        (view,) = await self._views([session_id], caller)
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
        caller: Caller,
        live_only: bool = True,
        statuses: Sequence[str] = (),
        owner: str | None = None,
        name: str | None = None,
        scaling_group: str | None = None,
        array: str | None = None,
        tasks: bool = True,
        limit: int = 1000,
        cursor: str | None = None,
        sort: str = "-number",
    ) -> View:
        for status in statuses:
            if status not in SessionStatus.__members__:
                raise InvalidRequestError(
                    f"status: there is no {status!r}; choose of {', '.join(SessionStatus)}",
                    field="status",
                )

        def look(tx: Transaction) -> tuple[list[SessionId], str | None]:
            of = None if array is None else resolve_array(tx, array, caller.user)
            asked = Filter(
                live_only, statuses, owner, name, scaling_group, of, tasks, limit, cursor, sort
            )
            return page(tx, asked)

        ids, following = await self._database.read(look)
        return {"items": await self._views(ids, caller), "next_cursor": following}

    async def session(self, ref: str, *, caller: Caller) -> View:
        (view,) = await self._views([await self._resolve(ref, caller)], caller)
        return view

    async def history(self, ref: str, *, caller: Caller) -> list[View]:
        return await self._lines(await self._resolve(ref, caller), caller)

    async def _lines(self, session_id: SessionId, caller: Caller) -> list[View]:
        lines = await self._database.read(lambda tx: history_of(tx, session_id))
        owner = (await self._session(session_id)).owner
        return lines if caller.may_read(owner) else shapes_of_lines(lines)

    async def why(self, ref: str, *, caller: Caller, suggest: bool = False) -> View:
        session_id = await self._resolve(ref, caller)
        (view,) = await self._views([session_id], caller)
        session = self._repository.live.sessions.get(session_id)
        if view["status"] == SessionStatus.PENDING:
            told = {k: view["wait"][k] for k in ("sentence", "code", "facts")}
            if session is not None and session.status is SessionStatus.PENDING:
                told = self._outlook.why(session, suggest=suggest)
            return {"session": view, "suggestions": None, **told}
        code = view["reason"] or view["status"]
        lines = await self._lines(session_id, caller)
        words = {"sentence": standing(view, lines), "code": code}
        return {"session": view, **words, "facts": {}, "suggestions": None}

    async def eta(self, ref: str, *, caller: Caller) -> View:
        session_id = await self._resolve(ref, caller)
        (view,) = await self._views([session_id], caller)
        return {"session": view, **self._outlook.eta(await self._session(session_id))}

    async def overview(self, *, caller: Caller, limit: int) -> View:
        seen = glance(self._repository, limit)
        agents = [self._agent_view(agent.agent_id) for agent in seen.agents]
        placed = [session.session_id for session in seen.placed]
        waiting = [turn.session.session_id for turn in seen.turns]
        views = {view["id"]: view for view in await self._views([*placed, *waiting], caller)}
        return {
            "status": await self.status(),
            **seen.amounts,
            "agents": agents,
            "placed": [views[i] for i in placed if i in views],
            "waiting": list(turn_views(seen, views)),
        }

    async def wait(self, ref: str, *, caller: Caller, timeout_s: float) -> View:
        session_id = await self._resolve(ref, caller)
        deadline = self._clock.now() + timeout_s
        async with self._notices.of(session_id) as changed:
            while True:
                changed.clear()
                if session_id not in self._repository.live.sessions:
                    (view,) = await self._views([session_id], caller)
                    if view["ended_at"] is not None:
                        return view
                left_s = deadline - self._clock.now()
                if left_s <= 0:
                    return (await self._views([session_id], caller))[0]
                await at_most(min(left_s, RECHECK_S), changed)

    async def output(
        self,
        ref: str,
        *,
        caller: Caller,
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
        session_id = await self._resolve(ref, caller)
        deadline = self._clock.now() + wait_s
        async with self._notices.of(session_id) as changed:
            while True:
                changed.clear()
                session = await self._session(session_id)
                _may_read(session, caller)
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
                await at_most(min(left_s, RECHECK_S), changed)
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

    async def ready(self) -> None:
        await self._readiness.check()

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
            "manager_id": self._repository.manager_id,
            "drives": sorted(self._repository.led),
            "managers": self._managers(),
        }

    def _managers(self) -> list[View]:
        """Return the managers of a store that several may share, as last seen."""
        others = self._repository.others
        drives: dict[str, list[str]] = defaultdict(list)
        for group, holder in sorted(others.holders().items()):
            drives[holder].append(group)
        return [
            {
                "id": manager.manager_id,
                "url": manager.url,
                "host": manager.host,
                "pid": manager.pid,
                "version": manager.version,
                "started_at": stamp(manager.started_at),
                "drives": drives[manager.manager_id],
            }
            for manager in others.managers(self._clock.now())
        ]


def _may_read(session: SessionWithKernels, caller: Caller) -> None:
    if not caller.may_read(session.owner):
        raise ForbiddenError(
            f"the output of session {session.session_id} is for {session.owner} and administrators"
        )
