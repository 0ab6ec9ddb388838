"""What a pass has found for sessions that it could not start, for people and for later passes."""

from dataclasses import dataclass

from sokovan.domain.sessions import Assignment, SessionId
from sokovan.placement.needs import Demand


@dataclass(frozen=True, slots=True)
class Reservation:
    """What a blocked session will use, and when.

    Attributes:
        starts_at: Seconds since the epoch; when all that it waits for should have ended.
        ends_at: When it should end itself.
        assignment: The agents and devices that it will use.
    """

    session_id: SessionId
    starts_at: float
    ends_at: float
    assignment: Assignment


@dataclass(frozen=True, slots=True)
class Promise:
    """What a pass found for a blocked session, which later passes are to keep.

    Attributes:
        demand: What it was found for.
        reservation: `None`: the session waits for something that nobody should release.
    """

    demand: Demand
    reservation: Reservation | None
