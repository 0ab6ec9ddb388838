"""What every store must do: moves, reports, requests, agents, leases."""

import asyncio
from dataclasses import replace

import pytest

from sokovan.domain.cluster import AgentStatus, ScalingGroup
from sokovan.domain.errors import (
    AgentNotFoundError,
    IllegalStateError,
    InvalidRequestError,
    LeaseLostError,
)
from sokovan.domain.labels import LABELS_MAX
from sokovan.domain.reasons import Wait, WaitReason
from sokovan.domain.resources import Request
from sokovan.domain.sessions import AgentId, Attempts, KernelAssignment, Limit, SessionId
from sokovan.domain.statuses import KernelStatus, SessionResult, SessionStatus
from sokovan.placement.engine import place
from sokovan.scheduler import stages
from sokovan.scheduler.messages import KernelReport, ReportState
from sokovan.scheduler.moves import Applied, Outcome, Verdict
from sokovan.scheduler.ports import SessionQuerier
from sokovan.scheduler.results import SessionExecutionResult
from sokovan.scheduler.settle import settle
from sokovan.scheduler.stages import SCHEDULE_SESSIONS, START_SESSIONS, TERMINATE_SESSIONS, both
from sokovan.simulator.checks import violations
from sokovan.simulator.observe import read_picture
from sokovan.store.repository import SqlRepository
from tests.build import (
    A1,
    A2,
    GIB,
    NOW,
    a_capacity,
    a_move,
    a_session,
    a_spec,
    an_agent_hello,
    an_assignment,
    asked,
    brought_to,
    placed,
    said,
    submitted,
)

S, K = SessionStatus, KernelStatus


@pytest.fixture(autouse=True)
async def _agent(repository):
    await repository.register_agent(an_agent_hello(A1))


def now(repository, session_id):
    return repository.live.sessions[session_id]


async def report(repository, session_id, state, index=0, **facts):
    kernel = now(repository, session_id).kernels[index]
    agent = repository.live.agents[kernel.agent_id]
    return await repository.record_reports(
        agent.agent_id, agent.incarnation, [KernelReport(kernel.token, state, **facts)]
    )


def held_on(repository, agent_id):
    return sorted((h.session_id, h.is_leftover) for h in repository.live.holds_on(agent_id))


async def sent_back(repository, session_id, stage=stages.START_SESSIONS):
    session = now(repository, session_id)
    return await repository.apply([a_move(session, stage, both("PENDING"), Outcome.EXPIRED)])


# --- moves ----------------------------------------------------------------------------------------


async def test_a_move_applies_to_what_it_was_decided_on(repository):
    (session_id,) = await brought_to(repository, S.SCHEDULED)

    applied = await asked(repository, stages.CHECK_PRECONDITION, session_id)

    assert [verdict for _, verdict in applied.verdicts] == [Verdict.APPLIED]
    assert now(repository, session_id).status is S.PREPARING


async def test_a_move_decided_on_an_older_status_is_dropped(repository):
    (session_id,) = await brought_to(repository, S.SCHEDULED)
    stale = a_move(now(repository, session_id), stages.CHECK_PRECONDITION)
    await repository.apply([stale])

    applied = await repository.apply([stale])

    assert [verdict for _, verdict in applied.verdicts] == [Verdict.SUPERSEDED]
    assert applied.moved == ()


async def test_a_move_decided_on_the_same_status_at_another_time_is_dropped(repository):
    """The session was SCHEDULED, went back, and is SCHEDULED again: an old decision is void."""
    (session_id,) = await brought_to(repository, S.SCHEDULED)
    stale = a_move(now(repository, session_id), stages.CHECK_PRECONDITION)
    await sent_back(repository, session_id)
    await placed(repository, session_id)
    assert now(repository, session_id).status is S.SCHEDULED

    applied = await repository.apply([stale])

    assert [verdict for _, verdict in applied.verdicts] == [Verdict.SUPERSEDED]
    assert now(repository, session_id).status is S.SCHEDULED


async def test_a_move_of_a_session_that_does_not_exist_is_dropped(repository):
    ghost = a_session("ghost", S.SCHEDULED)

    applied = await repository.apply([a_move(ghost, stages.CHECK_PRECONDITION)])

    assert [verdict for _, verdict in applied.verdicts] == [Verdict.SUPERSEDED]


async def test_a_shadow_that_went_astray_is_put_right_by_the_move_it_caused(repository):
    (session_id,) = await brought_to(repository, S.SCHEDULED)
    true = now(repository, session_id)
    astray = replace(true, status=S.PENDING, status_seq=0)
    repository.live.put_sessions([astray])
    ghost = a_session("ghost")
    repository.live.put_sessions([ghost])

    await repository.apply(
        [a_move(session, stages.SCHEDULE_SESSIONS) for session in (astray, ghost)]
    )

    assert repository.live.sessions == {session_id: true}


async def test_status_assignment_token_hold_and_history_are_one_transaction(repository, store):
    (session_id,) = await submitted(repository, a_spec(request=Request(500, GIB, 500)))
    session = now(repository, session_id)
    assignment = (KernelAssignment(session.main.kernel_id, A1, ((1, 500),)),)

    await repository.apply([a_move(session, stages.SCHEDULE_SESSIONS, assignment=assignment)])

    kernel = now(repository, session_id).main
    (hold,) = repository.live.holds_on(A1)
    assert (kernel.agent_id, kernel.devices, kernel.status) == (A1, ((1, 500),), K.SCHEDULED)
    assert hold.token == kernel.token
    assert (hold.cpu_milli, hold.mem_bytes, hold.devices) == (500, GIB, ((1, 500),))
    lines = await store.history(session_id)
    assert [(line["kernel_id"], line["to_status"]) for line in lines[2:]] == [
        (None, "SCHEDULED"),
        (kernel.kernel_id, "SCHEDULED"),
    ]


async def test_every_attempt_has_a_token_of_its_own(repository):
    (session_id,) = await brought_to(repository, S.SCHEDULED)
    first = now(repository, session_id).main.token
    await sent_back(repository, session_id)
    await placed(repository, session_id)

    assert now(repository, session_id).main.token != first


async def test_attempts_and_notes_are_kept(repository):
    (session_id,) = await submitted(repository)
    attempts = Attempts(2, NOW, NOW + 4)
    failed = a_move(
        now(repository, session_id),
        stages.SCHEDULE_SESSIONS,
        outcome=Outcome.NEED_RETRY,
        attempts=attempts,
    )
    noted = a_move(
        now(repository, session_id), stages.SCHEDULE_SESSIONS, outcome=Outcome.SKIPPED, reason="X"
    )

    applied = await repository.apply([failed, noted])

    assert applied.moved == ()
    assert now(repository, session_id).attempts == {"schedule-sessions": attempts}
    assert now(repository, session_id).noted_reason == "X"


# --- holds ----------------------------------------------------------------------------------------


BIG = Request(cpu_milli=3000)


async def test_a_move_that_would_over_hold_an_agent_is_rejected_and_changes_nothing(
    repository, store
):
    one, other = await submitted(repository, a_spec(request=BIG), a_spec(request=BIG))

    applied = await placed(repository, one, other)

    assert [verdict for _, verdict in applied.verdicts] == [Verdict.APPLIED, Verdict.REJECTED]
    assert now(repository, other).status is S.PENDING
    assert len(await store.history(other)) == 2
    assert held_on(repository, A1) == [(one, False)]


