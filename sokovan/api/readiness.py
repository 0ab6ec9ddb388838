"""Whether the server can do its work: asked by whoever likes, answered at most once a second."""

import asyncio
import logging

from sokovan.clock import Clock
from sokovan.domain.errors import SokovanError, StoreUnavailableError
from sokovan.store.repository import SqlRepository

log = logging.getLogger(__name__)

KEPT_S = 1.0
"""Who asks needs no token, so that asking often must not be work."""
ANSWER_S_MAX = 2.0


class Readiness:
    """Asks the store whether it answers.

    Args:
        repository: Knows whether a commit is in doubt, and writes.
        clock: Says when to ask again.
    """

    def __init__(self, repository: SqlRepository, clock: Clock) -> None:
        self._repository = repository
        self._clock = clock
        self._asked: asyncio.Future[bool] | None = None
        self._ask_at = float("-inf")

    async def check(self) -> None:
        """Return if the server can do its work.

        Raises:
            StoreUnavailableError: It cannot; the log says why, as the sentence is for everybody.
        """
        now = self._clock.now()
        if self._asked is None or (self._asked.done() and now >= self._ask_at):
            self._ask_at = now + KEPT_S
            self._asked = asyncio.ensure_future(self._answers())
        if not await asyncio.shield(self._asked):
            raise StoreUnavailableError("the store does not answer; the server's log says why")

    async def _answers(self) -> bool:
        try:
            async with asyncio.timeout(ANSWER_S_MAX):
                await self._repository.touch()
        except TimeoutError:
            log.warning("not ready: the store did not answer within %g s", ANSWER_S_MAX)
        except SokovanError as error:
            log.warning("not ready: %s", error.message)
        else:
            return True
        return False
