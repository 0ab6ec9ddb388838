"""`Arrays`: what is done for users with arrays as a whole."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Row

from sokovan.api.acceptance import check_all
from sokovan.api.lookup import Lookup, may_change, may_submit
from sokovan.api.notices import RECHECK_S, Notices, at_most
from sokovan.api.outlook import Outlook
from sokovan.api.root_rule import ANYBODY, RootRule
from sokovan.api.service import View
from sokovan.clock import Clock
from sokovan.domain.access import Caller
from sokovan.domain.arrays import ArraySpec
from sokovan.domain.reasons import Wait, WaitReason
from sokovan.domain.sessions import SessionId, SessionSpec, SessionWithKernels
from sokovan.domain.statuses import SessionStatus
from sokovan.placement.engine import place
from sokovan.scheduler.moves import Applied
from sokovan.store.accepting import rehearse
from sokovan.store.array_queries import (
    ArrayFilter,
    Counts,
    array_row,
    array_view,
    counts_of,
    counts_of_part,
    first_failure,
    live_tasks,
    page_of_arrays,
    page_of_tasks,
)
from sokovan.store.engine import Database, Transaction
from sokovan.store.loading import load_arrays
from sokovan.store.refs import ArrayRef, resolve_array
from sokovan.store.repository import SqlRepository


class Arrays(Lookup):
    """The requests about arrays. `ref` is an array's id, or `ID_0-9,20` for some of its tasks.

    Args:
        repository: Writes, and knows what is alive.
        database: Reads.
        clock: The time.
        tell: Takes what a request has changed.
        notices: Wakes those who wait.
        root_rule: Says whether sessions of root are taken.
    """

    def __init__(
        self,
        repository: SqlRepository,
        database: Database,
        clock: Clock,
        tell: Callable[[Applied], None],
        notices: Notices,
        root_rule: RootRule = ANYBODY,
    ) -> None:
        super().__init__(repository, database, clock, tell)
        self._notices = notices
        self._root_rule = root_rule
        self._outlook = Outlook(repository)

    # --- requests -------------------------------------------------------------------------------

    async def submit(self, array: ArraySpec, *, caller: Caller) -> View:
        """Accept an array, all of its tasks or none; they are on disk when this returns."""
        longest = self._longest(array, caller)
        for error in check_all([longest], self._repository.groups, self._repository.machines_of):
            if error is not None:
                raise error
        array_id, applied = await self._repository.submit_array(array, by=caller)
        try:  # the answer is not to wait for the pass that this leads to
            return await self._array(ArrayRef(array_id), caller)
        finally:
            self._tell(applied)

    async def dry_run(self, array: ArraySpec, *, caller: Caller, suggest: bool = False) -> View:
        """Say what would become of an array's first task, were it submitted now."""
        longest = self._longest(array, caller)
        (refused,) = check_all([longest], self._repository.groups, self._repository.machines_of)
        index = array.numbers()[0]
        task = array.task(index, "")
        now = self._clock.now()
        made, failed = await self._database.read(lambda tx: rehearse(tx, [task], now))
        (view,) = self._outlook.dry_run(made, failed, suggest=suggest)
        return {
            "size": array.size,
            "first_index": index,
            "first": view | {"accepted": refused is None},
            "command": list(task.command),
        }

    def _longest(self, array: ArraySpec, caller: Caller) -> SessionSpec:
        may_submit([array.template], caller)
        self._root_rule.check([array.template])
        return array.longest()

    async def cancel(self, ref: str, *, caller: Caller, force: bool = False) -> View:
        """End the tasks that have not ended; say how many were `cancelled`, or `terminating`."""
        found, size = await self._own(ref, caller)
        outcomes, applied = await self._repository.end_tasks(
            found, force=force, detail=f"by {caller.user}", by=caller
        )
        self._tell(applied)
        over = size - sum(outcomes.values())
        return await self._changed(found, {**outcomes, "already-ended": over}, caller)

    async def set_held(self, ref: str, *, caller: Caller, held: bool) -> View:
        """Hold the tasks back that wait, or release them; say how many they were."""
        found, size = await self._own(ref, caller)
        count, applied = await self._repository.set_tasks_held(found, held=held, by=caller)
        self._tell(applied)
        outcomes = {"held" if held else "released": count, "not-waiting": size - count}
        return await self._changed(found, outcomes, caller)

    async def _own(self, ref: str, caller: Caller) -> tuple[ArrayRef, int]:
        """Find an array that the caller may change, and say how many tasks are meant."""
        view = await self._look(ref, caller)
        found: ArrayRef = view.pop("ref")
        may_change(caller, view["owner"], f"array {found.array_id}")
        return found, view["size"]

    async def _changed(self, ref: ArrayRef, outcomes: Mapping[str, int], caller: Caller) -> View:
        array = await self._array(ref, caller)
        return {"array": array, "outcomes": {name: n for name, n in outcomes.items() if n}}

    # --- looks ----------------------------------------------------------------------------------

    async def arrays(self, asked: ArrayFilter, *, caller: Caller) -> View:
        """List arrays, newest first."""

        def look(tx: Transaction) -> tuple[list[View], str | None]:
            rows, following = page_of_arrays(tx, asked)
            counts = counts_of(tx, rows)
            specs = load_arrays(tx, [row.array_id for row in rows])
            views = [
                self._seen(row, ArrayRef(row.array_id), counts[row.array_id], specs, caller)
                for row in rows
            ]
            return views, following

        views, following = await self._database.read(look)
        return {"items": [self._with_wait(view) for view in views], "next_cursor": following}

    async def array(self, ref: str, *, caller: Caller) -> View:
        """Return an array, or some of its tasks, and the first of them that failed."""
        view = await self._look(ref, caller)
        found: ArrayRef = view.pop("ref")
        failure = None
        if view["failed"] + view["cancelled"]:
            failure = await self._database.read(lambda tx: first_failure(tx, found))
        return view | {"first_failure": failure and self._named(failure)}

    async def tasks(
        self,
        ref: str,
        *,
        caller: Caller,
        statuses: Sequence[str] = (),
        limit: int,
        after: int | None = None,
    ) -> View:
        """List the tasks of an array by index, without what they run."""

        def look(tx: Transaction) -> tuple[ArrayRef, list[View], int | None]:
            found = resolve_array(tx, ref, caller.user)
            return found, *page_of_tasks(tx, found, statuses, after, limit)

        found, tasks, following = await self._database.read(look)
        waits = self._codes(found.array_id)
        for task in tasks:
            self._named(task)
            if task["reason"] is None:
                task["reason"] = waits.get(task["id"])
        cursor = None if following is None else str(following)
        return {"items": tasks, "next_cursor": cursor}

    async def why(self, ref: str, *, caller: Caller) -> View:
        """Say where the tasks of an array stand, and for which reasons how many of them wait."""
        view = await self._look(ref, caller)
        found: ArrayRef = view.pop("ref")
        waiting: dict[str, list[SessionWithKernels]] = {}
        codes = self._codes(found.array_id)
        for task in self._repository.live.tasks_of(found.array_id):
            if task.session_id in codes and found.has(task.array_index or 0):
                waiting.setdefault(codes[task.session_id], []).append(task)
        wait_view = self._wait_views()
        reasons = [
            {
                "code": code,
                "tasks": len(tasks),
                "sentence": wait_view(tasks[0])["sentence"],
                "first": tasks[0].session_id,
            }
            for code, tasks in sorted(waiting.items(), key=lambda one: -len(one[1]))
        ]
        return {"array": view, "sentence": standing_of(view), "waiting": reasons}

    async def wait(self, ref: str, *, caller: Caller, timeout_s: float) -> View:
        """Return an array once all its tasks have ended, or as it is after `timeout_s`."""
        found = (await self._look(ref, caller))["ref"]
        deadline = self._clock.now() + timeout_s
        while self._clock.now() < deadline:
            left = await self._database.read(lambda tx: live_tasks(tx, found))
            if not left:  # a retry may have followed one that ended
                break
            for session_id in left:
                if not await self._has_ended(session_id, deadline):
                    break
        return await self.array(str(found), caller=caller)

    async def _has_ended(self, session_id: SessionId, deadline: float) -> bool:
        """Wait for the end of a session; return whether it came before the deadline."""
        live = self._repository.live.sessions
        async with self._notices.of(session_id) as changed:
            while session_id in live:
                left_s = deadline - self._clock.now()
                if left_s <= 0:
                    return False
                changed.clear()
                await at_most(min(left_s, RECHECK_S), changed)
        return True

    # --- how it is done -------------------------------------------------------------------------

    async def _array(self, ref: ArrayRef, caller: Caller) -> View:
        view = await self._look(str(ref), caller)
        del view["ref"]
        return view

    async def _look(self, ref: str, caller: Caller) -> View:
        """Return an array as users see it, and as `ref` what was meant."""

        def look(tx: Transaction) -> View:
            found = resolve_array(tx, ref, caller.user)
            row = array_row(tx, found.array_id)
            whole = found.part is None
            counts = counts_of(tx, [row])[row.array_id] if whole else counts_of_part(tx, found)
            specs = load_arrays(tx, [found.array_id])
            return self._seen(row, found, counts, specs, caller) | {"ref": found}

        return self._with_wait(await self._database.read(look))

    def _seen(
        self,
        row: Row[Any],
        ref: ArrayRef,
        counts: Counts,
        specs: Mapping[str, ArraySpec],
        caller: Caller,
    ) -> View:
        view = array_view(row, ref, counts)
        is_open = caller.may_read(row.owner)
        view["command"] = list(specs[row.array_id].template.command) if is_open else None
        if not is_open:
            view["params"] = {name: [] for name in view["params"]}
        return view

    def _with_wait(self, view: View) -> View:
        """Say why all of an array waits, where all of it does."""
        live, view["wait"] = view["live"], None
        if live.keys() == {SessionStatus.PENDING.value}:
            ref = view["part"]
            for task in self._repository.live.tasks_of(view["id"]):
                if task.status is SessionStatus.PENDING and (ref is None or not task.array_waits):
                    view["wait"] = self._wait_views()(task)
                    break
        return view

    def _codes(self, array_id: str) -> dict[str, str]:
        """Return why each task of an array waits that does, by session id."""
        waiting = [
            task
            for task in self._repository.live.tasks_of(array_id)
            if task.status is SessionStatus.PENDING
        ]
        snapshot = self._repository.snapshot(waiting[0].scaling_group) if waiting else None
        if snapshot is None:
            return {}
        waits = place(snapshot).waits
        unseen = Wait(WaitReason.NOT_EXAMINED_YET)
        return {task.session_id: waits.get(task.session_id, unseen).code.value for task in waiting}

    def _named(self, task: View) -> View:
        """Write the name of a task's agent for its id."""
        agent = self._repository.live.agents.get(task["agent"])
        if agent is not None:
            task["agent"] = agent.name
        return task


def standing_of(view: View) -> str:
    """Say in one sentence where the tasks of an array stand."""
    waiting = view["live"].get(SessionStatus.PENDING, 0)
    at_work = sum(view["live"].values()) - waiting
    counts = {
        "running or about to": at_work,
        "waiting": waiting,
        "succeeded": view["succeeded"],
        "failed": view["failed"],
        "cancelled": view["cancelled"],
    }
    said = ", ".join(f"{count} {words}" for words, count in counts.items() if count)
    return f"{view['size']} task{'s' if view['size'] != 1 else ''}: {said or 'none'}"