async def test_all_kernels_of_a_session_get_their_holds_or_none(repository):
    await repository.register_agent(an_agent_hello(A2, capacity=a_capacity(cpu_milli=500)))
    (session_id,) = await submitted(repository, a_spec(kernel_count=2))

    applied = await placed(repository, session_id, on=(A1, A2))

    assert [verdict for _, verdict in applied.verdicts] == [Verdict.REJECTED]
    assert held_on(repository, A1) == held_on(repository, A2) == []


async def test_a_smaller_session_fits_behind_one_that_was_rejected(repository):
    ids = await submitted(
        repository, a_spec(request=BIG), a_spec(request=BIG), a_spec(request=Request(1000))
    )

    applied = await placed(repository, *ids)

    assert [verdict for _, verdict in applied.verdicts] == ["applied", "rejected", "applied"]


async def test_no_device_is_over_held(repository):
    ids = await submitted(repository, *[a_spec(request=Request(gpu_shares=600))] * 2)
    moves = [
        a_move(
            now(repository, session_id),
            stages.SCHEDULE_SESSIONS,
            assignment=(
                KernelAssignment(now(repository, session_id).main.kernel_id, A1, ((0, 600),)),
            ),
        )
        for session_id in ids
    ]

    applied = await repository.apply(moves)

    assert [verdict for _, verdict in applied.verdicts] == [Verdict.APPLIED, Verdict.REJECTED]


async def test_a_device_that_does_not_exist_is_refused(repository):
    (session_id,) = await submitted(repository)
    session = now(repository, session_id)
    assignment = (KernelAssignment(session.main.kernel_id, A1, ((9, 1),)),)

    applied = await repository.apply(
        [a_move(session, stages.SCHEDULE_SESSIONS, assignment=assignment)]
    )

    assert [verdict for _, verdict in applied.verdicts] == [Verdict.REJECTED]


async def test_an_agent_that_does_not_exist_has_no_room(repository):
    (session_id,) = await submitted(repository)

    applied = await placed(repository, session_id, on=["nowhere"])

    assert [verdict for _, verdict in applied.verdicts] == [Verdict.REJECTED]


@pytest.mark.parametrize("status", [AgentStatus.LOST, AgentStatus.GONE])
async def test_an_agent_that_is_not_alive_gets_no_new_kernels(repository, status):
    (session_id,) = await submitted(repository)
    await repository.set_agent_status(A1, status)

    applied = await placed(repository, session_id)

    assert [verdict for _, verdict in applied.verdicts] == [Verdict.REJECTED]


async def test_a_terminating_session_still_holds(repository):
    one, other = await submitted(repository, a_spec(request=BIG), a_spec(request=BIG))
    await placed(repository, one)
    await repository.request_termination([one], force=False, detail="")

    applied = await placed(repository, other)

    assert [verdict for _, verdict in applied.verdicts] == [Verdict.REJECTED]


async def test_a_leftover_still_holds(repository):
    one, other = await submitted(repository, a_spec(request=BIG), a_spec(request=BIG))
    await placed(repository, one)
    applied = await sent_back(repository, one)
    assert applied.left_over
    assert held_on(repository, A1) == [(one, True)]

    applied = await placed(repository, other)

    assert [verdict for _, verdict in applied.verdicts] == [Verdict.REJECTED]


async def test_a_leftover_is_released_when_its_agent_confirms_that_it_is_gone(repository):
    (session_id,) = await brought_to(repository, S.SCHEDULED)
    token = now(repository, session_id).main.token
    await sent_back(repository, session_id)

    for state, left in ((ReportState.RUNNING, 1), (ReportState.ENDED, 0), (ReportState.ENDED, 0)):
        applied = await repository.record_reports(A1, 1, [KernelReport(token, state, exit_code=0)])
        assert len(held_on(repository, A1)) == left
        assert applied.freed == (frozenset() if left or not applied.freed else {"default"})

    assert now(repository, session_id).status is S.PENDING


@pytest.mark.parametrize("status", [AgentStatus.LOST, AgentStatus.GONE])
async def test_an_agent_that_is_heard_of_before_it_is_written_lost_is_not_lost(
    repository, store, monkeypatch, status
):
    (session_id,) = await brought_to(repository, S.RUNNING)
    write = repository._write

    async def slowly(job):
        store.clock.advance(1)
        repository.heard_of(A1)
        return await write(job)

    monkeypatch.setattr(repository, "_write", slowly)
    applied = await repository.set_agent_status(A1, status)

    assert not applied.moved
    assert repository.live.agents[A1].status is AgentStatus.ALIVE
    assert now(repository, session_id).status is S.RUNNING


async def test_a_session_is_not_placed_again_while_its_old_kernels_may_run(repository):
    (session_id,) = await brought_to(repository, S.SCHEDULED)
    await sent_back(repository, session_id)
    assert repository.snapshot("default").waiting_for_old == {session_id}

    await repository.set_agent_status(A1, AgentStatus.LOST)
    assert repository.snapshot("default").waiting_for_old == {session_id}

    await repository.set_agent_status(A1, AgentStatus.GONE)
    assert repository.snapshot("default").waiting_for_old == frozenset()


async def test_a_tenth_and_two_tenths_exactly_fill_three_tenths(repository):
    await repository.register_agent(an_agent_hello(A2, capacity=a_capacity(cpu_milli=300)))
    ids = await submitted(
        repository, *[a_spec(request=Request(cpu_milli=amount)) for amount in (100, 200, 1)]
    )

    applied = await placed(repository, *ids, on=[A2])

    assert [verdict for _, verdict in applied.verdicts] == ["applied", "applied", "rejected"]


# --- reports --------------------------------------------------------------------------------------


async def test_reports_walk_a_session_to_its_end(repository, store):
    (session_id,) = await brought_to(repository, S.RUNNING)

    applied = await report(repository, session_id, ReportState.ENDED, exit_code=0)

    assert session_id not in repository.live.sessions
    assert held_on(repository, A1) == []
    assert applied.freed == {"default"}
    assert [(moved.from_status, moved.to_status) for moved in applied.moved] == [
        (S.RUNNING, S.TERMINATED)
    ]
    lines = await store.history(session_id)
    assert lines[-1]["reason"] == "kernels-ended"


async def test_reports_of_an_older_incarnation_are_ignored(repository):
    (session_id,) = await brought_to(repository, S.RUNNING)
    token = now(repository, session_id).main.token
    await repository.register_agent(an_agent_hello(A1))

    applied = await repository.record_reports(
        A1, 1, [KernelReport(token, ReportState.ENDED, exit_code=0)]
    )

    assert applied == Applied()
    assert now(repository, session_id).status is S.RUNNING


async def test_reports_of_an_unknown_agent_are_ignored(repository):
    (session_id,) = await brought_to(repository, S.RUNNING)
    token = now(repository, session_id).main.token

    applied = await repository.record_reports(
        AgentId("ghost"), 1, [KernelReport(token, ReportState.ENDED)]
    )

    assert applied == Applied()


async def test_reports_of_another_token_are_ignored(repository):
    await brought_to(repository, S.RUNNING)

    applied = await repository.record_reports(
        A1, 1, [KernelReport("ghost", ReportState.ENDED, exit_code=0)]
    )

    assert applied == Applied()


async def test_reports_of_kernels_on_another_agent_are_ignored(repository):
    await repository.register_agent(an_agent_hello(A2))
    (session_id,) = await brought_to(repository, S.RUNNING)
    token = now(repository, session_id).main.token

    applied = await repository.record_reports(
        A2, 1, [KernelReport(token, ReportState.ENDED, exit_code=0)]
    )

    assert applied == Applied()
    assert now(repository, session_id).status is S.RUNNING


