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
from dataclasses import dataclass, field
from enum import Enum

from sokovan.domain.cluster import Backfill
from sokovan.domain.reasons import Wait, WaitReason
from sokovan.domain.resources import Hold
from sokovan.domain.sessions import Assignment, SessionId, SessionWithKernels
from sokovan.placement.admit import admission
from sokovan.placement.backfill import (
    RESERVATIONS_MAX,
    Profile,
    Releases,
    Reservation,
    held_until,
    releases_of,
    walltime_of,
)
from sokovan.placement.binding import binding, never_fits
from sokovan.placement.fit import Placer, Places, assignment_of
from sokovan.placement.machines import Room
from sokovan.placement.needs import Demand
from sokovan.placement.order import ORDERS, Line, Shares
from sokovan.placement.queue import Entry, Lane
from sokovan.placement.rank import RANKINGS
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
    value = (
        snapshot.machines.version,
        snapshot.queue.version,
        snapshot.group,
        snapshot.waiting_for_old,
    )
    kept = snapshot.memory.get("pass")
    if kept is not None and kept[0] is snapshot.machines and kept[1] == value:
        last: Pass = kept[2]
        return last
    done = Pass(snapshot, lasting=True)
    done.run()
    snapshot.memory["pass"] = (snapshot.machines, value, done)
    if done.plan.placed:
        # What was taken may yet be refused by the store: those rows are to be looked at again.
        snapshot.machines.grow(done.placer.room.touched)
    return done


