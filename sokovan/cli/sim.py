"""`sokovan sim`: the real scheduler among simulated agents and faults, on a virtual clock."""

import re
import sys
from collections.abc import Collection, Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sokovan.cli.exits import UsageError
from sokovan.domain.quantities import parse_duration

if TYPE_CHECKING:
    from sokovan.simulator.shape import Shape
    from sokovan.simulator.trial import Outcome

MANY = "Many seeds"
SMALLER = "A failing seed"
TELL_EVERY = 100
"""How many seeds pass between two lines that say how it goes."""
_RANGE = re.compile(r"(\d+)-(\d+)")


def sim(
    seed: Annotated[int, typer.Option(help="Decides whatever can vary.")] = 0,
    hours: Annotated[float, typer.Option(help="Simulated hours.")] = 6.0,
    agents: Annotated[int, typer.Option(help="How many agents there are at first.")] = 5,
    sessions: Annotated[int, typer.Option(help="How many sessions are submitted.")] = 500,
    faults: Annotated[
        str, typer.Option(help="What goes wrong: none, rough, storm or managers.")
    ] = "rough",
    seeds: Annotated[
        str | None,
        typer.Option(metavar="FIRST-LAST", help="Run each of these seeds.", rich_help_panel=MANY),
    ] = None,
    for_: Annotated[
        str | None,
        typer.Option(
            "--for",
            metavar="DURATION",
            help="Run one seed after the other for so long: 8h, 90s.",
            rich_help_panel=MANY,
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs", "-j", help="How many at a time; all processors.", rich_help_panel=MANY
        ),
    ] = None,
    keep: Annotated[
        Path | None,
        typer.Option(help="Keep the story of each failing seed in here.", rich_help_panel=MANY),
    ] = None,
    until: Annotated[
        int | None,
        typer.Option(
            metavar="STEP",
            help="Stop before this step, and show everything that lives.",
            rich_help_panel=SMALLER,
        ),
    ] = None,
    shrink: Annotated[
        bool,
        typer.Option(
            "--shrink",
            help="Leave out sessions and faults while it still fails in the same way.",
            rich_help_panel=SMALLER,
        ),
    ] = False,
    only: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES", help="Submit these sessions alone: s3,s17.", rich_help_panel=SMALLER
        ),
    ] = None,
    without: Annotated[
        str | None,
        typer.Option(
            metavar="KINDS", help="Leave out these kinds of faults.", rich_help_panel=SMALLER
        ),
    ] = None,
    calm_after: Annotated[
        float | None,
        typer.Option(
            metavar="HOURS", help="Have nothing go wrong after that.", rich_help_panel=SMALLER
        ),
    ] = None,
) -> int:
    """Run the real scheduler through simulated hours of faults, and check that all stays well.

    Needs no server and leaves nothing behind. The same seed gives the same history, byte for byte.
    Exits with 1 when an invariant is violated, and tells how it came about; also when a run of at
    least the default size had fewer than 5 agents, 500 sessions or 200 faults.
    """
    from sokovan.simulator.faults import PROFILES
    from sokovan.simulator.shape import KINDS, Shape

    _require(faults, PROFILES, "--faults")
    for name, value in (("hours", hours), ("agents", agents), ("sessions", sessions)):
        _require_positive(name, value)
    for name, given in (("jobs", jobs), ("until", until)):
        _require_positive(name, given)
    seconds = None if for_ is None else parse_duration(for_, field="--for")
    left_out = tuple(without.split(",")) if without else ()
    for kind in left_out:
        _require(kind, KINDS, "--without")
    shape = Shape(
        seed,
        hours=hours,
        agents=agents,
        sessions=sessions,
        faults=faults,
        without=left_out,
        only=None if only is None else tuple(only.split(",")),
        calm_after_h=calm_after,
    )
    if seeds is not None or seconds is not None:
        return _run_many(shape, _numbers(seeds, seed), seconds, jobs, keep)
    outcome = shape.trial(until).run()
    missing = shape.missing(outcome)
    _say(outcome, missing)
    if outcome.violation and shrink:
        _shrink(shape)
    return 1 if outcome.violation or missing else 0


def _require(value: str, choices: Collection[str], option: str) -> None:
    if value not in choices:
        raise UsageError(f"{option}: there is no {value!r}; choose of {', '.join(choices)}")


def _require_positive(name: str, value: float | None) -> None:
    if value is not None and not 0 < value < 10**9:
        raise UsageError(f"--{name}: {value} makes no sense; it must be above 0")


def _numbers(seeds: str | None, first: int) -> Iterator[int]:
    if seeds is None:
        return count(first)
    found = _RANGE.fullmatch(seeds)
    if found is None or int(found[1]) > int(found[2]):
        raise UsageError(f"--seeds: {seeds!r} is no range; write the first and the last: 0-999")
    return iter(range(int(found[1]), int(found[2]) + 1))


def _run_many(
    shape: "Shape",
    seeds: Iterator[int],
    seconds: float | None,
    jobs: int | None,
    folder: Path | None,
) -> int:
    from dataclasses import replace

    from sokovan.clock import SystemClock
    from sokovan.simulator import soak

    ran = sessions = faults = checks = 0
    failed = []
    is_over = soak.until(SystemClock(), seconds)
    shapes = (replace(shape, seed=seed) for seed in seeds)
    for result in soak.soak(shapes, jobs=jobs or soak.processors(), is_over=is_over):
        ran, sessions = ran + 1, sessions + result.sessions
        faults, checks = faults + result.faults, checks + result.checks
        if result.story:
            failed.append(result.shape.seed)
            where = "" if folder is None else f"; kept in {soak.keep(result, folder)}"
            sentence = (result.story.splitlines() * 2)[1]
            print(f"seed {result.shape.seed} fails: {sentence}{where}", flush=True)
            print(f"  {result.shape.command()}", flush=True)
        if ran % TELL_EVERY == 0:
            print(f"{ran} seeds so far, {len(failed)} failed", file=sys.stderr, flush=True)
    print(
        f"{ran} seeds, {len(failed)} failed: {sessions:,} sessions, {faults:,} faults,"
        f" {checks:,} times everything checked"
    )
    return 1 if failed else 0


def _shrink(shape: "Shape") -> None:
    from sokovan.simulator import shrink

    def told(smaller: "Shape", left: int) -> None:
        size = len(smaller.only or ()) or smaller.sessions
        print(f"still fails with {size} sessions ({left} tries left)", file=sys.stderr)

    found = shrink.shrink(shape, told=told)
    print(found.trial().run().violation, file=sys.stderr)
    print(f"\n{found.command()}", file=sys.stderr)


def _say(outcome: "Outcome", missing: list[str]) -> None:
    from sokovan.cli.text import print_rows

    print_rows([(name, str(count)) for name, count in sorted(outcome.counts.items())])
    if outcome.faults:
        print("faults:")
        print_rows([(f"  {name}", str(count)) for name, count in sorted(outcome.faults.items())])
    print(f"digest {outcome.digest}")
    for sentence in (outcome.violation, outcome.story, *missing):
        if sentence:
            print(sentence, file=sys.stderr)
    if not (outcome.violation or outcome.story or missing):
        print(f"seed {outcome.seed}: all is well")