async def test_repeated_and_reordered_reports_change_nothing(repository, store):
    (session_id,) = await brought_to(repository, S.CREATING, a_spec(kernel_count=2))
    token = now(repository, session_id).kernels[1].token
    once = [
        KernelReport(token, ReportState.PREPARED),
        KernelReport(token, ReportState.RUNNING),
        KernelReport(token, ReportState.ENDED, exit_code=0),
    ]
    await repository.record_reports(A1, 1, once)
    before, lines = now(repository, session_id), await store.history(session_id)

    for again in ([once[2], once[0], once[1]], [once[1]], list(reversed(once)), [once[2]] * 3):
        assert await repository.record_reports(A1, 1, again) == Applied()

    assert now(repository, session_id) == before
    assert await store.history(session_id) == lines


async def test_the_same_report_twice_in_one_message_is_one_report(repository):
    (session_id,) = await brought_to(repository, S.RUNNING)
    token = now(repository, session_id).main.token

    applied = await repository.record_reports(
        A1, 1, [KernelReport(token, ReportState.ENDED, exit_code=0)] * 2
    )

    assert [moved.to_status for moved in applied.moved] == [S.TERMINATED]
    assert held_on(repository, A1) == []


async def test_a_message_may_speak_of_many_sessions(repository):
    ids = await brought_to(repository, S.RUNNING, a_spec(), a_spec())
    reports = [
        KernelReport(now(repository, session_id).main.token, ReportState.ENDED, exit_code=code)
        for session_id, code in zip(ids, (0, 1), strict=True)
    ]

    applied = await repository.record_reports(A1, 1, reports)

    assert {moved.session_id for moved in applied.moved} == set(ids)


async def test_a_kernel_that_its_agent_never_heard_of_has_vanished(repository, store):
    (session_id,) = await brought_to(repository, S.RUNNING)

    await report(repository, session_id, ReportState.UNKNOWN)

    lines = await store.history(session_id)
    reasons = {line["reason"] for line in lines}
    assert {"STALE_KERNEL", "ABNORMAL_TERMINATION"} <= reasons
    assert held_on(repository, A1) == []


async def test_a_kernel_that_was_not_started_yet_cannot_be_stale(repository):
    (session_id,) = await brought_to(repository, S.PREPARED)

    assert await report(repository, session_id, ReportState.UNKNOWN) == Applied()


async def test_an_answer_that_a_leftover_is_unknown_releases_nothing(repository):
    """Only `gone` does: an agent remembers a stop for a token it does not know, and says so."""
    (session_id,) = await brought_to(repository, S.SCHEDULED)
    token = now(repository, session_id).main.token
    await sent_back(repository, session_id)

    await repository.record_reports(A1, 1, [KernelReport(token, ReportState.UNKNOWN)])

    assert held_on(repository, A1) == [(session_id, True)]


async def test_a_failed_pull_counts_an_attempt_and_says_why(repository, store):
    (session_id,) = await brought_to(repository, S.PREPARING)

    await report(
        repository, session_id, ReportState.PULL_FAILED, failures=1, message="no such image"
    )

    session = now(repository, session_id)
    assert session.status is S.PREPARING
    assert session.main.error == "no such image"
    assert session.attempts["check-precondition"].count == 1
    assert (await store.history(session_id))[-1]["reason"] == "pull-failed"


async def test_too_many_failed_starts_send_a_session_back(repository):
    (session_id,) = await brought_to(repository, S.CREATING)

    applied = await report(repository, session_id, ReportState.START_FAILED, failures=5)

    assert now(repository, session_id).status is S.PENDING
    assert applied.left_over


async def test_the_limits_of_the_group_hold_for_failed_starts(store):
    group = ScalingGroup("default", limits={"start-sessions": Limit(attempts_max=2)})
    repository = await store.opened(group)
    (session_id,) = await brought_to(repository, S.CREATING)

    await report(repository, session_id, ReportState.START_FAILED, failures=1)
    assert now(repository, session_id).status is S.CREATING
    await report(repository, session_id, ReportState.START_FAILED, failures=2)
    assert now(repository, session_id).status is S.PENDING


async def test_a_permanent_failure_ends_the_session_at_once_with_its_own_reason(repository, store):
    (session_id,) = await brought_to(repository, S.CREATING)

    await report(
        repository,
        session_id,
        ReportState.START_FAILED,
        failures=1,
        permanent=True,
        reason="COMMAND_NOT_FOUND",
        message="no-such-command",
    )

    assert session_id not in repository.live.sessions
    lines = await store.history(session_id)
    assert any(line["reason"] == "COMMAND_NOT_FOUND" for line in lines)
    assert not any(line["to_status"] == "RUNNING" for line in lines)


async def test_a_lost_exit_status_is_a_failure_never_a_success(repository, store):
    (session_id,) = await brought_to(repository, S.RUNNING)

    await report(repository, session_id, ReportState.ENDED, reason="EXIT_STATUS_LOST")

    lines = [line for line in await store.history(session_id) if line["kernel_id"] is None]
    assert [line["reason"] for line in lines[-2:]] == ["EXIT_STATUS_LOST", "kernels-ended"]


@pytest.mark.parametrize("requeue", [True, False])
async def test_a_kernel_stopped_by_an_agent_that_was_cut_off_leaves_nothing_behind(
    repository, requeue
):
    (session_id,) = await brought_to(repository, S.RUNNING, a_spec(requeue=requeue))

    await report(repository, session_id, ReportState.ENDED, reason="AGENT_LOST", exit_code=143)

    assert held_on(repository, A1) == []
    assert (session_id in repository.live.sessions) == requeue
    snapshot = repository.snapshot("default")
    assert list(snapshot.queue) == [session_id] * requeue
    assert snapshot.waiting_for_old == frozenset()


async def test_what_cannot_be_killed_is_reported_with_its_pids(repository):
    (session_id,) = await brought_to(repository, S.RUNNING)
    await repository.request_termination([session_id], force=False, detail="")

    await report(repository, session_id, ReportState.RUNNING, pids=(7, 9), message="stuck")

    assert now(repository, session_id).main.error == "cannot be killed: pids 7, 9: stuck"
    assert held_on(repository, A1) == [(session_id, False)]


async def test_the_end_of_a_fast_kernel_that_answers_the_start_shows_every_status(
    repository, store
):
    (session_id,) = await brought_to(repository, S.PREPARED)
    move = a_move(now(repository, session_id), stages.START_SESSIONS)

    await report(repository, session_id, ReportState.ENDED, exit_code=0)
    applied = await repository.apply([move])

    assert [verdict for _, verdict in applied.verdicts] == [Verdict.SUPERSEDED]
    lines = [line for line in await store.history(session_id) if line["kernel_id"] is None]
    assert [line["to_status"] for line in lines[-4:]] == [
        "CREATING",
        "RUNNING",
        "TERMINATING",
        "TERMINATED",
    ]


# --- requests to end ------------------------------------------------------------------------------


async def test_a_termination_wins_over_a_stage_result_that_comes_later(repository):
    (session_id,) = await brought_to(repository, S.SCHEDULED)
    move = a_move(now(repository, session_id), stages.CHECK_PRECONDITION)

    await repository.request_termination([session_id], force=False, detail="by ann")
    applied = await repository.apply([move])

    assert [verdict for _, verdict in applied.verdicts] == [Verdict.SUPERSEDED]
    assert now(repository, session_id).status is S.TERMINATING


