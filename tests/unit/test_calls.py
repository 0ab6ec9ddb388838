"""Asking agents: all of them at once, and an error names only the sessions concerned."""

import asyncio

import pytest

from sokovan.domain.errors import AgentError
from sokovan.domain.resources import Hold
from sokovan.domain.sessions import KernelId
from sokovan.domain.statuses import KernelStatus, SessionStatus
from sokovan.scheduler.calls import ask_agents, by_agent, keep, kept_answers, raise_for
from sokovan.scheduler.handlers.kernel.sweep_stale_kernels import (
    SweepStaleKernelsLifecycleHandler,
)
from sokovan.scheduler.launcher import AgentLauncher
from sokovan.scheduler.messages import (
    Answer,
    KernelReport,
    KernelToPrepare,
    KernelToStart,
    ReportState,
)
from sokovan.scheduler.ports import (
    SessionDataForPull,
    SessionDataForStart,
    TerminatingKernelData,
    TerminatingSessionData,
)
from sokovan.scheduler.results import NOTHING
from sokovan.scheduler.terminator import AgentTerminator
from tests.build import A1, A2, S1, S2, S3, FakeGateway, a_kernel, a_session

RUNNING = KernelReport("t1", ReportState.RUNNING)


class Answers:
    """Collects what agents answered."""

    def __init__(self):
        self.heard = {}

    async def __call__(self, agent_id, reports):
        self.heard[agent_id] = tuple(reports)


@pytest.fixture
def gateway():
    return FakeGateway()


@pytest.fixture
def answers():
    return Answers()


def to_start(session_id, *agents):
    return SessionDataForStart(
        session_id,
        tuple(
            KernelToStart(f"{session_id}{agent}", session_id, KernelId(f"{session_id}.0"), agent)
            for agent in agents
        ),
    )


def to_pull(session_id, *agents):
    return SessionDataForPull(
        session_id,
        tuple(
            KernelToPrepare(f"{session_id}{agent}", session_id, KernelId(f"{session_id}.0"), agent)
            for agent in agents
        ),
    )


def to_stop(session_id, *agents, **given):
    kernels = tuple(TerminatingKernelData(agent, f"{session_id}{agent}") for agent in agents)
    return TerminatingSessionData(session_id, kernels, **given)


async def test_each_agent_is_asked_once_for_all_its_kernels(gateway, answers):
    launcher = AgentLauncher(gateway, answers)

    await launcher.start_sessions_for_handler([to_start(S1, A1, A2), to_start(S2, A1)], {})

    assert gateway.asked == [("start", A1, ("s1a1", "s2a1")), ("start", A2, ("s1a2",))]


async def test_pulls_are_asked_for_in_the_same_way(gateway, answers):
    launcher = AgentLauncher(gateway, answers)

    await launcher.trigger_image_pulling([to_pull(S1, A1, A2), to_pull(S2, A1)], {})

    assert gateway.asked == [("prepare", A1, ("s1a1", "s2a1")), ("prepare", A2, ("s1a2",))]


async def test_all_agents_are_asked_before_the_first_has_answered(gateway, answers):
    both_asked = asyncio.Barrier(2)

    async def waits_for_the_other(tokens):
        await both_asked.wait()
        return ()

    gateway.answers = {("start", A1): waits_for_the_other, ("start", A2): waits_for_the_other}

    await AgentLauncher(gateway, answers).start_sessions_for_handler([to_start(S1, A1, A2)], {})

    assert answers.heard == {A1: (), A2: ()}


async def test_what_agents_answer_is_handed_on(gateway, answers):
    gateway.answers[("start", A1)] = [RUNNING]

    await AgentLauncher(gateway, answers).start_sessions_for_handler([to_start(S1, A1)], {})

    assert answers.heard == {A1: (RUNNING,)}


@pytest.mark.parametrize(("agents", "kept"), [((A1,), [RUNNING]), ((A1, A2), [])])
async def test_answers_are_kept_for_who_asks_unless_another_agent_may_be_slower(
    gateway, agents, kept
):
    by_itself = []

    async def answers(agent_id, reports):
        if not keep(Answer(agent_id, 1, reports)):
            by_itself.extend(reports)

    gateway.answers = {("start", agent): [RUNNING] for agent in agents}
    launcher = AgentLauncher(gateway, answers)
    found = []
    with kept_answers(found):
        await launcher.start_sessions_for_handler([to_start(S1, *agents)], {})

    assert [report for answer in found for report in answer.reports] == kept
    assert by_itself == ([] if kept else [RUNNING, RUNNING])
    assert not keep(Answer(A1, 1, [RUNNING])), "they are kept although nobody saves them"


