"""What sessions ask for, without who asks: equal demands are one object and share one answer."""

from collections.abc import Sequence
from operator import attrgetter

from sokovan.domain.quantities import DEVICE_SHARES
from sokovan.domain.reasons import Wait
from sokovan.domain.resources import Request
from sokovan.domain.sessions import AgentId, SessionWithKernels
from sokovan.domain.where import Where
from sokovan.placement.filters import Filter, filter_of, minds_devices

amounts_of = attrgetter("gpu_shares", "cpu_milli", "mem_bytes", "gpu_mem_bytes_min")
"""All that a request asks for, the scarcest first: its size for sorting, and its shape."""


class Need:
    """What one kernel asks for: amounts, and what agents and devices must be like.

    Attributes:
        minds_devices: Whether it may use some devices of an agent and others not.
        refused_at: The version of the machines at which no row had room for it; 0: one may have.
    """

    __slots__ = (
        "cpu",
        "filter",
        "gpu",
        "mem",
        "minds_devices",
        "part",
        "refused_at",
        "request",
        "whole",
    )

    def __init__(self, request: Request, where: Filter) -> None:
        self.request = request
        self.filter = where
        self.cpu = request.cpu_milli
        self.mem = request.mem_bytes
        self.gpu = request.gpu_shares
        self.whole = request.devices_whole
        self.part = request.device_fraction
        self.minds_devices = minds_devices(where)
        self.refused_at = 0


class Demand:
    """What one session asks for: the needs of its kernels, in order, and where they may go.

    Attributes:
        problem: What makes it nonsense that nobody can have meant, or `None`.
        refused_at: The version of the machines at which all of it found no room; 0: it may.
        never: Why it could not be met even by empty agents, as of `judged_at`.
        judged_at: The `agents_version` of the machines for which it was found; 0: none yet.
    """

    __slots__ = (
        "avoid",
        "judged_at",
        "needs",
        "never",
        "problem",
        "refused_at",
        "requests",
        "where",
    )

    def __init__(
        self, requests: Sequence[Request], where: Where, avoid: tuple[AgentId, ...] = ()
    ) -> None:
        self.requests = tuple(requests)
        self.where = where
        self.avoid = avoid
        self.problem = malformed(self.requests)
        needs = {request: Need(request, filter_of(request, where)) for request in self.requests}
        self.needs = tuple(needs[request] for request in self.requests)
        self.refused_at = 0
        self.never: Wait | None = None
        self.judged_at = 0

    @property
    def is_choosy(self) -> bool:
        """Whether some agents are better for it than others, or its kernels depend on each other.

        Whoever is not takes any agent, kernel by kernel, as the ranking says.
        """
        where = self.where
        return bool(self.avoid or where.prefer or where.spread_with or where.pack_with)


def demand_of(session: SessionWithKernels) -> Demand:
    """Return what a session asks for."""
    return Demand([kernel.request for kernel in session.kernels], session.where, session.avoid)


class Demands:
    """Gives equal demands one object, for as long as somebody has it."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], Demand] = {}
        self._needs: dict[tuple[object, ...], Need] = {}
        self._count: dict[Demand, int] = {}

    def take(self, session: SessionWithKernels) -> Demand:
        """Return the demand of a session; `drop` it once for each `take`."""
        key = _key(session)
        demand = self._known.get(key)
        if demand is None:
            demand = self._known[key] = demand_of(session)
            if demand.problem is None:
                demand.needs = tuple(
                    self._needs.setdefault((amounts_of(need.request), need.filter), need)
                    for need in demand.needs
                )
            self._count[demand] = 0
        self._count[demand] += 1
        return demand

    def find(self, session: SessionWithKernels) -> Demand:
        """Return the known demand of a session, or a new one that nobody else will see."""
        return self._known.get(_key(session)) or demand_of(session)

    def drop(self, session: SessionWithKernels) -> None:
        """Forget a demand that nobody has any more."""
        key = _key(session)
        demand = self._known[key]
        self._count[demand] -= 1
        if not self._count[demand]:
            del self._count[demand], self._known[key]
            if not self._known:
                self._needs.clear()


def _key(session: SessionWithKernels) -> tuple[object, ...]:
    kernels = session.kernels
    if len(kernels) == 1:
        return session.where, session.avoid, amounts_of(kernels[0].request)
    return session.where, session.avoid, *[amounts_of(kernel.request) for kernel in kernels]


def malformed(requests: Sequence[Request]) -> str | None:
    """Say what is wrong with requests that nobody can have meant, or `None`."""
    if not requests:
        return "it has no kernels"
    for request in requests:
        if not all(isinstance(amount, int) and amount >= 0 for amount in amounts_of(request)):
            return "an amount it asks for is not a whole number from 0 up"
        if request.devices_whole and request.device_fraction:
            return "it asks for whole GPUs and a part of one by the same kernel"
    return None


def total(requests: Sequence[Request]) -> Request:
    """Add up what kernels ask for; parts of devices are left out, as they do not add up."""
    return Request(
        sum(request.cpu_milli for request in requests),
        sum(request.mem_bytes for request in requests),
        sum(request.devices_whole for request in requests) * DEVICE_SHARES,
    )
