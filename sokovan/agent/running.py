"""A kernel that is a process, of which something may be alive."""

from dataclasses import dataclass

from sokovan.agent.cgroups import Group
from sokovan.agent.timers import Timer


@dataclass(slots=True)
class Running:
    """A kernel of which something may be alive."""

    token: str
    pid: int
    """The wrapper's."""
    group: Group | None = None
    mem_bytes: int = 0
    pidfd: int | None = None
    """Set when the wrapper is not our child."""
    is_child: bool = True
    wrapper_gone: bool = False
    exit_code: int | None = None
    """What the wrapper itself returned, when it is our child and was not killed."""
    stopping: bool = False
    tries: int = 0
    timer: Timer | None = None
    """The next step of stopping or clearing up."""
