"""Two managers on one PostgreSQL, as real processes: killed, stopped for a while, cut off."""

import signal
from collections import Counter
from pathlib import Path

import pytest

from sokovan.client import Client
from sokovan.config import StoreConfig
from sokovan.domain.errors import SokovanError
from sokovan.simulator.survey import survey
from sokovan.store.engine import InlineDatabase
from sokovan.store.postgresql import open_postgresql
from tests.faults.ground import RealHome, real_home

pytestmark = [pytest.mark.faults, pytest.mark.postgres]

LEASE_S = 2.0
SESSIONS = 40


class Company:
    """Two homes with one database; the agent belongs to the first."""

    def __init__(self, first: RealHome, second: RealHome, url: str, marks: Path) -> None:
        self.homes = (first, second)
        self.url = url
        self.marks = marks

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
        engine = open_postgresql(self.url, StoreConfig())
        try:
            assert InlineDatabase(engine).write_now(survey).violations == ()
        finally:
            engine.dispose()


@pytest.fixture
def company(tmp_path, postgresql):
    url = postgresql.prepared()
    store = f'[store]\nurl = "{url}"\nlease_s = {LEASE_S}\n'
    agent = '[[agents]]\nname = "local"\ncpu = "4"\n'
    with real_home(store + agent) as first, real_home("agents = []\n" + store) as second:
        first.up()
        second.up()
        yield Company(first, second, url, tmp_path / "marks")


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
    assert company.leader() is other
