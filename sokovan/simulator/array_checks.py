"""The invariants of arrays: how many tasks have a place at once, and who waits for one.

Like those in `checks`, each returns what is violated, as sentences.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from sokovan.domain.sessions import SessionWithKernels
from sokovan.domain.statuses import SessionStatus
from sokovan.simulator.observe import Picture


def arrays_keep_their_limit(picture: Picture) -> list[str]:
    """Never do more tasks have a place than may, nor does one wait for a place that is free."""
    concerned = {s.array_id for s in picture.looked_at() if s.array_max is not None}
    if not concerned:
        return []
    live: dict[str, list[SessionWithKernels]] = defaultdict(list)
    for session in picture.live():
        if session.array_id is not None and session.array_id in concerned:
            live[session.array_id].append(session)
    return [
        sentence for array_id, tasks in live.items() for sentence in _faults_of(array_id, tasks)
    ]


def _faults_of(array_id: str, tasks: Sequence[SessionWithKernels]) -> Iterator[str]:
    most = tasks[0].array_max or 0
    with_place = [task for task in tasks if task.has_array_place]
    waiting = [task for task in tasks if task.array_waits and not task.held]
    if len(with_place) > most:
        yield f"array {array_id}: {len(with_place)} tasks have a place, and {most} may"
    if waiting and len(with_place) < most:
        yield (
            f"array {array_id}: task {waiting[0].array_index} waits for a place, and"
            f" {len(with_place)} of {most} are taken"
        )
    for task in tasks:
        if task.array_waits and task.status is not SessionStatus.PENDING:
            yield f"session {task.session_id}: it is {task.status} without a place in its array"
        if task.held and not task.array_waits:
            yield f"session {task.session_id}: it is held, and keeps its place in its array"


def tasks_are_told_apart(picture: Picture) -> list[str]:
    """No two tasks of an array have one index, unless one retries the other."""
    seen: dict[tuple[str, int | None], SessionWithKernels] = {}
    found = []
    concerned = {s.array_id for s in picture.looked_at() if s.array_id is not None}
    for session in sorted(picture.sessions.values(), key=lambda one: one.number):
        if session.array_id not in concerned or session.array_id is None:
            continue
        before = seen.get((session.array_id, session.array_index))
        if before is not None and session.retry_of != before.session_id:
            found.append(
                f"array {session.array_id}: two tasks have the index {session.array_index}"
            )
        seen[session.array_id, session.array_index] = session
    return found


OF_ARRAYS = (arrays_keep_their_limit, tasks_are_told_apart)
"""They take all tasks of the arrays of which one has changed."""
