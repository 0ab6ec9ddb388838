"""Arrays: accepted, ended, held and released, each in one transaction."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from sokovan.domain.access import Caller
from sokovan.domain.arrays import ArraySpec
from sokovan.domain.reasons import EndReason
from sokovan.domain.statuses import SessionStatus
from sokovan.scheduler.moves import Applied
from sokovan.store.agent_writes import AgentWrites
from sokovan.store.array_queries import live_tasks
from sokovan.store.arrays import accept_array
from sokovan.store.engine import Transaction
from sokovan.store.refs import ArrayRef

Outcomes = Mapping[str, int]
"""How many tasks came to which outcome."""


class ArrayWrites(AgentWrites):
    """What users ask of arrays; `Writer` says what it is made of."""

    async def submit_array(
        self, array: ArraySpec, *, by: Caller | None = None
    ) -> tuple[str, Applied]:
        """Accept an array, all of its tasks or none; they are durable when this returns.

        Raises:
            CreationConflictError: Its creation id was used before for something else.
            InvalidRequestError: A dependency is unknown, or there are too many.
        """

        def job(tx: Transaction) -> tuple[str, Applied]:
            array_id, made, failed = accept_array(tx, array, self._ids, self._clock.now())
            applied = self._take_in(tx, made, failed)
            if made:
                self._note(tx, by, "submit", array_id, f"{len(made)} tasks")
            return array_id, applied

        return await self._write(job)

    async def end_tasks(
        self, ref: ArrayRef, *, force: bool, detail: str, by: Caller | None = None
    ) -> tuple[Outcomes, Applied]:
        """End the tasks of an array, or some, that have not ended: `cancelled`, `terminating`."""

        def job(tx: Transaction) -> tuple[Outcomes, Applied]:
            changes = self._changes(tx)
            changes.load(live_tasks(tx, ref))
            for change in changes:
                change.request_termination(
                    force=force, reason=EndReason.USER_REQUESTED, detail=detail
                )
            outcomes = Counter(
                "cancelled" if change.session.status is SessionStatus.CANCELLED else "terminating"
                for change in changes
            )
            words = f"{sum(outcomes.values())} tasks{', forced' if force else ''}"
            self._note(tx, by, "cancel", str(ref), words)
            return outcomes, changes.save()

        return await self._write(job)

    async def set_tasks_held(
        self, ref: ArrayRef, *, held: bool, by: Caller | None = None
    ) -> tuple[int, Applied]:
        """Hold the waiting tasks of an array back, or some, or release them; say how many."""

        def job(tx: Transaction) -> tuple[int, Applied]:
            changes = self._changes(tx)
            changes.load(live_tasks(tx, ref))
            groups = {
                change.session.scaling_group for change in changes if change.set_held(held=held)
            }
            count = sum(change.session.status is SessionStatus.PENDING for change in changes)
            action = "hold" if held else "release"
            self._note(tx, by, action, str(ref), f"{count} tasks")
            applied = changes.save()
            return count, replace(applied, freed=applied.freed | groups)

        return await self._write(job)
