"""Many trials, several at a time; what fails is kept."""

import ctypes
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

from sokovan.clock import Clock
from sokovan.simulator.shape import Shape

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one trial of many."""

    shape: Shape
    sessions: int
    faults: int
    checks: int
    story: str
    """Of what went wrong; empty when nothing did."""


def run(shape: Shape) -> Result:
    """Run one trial."""
    outcome = shape.trial().run()
    missing = shape.missing(outcome)
    return Result(
        shape,
        outcome.counts["sessions"],
        outcome.faults.total(),
        outcome.counts["checks"],
        outcome.violation or "\n".join(missing),
    )


def soak(
    shapes: Iterable[Shape],
    *,
    jobs: int,
    is_over: Callable[[], bool] = lambda: False,
) -> Iterator[Result]:
    """Run trials in processes of their own, and yield each as it ends.

    Args:
        shapes: What to run; may be endless.
        jobs: How many run at a time.
        is_over: Whether to begin no more.
    """
    coming = iter(shapes)
    context = get_context("spawn")
    with ProcessPoolExecutor(jobs, context, initializer=_die_with, initargs=(os.getpid(),)) as pool:
        running: set[Future[Result]] = set()
        while True:
            room = 0 if is_over() else jobs - len(running)
            running |= {pool.submit(run, shape) for shape in islice(coming, room)}
            if not running:
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()


def _die_with(parent: int) -> None:
    """Have this process killed when the one that wants its results is."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def keep(result: Result, folder: Path) -> Path:
    """Write down the story of a trial that failed, and the command that runs it again."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"seed-{result.shape.seed}.txt"
    path.write_text(f"{result.shape.command()}\n\n{result.story}\n")
    return path


def until(clock: Clock, seconds: float | None) -> Callable[[], bool]:
    """Return what says whether so many seconds have passed from now on."""
    end = None if seconds is None else clock.now() + seconds
    return lambda: end is not None and clock.now() >= end


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0))
