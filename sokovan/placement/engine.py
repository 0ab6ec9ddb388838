"""From a snapshot to a plan: who goes where now, and why everybody else waits.

The ideal: go through the queue in order; give each session that may be placed the agents that rank
first among those with room for all its kernels; say of every other one why it waits. A session that
finds no room may have room reserved, which those behind it leave alone (see `backfill`).

The departures for speed, none of which changes a plan:

1. Sessions with equal demands stand in one lane (see `queue`). Free amounts only shrink during a
   pass, so when the first of a lane finds no room, none does, and all share one answer. The reason
   is worked out when somebody asks for it.
2. What is free stands in arrays, one row an agent, next to the key by which rows rank; taking
   something changes one row of each. Who takes a kernel is a few comparisons of whole arrays.
3. A need that found no room in an earlier pass looks only at the rows that have been able to take
   more since (`Machines.grown`).
4. A pass over what has not changed returns the same plan.
"""

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sokovan.domain.cluster import Backfill
from sokovan.domain.reasons import Wait
from sokovan.domain.resources import Hold
from sokovan.domain.sessions import Assignment, SessionId, SessionWithKernels
from sokovan.placement.binding import never_fits
from sokovan.placement.bookings import Bookings
from sokovan.placement.needs import Demand
from sokovan.placement.order import ORDERS, Line, Shares
from sokovan.placement.placer import Placer, Places, assignment_of
from sokovan.placement.promises import Reservation
from sokovan.placement.queue import Entry, Lane
from sokovan.placement.rank import RANKINGS
from sokovan.placement.releases import held_until, walltime_of
from sokovan.placement.snapshot import Snapshot
from sokovan.placement.waits import Verdict, Waits
from sokovan.placement.whereabouts import Whereabouts


@dataclass(frozen=True, slots=True)
class Plan:
    """What one pass decided; every pending session is in `placed` or in `waits`."""

    placed: Mapping[SessionId, Assignment]
    """In the order of placing."""
    waits: Mapping[SessionId, Wait]
    """Worked out when asked for, which is to be before the snapshot changes."""
    never_fits: frozenset[SessionId]
    """Those of `waits` that no agents of the group could take even when empty."""


def place(snapshot: Snapshot) -> Plan:
    """Place what can be placed; give a reason for everything that waits."""
    return run(snapshot).plan


def run(snapshot: Snapshot) -> "Pass":
    """Return the pass over a snapshot; the last one, if nothing has changed since."""
    snapshot.queue.open_gates(snapshot.now)
    kept: tuple[object, Pass] | None = snapshot.memory.get("pass")
    if kept is not None and kept[0] == _version_of(snapshot) and snapshot.now < kept[1].stale_at:
        return kept[1]
    done = Pass(snapshot, lasting=True)
    done.run()
    snapshot.promises = done.bookings.promises
    if done.plan.placed:
        # What was taken may yet be refused by the store: those rows are to be looked at again.
        snapshot.machines.grow(set(done.room.touched))
    snapshot.memory["pass"] = (_version_of(snapshot), done)
    return done


def _version_of(snapshot: Snapshot) -> tuple[object, ...]:
    """What changes whenever something does that may change the next plan."""
    machines, queue = snapshot.machines, snapshot.queue
    return id(machines), machines.version, queue.version, snapshot.group, snapshot.waiting_for_old


