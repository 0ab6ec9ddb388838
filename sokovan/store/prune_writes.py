"""Sessions that ended long ago, removed by the server itself."""

from functools import partial

from sokovan.store.pruning import Pruned, find_old, prune
from sokovan.store.writer import Writer


class PruneWrites(Writer):
    """The part of the repository that forgets; `Writer` says what it is made of."""

    async def prune(self, age_s: float) -> Pruned:
        """Remove what ended longer ago, a few sessions in each transaction; say how much."""
        before, after, total = self._clock.now() - age_s, -1, Pruned()
        while True:
            found = await self._database.read(partial(find_old, before=before, after=after))
            for part in found.parts():
                total += await self._write(partial(prune, found=part, before=before))
            if found.after is None:
                return total
            after = found.after
