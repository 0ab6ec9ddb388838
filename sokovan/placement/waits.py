"""Why sessions wait that a pass did not place."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from sokovan.domain.reasons import Wait, WaitReason
from sokovan.domain.sessions import SessionId, SessionWithKernels
from sokovan.placement.admit import admission
from sokovan.placement.binding import binding
from sokovan.placement.needs import Demand

if TYPE_CHECKING:
    from sokovan.placement.engine import Pass


class Verdict(Enum):
    """What a pass found about a demand that it did not place."""

    NO_ROOM = "no room"
    RESERVED = "there is room, but it is reserved for others"
    NEVER = "no room even when all agents are empty"
    BEHIND = "not looked at: somebody before it stopped the pass"


@dataclass(slots=True, eq=False)
class Waits(Mapping[SessionId, Wait]):
    """Why each session waits that a pass did not place, worked out when asked for."""

    done: "Pass"
    _of_demand: dict[Demand, Wait] = field(default_factory=dict)

    def __getitem__(self, session_id: SessionId) -> Wait:
        done, queue = self.done, self.done.snapshot.queue
        if session_id in done.placed:
            raise KeyError(session_id)
        session = queue[session_id]
        lane = queue.lane_of(session_id)
        if lane is None or session_id in done.snapshot.waiting_for_old:
            wait = admission(session, done.snapshot)
            return wait or Wait(WaitReason.WAITING_FOR_RETRY, {"retry_at": queue.until(session_id)})
        wait = self._of_demand.get(lane.demand)
        if wait is None:
            wait = self._of_demand[lane.demand] = self._why(lane.demand)
        return wait

    def __iter__(self) -> Iterator[SessionId]:
        return (i for i in self.done.snapshot.queue if i not in self.done.placed)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _why(self, demand: Demand) -> Wait:
        done = self.done
        verdict = done.verdicts.get(demand, Verdict.BEHIND)
        if verdict is Verdict.NEVER:
            wait = done.never(demand)
            assert wait is not None
            return wait
        if verdict is Verdict.NO_ROOM or (verdict is Verdict.RESERVED and not done.fits(demand)):
            return binding(demand, done.placer, done.machines)
        first = done.bookings.blocked[0]
        if verdict is Verdict.BEHIND:
            return Wait(WaitReason.BEHIND_ANOTHER, _named(first))
        done.reserve_all()
        kept = next(iter(done.reservations.values()), None)
        if kept is None:
            return Wait(WaitReason.RESERVED_FOR_ANOTHER, _named(first))
        session = done.snapshot.queue.get(kept.session_id, first)
        facts = {**_named(session), "starts_at": kept.starts_at}
        return Wait(WaitReason.RESERVED_FOR_ANOTHER, facts)


def _named(session: SessionWithKernels) -> dict[str, Any]:
    return {"session_id": session.session_id, "name": session.name}
