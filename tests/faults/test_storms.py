"""Two hundred sessions in a storm of faults, chosen by seed; then an audit of every one of them.

Killed and stopped are the manager, the agent, both, and the wrappers of kernels, sometimes for so
long that the agent counts as lost. The disk is full for a while (the home is on a small tmpfs; left
out where it cannot be mounted), descriptors run out, and the wall clock is an hour ahead or behind
at a restart: see `stepped_clock.py`, the machine's own clock is never touched. Half of the seeds do
without control groups.
"""

import contextlib
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sokovan.domain.errors import SokovanError
from tests.faults.crowd import Crowd, processes_left
from tests.faults.ground import RealHome
from tests.faults.stepped_clock import SteppedClock
from tests.faults.storm import Fault, Storm, script_of, small_disk

pytestmark = [pytest.mark.real, pytest.mark.faults]

SESSIONS = 210
STORM_S = 9.0
DISK_MIB = 64
CONFIG = """
[[agents]]
name = "a"
cpu = "40"
gpus = "none"
heartbeat_s = 0.5
cgroups = "{cgroups}"
[scheduler]
full_cycle_s = 3.0
agent_silence_s = 2.0
agent_call_timeout_s = 2.0
"""
TAIL = 6000


@dataclass
class Ground:
    """Where a storm takes place."""

    home: RealHome
    clock: SteppedClock
    faults: list[Fault]
    left_out: frozenset[str]


@contextlib.contextmanager
def ground_of(seed: int) -> Iterator[Ground]:
    """Make a home on a small disk, and clear everything away after."""
    base = Path(tempfile.mkdtemp(prefix="skvn-"))
    place = base / "home"
    (base / "site").mkdir()
    place.mkdir(mode=0o700)
    clock = SteppedClock(base / "site")
    home = RealHome(place, clock.environ())
    try:
        with small_disk(place, mebibytes=DISK_MIB) as has_disk:
            left_out = frozenset() if has_disk else frozenset({"fill the disk"})
            cgroups = "auto" if seed % 2 else "off"
            (place / "config.toml").write_text(CONFIG.format(cgroups=cgroups))
            try:
                yield Ground(home, clock, script_of(seed, STORM_S, left_out), left_out)
            finally:
                home.clear_away(keep_home=True)
    finally:
        shutil.rmtree(base, ignore_errors=True)


@pytest.mark.parametrize("seed", range(4))
def test_in_a_storm_of_faults_every_session_runs_once_and_ends_truly(seed):
    with ground_of(seed) as ground:
        home, storm = ground.home, Storm(ground.home, ground.clock, ground.faults)
        crowd = Crowd(seed, home, home.home.parent / "ran")
        crowd.gather(SESSIONS)
        home.up()
        try:
            with storm.raging():
                _submit_all(crowd, storm)
            home.wait_for(lambda: home.up() or home.live_ids() == set(), "end of every session")
            home.wait_for(lambda: not _held(home), "end of every hold")
            wrong = crowd.faults_found(storm.harmed)
            left = processes_left(home)
        except BaseException:
            _tell(seed, ground, storm, _live(home))
            raise
        if wrong or left:
            _tell(seed, ground, storm, list(wrong))

        assert wrong == {}
        assert left == []
        assert len(crowd.accepted) == SESSIONS


def _submit_all(crowd: Crowd, storm: Storm) -> None:
    rng = random.Random(crowd.seed)
    while len(crowd.accepted) < SESSIONS:
        if not crowd.submit_next(rng):
            if storm.is_over():  # a manager that died of its last fault after it was looked at
                crowd.home.revive()
            time.sleep(0.05)
        crowd.cancel_some(rng)
        time.sleep(rng.uniform(0, 0.3))


def _held(home: RealHome) -> list[object]:
    """Return what is held, or left over, on any agent; something where that cannot be asked."""
    try:
        agents = home.client.agents()
    except SokovanError as error:
        return [error]
    return [a for a in agents if any(a["held"].values()) or a["kernels"] or a["leftovers"]]


def _live(home: RealHome) -> list[str]:
    return sorted(home.live_ids() or ())


def _tell(seed: int, ground: Ground, storm: Storm, concerned: list[str]) -> None:
    """Print what somebody needs who wants to know what went wrong."""
    print(f"seed {seed}; left out on this machine: {sorted(ground.left_out) or 'nothing'}")
    print("the script:", *ground.faults, sep="\n  ")
    print("what was done:", *storm.log, sep="\n  ")
    for session_id in concerned[:5]:
        with contextlib.suppress(SokovanError):
            view = ground.home.client.get(session_id)
            print(f"session {session_id}: {view}\n  why: {ground.home.client.why(session_id)}")
            for line in ground.home.client.history(session_id):
                print("  ", *(line[key] for key in ("at", "kernel_id", "to_status", "reason")))
                if line["detail"]:
                    print("      ", line["detail"])
    with contextlib.suppress(SokovanError):
        print("agents:", ground.home.client.agents())
    for log in ("server.log", "agents/a/agent.log"):
        with contextlib.suppress(OSError):
            said = (ground.home.home / log).read_text(errors="replace")
            print(f"the end of {log}:\n{said[-TAIL:]}")
