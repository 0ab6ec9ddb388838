"""What holds of the rules whatever happens: for any report, and for any course of events."""

import random
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from sokovan.clock import ManualClock
from sokovan.domain.cluster import AgentStatus, ScalingGroup
from sokovan.domain.reasons import EndReason
from sokovan.domain.resources import Request
from sokovan.domain.sessions import AgentId, Dependency, DependencyKind
from sokovan.domain.statuses import FINAL, KernelStatus, SessionResult, SessionStatus
from sokovan.scheduler import stages
from sokovan.scheduler.messages import KernelReport, ReportState
from sokovan.scheduler.moves import Outcome
from sokovan.scheduler.promote import end_of, next_promotion
from sokovan.scheduler.results import SessionExecutionResult, each
from sokovan.scheduler.settle import phase_of, settle
from tests.build import (
    NOW,
    a_capacity,
    a_repository,
    a_session,
    a_spec,
    an_agent_hello,
    an_assignment,
    at_once,
)
from tests.checked import CheckedRepository
from tests.property.rule_strategies import cases, kernel_tuples

S = SessionStatus

# --- settle ---------------------------------------------------------------------------------------


def loaded(load):
    return {s.session_id: s for s in (*load.taken, *load.backing_off, *load.awaited)}


@given(cases())
def test_settle_judges_only_what_was_loaded_and_each_at_most_once(case):
    stage, load, report = case

    moved = [move.session_id for move in settle(stage, load, report)]

    assert len(moved) == len(set(moved))
    assert set(moved) <= loaded(load).keys()


@given(cases())
def test_every_move_is_decided_on_the_session_as_it_was_loaded(case):
    stage, load, report = case

    for move in settle(stage, load, report):
        session = loaded(load)[move.session_id]
        assert (move.from_status, move.status_seq) == (session.status, session.status_seq)
        assert move.stage == stage.name


@given(cases())
def test_every_move_leads_where_the_row_of_its_stage_says(case):
    stage, load, report = case
    legal = {
        Outcome.SUCCESS: {stage.success},
        Outcome.EXPIRED: {stage.expired},
        Outcome.GIVE_UP: {stage.give_up},
        Outcome.NEED_RETRY: {None},
        Outcome.SKIPPED: {None},
    }

    for move in settle(stage, load, report):
        assert move.to in legal[move.outcome]


@given(cases())
def test_nobody_is_dropped(case):
    """Whoever succeeds moves; whoever fails is charged or was charged just now; the old expire."""
    stage, load, report = case
    moves = {move.session_id: move for move in settle(stage, load, report)}
    succeeded = {info.session_id for info in report.successes if stage.success}
    failed = {info.session_id: info for info in report.failures}

    for session_id, session in loaded(load).items():
        phase = phase_of(stage, session, load.group, load.now)
        limit_s = phase.limit.phase_s_max
        if session_id in succeeded:
            assert moves[session_id].outcome is Outcome.SUCCESS
        elif stage.expired and limit_s and phase.age_s >= limit_s:
            assert moves[session_id].outcome in {Outcome.EXPIRED, Outcome.GIVE_UP}
        elif session_id in failed and failed[session_id].counted_every_s is None:
            assert moves[session_id].outcome is not Outcome.SKIPPED
        elif session_id not in failed:
            assert session_id not in moves or moves[session_id].outcome is Outcome.SKIPPED


@given(cases())
def test_a_failed_attempt_is_always_one_more_and_its_pause_at_most_a_minute(case):
    stage, load, report = case

    for move in settle(stage, load, report):
        if move.outcome is Outcome.NEED_RETRY:
            before = loaded(load)[move.session_id].attempts.get(stage.name)
            assert move.attempts.count == (before.count if before else 0) + 1
            assert 0 <= move.attempts.retry_at - load.now <= 60
        else:
            assert move.attempts is None


# --- promote --------------------------------------------------------------------------------------


@given(kernel_tuples(), st.sampled_from(S))
def test_a_promotion_takes_only_what_its_row_says(kernels, status):
    session = a_session(status=status, kernels=kernels)

    due = next_promotion(session)

    assert due is None or (status in due.takes and due in stages.PROMOTIONS)


