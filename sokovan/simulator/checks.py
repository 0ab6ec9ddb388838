"""The invariants, one function each. Each returns what is violated, as sentences.

`CHECKS` need one picture of a store and hold at any moment of any store. `STEP_CHECKS` compare two
pictures of the same store. The others need to know what happened outside of it: what was accepted,
what was cancelled, what runs on the agents.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import pairwise

from sokovan.domain.reasons import EndReason, MoveReason
from sokovan.domain.resources import Hold, over_held, used_by
from sokovan.domain.sessions import AgentId, Kernel, KernelId, SessionWithKernels
from sokovan.domain.statuses import (
    KERNEL_RANK,
    WAITING,
    KernelStatus,
    SessionResult,
    SessionStatus,
)
from sokovan.scheduler.moves import HistoryLine
from sokovan.scheduler.promote import next_promotion
from sokovan.scheduler.settle import expires_at
from sokovan.scheduler.stages import STAGES, START_SESSIONS, limit_of
from sokovan.simulator.array_checks import OF_ARRAYS
from sokovan.simulator.observe import Picture

Check = Callable[[Picture], list[str]]
StepCheck = Callable[[Picture, Picture], list[str]]

_WATCHED_BY = {
    status: [stage for stage in STAGES if status in stage.takes | stage.awaits]
    for status in SessionStatus
}
_COUNTED_IN = {stage.name: stage.takes | stage.awaits for stage in STAGES}
_COUNTED_IN[START_SESSIONS.name] |= {SessionStatus.RUNNING}
"""A start may turn out to have failed after it was taken for running."""
ENDS = frozenset({SessionStatus.TERMINATING, SessionStatus.TERMINATED, SessionStatus.CANCELLED})

# --- one picture ----------------------------------------------------------------------------------


def no_agent_is_over_held(picture: Picture) -> list[str]:
    """On no agent, more of a slot or of a device is held than it has, unless it had more before."""
    found = []
    for agent_id, on_agent in _by_agent(picture.holds.values()).items():
        agent = picture.agents.get(agent_id)
        if agent is None:
            found.append(f"agent {agent_id} is not known, but {len(on_agent)} holds are on it")
        elif agent_id not in picture.shrunk and (
            slot := over_held(agent.capacity, used_by(on_agent))
        ):
            tokens = ", ".join(hold.token for hold in on_agent)
            found.append(f"agent {agent_id}: more {slot} is held than it has, by {tokens}")
    return found


def holds_are_live_kernels_and_leftovers(picture: Picture) -> list[str]:
    """Each kernel that is placed and not over has its hold; every other hold is a leftover."""
    placed = {
        kernel.token: (session, kernel)
        for session in picture.live()
        for kernel in session.kernels
        if kernel.token is not None and not kernel.status.is_final
    }
    found = []
    for token, (session, kernel) in placed.items():
        hold = picture.holds.get(token)
        who = f"session {session.session_id} kernel {kernel.index}"
        if hold is None:
            found.append(f"{who}: its token {token} holds nothing")
        elif hold.is_leftover:
            found.append(f"{who}: its token {token} counts as a leftover")
        elif hold != _hold_of(session, kernel):
            found.append(f"{who}: {hold} is not what it asked for, or not where it is")
    for token, hold in picture.holds.items():
        if not hold.is_leftover and token not in placed:
            found.append(
                f"session {hold.session_id}: hold {token} has no kernel and is no leftover"
            )
    return found


def every_session_is_whole(picture: Picture) -> list[str]:
    """A session, its kernels and its times say the same, and nothing due was left undone."""
    found = []
    for session in picture.looked_at():
        found += [f"session {session.session_id}: {what}" for what in _faults_of(session)]
    return found


def _faults_of(session: SessionWithKernels) -> Iterator[str]:
    status, statuses = session.status, {kernel.status for kernel in session.kernels}
    over = all(kernel.status.is_final for kernel in session.kernels)
    if status.is_final != (session.ended_at is not None):
        yield f"it is {status} and ended at {session.ended_at}"
    if status.is_final and not over:
        yield f"it is {status} while kernels are {sorted(statuses)}"
    if status in WAITING:
        if statuses != {KernelStatus.PENDING}:
            yield f"it waits while kernels are {sorted(statuses)}"
        if any(kernel.token or kernel.agent_id for kernel in session.kernels):
            yield "it waits and still has a token or an agent"
    elif not status.is_final and any(
        (k.token is None) != (k.agent_id is None) for k in session.kernels
    ):
        yield "a kernel has a token without an agent, or an agent without a token"
    if (status in ENDS) != (session.reason is not None):
        yield f"it is {status} with the termination reason {session.reason}"
    if status is SessionStatus.TERMINATED and session.result is SessionResult.UNDEFINED:
        yield "it is TERMINATED without a result"
    if any(k.exit_code is not None and k.started_at is None for k in session.kernels):
        yield "a kernel has an exit code and never started"
    if (due := next_promotion(session)) is not None:
        yield f"{due.name} is due and was not done"


def history_replays(picture: Picture) -> list[str]:
    """History leads from nothing to the present state: in order, with no gap, kernels too."""
    found = []
    for session in picture.looked_at():
        lines = picture.history.get(session.session_id, ())
        found += [f"session {session.session_id}: {what}" for what in _gaps(session, lines)]
    return found


def _gaps(session: SessionWithKernels, lines: Collection[HistoryLine]) -> Iterator[str]:
    kernels: dict[KernelId | None, str | None] = {
        kernel.kernel_id: None for kernel in session.kernels
    }
    status, seq = None, -1
    for line in lines:
        if line.kernel_id is not None:
            if line.kernel_id not in kernels:
                yield f"history tells of a kernel that does not exist: {line}"
            elif line.from_status != kernels[line.kernel_id]:
                yield f"kernel history has a gap before {line}"
            kernels[line.kernel_id] = line.to_status
            continue
        if line.from_status != status or line.status_seq != seq + line.is_step:
            yield f"history has a gap before {line}"
        status, seq = line.to_status, line.status_seq
    if (status, seq) != (session.status, session.status_seq):
        yield (
            f"history ends with {status}, {seq}, but it is {session.status}, {session.status_seq}"
        )
    for kernel in session.kernels:
        if kernels[kernel.kernel_id] != kernel.status:
            told = kernels[kernel.kernel_id]
            yield f"kernel {kernel.index} is {kernel.status}, but its history ends with {told}"


def history_goes_forward_in_time(picture: Picture) -> list[str]:
    """No line is earlier than the one before it, as long as nobody sets a clock back."""
    return [
        f"session {session.session_id}: history goes back in time at {after}"
        for session in picture.looked_at()
        for before, after in pairwise(picture.history.get(session.session_id, ()))
        if after.at < before.at
    ]


def kernels_only_go_forward(picture: Picture) -> list[str]:
    """No kernel goes to an earlier status, except back to PENDING; none leaves a final one else."""
    found = []
    for session in picture.looked_at():
        for line in picture.history.get(session.session_id, ()):
            if line.kernel_id is None or line.from_status is None:
                continue
            before, after = KernelStatus(line.from_status), KernelStatus(line.to_status)
            if after is not KernelStatus.PENDING and KERNEL_RANK[after] <= KERNEL_RANK[before]:
                found.append(f"session {session.session_id}: a kernel went back: {line}")
    return found


def history_has_every_status(picture: Picture) -> list[str]:
    """No status on the way to RUNNING is left out; who ran alone has RUNNING, however shortly."""
    path = ("SCHEDULED", "PREPARING", "PREPARED", "CREATING", "RUNNING")
    found = []
    for session in picture.looked_at():
        told = [
            line.to_status
            for line in picture.history.get(session.session_id, ())
            if line.kernel_id is None and line.from_status != line.to_status
        ]
        for here, there in pairwise(told):
            if there in path and here != ("PENDING", *path)[path.index(there)]:
                found.append(f"session {session.session_id}: from {here} straight to {there}")
        by_itself = session.reason in (EndReason.SELF_TERMINATED, EndReason.KERNEL_FAILED)
        if by_itself and len(session.kernels) == 1 and "RUNNING" not in told:
            found.append(f"session {session.session_id}: it ended by itself and was never RUNNING")
    return found


def the_first_reason_wins(picture: Picture) -> list[str]:
    """The reason of a session is the one with which it first began to end."""
    found = []
    for session in picture.looked_at():
        reasons = [
            line.reason
            for line in picture.history.get(session.session_id, ())
            if line.kernel_id is None
            and line.to_status in ENDS
            and line.from_status != line.to_status
        ]
        if reasons and session.reason != reasons[0]:
            found.append(
                f"session {session.session_id}: it first ended for {reasons[0]},"
                f" but its reason is {session.reason}"
            )
    return found


def attempts_stay_below_their_limits(picture: Picture) -> list[str]:
    """No stage has tried a session more often than it may, nor counts for one it does not see."""
    rows = {stage.name: stage for stage in STAGES}
    found = []
    for session in picture.looked_at():
        group = picture.group_of(session)
        if session.requeues > group.requeues_max:
            found.append(f"session {session.session_id}: requeued {session.requeues} times")
        for name, attempts in session.attempts.items():
            stage = rows[name]
            limit = limit_of(stage, session.limits.get(name), group.limits.get(name))
            if limit.attempts_max is not None and attempts.count >= limit.attempts_max:
                found.append(
                    f"session {session.session_id}: {name} failed {attempts.count} times and it"
                    f" is still {session.status}"
                )
            if session.status not in _COUNTED_IN[name]:
                found.append(
                    f"session {session.session_id}: {name} counts attempts while it is"
                    f" {session.status}"
                )
    return found


OF_HOLDS: tuple[Check, ...] = (
    no_agent_is_over_held,
    holds_are_live_kernels_and_leftovers,
)
"""They take all holds and agents, and the sessions that are placed."""
OF_EACH_SESSION: tuple[Check, ...] = (
    every_session_is_whole,
    history_replays,
    kernels_only_go_forward,
    history_has_every_status,
    the_first_reason_wins,
    attempts_stay_below_their_limits,
)
"""They look at one session after the other, and at its history."""
CHECKS = OF_HOLDS + OF_EACH_SESSION + OF_ARRAYS
"""What holds of any store at any moment, between two transactions."""


def violations(picture: Picture) -> list[str]:
    """Say everything that is wrong with a store."""
    return [sentence for check in CHECKS for sentence in check(picture)]


# --- two pictures ---------------------------------------------------------------------------------


def final_states_stay(before: Picture, now: Picture) -> list[str]:
    """What is over changes no more, and no session disappears."""
    found = [
        f"session {session_id} has disappeared"
        for session_id in before.sessions
        if session_id not in now.sessions
    ]
    for session_id in now.changed:
        old = before.sessions.get(session_id)
        if old is not None and old.status.is_final and old != now.sessions[session_id]:
            found.append(
                f"session {session_id}: it was over and changed: {now.sessions[session_id]}"
            )
    return found


def reasons_and_results_stay(before: Picture, now: Picture) -> list[str]:
    """A termination reason and a result, once there, stay."""
    found = []
    for session_id in now.changed:
        old, new = before.sessions.get(session_id), now.sessions[session_id]
        if old is None:
            continue
        if old.reason is not None and new.reason != old.reason:
            found.append(f"session {session_id}: its reason went from {old.reason} to {new.reason}")
        if old.result is not SessionResult.UNDEFINED and new.result is not old.result:
            found.append(f"session {session_id}: its result went from {old.result} to {new.result}")
    return found


def nothing_is_added_where_too_much_is_held(before: Picture, now: Picture) -> list[str]:
    """An agent that came back with less than is held on it gets nothing more."""
    new = [hold for token, hold in now.holds.items() if token not in before.holds]
    return [
        f"session {hold.session_id}: it was placed on agent {hold.agent_id}, which is smaller now"
        for hold in new
        if AgentId(hold.agent_id) in now.shrunk
    ]


STEP_CHECKS: tuple[StepCheck, ...] = (
    final_states_stay,
    reasons_and_results_stay,
    nothing_is_added_where_too_much_is_held,
)

# --- one picture and the time --------------------------------------------------------------------


def nothing_is_overdue(
    picture: Picture, now: float, slack_s: float, taken_over_at: float = 0.0
) -> list[str]:
    """No session is in a status for longer than the stage that watches it allows, and slack.

    Its user may have made its time shorter than what has passed of it, but not before now.
    """
    found = []
    for session in picture.live():
        lines = picture.history.get(session.session_id, ())
        edited_at = max(
            (line.at for line in lines if line.reason == MoveReason.EDITED), default=0.0
        )
        for stage in _WATCHED_BY[session.status]:
            at = expires_at(stage, session, picture.group_of(session), taken_over_at)
            if at is not None and now > max(at, edited_at) + slack_s:
                found.append(
                    f"session {session.session_id}: {stage.name} should have ended its"
                    f" {session.status} {now - at:.0f} s ago"
                )
    return found


def shrunk_agents(before: Picture, now: Picture) -> set[AgentId]:
    """Return the agents on which too much is held since they came back with less."""
    smaller = {
        agent_id
        for agent_id, agent in now.agents.items()
        if agent_id in before.agents and before.agents[agent_id].capacity != agent.capacity
    }
    on_agent = _by_agent(now.holds.values())
    return {
        agent_id
        for agent_id in smaller | (now.agents.keys() & set(before.shrunk))
        if over_held(now.agents[agent_id].capacity, used_by(on_agent[agent_id])) is not None
    }


def _by_agent(holds: Iterable[Hold]) -> dict[AgentId, list[Hold]]:
    grouped: dict[AgentId, list[Hold]] = defaultdict(list)
    for hold in holds:
        grouped[AgentId(hold.agent_id)].append(hold)
    return grouped


def _hold_of(session: SessionWithKernels, kernel: Kernel) -> Hold:
    return Hold(
        kernel.token or "",
        session.session_id,
        kernel.kernel_id,
        kernel.agent_id or "",
        kernel.request.cpu_milli,
        kernel.request.mem_bytes,
        kernel.devices,
    )