class Pass:
    """One look at the queue.

    Args:
        snapshot: What is known.
        until: Stop when it is this session's turn, with everything as it is then. It need not be in
            the queue; if it is, it is taken for what is said here, and nothing is promised to it.
        lasting: What is found may be remembered for later passes.
        like: A pass at this very moment, which knows already when holds should be released.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        until: SessionWithKernels | None = None,
        *,
        lasting: bool = False,
        like: "Pass | None" = None,
    ) -> None:
        self.snapshot = snapshot
        self.group = snapshot.group
        self.machines = snapshot.machines
        self.room = self.machines.room()
        self._until = until
        self.turn_came = False
        """Whether nobody closed the pass before the session that it was to go to."""
        self._ranking = RANKINGS[self.group.ranking](snapshot)
        self._lasting = lasting
        self._whereabouts = Whereabouts(snapshot)
        self.placer = Placer(
            self.machines,
            self.room,
            self._ranking,
            self._cursor(),
            self._whereabouts,
            lasting=lasting,
        )
        self.placed: dict[SessionId, Assignment] = {}
        self.verdicts: dict[Demand, Verdict] = {}
        self.bookings: Bookings = Bookings(
            snapshot, self.placer, self._held, self._taken, like.bookings if like else None
        )
        self._too_long: dict[Demand, float] = {}
        """From this walltime on, sessions of the demand were found to delay a reservation."""
        self.shares = Shares({"cpu": 0, "mem": 0, "gpu": 0})
        """What each owner holds, where the order asks for it."""
        self.plan = Plan(self.placed, Waits(self), frozenset())

    def run(self) -> None:
        """Go through the queue once."""
        shares = self.shares = Shares(self.machines.totals())
        order = ORDERS[self.group.order]
        if order.by_owner:
            self._count_shares(shares)
        never: list[Lane] = []
        self.bookings.keep(self._able_in_order())
        for line in order.walk([*self._lines(never), *self._last_lines()], shares):
            assert line.head is not None
            session = line.head[3]
            if session is self._until:
                self.turn_came = True
                return
            if self._is_replaced(session):
                line.next()
                continue
            if session.session_id in self.snapshot.waiting_for_old:
                line.next()
                continue
            places = self._try(line, session)
            if places is None:
                if self._after_refusal(line, session):
                    break
                continue
            self.placed[session.session_id] = assignment_of(session, places, self.machines)
            self._whereabouts.put(session, places)
            if order.by_owner:
                shares.add(session.owner, line.demand.requests)
            line.next()
        ids = frozenset(entry[2] for lane in never for entry in lane.entries)
        self.plan = Plan(self.placed, Waits(self), ids - self.snapshot.waiting_for_old)

    def in_order(self) -> Iterator[Entry]:
        """Yield everybody who is lined up, in the order in which a pass that places none goes."""
        shares = Shares(self.machines.totals())
        order = ORDERS[self.group.order]
        if order.by_owner:
            self._count_shares(shares)
        lines = [Line(lane) for lane in self.snapshot.queue.lanes()]
        for line in order.walk([*lines, *self._last_lines()], shares):
            assert line.head is not None
            if not self._is_replaced(line.head[3]):
                yield line.head
            if line.head[2] in self.placed:
                shares.add(line.head[3].owner, line.demand.requests)
            line.next()

    def new_holds(self) -> list[Hold]:
        """Return what those will hold that this pass has placed."""
        queue = self.snapshot.queue
        return [
            Hold(
                token="",
                session_id=session_id,
                kernel_id=kernel.kernel_id,
                agent_id=one.agent_id,
                cpu_milli=kernel.request.cpu_milli,
                mem_bytes=kernel.request.mem_bytes,
                devices=one.devices,
            )
            for session_id, assignment in self.placed.items()
            for kernel, one in zip(queue[session_id].kernels, assignment, strict=True)
        ]

    def until(self, hold: Hold) -> float:
        """Return until when something should be held."""
        now = self.snapshot.now
        if hold.session_id in self.placed:
            return now + walltime_of(self.snapshot.queue[SessionId(hold.session_id)], self.group)
        session = self.snapshot.running.get(SessionId(hold.session_id))
        return held_until(hold, session, self.group, now)

    def _held(self) -> Iterator[tuple[Hold, float]]:
        return ((hold, self.until(hold)) for hold in self.machines.holds.values())

    def _taken(self) -> Iterator[tuple[Hold, float]]:
        return ((hold, self.until(hold)) for hold in self.new_holds())

    def _able_in_order(self) -> Iterator[tuple[SessionWithKernels, Demand]]:
        """Yield those that could be placed if there were room, in order."""
        for *_, session_id, session in self.in_order():
            if session is self._until:
                return
            lane = self.snapshot.queue.lane_of(session_id)
            assert lane is not None
            waits = session_id in self.snapshot.waiting_for_old
            if not waits and self.never(lane.demand) is None:
                yield session, lane.demand

    @property
    def stale_at(self) -> float:
        """When something should have ended that the plan counts on: time for another look."""
        return self.bookings.stale_at

    @property
    def reservations(self) -> Mapping[SessionId, Reservation]:
        """What is reserved for whom; for all that have a reservation after `reserve_all`."""
        return self.bookings.reservations

    @property
    def reserves(self) -> bool:
        """Whether sessions that find no room may have a reservation in this group."""
        return self.group.backfill not in _PLAIN

    def reserve_all(self) -> None:
        """Work out the reservations that nobody needed to know of so far, for people to see."""
        self.bookings.reserve()

    # --- one session ------------------------------------------------------------------------------

    def place_now(self, session: SessionWithKernels, demand: Demand) -> Places | None:
        """Place one session, if it has room and delays no reservation."""
        if self.group.backfill in _PLAIN:
            return self.placer.place(demand)
        if self.bookings.blocked and not self._has_some_room(demand):
            return None
        return self.bookings.place(session, demand)

    def would_start(self, session: SessionWithKernels) -> Places | None:
        """Say where a session would go, were it the next one; nothing is taken."""
        demand = self.snapshot.queue.demand_of(session)
        if demand.problem is not None or self._is_refused_already(demand):
            return None
        placer = self.placer
        if self.reserves:
            if self.bookings.blocked and not self._has_some_room(demand):
                return None
            placer = self.bookings.placer_for(session)
        places = _tried(placer, demand)
        return None if places is None or self.never(demand) is not None else places

    def _try(self, line: Line, session: SessionWithKernels) -> Places | None:
        demand = line.demand
        if not (self.snapshot.promises and self.bookings.is_due(session, demand)):
            if self._is_refused_already(demand):
                return None
            too_long_s = self._too_long.get(demand) if self._too_long else None
            if too_long_s is not None and walltime_of(session, self.group) >= too_long_s:
                return None
        places = self.place_now(session, demand)
        if places is None:
            if self._has_some_room(demand) and self.reservations and self.fits(demand):
                self.verdicts[demand] = Verdict.RESERVED
                self._too_long[demand] = walltime_of(session, self.group)
            else:
                self.verdicts[demand] = Verdict.NO_ROOM
                if self._lasting:
                    demand.refused_at = self.machines.version
        return places

    def fits(self, demand: Demand) -> bool:
        """Say whether it would fit now, were nothing reserved."""
        return _tried(self.placer, demand) is not None

    def _is_refused_already(self, demand: Demand) -> bool:
        if self.verdicts.get(demand) is Verdict.NO_ROOM:
            return True
        if not demand.refused_at:
            return False
        grown = self.machines.grown_since(demand.refused_at)
        if grown is None or len(grown):
            return False
        self.verdicts[demand] = Verdict.NO_ROOM
        return True

    def _has_some_room(self, demand: Demand) -> bool:
        """Whether each kernel alone would fit now, whatever is reserved."""
        without = [n for n in dict.fromkeys(demand.needs) if not self.placer.has_room(n)]
        return not without

    def _after_refusal(self, line: Line, session: SessionWithKernels) -> bool:
        """Say whether the pass ends here; else go on in the lane, or be done with it."""
        policy, demand = self.group.backfill, line.demand
        room_is_reserved = self.verdicts.get(demand) is Verdict.RESERVED
        may_have_reservation = self.bookings.block(session)
        if policy is Backfill.STRICT:
            return True
        if may_have_reservation and policy is Backfill.CONSERVATIVE:
            line.next()
        elif may_have_reservation:
            line.close()
        elif room_is_reserved:
            line.next()
        else:
            line.close()
        return False

    # --- all of them ------------------------------------------------------------------------------

    def _lines(self, never: list[Lane]) -> Iterator[Line]:
        for lane in self.snapshot.queue.lanes():
            if self.never(lane.demand) is not None:
                self.verdicts[lane.demand] = Verdict.NEVER
                never.append(lane)
            elif self.group.backfill is not Backfill.NONE or not self._is_refused_already(
                lane.demand
            ):
                yield Line(lane)

    def _last_lines(self) -> list[Line]:
        """The line of the session that the pass is to go to, if any."""
        return [Line(self.snapshot.queue.lane_for(self._until))] if self._until else []

    def _is_replaced(self, session: SessionWithKernels) -> bool:
        """Whether it stands in the queue as what the pass does not take it for."""
        until = self._until
        return until is not None and session.session_id == until.session_id and session is not until

    def never(self, demand: Demand) -> Wait | None:
        """Say why a demand can never be met, or `None`; found once while the agents stay alike."""
        if demand.judged_at != self.machines.agents_version:
            demand.judged_at = self.machines.agents_version
            demand.never = never_fits(demand, self.machines)
        return demand.never

    def _count_shares(self, shares: Shares) -> None:
        snapshot = self.snapshot
        for hold in self.machines.holds.values():
            if hold.agent_id in self.machines.row_of:
                holder = SessionId(hold.session_id)
                session = snapshot.running.get(holder) or snapshot.queue.get(holder)
                shares.add_hold(session.owner if session else "", hold)

    def _cursor(self) -> int:
        """The last row up to the agent that was taken last, which may not be there any more."""
        last = self.group.last_agent_id
        return bisect_right(self.machines.agents, last or "", key=lambda a: a.agent_id) - 1


def _tried(placer: Placer, demand: Demand) -> Places | None:
    """Place a demand and take nothing."""
    cursor = placer.cursor
    places = placer.place(demand)
    if places is not None:
        placer.give_back(demand.needs, places)
        placer.cursor = cursor
    return places


_PLAIN = (Backfill.NONE, Backfill.STRICT)
"""Without reservations."""
