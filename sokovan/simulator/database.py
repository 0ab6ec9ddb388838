"""The store of a simulated manager: the real one, in memory; it refuses, dawdles, is cut off."""

import random
from collections import Counter
from collections.abc import Awaitable, Callable

from sqlalchemy import Engine

from sokovan.domain.errors import StoreUnavailableError
from sokovan.simulator.faults import Faults
from sokovan.store.engine import InlineDatabase, Job, T

MEANWHILE_S_MAX = 2.0


class ManagerDied(BaseException):
    """The manager process is killed here: nothing after this line happens."""


class SimulatedDatabase(InlineDatabase):
    """What one life of the manager has of the store.

    Args:
        engine: Outlives the manager.
        rng: Decides what goes wrong.
        faults: How much of that.
        counts: How often what went wrong.
        committed: Called after each transaction.
        meanwhile: Lets everything else go on for some seconds.
    """

    def __init__(
        self,
        engine: Engine,
        rng: random.Random,
        faults: Faults,
        counts: Counter[str],
        *,
        committed: Callable[[], None],
        meanwhile: Callable[[float], Awaitable[None]],
    ) -> None:
        super().__init__(engine)
        self.faults = faults
        self.is_dead = False
        self._rng = rng
        self._counts = counts
        self._committed = committed
        self._meanwhile = meanwhile

    async def write(self, job: Job[T]) -> T:
        """Run and commit `job`, if all goes well."""
        await self._come_to_it()
        result = self.write_now(job)
        self._committed()
        self.is_dead = self.is_dead or self._happens("manager_dies_in_transaction")
        self._live_or_die()
        return result

    async def read(self, job: Job[T]) -> T:
        """Run `job`, if all goes well."""
        await self._come_to_it()
        return self.write_now(job)

    async def _come_to_it(self) -> None:
        self._live_or_die()
        if self._happens("store_slow"):
            await self._meanwhile(self._rng.uniform(0.0, MEANWHILE_S_MAX))
        self.is_dead = self.is_dead or self._happens("manager_dies_in_transaction")
        self._live_or_die()
        if self._happens("store_fails"):
            raise StoreUnavailableError("the store cannot be written: so it was decided")

    def _live_or_die(self) -> None:
        if self.is_dead:
            raise ManagerDied

    def _happens(self, fault: str) -> bool:
        chance: float = getattr(self.faults, fault)
        if chance and self._rng.random() < chance:
            self._counts[fault] += 1
            return True
        return False
