"""`sokovan up` and its database: it waits for one that is away, and never says a password."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from sokovan.client import Client
from sokovan.domain.errors import SokovanError
from tests.faults.database import CONFIG, faults_in, submit
from tests.faults.ground import DEADLINE_S, RealHome, environment, real_home
from tests.postgresql import Server

pytestmark = [pytest.mark.real, pytest.mark.faults, pytest.mark.postgres]

SECRET = "hush-hush-hush"


@pytest.fixture(scope="module")
def server():
    found = Server(durable=True)
    yield found
    found.close()


def sokovan(home: RealHome, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "sokovan", "--home", str(home.home), *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_S,
        env={**os.environ, **env},
        cwd=Path(__file__).parents[2],
    )


@contextlib.contextmanager
def up(home: RealHome, *options: str, **env: str):
    """Run `sokovan up`, and have it end."""
    with (home.home / "server.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "sokovan", "--home", str(home.home), "up", *options],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **env},
            cwd=Path(__file__).parents[2],
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def log_of(home: RealHome) -> str:
    return (home.home / "server.log").read_text()


def runs_one(home: RealHome) -> int:
    """Submit a session, and return its exit code."""
    env = environment(home)
    session_id = home.client.submit(["/bin/sh", "-c", "exit 5"], env=env, cwd="/")["id"]
    view = home.wait_for(lambda: _ended(home, session_id), "end")
    return view["exit_code"]


def _ended(home, session_id):
    view = home.client.get(session_id)
    return view if view["ended_at"] else None


def test_a_server_waits_for_a_database_that_starts_later(server):
    url = server.empty()
    with real_home() as home:
        server.stop(signal.SIGINT)
        try:
            with up(home, "--db", url) as process:
                home.wait_for(lambda: "waiting for the database" in log_of(home), "log line")
                assert process.poll() is None
                server.start()
                home.wait_for(home.is_up, "start")
                assert runs_one(home) == 5
        finally:
            server.stop()
            server.start()

        assert log_of(home).count("waiting for the database") == 1
        assert faults_in(url) == ()


def test_a_server_whose_database_stays_away_says_so_and_ends(server):
    url = server.empty().replace(str(server.port), "1")
    with real_home() as home:
        done = sokovan(home, "up", "--db", url, SOKOVAN_STORE_WAIT_S="0.6")

    assert done.returncode == 4
    assert "PostgreSQL cannot be reached" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_server_waits_for_what_only_somebody_can_mend(server):
    with real_home() as home:
        begun = time.monotonic()
        done = sokovan(home, "up", "--db", server.url("nowhere"), SOKOVAN_STORE_WAIT_S="1000")

    assert time.monotonic() - begun < DEADLINE_S
    assert done.returncode == 4
    assert "there is no such database; make it with createdb" in done.stderr


def test_a_command_that_starts_a_server_is_told_at_once_that_the_database_is_away():
    with real_home('store.url = "postgresql://x@127.0.0.1:1/y"\nstore.wait_s = 1000.0\n') as home:
        done = sokovan(home, "ls")

    assert done.returncode == 5
    assert "PostgreSQL cannot be reached" in done.stderr


# --- passwords ------------------------------------------------------------------------------------


@pytest.fixture
def guarded(server):
    """Make a database that its owner enters with a password only; yield its address."""
    name = server.empty().rpartition("/")[2]
    server.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{SECRET}'")
    server.execute(f"ALTER DATABASE {name} OWNER TO {name}")
    rules = server.directory / "data" / "pg_hba.conf"
    before = rules.read_text()
    rules.write_text(f"host all {name} 127.0.0.1/32 scram-sha-256\n{before}")
    server.execute("SELECT pg_reload_conf()")
    yield f"postgresql://{name}:{SECRET}@127.0.0.1:{server.port}/{name}"
    rules.write_text(before)
    server.execute("SELECT pg_reload_conf()")


def test_a_password_is_never_said_whatever_happens(server, guarded):
    with real_home(CONFIG.format(url=guarded)) as home, up(home):
        home.wait_for(home.is_up, "start")
        code = runs_one(home)
        server.stop(signal.SIGQUIT)
        said = [_refusal(home)]
        said += [sokovan(home, *words) for words in (["ls"], ["up"])]
        commands = (["config"], ["config", "--json"], ["doctor"])
        said += [sokovan(home, *words) for words in commands]
        server.start()
        home.wait_for(lambda: not isinstance(_refusal(home), SokovanError), "resumption")
        said += [sokovan(home, *words) for words in commands]
        said += [_refusal(home), log_of(home), _processes(home)]
        said += [p.read_text() for p in home.home.glob("agents/*/agent.log")]
        said += [_environment(process) for process in home.processes("sokovan.agent")]

        assert code == 5
        assert len(log_of(home)) > 100
        assert SECRET not in "\n".join(map(str, said))


def _refusal(home: RealHome) -> object:
    try:
        with Client(home=home.home, retry_s=0) as client:
            return submit(client, home, "x")
    except SokovanError as error:
        return error


def _processes(home: RealHome) -> str:
    """Return every command line on this machine, the database's among them."""
    lines = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            lines.append(" ".join(process.cmdline()))
    assert any(str(home.home) in line for line in lines)
    assert any("postgres" in line for line in lines)
    return "\n".join(lines)


def _environment(process: psutil.Process) -> str:
    return json.dumps(process.environ())


def test_a_password_on_the_command_line_is_refused(guarded):
    with real_home() as home:
        done = sokovan(home, "up", "--db", guarded)

    assert done.returncode == 4
    assert "~/.pgpass" in done.stderr
    assert SECRET not in done.stderr + done.stdout


@pytest.mark.parametrize("way", ["PGPASSWORD", "PGPASSFILE", "SOKOVAN_STORE_URL"])
def test_a_password_may_come_from_the_environment_and_goes_no_further(guarded, tmp_path, way):
    file = tmp_path / "pgpass"
    file.write_text(f"*:*:*:*:{SECRET}\n")
    file.chmod(0o600)
    open_url = guarded.replace(f":{SECRET}@", "@")
    given = {"PGPASSWORD": SECRET, "PGPASSFILE": str(file), "SOKOVAN_STORE_URL": guarded}
    options = () if way == "SOKOVAN_STORE_URL" else ("--db", open_url)
    with real_home() as home, up(home, *options, **{way: given[way]}):
        home.wait_for(home.is_up, "start")

        assert runs_one(home) == 5
        agents = home.processes("sokovan.agent")
        assert agents
        assert SECRET not in "".join(map(_environment, agents))
        assert SECRET not in log_of(home)
