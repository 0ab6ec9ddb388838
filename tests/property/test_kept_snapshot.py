"""A snapshot that is kept up to date step by step gives the plans of one that is built anew.

It is what proves the shortcuts between passes: what was refused is looked at again exactly where
something has grown, what never fits is judged again when agents change, equal demands are one.
"""

from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from sokovan.domain.cluster import AgentStatus, Backfill
from sokovan.domain.reasons import WaitReason
from sokovan.domain.sessions import AgentId, Attempts, SessionId
from sokovan.domain.statuses import SessionStatus
from sokovan.placement.engine import place
from sokovan.placement.explain import explain
from sokovan.placement.snapshot import snapshot_of
from sokovan.scheduler.ports import SchedulingData
from sokovan.scheduler.stages import SCHEDULE_SESSIONS
from sokovan.store.grounds import Ground
from tests.property.reference import by_session, holds_of, room_for
from tests.property.strategies import (
    a_hold,
    a_session,
    agents,
    groups,
    labels,
    requests,
    sessions,
    statuses,
    walltimes,
)

PENDING = SessionStatus.PENDING


class KeptSnapshot(RuleBasedStateMachine):
    """A group whose life is followed by a `Ground`, and remembered in full beside it."""

    @initialize(group=groups(), data=st.data())
    def begin(self, group, data):
        self.group = group
        self.now = 10.0
        self.sessions = {}
        self.holds = {}
        self.agents = {}
        self.old = frozenset()
        self.tokens = 0
        self.reservations_may_have_moved = False
        self.ground = Ground(group, self.sessions)
        for agent_id in ("a0", "a1", "a2"):
            self.put_agent(data.draw(agents(agent_id, status=st.just(AgentStatus.ALIVE))))
        self.sessions_come_or_change(data, 6)

    # --- what follows and what remembers ----------------------------------------------------------

    def put_session(self, session):
        self.sessions[session.session_id] = session
        self.ground.put_session(session)

    def put_hold(self, hold):
        self.holds[hold.token] = hold
        self.ground.put_hold(hold)

    def drop_hold(self, hold):
        del self.holds[hold.token]
        self.ground.drop_hold(hold)

    def put_agent(self, agent):
        self.agents[agent.agent_id] = agent
        self.ground.put_agent(agent)

    def on(self, agent_id):
        return [hold for hold in self.holds.values() if hold.agent_id == agent_id]

    @property
    def kept(self):
        return self.ground.at(self.now, self.group, self.old)

    def plan_of_kept(self):
        """What the kept snapshot plans; a pass that is remembered was given what was known then."""
        kept = self.kept
        given, last = (kept.promises, kept.usual), kept.memory.get("pass")
        plan = place(kept)
        if kept.memory["pass"] is not last:
            self.given = given
        return plan

    @property
    def anew(self):
        def has_come(session):
            attempts = session.attempts.get(SCHEDULE_SESSIONS.name)
            return attempts is None or attempts.retry_at <= self.now

        every = self.sessions.values()
        return SchedulingData(
            group=self.group,
            agents=tuple(self.agents.values()),
            holds=tuple(self.holds.values()),
            pending=tuple(s for s in every if s.status is PENDING and has_come(s)),
            running=tuple(s for s in every if s.status is not PENDING),
            waiting_for_old=self.old,
            now=self.now,
        )

    # --- steps ------------------------------------------------------------------------------------

    @rule(data=st.data(), count=st.integers(1, 4))
    def sessions_come_or_change(self, data, count):
        for _ in range(count):
            number = data.draw(st.integers(0, 15))
            session_id = SessionId(f"s{number}")
            before = self.sessions.get(session_id)
            if before is None or before.status is PENDING:
                self.put_session(self.a_session(data, session_id, number))

    def a_session(self, data, session_id, number):
        session = data.draw(sessions(session_id, number=number))
        waiting = sorted(i for i, s in self.sessions.items() if s.status is PENDING)
        if waiting and data.draw(st.booleans()):
            like = self.sessions[data.draw(st.sampled_from(waiting))]
            requests_of = [kernel.request for kernel in like.kernels]
            kernels = a_session(session_id, *requests_of).kernels
            session = replace(session, kernels=kernels, where=like.where, avoid=like.avoid)
        backs_off = data.draw(st.sampled_from([None] * 9 + [3.0, 20.0]))
        if backs_off is not None:
            attempts = {SCHEDULE_SESSIONS.name: Attempts(1, self.now, self.now + backs_off)}
            session = replace(session, attempts=attempts)
        return session

    @rule(data=st.data())
    def a_session_leaves(self, data):
        waiting = sorted(i for i, s in self.sessions.items() if s.status is PENDING)
        if waiting:
            session = self.sessions.pop(data.draw(st.sampled_from(waiting)))
            self.ground.put_session(replace(session, status=SessionStatus.TERMINATED))

    @rule(data=st.data(), part=st.sampled_from(["all", "all", "some", "none"]))
    def a_plan_is_applied(self, data, part):
        """By the store, or only in part: agents and other moves may stand against it."""
        plan = self.plan_of_kept()
        known = self.anew
        new = by_session(holds_of(known, plan))
        for session_id in list(plan.placed):
            if part == "none" or (part == "some" and data.draw(st.booleans())):
                continue
            session = self.sessions[session_id]
            self.put_session(
                replace(session, status=SessionStatus.SCHEDULED, status_since=self.now)
            )
            for hold in new[session_id]:
                self.tokens += 1
                self.put_hold(replace(hold, token=f"n{self.tokens}"))
            self.group = replace(self.group, last_agent_id=plan.placed[session_id][-1].agent_id)

    @rule(data=st.data())
    def a_kernel_that_is_not_of_a_plan_holds_something(self, data):
        agent = data.draw(st.sampled_from(sorted(self.agents.values(), key=lambda a: a.agent_id)))
        request = data.draw(requests)
        devices = room_for(request, agent, self.on(agent.agent_id))
        if devices is not None:
            self.tokens += 1
            token = f"x{self.tokens}"
            self.put_hold(a_hold(agent.agent_id, request, devices, token=token, session_id="x"))

    @precondition(lambda self: self.holds)
    @rule(data=st.data())
    def a_hold_goes(self, data):
        hold = self.holds[data.draw(st.sampled_from(sorted(self.holds)))]
        self.drop_hold(hold)

    @precondition(lambda self: self.holds)
    @rule(data=st.data())
    def a_session_goes_back_and_leaves_its_kernels(self, data):
        session_id = self.holds[data.draw(st.sampled_from(sorted(self.holds)))].session_id
        for hold in [one for one in self.holds.values() if one.session_id == session_id]:
            self.put_hold(replace(hold, leftover_since=self.now))
        session = self.sessions.get(session_id)
        if session is not None and session.status is not PENDING:
            self.old |= {session_id}
            self.put_session(replace(session, status=PENDING, avoid=(AgentId("a1"),)))
        self.reservations_may_have_moved = True

    @rule()
    def old_kernels_are_given_up(self):
        self.old = frozenset()

    @rule(data=st.data())
    def a_running_session_changes(self, data):
        running = sorted(i for i, s in self.sessions.items() if s.status is not PENDING)
        if running:
            session = self.sessions[data.draw(st.sampled_from(running))]
            status = data.draw(st.sampled_from([SessionStatus.RUNNING, SessionStatus.TERMINATING]))
            started_at = data.draw(st.sampled_from([None, self.now]))
            self.put_session(
                replace(
                    session,
                    status=status,
                    status_since=self.now,
                    started_at=started_at,
                    walltime_s=data.draw(walltimes),
                )
            )
            self.reservations_may_have_moved = True

    @rule(data=st.data(), change=st.sampled_from(["status", "drain", "labels", "reason", "name"]))
    def an_agent_changes(self, data, change):
        agent_id = data.draw(st.sampled_from(sorted(self.agents)))
        agent = self.agents[agent_id]
        if change == "status":
            agent = replace(agent, status=data.draw(statuses))
        elif change == "drain":
            agent = replace(agent, drained_since=data.draw(st.sampled_from([None, 1.0])))
        elif change == "labels":
            agent = replace(agent, labels=data.draw(labels))
        elif change == "reason":
            agent = replace(agent, drain_reason=data.draw(st.sampled_from(["", "new disk"])))
        else:
            agent = replace(agent, name=data.draw(st.sampled_from(["A0", "A1", "other"])))
        self.put_agent(replace(agent, last_seen_at=self.now))

    @rule(data=st.data())
    def an_agent_joins_or_comes_back_with_other_hardware(self, data):
        agent_id = data.draw(st.sampled_from(["a0", "a1", "a2", "a3", "a05"]))
        self.put_agent(data.draw(agents(agent_id)))
        self.reservations_may_have_moved = True

    @rule(data=st.data())
    def the_capacity_of_an_agent_changes(self, data):
        agent = self.agents[data.draw(st.sampled_from(sorted(self.agents)))]
        other = data.draw(agents(agent.agent_id)).capacity
        capacity = replace(agent.capacity, cpu_milli=other.cpu_milli, mem_bytes=other.mem_bytes)
        self.put_agent(replace(agent, capacity=capacity))

    @precondition(lambda self: len(self.agents) > 1)
    @rule(data=st.data())
    def an_agent_is_removed(self, data):
        agent_id = data.draw(st.sampled_from(sorted(self.agents)))
        for hold in self.on(agent_id):
            self.drop_hold(hold)
        del self.agents[agent_id]
        self.ground.forget_agent(agent_id)

    @rule(group=groups())
    def the_policy_changes(self, group):
        self.group = replace(group, last_agent_id=self.group.last_agent_id)

    @rule(seconds=st.sampled_from([0.5, 3.0, 10.0, 40.0]))
    def time_passes(self, seconds):
        self.now += seconds
        self.reservations_may_have_moved = True

    # --- what must hold ---------------------------------------------------------------------------

    @invariant()
    def both_give_the_same_plan(self):
        kept, anew = self.kept, snapshot_of(self.anew)
        if self.reservations_may_have_moved and self.group.backfill not in {
            Backfill.NONE,
            Backfill.STRICT,
        }:
            kept.memory.clear()  # as the store does in every full cycle
        self.reservations_may_have_moved = False

        plan = self.plan_of_kept()
        anew.promises, anew.usual = self.given  # of the value, not of the shortcuts
        expected = place(anew)

        assert list(plan.placed.items()) == list(expected.placed.items())
        assert plan.never_fits == expected.never_fits
        waits = dict(plan.waits)
        backing_off = {i for i in waits if i not in anew.queue}
        assert {i: wait for i, wait in waits.items() if i in anew.queue} == dict(expected.waits)
        for session_id in backing_off:
            assert waits[session_id].code in {
                WaitReason.WAITING_FOR_RETRY,
                WaitReason.HELD,
                WaitReason.BEGIN_TIME_NOT_REACHED,
                WaitReason.WAITING_FOR_DEPENDENCY,
                WaitReason.ARRAY_LIMIT,
                WaitReason.WAITING_FOR_OLD_KERNELS,
            }
        assert kept.machines.used() == anew.machines.used()
        assert kept.machines.totals() == anew.machines.totals()
        for session_id in sorted(anew.queue)[:1]:
            assert explain(kept, session_id) == explain(anew, session_id)


TestKeptSnapshot = KeptSnapshot.TestCase
TestKeptSnapshot.settings = settings(stateful_step_count=25)
