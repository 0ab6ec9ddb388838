"""Reservations, whatever runs and whoever comes: nobody delays them, and they are kept."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from sokovan.domain.cluster import Backfill
from sokovan.domain.resources import Request
from tests.property.backfill_world import (
    Arrival,
    World,
    an_agent,
    arrivals,
    overbooked,
    played,
    spans_of,
    worlds,
)


@given(worlds(), arrivals())
def test_nothing_is_used_twice_by_those_that_run_and_those_that_have_a_reservation(world, coming):
    for done in played(world, coming):
        spans = spans_of(world, done.reservations)

        assert overbooked(world, spans) == []


@given(worlds(Backfill), arrivals())
def test_everybody_is_placed_or_waits_for_a_reason(world, coming):
    submitted = set()
    for done in played(world, coming):
        submitted |= set(world.snapshot.queue) | set(world.started)

        assert done.plan.placed.keys() & done.plan.waits.keys() == set()
        assert set(world.started) | set(done.plan.waits) == submitted


@given(worlds(), arrivals())
def test_a_session_starts_no_later_than_any_reservation_that_it_had(world, coming):
    promised = {}
    for done in played(world, coming):
        for session_id, kept in done.reservations.items():
            at = promised.setdefault(session_id, kept.starts_at)
            assert world.now <= kept.starts_at <= at
            promised[session_id] = kept.starts_at

    late = {i: at for i, at in promised.items() if not world.started[i] <= at}
    assert late == {}


@given(worlds(), arrivals())
def test_the_first_that_waits_has_a_reservation(world, coming):
    for done in played(world, coming):
        waiting = [i for i in world.snapshot.queue if i not in done.plan.never_fits]

        if waiting:
            assert waiting[0] in done.reservations


@given(worlds([Backfill.CONSERVATIVE]), arrivals())
def test_under_conservative_everybody_who_waits_has_a_reservation(world, coming):
    for done in played(world, coming):
        waiting = {i for i in world.snapshot.queue if i not in done.plan.never_fits}

        assert set(done.reservations) == waiting


@given(worlds([Backfill.STRICT]), arrivals())
def test_under_strict_nobody_overtakes(world, coming):
    never = set()
    for done in played(world, coming):
        never |= done.plan.never_fits

    able = [a.session.session_id for a in coming if a.session.session_id not in never]
    assert list(world.started) == able


@given(worlds([Backfill.NONE]), arrivals())
def test_under_none_nobody_waits_who_would_fit(world, coming):
    for _ in played(world, coming):
        world.snapshot.memory.clear()

        assert not world.look().plan.placed


# --- a second opinion -----------------------------------------------------------------------------

on_one_agent = st.builds(
    Request, st.sampled_from([0, 1000, 2000, 3000, 4000]), st.sampled_from([0, 0, 1, 2, 3])
)


@given(arrivals(kernels_max=1, kinds=on_one_agent))
def test_easy_starts_the_same_as_a_plain_reading_of_it(coming):
    world = World([an_agent(cores=4, mem=3)], Backfill.EASY)

    for _ in played(world, coming):
        pass

    assert world.started == easy_starts(coming, (4000, 3))


def easy_starts(coming: Sequence[Arrival], capacity: tuple[int, int]) -> dict[str, float]:
    """Start sessions on one agent by EASY, looking at every moment from the beginning."""
    ahead, queue, runs, starts = list(coming), [], [], {}

    def free(at: float, among) -> tuple[int, int]:
        used = [amounts_of(arrival) for arrival, since, length in among if since + length > at]
        return tuple(there - sum(u[k] for u in used) for k, there in enumerate(capacity))

    def fits(arrival: Arrival, amounts) -> bool:
        return all(a <= b for a, b in zip(amounts_of(arrival), amounts, strict=True))

    while True:
        moments = [since + arrival.run_s for arrival, since, _ in runs]
        moments += [arrival.at for arrival in ahead[:1]]
        if not moments:
            return starts
        now = min(moments)
        runs = [one for one in runs if one[1] + one[0].run_s > now]
        while ahead and ahead[0].at <= now:
            queue.append(ahead.pop(0))
        head_at = None
        for arrival in list(queue):
            walltime_s = arrival.session.walltime_s
            begun = [*runs, (arrival, now, walltime_s)]
            if not fits(arrival, free(now, runs)):
                if head_at is None:
                    ends = sorted(max(now, since + length) for _, since, length in runs)
                    head = arrival
                    head_at = next((at for at in ends if fits(head, free(at, runs))), None)
                continue
            if head_at is not None and not fits(head, free(head_at, begun)):
                continue
            queue.remove(arrival)
            runs = begun
            starts[arrival.session.session_id] = now


def amounts_of(arrival: Arrival) -> tuple[int, int]:
    """What a session asks for."""
    request = arrival.session.kernels[0].request
    return request.cpu_milli, request.mem_bytes
