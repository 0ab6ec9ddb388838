"""Forty kill points, chosen by seed: nothing accepted is lost, nothing runs twice."""

import random
import time
from collections import Counter

import pytest

from sokovan.domain.errors import SokovanError
from tests.faults.crashing_manager import POINTS
from tests.faults.ground import RealHome, environment, real_home

pytestmark = [pytest.mark.real, pytest.mark.faults]

KILLS = 10
SESSIONS = 14
CONFIG = '[[agents]]\nname = "a"\ncpu = "6"\n[scheduler]\nfull_cycle_s = 5.0\n'


@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_killed_every_session_runs_once_and_ends_truly(seed):
    rng = random.Random(seed)
    with real_home(CONFIG) as home:
        home.up()
        wanted: dict[str, int] = {}
        kills = 0
        while kills < KILLS:
            _submit_some(home, rng, wanted, seed)
            time.sleep(rng.uniform(0, 0.3))
            whom = rng.choice(["manager", "agent", "both", "point"])
            home.kill("manager" if whom == "point" else whom)
            kills += 1
            if whom == "point":
                home.start(rng.choice(POINTS), rng.randint(1, 4))
                kills += 1
            home.up()
        home.wait_for(lambda: home.up() or home.live_ids() == set(), "end of every session")

        ended = {view["id"]: view for view in home.client.list(live_only=False)}
        ran = Counter(line.split()[0] for line in _lines(home))
        assert {i: view["exit_code"] for i, view in ended.items()} == wanted
        assert ran == dict.fromkeys(wanted, 1)
        assert all(_says_all(home, session_id) for session_id in wanted)
        (agent,) = home.client.agents()
        assert agent["held"] == {"cpu_milli": 0, "mem_bytes": 0}
        assert agent["kernels"] == agent["leftovers"] == 0


def _submit_some(home: RealHome, rng: random.Random, wanted: dict[str, int], seed: int) -> None:
    """Submit a few sessions; a submission that got no answer is repeated with its creation id."""
    for _ in range(rng.randint(1, 3)):
        if len(wanted) >= SESSIONS:
            return
        code = rng.choice([0, 0, 3, 77])
        script = (
            f'echo "$SOKOVAN_SESSION_ID $SOKOVAN_KERNEL_TOKEN" >> {home.home}/ran; echo begin;'
            f" sleep {rng.uniform(0, 0.8):.2f}; echo end; exit {code}"
        )
        body = {
            "command": ["/bin/sh", "-c", script],
            "env": environment(home),
            "cwd": "/",
            "creation_id": f"{seed}-{len(wanted)}",
        }
        while True:
            try:
                wanted[home.client.submit(**body)["id"]] = code
                break
            except SokovanError:
                home.up()


def _lines(home: RealHome) -> list[str]:
    return (home.home / "ran").read_text().splitlines()


def _says_all(home: RealHome, session_id: str) -> bool:
    return home.output_of(session_id) == b"begin\nend\n"
