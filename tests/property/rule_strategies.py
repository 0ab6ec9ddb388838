"""Sessions, loads and reports of every kind, for the rules."""

from hypothesis import strategies as st

from sokovan.domain.cluster import ScalingGroup
from sokovan.domain.sessions import Attempts, Limit, SessionId
from sokovan.domain.statuses import KernelStatus, SessionStatus
from sokovan.scheduler.results import SessionExecutionResult, SessionTransitionInfo
from sokovan.scheduler.settle import NotedWait, StageLoad
from sokovan.scheduler.stages import STAGES
from tests.build import NOW, a_kernel, a_session

REASONS = ("done", "agent-failed", "TOO_LITTLE_CPU", "NEVER_FITS")
NAMES = tuple(f"s{number}" for number in range(8))
STRANGERS = ("x1", "x2")

ages = st.one_of(st.sampled_from([0.0, 1.0, 59.0, 60.0, 600.0, 900.0]), st.floats(0, 1e7))
limits = st.builds(
    Limit,
    st.none() | st.integers(1, 6),
    st.none() | st.sampled_from([1.0, 60.0, 1000.0]),
)
stages = st.sampled_from(STAGES)


@st.composite
def sessions(draw, session_id, status, stage):
    """Draw a session in `status`, as far with `stage` as may be."""
    attempts = {}
    if draw(st.booleans()):
        age_s = draw(ages)
        attempts[stage.name] = Attempts(
            draw(st.integers(1, 2000)), NOW - age_s, NOW - age_s + draw(st.sampled_from([1, 60]))
        )
    return a_session(
        session_id,
        status,
        status_seq=draw(st.integers(0, 50)),
        status_since=NOW - draw(ages),
        attempts=attempts,
        limits={stage.name: draw(limits)} if draw(st.booleans()) else {},
        walltime_s=draw(st.none() | st.sampled_from([1.0, 600.0])),
        noted_reason=draw(st.none() | st.sampled_from(REASONS)),
    )


@st.composite
def cases(draw):
    """Draw a stage, its load, and any report at all, one of sessions that were not loaded too."""
    stage = draw(stages)
    taken, backing_off, awaited = [], [], []
    for name in draw(st.lists(st.sampled_from(NAMES), unique=True)):
        status = draw(st.sampled_from(sorted(stage.takes | stage.awaits)))
        session = draw(sessions(name, status, stage))
        if status in stage.takes:
            draw(st.sampled_from([taken, backing_off])).append(session)
        if status in stage.awaits:
            awaited.append(session)
    load = StageLoad(
        tuple(taken),
        tuple(backing_off),
        tuple(awaited),
        NOW,
        ScalingGroup(limits={stage.name: draw(limits)} if draw(st.booleans()) else {}),
        draw(st.dictionaries(st.sampled_from([*NAMES, *STRANGERS]), waits())),
    )
    return stage, load, draw(reports())


@st.composite
def waits(draw):
    """Draw a waiting reason, old or young."""
    return NotedWait(draw(st.sampled_from(REASONS)), NOW - draw(ages))


@st.composite
def reports(draw):
    """Draw a report that names anybody, anywhere, as often as it likes."""

    def infos():
        names = draw(st.lists(st.sampled_from([*NAMES, *STRANGERS]), max_size=6))
        return [
            SessionTransitionInfo(
                SessionId(name),
                SessionStatus.PENDING,
                draw(st.sampled_from(REASONS)),
                counted_every_s=draw(st.sampled_from([None, 60.0])),
            )
            for name in names
        ]

    return SessionExecutionResult(infos(), infos(), infos())


@st.composite
def kernel_tuples(draw):
    """Draw the kernels of one session in any statuses, ended in any way."""
    kernels = []
    for index in range(draw(st.integers(1, 4))):
        status = draw(st.sampled_from(KernelStatus))
        ended = status.is_final
        kernels.append(
            a_kernel(
                index,
                status,
                exit_code=draw(st.sampled_from([None, 0, 1, 143])) if ended else None,
                reason=draw(st.sampled_from([None, "STALE_KERNEL", "AGENT_LOST"]))
                if ended
                else None,
            )
        )
    return tuple(kernels)
