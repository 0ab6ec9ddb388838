"""The one reason for which a session waits, chosen from all the refusals it met."""

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sokovan.domain.reasons import Wait, WaitReason
from sokovan.domain.resources import Request
from sokovan.domain.where import ClusterMode
from sokovan.placement.fit import fitting
from sokovan.placement.looks import AGENTS_NAMED_MAX, CODES, Looks, label, out_of_service
from sokovan.placement.machines import Machines
from sokovan.placement.needs import Demand, Need, total
from sokovan.placement.placer import Placer
from sokovan.placement.ranking import CONCENTRATED
from sokovan.placement.room import Room


def binding(demand: Demand, placer: Placer, machines: Machines) -> Wait:
    """Say why a demand waits that found no room.

    Args:
        demand: What is asked for; it could be met, were all agents empty.
        placer: Of the room that is free now; nothing is taken from it.
        machines: The agents of the group, except the GONE.
    """
    if not machines.agents:
        return Wait(WaitReason.NO_AGENTS)
    room = placer.room.copy()
    places, lacking = placer.beside(room).partly(demand)
    looks = Looks(lacking, machines, room) if lacking else None
    if looks is None or not looks.refusing.any():
        # Kernel by kernel they would fit: on one agent, or in one domain, they do not.
        return Wait(WaitReason.NOT_ALL_KERNELS_FIT, {"kernels": len(demand.needs), **_form(demand)})
    if len(demand.needs) == 1:
        return _short(looks)
    missed = _missed(demand, machines)
    wait = _out_of_service(looks, missed) if missed.any() else _short(looks)
    if not places:
        return wait
    return Wait(
        WaitReason.NOT_ALL_KERNELS_FIT,
        {
            "kernels": len(demand.needs),
            "fit": len(places),
            "next": {"code": wait.code.value, "facts": wait.facts},
        },
    )


def never_fits(demand: Demand, machines: Machines) -> Wait | None:
    """Say why the kernels of one session could not run at once on the agents, were all empty.

    Agents that are LOST or drained may return and count; GONE ones do not. Without any agent
    nothing is known, and nothing is said.
    """
    if demand.problem is not None:
        return Wait(WaitReason.NEVER_FITS, {"problem": demand.problem})
    if not machines.agents:
        return None
    empty = machines.empty()
    for need in dict.fromkeys(demand.needs):
        if not fitting(need, machines, empty, machines.eligible(need.filter).rows).any():
            return _never_alone(Looks(need, machines, empty))
    if len(demand.needs) == 1 or _fits_on_one(demand, machines):
        return None
    if _whole_cluster(machines, empty.copy()).place(demand) is not None:
        return None
    room = empty.copy()
    places, lacking = _whole_cluster(machines, room).partly(demand)
    if lacking is None:
        return Wait(WaitReason.NEVER_FITS, {"kernels": len(demand.needs), **_form(demand)})
    looks = Looks(lacking, machines, room)
    row = looks.closest(looks.able & ~looks.fits, looks.distance) if _any_short(looks) else None
    if row is None:
        return Wait(WaitReason.NEVER_FITS, {"kernels": len(demand.needs), **_form(demand)})
    slot = looks.worst_of(row)
    requested, free, total = looks.numbers(slot, row)
    return Wait(
        WaitReason.NEVER_FITS,
        {
            "kernels": len(demand.needs),
            "fit": len(places),
            "slot": slot,
            "requested": requested,
            **_device_memory(lacking.request, slot),
            "best_free": free,
            "best_total": total,
            "best_agent": label(looks.agent(row)),
            "agents": len(machines.agents),
        },
    )


def _fits_on_one(demand: Demand, machines: Machines) -> bool:
    """Whether one empty agent could take all kernels, so that there is no need to try.

    Said only where amounts add up: of kernels that want whole devices or none, of one filter.
    """
    filters = {need.filter for need in demand.needs}
    is_tied = demand.where.same or demand.where.kernels_per_agent_max is not None
    if is_tied or len(filters) > 1 or any(need.part for need in demand.needs):
        return False
    if machines.kernels_max is not None and machines.kernels_max < len(demand.needs):
        return False
    every = Need(total([need.request for need in demand.needs]), filters.pop())
    rows = machines.eligible(every.filter).rows
    return bool(fitting(every, machines, machines.empty(), rows).any())


def _any_short(looks: Looks) -> bool:
    return bool((looks.able & ~looks.fits).any())


def _form(demand: Demand) -> dict[str, Any]:
    """What ties the kernels of one session to each other."""
    where = demand.where
    if where.mode is ClusterMode.SINGLE_NODE:
        return {"form": "on one agent"}
    if where.same:
        return {"form": f"on agents with one value of {where.same}"}
    if where.kernels_per_agent_max is not None:
        return {"form": f"at most {where.kernels_per_agent_max} on one agent"}
    return {"form": "at once"}


