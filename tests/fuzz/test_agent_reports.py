"""Whatever agents say, no invariant is violated, and every session ends once one behaves well."""

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from sokovan.domain.errors import AgentError
from sokovan.domain.reasons import EndReason
from sokovan.domain.resources import Capacity, Device, Request
from sokovan.domain.sessions import AgentId
from sokovan.scheduler.messages import AgentHello, KernelReport, ReportState
from sokovan.simulator.checks import violations
from sokovan.simulator.observe import read_picture
from sokovan.simulator.runtime import Script
from tests.build import A1, A2, GIB, a_capacity, a_spec
from tests.checked import CheckedRepository
from tests.fuzz.ground import ANN, House

LIAR = AgentId("liar")
TO_THE_END_S = 7200.0
"""Silence, grace and the longest phases, twice."""

NUMBERS = st.integers(-5, 5) | st.sampled_from([137, 256, -(2**31), 2**31, 2**53, 2**62])
TEXTS = st.text(max_size=20) | st.sampled_from(["\0", "x" * 100_000, "\u202e", "\ud7ff"])
AGENTS = st.sampled_from([A1, A2, LIAR])
REASONS = st.none() | st.sampled_from([r.value for r in EndReason]) | TEXTS


@dataclass(frozen=True)
class Said:
    """What an agent says; `which` chooses among the tokens there are."""

    agent_id: AgentId
    behind: int
    """By how much its incarnation is not the present one."""
    reports: tuple[tuple[int, dict[str, Any]], ...] = ()
    tokens: tuple[int, ...] = ()


REPORTS = st.tuples(
    st.integers(0, 9),
    st.fixed_dictionaries(
        {"state": st.sampled_from(ReportState)},
        optional={
            "exit_code": st.none() | NUMBERS,
            "reason": REASONS,
            "message": TEXTS,
            "failures": NUMBERS,
            "permanent": st.booleans(),
            "pids": st.lists(NUMBERS, max_size=3).map(tuple),
        },
    ),
)
SAID = st.builds(
    Said,
    AGENTS,
    st.sampled_from([0, 0, 0, -1, 1, 2**62]),
    st.lists(REPORTS, max_size=6).map(tuple),
    st.lists(st.integers(0, 9), max_size=4).map(tuple),
)
AMOUNTS = NUMBERS.map(abs)
CAPACITIES = st.sampled_from([a_capacity(), a_capacity(devices=0), Capacity()]) | st.builds(
    Capacity,
    AMOUNTS,
    AMOUNTS,
    st.lists(st.builds(Device, AMOUNTS, TEXTS, AMOUNTS, TEXTS), max_size=3).map(tuple),
)
HELLOS = st.builds(
    AgentHello,
    agent_id=AGENTS,
    name=TEXTS,
    capacity=CAPACITIES,
    architecture=TEXTS,
    version=TEXTS,
    boot_id=TEXTS,
    scaling_group=st.sampled_from(["default", "default", "nowhere", ""]),
    address=TEXTS,
)
SPECS = st.builds(
    a_spec,
    kernel_count=st.integers(1, 3),
    requeue=st.booleans(),
    retries=st.integers(0, 1),
    request=st.sampled_from([Request(1000, GIB), Request(500, GIB, 500), Request(0, 0, 0)]),
    allow_infeasible=st.just(True),
)
DEEDS = st.lists(
    SAID | SAID | HELLOS | SPECS | st.floats(0.0, 500.0) | st.integers(0, 9),
    min_size=1,
    max_size=25,
)


class Stage:
    """A house, and what it takes to do to it whatever Hypothesis thinks of."""

    def __init__(self) -> None:
        self.house = House(kind=CheckedRepository)
        self.repository = self.house.repository
        self._has: dict[AgentId, Capacity] = {}
        """An agent that shrinks below what is held on it breaks an invariant by itself."""

    def do(self, deed: object) -> None:
        events, house = self.house.events, self.house
        match deed:
            case Said():
                reports = [KernelReport(self._token(n), **facts) for n, facts in deed.reports]
                incarnation = self._incarnation(deed)
                house.run(events.reported(deed.agent_id, incarnation, reports))
                house.run(events.answered(deed.agent_id, reports))
                tokens = [self._token(n) for n in deed.tokens]
                with suppress(AgentError):  # nobody knows it: it is to say hello
                    house.run(events.heartbeat(deed.agent_id, incarnation, tokens))
            case AgentHello():
                has = self._has.setdefault(deed.agent_id, deed.capacity)
                house.run(events.connected(replace(deed, capacity=has)))
            case float():
                house.live(deed)
            case int():
                self._cancel(deed)
            case _:
                house.submit(deed, Script(20.0))
        self.check()

    def check(self) -> None:
        found = violations(self.house.database.write_now(read_picture))
        assert not found, found

    def _incarnation(self, deed: Said) -> int:
        agent = self.repository.live.agents.get(deed.agent_id)
        return (agent.incarnation if agent else 0) + deed.behind

    def _token(self, number: int) -> str:
        known = [
            hold.token
            for agent_id in self.repository.live.agents
            for hold in self.repository.live.holds_on(agent_id)
        ]
        return known[number] if number < len(known) else f"token-{number}"

    def _cancel(self, number: int) -> None:
        ids = sorted(self.repository.live.sessions)
        if number < len(ids):
            self.house.run(self.house.service.cancel(ids[number], caller=ANN))

    def live_until_all_have_ended(self) -> None:
        until = self.house.clock.now() + TO_THE_END_S
        while self.repository.live.sessions and self.house.clock.now() < until:
            self.house.live(30.0)


@settings(max_examples=settings().max_examples // 2)
@given(DEEDS)
def test_whatever_agents_say_every_session_ends_once_one_behaves_well(deeds):
    stage = Stage()
    with capture_logs() as logs:
        for deed in [a_spec(), AgentHello(LIAR, "liar", a_capacity()), 0.1, *deeds]:
            stage.do(deed)
        stage.house.add_agent(AgentId("good"))
        stage.live_until_all_have_ended()

    stage.check()
    assert not stage.repository.live.sessions
    assert not [line for line in logs if line["log_level"] == "error"]
    stage.house.close()
