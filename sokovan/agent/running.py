"""A kernel that is a process, of which something may be alive."""

import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sokovan.agent import procfs
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
    was_seen: bool = True
    """Whether this agent has seen the wrapper alive."""
    wrapper_gone: bool = False
    exit_code: int | None = None
    """What the wrapper itself returned, when it is our child and was not killed."""
    stopping: bool = False
    tries: int = 0
    timer: Timer | None = None
    """The next step of stopping or clearing up."""
    killed: dict[int, int] = field(default_factory=dict)
    """What was killed of it without the help of a control group: pids, and when they started."""

    def kill(self, left: Iterable[procfs.Process]) -> set[int]:
        """Kill what is left of it, one by one; return the pids."""
        pids = set()
        for process in left:
            procfs.send(process, signal.SIGKILL)
            self.killed[process.pid] = process.start
            pids.add(process.pid)
        return pids

    def dying(self, table: Mapping[int, procfs.Process]) -> list[procfs.Process]:
        """Return what was killed and is not quite gone; it tells no more whose it is."""
        return [p for p in table.values() if self.killed.get(p.pid) == p.start]
