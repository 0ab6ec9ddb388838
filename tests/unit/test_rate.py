"""How often callers may ask, and who is kept out when somebody asks too often."""

import pytest

from sokovan.api import rate
from sokovan.api.guard import home_token
from sokovan.api.rate import Buckets, Limiter
from sokovan.clock import ManualClock
from sokovan.config import ApiConfig, Config
from sokovan.domain.access import Caller
from sokovan.domain.errors import TooManyRequestsError
from tests.build import NOW, a_repository
from tests.served import TOKEN, assembled, bearer, client_of

GOOD = b"good"
BURST = 10
"""Of a bucket with 2 requests a second."""
FAILURES = 100
"""Of an address."""


@pytest.fixture
def clock():
    return ManualClock(NOW)


@pytest.fixture
def limiter(clock):
    def identify(given, address):
        return Caller(given.decode(), address=address) if given.startswith(GOOD) else None

    return Limiter(identify, clock, requests_per_s_max=2)


def guess(limiter, address="10.0.0.1", times=FAILURES):
    for n in range(times):
        assert limiter(b"guess %d" % n, address) is None


# --- buckets --------------------------------------------------------------------------------------


def test_a_bucket_has_so_much_at_once_and_then_so_much_a_second(clock):
    buckets = Buckets(clock, 2.0)

    assert [buckets.take("a") for _ in range(BURST + 2)] == [0.0] * BURST + [0.5, 0.5]
    clock.advance(0.4)
    assert buckets.take("a") == pytest.approx(0.1)
    clock.advance(0.6)
    assert [buckets.take("a") for _ in range(3)] == [0.0, 0.0, 0.5]
    assert buckets.take("b") == 0.0


def test_a_bucket_is_never_more_than_full(clock):
    buckets = Buckets(clock, 2.0)
    buckets.take("a")
    clock.advance(1e6)

    assert sum(not buckets.take("a") for _ in range(99)) == BURST


def test_a_slow_bucket_still_has_one(clock):
    buckets = Buckets(clock, 0.1)

    assert (buckets.take("a"), buckets.take("a")) == (0.0, 10.0)


def test_there_are_not_more_than_so_many_buckets_and_the_busy_ones_stay(clock, monkeypatch):
    monkeypatch.setattr(rate, "REMEMBERED_MAX", 3)
    buckets = Buckets(clock, 2.0)
    for _ in range(BURST):
        buckets.take("busy")

    for n in range(99):
        buckets.take(f"idle {n}")
        assert buckets.take("busy") > 0

    assert len(buckets) == 3


# --- users ----------------------------------------------------------------------------------------


def test_a_user_who_asks_too_often_waits_with_every_token_and_no_other_does(limiter, clock):
    for _ in range(BURST):
        assert limiter(b"good ann", "10.0.0.1")

    with pytest.raises(TooManyRequestsError, match=r"good ann asks too often; try again in 1 s"):
        limiter(b"good ann", "10.0.0.2")
    assert limiter(b"good bob", "10.0.0.1")
    clock.advance(0.5)
    assert limiter(b"good ann", "10.0.0.1")


def test_where_there_is_no_limit_nobody_waits(clock):
    limiter = Limiter(home_token("t"), clock, requests_per_s_max=0)

    assert all(limiter(b"t", "") for _ in range(5000))


async def test_a_request_too_many_is_answered_with_when_to_come_back(clock):
    config = Config(api=ApiConfig(requests_per_s_max=2))
    async with client_of(assembled(a_repository(clock=clock), config=config)) as http:
        answers = [await http.get("/v1/agents") for _ in range(BURST + 1)]
        healthy = await http.get("/healthz")

    assert [answer.status_code for answer in answers] == [200] * BURST + [429]
    assert answers[-1].headers["retry-after"] == "1"
    assert answers[-1].json()["code"] == "too-many-requests"
    assert healthy.status_code == 200


# --- those without a good token -------------------------------------------------------------------


def test_who_guesses_is_soon_not_listened_to_any_more(limiter, clock):
    guess(limiter)

    for given in (b"another guess", GOOD):  # a guess that is right is no better
        with pytest.raises(TooManyRequestsError):
            limiter(given, "10.0.0.1")
    clock.advance(1)
    guess(limiter, times=20)
    with pytest.raises(TooManyRequestsError):
        limiter(b"another guess", "10.0.0.1")


def test_who_guesses_keeps_nobody_out_who_was_let_in_before(limiter):
    assert limiter(GOOD, "10.0.0.1")
    guess(limiter)

    assert limiter(GOOD, "10.0.0.1")
    assert limiter(b"good elsewhere", "10.0.0.2")


def test_a_token_that_is_good_no_longer_is_like_any_other(clock):
    callers = {GOOD: Caller("ann")}
    limiter = Limiter(lambda given, _: callers.get(given), clock, requests_per_s_max=0)
    assert limiter(GOOD, "10.0.0.1")
    guess(limiter)

    del callers[GOOD]
    assert limiter(GOOD, "10.0.0.1") is None
    with pytest.raises(TooManyRequestsError):
        limiter(GOOD, "10.0.0.1")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.2", False),
        ("", "unix", False),
    ],
)
def test_one_machine_is_one_place_however_many_addresses_it_has(limiter, one, other, same):
    guess(limiter, one)

    if same:
        with pytest.raises(TooManyRequestsError):
            limiter(b"guess", other)
    else:
        assert limiter(b"guess", other) is None


async def test_a_missing_token_counts_as_a_wrong_one(clock):
    async with client_of(assembled(a_repository(clock=clock))) as http:
        answers = [await http.get("/v1/agents", headers=bearer("")) for _ in range(FAILURES + 1)]
        known = await http.get("/healthz", headers=bearer(TOKEN))

    assert [answer.status_code for answer in answers] == [401] * FAILURES + [429]
    assert known.status_code == 200