@given(kernel_tuples())
def test_a_session_succeeds_only_when_its_main_kernel_did_and_none_has_failed(kernels):
    end = end_of(kernels)
    final = [kernel for kernel in kernels if kernel.status.is_final]
    main_ended = kernels[0].status.is_final
    all_well = all(kernel.exit_code == 0 for kernel in final)

    assert (end is not None) == (main_ended or not all_well)
    assert (end is not None and end.result is SessionResult.SUCCESS) == (main_ended and all_well)


# --- whole lives ----------------------------------------------------------------------------------

AGENTS = [AgentId(f"a{number}") for number in range(3)]
LIVE_STAGES = [stage for stage in stages.STAGES if stage is not stages.SWEEP_STALE_KERNELS]
TERMINATING = stages.both("TERMINATING")
LIVE_SESSIONS_MAX = 6
NEXT_REPORT = {
    S.PREPARING: ReportState.PREPARED,
    S.CREATING: ReportState.RUNNING,
    S.RUNNING: ReportState.ENDED,
    S.TERMINATING: ReportState.ENDED,
}
some = st.integers(0, 2**16).map(random.Random)


class Lives(RuleBasedStateMachine):
    """Anything that stages, agents and users may do, in any order, over a real repository.

    `CheckedRepository` fails on whatever breaks an invariant: see `tests/checked.py`.
    """

    def __init__(self):
        super().__init__()
        self.clock = ManualClock(NOW)
        groups = (ScalingGroup("default", requeues_max=2), ScalingGroup("other"))
        self.repository = a_repository(*groups, clock=self.clock, kind=CheckedRepository)
        self.old_reports: list[tuple[AgentId, int, KernelReport]] = []
        self.old_moves = []

    def teardown(self):
        self.repository._database.close()

    @property
    def live(self):
        return self.repository.live

    def pick(self, rng, statuses=None):
        found = sorted(
            s.session_id
            for s in self.live.sessions.values()
            if not statuses or s.status in statuses
        )
        return self.live.sessions[rng.choice(found)] if found else None

    @initialize()
    def start(self):
        for agent_id in AGENTS[:2]:
            self.connect(agent_id)
        at_once(self.repository.submit([a_spec(kernel_count=2), a_spec(requeue=True, retries=1)]))

    def is_alive(self, agent_id):
        agent = self.live.agents.get(agent_id)
        return agent is not None and agent.status is AgentStatus.ALIVE

    def connect(self, agent_id):
        hello = an_agent_hello(agent_id, capacity=a_capacity(cpu_milli=2500, devices=1))
        at_once(self.repository.register_agent(hello))

    # --- users ---

    @precondition(lambda self: len(self.live.sessions) < LIVE_SESSIONS_MAX)
    @rule(
        kernel_count=st.integers(1, 3),
        requeue=st.booleans(),
        retries=st.integers(0, 1),
        cpu_milli=st.sampled_from([0, 500, 1000, 2500]),
        kind=st.sampled_from(DependencyKind),
        rng=some,
        depends=st.booleans(),
    )
    def submit(self, kernel_count, requeue, retries, cpu_milli, kind, rng, depends):
        other = self.pick(rng) if depends else None
        spec = a_spec(
            kernel_count=kernel_count,
            requeue=requeue,
            retries=retries,
            request=Request(cpu_milli),
            depends_on=(Dependency(other.session_id, kind),) if other else (),
            walltime_s=30.0 if rng.random() < 0.3 else None,
        )
        at_once(self.repository.submit([spec]))

    @rule(rng=some, force=st.booleans(), status=st.sampled_from(sorted(set(S) - FINAL)))
    def cancel(self, rng, force, status):
        if session := self.pick(rng, {status}):
            at_once(
                self.repository.request_termination([session.session_id], force=force, detail="")
            )

    @rule(rng=some, held=st.booleans())
    def hold(self, rng, held):
        if session := self.pick(rng):
            at_once(self.repository.set_held(session.session_id, held=held))

    # --- the ordinary course of things ---

    @rule(rng=some, steps=st.integers(1, 8))
    def go_on(self, rng, steps):
        """Bring some sessions a step further, as stages and agents do when nothing goes wrong."""
        for _ in range(steps):
            session = self.pick(rng)
            if session is None:
                return
            if session.status in NEXT_REPORT:
                self.agents_report(session, rng)
            elif session.status is S.PENDING:
                self.place(rng)
            else:
                (stage,) = (x for x in LIVE_STAGES if session.status in x.takes)
                load = self.repository.load_for_stage("default", stage, 60.0)
                self.apply(settle(stage, load, SessionExecutionResult(each(load.taken, "done"))))

    def agents_report(self, session, rng):
        for kernel in rng.sample(session.kernels, len(session.kernels)):
            if kernel.token is not None:
                code = rng.choice([0, 0, 1]) if session.status is S.RUNNING else None
                said = KernelReport(kernel.token, NEXT_REPORT[session.status], exit_code=code)
                self.tell(kernel.agent_id, said)
            if rng.random() < 0.3:
                return

    def tell(self, agent_id, *reports):
        incarnation = self.live.agents[agent_id].incarnation
        self.old_reports += [(agent_id, incarnation, said) for said in reports]
        self.old_reports = self.old_reports[-20:]
        at_once(self.repository.record_reports(agent_id, incarnation, reports))

    # --- stages ---

    @rule(rng=some)
    def place(self, rng):
        alive = [a for a in AGENTS if self.is_alive(a)]
        agents = alive if alive and rng.random() < 0.9 else AGENTS
        load = self.repository.load_for_stage("default", stages.SCHEDULE_SESSIONS, 60.0)
        successes = [
            info._replace(assignment=an_assignment(session, *rng.choices(agents, k=3)))
            for session, info in zip(load.taken, each(load.taken, "scheduled"), strict=True)
            if not session.unmet and rng.random() < 0.8
        ]
        self.apply(settle(stages.SCHEDULE_SESSIONS, load, SessionExecutionResult(successes)))

    @rule(stage=st.sampled_from(LIVE_STAGES), rng=some)
    def run_stage(self, stage, rng):
        load = self.repository.load_for_stage("default", stage, 60.0)
        report = SessionExecutionResult()
        if stage is stages.DEPRIORITIZE_SESSIONS:
            ids = [session.session_id for session in load.taken]
            at_once(self.repository.lower_session_priority(ids, 10, 0))
        for session in load.taken:
            kind = rng.choice([report.successes, report.failures, report.skipped, []])
            if stage is not stages.SCHEDULE_SESSIONS or kind is not report.successes:
                kind += each([session], rng.choice(["done", "agent-failed"]))
        self.apply(settle(stage, load, report))

    @rule(rng=some)
    def apply_an_old_decision(self, rng):
        if self.old_moves:
            at_once(self.repository.apply([rng.choice(self.old_moves)]))

    @rule(rng=some, late=st.booleans())
    def decide_and_be_too_late(self, rng, late):
        """A move is decided, the session is cancelled, the move comes too late."""
        if session := self.pick(rng, {S.SCHEDULED, S.PREPARED}):
            load = self.repository.load_for_stage("default", stages.CHECK_PRECONDITION, 60.0)
            report = SessionExecutionResult(each([session], "done"))
            moves = settle(stages.CHECK_PRECONDITION, load, report)
            if late:
                at_once(
                    self.repository.request_termination(
                        [session.session_id], force=False, detail=""
                    )
                )
            self.apply(moves)

    def apply(self, moves):
        self.old_moves = [*self.old_moves, *moves][-20:]
        at_once(self.repository.apply(moves))

    @rule(seconds=st.sampled_from([1, 10, 60, 700, 1000]))
    def wait(self, seconds):
        self.clock.advance(seconds)

    # --- agents ---

    @rule(
        rng=some,
        state=st.sampled_from(ReportState),
        exit_code=st.sampled_from([None, 0, 1]),
        failures=st.integers(1, 6),
        permanent=st.booleans(),
    )
    def report(self, rng, state, exit_code, failures, permanent):
        holds = sorted(
            (h for a in AGENTS for h in self.live.holds_on(a)), key=lambda hold: hold.token
        )
        if not holds:
            return
        hold = rng.choice(holds)
        failed = state in (ReportState.PULL_FAILED, ReportState.START_FAILED)
        said = KernelReport(
            hold.token,
            state,
            exit_code=exit_code if state is ReportState.ENDED else None,
            failures=failures if failed else 0,
            permanent=permanent and failed,
            reason=EndReason.COMMAND_NOT_FOUND if permanent and failed else None,
        )
        self.tell(AgentId(hold.agent_id), said)

    @rule(rng=some)
    def repeat_reports(self, rng):
        told = rng.sample(self.old_reports, min(3, len(self.old_reports)))
        for agent_id, incarnation, said in told:
            at_once(self.repository.record_reports(agent_id, incarnation, [said, said]))

    @rule(agent_id=st.sampled_from(AGENTS))
    def reconnect(self, agent_id):
        self.connect(agent_id)

    @rule(agent_id=st.sampled_from(AGENTS), for_long=st.booleans(), returns=st.booleans())
    def fall_silent(self, agent_id, for_long, returns):
        if agent_id in self.live.agents:
            statuses = [AgentStatus.LOST, *[AgentStatus.GONE] * for_long]
            for status in [*statuses, *[AgentStatus.ALIVE] * returns]:
                at_once(self.repository.set_agent_status(agent_id, status))

    @rule()
    def refresh(self):
        at_once(self.repository.refresh())

    @rule(rng=some)
    def all_goes_well(self, rng):
        for agent_id in AGENTS:
            if not self.is_alive(agent_id):
                self.connect(agent_id)
        self.clock.advance(60)
        self.go_on(rng, 10)

    # --- what always holds, beyond what the repository checks by itself ---

    @invariant()
    def no_promotion_is_left_undone(self):
        for session in self.live.sessions.values():
            assert next_promotion(session) is None, session

    @invariant()
    def what_waits_has_nothing_on_any_agent(self):
        for session in self.live.sessions.values():
            if session.status in {S.PENDING, S.DEPRIORITIZING}:
                assert session.agent_ids == ()
                assert all(kernel.token is None for kernel in session.kernels)
                assert session.result is SessionResult.UNDEFINED
                assert session.reason is None
            elif session.status is not S.TERMINATING:
                assert all(kernel.agent_id for kernel in session.kernels)

    @invariant()
    def what_terminates_has_a_reason_and_a_result(self):
        for session in self.live.sessions.values():
            ending = session.status is S.TERMINATING
            assert (session.reason is not None) == ending
            assert (session.result is not SessionResult.UNDEFINED) == ending

    @invariant()
    def nobody_waits_for_what_has_ended(self):
        for session in self.live.sessions.values():
            if session.status is S.PENDING:
                for dependency in session.unmet:
                    assert dependency.session_id in self.live.sessions

    @invariant()
    def kernels_are_no_further_than_their_session_allows(self):
        for session in self.live.sessions.values():
            if session.status is S.RUNNING:
                behind = {k.status for k in session.kernels} - {
                    KernelStatus.RUNNING,
                    KernelStatus.TERMINATED,
                }
                assert not behind
            assert session.status not in FINAL

    @invariant()
    def requeues_are_limited(self):
        for session in self.live.sessions.values():
            assert session.requeues <= 2


TestLives = Lives.TestCase
TestLives.settings = settings(stateful_step_count=30)


@given(st.integers(0, 10_000))
@settings(max_examples=5)
def test_the_same_seed_gives_the_same_history(seed):
    """Nothing in the store depends on anything but its inputs: a simulated run can be replayed."""

    def run():
        rng = random.Random(seed)
        machine = Lives()
        machine.start()
        for _ in range(15):
            machine.submit(rng.randint(1, 3), True, 0, 500, DependencyKind.AFTER_ANY, rng, True)
            machine.place(rng)
            machine.run_stage(rng.choice(LIVE_STAGES), rng)
            machine.go_on(rng, 3)
        found = dict(machine.live.sessions)
        machine.teardown()
        return found

    assert run() == run()


def test_a_session_value_is_never_changed_in_place():
    session = a_session(kernels=2)

    assert replace(session) == session
    assert replace(session) is not session
