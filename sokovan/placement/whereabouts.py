"""Where the kernels of sessions are, for those that want to be beside them or away from them."""

from collections.abc import Iterator, Mapping

from sokovan.domain.sessions import SessionId, SessionWithKernels
from sokovan.placement.placer import Places
from sokovan.placement.snapshot import Snapshot


class Whereabouts(Mapping[str, "set[int]"]):
    """The rows on which kernels of sessions are, by the sessions' names and ids."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._new: list[tuple[SessionWithKernels, Places]] = []
        self._rows: dict[str, set[int]] | None = None

    def __getitem__(self, name: str) -> "set[int]":
        return self._known()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known())

    def __len__(self) -> int:
        return len(self._known())

    def _known(self) -> dict[str, "set[int]"]:
        if self._rows is None:
            self._rows = {}
            machines = self._snapshot.machines
            for hold in machines.holds.values():
                session = self._snapshot.running.get(SessionId(hold.session_id))
                for row in machines.rows_of([hold.agent_id]):
                    self._rows.setdefault(hold.session_id, set()).add(row)
                    if session is not None and session.name:
                        self._rows.setdefault(session.name, set()).add(row)
        while self._new:
            session, places = self._new.pop()
            for name in {session.session_id, session.name} - {""}:
                self._rows.setdefault(name, set()).update(taken.row for taken in places)
        return self._rows

    def put(self, session: SessionWithKernels, places: Places) -> None:
        """Take over where a session was just placed."""
        self._new.append((session, places))
