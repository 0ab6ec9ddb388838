"""All that decides one scheduling pass of a group, as one value."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from sokovan.domain.cluster import Agent, ScalingGroup
from sokovan.domain.resources import Hold
from sokovan.domain.sessions import SessionId, SessionWithKernels
from sokovan.placement.machines import Machines
from sokovan.placement.promises import Promise
from sokovan.placement.queue import Queue
from sokovan.placement.typical import NOTHING, Usual


class Known(Protocol):
    """What is known of a group at one moment, whoever knows it; see `Snapshot`."""

    @property
    def group(self) -> ScalingGroup: ...
    @property
    def agents(self) -> Iterable[Agent]: ...
    @property
    def holds(self) -> Iterable[Hold]: ...
    @property
    def pending(self) -> Iterable[SessionWithKernels]: ...
    @property
    def running(self) -> Iterable[SessionWithKernels]: ...
    @property
    def waiting_for_old(self) -> frozenset[SessionId]: ...
    @property
    def now(self) -> float: ...


@dataclass(slots=True)
class Snapshot:
    """A group at one moment. Equal values give equal plans, whether built at once or step by step.

    Attributes:
        group: Its policy, and its round-robin cursor.
        machines: The agents and everything that occupies them, TERMINATING kernels and leftovers
            too.
        queue: The sessions that wait.
        running: Those that are on agents, by id: whose they are, and when they should end.
        waiting_for_old: Sessions that may not be placed again until their leftovers are gone.
        now: Seconds since the epoch.
        promises: What the last pass reserved for whom; the next one reserves nothing later.
        usual: What sessions usually ask for, as learned by an earlier pass.
        memory: What earlier passes over the same objects found; it adds nothing to the value.
    """

    group: ScalingGroup
    machines: Machines
    queue: Queue
    running: Mapping[SessionId, SessionWithKernels]
    waiting_for_old: frozenset[SessionId]
    now: float
    promises: Mapping[SessionId, Promise] = field(default_factory=dict)
    usual: Usual = NOTHING
    memory: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def apart(self, **changes: Any) -> "Snapshot":
        """Return the same, for passes of which nothing is to be remembered."""
        return replace(self, **{"memory": {}} | changes)


def snapshot_of(known: Known) -> Snapshot:
    """Build a snapshot of what is known; the order of agents, holds and sessions does not matter.

    Whoever keeps one up to date already (`known.snapshot`) has it returned.
    """
    kept = getattr(known, "snapshot", None)
    if isinstance(kept, Snapshot):
        return kept
    machines = Machines(known.agents, known.group.agent_kernels_max)
    for hold in known.holds:
        machines.put_hold(hold)
    queue = Queue(known.group)
    for session in known.pending:
        queue.put(session)
    queue.open_gates(known.now)
    running = {session.session_id: session for session in known.running}
    return Snapshot(known.group, machines, queue, running, known.waiting_for_old, known.now)
