"""Who has heard of whom, as seen from outside; and the invariants of silence, and of force.

Like those in `checks`, each returns what is violated, as sentences. Times are true ones: what
clocks show, and how they are set, changes nothing here.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sokovan.domain.cluster import AgentStatus
from sokovan.domain.sessions import AgentId, SessionId
from sokovan.simulator.observe import Picture
from sokovan.simulator.runtime import FakeRuntime

CUT_OFF_SLACK_S = 60.0
"""How long stopping may take once it is due: a look, a grace, and children that die slowly."""
FORCED_S = 5.0
"""How long anything may run on once its agent was told to kill it."""


@dataclass(slots=True)
class Contact:
    """When who heard of whom last.

    Attributes:
        managed_since: Since when there is a manager to hear anything.
        heard_of: When the manager last heard of an agent.
        looked_at: When the store was last looked at, before now.
        lost_at: Since when at the earliest an agent counts as lost: the last look at which it did
            not. A commit in doubt is seen late.
        heard: When an agent last heard of a manager, or was started first.
        started: When an agent was last started.
        cut_off_stop_s: After how long without a manager an agent stops what will be requeued.
        forced: The sessions of which users were told that they are killed.
        killed: When an agent was told to kill what ran there by a token.
    """

    managed_since: float = 0.0
    heard_of: dict[AgentId, float] = field(default_factory=dict)
    looked_at: float = 0.0
    lost_at: dict[AgentId, float] = field(default_factory=dict)
    heard: dict[AgentId, float] = field(default_factory=dict)
    started: dict[AgentId, float] = field(default_factory=dict)
    cut_off_stop_s: dict[AgentId, float] = field(default_factory=dict)
    forced: dict[SessionId, None] = field(default_factory=dict)
    killed: dict[str, float] = field(default_factory=dict)


def agents_are_lost_in_time(
    before: Picture, now: Picture, contact: Contact, at: float, silence_s: float
) -> list[str]:
    """No agent counts as lost before its silence has passed, nor as gone before its grace has too.

    Either begins anew whenever the agent is heard of, and with each new manager: nobody can have
    been heard before.
    """
    found = []
    for agent_id, agent in now.agents.items():
        old = before.agents.get(agent_id)
        if old is None or old.status is agent.status or agent.status is AgentStatus.ALIVE:
            continue
        since = max(contact.heard_of.get(agent_id, 0.0), contact.managed_since)
        due_s = silence_s
        if agent.status is AgentStatus.GONE:
            group = now.groups.get(agent.scaling_group)
            due_s = 0.0 if group is None else group.agent_grace_s
            since = max(since, contact.lost_at.get(agent_id, 0.0))
        contact.lost_at[agent_id] = contact.looked_at
        if at - since < due_s - _EXACT_S:
            found.append(
                f"agent {agent_id} is {agent.status} after {at - since:.1f} s, not {due_s:.0f} s"
            )
    return found


_EXACT_S = 0.001
"""What is lost where large numbers are added."""


def what_is_cut_off_is_stopped(
    runtimes: Mapping[AgentId, FakeRuntime], contact: Contact, at: float
) -> list[str]:
    """No kernel that will be requeued runs where no manager has been heard of for too long.

    An agent that is down can stop nothing. Once it is up again, it knows for how long nobody was
    heard of, and has no more than the slack to do what is due.
    """
    found = []
    for agent_id, runtime in runtimes.items():
        if runtime.events is None:
            continue
        heard = contact.heard.get(agent_id, at)
        due_at = heard + contact.cut_off_stop_s.get(agent_id, 0.0)
        if at <= max(due_at, contact.started.get(agent_id, at)) + CUT_OFF_SLACK_S:
            continue
        for token in runtime.running:
            order = runtime.kernels[token].order
            if order.requeue:
                found.append(
                    f"session {order.kernel_id.rpartition('.')[0]}: token {token} still runs on"
                    f" {agent_id}, which has heard of no manager for {at - heard:.0f} s"
                )
    return found


def forced_ends_are_remembered(picture: Picture, contact: Contact) -> list[str]:
    """Who was told that a session is killed is not given a grace instead."""
    return [
        f"session {session.session_id}: it was to be killed, and is only stopped"
        for session in picture.looked_at()
        if session.session_id in contact.forced
        and not session.force
        and not session.status.is_final
    ]


def what_is_killed_is_gone(
    running: Iterable[tuple[AgentId, str, str]], contact: Contact, at: float
) -> list[str]:
    """Nothing runs on for longer than a moment once its agent was told to kill it."""
    return [
        f"session {kernel_id.rpartition('.')[0]}: token {token} still runs on {agent_id},"
        f" {at - contact.killed[token]:.1f} s after it was to be killed"
        for agent_id, token, kernel_id in running
        if at > contact.killed.get(token, at) + FORCED_S
    ]
