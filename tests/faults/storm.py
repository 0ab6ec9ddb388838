"""A storm: faults of real processes, chosen by a seed, one after the other and at once.

A `Fault` begins, and mostly has an end that undoes it. The script is made before anything happens,
so that one seed always asks for the same; what the machine makes of it differs from run to run.
"""

import contextlib
import os
import random
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.faults.ground import CRASHING, DEADLINE_S, RealHome, fill_up
from tests.faults.stepped_clock import SteppedClock

KINDS = {
    "kill manager": 2,
    "kill agent": 4,
    "kill both": 1,
    "kill wrapper": 6,
    "stop manager": 2,
    "stop agent": 2,
    "stop both": 1,
    "stop wrapper": 3,
    "starve manager": 2,
    "starve agent": 4,
    "fill the disk": 3,
    "clock": 1,
}
"""How often each is chosen, out of all."""
STEPS_S = (3600.0, 0.0, -3600.0)
"""What the clock may show, beside the machine's."""
SHORT_S, LONG_S = (0.1, 0.8), (2.5, 4.0)
"""How long what ends by itself takes: shorter than an agent's silence counts, or longer."""
LONG_PART = 0.25
SPARE_DESCRIPTORS_MAX = 3
STARTED_DESCRIPTORS_MIN = 9
AGENT_WORD = "sokovan.agent"


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: what, from when to when in seconds, and a number to choose by."""

    kind: str
    begin_s: float
    end_s: float
    choice: int

    def __str__(self) -> str:
        return f"{self.begin_s:6.2f} to {self.end_s:6.2f} s: {self.kind} ({self.choice})"


def script_of(seed: int, seconds: float, left_out: frozenset[str]) -> list[Fault]:
    """Return the faults of a seed, in the order they begin."""
    rng = random.Random(seed)
    kinds = {kind: weight for kind, weight in KINDS.items() if kind not in left_out}
    faults, at = [], rng.uniform(0.2, 0.6)
    while at < seconds:
        (kind,) = rng.choices(list(kinds), list(kinds.values()))
        is_long = kind.startswith("stop") and rng.random() < LONG_PART
        end_s = at + rng.uniform(*(LONG_S if is_long else SHORT_S))
        faults.append(Fault(kind, at, end_s, rng.randrange(1000)))
        at += rng.uniform(0.05, 0.55)
    return faults


class Storm:
    """Has the faults of a script befall a home, in a thread of its own.

    Attributes:
        harmed: Tokens whose wrapper was killed, or stopped for a while.
        log: What was done, and when.
    """

    def __init__(self, home: RealHome, clock: SteppedClock, faults: list[Fault]) -> None:
        self.harmed: set[str] = set()
        self.log: list[str] = []
        self._home = home
        self._clock = clock
        self._begins = faults
        self._undo: list[tuple[float, str, Callable[[], None]]] = []
        self._began = 0.0
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    @contextlib.contextmanager
    def raging(self) -> Iterator[None]:
        """Rage while the block runs; whatever can be undone is undone after it."""
        self._began = time.monotonic()
        self._thread.start()
        try:
            yield
        finally:
            self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive(), "the storm does not end"
        if self._failure is not None:
            raise self._failure

    def is_over(self) -> bool:
        """Say whether nothing goes wrong any more."""
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            for fault in self._begins:
                self._pass_until(fault.begin_s)
                self._begin(fault)
                self._home.revive()
        except BaseException as failure:  # noqa: BLE001 (raised again where the test waits)
            self._failure = failure
        finally:
            self._pass_until(float("inf"))
            self._step_clock(0.0, "both")
            self._home.revive()

    def _pass_until(self, at: float) -> None:
        """Let time pass until then, undoing what is over by then."""
        self._undo.sort(key=lambda todo: todo[0])
        while self._undo and self._undo[0][0] <= at:
            end_s, what, undo = self._undo.pop(0)
            self._sleep_until(end_s)
            undo()
            self._say(f"end of: {what}")
        if at < float("inf"):
            self._sleep_until(at)

    def _sleep_until(self, at: float) -> None:
        left_s = self._began + at - time.monotonic()
        if left_s > 0:
            time.sleep(left_s)

    def _say(self, what: str) -> None:
        self.log.append(f"{time.monotonic() - self._began:6.2f} s: {what}")

    def _begin(self, fault: Fault) -> None:
        verb, _, whom = fault.kind.partition(" ")
        undo: Callable[[], None] | None = None
        if fault.kind == "fill the disk":
            undo = self._fill()
        elif fault.kind == "clock":
            whom = "both" if fault.choice % 2 else "manager"
            self._step_clock(STEPS_S[fault.choice % len(STEPS_S)], whom)
        elif verb == "starve":
            undo = self._starve(self._processes(whom), fault.choice % (SPARE_DESCRIPTORS_MAX + 1))
        else:
            number = signal.SIGKILL if verb == "kill" else signal.SIGSTOP
            hit = self._strike(whom, number, fault.choice)
            if verb == "stop":
                undo = lambda: _send(hit, signal.SIGCONT)  # noqa: E731
        self._say(str(fault))
        if undo is not None:
            self._undo.append((fault.end_s, str(fault), undo))
            self._undo.sort(key=lambda todo: todo[0])

    # --- the faults -------------------------------------------------------------------------------

    def _step_clock(self, seconds: float, whom: str) -> None:
        """Step the clock, and have `whom` read it: that happens once, at the start."""
        self._clock.step(seconds)
        self._signal(whom, signal.SIGKILL)

    def _strike(self, whom: str, number: int, choice: int) -> list[psutil.Process]:
        if whom != "wrapper":
            return self._signal(whom, number)
        wrappers = list(self._wrappers())
        if not wrappers:
            return []
        token, wrapper = wrappers[choice % len(wrappers)]
        self.harmed.add(token)
        self._say(f"wrapper {wrapper.pid} of {token}")
        _send([wrapper], number)
        return [wrapper]

    def _signal(self, whom: str, number: int) -> list[psutil.Process]:
        found = self._processes(whom)
        _send(found, number)
        if number == signal.SIGKILL:
            for process in found:
                self._home.wait_for(lambda process=process: _is_dead(process), "end of a process")
        return found

    def _processes(self, whom: str) -> list[psutil.Process]:
        words = {"manager": [str(CRASHING)], "agent": [AGENT_WORD]}
        chosen = words.get(whom) or [str(CRASHING), AGENT_WORD]
        return [process for word in chosen for process in self._home.processes(word)]

    def _wrappers(self) -> Iterator[tuple[str, psutil.Process]]:
        """Yield the kernels' wrappers, which lead their sessions, by token."""
        kernels = str(self._home.home / "agents")
        for process in sorted(psutil.process_iter(), key=lambda process: process.pid):
            with contextlib.suppress(psutil.Error, OSError):
                line = process.cmdline()
                if line[3:4] == ["sokovan"] and os.getsid(process.pid) == process.pid:
                    folder = Path(line[4])
                    if folder.is_relative_to(kernels):
                        yield folder.name, process

    def _starve(self, found: list[psutil.Process], spare: int) -> Callable[[], None]:
        """Let these processes open hardly anything more."""
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        for process in found:
            with contextlib.suppress(OSError):
                open_now = Path(f"/proc/{process.pid}/fd").iterdir()
                used = max((int(fd.name) for fd in open_now), default=2) + 1
                if used < STARTED_DESCRIPTORS_MIN:
                    continue  # Python itself is still starting, and would fail
                resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (used + spare, before[1]))

        def feed() -> None:  # children may have inherited it
            for process in self._processes("both"):
                with contextlib.suppress(OSError):
                    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, before)

        return feed

    def _fill(self) -> Callable[[], None]:
        filler = self._home.home / "full"
        fill_up(filler)
        return lambda: filler.unlink(missing_ok=True)


def _is_dead(process: psutil.Process) -> bool:
    """Say whether a process has ended, even if a parent that stands still has not noticed."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _send(processes: list[psutil.Process], number: int) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.send_signal(number)


@contextlib.contextmanager
def small_disk(path: Path, *, mebibytes: int) -> Iterator[bool]:
    """Mount a small file system at `path`; give whether that worked."""
    size = f"size={mebibytes}m,mode=0700"
    mount = ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(path)]
    works = os.geteuid() == 0 and subprocess.run(mount, check=False).returncode == 0
    try:
        yield works
    finally:
        if works:
            subprocess.run(["umount", "-l", str(path)], check=True)
