"""Who of those that are blocked has a reservation in a pass, and who may start before them."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from math import inf

from sokovan.domain.cluster import Backfill
from sokovan.domain.resources import Hold
from sokovan.domain.sessions import SessionId, SessionWithKernels
from sokovan.placement.backfill import (
    TRIED_MAX,
    Easy,
    Slot,
    has_room_for,
    slot_of,
)
from sokovan.placement.conservative import RESERVATIONS_MAX, Conservative
from sokovan.placement.needs import Demand
from sokovan.placement.placer import Placer, Places, assignment_of
from sokovan.placement.promises import Promise, Reservation
from sokovan.placement.releases import Release, Releases, release_of, walltime_of
from sokovan.placement.snapshot import Snapshot

Held = Callable[[], Iterable[tuple[Hold, float]]]
"""Says what is held, and until when it should be."""


class Bookings:
    """The reservations of one pass, worked out when somebody behind could start now.

    Args:
        snapshot: What is known, with the promises of earlier passes.
        placer: Of what is free now.
        held: Says what was held before the pass, and until when it should be.
        taken: Says the same of what this pass has placed so far.
        like: The bookings of another pass at this very moment, which may know the former already.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        placer: Placer,
        held: Held,
        taken: Held,
        like: "Bookings | None" = None,
    ) -> None:
        self._snapshot, self._placer, self._held, self._taken = snapshot, placer, held, taken
        self._before: Releases | None = like._before if like else None  # noqa: SLF001
        self._policy = snapshot.group.backfill
        self.blocked: list[SessionWithKernels] = []
        """Those that found no room, in order, as far as they may get a reservation."""
        self.reservations: dict[SessionId, Reservation] = {}
        self.promises: dict[SessionId, Promise] = {}
        """The same for later passes to keep, with those for whom nothing can be reserved."""
        self.stale_at = inf
        """When something should have ended that this pass counts on: time for another look."""
        self._seen_to = 0
        """How many of `blocked` have been seen to."""
        self._book: Easy | Conservative | None = None
        self._kept: dict[SessionId, Slot] = {}
        """Earlier promises that are in the book, until their sessions have their turn."""

    def keep(self, in_order: Iterable[tuple[SessionWithKernels, Demand]]) -> None:
        """Reserve what was promised, up to the first session that had no turn yet.

        It may need what those behind it have, so they are planned anew. The same holds for the
        first that cannot have what it was promised.
        """
        if self._policy is not Backfill.CONSERVATIVE or not self._snapshot.promises:
            return
        promises = self._snapshot.promises
        made = [p.reservation for p in promises.values() if p.reservation is not None]
        book = self._conservative(moment for r in made for moment in (r.starts_at, r.ends_at))
        for session, demand in in_order:
            session_id = session.session_id
            promise = promises.get(session_id)
            if promise is None:
                break
            if promise.reservation is not None:
                slot = self._promised(session, demand)
                if slot is None or not book.take_out(slot):
                    break
                self._kept[session_id] = slot
                self.reservations[session_id] = replace(
                    promise.reservation, starts_at=slot.starts_at, ends_at=slot.ends_at
                )
            self.promises[session_id] = promise
        if self._kept:
            self._book = book

    def block(self, session: SessionWithKernels) -> bool:
        """Note that a session found no room; say whether it may get a reservation."""
        count = len(self.blocked)
        may = {
            Backfill.NONE: False,
            Backfill.STRICT: True,
            Backfill.EASY: not self.reservations and count < TRIED_MAX,
            Backfill.CONSERVATIVE: count < RESERVATIONS_MAX,
        }[self._policy]
        if may:
            self.blocked.append(session)
            promise = self._snapshot.promises.get(session.session_id)
            if promise is not None:
                self.promises.setdefault(session.session_id, promise)
        return may

    def place(self, session: SessionWithKernels, demand: Demand) -> Places | None:
        """Place a session now, if that delays nobody of those blocked so far."""
        self.reserve()
        book = self._book
        if book is None:
            places = self._placer.place(demand)
            return places or self._as_promised(session, demand, self._placer)
        ends_at = self._snapshot.now + walltime_of(session, self._snapshot.group)
        own = self._put_back(session)
        placer = book.limited(ends_at)
        places = placer.place(demand) or self._as_promised(session, demand, placer)
        if places is not None:
            book.started(demand, places, ends_at)
            self.reservations.pop(session.session_id, None)
            self.promises.pop(session.session_id, None)
        elif own is not None and isinstance(book, Conservative):
            book.take_out(own)
            self._kept[session.session_id] = own
        return places

    def placer_for(self, session: SessionWithKernels) -> Placer:
        """Return who would place a session now that delays nobody, and is promised nothing."""
        self.reserve()
        if self._book is None:
            return self._placer
        return self._book.limited(self._snapshot.now + walltime_of(session, self._snapshot.group))

    def is_due(self, session: SessionWithKernels, demand: Demand) -> bool:
        """Say whether something was reserved for a session from now on."""
        return self._due(session, demand) is not None

    def reserve(self) -> None:
        """Reserve for those blocked since the last time; under `easy`, for the first possible."""
        easy = self._policy is Backfill.EASY
        while self._seen_to < len(self.blocked) and not (easy and self.reservations):
            session = self.blocked[self._seen_to]
            self._seen_to += 1
            lane = self._snapshot.queue.lane_of(session.session_id)
            assert lane is not None, "who waits in a pass is in a lane"
            find = self._first if easy else self._next
            reservation = self._booked(session, find(session, lane.demand))
            self.promises[session.session_id] = Promise(lane.demand, reservation)

    def reserve_next(
        self, session: SessionWithKernels, demand: Demand, not_before: float = 0.0
    ) -> Reservation | None:
        """Reserve for one more session, behind all that are blocked, to see when it could be."""
        self.reserve()
        return self._booked(session, self._next(session, demand, not_before))

    def _booked(self, session: SessionWithKernels, slot: Slot | None) -> Reservation | None:
        if slot is None:
            return None
        assignment = assignment_of(session, slot.places, self._placer.machines)
        made = Reservation(session.session_id, slot.starts_at, slot.ends_at, assignment)
        self.reservations[session.session_id] = made
        return made

    def _first(self, session: SessionWithKernels, demand: Demand) -> Slot | None:
        now, walltime_s = self._snapshot.now, walltime_of(session, self._snapshot.group)
        book = Easy(now, self._placer, self._releases(), self._placer.beside)
        slot = book.reserve(demand, walltime_s, self._promised(session, demand))
        if slot is not None:
            self._book = book
        return slot

    def _next(
        self, session: SessionWithKernels, demand: Demand, not_before: float = 0.0
    ) -> Slot | None:
        if not isinstance(self._book, Conservative):
            self._book = self._conservative()
        own = self._put_back(session)
        walltime_s = walltime_of(session, self._snapshot.group)
        return self._book.reserve(demand, walltime_s, own, not_before)

    def _conservative(self, kept: Iterable[float] = ()) -> Conservative:
        now, placer = self._snapshot.now, self._placer
        return Conservative(now, placer, self._releases(), placer.beside, kept)

    def _releases(self) -> Releases:
        if self._before is None:
            self._before = Releases(self._released(self._held()), self._placer.machines)
        found = self._before.plus(self._released(self._taken()))
        self.stale_at = found.next_after(self._snapshot.now)
        return found

    def _released(self, held: Iterable[tuple[Hold, float]]) -> Iterator[Release]:
        for hold, at in held:
            release = release_of(hold, self._placer.machines, at)
            if release is not None:
                yield release

    # --- promises ---------------------------------------------------------------------------------

    def _promised(self, session: SessionWithKernels, demand: Demand) -> Slot | None:
        snapshot = self._snapshot
        promise = snapshot.promises.get(session.session_id)
        walltime_s = walltime_of(session, snapshot.group)
        return slot_of(promise, demand, self._placer.machines, snapshot.now, walltime_s)

    def _due(self, session: SessionWithKernels, demand: Demand) -> Slot | None:
        if session.session_id not in self._snapshot.promises:
            return None
        slot = self._promised(session, demand)
        return slot if slot is not None and slot.starts_at == self._snapshot.now else None

    def _as_promised(
        self, session: SessionWithKernels, demand: Demand, placer: Placer
    ) -> Places | None:
        """Take the places reserved for now, where looking anew has not found room for all kernels.

        Each kernel goes where it is best for itself, which may leave no room for another one.
        """
        slot = self._due(session, demand)
        if slot is None or not has_room_for(slot, placer.room, placer.machines.kernels_max):
            return None
        for need, place in zip(demand.needs, slot.places, strict=True):
            placer.room.take(place.row, need.cpu, need.mem, place.devices)
        return slot.places

    def _put_back(self, session: SessionWithKernels) -> Slot | None:
        """Let a session have what is kept for it, and return that."""
        own = self._kept.pop(session.session_id, None)
        if own is not None and isinstance(self._book, Conservative):
            self._book.put_back(own)
        return own