def _whole_cluster(machines: Machines, room: Room) -> Placer:
    """A placer that counts agents out of service, too."""
    return Placer(machines, room, CONCENTRATED, serving_only=False)


def _never_alone(looks: Looks) -> Wait:
    """No agent has, even when empty, what one kernel asks for."""
    if not looks.lets.any():
        unmet = Counter(looks.unmet(row)[1] for row in range(len(looks.lets)))
        what, _ = min(unmet.items(), key=lambda item: (-item[1], item[0]))
        code = looks.unmet(0)[0] if len(unmet) == 1 else WaitReason.CONSTRAINT_NOT_MET
        return Wait(
            WaitReason.NEVER_FITS,
            {
                "unmet": sorted(unmet),
                "most": what,
                "by": code.value,
                "agents": len(looks.lets),
                "refused_by": looks.counted(as_if_serving=True),
            },
        )
    row = looks.closest(looks.lets, looks.distance_when_empty)

    def largest(slot: str) -> tuple[int, int]:
        total = np.where(looks.lets, looks.slots[slot].total, -1)
        best = int(total.argmax())
        return total.item(best), best

    short = [slot for slot in looks.slots if looks.slots[slot].for_ever[row]]

    def weight(slot: str) -> tuple[bool, float]:
        requested, _, total = looks.numbers(slot, row)
        return largest(slot)[0] < requested, 1 - total / requested

    slot = max(short, key=weight)
    requested, _, total = looks.numbers(slot, row)
    amount, best = largest(slot)
    return Wait(
        WaitReason.NEVER_FITS,
        {
            "slot": slot,
            "requested": requested,
            **_device_memory(looks.need.request, slot),
            "largest": amount,
            "largest_agent": label(looks.agent(best)),
            "best_total": total,
            "best_agent": label(looks.agent(row)),
            "agents": len(looks.lets),
            "refused_by": looks.counted(as_if_serving=True),
        },
    )


def _missed(demand: Demand, machines: Machines) -> NDArray[np.bool_]:
    """Find agents out of service without which the kernels of one session cannot run at once."""
    none = np.zeros(len(machines.agents), bool)
    if machines.serving.all():
        return none
    empty = Placer(machines, machines.empty().copy(), CONCENTRATED)
    if empty.place(demand) is not None:
        return none
    room = machines.empty()
    for need in dict.fromkeys(demand.needs):
        none |= Looks(need, machines, room).able
    return none & ~machines.serving


def _short(looks: Looks) -> Wait:
    """Some agent could take it when empty; the one that comes closest names the reason."""
    serving = looks.refusing & looks.serving
    if not serving.any():
        return _out_of_service(looks, looks.able & ~looks.serving)
    row = looks.closest(serving, looks.distance)
    slot = looks.worst_of(row)
    amounts = looks.slots[slot]
    requested, free, total = looks.numbers(slot, row)
    asked = looks.serving & looks.lets
    return Wait(
        CODES[slot],
        {
            "slot": slot,
            "requested": requested,
            **_device_memory(looks.need.request, slot),
            "best_free": free,
            "best_total": total,
            "best_agent": label(looks.agent(row)),
            "best_has_most": bool(
                amounts.short[asked].all() and free == amounts.free[asked].max(initial=0)
            ),
            "also": sorted(CODES[other].value for other in looks.short_on(row) if other != slot),
            "total_largest": int(amounts.total[looks.lets].max(initial=0)),
            "refused_by": looks.counted(),
        },
    )


def _out_of_service(looks: Looks, able: NDArray[np.bool_]) -> Wait:
    """Those that could take it get no kernels now; who is only drained can be had at once."""
    agents = [looks.agent(row) for row in np.flatnonzero(able).tolist()]
    drained = [a for a in agents if out_of_service(a) is WaitReason.AGENT_DRAINED]
    lost = [label(agent) for agent in agents if agent not in drained]
    if not drained:
        return Wait(
            WaitReason.AGENT_NOT_ALIVE,
            {
                "agents": lost[:AGENTS_NAMED_MAX],
                "lost": len(lost),
                "refused_by": looks.counted(),
            },
        )
    named = drained[:AGENTS_NAMED_MAX]
    return Wait(
        WaitReason.AGENT_DRAINED,
        {
            "agents": [label(agent) for agent in named],
            "reasons": {label(a): a.drain_reason for a in named if a.drain_reason},
            "drained": len(drained),
            "lost": len(lost),
            "refused_by": looks.counted(),
        },
    )


def _device_memory(request: Request, slot: str) -> dict[str, int]:
    if slot not in {"gpu", "gpu_mem"}:
        return {}
    return {
        "devices": max(1, request.devices_whole),
        "gpu_mem_bytes_min": request.gpu_mem_bytes_min,
    }
