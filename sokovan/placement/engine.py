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
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from math import inf

from sokovan.domain.cluster import Backfill
from sokovan.domain.reasons import Wait, WaitReason
from sokovan.domain.resources import Hold
from sokovan.domain.sessions import Assignment, SessionId, SessionWithKernels
from sokovan.placement.admit import admission
from sokovan.placement.backfill import (
    TRIED_MAX,
    Easy,
    Slot,
    has_room_for,
    slot_of,
)
from sokovan.placement.binding import binding, never_fits
from sokovan.placement.conservative import RESERVATIONS_MAX, Conservative
from sokovan.placement.fit import Placer, Places, assignment_of
from sokovan.placement.machines import Room
from sokovan.placement.needs import Demand
from sokovan.placement.order import ORDERS, Line, Shares
from sokovan.placement.promises import Promise, Reservation
from sokovan.placement.queue import Entry, Lane
from sokovan.placement.rank import RANKINGS
from sokovan.placement.releases import Release, Releases, held_until, release_of, walltime_of
from sokovan.placement.snapshot import Snapshot


class Verdict(Enum):
    """What a pass found about a demand that it did not place."""

    NO_ROOM = "no room"
    RESERVED = "there is room, but it is reserved for others"
    NEVER = "no room even when all agents are empty"
    BEHIND = "not looked at: somebody before it stopped the pass"


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
    snapshot.promises = done.promises
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
        self.blocked: list[SessionWithKernels] = []
        """Those that found no room, in order, as far as they may get a reservation."""
        self.reservations: dict[SessionId, Reservation] = {}
        self.promises: dict[SessionId, Promise] = {}
        """The same for later passes to keep, with those for whom nothing can be reserved."""
        self.stale_at = inf
        """When something should have ended that this pass counts on: time for another look."""
        self._kept: dict[SessionId, Slot] = {}
        """Earlier promises that `_profile` has, until their sessions have their turn."""
        self._reserved = 0
        """How many of `blocked` have been seen to."""
        self._profile: Easy | Conservative | None = None
        self._held: Releases | None = like._held if like else None  # noqa: SLF001
        """What should be released of what was held before this pass."""
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
        if self.group.backfill is Backfill.CONSERVATIVE and self.snapshot.promises:
            self._keep_promises()
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

    @property
    def reserves(self) -> bool:
        """Whether sessions that find no room may have a reservation in this group."""
        return self.group.backfill not in _PLAIN

    def reserve_all(self) -> None:
        """Work out the reservations that nobody needed to know of so far, for people to see."""
        self._reserve()

    def reserve_next(
        self, session: SessionWithKernels, not_before: float = 0.0
    ) -> Reservation | None:
        """Reserve for one more session, behind all that have a reservation, to see when it is."""
        self.reserve_all()
        demand = self.snapshot.queue.demand_of(session)
        return self._take_over(session, self._reserve_next(session, demand, not_before))

    # --- one session ------------------------------------------------------------------------------

    def place_now(self, session: SessionWithKernels, demand: Demand) -> Places | None:
        """Place one session, if it has room and delays no reservation."""
        if self.group.backfill in _PLAIN:
            return self.placer.place(demand)
        if self.blocked:
            if not self._has_some_room(demand):
                return None
            self._reserve()
        profile = self._profile
        if profile is None:
            places = self.placer.place(demand)
            return places or self._as_promised(session, demand, self.placer)
        ends_at = self.snapshot.now + walltime_of(session, self.group)
        own = self._put_back(session)
        placer = profile.limited(ends_at)
        places = placer.place(demand) or self._as_promised(session, demand, placer)
        if places is not None:
            profile.started(demand, places, ends_at)
            for of_session in (self.reservations, self.promises):
                of_session.pop(session.session_id, None)
        elif own is not None and isinstance(profile, Conservative):
            profile.take_out(own)
            self._kept[session.session_id] = own
        return places

    def would_start(self, session: SessionWithKernels) -> Places | None:
        """Say where a session would go, were it the next one; nothing is taken."""
        demand = self.snapshot.queue.demand_of(session)
        if demand.problem is not None or self._is_refused_already(demand):
            return None
        if self.reserves and self.blocked:
            if not self._has_some_room(demand):
                return None
            self._reserve()
        placer = self.placer
        if self._profile is not None:
            placer = self._profile.limited(self.snapshot.now + walltime_of(session, self.group))
        places = _tried(placer, demand)
        return None if places is None or self.never(demand) is not None else places

    def _put_back(self, session: SessionWithKernels) -> Slot | None:
        """Let a session have what is kept for it, and return that."""
        own = self._kept.pop(session.session_id, None)
        if own is not None and isinstance(self._profile, Conservative):
            self._profile.put_back(own)
        return own

    def _as_promised(
        self, session: SessionWithKernels, demand: Demand, placer: Placer
    ) -> Places | None:
        """Take the places reserved for now, where looking anew has not found room for all kernels.

        Each kernel goes where it is best for itself, which may leave no room for another one.
        """
        slot = self._due(session, demand)
        if slot is None or not has_room_for(slot, placer.room, self.machines.kernels_max):
            return None
        for need, place in zip(demand.needs, slot.places, strict=True):
            placer.room.take(place.row, need.cpu, need.mem, place.devices)
        return slot.places

    def _due(self, session: SessionWithKernels, demand: Demand) -> Slot | None:
        """Return what was reserved for a session from now on."""
        promise = self.snapshot.promises.get(session.session_id)
        if promise is None:
            return None
        now, walltime_s = self.snapshot.now, walltime_of(session, self.group)
        slot = slot_of(promise, demand, self.machines, now, walltime_s)
        return slot if slot is not None and slot.starts_at == now else None

    def _try(self, line: Line, session: SessionWithKernels) -> Places | None:
        demand = line.demand
        if not (self.snapshot.promises and self._due(session, demand)):
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
        if policy is Backfill.STRICT:
            self.blocked.append(session)
            return True
        if policy is Backfill.CONSERVATIVE and len(self.blocked) < RESERVATIONS_MAX:
            self.blocked.append(session)
            line.next()
        elif policy is Backfill.EASY and not self.reservations and len(self.blocked) < TRIED_MAX:
            self.blocked.append(session)
            promise = self.snapshot.promises.get(session.session_id)
            if promise is not None:
                self.promises[session.session_id] = promise
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
        if demand.judged_at != self.machines.statics:
            demand.judged_at = self.machines.statics
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

    # --- reservations -----------------------------------------------------------------------------

    def _reserve(self) -> None:
        """Reserve for those blocked since the last time; under `easy`, for the first possible."""
        easy = self.group.backfill is Backfill.EASY
        while self._reserved < len(self.blocked) and not (easy and self.reservations):
            session = self.blocked[self._reserved]
            self._reserved += 1
            demand = self._demand_of(session)
            slot = (
                self._reserve_first(session, demand)
                if easy
                else self._reserve_next(session, demand)
            )
            reservation = self._take_over(session, slot)
            self.promises[session.session_id] = Promise(demand, reservation)

    def _take_over(self, session: SessionWithKernels, slot: Slot | None) -> Reservation | None:
        if slot is None:
            return None
        walltime_s = walltime_of(session, self.group)
        made = self.reservations[session.session_id] = Reservation(
            session.session_id,
            slot.starts_at,
            slot.starts_at + walltime_s,
            assignment_of(session, slot.places, self.machines),
        )
        return made

    def _reserve_first(self, session: SessionWithKernels, demand: Demand) -> Slot | None:
        now, walltime_s = self.snapshot.now, walltime_of(session, self.group)
        promise = self.snapshot.promises.get(session.session_id)
        kept = slot_of(promise, demand, self.machines, now, walltime_s)
        profile = Easy(now, self.placer, self._releases(), self._placer_of)
        slot = profile.reserve(demand, walltime_s, kept)
        if slot is not None:
            self._profile = profile
        return slot

    def _reserve_next(
        self, session: SessionWithKernels, demand: Demand, not_before: float = 0.0
    ) -> Slot | None:
        if not isinstance(self._profile, Conservative):
            self._profile = self._conservative()
        own = self._put_back(session)
        return self._profile.reserve(demand, walltime_of(session, self.group), own, not_before)

    def _keep_promises(self) -> None:
        """Reserve what was promised, in order, up to the first session that had no turn yet.

        It may need what those behind it have, so they are planned anew. The same holds for the
        first that cannot have what it was promised.
        """
        snapshot, now = self.snapshot, self.snapshot.now
        made = [p.reservation for p in snapshot.promises.values() if p.reservation is not None]
        profile = self._conservative(moment for r in made for moment in (r.starts_at, r.ends_at))
        for *_, session_id, session in self.in_order():
            if session is self._until:
                break
            demand = self._demand_of(session)
            if self.never(demand) is not None or session_id in snapshot.waiting_for_old:
                continue
            promise = snapshot.promises.get(session_id)
            if promise is None:
                break
            if promise.reservation is not None:
                walltime_s = walltime_of(session, self.group)
                slot = slot_of(promise, demand, self.machines, now, walltime_s)
                if slot is None or not profile.take_out(slot):
                    break
                self._kept[session_id] = slot
                self.reservations[session_id] = replace(
                    promise.reservation, starts_at=slot.starts_at, ends_at=slot.ends_at
                )
            self.promises[session_id] = promise
        if self._kept:
            self._profile = profile

    def _conservative(self, kept: Iterable[float] = ()) -> Conservative:
        now = self.snapshot.now
        return Conservative(now, self.placer, self._releases(), self._placer_of, kept)

    def _demand_of(self, session: SessionWithKernels) -> Demand:
        lane = self.snapshot.queue.lane_of(session.session_id)
        assert lane is not None
        return lane.demand

    def _releases(self) -> Releases:
        if self._held is None:
            held = self._released_by(self.machines.holds.values())
            self._held = Releases(held, self.machines)
        found = self._held.plus(self._released_by(self.new_holds()))
        self.stale_at = found.next_after(self.snapshot.now)
        return found

    def _released_by(self, holds: Iterable[Hold]) -> Iterator[Release]:
        for hold in holds:
            release = release_of(hold, self.machines, self.until(hold))
            if release is not None:
                yield release

    def _placer_of(self, room: Room) -> Placer:
        return Placer(
            self.machines, room, self._ranking, self.placer.cursor, self.placer.rows_of_sessions
        )


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


@dataclass(slots=True, eq=False)
class Waits(Mapping[SessionId, Wait]):
    """Why each session waits that a pass did not place, worked out when asked for."""

    done: Pass
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
        first = done.blocked[0]
        if verdict is Verdict.BEHIND:
            return Wait(
                WaitReason.BEHIND_ANOTHER, {"session_id": first.session_id, "name": first.name}
            )
        done.reserve_all()
        kept = next(iter(done.reservations.values()), None)
        facts = {"session_id": first.session_id, "name": first.name}
        if kept is not None:
            session = done.snapshot.queue.get(kept.session_id, first)
            facts = {"session_id": session.session_id, "name": session.name}
            facts |= {"starts_at": kept.starts_at}  # type: ignore[dict-item]
        return Wait(WaitReason.RESERVED_FOR_ANOTHER, facts)
