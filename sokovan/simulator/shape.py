"""What a trial is made from, as `sokovan sim` is told it and says it again."""

from dataclasses import dataclass, fields, replace
from typing import Any

from sokovan.simulator.faults import NO_FAULTS, PROFILES, Faults
from sokovan.simulator.trial import Least, Outcome, Trial

KINDS = tuple(
    field.name for field in fields(Faults) if isinstance(getattr(NO_FAULTS, field.name), float)
)
"""Every kind of fault, by its name in `Faults`."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A trial that has not been run. The same shape and the same code make the same history.

    Attributes:
        seed: Decides whatever can vary.
        hours: Simulated.
        agents: How many there are at first.
        sessions: How many are submitted.
        faults: A profile: what goes wrong.
        without: Kinds of faults that are left out of it.
        only: The names of the sessions that are submitted; `None` for all.
        calm_after_h: Nothing goes wrong after so many hours.
    """

    seed: int = 0
    hours: float = 6.0
    agents: int = 5
    sessions: int = 500
    faults: str = "rough"
    without: tuple[str, ...] = ()
    only: tuple[str, ...] | None = None
    calm_after_h: float | None = None

    def trial(self, until: int | None = None) -> Trial:
        """Prepare the trial, to be stopped before a step when one is given."""
        return Trial(
            self.seed,
            hours=self.hours,
            agents=self.agents,
            sessions=self.sessions,
            faults=self._faults(),
            only=self.only,
            calm_after_h=self.calm_after_h,
            until=until,
        )

    def _faults(self) -> Faults:
        left_out: dict[str, Any] = dict.fromkeys(self.without, 0.0)
        return replace(PROFILES[self.faults], **left_out)

    def missing(self, outcome: Outcome) -> list[str]:
        """Say what there was too little of, in a trial that is at least of the default size."""
        usual = Shape()
        is_whole = (self.without, self.only, self.calm_after_h) == ((), None, None)
        is_large = self.hours >= usual.hours and self.sessions >= usual.sessions
        if not (is_whole and is_large) or self.faults == "none":
            return []
        return outcome.missing(Least())

    def command(self) -> str:
        """Return the command that runs this trial."""
        words = ["sokovan sim", f"--seed {self.seed}"]
        usual = Shape()
        words += [
            f"--{name} {getattr(self, name)}"
            for name in ("hours", "agents", "sessions", "faults")
            if getattr(self, name) != getattr(usual, name)
        ]
        if self.without:
            words.append(f"--without {','.join(self.without)}")
        if self.only is not None:
            words.append(f"--only {','.join(self.only)}")
        if self.calm_after_h is not None:
            words.append(f"--calm-after {self.calm_after_h:g}")
        return " ".join(words)
