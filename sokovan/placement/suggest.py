"""What would start a waiting session now: in each dimension alone, the smallest change.

Every change is asked of the engine itself: a pass is run up to the session's turn, and there it is
tried with this change and that. So what is suggested starts, if nothing else happens first.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sokovan.domain.cluster import Backfill
from sokovan.domain.quantities import (
    DEVICE_SHARES,
    exact_duration,
    exact_size,
    format_duration,
    format_milli,
)
from sokovan.domain.resources import Request
from sokovan.domain.sessions import SESSION_PRIORITY_MAX, SessionId, SessionWithKernels
from sokovan.domain.where import ClusterMode, Where
from sokovan.placement.admit import admission
from sokovan.placement.looks import label
from sokovan.placement.needs import malformed
from sokovan.placement.placer import Places
from sokovan.placement.releases import walltime_of
from sokovan.placement.snapshot import Snapshot
from sokovan.placement.turn import LAST, Turn, largest, smallest

MIB = 1 << 20
GROUPS_TRIED_MAX = 16
"""So many other scaling groups are looked at."""

Change = tuple[Any, Any, str, SessionWithKernels]
"""From what to what, JSON-able; the same in words, as what to do; and the session with it."""


def suggestions(
    snapshot: Snapshot, session_id: SessionId, others: Sequence[Snapshot] = ()
) -> list[dict[str, Any]]:
    """Find what would start a waiting session now. JSON-able; nothing is changed.

    Args:
        snapshot: Its group.
        session_id: The session; one that may not be placed whatever is free has no suggestions.
        others: Other groups, that it might rather be submitted to.

    Returns:
        Of each: `dimension`, `from` and `to` in base units, `change`, what to do in words, and
        `as_new`, whether it also helps who cancels the session and submits it anew, so that it is
        the last in the queue.
    """
    session = snapshot.queue.get(session_id)
    if session is None or snapshot.queue.lane_of(session_id) is None:
        return []
    if admission(session, snapshot) or malformed([k.request for k in session.kernels]):
        return []
    turn = Turn(snapshot.apart(), session)
    if turn.starts(session):
        return []
    found = [
        {
            "dimension": name,
            "from": before,
            "to": after,
            "change": change,
            "as_new": turn.starts_as_new(changed),
        }
        for name, changes in DIMENSIONS
        for before, after, change, changed in changes(turn, session)
    ]
    return found + [
        {
            "dimension": "group",
            "from": session.scaling_group,
            "to": other.group.name,
            "change": f"use the group {other.group.name} (--group {other.group.name})",
            "as_new": True,
        }
        for other in others[:GROUPS_TRIED_MAX]
        if _starts_in(other, session)
    ]


# --- amounts --------------------------------------------------------------------------------------


def _fewer_cores(turn: Turn, session: SessionWithKernels) -> Iterator[Change]:
    asked = _most(session, "cpu_milli")
    best = largest(1, asked - 1, lambda milli: turn.starts(_capped(session, "cpu_milli", milli)))
    if best is not None:
        cores = f"{format_milli(best)} {'core' if best == 1000 else 'cores'}"
        yield (
            asked,
            best,
            f"ask for {cores} instead of {format_milli(asked)} (--cpu {format_milli(best)})",
            _capped(session, "cpu_milli", best),
        )


def _less_memory(turn: Turn, session: SessionWithKernels) -> Iterator[Change]:
    """In steps of 1 MiB."""
    asked = _most(session, "mem_bytes")
    best = largest(
        1, (asked - 1) // MIB, lambda mib: turn.starts(_capped(session, "mem_bytes", mib * MIB))
    )
    if best is not None:
        size = exact_size(best * MIB)
        yield (
            asked,
            best * MIB,
            f"ask for {size} of memory instead of {exact_size(asked)} (--mem {size})",
            _capped(session, "mem_bytes", best * MIB),
        )


def _fewer_gpus(turn: Turn, session: SessionWithKernels) -> Iterator[Change]:
    asked = _most(session, "gpu_shares")
    amounts = [*range(1, min(asked, DEVICE_SHARES)), *range(DEVICE_SHARES, asked, DEVICE_SHARES)]
    best = largest(
        0, len(amounts) - 1, lambda n: turn.starts(_capped(session, "gpu_shares", amounts[n]))
    )
    if best is not None:
        gpus = format_milli(amounts[best])
        words = f"{gpus} {'GPU' if gpus == '1' else 'GPUs'}"
        if amounts[best] < DEVICE_SHARES:
            words = f"{gpus} of a GPU"
        yield (
            asked,
            amounts[best],
            f"ask for {words} instead of {format_milli(asked)} (--gpu {gpus})",
            _capped(session, "gpu_shares", amounts[best]),
        )


def _smaller_gpus(turn: Turn, session: SessionWithKernels) -> Iterator[Change]:
    """The sizes of the devices that there are, in whole MiB, are all that can matter."""
    asked = _most(session, "gpu_mem_bytes_min")
    there = np.unique(turn.snapshot.machines.device_mem // MIB * MIB).tolist()
    sizes = sorted({0, *(size for size in there if size < asked)}) if asked else []
    best = largest(
        0, len(sizes) - 1, lambda n: turn.starts(_capped(session, "gpu_mem_bytes_min", sizes[n]))
    )
    if best is not None:
        size = exact_size(sizes[best])
        change = f"take GPUs of {size} or more instead of {exact_size(asked)} (--gpu-mem {size})"
        yield (
            asked,
            sizes[best],
            change if sizes[best] else "take GPUs of any size (leave out --gpu-mem)",
            _capped(session, "gpu_mem_bytes_min", sizes[best]),
        )


def _shorter(turn: Turn, session: SessionWithKernels) -> Iterator[Change]:
    """In whole seconds: so that it ends before what it would use is needed by others."""
    if turn.snapshot.group.backfill in {Backfill.NONE, Backfill.STRICT}:
        return
    asked = walltime_of(session, turn.snapshot.group)
    most = int(asked) - (asked == int(asked))
    best = largest(1, most, lambda s: turn.starts(replace(session, walltime_s=float(s))))
    if best is not None:
        in_time = exact_duration(best if best < 120 else (best - 30) // 60 * 60)  # to type it
        than = format_duration(asked)
        if session.walltime_s is None:
            than = f"no time, which counts as {format_duration(asked)}"
        yield (
            session.walltime_s,
            float(best),
            f"have it end within {exact_duration(best)} instead of {than} (--time {in_time})",
            replace(session, walltime_s=float(best)),
        )


# --- where it may go ------------------------------------------------------------------------------


def _constraints(turn: Turn, session: SessionWithKernels) -> Iterator[Change]:
    """Each constraint alone; where none is enough, as few of them as are."""
    asked = session.where.constraints

    def without(*left_out: int) -> SessionWithKernels:
        kept = tuple(c for n, c in enumerate(asked) if n not in left_out)
        return _going(session, constraints=kept)

    enough: list[tuple[int, ...]] = [(n,) for n in range(len(asked)) if turn.starts(without(n))]
    if not enough and len(asked) > 1 and turn.starts(without(*range(len(asked)))):
        needed = list(range(len(asked)))
        for n in range(len(asked)):
            fewer = [other for other in needed if other != n]
            needed = fewer if turn.starts(without(*fewer)) else needed
        enough = [tuple(needed)]
    for numbers in enough:
        names = [str(asked[n]) for n in numbers]
        dropped = " and ".join(f"--constraint {name}" for name in names)
        yield names, None, f"leave out {dropped}", without(*numbers)


def _agents(turn: Turn, session: SessionWithKernels) -> Iterator[Change]:
    """Agents that it does not name, or excludes: those alone that it would go on, if they do."""
    named, excluded = session.where.agents, session.where.exclude
    if named:
        on = _names_of(turn, turn.places(_going(session, agents=())))
        more = sorted(on - _aliases_of(turn, named))
        wider = _going(session, agents=(*named, *more))
        options = " ".join(f"--agent {name}" for name in more)
        if more and turn.starts(wider):
            words = f"let it go on {', '.join(more)}, too ({options})"
            yield list(named), list(wider.where.agents), words, wider
        elif on:
            words = f"leave out {' '.join(f'--agent {name}' for name in named)}"
            yield list(named), None, words, _going(session, agents=())
    if excluded:
        on = _names_of(turn, turn.places(_going(session, exclude=())))
        kept = tuple(name for name in excluded if not _aliases_of(turn, [name]) & on)
        fewer = _going(session, exclude=kept)
        if on and not turn.starts(fewer):
            kept, fewer = (), _going(session, exclude=())
        if on:
            words = " ".join(f"--exclude {name}" for name in excluded if name not in kept)
            yield list(excluded), list(kept) or None, f"leave out {words}", fewer


def _spread(turn: Turn, session: SessionWithKernels) -> Iterator[Change]:
    """What ties its kernels to each other."""
    where, count = session.where, len(session.kernels)
    if where.mode is ClusterMode.SINGLE_NODE and count > 1:
        apart = _going(session, mode=ClusterMode.MULTI_NODE)
        if turn.starts(apart):
            yield (
                where.mode.value,
                ClusterMode.MULTI_NODE.value,
                "let its kernels go on several agents (--mode multi-node)",
                apart,
            )
    most = where.kernels_per_agent_max
    if most is not None:
        best = smallest(
            most + 1, count, lambda n: turn.starts(_going(session, kernels_per_agent_max=n))
        )
        if best is not None:
            yield (
                most,
                best,
                f"allow {best} kernels on one agent instead of {most} (--kernels-per-agent {best})",
                _going(session, kernels_per_agent_max=best),
            )
    if where.same and turn.starts(_going(session, same="")):
        yield where.same, None, f"leave out --same {where.same}", _going(session, same="")


def _fewer_kernels(turn: Turn, session: SessionWithKernels) -> Iterator[Change]:
    def first(count: int) -> SessionWithKernels:
        return replace(session, kernels=session.kernels[:count])

    asked = len(session.kernels)
    best = largest(1, asked - 1, lambda count: turn.starts(first(count)))
    if best is not None:
        kernels = "1 kernel" if best == 1 else f"{best} kernels"
        change = f"ask for {kernels} instead of {asked} (--kernels {best})"
        yield asked, best, change, first(best)


def _priority(turn: Turn, session: SessionWithKernels) -> Iterator[Change]:
    """It helps where somebody ahead takes the room, has it reserved, or ends the pass."""
    done, asked = turn.done, session.priority
    if done.turn_came and not (done.placed or done.bookings.blocked):
        return
    best = smallest(
        asked + 1,
        SESSION_PRIORITY_MAX,
        lambda priority: turn.at_priority(replace(session, priority=priority)),
    )
    if best is not None:
        change = f"have priority {best} instead of {asked} (--priority {best})"
        yield asked, best, change, replace(session, priority=best)


DIMENSIONS: tuple[tuple[str, Callable[[Turn, SessionWithKernels], Iterator[Change]]], ...] = (
    ("cpu", _fewer_cores),
    ("mem", _less_memory),
    ("gpu", _fewer_gpus),
    ("gpu_mem", _smaller_gpus),
    ("walltime", _shorter),
    ("constraint", _constraints),
    ("constraint", _agents),
    ("spread", _spread),
    ("kernels", _fewer_kernels),
    ("priority", _priority),
)
"""One function each; the scaling group is one more."""


def _starts_in(other: Snapshot, session: SessionWithKernels) -> bool:
    """Whether it would start in another group, unchanged."""
    if len(session.kernels) > other.group.kernels_max:
        return False
    there = replace(
        session,
        scaling_group=other.group.name,
        number=LAST,
        created_at=other.now,
        begin_at=None,
        avoid=(),
    )
    return Turn(other.apart(), there).starts(there)


# --- a session with a change ----------------------------------------------------------------------


def _most(session: SessionWithKernels, field: str) -> int:
    most: int = max(getattr(kernel.request, field) for kernel in session.kernels)
    return most


def _capped(session: SessionWithKernels, field: str, amount: int) -> SessionWithKernels:
    """No kernel asks for more than that of one amount."""
    kernels = []
    for kernel in session.kernels:
        request: Request = kernel.request
        if getattr(request, field) > amount:
            kernel = replace(kernel, request=replace(request, **{field: amount}))  # noqa: PLW2901
        kernels.append(kernel)
    return replace(session, kernels=tuple(kernels))


def _going(session: SessionWithKernels, **changes: Any) -> SessionWithKernels:
    where: Where = replace(session.where, **changes)
    return replace(session, where=where)


def _names_of(turn: Turn, places: Places | None) -> set[str]:
    return {label(turn.snapshot.machines.agents[place.row]) for place in places or ()}


def _aliases_of(turn: Turn, refs: Sequence[str]) -> set[str]:
    """The names and ids of the agents that are named by either."""
    agents = [a for a in turn.snapshot.machines.agents if {a.name, a.agent_id} & set(refs)]
    return {name for agent in agents for name in (agent.name, agent.agent_id)}
