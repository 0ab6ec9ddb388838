"""The invariants on a store of any size: in one read, part by part, in little memory."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from sqlalchemy import Row, Table, func, select

from sokovan.domain.cluster import ScalingGroup
from sokovan.domain.quantities import DEVICE_SHARES
from sokovan.domain.resources import over_held, used_by
from sokovan.domain.sessions import AgentId, Limit, SessionId, SessionWithKernels
from sokovan.scheduler.moves import HistoryLine
from sokovan.scheduler.stages import STAGES
from sokovan.simulator import admission, tries
from sokovan.simulator.array_checks import arrays_keep_their_limit
from sokovan.simulator.checks import OF_EACH_SESSION, OF_HOLDS, Check
from sokovan.simulator.observe import Picture
from sokovan.store.engine import Transaction
from sokovan.store.repairs import TASK_ENDS, miscounted, waits_in_vain
from sokovan.store.rows import agent_of, hold_of, kernel_of, line_of, session_of
from sokovan.store.tables import agents, arrays, history, holds, kernels, sessions, specs

T = TypeVar("T")

SESSIONS_AT_ONCE = 1000
MAKES_NO_SENSE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
)
"""What reading and judging rows raises that no version of Sokovan can have written."""
_ANY_NUMBER = 10**9


@dataclass(frozen=True, slots=True)
class Survey:
    """What a look at a whole store has found.

    Attributes:
        violations: What is wrong, one sentence each.
        counts: How many rows were looked at, by table.
        notes: What may be in order, and only its owner can know, one sentence each.
    """

    violations: tuple[str, ...]
    counts: Mapping[str, int]
    notes: tuple[str, ...] = ()


def survey(tx: Transaction) -> Survey:
    """Check everything that a store remembers.

    What only a policy forbids is not looked for, such as too many requeues: the settings may have
    been others when it happened.
    """
    found: list[str] = []
    placed: dict[SessionId, SessionWithKernels] = {}
    limited: dict[SessionId, SessionWithKernels] = {}
    kin: dict[SessionId, SessionWithKernels] = {}
    for picture in _parts(tx, found):
        found += _judged(picture, OF_EACH_SESSION + tries.CHECKS + admission.OF_EACH_SESSION)
        kin |= {i: s for i, s in picture.sessions.items() if s.retries or s.retry_of}
        limited |= {
            session_id: session
            for session_id, session in picture.sessions.items()
            if session.array_max is not None and not session.status.is_final
        }
        placed |= {
            session_id: session
            for session_id, session in picture.sessions.items()
            if any(kernel.token and not kernel.status.is_final for kernel in session.kernels)
        }
    whole = Picture(
        placed,
        {hold.token: hold for hold in _read(tx.execute(select(holds)), hold_of, found)},
        {
            AgentId(agent.agent_id): agent
            for agent in _read(tx.execute(select(agents)), agent_of, found)
        },
    )
    notes = _crowded(whole)
    whole = replace(whole, shrunk=tuple(notes))
    found += [sentence for check in OF_HOLDS for sentence in check(whole)]
    found += admission.failures_are_retried(Picture(kin, changed=tuple(kin)))
    found += arrays_keep_their_limit(Picture(limited, changed=tuple(limited)))
    found += _miscounted(tx)
    found += (
        f"session {session_id}: it waits for {dependency.session_id}, which is over as it was to be"
        for session_id, _, over in waits_in_vain(tx)
        for dependency in over
    )
    found += _strays(tx)
    return Survey(
        tuple(found),
        {
            table.name: tx.execute(select(func.count()).select_from(table)).scalar_one()
            for table in (sessions, kernels, holds, agents, history)
        },
        tuple(notes.values()),
    )


def _crowded(whole: Picture) -> dict[AgentId, str]:
    """Say on which agents more is held than they have, which may be in order.

    An agent that was started with less than before keeps what runs on it, and no store says what it
    had. No device was ever more than one, though.
    """
    notes: dict[AgentId, str] = {}
    for agent_id, agent in whole.agents.items():
        used = used_by(hold for hold in whole.holds.values() if hold.agent_id == agent_id)
        slot = over_held(agent.capacity, used)
        if slot is not None and max(used.shares.values(), default=0) <= DEVICE_SHARES:
            notes[agent_id] = (
                f"agent {agent_id}: more {slot} is held than it has; this is in order if it was"
                " started with less than it had, and lasts until what ran on it then has ended"
            )
    return notes


def _parts(tx: Transaction, found: list[str]) -> Iterator[Picture]:
    """Yield pictures of some sessions each, in the order of submission; add what is no session."""
    last = -1
    while True:
        rows = tx.execute(
            select(sessions)
            .where(sessions.c.number > last)
            .order_by(sessions.c.number)
            .limit(SESSIONS_AT_ONCE)
        ).all()
        if not rows:
            return
        last = rows[-1].number
        ids = [row.session_id for row in rows]
        own = _by_session(tx, kernels, ids, kernels.c.kernel_index)
        lines = _by_session(tx, history, ids, history.c.line)
        read: dict[SessionId, SessionWithKernels] = {}
        told: dict[SessionId, Sequence[HistoryLine]] = {}
        for row in rows:
            try:
                of_kernels = [kernel_of(kernel) for kernel in own.get(row.session_id, ())]
                session = session_of(row, of_kernels)
                told[session.session_id] = [line_of(r) for r in lines.get(row.session_id, ())]
                read[session.session_id] = session
            except MAKES_NO_SENSE as error:
                found.append(f"session {row.session_id}: cannot be read: {error!r}")
        policies = {session.scaling_group: _any_policy(session) for session in read.values()}
        yield Picture(read, history=told, groups=policies, changed=tuple(read))


def _by_session(
    tx: Transaction, table: Table, ids: Sequence[str], order: Any
) -> dict[str, list[Row[Any]]]:
    found: dict[str, list[Row[Any]]] = {}
    for row in tx.execute(select(table).where(table.c.session_id.in_(ids)).order_by(order)):
        found.setdefault(row.session_id, []).append(row)
    return found


def _any_policy(session: SessionWithKernels) -> ScalingGroup:
    limits = {stage.name: Limit(attempts_max=_ANY_NUMBER) for stage in STAGES}
    return ScalingGroup(session.scaling_group, limits=limits, requeues_max=_ANY_NUMBER)


def _judged(picture: Picture, checks: Sequence[Check]) -> list[str]:
    """Run checks that look at one session after the other; one must not hide the others."""
    try:
        return [sentence for check in checks for sentence in check(picture)]
    except MAKES_NO_SENSE as error:
        if len(picture.sessions) == 1:
            return [f"session {next(iter(picture.sessions))}: cannot be judged: {error!r}"]
        return [
            sentence
            for session_id, session in picture.sessions.items()
            for sentence in _judged(
                replace(picture, sessions={session_id: session}, changed=(session_id,)), checks
            )
        ]


def _read(rows: Any, value_of: Callable[[Row[Any]], T], found: list[str]) -> Iterator[T]:
    """Turn rows into values; say of those that are none what they are."""
    for row in rows:
        try:
            yield value_of(row)
        except MAKES_NO_SENSE as error:
            found.append(f"a row cannot be read: {error!r}: {tuple(row)}")


def _miscounted(tx: Transaction) -> Iterator[str]:
    """Yield the arrays that count other tasks as ended than have."""
    for row in tx.execute(miscounted()):
        for end in TASK_ENDS:
            said, true = getattr(row, end), getattr(row, f"true_{end}")
            if said != true:
                yield f"array {row.array_id}: it counts {said} {end}, and {true} have"
        if (row.ended_at is not None) != (row.succeeded + row.failed + row.cancelled == row.size):
            yield f"array {row.array_id}: it should have ended when all its tasks have"


def _strays(tx: Transaction) -> Iterator[str]:
    """Yield what belongs to a session that does not exist, and sessions without what was asked."""
    known = select(sessions.c.session_id), select(arrays.c.array_id)
    for table in (specs, kernels, holds, history):
        named = select(table.c.session_id).distinct()
        if table is holds:  # a leftover may be what came after the backup that was restored
            named = named.where(holds.c.leftover_since.is_(None))
        rows = tx.execute(named.except_(*known))
        yield from (
            f"session {row.session_id}: is in {table.name}, but does not exist" for row in rows
        )
    with_array = select(sessions.c.session_id).join(
        specs, specs.c.session_id == sessions.c.array_id
    )
    rows = tx.execute(select(sessions.c.session_id).except_(select(specs.c.session_id), with_array))
    yield from (f"session {row.session_id}: what was submitted is not there" for row in rows)
