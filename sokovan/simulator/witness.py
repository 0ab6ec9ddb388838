"""The invariants that need a witness: what was accepted, cancelled, run, and is remembered.

Like those in `checks`, each returns what is violated, as sentences.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from sokovan.domain.cluster import Agent, AgentStatus, ScalingGroup
from sokovan.domain.reasons import EndReason, WaitReason
from sokovan.domain.resources import Hold
from sokovan.domain.sessions import AgentId, KernelId, SessionId, SessionWithKernels
from sokovan.domain.statuses import SessionResult, SessionStatus
from sokovan.scheduler.messages import AgentHello, KernelReport
from sokovan.scheduler.ports import AgentEventSink
from sokovan.scheduler.settle import NotedWait
from sokovan.simulator.checks import ENDS
from sokovan.simulator.observe import Picture
from sokovan.simulator.runtime import Script
from sokovan.store.live import Live

Run = tuple[AgentId, str, KernelId]
"""What runs on a machine: whose, by which token, which kernel."""


def every_accepted_session_is_there(picture: Picture, accepted: Collection[SessionId]) -> list[str]:
    """Each accepted session is there; nothing else is, except what retries one of them."""
    found = [
        f"session {i} was accepted and is not there" for i in accepted if i not in picture.sessions
    ]
    known = set(accepted)
    return found + [
        f"session {session.session_id} was never submitted"
        for session in picture.sessions.values()
        if session.session_id not in known and session.retry_of not in picture.sessions
    ]


def cancels_hold(picture: Picture, cancelled: Collection[SessionId]) -> list[str]:
    """A session whose cancel was acknowledged is ending or over, from then on."""
    return [
        f"session {session_id} was cancelled and is {picture.sessions[session_id].status}"
        for session_id in cancelled
        if picture.sessions[session_id].status not in ENDS
    ]


def tokens_run_once(starts: Mapping[str, int]) -> list[str]:
    """No token was started more than once, as counted where it was started."""
    return [f"token {token} was started {n} times" for token, n in starts.items() if n > 1]


def what_runs_is_held(picture: Picture, running: Iterable[Run]) -> list[str]:
    """Whatever runs on an agent has its hold there, be it as a leftover."""
    found = []
    for agent_id, token, kernel_id in running:
        hold = picture.holds.get(token)
        session_id = kernel_id.rpartition(".")[0]
        if hold is None:
            found.append(
                f"session {session_id}: token {token} runs on {agent_id} and holds nothing"
            )
        elif hold.agent_id != agent_id:
            found.append(
                f"session {session_id}: token {token} runs on {agent_id}, not where it holds"
            )
    return found


def kernels_run_once(running: Iterable[Run], given_up: Collection[str]) -> list[str]:
    """No kernel runs twice at a time, unless the agent of the older token was given up."""
    by_kernel: dict[KernelId, list[str]] = defaultdict(list)
    for _, token, kernel_id in running:
        if token not in given_up:
            by_kernel[kernel_id].append(token)
    return [
        f"session {kernel_id.rpartition('.')[0]}: kernel {kernel_id} runs as {' and '.join(tokens)}"
        for kernel_id, tokens in by_kernel.items()
        if len(tokens) > 1
    ]


def what_is_creating_was_ordered(picture: Picture, ordered: Collection[str]) -> list[str]:
    """Nobody waits for the start of a kernel that was never ordered, by its token."""
    return [
        f"session {session.session_id}: kernel {kernel.index} is {kernel.status}, but its agent was"
        f" never asked to start {kernel.token}"
        for session in picture.looked_at()
        if session.status is SessionStatus.CREATING
        for kernel in session.kernels
        if not kernel.status.is_final and kernel.token not in ordered
    ]


def the_shadow_is_true(
    picture: Picture, live: Live, only: Collection[SessionId] | None = None
) -> list[str]:
    """What the manager remembers of what is alive is what the store remembers.

    Args:
        picture: What the store remembers.
        live: What the manager does.
        only: Look at these sessions, instead of at everything.
    """
    looked_at = picture.sessions.keys() | live.sessions.keys() if only is None else only
    found = []
    for i in looked_at:
        stored = picture.sessions.get(i)
        alive = None if stored is None or stored.status.is_final else stored
        if alive != live.sessions.get(i):
            found.append(f"session {i} is remembered as {live.sessions.get(i)}, but is {alive}")
    if only is not None:
        return found
    indexed = {
        session.session_id: session.status
        for group in {session.scaling_group for session in live.sessions.values()}
        for status in SessionStatus
        for session in live.in_statuses(group, [status])
        if session.status is status
    }
    if indexed.keys() != live.sessions.keys():
        found.append("what is alive is not what is found by status")
    held = {h.token: h for a in {*picture.agents, *live.agents} for h in live.holds_on(a)}
    found += [
        f"hold {token} is remembered as {held.get(token)}, but is {picture.holds.get(token)}"
        for token in held.keys() | picture.holds.keys()
        if held.get(token) != picture.holds.get(token)
    ]
    left = {hold.token for hold in live.leftovers()}
    if left != {token for token, hold in picture.holds.items() if hold.is_leftover}:
        found.append("the leftovers remembered are not those there are")
    found += [
        f"agent {a} is remembered as {live.agents.get(a)}, but is {picture.agents.get(a)}"
        for a in picture.agents.keys() | live.agents.keys()
        if _as_known(picture.agents.get(a)) != _as_known(live.agents.get(a))
    ]
    return sorted(found)


def results_are_true(
    picture: Picture, script_of: Callable[[SessionWithKernels, int], Script]
) -> list[str]:
    """Whatever a session ended for is what its kernels were to do; our own stops never count."""
    found = []
    for session in picture.sessions.values():
        if not session.status.is_final:
            continue
        codes = [(k.exit_code, script_of(session, k.index).exit_code) for k in session.kernels]
        failed = any(code == own and own != 0 for code, own in codes)
        succeeded = session.result is SessionResult.SUCCESS
        if session.reason == EndReason.KERNEL_FAILED and not failed:
            found.append(f"session {session.session_id} failed, but no kernel did: {codes}")
        if session.reason == EndReason.SELF_TERMINATED and codes[0] != (0, 0):
            found.append(f"session {session.session_id} ended by itself, but not so: {codes}")
        if succeeded and codes[0] != (0, 0):
            found.append(f"session {session.session_id} succeeded without its main kernel: {codes}")
        if session.reason == EndReason.STOPPED_BEFORE_START:
            found.append(f"session {session.session_id} ended for what only we can have done")
        if session.reason == EndReason.AGENT_LOST and session.requeue:
            found.append(f"session {session.session_id} was to be requeued when its agent was lost")
    return found


WAITS_FOR_EVER = frozenset({WaitReason.HELD, WaitReason.NEVER_FITS})


def everything_has_ended(picture: Picture, waits: Mapping[SessionId, NotedWait]) -> list[str]:
    """Once faults have stopped for long enough: all is over that can run, and nothing is left."""
    found = []
    for session in picture.sessions.values():
        if session.status.is_final:
            continue
        code = waits[session.session_id].code if session.session_id in waits else None
        if session.status is not SessionStatus.PENDING:
            found.append(f"session {session.session_id} is still {session.status}")
        elif code is None:
            found.append(f"session {session.session_id} waits without a reason")
        elif code not in WAITS_FOR_EVER and not _waits_for_a_waiter(session, picture):
            found.append(f"session {session.session_id} still waits: {code}")
    found += [
        f"session {hold.session_id}: token {hold.token} is left over on {hold.agent_id}"
        for hold in picture.holds.values()
    ]
    return found


def _is_given_up(hold: Hold, picture: Picture) -> bool:
    """Say whether it is left over on an agent that has not been heard of for too long."""
    agent = picture.agents.get(AgentId(hold.agent_id))
    return hold.is_leftover and agent is not None and agent.status is AgentStatus.GONE


def _waits_for_a_waiter(session: SessionWithKernels, picture: Picture) -> bool:
    if session.array_waits:  # others of its array have its places, who may wait for ever
        return True
    return any(not picture.sessions[d.session_id].status.is_final for d in session.unmet)


def given_up_tokens(picture: Picture) -> set[str]:
    """Return the leftovers on agents that are given up: these may run beside their successors."""
    return {token for token, hold in picture.holds.items() if _is_given_up(hold, picture)}


def _as_known(agent: Agent | None) -> tuple[object, ...] | None:
    """What of an agent is the same in memory and in the store; memory knows its times better."""
    if agent is None:
        return None
    is_lost = agent.lost_since is not None
    return (agent.status, agent.incarnation, agent.capacity, agent.scaling_group, is_lost)


def the_cursors_are_true(
    remembered: Mapping[str, ScalingGroup], stored: Mapping[str, AgentId | None]
) -> list[str]:
    """Where the last kernel of each group went is remembered as it is stored."""
    return [
        f"group {name}: its last kernel is remembered on {group.last_agent_id},"
        f" but went to {stored.get(name)}"
        for name, group in remembered.items()
        if group.last_agent_id != stored.get(name)
    ]


def old_letters_change_nothing(
    agent_id: AgentId, incarnation: int, before: Picture, now: Picture
) -> list[str]:
    """What an agent said in an incarnation that is over changes nothing."""
    agent = before.agents.get(agent_id)
    if agent is None or incarnation >= agent.incarnation or before is now:
        return []
    return [
        f"session {session_id}: changed by what {agent_id} said in its incarnation {incarnation},"
        f" which is over: it has {agent.incarnation}"
        for session_id in now.changed
    ]


class Ear(AgentEventSink):
    """Hears what agents say before the manager does, and looks at what becomes of it.

    Args:
        sink: The manager's.
        now: The time.
        picture: Returns the latest picture, or `None` when the store has been written to since.
        found: Takes what is violated.
        heard_of: Takes which agent is heard of, by which incarnation; `None` with a hello.
    """

    def __init__(
        self,
        sink: AgentEventSink,
        now: Callable[[], float],
        picture: Callable[[], Picture | None],
        found: Callable[[list[str]], None],
        heard_of: Callable[[AgentId, int | None], None],
    ) -> None:
        self.sink = sink
        self._now = now
        self._picture = picture
        self._found = found
        self._heard_of = heard_of

    async def connected(self, hello: AgentHello) -> int:
        self._heard_of(hello.agent_id, None)
        return await self.sink.connected(hello)

    async def heartbeat(self, agent_id: AgentId, incarnation: int, tokens: Sequence[str]) -> None:
        self._heard_of(agent_id, incarnation)
        await self.sink.heartbeat(agent_id, incarnation, tokens)

    async def reported(
        self, agent_id: AgentId, incarnation: int, reports: Sequence[KernelReport]
    ) -> None:
        before, began_at = self._picture(), self._now()
        self._heard_of(agent_id, incarnation)
        await self.sink.reported(agent_id, incarnation, reports)
        after = self._picture()
        if before is None or after is None or self._now() != began_at:
            return  # something else may have happened meanwhile
        self._found(old_letters_change_nothing(agent_id, incarnation, before, after))