async def test_a_termination_wins_over_a_stage_result_that_came_first(repository):
    (session_id,) = await brought_to(repository, S.SCHEDULED)

    await asked(repository, stages.CHECK_PRECONDITION, session_id)
    await repository.request_termination([session_id], force=False, detail="by ann")

    session = now(repository, session_id)
    assert (session.status, session.result, session.reason) == (
        S.TERMINATING,
        SessionResult.FAILURE,
        "USER_REQUESTED",
    )


async def test_a_waiting_session_is_cancelled_at_once(repository, store):
    (session_id,) = await submitted(repository)

    applied = await repository.request_termination([session_id], force=False, detail="by ann")

    assert [moved.to_status for moved in applied.moved] == [S.CANCELLED]
    assert (await store.history(session_id))[-1]["detail"] == "by ann"


async def test_a_session_that_has_ended_is_not_ended_again(repository, store):
    (session_id,) = await submitted(repository)
    await repository.request_termination([session_id], force=False, detail="")
    lines = await store.history(session_id)

    assert await repository.request_termination([session_id], force=True, detail="") == Applied()
    assert await store.history(session_id) == lines


async def test_sessions_that_do_not_exist_are_passed_over(repository):
    ghost = SessionId("ghost")

    assert await repository.request_termination([ghost], force=False, detail="") == Applied()


async def test_force_is_told_to_whoever_stops_kernels(repository):
    (session_id,) = await brought_to(repository, S.RUNNING, a_spec(grace_s=3.0))
    await repository.request_termination([session_id], force=False, detail="")
    (before,) = await repository.get_terminating_sessions_by_ids([session_id])

    applied = await repository.request_termination([session_id], force=True, detail="")
    (after,) = await repository.get_terminating_sessions_by_ids([session_id])

    assert (before.grace_s, before.force, after.force) == (3.0, False, True)
    assert [moved.to_status for moved in applied.moved] == [S.TERMINATING]


# --- what handlers ask ----------------------------------------------------------------------------


async def test_a_launcher_is_told_what_to_pull(repository):
    ids = await brought_to(repository, S.SCHEDULED, a_spec(kernel_count=2), a_spec())

    found = await repository.get_sessions_for_pull_by_ids([*reversed(ids), SessionId("ghost")])

    assert [session.session_id for session in found.sessions] == list(reversed(ids))
    assert [len(session.kernels) for session in found.sessions] == [1, 2]
    assert {kernel.agent_id for session in found.sessions for kernel in session.kernels} == {A1}


async def test_a_launcher_is_told_all_that_was_submitted(repository):
    spec = a_spec(
        command=("sh", "-c", "true"),
        env={"A": "b"},
        cwd="/tmp",
        umask=0o077,
        kernel_count=2,
        requeue=True,
    )
    (session_id,) = await brought_to(repository, S.PREPARED, spec)

    (found,) = (
        await repository.search_sessions_with_kernels_and_user(SessionQuerier([session_id]))
    ).sessions

    main, sub = found.kernels
    assert (found.session_id, found.owner) == (session_id, "ann")
    assert (main.command, main.env, main.cwd, main.umask) == (
        ("sh", "-c", "true"),
        {"A": "b"},
        "/tmp",
        0o077,
    )
    assert (main.role, sub.role, sub.index, sub.kernel_count) == ("main", "sub", 1, 2)
    assert (main.request, main.requeue, main.name) == (spec.request, True, "job")
    assert [k.token for k in found.kernels] == [
        k.token for k in now(repository, session_id).kernels
    ]


async def test_only_kernels_that_are_not_confirmed_gone_are_stopped(repository):
    (session_id,) = await brought_to(repository, S.RUNNING, a_spec(kernel_count=2))
    await report(repository, session_id, ReportState.ENDED, exit_code=0)

    (found,) = await repository.get_terminating_sessions_by_ids([session_id])

    assert [kernel.token for kernel in found.kernels] == [
        now(repository, session_id).kernels[1].token
    ]


async def test_only_sessions_that_terminate_are_stopped(repository):
    (session_id,) = await brought_to(repository, S.RUNNING)

    assert await repository.get_terminating_sessions_by_ids([session_id]) == []


async def deprioritizing(repository, **given):
    (session_id,) = await submitted(repository, a_spec(**given))
    session = now(repository, session_id)
    give_up = stages.SCHEDULE_SESSIONS.give_up
    await repository.apply([a_move(session, stages.SCHEDULE_SESSIONS, give_up, Outcome.GIVE_UP)])
    return session_id


async def test_a_priority_is_lowered_once_in_a_phase(repository):
    session_id = await deprioritizing(repository, priority=50)

    for _ in range(3):
        await repository.lower_session_priority([session_id], 10, 0)

    assert now(repository, session_id).priority == 40


async def test_a_priority_is_lowered_again_in_the_next_phase(repository):
    session_id = await deprioritizing(repository, priority=50)
    await repository.lower_session_priority([session_id], 10, 0)
    await asked(repository, stages.DEPRIORITIZE_SESSIONS, session_id)
    session = now(repository, session_id)
    give_up = stages.SCHEDULE_SESSIONS.give_up
    await repository.apply([a_move(session, stages.SCHEDULE_SESSIONS, give_up, Outcome.GIVE_UP)])

    await repository.lower_session_priority([session_id], 10, 0)

    assert now(repository, session_id).priority == 30


async def test_a_priority_is_not_lowered_below_the_least(repository):
    session_id = await deprioritizing(repository, priority=5)

    await repository.lower_session_priority([session_id], 10, 0)

    assert now(repository, session_id).priority == 0


async def test_only_sessions_still_deprioritizing_are_lowered(repository):
    (session_id,) = await submitted(repository, a_spec(priority=50))

    await repository.lower_session_priority([session_id, SessionId("ghost")], 10, 0)

    assert now(repository, session_id).priority == 50


async def timed_out(repository, session_id):
    found = await repository.get_pending_timeout_sessions_by_ids([session_id])
    return [(late.waited_s, late.timeout_s) for late in found]


async def test_a_session_waits_for_ever_by_default(repository, store):
    (session_id,) = await submitted(repository)
    store.clock.advance(1e9)

    assert await timed_out(repository, session_id) == []


async def test_a_pending_timeout_is_the_session_s_or_else_the_group_s(store):
    repository = await store.opened(ScalingGroup("default", pending_timeout_s=100.0))
    own, group = await submitted(repository, a_spec(pending_timeout_s=5.0), a_spec())

    store.clock.advance(5)
    assert await timed_out(repository, own) == [(5.0, 5.0)]
    assert await timed_out(repository, group) == []

    store.clock.advance(95)
    assert await timed_out(repository, group) == [(100.0, 100.0)]


async def test_a_pending_timeout_counts_from_the_begin_time(repository, store):
    (session_id,) = await submitted(repository, a_spec(pending_timeout_s=5.0, begin_at=NOW + 100))

    store.clock.advance(104)
    assert await timed_out(repository, session_id) == []
    store.clock.advance(1)
    assert await timed_out(repository, session_id) == [(5.0, 5.0)]


async def test_a_pending_timeout_counts_from_the_last_requeue(repository, store):
    (session_id,) = await brought_to(repository, S.SCHEDULED, a_spec(pending_timeout_s=5.0))
    store.clock.advance(100)
    await sent_back(repository, session_id)

    assert await timed_out(repository, session_id) == []


async def test_a_pending_timeout_goes_on_through_deprioritizing(repository, store):
    session_id = await deprioritizing(repository, pending_timeout_s=5.0)
    store.clock.advance(5)
    await asked(repository, stages.DEPRIORITIZE_SESSIONS, session_id)

    assert await timed_out(repository, session_id) == [(5.0, 5.0)]