class Pass:
    """One look at the queue.

    Args:
        snapshot: What is known.
        until: Stop when it is this session's turn, with everything as it is then. It need not be in
            the queue; if it is, it is taken for what is said here.
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
        self._ranking = RANKINGS[self.group.ranking](self.machines)
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
        self.waits: dict[SessionId, Wait] = {}
        """Of single sessions, where it is not their demand that says why."""
        self.blocked: list[SessionWithKernels] = []
        """Those that found no room, in order, as far as they may get a reservation."""
        self.reservations: dict[SessionId, Reservation] = {}
        self._reserved = 0
        """How many of `blocked` have been seen to."""
        self._profile: Profile | None = None
        self._held: Releases | None = like._held if like else None  # noqa: SLF001
        self._started: list[tuple[SessionWithKernels, Demand, Places]] = []
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
        lines = list(self._lines(never))
        until = self._until
        last = Line(self.snapshot.queue.lane_for(until)) if until else None
        for line in order.walk(lines if last is None else [*lines, last], shares):
            assert line.head is not None
            session = line.head[3]
            if line is last:
                self.turn_came = True
                return
            if until and session.session_id == until.session_id:
                line.next()
                continue
            if session.session_id in self.snapshot.waiting_for_old:
                wait = admission(session, self.snapshot)
                if wait is not None:
                    self.waits[session.session_id] = wait
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
        ids = (entry[2] for lane in never for entry in lane.entries)
        self.plan = Plan(self.placed, Waits(self), frozenset(ids))

    def in_order(self) -> Iterator[Entry]:
        """Yield everybody who is lined up, in the order in which a pass that places none goes."""
        shares = Shares(self.machines.totals())
        order = ORDERS[self.group.order]
        if order.by_owner:
            self._count_shares(shares)
        for line in order.walk([Line(lane) for lane in self.snapshot.queue.lanes()], shares):
            assert line.head is not None
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

    # --- one session ------------------------------------------------------------------------------

    def place_now(self, session: SessionWithKernels, demand: Demand) -> Places | None:
        """Place one session, if it has room and delays no reservation."""
        placer = self._placer_for(session, demand)
        places = placer.place(demand) if placer else None
        if places is not None:
            if self._profile:
                ends_at = self.snapshot.now + walltime_of(session, self.group)
                self._profile.started(demand, places, ends_at)
            self._started.append((session, demand, places))
        return places

    def would_start(self, session: SessionWithKernels) -> Places | None:
        """Say where a session would go, were it the next one; nothing is taken."""
        demand = self.snapshot.queue.demand_of(session)
        if demand.problem is not None or self._is_refused_already(demand):
            return None
        placer = self._placer_for(session, demand)
        places = _tried(placer, demand) if placer else None
        return None if places is None or self.never(demand) is not None else places

    def _placer_for(self, session: SessionWithKernels, demand: Demand) -> Placer | None:
        """Return who places a session that is to delay no reservation; `None`: it has no room."""
        if self.group.backfill in _PLAIN:
            return self.placer
        if self.blocked:
            if not self._has_some_room(demand):
                return None
            self._reserve()
        if self._profile is None:
            return self.placer
        return self._profile.limited(self.snapshot.now + walltime_of(session, self.group))

    def _try(self, line: Line, session: SessionWithKernels) -> Places | None:
        demand = line.demand
        if self._is_refused_already(demand):
            return None
        too_long_s = self._too_long.get(demand) if self._too_long else None
        if too_long_s is not None and walltime_of(session, self.group) >= too_long_s:
            return None
        places = self.place_now(session, demand)
        if places is None:
            if self._has_some_room(demand) and self.reservations and self._fits(demand):
                self.verdicts[demand] = Verdict.RESERVED
                self._too_long[demand] = walltime_of(session, self.group)
            else:
                self.verdicts[demand] = Verdict.NO_ROOM
                if self._lasting:
                    demand.refused_at = self.machines.version
        return places

    def _fits(self, demand: Demand) -> bool:
        """Whether it would fit now, were nothing reserved."""
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
        elif policy is Backfill.EASY and not self._reserved:
            self.blocked.append(session)
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
            if easy and self._reserved >= TRIED_MAX:
                return
            session = self.blocked[self._reserved]
            self._reserved += 1
            self._reserve_for(session, first=easy)

    def reserve_next(
        self, session: SessionWithKernels, not_before: float = 0.0
    ) -> Reservation | None:
        """Reserve for one more session, behind all that have a reservation, to see when it is."""
        self.reserve_all()
        return self._reserve_for(session, not_before)

    def _reserve_for(
        self, session: SessionWithKernels, not_before: float = 0.0, *, first: bool = False
    ) -> Reservation | None:
        demand = self.snapshot.queue.demand_of(session)
        if self._profile is None:
            self._profile = Profile(
                self.snapshot.now, self.placer, self._releases(), self._placer_of
            )
        walltime_s = walltime_of(session, self.group)
        if first:
            found = self._profile.reserve_first(demand, walltime_s)
        else:
            found = self._profile.reserve(demand, walltime_s, not_before)
        if found is None:
            return None
        starts_at, places = found
        kept = self.reservations[session.session_id] = Reservation(
            session.session_id,
            starts_at,
            starts_at + walltime_s,
            assignment_of(session, places, self.machines),
        )
        return kept

    def _releases(self) -> Releases:
        now = self.snapshot.now
        if self._held is None:
            self._held = releases_of(self.machines, self.snapshot.running, self.group, now)
        if not self._started:
            return self._held
        return self._held.plus(
            (
                now + walltime_of(session, self.group),
                taken.row,
                need.cpu,
                need.mem,
                taken.devices,
            )
            for session, demand, places in self._started
            for need, taken in zip(demand.needs, places, strict=True)
        )

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


TRIED_MAX = 16
"""Under `easy`, for so many blocked sessions in turn is a reservation sought; those that wait for
something that no running session will release have none."""
_PLAIN = (Backfill.NONE, Backfill.STRICT)
"""Without reservations."""


class Whereabouts(Mapping[str, "set[int]"]):
    """The rows on which kernels of sessions are, by the sessions' names and ids."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
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
        return self._rows

    def put(self, session: SessionWithKernels, places: Places) -> None:
        """Take over where a session was just placed."""
        if self._rows is None:
            return
        for name in {session.session_id, session.name} - {""}:
            self._rows.setdefault(name, set()).update(taken.row for taken in places)


@dataclass(slots=True)
class Waits(Mapping[SessionId, Wait]):
    """Why each session waits that a pass did not place, worked out when asked for."""

    done: Pass
    _of_demand: dict[Demand, Wait] = field(default_factory=dict)

    def __getitem__(self, session_id: SessionId) -> Wait:
        done, queue = self.done, self.done.snapshot.queue
        if session_id in done.placed:
            raise KeyError(session_id)
        session = queue[session_id]
        if session_id in done.waits:
            return done.waits[session_id]
        lane = queue.lane_of(session_id)
        if lane is None:
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
        if verdict is Verdict.NO_ROOM:
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
