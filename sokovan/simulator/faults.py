"""What can go wrong in a simulated run, and how often."""

from dataclasses import dataclass, replace

Range = tuple[float, float]
"""From and up to, in seconds."""


@dataclass(frozen=True, slots=True)
class Faults:
    """Chances from 0 to 1 for each message, call or transaction; or how often in an hour.

    A message is a report, a heartbeat, a hello, or the acknowledgement of one.
    """

    message_lost: float = 0.0
    message_repeated: float = 0.0
    message_delayed: float = 0.0
    """Arrives after others that were sent later."""
    delay_s: Range = (0.1, 90.0)
    """How late a delayed message, a repeated one or a late call arrives."""

    call_lost: float = 0.0
    """Never arrives; the caller gives up after its timeout."""
    call_late: float = 0.0
    """Arrives when the caller has given up."""
    call_repeated: float = 0.0
    """Arrives, is answered, and arrives once more."""
    answer_lost: float = 0.0
    """Takes effect; the caller gives up after its timeout."""
    call_slow: float = 0.0
    """Everything else goes on for a while before it takes effect, and before it is answered."""
    call_breaks: float = 0.0
    """Ends in an exception that no handler expects."""
    call_slow_s: Range = (0.0, 15.0)
    agent_dies_in_call: float = 0.0
    """The agent process dies in the middle of the call."""
    manager_dies_in_call: float = 0.0
    """The manager process dies before a call took effect, or before it is answered: each."""

    store_fails: float = 0.0
    """A transaction is refused; nothing of it is written."""
    store_slow: float = 0.0
    """Everything else goes on for a moment before it runs."""
    store_slow_s: Range = (0.0, 2.0)
    statement_fails: float = 0.0
    """One statement of a transaction fails; nothing of it is written."""
    store_outages_per_hour: float = 0.0
    """How often every transaction is refused for minutes, as while a disk is full."""
    store_outage_s: Range = (20.0, 400.0)
    """Shorter than an agent's silence counts, and longer than its grace."""
    commit_in_doubt: float = 0.0
    """A commit takes place or does not, and nobody is told which."""
    manager_dies_in_transaction: float = 0.0
    """The manager process dies just before a transaction, or just after it is durable: each."""
    manager_dies_at_statement: float = 0.0
    """The manager process dies in the middle of a transaction, before one of its statements."""

    manager_stands_still: float = 0.0
    """The manager process is stopped before a transaction, before a call takes effect, or before it
    is answered: each. Another one takes over, and the first goes on later, knowing nothing."""
    stand_still_s: Range = (0.0, 400.0)

    manager_crashes_per_hour: float = 0.0
    manager_down_s: Range = (0.5, 120.0)
    agent_crashes_per_hour: float = 0.0
    agent_down_s: Range = (0.5, 120.0)
    agent_cuts_per_hour: float = 0.0
    """How often an agent can be reached by nobody for a while."""
    agent_cut_s: Range = (2.0, 900.0)
    """Shorter than its silence counts, longer than that, longer than its grace."""
    one_way_cuts_per_hour: float = 0.0
    """How often an agent hears and is not heard, or is heard and does not hear."""
    reboots_per_hour: float = 0.0
    """How often a machine loses its kernels with its agent."""
    clock_steps_per_hour: float = 0.0
    """How often the clock of some machine is set forward or back, the manager's among them."""
    clock_step_s: Range = (-3600.0, 3600.0)

    machines_added_per_hour: float = 0.0
    machines_resized_per_hour: float = 0.0
    """How often an agent comes back with more than it had, or with less."""
    machines_replaced_per_hour: float = 0.0
    """How often a machine is gone for ever, and another stands at its address."""
    machines_returned_per_hour: float = 0.0
    """How often one is down for so long that its agent is removed, and comes back after that."""

    drains_per_hour: float = 0.0
    """How often an agent is taken out of service for a while."""
    drained_s: Range = (30.0, 1800.0)

    policy_changes_per_hour: float = 0.0
    """How often an administrator gives a group another policy."""

    edits_per_hour: float = 0.0
    """How often a user changes a session that is there."""
    nonsense_per_hour: float = 0.0
    """How often users ask for what makes no sense, or for what is over."""
    looks_per_hour: float = 0.0
    """How often users look at sessions, and ask why; no fault, but in the way of one."""


NO_FAULTS = Faults()

ROUGH = Faults(
    message_lost=0.03,
    message_repeated=0.02,
    message_delayed=0.03,
    call_lost=0.02,
    call_late=0.01,
    call_repeated=0.01,
    answer_lost=0.02,
    call_slow=0.05,
    call_breaks=0.002,
    agent_dies_in_call=0.003,
    store_fails=0.003,
    store_slow=0.01,
    manager_dies_in_transaction=0.0005,
    manager_dies_at_statement=0.0001,
    manager_dies_in_call=0.0005,
    statement_fails=0.0002,
    commit_in_doubt=0.002,
    manager_crashes_per_hour=2.0,
    agent_crashes_per_hour=3.0,
    agent_cuts_per_hour=3.0,
    one_way_cuts_per_hour=1.0,
    reboots_per_hour=0.5,
    store_outages_per_hour=0.3,
    clock_steps_per_hour=0.5,
    machines_added_per_hour=0.3,
    machines_resized_per_hour=0.3,
    machines_replaced_per_hour=0.3,
    machines_returned_per_hour=0.3,
    drains_per_hour=0.5,
    policy_changes_per_hour=2.0,
    edits_per_hour=20.0,
    nonsense_per_hour=20.0,
    looks_per_hour=40.0,
)
"""A bad day: everything that is promised to be survived happens several times."""

STORM = replace(
    ROUGH,
    message_lost=0.2,
    message_repeated=0.1,
    message_delayed=0.2,
    call_lost=0.1,
    call_late=0.05,
    call_repeated=0.05,
    answer_lost=0.1,
    call_slow=0.2,
    agent_dies_in_call=0.02,
    store_fails=0.02,
    store_slow=0.05,
    manager_dies_in_transaction=0.0025,
    manager_dies_at_statement=0.0005,
    manager_dies_in_call=0.0025,
    statement_fails=0.001,
    commit_in_doubt=0.01,
    manager_crashes_per_hour=10.0,
    agent_crashes_per_hour=12.0,
    agent_cuts_per_hour=12.0,
    one_way_cuts_per_hour=4.0,
    reboots_per_hour=2.0,
    store_outages_per_hour=1.0,
    clock_steps_per_hour=2.0,
    machines_added_per_hour=0.5,
    machines_resized_per_hour=2.0,
    machines_replaced_per_hour=1.0,
    machines_returned_per_hour=1.0,
    drains_per_hour=2.0,
    policy_changes_per_hour=6.0,
    edits_per_hour=60.0,
)
"""The worst day: little works at the first attempt."""

MANAGERS = replace(ROUGH, manager_stands_still=0.004)
"""A bad day with a second manager, which takes over again and again from one that still lives."""

PROFILES = {"none": NO_FAULTS, "rough": ROUGH, "storm": STORM, "managers": MANAGERS}
