"""What a manager has seen of the others, and since when it has been as it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sokovan.store.leases import Lease
from sokovan.store.managers import KnownManager

FORGET_AFTER_LEASES = 100
"""For so many lengths of a lease is a manager remembered that is not there any more."""


@dataclass(frozen=True, slots=True)
class _Seen:
    value: object
    since: float


class Others:
    """The leases of the groups and the managers of a store, as last seen.

    Args:
        myself: This manager.
        lease_s: How long a lease is good that is not renewed.
    """

    def __init__(self, myself: str, lease_s: float) -> None:
        self._myself = myself
        self._lease_s = lease_s
        self._leases: Mapping[str, Lease] = {}
        self._managers: Sequence[KnownManager] = ()
        self._seen: dict[str, _Seen] = {}

    def look(
        self, leases: Mapping[str, Lease], managers: Sequence[KnownManager], now: float
    ) -> None:
        """Take in how it was just now; what is new is as it is from `now` on, and never longer."""
        self._leases, self._managers = leases, managers
        values: dict[str, object] = {f"group {n}": lease.value for n, lease in leases.items()}
        values |= {f"manager {m.manager_id}": m.renewals for m in managers}
        before, self._seen = self._seen, {}
        for name, value in values.items():
            known = before.get(name)
            is_same = known is not None and known.value == value
            self._seen[name] = known if known is not None and is_same else _Seen(value, now)

    def is_free(self, lease: Lease | None, now: float) -> bool:
        """Say whether a group has nobody: never had, was given up, or was left alone too long."""
        if lease is None or lease.holder in ("", self._myself):
            return True
        seen = self._seen.get(f"group {lease.name}")
        return seen is not None and seen.value == lease.value and self._is_over(seen, now)

    def managers(self, now: float) -> list[KnownManager]:
        """Return the managers that are there, this one included."""
        return [m for m in self._managers if not self._is_over(self._seen_of(m), now)]

    def were_there(self) -> bool:
        """Say whether there were other managers at the last look."""
        looked_at = max((seen.since for seen in self._seen.values()), default=0.0)
        return any(m.manager_id != self._myself for m in self.managers(looked_at))

    def long_gone(self, now: float) -> list[str]:
        """Return the managers that have not been there for a long time."""
        long_s = FORGET_AFTER_LEASES * self._lease_s
        return [m.manager_id for m in self._managers if now - self._seen_of(m).since >= long_s]

    def holders(self) -> dict[str, str]:
        """Return which manager holds the lease of each group."""
        return {name: lease.holder for name, lease in self._leases.items() if lease.holder}

    def _seen_of(self, manager: KnownManager) -> _Seen:
        return self._seen[f"manager {manager.manager_id}"]

    def _is_over(self, seen: _Seen, now: float) -> bool:
        return now - seen.since >= self._lease_s
