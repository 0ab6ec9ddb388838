"""Whether a manager is there, and since when an agent has heard of none.

Time counts while an agent is not there, is stopped, or its machine sleeps: whatever it was asked
before may be out of date. But then the manager has had no chance to be heard, and may have slept,
too. So kernels are stopped for a silence only once the agent has been listening for a moment.
"""

import contextlib
from collections.abc import Callable
from pathlib import Path

from sokovan.agent.runtime import ContactNote
from sokovan.agent.timers import Timers
from sokovan.clock import Clock
from sokovan.config import AgentConfig

LOOK_AGAIN_S = 5.0
"""While no manager is heard of, how often `cut_off` is called."""
MOMENT_S_MIN = 2.0
"""A moment in which a manager can be heard; it is two heartbeats where they are longer."""
NOTE_BEATS = 3
"""At most every so many heartbeats it is written down that a manager was heard of."""


class Contact:
    """What an agent knows of its manager's presence.

    Args:
        config: Says how long a silence makes orders out of date.
        note: Remembers beyond this process when a manager was last heard of.
        clock: Tells the time.
        timers: Runs what is to happen later.
        cut_off: Called once no manager has been heard of for so long, and again while that is so.
    """

    def __init__(
        self,
        config: AgentConfig,
        note: ContactNote,
        clock: Clock,
        timers: Timers,
        cut_off: Callable[[], None],
    ) -> None:
        self._silence_s_max = config.cut_off_stop_s
        moment_s = max(MOMENT_S_MIN, 2 * config.heartbeat_s)
        self._moment_s = min(moment_s, config.cut_off_stop_s / 2)
        self._note_every_s = min(NOTE_BEATS * config.heartbeat_s, config.cut_off_stop_s / 10)
        self._note = note
        self._clock = clock
        self._timers = timers
        self._cut_off = cut_off
        now, noted = clock.now(), note.read()
        self._heard_at = noted if noted is not None and noted <= now else now
        self._noted_at = now - self._note_every_s  # the next time is written down at once
        self._listens_since = self._look_at = now

    def watch(self) -> None:
        """Begin to watch for silence."""
        self._look()

    def heard(self) -> None:
        """Note that a manager is there."""
        self._heard_at = now = self._clock.now()
        if now - self._noted_at >= self._note_every_s:
            self._noted_at = now
            self._note.write(now)

    @property
    def is_cut_off(self) -> bool:
        """Whether no manager has been heard of for so long that its orders may be out of date."""
        return self._clock.now() - self._heard_at >= self._silence_s_max

    def _look(self) -> None:
        """Say that it is cut off, if it is so and has been listening; and look again when due.

        It looks once more a moment before it would be due, so that a standstill that ends about
        then is noticed.
        """
        now = self._clock.now()
        if now - self._look_at > self._moment_s / 2:  # it stood still
            self._listens_since = now
        due_at = max(self._heard_at + self._silence_s_max, self._listens_since + self._moment_s)
        if now >= due_at:
            self._cut_off()
        self._look_at = next(
            (at for at in (due_at - self._moment_s, due_at) if at > now), now + LOOK_AGAIN_S
        )
        self._timers.after(self._look_at - now, self._look)


class ContactFile:
    """A file that says when a manager was last heard of.

    It counts from the start of the machine, so that a set clock changes nothing, and is of no use
    after the next one: nothing runs then.

    Args:
        path: Where it is.
        clock: What the times are told by.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._origin = clock.origin

    def write(self, at: float) -> None:
        """Remember a time, unless that cannot be written: then the one before stays."""
        new = self._path.with_name(f"{self._path.name}.new")
        with contextlib.suppress(OSError):  # a silence that seems too long does no harm
            new.write_text(f"{self._origin.boot_id} {at - self._origin.wall_s!r}\n")
            new.rename(self._path)

    def read(self) -> float | None:
        """Return the time by the present clock, or `None` when there is none of this boot."""
        with contextlib.suppress(OSError, ValueError):
            boot_id, _, seconds = self._path.read_text().strip().rpartition(" ")
            if boot_id == self._origin.boot_id:
                return float(seconds) + self._origin.wall_s
        return None
