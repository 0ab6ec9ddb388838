"""Which of the agents that fit is taken. A new ranking: one class, one entry in `RANKINGS`."""

from collections.abc import Callable, Mapping

from sokovan.domain.cluster import AgentRanking
from sokovan.placement.ranking import CONCENTRATED, ByFree, Ranking, dispersed, in_turn
from sokovan.placement.snapshot import Snapshot
from sokovan.placement.useful import FRAGMENTATION, USEFUL

RANKINGS: Mapping[AgentRanking, Callable[[Snapshot], Ranking]] = {
    AgentRanking.USEFUL: USEFUL,
    AgentRanking.FRAGMENTATION: FRAGMENTATION,
    AgentRanking.CONCENTRATED: lambda _: CONCENTRATED,
    AgentRanking.DISPERSED: lambda _: ByFree(dispersed, minds_devices=True),
    AgentRanking.ROUND_ROBIN: lambda _: ByFree(in_turn, rotates=True),
}
