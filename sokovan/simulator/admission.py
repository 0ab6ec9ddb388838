"""The invariants of who may be placed, and who is tried again after a failure.

Like those in `checks`, each returns what is violated, as sentences.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from sokovan.domain.reasons import EndReason
from sokovan.domain.sessions import Dependency, Kernel, SessionId, SessionWithKernels
from sokovan.domain.statuses import WAITING, SessionResult, SessionStatus
from sokovan.simulator.observe import Picture

Kin = Mapping[SessionId, Sequence[SessionWithKernels]]
"""The sessions that retry each one."""


def what_is_held_back_waits(picture: Picture) -> list[str]:
    """No session is placed while its user holds it back; who is to end may end all the same."""
    return [
        f"session {session.session_id}: it is {session.status} while it is held back"
        for session in picture.looked_at()
        if session.held and session.status in _AT_WORK
    ]


_AT_WORK = (
    frozenset(SessionStatus)
    - WAITING
    - {SessionStatus.TERMINATING, SessionStatus.TERMINATED, SessionStatus.CANCELLED}
)


def nothing_is_placed_before_its_time(picture: Picture) -> list[str]:
    """No line of history has a session placed before its begin time."""
    return [
        f"session {session.session_id}: it was placed {session.begin_at - line.at:.0f} s before"
        " its begin time"
        for session in picture.looked_at()
        if session.begin_at is not None
        for line in picture.history.get(session.session_id, ())
        if line.kernel_id is None
        and (line.from_status, line.to_status) == (SessionStatus.PENDING, SessionStatus.SCHEDULED)
        and line.at < session.begin_at
    ]


def nobody_is_where_it_may_not_go(picture: Picture) -> list[str]:
    """No session is on an agent that it is kept away from, however lately its user said so."""
    return [
        f"session {session.session_id}: it is {session.status} on {agent_id}, and may not be there"
        for session in picture.looked_at()
        if session.status in _AT_WORK
        for agent_id in session.agent_ids
        if agent_id in session.where.exclude
    ]


def dependencies_were_met(
    picture: Picture, asked: Mapping[SessionId, Sequence[Dependency]]
) -> list[str]:
    """Whoever is placed depends on nothing that is not over, and as it was to be.

    Args:
        picture: All sessions.
        asked: What each session was submitted to wait for. Of a session that was retried, its
            last retry counts.
    """
    found = []
    kin: Kin | None = None
    for session in picture.looked_at():
        if session.status not in _AT_WORK or not asked.get(session.session_id):
            continue
        kin = retries_in(picture) if kin is None else kin
        for dependency in asked[session.session_id]:
            other = last_of(picture.sessions[dependency.session_id], kin)
            if not other.status.is_final or not dependency.kind.is_met_by(other.result):
                found.append(
                    f"session {session.session_id}: it is {session.status}, {dependency.kind}"
                    f" {other.session_id}, which is {other.status} with {other.result}"
                )
    return found


def retries_in(picture: Picture) -> Kin:
    """Return the sessions that retry each one."""
    kin: dict[SessionId, list[SessionWithKernels]] = defaultdict(list)
    for session in picture.sessions.values():
        if session.retry_of is not None:
            kin[session.retry_of].append(session)
    return kin


def last_of(session: SessionWithKernels, kin: Kin) -> SessionWithKernels:
    """Return the session that stands for one: its last retry, or itself."""
    while session.session_id in kin:
        session = kin[session.session_id][-1]
    return session


def failures_are_retried(picture: Picture) -> list[str]:
    """What failed by exit code with retries left has one follower; nothing else has any.

    A follower asks for the same, and has one retry less.
    """
    concerned = [s for s in picture.looked_at() if s.status.is_final or s.retry_of]
    if not concerned:
        return []
    kin = retries_in(picture)
    found: list[str] = []
    for session_id in dict.fromkeys(s.retry_of or s.session_id for s in concerned):
        found += _faults_of_retries(picture, session_id, kin.get(session_id, ()))
    return found


def _faults_of_retries(
    picture: Picture, session_id: SessionId, followers: Sequence[SessionWithKernels]
) -> Iterator[str]:
    session = picture.sessions.get(session_id)
    if session is None:
        yield f"session {session_id}: is retried, but does not exist"
        return
    is_due = (
        session.retries > 0
        and session.reason == EndReason.KERNEL_FAILED
        and session.result is SessionResult.FAILURE
        and session.status.is_final
    )
    if len(followers) != is_due:
        yield (
            f"session {session_id}: it is {session.status} ({session.reason}) with"
            f" {session.retries} retries left, and is retried {len(followers)} times"
        )
    for follower in followers:
        if follower.retries != session.retries - 1:
            yield f"session {session_id}: its retry has {follower.retries} retries left"
        if _asked(follower) != _asked(session):
            yield f"session {session_id}: its retry {follower.session_id} asks for something else"


def _asked(session: SessionWithKernels) -> SessionWithKernels:
    """Return what a retry has in common with the session before it."""
    blank = SessionWithKernels(SessionId(""))
    return replace(
        blank,
        name=session.name,
        owner=session.owner,
        scaling_group=session.scaling_group,
        walltime_s=session.walltime_s,
        pending_timeout_s=session.pending_timeout_s,
        requeue=session.requeue,
        limits=session.limits,
        grace_s=session.grace_s,
        kernels=tuple(
            replace(_A_KERNEL, index=k.index, role=k.role, request=k.request)
            for k in session.kernels
        ),
    )


_A_KERNEL = Kernel()
OF_EACH_SESSION = (
    what_is_held_back_waits,
    nothing_is_placed_before_its_time,
    nobody_is_where_it_may_not_go,
)
"""They look at one session after the other, and at its history."""
