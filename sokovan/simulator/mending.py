"""Mending a store by what its own rows say; it is looked through again before that counts."""

from dataclasses import dataclass

from sokovan.domain.errors import IllegalStateError
from sokovan.simulator.survey import Survey, survey
from sokovan.store.engine import Transaction
from sokovan.store.repairs import REPAIRS, Repair


@dataclass(frozen=True, slots=True)
class Mended:
    """What was done, one sentence each, and what a look through the store finds after it."""

    did: tuple[str, ...]
    after: Survey


def mend(tx: Transaction, now: float, repairs: tuple[Repair, ...] = REPAIRS) -> Mended:
    """Do every repair, in a transaction that counts only if the store is no worse for it.

    Raises:
        IllegalStateError: It is worse; nothing may be committed.
    """
    before = survey(tx)
    did = tuple(sentence for repair in repairs for sentence in repair(tx, now))
    after = survey(tx)
    if len(after.violations) > len(before.violations):
        new = [said for said in after.violations if said not in before.violations]
        raise IllegalStateError(
            f"to mend the store made it worse, so that nothing was changed: {'; '.join(new[:3])};"
            " restore a backup with `sokovan db restore FILE`"
        )
    return Mended(did, after)