async def test_scheduling_data_is_all_that_decides_a_pass(repository, store):
    await repository.register_agent(an_agent_hello(A2, scaling_group="other"))
    (held,) = await brought_to(repository, S.SCHEDULED)
    waiting, backing_off, _elsewhere = await submitted(
        repository, a_spec(), a_spec(), a_spec(scaling_group="other")
    )
    attempts = Attempts(1, NOW, NOW + 1)
    await repository.apply(
        [
            a_move(
                now(repository, backing_off),
                stages.SCHEDULE_SESSIONS,
                outcome=Outcome.NEED_RETRY,
                attempts=attempts,
            )
        ]
    )

    snapshot = (await repository.get_scheduling_data("default")).snapshot

    assert snapshot is not None
    assert [agent.agent_id for agent in snapshot.machines.agents] == [A1]
    assert [hold.session_id for hold in snapshot.machines.holds.values()] == [held]
    assert snapshot.machines.used()["cpu"] == 1000
    assert snapshot.queue.keys() == {waiting, backing_off}
    assert snapshot.queue.aside.keys() == {backing_off}
    assert snapshot.running[held].status is S.SCHEDULED
    assert snapshot.group.name == "default"
    assert snapshot.now == NOW
    store.clock.advance(1)
    assert place(repository.snapshot("default")).placed.keys() == {waiting, backing_off}
    assert await repository.get_scheduling_data("nowhere") is None


# --- what stages load -----------------------------------------------------------------------------


async def test_a_stage_loads_what_it_takes_and_what_it_awaits(repository):
    (awaited,) = await brought_to(repository, S.PREPARING)
    (taken,) = await brought_to(repository, S.SCHEDULED)

    load = repository.load_for_stage("default", stages.CHECK_PRECONDITION, 60.0)

    assert [session.session_id for session in load.taken] == [taken]
    assert [session.session_id for session in load.awaited] == [awaited]
    assert load.now == NOW


async def test_only_sessions_with_a_walltime_are_awaited_for_it(repository):
    limited, _unlimited = await brought_to(repository, S.RUNNING, a_spec(walltime_s=5.0), a_spec())

    load = repository.load_for_stage("default", stages.ENFORCE_WALLTIME, 60.0)

    assert [session.session_id for session in load.awaited] == [limited]


async def test_a_waiting_reason_is_kept_while_it_holds_and_forgotten_with_the_phase(
    repository, store
):
    (session_id,) = await submitted(repository)
    wait = Wait(WaitReason.TOO_LITTLE_CPU, {"n": 1})
    repository.note_waits({session_id: wait})
    store.clock.advance(30)
    repository.note_waits({session_id: Wait(WaitReason.TOO_LITTLE_CPU, {"n": 2})})
    noted = repository.live.waits[session_id]
    assert (noted.code, noted.since) == ("TOO_LITTLE_CPU", NOW)
    assert repository.live.facts[session_id].facts == {"n": 2}

    repository.note_waits({session_id: Wait(WaitReason.NO_AGENTS)})
    assert repository.live.waits[session_id].since == NOW + 30

    await repository.refresh()
    assert session_id in repository.live.waits
    await placed(repository, session_id)
    assert session_id not in repository.live.waits
    assert session_id not in repository.live.facts


# --- agents ---------------------------------------------------------------------------------------


async def test_every_registration_has_a_larger_incarnation(repository):
    agents = [await repository.register_agent(an_agent_hello(A1)) for _ in range(3)]

    assert [agent.incarnation for agent in agents] == [2, 3, 4]


async def test_an_agent_may_come_back_with_less(repository):
    (session_id,) = await brought_to(repository, S.RUNNING, a_spec(request=BIG))
    repository.checks_holds = False

    await repository.register_agent(an_agent_hello(A1, capacity=a_capacity(cpu_milli=1000)))

    assert repository.live.agents[A1].capacity.cpu_milli == 1000
    assert now(repository, session_id).status is S.RUNNING


async def test_a_lost_agent_loses_what_has_not_reached_creating(repository):
    early = [
        (await brought_to(repository, status, a_spec(request=Request(100))))[0]
        for status in (S.SCHEDULED, S.PREPARING, S.PREPARED)
    ]
    late = [
        (await brought_to(repository, status, a_spec(request=Request(100))))[0]
        for status in (S.CREATING, S.RUNNING)
    ]

    applied = await repository.set_agent_status(A1, AgentStatus.LOST)

    assert {now(repository, session_id).status for session_id in early} == {S.PENDING}
    assert [now(repository, session_id).status for session_id in late] == [S.CREATING, S.RUNNING]
    assert {moved.session_id for moved in applied.moved} == set(early)
    assert repository.live.agents[A1].lost_since == NOW


async def test_an_agent_that_returns_within_its_grace_keeps_its_kernels(repository):
    (session_id,) = await brought_to(repository, S.RUNNING)
    await repository.set_agent_status(A1, AgentStatus.LOST)

    applied = await repository.set_agent_status(A1, AgentStatus.ALIVE)

    assert applied == Applied()
    assert repository.live.agents[A1].lost_since is None
    assert now(repository, session_id).status is S.RUNNING


async def test_an_agent_that_registers_again_is_alive(repository):
    await repository.set_agent_status(A1, AgentStatus.LOST)

    agent = await repository.register_agent(an_agent_hello(A1))

    assert (agent.status, agent.lost_since) == (AgentStatus.ALIVE, None)


async def test_an_agent_that_is_given_up_loses_everything(repository, store):
    (ends,) = await brought_to(repository, S.RUNNING)
    (goes_back,) = await brought_to(repository, S.RUNNING, a_spec(requeue=True))
    await repository.set_agent_status(A1, AgentStatus.LOST)
    store.clock.advance(300)

    applied = await repository.set_agent_status(A1, AgentStatus.GONE)

    assert {moved.session_id: moved.to_status for moved in applied.moved} == {
        ends: S.TERMINATED,
        goes_back: S.PENDING,
    }
    assert applied.left_over
    assert held_on(repository, A1) == sorted([(ends, True), (goes_back, True)])
    assert repository.live.agents[A1].lost_since == NOW


async def test_a_session_that_was_placed_while_its_agent_fell_silent_goes_back(repository):
    (session_id,) = await brought_to(repository, S.PREPARED)

    await repository.set_agent_status(A1, AgentStatus.GONE)

    assert now(repository, session_id).status is S.PENDING


async def test_an_agent_that_returns_too_late_finds_leftovers_to_stop(repository):
    (session_id,) = await brought_to(repository, S.RUNNING)
    token = now(repository, session_id).main.token
    await repository.set_agent_status(A1, AgentStatus.GONE)

    agent = await repository.register_agent(an_agent_hello(A1))
    assert [hold.token for hold in repository.live.leftovers()] == [token]
    await repository.record_reports(
        A1, agent.incarnation, [KernelReport(token, ReportState.ENDED, exit_code=0)]
    )

    assert list(repository.live.leftovers()) == []


async def test_a_session_placed_elsewhere_does_not_care_for_where_it_was(repository):
    await repository.register_agent(an_agent_hello(A2))
    (session_id,) = await brought_to(repository, S.SCHEDULED)
    await sent_back(repository, session_id)
    await placed(repository, session_id, on=[A2])

    await repository.set_agent_status(A1, AgentStatus.LOST)
    await repository.set_agent_status(A1, AgentStatus.GONE)

    assert now(repository, session_id).status is S.SCHEDULED


