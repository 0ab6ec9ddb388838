"""A disk that is full: a clear refusal, nothing half-written, everything resumes by itself."""

import os
import subprocess

import pytest

from sokovan.domain.errors import SokovanError
from tests.faults.ground import RealHome, environment, fill_up, real_home

pytestmark = [pytest.mark.real, pytest.mark.faults]


@pytest.fixture
def small_home():
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    with real_home() as home:
        mount = ["mount", "-t", "tmpfs", "-o", "size=16m,mode=0700", "tmpfs", str(home.home)]
        if subprocess.run(mount, check=False).returncode != 0:
            pytest.skip("this machine does not let us mount a tmpfs")
        try:
            (home.home / "config.toml").write_text('[[agents]]\nname = "a"\ncpu = "4"\n')
            yield home
        finally:
            home.clear_away(keep_home=True)
            subprocess.run(["umount", "-l", str(home.home)], check=True)


def test_a_full_disk_refuses_submissions_and_loses_nothing(small_home):
    home = small_home
    home.up()
    (home.home / "full").touch()
    script = f"while [ -e {home.home}/full ]; do sleep 0.1; done; exit 5"
    first = home.client.submit(["/bin/sh", "-c", script], env=environment(home), cwd="/")
    home.wait_for(lambda: home.client.get(first["id"])["status"] == "RUNNING", "start")

    fill_up(home.home / "full")
    with pytest.raises(SokovanError) as refused:
        _submit_many(home)
    accepted = {view["id"] for view in home.client.list(live_only=False)}
    (home.home / "full").unlink()

    assert refused.value.code == "store-unavailable"
    assert "full" in refused.value.message
    home.wait_for(lambda: not home.client.list(), "end of every session")
    ended = {view["id"]: view["exit_code"] for view in home.client.list(live_only=False)}
    assert set(ended) == accepted
    assert ended.pop(first["id"]) == 5
    assert set(ended.values()) <= {0}


def _submit_many(home: RealHome) -> None:
    """What is still free in the write-ahead log takes a few."""
    for _ in range(200):
        home.client.submit(["/bin/true"], env=environment(home, FILL="x" * 20_000), cwd="/")