async def test_an_error_names_the_sessions_on_the_agents_that_failed_and_no_others(
    gateway, answers
):
    gateway.answers[("start", A2)] = AgentError("no answer")
    launcher = AgentLauncher(gateway, answers)

    with pytest.raises(AgentError, match="agent a2: no answer") as caught:
        await launcher.start_sessions_for_handler(
            [to_start(S1, A1), to_start(S2, A1, A2, A2), to_start(S3, A2)], {}
        )

    assert caught.value.session_ids == (S2, S3)


async def test_agents_that_answer_are_heard_even_when_another_fails(gateway, answers):
    gateway.answers = {("prepare", A1): AgentError("no answer"), ("prepare", A2): [RUNNING]}

    with pytest.raises(AgentError):
        await AgentLauncher(gateway, answers).trigger_image_pulling([to_pull(S1, A1, A2)], {})

    assert answers.heard == {A2: (RUNNING,)}


async def test_nothing_to_ask_is_no_call(gateway, answers):
    await AgentLauncher(gateway, answers).start_sessions_for_handler([], {})

    assert gateway.asked == []


async def test_kernels_are_stopped_with_the_grace_of_their_session(answers):
    seen = {}

    class Gateway(FakeGateway):
        async def stop(self, agent_id, kernels):
            seen[agent_id] = [(k.token, k.grace_s, k.force) for k in kernels]
            return ()

    await AgentTerminator(Gateway(), answers).terminate_sessions_for_handler(
        [to_stop(S1, A1, grace_s=3.0), to_stop(S2, A1, A2, force=True)]
    )

    assert seen == {A1: [("s1a1", 3.0, False), ("s2a1", 10.0, True)], A2: [("s2a2", 10.0, True)]}


async def test_a_stop_that_fails_names_its_sessions(gateway, answers):
    gateway.answers[("stop", A2)] = AgentError("no answer")

    with pytest.raises(AgentError) as caught:
        await AgentTerminator(gateway, answers).terminate_sessions_for_handler(
            [to_stop(S1, A1), to_stop(S2, A2)]
        )

    assert caught.value.session_ids == (S2,)


async def test_leftovers_are_stopped_and_agents_that_do_not_answer_are_passed_over(
    gateway, answers
):
    gateway.answers = {
        ("stop", A1): AgentError("no answer"),
        ("stop", A2): [KernelReport("old2", ReportState.ENDED)],
    }
    leftovers = [Hold("old1", S1, "s1.0", A1), Hold("old2", S2, "s2.0", A2)]

    await AgentTerminator(gateway, answers).stop_leftovers(leftovers)

    assert gateway.asked == [("stop", A1, ("old1",)), ("stop", A2, ("old2",))]
    assert list(answers.heard) == [A2]


async def test_only_kernels_that_should_be_alive_are_asked_after(gateway, answers):
    kernels = [
        a_kernel(0, KernelStatus.RUNNING),
        a_kernel(1, KernelStatus.PREPARED),
        a_kernel(2, KernelStatus.TERMINATED),
        a_kernel(3, KernelStatus.TERMINATING, agent_id=A2),
        a_kernel(4, KernelStatus.PENDING),
    ]
    session = a_session(S1, SessionStatus.RUNNING, kernels=kernels)
    handler = SweepStaleKernelsLifecycleHandler(gateway, answers)

    report = await handler.execute("default", [session])

    assert report is NOTHING
    assert gateway.asked == [("states", A1, ("s1-token0",)), ("states", A2, ("s1-token3",))]


async def test_an_agent_that_does_not_say_how_kernels_are_changes_nothing(gateway, answers):
    gateway.answers[("states", A1)] = AgentError("no answer")
    handler = SweepStaleKernelsLifecycleHandler(gateway, answers)

    assert await handler.execute("default", [a_session(S1, SessionStatus.RUNNING)]) is NOTHING
    assert answers.heard == {}


async def test_errors_are_returned_by_agent(answers):
    async def call(agent_id, items):
        if agent_id == A1:
            raise AgentError("no answer")
        return ()

    errors = await ask_agents({A1: [1], A2: [2]}, call, answers)

    assert list(errors) == [A1]


def test_what_is_asked_is_grouped_by_agent_in_order():
    assert by_agent([(A2, 1), (A1, 2), (A2, 3)]) == {A2: [1, 3], A1: [2]}


def test_no_error_is_raised_when_there_was_none():
    raise_for({}, {})


def test_several_errors_are_one_that_names_every_session_once():
    errors = {A1: AgentError("one"), A2: AgentError("two")}

    with pytest.raises(AgentError, match="agent a1: one; agent a2: two") as caught:
        raise_for(errors, {A1: [S1, S2], A2: [S2, S3]})

    assert caught.value.session_ids == (S1, S2, S3)