async def test_a_drained_agent_gets_no_new_kernels_and_keeps_those_it_has(repository):
    ids = await brought_to(repository, S.RUNNING)
    waiting = await submitted(repository)

    applied = await repository.set_drained(A1, drained=True, reason="new disk")

    agent = repository.live.agents[A1]
    assert (agent.status, agent.drained_since, agent.drain_reason) == (
        AgentStatus.ALIVE,
        NOW,
        "new disk",
    )
    assert applied.freed == {"default"}
    assert [verdict for _, verdict in (await placed(repository, *waiting)).verdicts] == [
        Verdict.REJECTED
    ]
    assert now(repository, ids[0]).status is S.RUNNING
    await report(repository, ids[0], ReportState.ENDED, exit_code=0)
    assert held_on(repository, A1) == []


async def test_what_was_placed_before_an_agent_was_drained_still_starts(repository):
    (session_id,) = await brought_to(repository, S.SCHEDULED)
    await repository.set_drained(A1, drained=True)

    await asked(repository, stages.CHECK_PRECONDITION, session_id)
    await report(repository, session_id, ReportState.PREPARED)
    await asked(repository, START_SESSIONS, session_id)
    await report(repository, session_id, ReportState.RUNNING)

    assert now(repository, session_id).status is S.RUNNING


async def test_an_agent_that_is_undrained_is_room_again(repository):
    (session_id,) = await submitted(repository)
    await repository.set_drained(A1, drained=True, reason="new disk")

    applied = await repository.set_drained(A1, drained=False)

    assert applied.freed == {"default"}
    assert repository.live.agents[A1].drained_since is None
    assert repository.live.agents[A1].drain_reason == ""
    await placed(repository, session_id)
    assert now(repository, session_id).status is S.SCHEDULED


async def test_draining_again_changes_the_reason_and_not_the_time(repository, store):
    await repository.set_drained(A1, drained=True, reason="new disk")
    store.clock.advance(60)

    await repository.set_drained(A1, drained=True, reason="new mainboard")

    agent = repository.live.agents[A1]
    assert (agent.drained_since, agent.drain_reason) == (NOW, "new mainboard")


async def test_a_drained_agent_stays_so_whatever_restarts(repository, store):
    await repository.set_drained(A1, drained=True, reason="new disk")

    await repository.register_agent(an_agent_hello(A1))
    await repository.set_agent_status(A1, AgentStatus.LOST)
    await repository.set_agent_status(A1, AgentStatus.GONE)
    await repository.register_agent(an_agent_hello(A1))
    await repository.refresh()
    other = await store.opened("default", "other")
    await other.register_agent(an_agent_hello(A1))

    for seen in (repository, other):
        agent = seen.live.agents[A1]
        assert (agent.drained_since, agent.drain_reason) == (NOW, "new disk")
    (shown,) = other.snapshot("default").machines.agents
    assert not shown.takes_kernels


async def test_draining_does_not_forget_when_an_agent_was_heard_of(repository, store):
    store.clock.advance(30)
    repository.heard_of(A1)

    await repository.set_drained(A1, drained=True)

    assert repository.live.agents[A1].last_seen_at == NOW + 30


async def test_an_administrator_s_labels_win_over_an_agent_s_own_whatever_restarts(
    repository, store
):
    own = {"rack": "r1", "zone": "north", "disk": "ssd"}
    await repository.register_agent(an_agent_hello(A1, labels=own))

    applied = await repository.set_labels(A1, {"rack": "r2", "zone": None, "gone": None})

    assert applied.freed == {"default"}
    assert repository.live.agents[A1].labels == {"disk": "ssd", "rack": "r2"}
    await repository.set_drained(A1, drained=True)
    await repository.set_agent_status(A1, AgentStatus.LOST)
    await repository.register_agent(an_agent_hello(A1, labels={**own, "rack": "r3", "new": "1"}))
    await repository.refresh()
    other = await store.opened("default", "other")
    for seen in (repository, other):
        assert seen.live.agents[A1].labels == {"disk": "ssd", "new": "1", "rack": "r2"}


async def test_a_label_that_was_taken_away_can_be_given_again(repository):
    await repository.register_agent(an_agent_hello(A1, labels={"rack": "r1"}))
    await repository.set_labels(A1, {"rack": None})

    await repository.set_labels(A1, {"rack": "r1"})

    assert repository.live.agents[A1].labels == {"rack": "r1"}


async def test_an_agent_s_own_labels_are_those_of_its_last_hello(repository):
    await repository.register_agent(an_agent_hello(A1, labels={"rack": "r1", "zone": "north"}))

    await repository.register_agent(an_agent_hello(A1, labels={"rack": "r2"}))

    assert repository.live.agents[A1].labels == {"rack": "r2"}


async def test_an_agent_has_no_more_labels_than_can_be_shown(repository):
    await repository.set_labels(A1, {f"a{n}": "1" for n in range(LABELS_MAX)})

    with pytest.raises(InvalidRequestError, match="101 labels are more than the 100"):
        await repository.set_labels(A1, {"one": "more"})

    assert len(repository.live.agents[A1].labels) == LABELS_MAX
    await repository.set_labels(A1, {"a0": None, "one": "more"})
    assert len(repository.live.agents[A1].labels) == LABELS_MAX


async def test_labelling_does_not_forget_when_an_agent_was_heard_of(repository, store):
    store.clock.advance(30)
    repository.heard_of(A1)

    await repository.set_labels(A1, {"rack": "r1"})

    assert repository.live.agents[A1].last_seen_at == NOW + 30


async def test_an_agent_that_nobody_knows_is_neither_drained_nor_removed(repository):
    with pytest.raises(AgentNotFoundError):
        await repository.set_labels(A2, {"rack": "r1"})
    with pytest.raises(AgentNotFoundError):
        await repository.set_drained(A2, drained=True)
    with pytest.raises(AgentNotFoundError):
        await repository.remove_agent(A2, force=True)

    assert repository.live.agents.keys() == {A1}


async def test_an_agent_that_is_gone_can_be_removed(repository, store):
    await repository.set_agent_status(A1, AgentStatus.GONE)

    await repository.remove_agent(A1)

    assert repository.live.agents == {}
    assert repository.live.heard == set()
    assert repository.snapshot("default").machines.agents == []
    assert (await store.opened("default", "other")).live.agents == {}


@pytest.mark.parametrize(
    ("status", "advice"), [(AgentStatus.ALIVE, "drain it"), (AgentStatus.LOST, "grace")]
)
async def test_an_agent_that_may_come_back_is_not_removed(repository, status, advice):
    await repository.set_agent_status(A1, status)

    with pytest.raises(IllegalStateError, match=advice):
        await repository.remove_agent(A1, force=True)

    assert repository.live.agents[A1].status is status


async def test_an_agent_with_leftovers_is_removed_only_by_force(repository, store):
    (session_id,) = await brought_to(repository, S.RUNNING, a_spec(requeue=True))
    (ended,) = await brought_to(repository, S.RUNNING, a_spec())
    await repository.set_agent_status(A1, AgentStatus.LOST)
    await repository.set_agent_status(A1, AgentStatus.GONE)
    assert len(held_on(repository, A1)) == 2

    with pytest.raises(IllegalStateError, match=r"2 kernels may still run.*--force") as caught:
        await repository.remove_agent(A1)
    assert session_id in caught.value.message
    assert len(held_on(repository, A1)) == 2

    applied = await repository.remove_agent(A1, force=True)

    assert applied.freed == {"default"}
    assert applied.moved == ()
    assert held_on(repository, A1) == []
    assert list(repository.live.leftovers()) == []
    for one, status in ((session_id, S.PENDING), (ended, S.TERMINATED)):
        note = (await store.history(one))[-1]
        assert (note["from_status"], note["to_status"]) == (status, status)
        assert (note["reason"], note["detail"]) == (
            "agent-removed",
            "a1: what may be left there is given up",
        )
    assert await store.database.read(lambda tx: violations(read_picture(tx))) == []


