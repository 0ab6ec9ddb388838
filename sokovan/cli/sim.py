"""`sokovan sim`: the real scheduler among simulated agents and faults, on a virtual clock."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from sokovan.cli.exits import UsageError

if TYPE_CHECKING:
    from sokovan.simulator.trial import Outcome


def sim(
    seed: Annotated[int, typer.Option(help="Decides whatever can vary.")] = 0,
    hours: Annotated[float, typer.Option(help="Simulated hours.")] = 6.0,
    agents: Annotated[int, typer.Option(help="How many agents there are.")] = 5,
    sessions: Annotated[int, typer.Option(help="How many sessions are submitted.")] = 500,
    faults: Annotated[str, typer.Option(help="What goes wrong: none, rough or storm.")] = "rough",
) -> int:
    """Run the real scheduler through simulated hours of faults, and check that all stays well.

    Needs no server and leaves nothing behind. The same seed gives the same history, byte for byte.
    Exits with 1 when an invariant is violated, and tells how it came about.
    """
    from sokovan.simulator.faults import PROFILES
    from sokovan.simulator.trial import Trial

    if faults not in PROFILES:
        raise UsageError(f"--faults: there is no {faults!r}; choose one of {', '.join(PROFILES)}")
    for name, value in (("hours", hours), ("agents", agents), ("sessions", sessions)):
        if not 0 < value < 10**6:
            raise UsageError(f"--{name}: {value} makes no sense; it must be above 0")
    trial = Trial(seed, hours=hours, agents=agents, sessions=sessions, faults=PROFILES[faults])
    outcome = trial.run()
    _say(outcome)
    return 1 if outcome.violation else 0


def _say(outcome: "Outcome") -> None:
    from sokovan.cli.text import print_rows

    print_rows([(name, str(count)) for name, count in sorted(outcome.counts.items())])
    if outcome.faults:
        print("faults:")
        print_rows([(f"  {name}", str(count)) for name, count in sorted(outcome.faults.items())])
    print(f"digest {outcome.digest}")
    if outcome.violation:
        print(outcome.violation, file=sys.stderr)
    else:
        print(f"seed {outcome.seed}: all is well")
