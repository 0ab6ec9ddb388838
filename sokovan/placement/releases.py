"""What running sessions should release, and when: the future as far as it is known."""

from bisect import bisect_right
from collections.abc import Iterable
from math import inf
from typing import NamedTuple

import numpy as np

from sokovan.domain.cluster import ScalingGroup
from sokovan.domain.resources import DeviceShares, Hold
from sokovan.domain.sessions import AgentId, SessionWithKernels
from sokovan.domain.statuses import SessionStatus
from sokovan.placement.machines import Machines
from sokovan.placement.room import Room


def walltime_of(session: SessionWithKernels, group: ScalingGroup) -> float:
    """Return how long a session is expected to run, in seconds."""
    return group.walltime_default_s if session.walltime_s is None else session.walltime_s


def expected_end(session: SessionWithKernels, group: ScalingGroup, now: float) -> float:
    """Return when a session on agents should end; one that is late may end at any moment."""
    if session.status is SessionStatus.TERMINATING:
        return max(now, session.status_since + session.grace_s)
    since = session.started_at if session.started_at is not None else session.status_since
    return max(now, since + walltime_of(session, group))


def held_until(
    hold: Hold, session: SessionWithKernels | None, group: ScalingGroup, now: float
) -> float:
    """Say when a hold should be released; a leftover, when its agent's grace has passed."""
    if session is None or hold.is_leftover:
        return max(now, (hold.leftover_since or now) + group.agent_grace_s)
    return expected_end(session, group, now)


class Release(NamedTuple):
    """Amounts of a row that should be free again at a moment."""

    at: float
    row: int
    cpu: int
    mem: int
    devices: DeviceShares
    """Positions and shares."""


def release_of(hold: Hold, machines: Machines, at: float) -> Release | None:
    """Say what a hold should release at a moment; `None` when its agent is not there."""
    row = machines.row_of.get(AgentId(hold.agent_id))
    if row is None:
        return None
    devices = machines.positions_of(row, hold.devices) if hold.devices else ()
    return Release(at, row, hold.cpu_milli, hold.mem_bytes, devices)


class Releases:
    """Releases in order of time, as arrays.

    Args:
        releases: In any order.
        machines: Where more is held than there is, a release makes good for that first.
    """

    def __init__(self, releases: Iterable[Release], machines: Machines) -> None:
        given = self._given = list(releases)
        self._machines = machines
        at, rows, cpu, mem, devices = zip(*given, strict=True) if given else ((),) * 5
        times = np.array(at, np.float64)
        order = np.argsort(times, kind="stable")
        self._times = times[order]
        self.moments: list[float] = np.unique(times).tolist()
        self._rows = np.array(rows, np.intp)[order]
        self._cpu = np.array(cpu, np.int64)[order]
        self._mem = np.array(mem, np.int64)[order]
        parts = [
            (n, rows[n], position, part)
            for n in order.tolist()
            if devices[n]
            for position, part in devices[n]
        ]
        self._parts = np.array(parts, np.int64).reshape(-1, 4)
        self._parts_at = times[self._parts[:, 0]]
        self._overdrawn = machines.overdrawn()

    def plus(self, releases: Iterable[Release]) -> "Releases":
        """Return these and some more."""
        more = list(releases)
        return Releases([*self._given, *more], self._machines) if more else self

    def next_after(self, now: float) -> float:
        """Return the first moment after `now` at which something should be released."""
        index = bisect_right(self.moments, now)
        return self.moments[index] if index < len(self.moments) else inf

    def until(self, at: float, room: Room) -> Room:
        """Return `room`, which is free now, with all that should be released by then."""
        count = np.searchsorted(self._times, at, side="right")
        rows = self._rows[:count]
        cpu, mem, shares = room.cpu.copy(), room.mem.copy(), room.shares.copy()
        kernels = room.kernels.copy()
        np.add.at(cpu, rows, self._cpu[:count])
        np.add.at(mem, rows, self._mem[:count])
        np.add.at(kernels, rows, -1)
        if len(self._parts):
            parts = self._parts[: np.searchsorted(self._parts_at, at, side="right")]
            np.add.at(shares, (parts[:, 1], parts[:, 2]), parts[:, 3])
        for amounts, too_much in zip((cpu, mem, shares), self._overdrawn, strict=False):
            rows_short = too_much > 0
            amounts[rows_short] = np.maximum(amounts - too_much, 0)[rows_short]
        return Room(cpu, mem, shares, kernels)