async def test_an_agent_that_was_removed_and_comes_back_is_a_new_one(repository):
    await repository.set_drained(A1, drained=True)
    await repository.set_labels(A1, {"rack": "r1"})
    await repository.set_agent_status(A1, AgentStatus.GONE)
    await repository.remove_agent(A1)

    agent = await repository.register_agent(an_agent_hello(A1))

    assert (agent.incarnation, agent.is_drained, agent.labels) == (1, False, {})
    assert repository.live.agents == {A1: agent}


async def test_hearing_of_an_agent_costs_no_statement(repository, store):
    store.clock.advance(30)

    with store.counting() as statements:
        repository.heard_of(A1)
        repository.heard_of(AgentId("ghost"))

    assert len(statements) == 0
    assert repository.live.agents[A1].last_seen_at == NOW + 30


async def test_refreshing_does_not_forget_when_an_agent_was_heard_of(repository, store):
    store.clock.advance(30)
    repository.heard_of(A1)

    await repository.refresh()

    assert repository.live.agents[A1].last_seen_at == NOW + 30


# --- one writer -----------------------------------------------------------------------------------


async def test_whoever_takes_over_shuts_the_old_holder_out(repository, store):
    (session_id,) = await brought_to(repository, S.SCHEDULED)
    move = a_move(now(repository, session_id), stages.CHECK_PRECONDITION)
    second = await store.opened("default", "other")

    with pytest.raises(LeaseLostError, match="another manager drives the group"):
        await SqlRepository.apply(repository, [move])
    with pytest.raises(LeaseLostError):
        await SqlRepository.record_reports(repository, A1, 1, [])
    with pytest.raises(LeaseLostError):
        await SqlRepository.set_agent_status(repository, A1, AgentStatus.LOST)
    with pytest.raises(LeaseLostError):
        await SqlRepository.lower_session_priority(repository, [session_id], 10, 0)

    assert now(second, session_id).status is S.SCHEDULED
    assert [v for _, v in (await second.apply([move])).verdicts] == [Verdict.APPLIED]


# --- restarts -------------------------------------------------------------------------------------


async def test_a_restart_finds_everything_as_it_was(repository, store):
    await repository.register_agent(an_agent_hello(A2))
    (running,) = await brought_to(
        repository,
        S.RUNNING,
        a_spec(kernel_count=2, walltime_s=60.0, limits={"start-sessions": Limit(2, 3.0)}),
        on=(A1, A2),
    )
    (again,) = await brought_to(repository, S.PREPARED)
    await sent_back(repository, again)
    await submitted(repository, a_spec(begin_at=NOW + 5, held=True, requeue=True))
    before = dict(repository.live.sessions)

    second = await store.opened("default", "other")

    assert second.live.sessions == before
    assert held_on(second, A1) == held_on(repository, A1)
    assert held_on(second, A2) == held_on(repository, A2)
    assert set(second.live.leftovers()) == set(repository.live.leftovers())
    assert now(second, running).limits == {"start-sessions": Limit(2, 3.0)}
    assert now(second, again).avoid == (A1,)


async def test_no_agent_was_silent_while_nobody_listened(repository, store):
    await repository.set_agent_status(A1, AgentStatus.LOST)
    await repository.register_agent(an_agent_hello(A2))
    store.clock.advance(10_000)

    second = await store.opened("default", "other")
    for _ in range(2):
        assert second.live.agents[A2].last_seen_at == NOW + 10_000
        assert second.live.agents[A1].lost_since == NOW + 10_000
        await second.refresh()


async def test_the_round_robin_cursor_survives_a_restart(repository, store):
    await repository.register_agent(an_agent_hello(A2))
    await brought_to(repository, S.SCHEDULED, a_spec(kernel_count=2), on=(A1, A2))
    assert repository.groups["default"].last_agent_id == A2

    second = await store.opened("default", "other")

    assert second.groups["default"].last_agent_id == A2
    assert second.groups["other"].last_agent_id is None


async def test_a_group_that_was_taken_out_of_the_settings_is_driven_to_its_end(repository, store):
    (session_id,) = await brought_to(repository, S.RUNNING)

    second = await store.opened("other")
    token = now(second, session_id).main.token
    applied = await second.record_reports(
        A1, 1, [KernelReport(token, ReportState.ENDED, exit_code=0)]
    )

    assert [moved.to_status for moved in applied.moved] == [S.TERMINATED]


# --- cost -----------------------------------------------------------------------------------------


async def cost_of(store, repository, job):
    with store.counting() as statements:
        await job()
    return statements.texts


@pytest.mark.parametrize("what", ["place", "ask", "report", "end", "cancel", "go back", "lose"])
async def test_the_number_of_statements_does_not_grow_with_the_number_of_sessions(store, what):
    repository = await store.opened("default", kind=SqlRepository)
    costs = []
    for count in (1, 50):
        agent = AgentId(f"big{count}")
        capacity = a_capacity(cpu_milli=10**6, mem_bytes=10**15)
        await repository.register_agent(an_agent_hello(agent, capacity=capacity))
        start = {"place": S.PENDING, "ask": S.SCHEDULED, "report": S.CREATING}.get(what, S.RUNNING)
        specs = [a_spec()] * count
        if start is S.PENDING:
            ids = await submitted(repository, *specs)
        else:
            ids = await brought_to(repository, start, *specs, on=[agent])
        live = [now(repository, session_id) for session_id in ids]
        reports = [
            KernelReport(
                session.main.token,
                ReportState.RUNNING if what == "report" else ReportState.ENDED,
                exit_code=None if what == "report" else 0,
            )
            for session in live
        ]
        back = [
            a_move(session, stages.START_SESSIONS, both("PENDING"), Outcome.EXPIRED)
            for session in live
        ]
        jobs = {
            "place": lambda ids=ids, agent=agent: placed(repository, *ids, on=[agent]),
            "ask": lambda ids=ids: asked(repository, stages.CHECK_PRECONDITION, *ids),
            "report": lambda a=agent, r=reports: repository.record_reports(a, 1, r),
            "end": lambda a=agent, r=reports: repository.record_reports(a, 1, r),
            "cancel": lambda ids=ids: repository.request_termination(ids, force=False, detail=""),
            "go back": lambda back=back: repository.apply(back),
            "lose": lambda a=agent: repository.set_agent_status(a, AgentStatus.GONE),
        }
        costs.append(await cost_of(store, repository, jobs[what]))

    assert len(costs[0]) == len(costs[1]), f"{costs[0]} became {costs[1]}"
    assert len(costs[0]) < 15


async def test_a_stage_without_work_costs_no_statement(repository, store):
    await brought_to(repository, S.RUNNING)

    with store.counting() as statements:
        for stage in stages.STAGES:
            repository.load_for_stage("default", stage, 60.0)
        await repository.get_scheduling_data("default")
        await repository.get_pending_timeout_sessions_by_ids([])
        await repository.get_terminating_sessions_by_ids([])

    assert len(statements) == 0


