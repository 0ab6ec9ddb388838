"""The database fails over to a standby: nothing accepted is lost, and everything resumes."""

import signal

import pytest

from tests.faults.database import Job, Load, ended, faults_in, home_on
from tests.postgresql import Server

pytestmark = [pytest.mark.real, pytest.mark.faults, pytest.mark.postgres]


@pytest.fixture
def pair():
    primary = Server(durable=True, settings={"synchronous_standby_names": "*"})
    try:
        standby = Server(durable=True, copies=primary)
        yield primary, standby
        standby.close()
    finally:
        primary.close()


def test_a_standby_that_takes_over_has_everything_and_the_manager_finds_it(pair):
    primary, standby = pair
    name = primary.prepared().rpartition("/")[2]
    both = (
        f"postgresql://postgres@127.0.0.1:{primary.port},127.0.0.1:{standby.port}/{name}"
        "?target_session_attrs=read-write"
    )
    with home_on(both) as home:
        home.up()
        job, other = Job(home, "job"), Job(home, "other")
        with Load(home) as load:
            home.wait_for(lambda: load.count("accepted") >= 40, "acceptances")
            primary.stop(signal.SIGQUIT)
            other.end()
            home.wait_for(lambda: load.count("store-unavailable") >= 6, "refusals")
            standby.execute("SELECT pg_promote()")
            before = load.count("accepted")
            home.wait_for(lambda: load.count("accepted") >= before + 40, "acceptances after")
        load.settle()
        home.wait_for(lambda: ended(home, other.id), "end")
        assert job.is_running()
        job.end()
        home.wait_for(lambda: home.live_ids() == set(), "end of every session")

        assert load.faults_found(standby.url(name)) == []
        assert [home.client.get(j.id)["exit_code"] for j in (job, other)] == [5, 5]
        assert faults_in(standby.url(name)) == ()
