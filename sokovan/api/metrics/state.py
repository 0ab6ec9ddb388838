"""The state of sessions and agents, read from memory when Prometheus asks."""

from collections.abc import Iterable, Iterator, Sequence

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from sokovan import __version__
from sokovan.api.metrics import table
from sokovan.api.metrics.table import Metric
from sokovan.clock import Clock
from sokovan.domain.cluster import AgentStatus
from sokovan.domain.quantities import DEVICE_SHARES
from sokovan.domain.reasons import WaitReason
from sokovan.domain.sessions import AgentId
from sokovan.domain.statuses import FINAL, KernelStatus, SessionStatus
from sokovan.store.repository import SqlRepository

KEPT_S = 5.0
"""For so long the state is not looked at again: some of it costs as much as there are sessions."""
MILLI = 1000
_LIVE = tuple(status for status in SessionStatus if status not in FINAL)
_MAY_RUN = (SessionStatus.CREATING, SessionStatus.RUNNING, SessionStatus.TERMINATING)
_OF_POOLS = (
    table.AGENTS,
    table.CAPACITY_CPU,
    table.CAPACITY_MEM,
    table.CAPACITY_GPUS,
    table.HELD_CPU,
    table.HELD_MEM,
    table.HELD_GPUS,
)
"""What is added up over the agents of one group that are in one state."""

Values = dict[tuple[str, ...], float]
"""A metric's values by those of its labels."""


class StateCollector(Collector):
    """Says how many sessions and agents there are, and what is held.

    Args:
        repository: Knows what is alive.
        clock: Says how long the oldest session has waited, and when to look again.
    """

    def __init__(self, repository: SqlRepository, clock: Clock) -> None:
        self._repository = repository
        self._clock = clock
        self._kept: Sequence[Family] = ()
        self._look_at = float("-inf")

    def describe(self) -> Iterable[Family]:
        """Return nothing: whoever registers this is not to look at the state."""
        return ()

    def collect(self) -> Iterable[Family]:
        """Return the state as it is, or was a moment ago."""
        now = self._clock.now()
        if now >= self._look_at:
            self._look_at = now + KEPT_S
            self._kept = [_family(metric, values) for metric, values in self._look(now)]
        return self._kept

    def _look(self, now: float) -> Iterator[tuple[Metric, Values]]:
        yield table.INFO, {(__version__,): 1}
        yield from self._sessions(sorted(self._repository.groups), now)
        yield from self._agents()

    def _sessions(self, groups: Sequence[str], now: float) -> Iterator[tuple[Metric, Values]]:
        live = self._repository.live
        yield table.SESSIONS, {(g, s.value): live.count(g, (s,)) for g in groups for s in _LIVE}
        waiting: Values = {
            (g, code.value): live.count_waiting(g, code) for g in groups for code in WaitReason
        }
        for group in groups:
            noted = sum(waiting[group, code.value] for code in WaitReason)
            not_noted = live.count(group, (SessionStatus.PENDING,)) - noted
            waiting[group, WaitReason.NOT_EXAMINED_YET.value] += not_noted
        yield table.WAITING, waiting
        yield table.OLDEST_WAIT, {(group,): self._oldest_wait_s(group, now) for group in groups}
        yield table.KERNELS, {(group,): self._kernels_running(group) for group in groups}

    def _oldest_wait_s(self, group: str, now: float) -> float:
        """Look at the first few: they come in the order in which they were submitted or came back.

        None waits since before it was submitted.
        """
        since = now
        for session in self._repository.live.in_statuses(group, (SessionStatus.PENDING,)):
            if session.created_at >= since:
                break
            if not session.held and not session.unmet:
                since = min(since, session.pending_since)
        return now - since

    def _kernels_running(self, group: str) -> int:
        return sum(
            kernel.status is KernelStatus.RUNNING
            for session in self._repository.live.in_statuses(group, _MAY_RUN)
            for kernel in session.kernels
        )

    def _agents(self) -> Iterator[tuple[Metric, Values]]:
        live = self._repository.live
        agents = live.agents.values()
        group_of = {agent.agent_id: agent.scaling_group for agent in agents}
        groups = sorted({*self._repository.groups, *group_of.values()})
        pools: list[tuple[str, ...]] = [(g, state.value) for g in groups for state in AgentStatus]
        sums = {metric: dict.fromkeys(pools, 0.0) for metric in _OF_POOLS}
        drained: Values = {(group,): 0 for group in groups}
        leftovers = dict(drained)
        for agent in agents:
            pool, capacity = (agent.scaling_group, agent.status.value), agent.capacity
            sums[table.AGENTS][pool] += 1
            sums[table.CAPACITY_CPU][pool] += capacity.cpu_milli / MILLI
            sums[table.CAPACITY_MEM][pool] += capacity.mem_bytes
            sums[table.CAPACITY_GPUS][pool] += len(capacity.devices)
            holds = live.holds_on(agent.agent_id)
            shares = sum(amount for hold in holds for _, amount in hold.devices)
            sums[table.HELD_CPU][pool] += sum(hold.cpu_milli for hold in holds) / MILLI
            sums[table.HELD_MEM][pool] += sum(hold.mem_bytes for hold in holds)
            sums[table.HELD_GPUS][pool] += shares / DEVICE_SHARES
            drained[agent.scaling_group,] += agent.is_drained
        for hold in live.leftovers():
            leftovers[group_of[AgentId(hold.agent_id)],] += 1
        yield from sums.items()
        yield table.DRAINED, drained
        yield table.LEFTOVERS, leftovers


def _family(metric: Metric, values: Values) -> Family:
    family = GaugeMetricFamily(metric.name, metric.meaning, labels=metric.labels)
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family
