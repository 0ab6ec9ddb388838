"""Whatever happens to the tasks of an array: as many have a place as may, and no place is empty."""

from hypothesis import given
from hypothesis import strategies as st

from sokovan.domain.arrays import ArraySpec, Indexes
from sokovan.domain.cluster import AgentStatus
from sokovan.domain.statuses import SessionStatus
from sokovan.scheduler.messages import ReportState
from sokovan.scheduler.stages import CHECK_PRECONDITION, START_SESSIONS
from sokovan.simulator.checks import violations
from sokovan.simulator.observe import read_picture
from sokovan.simulator.survey import survey
from sokovan.store.refs import ArrayRef
from tests.build import A1, a_capacity, a_repository, a_spec, an_agent_hello, asked, at_once, placed
from tests.build import said as reported

S = SessionStatus
KINDS = ("run", "succeed", "fail", "lose", "cancel", "hold", "release")
steps = st.lists(
    st.tuples(
        st.sampled_from(KINDS), st.sampled_from(["one", "one", "one", "part", "all"])
    ).flatmap(lambda step: st.tuples(st.just(step), st.integers(0, 20), st.integers(0, 20))),
    max_size=15,
)


async def _run(repository, session_id):
    session = repository.live.sessions[session_id]
    if session.status is not S.PENDING or session.held or session.array_waits:
        return
    await placed(repository, session_id)
    await asked(repository, CHECK_PRECONDITION, session_id)
    await reported(repository, ReportState.PREPARED, session_id)
    await asked(repository, START_SESSIONS, session_id)
    await reported(repository, ReportState.RUNNING, session_id)


async def _do(repository, array_id, what, whom, first, last):
    tasks = sorted(repository.live.tasks_of(array_id), key=lambda task: task.array_index)
    if not tasks:
        return
    session = tasks[first % len(tasks)]
    if what in {"run", "succeed", "fail", "lose"}:
        if what == "run":
            await _run(repository, session.session_id)
        elif session.status is S.RUNNING and what == "lose":
            for status in (AgentStatus.LOST, AgentStatus.GONE):
                await repository.set_agent_status(A1, status)
            await repository.register_agent(an_agent_hello(A1, capacity=CAPACITY))
        elif session.status is S.RUNNING:
            code = int(what == "fail")
            await reported(repository, ReportState.ENDED, session.session_id, exit_code=code)
        return
    if whom == "one":
        if what == "cancel":
            await repository.request_termination([session.session_id], force=False, detail="")
        else:
            await repository.set_held(session.session_id, held=what == "hold")
        return
    part = Indexes((range(min(first, last), max(first, last) + 1),)) if whom == "part" else None
    if what == "cancel":
        await repository.end_tasks(ArrayRef(array_id, part), force=False, detail="")
    else:
        await repository.set_tasks_held(ArrayRef(array_id, part), held=what == "hold")


CAPACITY = a_capacity(cpu_milli=100_000)


@given(
    size=st.integers(1, 8),
    running_max=st.none() | st.integers(1, 4),
    held=st.booleans(),
    retries=st.integers(0, 1),
    steps=steps,
)
def test_no_more_tasks_have_a_place_than_may_and_no_place_stays_empty(
    size, running_max, held, retries, steps
):
    async def live():
        repository = a_repository()
        await repository.register_agent(an_agent_hello(A1, capacity=CAPACITY))
        template = a_spec(held=held, retries=retries, requeue=True)
        array = ArraySpec(template, Indexes((range(size),)), (), running_max)
        array_id, _ = await repository.submit_array(array)
        for (what, whom), first, last in steps:
            await _do(repository, array_id, what, whom, first, last)
            picture = await repository._database.read(read_picture)
            assert violations(picture) == []
            with_place = [s for s in repository.live.tasks_of(array_id) if s.has_array_place]
            assert len(with_place) <= (running_max or 0)
        assert (await repository._database.read(survey)).violations == ()

    at_once(live())
