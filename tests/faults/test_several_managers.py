"""Two managers on one PostgreSQL, as real processes: killed, stopped for a while, cut off."""

import signal
from collections import Counter
from pathlib import Path

import pytest

from sokovan.client import Client
from sokovan.domain.errors import SokovanError
from tests.faults.database import Proxy, faults_in
from tests.faults.ground import RealHome, real_home

pytestmark = [pytest.mark.faults, pytest.mark.postgres]

LEASE_S = 4.0
SESSIONS = 40
STORE = f"""
[store]
url = "{{url}}"
lease_s = {LEASE_S}
answer_s_max = 3.0
"""


class Company:
    """Two homes with one database; the agent is the first's, and so is the proxy."""

    def __init__(
        self, first: RealHome, second: RealHome, url: str, marks: Path, proxy: Proxy
    ) -> None:
        self.homes = (first, second)
        self.url = url
        self.marks = marks
        self.proxy = proxy

    def leader(self) -> RealHome:
        """Return the home whose manager drives the group, as soon as one does."""
        return self.homes[0].wait_for(
            lambda: next((home for home in self.homes if self._drives(home)), None), "leader"
        )

    @staticmethod
    def _drives(home: RealHome) -> bool:
        try:
            return home.client.status()["drives"] == ["default"]
        except SokovanError:
            return False

    def other(self, than: RealHome) -> RealHome:
        return next(home for home in self.homes if home is not than)

    def submit(self, client: Client, count: int, seconds: float = 0.3) -> list[str]:
        """Submit sessions that leave a mark whenever they are started."""
        script = f'echo "$SOKOVAN_SESSION_ID" >> {self.marks}; sleep {seconds}'
        body = {"command": ["sh", "-c", script], "cpu_milli": 100, "cwd": "/"}
        return [view["id"] for view in client.submit_many([body] * count)]

    def ended(self, ids: list[str]) -> bool:
        live = self.leader().live_ids()
        return live is not None and not live & set(ids)

    def each_ran_once(self, ids: list[str]) -> None:
        """Make sure that nothing was lost, and nothing done twice."""
        client = self.leader().client
        views = {v["id"]: v for v in client.list(live_only=False, limit=1000) if v["id"] in ids}
        assert {v["result"] for v in views.values()} == {"SUCCESS"}
        assert views.keys() == set(ids)
        assert Counter(self.marks.read_text().split()) == Counter(ids)
        assert faults_in(self.url) == ()


@pytest.fixture
def company(tmp_path, postgresql):
    url = postgresql.prepared()
    with Proxy(postgresql.port) as proxy:
        through = url.replace(str(postgresql.port), str(proxy.port))
        agent = '[[agents]]\nname = "local"\ncpu = "4"\n'
        config = STORE.format(url=through) + agent
        alone = "agents = []\n" + STORE.format(url=url)
        with real_home(config) as first, real_home(alone) as second:
            first.up()
            second.up()
            yield Company(first, second, url, tmp_path / "marks", proxy)


def test_another_manager_takes_over_from_one_that_is_killed(company):
    ids = company.submit(company.homes[0].client, SESSIONS)
    for _ in range(3):
        leader = company.leader()
        leader.kill("manager")
        assert company.leader() is company.other(leader)
        leader.up()

    company.homes[0].wait_for(lambda: company.ended(ids), "end of all sessions")

    company.each_ran_once(ids)


def test_a_manager_that_stood_still_finds_that_another_has_taken_over(company):
    ids = company.submit(company.homes[0].client, SESSIONS)
    leader = company.leader()
    leader.kill("manager", signal.SIGSTOP)
    other = company.other(leader)
    other.wait_for(lambda: company._drives(other), "take-over")
    company.submit(other.client, 1)

    leader.kill("manager", signal.SIGCONT)

    leader.wait_for(lambda: leader.is_up() and not company._drives(leader), "second place")
    more = company.submit(leader.client, SESSIONS // 4)
    leader.wait_for(lambda: company.ended([*ids, *more]), "end of all sessions")


def test_a_manager_that_is_cut_off_from_the_database_is_replaced(company):
    first, second = company.homes
    ids = company.submit(first.client, SESSIONS)
    while company.leader() is not first:  # a slow machine may have had it stand by
        second.kill("manager")
        first.wait_for(lambda: company._drives(first), "take-over")
        second.up()
    company.proxy.is_silent = True

    second.wait_for(lambda: company._drives(second), "take-over")
    with Client(home=first.home, retry_s=0, timeout_s=100) as client:
        with pytest.raises(SokovanError) as refused:
            company.submit(client, 1)
        assert refused.value.code == "store-unavailable"
    ids += company.submit(second.client, SESSIONS // 4)

    company.proxy.is_silent = False
    first.wait_for(lambda: first.is_up() and not company._drives(first), "second place")
    ids += company.submit(first.client, SESSIONS // 4)
    second.wait_for(lambda: company.ended(ids), "end of all sessions")
    company.each_ran_once(ids)


def test_what_is_known_of_users_is_the_same_on_all_managers(company):
    first, second = company.homes
    made = first.client.create_token(user="ann", role="user", label="")
    with Client(url=second.client.status()["address"], token=made["token"]) as client:
        second.wait_for(lambda: _may(client), "token")
        first.client.revoke_token(made["id"])
        second.wait_for(lambda: not _may(client), "end of the token")


def _may(client: Client) -> bool:
    try:
        return client.whoami()["user"] == "ann"
    except SokovanError:
        return False


def test_whoever_waits_on_one_manager_hears_what_another_one_does(company):
    first, second = company.homes
    (session_id,) = company.submit(first.client, 1, seconds=0.5)

    ended = second.client.wait(session_id, timeout_s=60)

    assert ended["result"] == "SUCCESS"
    assert b"".join(second.client.output(session_id)) == b""
    assert session_id in company.marks.read_text()
