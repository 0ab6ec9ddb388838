"""Passes over a full cluster with a long queue, as things change, and why single sessions wait."""

import gc
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from benchmarks.cluster import (
    Cluster,
    Shape,
    cluster_of,
    filled,
    free,
    judged,
    start,
    workload_of,
)
from benchmarks.ground import Stopwatch, mib_now
from sokovan.domain.cluster import Backfill
from sokovan.domain.sessions import SessionId
from sokovan.placement.engine import Plan, place
from sokovan.placement.explain import explain
from sokovan.placement.snapshot import Snapshot

FREED = 15
"""So many agents are freed, one after the other."""
EXPLAINED = 15
"""So many sessions are explained."""

Figures = dict[str, Any]


def standing(shape: Shape, runs: int) -> Figures:
    """Fill the cluster, let ten sessions an agent wait, free agents one by one, and ask why."""
    workload = workload_of(shape)
    cluster = cluster_of(shape, workload)
    filling = replace(cluster, group=replace(cluster.group, backfill=Backfill.NONE))
    plan = place(filling.snapshot())
    judgement = judged(workload, plan.placed)
    cluster = filled(cluster, plan.placed, waiting=10 * shape.agents)
    del workload, plan
    gc.collect()
    found: Figures = {"judgement": judgement, "before_mib": mib_now()}

    first = Stopwatch()
    for _ in range(min(runs, 3)):
        snapshot = cluster.snapshot()
        plan = first.time(lambda: place(snapshot))  # noqa: B023 - it is called at once
        assert not plan.placed, "the cluster is not full"
    found["first_pass_ms"] = first.ms()
    found["lanes"] = sum(1 for _ in snapshot.queue.lanes())
    found |= _after_changes(snapshot, cluster)
    found |= _reasons(snapshot)
    return found


def _after_changes(snapshot: Snapshot, cluster: Cluster) -> Figures:
    """Pass after each of several changes, and compare with passes that know nothing."""
    unchanged, came, freed, after = (Stopwatch() for _ in range(4))
    agents = cluster.agents
    latest = list(snapshot.queue.values())[-FREED:]
    placed = 0
    for number, session in enumerate(latest):
        unchanged.time(lambda: place(snapshot))
        snapshot.queue.drop(session.session_id)
        place(snapshot)
        snapshot.queue.put(session)
        came.time(lambda: place(snapshot))

        row = number * len(agents) // len(latest)
        freed_id = snapshot.machines.agents[row].agent_id
        holds = [h for h in snapshot.machines.holds.values() if h.agent_id == freed_id]
        plan = freed.time(lambda: _freed(snapshot, holds))  # noqa: B023 - it is called at once
        _compare(plan, snapshot)
        placed += len(plan.placed)
        start(plan.placed, snapshot)
        plan = after.time(lambda: place(snapshot))
        assert not plan.placed, "somebody was left out"
    assert placed, "nobody was placed on agents that were freed"
    return {
        "unchanged_ms": unchanged.ms(),
        "one_came_ms": came.ms(),
        "freed_ms": freed.ms(),
        "after_ms": after.ms(),
        "placed_on_freed": placed,
    }


def _freed(snapshot: Snapshot, holds: Iterable[Any]) -> Plan:
    free(snapshot, holds)
    return place(snapshot)


def _compare(plan: Plan, snapshot: Snapshot) -> None:
    """The plan must be that of a snapshot built from nothing."""
    fresh = Cluster(
        snapshot.group,
        snapshot.machines.agents,
        list(snapshot.machines.holds.values()),
        list(snapshot.queue.values()),
        list(snapshot.running.values()),
    ).snapshot()
    other = place(fresh)
    assert list(plan.placed.items()) == list(other.placed.items()), "a pass forgot something"
    assert plan.never_fits == other.never_fits


def _reasons(snapshot: Snapshot) -> Figures:
    """Ask why single sessions wait, then all."""
    ids = list(snapshot.queue)
    asked = ids[:: len(ids) // EXPLAINED]
    why, suggested = Stopwatch(), Stopwatch()
    suggest = _suggest()
    for session_id in asked:
        answer = why.time(lambda: explain(snapshot, session_id))  # noqa: B023 - called at once
        assert answer["position"], "it has no place in the queue"
        if suggest:
            suggested.time(lambda: suggest(snapshot, session_id))  # noqa: B023 - called at once
    begun = time.process_time()
    waits = Counter(wait.code.value for wait in place(snapshot).waits.values())
    reasons_s = time.process_time() - begun
    return {
        "why_ms": why.ms(),
        **({"why_suggest_ms": suggested.ms()} if suggest else {}),
        "waits": dict(waits),
        "reasons_ms": round(reasons_s * 1000, 1),
    }


def _suggest() -> Callable[[Snapshot, SessionId], Any] | None:
    """Find what looks for changes that would let a session start, where it exists."""
    try:
        from sokovan.placement import suggest  # type: ignore[attr-defined,unused-ignore]
    except ImportError:
        return None
    found: Callable[[Snapshot, SessionId], Any] = suggest.suggestions
    return found
