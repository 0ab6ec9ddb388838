"""A PostgreSQL in trouble: kernels run on, refusals say to try again, everything resumes by itself.

`SOKOVAN_TEST_AWAY_S=120` has the database away for two minutes.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import time

import psycopg
import pytest

from sokovan.client import Client
from sokovan.domain.errors import SokovanError
from sokovan.store.postgresql import GRACE_S
from tests.faults.database import (
    AWAY_S,
    Job,
    Load,
    Proxy,
    ended,
    faults_in,
    home_on,
    submit,
)
from tests.faults.ground import fill_up
from tests.postgresql import Server

pytestmark = [pytest.mark.real, pytest.mark.faults, pytest.mark.postgres]

RETRYABLE = {"store-unavailable", "commit-unknown"}


@pytest.fixture(scope="module")
def server():
    found = Server(durable=True)
    yield found
    found.close()


def refusal(home) -> SokovanError:
    """Submit until that is refused, and return how."""

    def refused() -> list[SokovanError]:
        try:
            submit(client, home, f"refused-{time.monotonic()}")
        except SokovanError as error:
            return [error]
        return []

    with Client(home=home.home, retry_s=0, timeout_s=100) as client:
        return home.wait_for(refused, "refusal")[0]


def accepted(home) -> str:
    """Submit until that is accepted."""

    def taken() -> str | None:
        with contextlib.suppress(SokovanError):
            return submit(home.client, home, "after all")["id"]
        return None

    return home.wait_for(taken, "acceptance")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
def test_while_the_database_is_away_kernels_run_on_and_their_ends_are_recorded_later(server, how):
    url = server.prepared()
    with home_on(url) as home:
        home.up()
        long, short = Job(home, "long"), Job(home, "short")

        server.stop(how)
        try:
            refused = refusal(home)
            short.end()
            told = [answers_of(home, long.id) for _ in range(2)]
            time.sleep(AWAY_S)
            assert long.is_running()
        finally:
            server.start()
        new = accepted(home)
        home.wait_for(lambda: ended(home, short.id) and ended(home, new), "end")
        long.end()
        home.wait_for(lambda: ended(home, long.id), "end")

        assert refused.code == "store-unavailable"
        assert refused.retry_after_s == 1
        assert "try again" in refused.message
        assert all(answer in RETRYABLE | {"answered"} for answers in told for answer in answers)
        assert [home.client.get(job.id)["exit_code"] for job in (short, long)] == [5, 5]
        assert len(long.pids()) == len(short.pids()) == 1
        assert faults_in(url) == ()


def answers_of(home, session_id: str) -> list[str]:
    """Ask as users do; return `answered`, or the code of the error, for each question."""
    found = []
    with Client(home=home.home, retry_s=0, timeout_s=100) as client:
        for ask in (
            client.list,
            lambda: client.get(session_id),
            lambda: client.why(session_id),
            lambda: b"".join(client.output(session_id)),
            lambda: client.history(session_id),
            client.agents,
        ):
            try:
                ask()
                found.append("answered")
            except SokovanError as error:
                found.append(error.code)
    return found


def crash(server: Server) -> None:
    server.stop(signal.SIGQUIT)
    server.start()


def restart(server: Server) -> None:
    server.stop(signal.SIGINT)
    server.start()


def cut_sessions_off(server: Server) -> None:
    for _ in range(5):
        server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'sokovan'"
        )
        time.sleep(0.1)


def crash_of_one_process(server: Server) -> None:
    """Have the server undo everything and begin again, without its main process ending."""
    (pid,) = server.execute(
        "SELECT pid FROM pg_stat_activity WHERE backend_type = 'autovacuum launcher'"
    )[0]
    os.kill(pid, signal.SIGKILL)
    time.sleep(0.2)


@pytest.mark.parametrize("trouble", [crash, restart, cut_sessions_off, crash_of_one_process])
def test_what_was_accepted_is_there_once_and_what_was_refused_is_not_there(server, trouble):
    url = server.prepared()
    with home_on(url) as home:
        home.up()
        with Load(home) as load:
            for turn in range(1, 4):
                home.wait_for(lambda turn=turn: load.count("accepted") >= 30 * turn, "acceptances")
                trouble(server)
            before = load.count("accepted")
            home.wait_for(lambda: load.count("accepted") >= before + 30, "acceptances after")
        load.settle()
        home.wait_for(lambda: home.live_ids() == set(), "end of every session")

        assert load.faults_found(url) == []
        assert faults_in(url) == ()


def test_a_database_that_stands_still_is_given_up_and_asked_again(server):
    url = server.prepared()
    with home_on(url) as home:
        home.up()
        job = Job(home, "job")
        with Load(home) as load:
            home.wait_for(lambda: load.count("accepted") >= 20, "acceptances")
            server.signal(signal.SIGSTOP)
            try:
                home.wait_for(lambda: load.count("store-unavailable") >= 6, "refusals")
                assert job.is_running()
            finally:
                server.signal(signal.SIGCONT)
            before = load.count("accepted")
            home.wait_for(lambda: load.count("accepted") >= before + 20, "acceptances after")
        load.settle()
        job.end()
        home.wait_for(lambda: home.live_ids() == set(), "end of every session")

        assert load.faults_found(url) == []
        assert home.client.get(job.id)["exit_code"] == 5
        assert faults_in(url) == ()


def test_a_network_that_swallows_everything_is_given_up_and_tried_again(server):
    url = server.prepared()
    with (
        Proxy(server.port) as proxy,
        home_on(url.replace(str(server.port), str(proxy.port))) as home,
    ):
        home.up()
        job = Job(home, "job")
        with Load(home) as load:
            home.wait_for(lambda: load.count("accepted") >= 20, "acceptances")
            proxy.is_silent = True
            home.wait_for(lambda: load.count("store-unavailable") >= 6, "refusals")
            time.sleep(GRACE_S)
            assert job.is_running()
            proxy.is_silent = False
            before = load.count("accepted")
            home.wait_for(lambda: load.count("accepted") >= before + 20, "acceptances after")
        load.settle()
        job.end()
        home.wait_for(lambda: home.live_ids() == set(), "end of every session")

        assert load.faults_found(url) == []
        assert faults_in(url) == ()


def test_statements_that_take_too_long_are_refused_until_they_do_not(server):
    url = server.prepared()
    with home_on(url) as home:
        home.up()
        job = Job(home, "job")
        with psycopg.connect(url) as other:
            other.execute("LOCK TABLE sessions IN ACCESS EXCLUSIVE MODE")
            refused = [refusal(home) for _ in range(2)]
            job.end()
            other.rollback()
        accepted(home)
        home.wait_for(lambda: home.live_ids() == set(), "end of every session")

        assert {error.code for error in refused} == {"store-unavailable"}
        assert home.client.get(job.id)["exit_code"] == 5
        assert faults_in(url) == ()


def test_without_a_connection_left_it_says_so_and_takes_the_next_one_there_is(server):
    name = server.prepared().rpartition("/")[2]
    server.execute(f"CREATE ROLE {name} LOGIN")
    grant = f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {name}"
    server.execute(grant, name)
    server.execute(grant.replace("TABLES", "SEQUENCES"), name)
    url = server.url(name).replace("postgres@", f"{name}@")
    with home_on(url) as home:
        home.up()
        job = Job(home, "job")
        server.execute(f"ALTER ROLE {name} CONNECTION LIMIT 0")
        server.execute(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{name}'"
        )
        refused = refusal(home)
        job.end()
        server.execute(f"ALTER ROLE {name} CONNECTION LIMIT -1")
        accepted(home)
        home.wait_for(lambda: home.live_ids() == set(), "end of every session")

        assert refused.code == "store-unavailable"
        assert "max_connections" in refused.message
        assert home.client.get(job.id)["exit_code"] == 5
        assert faults_in(url) == ()


@pytest.fixture
def small_disk(server):
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    place = server.directory / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m,mode=0777", "tmpfs", str(place)]
    if subprocess.run(mount, check=False).returncode != 0:
        pytest.skip("this machine does not let us mount a tmpfs")
    try:
        (place / "pg").mkdir(mode=0o700)
        shutil.chown(place / "pg", "postgres")
        yield place
    finally:
        server.execute("DROP DATABASE IF EXISTS small WITH (FORCE)")
        server.execute("DROP TABLESPACE IF EXISTS small")
        subprocess.run(["umount", "-l", str(place)], check=True)


def submit_many(home) -> None:
    """What is free in the files of the database takes a few."""
    with Client(home=home.home, retry_s=0) as client:
        for _ in range(500):
            client.submit(["/bin/true"], env={"FILL": os.urandom(9000).hex()}, cwd="/")


def test_a_full_disk_of_the_database_refuses_submissions_and_loses_nothing(server, small_disk):
    server.prepared()  # so that there is one to copy
    server.execute(f"CREATE TABLESPACE small LOCATION '{small_disk / 'pg'}'")
    server.execute("CREATE DATABASE small TEMPLATE ready TABLESPACE small")
    url = server.url("small")
    with home_on(url) as home:
        home.up()
        job = Job(home, "job")

        fill_up(small_disk / "full")
        with pytest.raises(SokovanError) as refused:
            submit_many(home)
        taken = {view["id"] for view in home.client.list(live_only=False)}
        job.end()
        (small_disk / "full").unlink()
        home.wait_for(lambda: home.live_ids() == set(), "end of every session")

        assert refused.value.code == "store-unavailable"
        assert "the disk of PostgreSQL is full" in refused.value.message
        codes = {view["id"]: view["exit_code"] for view in home.client.list(live_only=False)}
        assert set(codes) == taken
        assert codes.pop(job.id) == 5
        assert set(codes.values()) <= {0}
        assert faults_in(url) == ()
