"""From a snapshot to a plan: who goes where now, and why everybody else waits.

The ideal: go through the queue in order; give each session that may be placed the agents that rank
first among those with room for all its kernels; say of every other one why it waits. One departure
for speed: free amounts only shrink during a pass, so a shape of request that found no room finds
none later, and all sessions of that shape share one answer. It is worked out when the pass is over,
so that its numbers are those that hold from then on.

A blocked session does not block those behind it. Whatever reserves room for one (backfill) belongs
in `Pass.run`, between admission and packing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sokovan.domain.cluster import AgentStatus
from sokovan.domain.reasons import Wait, WaitReason
from sokovan.domain.resources import Request
from sokovan.domain.sessions import (
    AgentId,
    Assignment,
    KernelAssignment,
    SessionId,
    SessionWithKernels,
)
from sokovan.placement.admit import admission
from sokovan.placement.binding import binding, malformed
from sokovan.placement.fit import Packing, amounts_of, pack
from sokovan.placement.order import ORDERS
from sokovan.placement.rank import RANKINGS, Preference
from sokovan.placement.snapshot import Snapshot

Shape = tuple[object, ...]
"""All that decides whether and where a session fits: what its kernels ask for, what it avoids."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What one pass decided; every pending session is in `placed` or in `waits`."""

    placed: Mapping[SessionId, Assignment]
    """In the order of placing."""
    waits: Mapping[SessionId, Wait]
    never_fits: frozenset[SessionId]
    """Those of `waits` that no agent of the group could take even when empty."""


def place(snapshot: Snapshot) -> Plan:
    """Place what can be placed; give a reason for everything that waits."""
    return Pass(snapshot).run()


def shape_of(session: SessionWithKernels) -> Shape:
    """Return what equal sessions have in common, cheap to hash and to compare."""
    return session.avoid, *[amounts_of(kernel.request) for kernel in session.kernels]


@dataclass(slots=True)
class Refused:
    """The sessions of one shape that found no room in this pass."""

    requests: Sequence[Request]
    avoid: tuple[AgentId, ...]
    packing: Packing | None
    """The best that was found; `None` for a request that makes no sense."""
    session_ids: list[SessionId] = field(default_factory=list)


class Pass:
    """One look at the whole queue. `free` shrinks as sessions are placed."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self.agents = tuple(a for a in snapshot.agents if a.status is not AgentStatus.GONE)
        self._serving = tuple(a for a in self.agents if a.takes_kernels)
        self.free = dict(snapshot.free)
        self._ranking = RANKINGS[snapshot.group.ranking]
        self._last = snapshot.group.last_agent_id
        self.refused: dict[Shape, Refused] = {}

    def run(self) -> Plan:
        """Go through the queue once."""
        placed: dict[SessionId, Assignment] = {}
        waits: dict[SessionId, Wait] = {}
        refused = self.refused
        for session in ORDERS[self._snapshot.group.order](self._snapshot):
            wait = admission(session, self._snapshot)
            if wait is not None:
                waits[session.session_id] = wait
                continue
            shape = shape_of(session)
            if shape not in refused:
                requests = [kernel.request for kernel in session.kernels]
                packing = self._pack(requests, session.avoid)
                if packing is not None and packing.lacking is None:
                    placed[session.session_id] = self._take(session, packing)
                    continue
                refused[shape] = Refused(requests, session.avoid, packing)
            refused[shape].session_ids.append(session.session_id)
        never: list[SessionId] = []
        for group in refused.values():
            wait = self._binding(group)
            waits.update(dict.fromkeys(group.session_ids, wait))
            if wait.code is WaitReason.NEVER_FITS:
                never.extend(group.session_ids)
        return Plan(placed, waits, frozenset(never))

    def _pack(self, requests: Sequence[Request], avoid: tuple[AgentId, ...]) -> Packing | None:
        if malformed(requests):
            return None
        preference = Preference(self._ranking, avoid, self._last)
        return pack(requests, self._serving, self.free, preference)

    def _take(self, session: SessionWithKernels, packing: Packing) -> Assignment:
        self.free.update(packing.free)
        self._last = packing.last
        return tuple(
            KernelAssignment(kernel.kernel_id, *packing.places[position])
            for position, kernel in enumerate(session.kernels)
        )

    def _binding(self, group: Refused) -> Wait:
        if group.packing is None:
            return Wait(WaitReason.NEVER_FITS, {"problem": malformed(group.requests)})
        if len(group.requests) > 1:
            # What is left may, by luck, suit unequal kernels better; they take it in the next pass.
            later = self._pack(group.requests, group.avoid)
            if later is not None and later.lacking is not None:
                group.packing = later
        return binding(group.requests, group.packing, self.agents, self.free)