async def test_more_sessions_than_a_statement_has_parameters_can_end_at_once(store, monkeypatch):
    monkeypatch.setattr("sokovan.store.engine.IDS_PER_STATEMENT_MAX", 3)
    repository = await store.opened("default")
    await repository.register_agent(an_agent_hello(A1, capacity=a_capacity(cpu_milli=10**6)))
    ids = await brought_to(repository, S.RUNNING, *[a_spec(request=Request(1))] * 8)
    reports = [
        KernelReport(now(repository, session_id).main.token, ReportState.ENDED, exit_code=0)
        for session_id in ids
    ]

    await repository.record_reports(A1, repository.live.agents[A1].incarnation, reports)

    assert repository.live.sessions == {}
    assert held_on(repository, A1) == []


# --- writing together -----------------------------------------------------------------------------


async def test_what_is_written_at_the_same_time_comes_out_as_if_one_after_the_other(repository):
    ids = await brought_to(repository, S.RUNNING, *[a_spec(request=Request(10))] * 20)

    await asyncio.gather(
        *(
            report(repository, session_id, ReportState.ENDED, exit_code=0)
            for session_id in ids[:10]
        ),
        *(repository.request_termination([i], force=False, detail="") for i in ids[5:15]),
        repository.refresh(),
        *(repository.set_held(i, held=True) for i in ids),
        repository.refresh(),
    )

    assert set(repository.live.sessions) == set(ids[10:])
    assert {now(repository, session_id).status for session_id in ids[10:15]} == {S.TERMINATING}


async def test_one_writer_s_error_undoes_only_its_own_part(repository):
    ghost = AgentId("ghost")

    results = await asyncio.gather(
        repository.submit([a_spec()]),
        repository.set_agent_status(ghost, AgentStatus.LOST),
        repository.submit([a_spec()]),
        return_exceptions=True,
    )

    assert [isinstance(result, Exception) for result in results] == [False, True, False]
    assert len(repository.live.sessions) == 2


async def test_a_waiting_session_can_be_held_back_and_released(repository):
    (session_id,) = await submitted(repository)

    await repository.set_held(session_id, held=True)
    assert now(repository, session_id).held
    applied = await repository.set_held(session_id, held=False)

    assert not now(repository, session_id).held
    assert applied.freed == {"default"}


async def test_only_a_pending_session_can_be_held_back(repository):
    (session_id,) = await brought_to(repository, S.SCHEDULED)

    assert await repository.set_held(session_id, held=True) is None
    assert await repository.set_held(SessionId("ghost"), held=True) is None


def test_assignments_name_every_kernel():
    session = a_session(kernels=3)

    assert [place.agent_id for place in an_assignment(session, A1, A2)] == [A1, A2, A1]


async def test_nothing_is_placed_on_an_agent_that_this_manager_has_not_heard_of(repository, store):
    again = await store.opened()

    def statuses():
        return [agent.status for agent in again.snapshot("default").machines.agents]

    assert statuses() == [AgentStatus.LOST]
    await again.register_agent(an_agent_hello(A1))
    assert statuses() == [AgentStatus.ALIVE]


async def test_an_agent_that_comes_to_another_group_brings_what_is_held_on_it(store):
    repository = await store.opened("default", "other")
    await repository.register_agent(an_agent_hello(A1))
    await brought_to(repository, S.RUNNING)
    again = await store.opened("default", "other")
    assert again.snapshot("other").machines.agents == []

    await again.register_agent(an_agent_hello(A1, scaling_group="other"))

    assert again.snapshot("other").machines.room().cpu.tolist() == [3000]
    assert again.snapshot("default").machines.agents == []


# --- which of those that wait a pass has news for -------------------------------------------------


def looked_at(repository) -> set:
    """The sessions that a scheduling stage is given now."""
    load = repository.load_for_stage("default", SCHEDULE_SESSIONS, 60.0)
    return {session.session_id for session in (*load.taken, *load.backing_off)}


async def test_a_pass_is_given_those_that_came_in_or_can_be_placed(repository, store):
    full = await submitted(repository, a_spec(request=Request(cpu_milli=4000)))
    await placed(repository, *full)
    waiting = await submitted(repository, a_spec(), a_spec())

    assert looked_at(repository) == set(waiting)
    store.clock.advance(1)
    assert looked_at(repository) == set()
    (late,) = await submitted(repository, a_spec())
    assert looked_at(repository) == {late}
    store.clock.advance(60)
    assert looked_at(repository) == {*waiting, late}

    await repository.request_termination(full, force=True, detail="")
    await said(repository, ReportState.ENDED, *full)
    assert looked_at(repository) == {*waiting, late}


async def test_a_session_that_waits_for_its_time_is_looked_at_when_it_comes(repository, store):
    (session_id,) = await submitted(repository, a_spec(begin_at=NOW + 10))
    assert looked_at(repository) == {session_id}
    store.clock.advance(1)
    assert looked_at(repository) == set()

    store.clock.advance(9)
    assert looked_at(repository) == {session_id}


async def test_a_session_held_while_a_pass_ran_is_not_placed(repository):
    (session_id,) = await submitted(repository)
    session = now(repository, session_id)
    move = a_move(
        session, SCHEDULE_SESSIONS, reason="scheduled", assignment=an_assignment(session, A1)
    )

    await repository.set_held(session_id, held=True)
    applied = await repository.apply([move])

    assert [verdict for _, verdict in applied.verdicts] == [Verdict.SUPERSEDED]
    assert now(repository, session_id).status is S.PENDING


async def test_a_phase_does_not_grow_older_while_no_manager_runs(repository, store):
    (session_id,) = await brought_to(repository, S.CREATING)
    store.clock.advance(3600)
    again = await store.opened()

    load = again.load_for_stage("default", START_SESSIONS, 60.0)

    assert [s.session_id for s in load.awaited] == [session_id]
    assert settle(START_SESSIONS, load, SessionExecutionResult()) == []
    store.clock.advance(601)
    load = again.load_for_stage("default", START_SESSIONS, 60.0)
    (move,) = settle(START_SESSIONS, load, SessionExecutionResult())
    assert move.outcome is Outcome.EXPIRED


async def test_an_agent_with_a_leftover_of_a_group_that_is_gone_can_be_lost(store):
    repository = await store.opened("default", "old")
    await repository.register_agent(an_agent_hello(A1))
    (session_id,) = await brought_to(repository, S.RUNNING, a_spec(scaling_group="old"))
    await repository.request_termination([session_id], force=False, detail="")
    store.clock.advance(1000)
    load = repository.load_for_stage("old", TERMINATE_SESSIONS, 60.0)
    await repository.apply(settle(TERMINATE_SESSIONS, load, SessionExecutionResult()))
    assert session_id not in repository.live.sessions
    again = await store.opened("default")

    await again.set_agent_status(A1, AgentStatus.LOST)

    assert again.live.agents[A1].status is AgentStatus.LOST
    assert len(list(again.live.leftovers())) == 1


async def test_the_clock_looks_at_those_that_may_not_wait_for_ever(store):
    limits = {SCHEDULE_SESSIONS.name: Limit(phase_s_max=5.0)}
    repository = await store.opened(ScalingGroup("default"), ScalingGroup("other", limits=limits))
    ids = await submitted(repository, a_spec(held=True), a_spec(held=True, limits=limits))
    elsewhere = await submitted(repository, a_spec(held=True, scaling_group="other"))
    load = repository.load_for_stage("other", SCHEDULE_SESSIONS, 60.0)
    assert (looked_at(repository), len(load.taken)) == (set(ids), 1)

    store.clock.advance(5)

    assert looked_at(repository) == {ids[1]}
    load = repository.load_for_stage("other", SCHEDULE_SESSIONS, 60.0)
    assert [session.session_id for session in load.taken] == elsewhere
