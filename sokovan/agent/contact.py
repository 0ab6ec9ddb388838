"""Whether a manager is there, and since when an agent has heard of none."""

from collections.abc import Callable

from sokovan.agent.timers import Timers
from sokovan.clock import Clock
from sokovan.config import AgentConfig

LOOK_AGAIN_S = 5.0
"""While no manager is heard of, how often `cut_off` is called."""


class Contact:
    """What an agent knows of its manager's presence.

    Args:
        config: Says how long a silence makes orders out of date.
        clock: Tells the time.
        timers: Runs what is to happen later.
        cut_off: Called once no manager has been heard of for so long, and again while that is so.
    """

    def __init__(
        self, config: AgentConfig, *, clock: Clock, timers: Timers, cut_off: Callable[[], None]
    ) -> None:
        self._silence_s_max = config.cut_off_stop_s
        self._clock = clock
        self._timers = timers
        self._cut_off = cut_off
        self._heard_at = clock.now()

    def watch(self) -> None:
        """Begin to watch for silence."""
        self._look()

    def heard(self) -> None:
        """Note that a manager is there."""
        self._heard_at = self._clock.now()

    @property
    def is_cut_off(self) -> bool:
        """Whether no manager has been heard of for so long that its orders may be out of date."""
        return self._clock.now() - self._heard_at >= self._silence_s_max

    def _look(self) -> None:
        if self.is_cut_off:
            self._cut_off()
        left_s = self._heard_at + self._silence_s_max - self._clock.now()
        self._timers.after(left_s if left_s > 0 else LOOK_AGAIN_S, self._look)
