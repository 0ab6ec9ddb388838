"""Bugs to be planted in the product, one at a time: does the simulator find each of them?

A bug is a phrase of the source of a function or two, and what stands there instead. All else stays
as it is, and a phrase that is not there any more is an error: a bug that was never planted would
never be found.
"""

import contextlib
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

from sqlalchemy import select, update

from sokovan.agent.agent import Agent
from sokovan.agent.contact import Contact
from sokovan.domain.statuses import SessionStatus
from sokovan.identity import IdSource
from sokovan.placement import queue
from sokovan.placement.queue import Queue
from sokovan.scheduler import change, settle
from sokovan.scheduler.cadence import Cadence
from sokovan.scheduler.change import SessionChange
from sokovan.scheduler.coordinator import Coordinator
from sokovan.scheduler.ledger import SessionLedger
from sokovan.simulator.faults import NO_FAULTS, STORM, Faults
from sokovan.simulator.trial import Trial
from sokovan.store import array_places, changes, reports, writer
from sokovan.store.changes import ChangeSet
from sokovan.store.engine import Transaction
from sokovan.store.repository import SqlRepository
from sokovan.store.tables import holds, kernels, sessions


@dataclass(frozen=True)
class Edit:
    """A phrase of a function's source, found there once, and what stands there instead."""

    owner: Any
    """The class or the module in which the function is looked up."""
    name: str
    old: str
    new: str


@dataclass(frozen=True)
class Recipe:
    """What a trial is made of, its seed apart."""

    hours: float = 0.5
    agents: int = 5
    sessions: int = 40
    faults: Faults = STORM

    def trial(self, seed: object) -> Trial:
        """Return a trial of this kind."""
        return Trial(
            seed,
            hours=self.hours,
            agents=self.agents,
            sessions=self.sessions,
            faults=self.faults,
        )


SMALL = Recipe()
CROWD = Recipe(agents=10, sessions=300, faults=NO_FAULTS)
"""Much of what users do, and nothing in its way."""
SLOW_CALLS = Recipe(hours=0.1, agents=10, sessions=60, faults=Faults(call_slow=0.8))
BROKEN_CALLS = Recipe(faults=Faults(call_lost=0.3, call_breaks=0.2))
LATE_STARTS = Recipe(faults=Faults(call_late=0.4, delay_s=(5.0, 90.0), agent_crashes_per_hour=60.0))
LATE_LETTERS = Recipe(
    faults=Faults(
        message_lost=0.3, message_delayed=0.4, agent_cuts_per_hour=120.0, agent_cut_s=(1.0, 30.0)
    )
)
DEAF_STORE = Recipe(
    hours=0.1,
    agents=10,
    sessions=50,
    faults=Faults(store_fails=0.5, agent_crashes_per_hour=400.0),
)
DYING = Recipe(faults=Faults(manager_dies_in_call=0.1, manager_down_s=(0.5, 30.0)))
CUT_OFF = Recipe(hours=1.0, faults=replace(STORM, agent_cut_s=(300.0, 900.0)))
REPLACED = Recipe(faults=Faults(manager_stands_still=0.05))
FEW = Recipe(hours=1.0, agents=2, sessions=20, faults=Faults(call_lost=0.1))


@dataclass(frozen=True)
class Mutation:
    """A bug."""

    number: str
    name: str
    edits: tuple[Edit, ...]
    found: tuple[str, ...]
    """Parts of what the simulator may say of it."""
    recipe: Recipe = SMALL
    """The trials that show it soon."""
    seed: int = 0
    """The first that showed it when this was written; those before it need not be tried again."""


@contextlib.contextmanager
def planted(mutation: Mutation) -> Iterator[None]:
    """Have the bug in the product."""
    by_function: dict[tuple[Any, str], list[Edit]] = {}
    for edit in mutation.edits:
        by_function.setdefault((edit.owner, edit.name), []).append(edit)
    with contextlib.ExitStack() as stack:
        for (owner, name), edits in by_function.items():
            function = _mutated(getattr(owner, name), edits, f"<mutation {mutation.number}>")
            stack.enter_context(mock.patch.object(owner, name, function))
        yield


def _mutated(function: Any, edits: list[Edit], where: str) -> Any:
    source = textwrap.dedent(inspect.getsource(function))
    for edit in edits:
        times = source.count(edit.old)
        assert times == 1, f"{edit.name} has {edit.old!r} {times} times, not once: mend {where}"
        source = source.replace(edit.old, edit.new)
    made: dict[str, Any] = {}
    exec(compile(source, where, "exec"), function.__globals__, made)
    return made[function.__name__]


def mint_again(tx: Transaction, ids: IdSource) -> None:
    """Name anew the kernels that an earlier manager may have been about to start."""
    about_to_start = (
        select(kernels.c.token)
        .join(sessions, sessions.c.session_id == kernels.c.session_id)
        .where(sessions.c.status == SessionStatus.PREPARED.value)
        .where(kernels.c.token.is_not(None))
        .order_by(kernels.c.kernel_id)
    )
    for token in tx.execute(about_to_start).scalars().all():
        fresh = ids.token()
        for table in (kernels, holds):
            tx.execute(update(table).where(table.c.token == token).values(token=fresh))


_CHECK_TERMINATION = (
    "    if session.status in DETECT_TERMINATION.takes and end_of(session.kernels) is not None:\n"
    "        return DETECT_TERMINATION\n"
)


def _lined_up_unless(condition: str) -> tuple[Edit, ...]:
    """Return the edits that put in line whom only that keeps aside, and not both."""
    both = "session.held or session.unmet"
    return (Edit(queue, "_is_kept_back", both, condition),)


MUTATIONS = (
    Mutation(
        "1",
        "apply without compare-and-set",
        (Edit(ChangeSet, "apply", "not change.still_holds(move) or ", ""),),
        ("straight to", "history has a gap", "counts attempts while", "its reason went from"),
        seed=1,
    ),
    Mutation(
        "2",
        "compare on status only, not status_seq",
        (
            Edit(
                SessionChange,
                "still_holds",
                " and self.session.status_seq == move.status_seq",
                "",
            ),
        ),
        ("was never asked to start",),
        SLOW_CALLS,
        seed=2,
    ),
    Mutation(
        "3",
        "a hold forgotten on requeue",
        (
            Edit(
                SessionChange,
                "send_back",
                "self._leave_over(index)",
                "self.released.append(kernel.token)",
            ),
            Edit(SessionChange, "_let_go", "self.left_over.remove(kernel.token)", "pass"),
        ),
        ("and holds nothing",),
        seed=1,
    ),
    Mutation(
        "4",
        "a hold released at TERMINATING",
        (
            Edit(
                SessionChange,
                "_begin_termination",
                "    self._set_end(reason, result)\n",
                "    self._set_end(reason, result)\n"
                "    self.released += [k.token for k in self.session.kernels if k.token]\n",
            ),
        ),
        ("holds nothing",),
    ),
    Mutation(
        "5",
        "token kept across a requeue",
        (
            Edit(SessionChange, "send_back", "token=None,", ""),
            Edit(SessionChange, "_assign", "token = mint()", "token = kernel.token or mint()"),
        ),
        ("it waits and still has a token",),
    ),
    Mutation(
        "6",
        "attempts never reset",
        (Edit(SessionLedger, "_set_session", "attempts=kept", "attempts=session.attempts"),),
        ("counts attempts while it is",),
    ),
    Mutation(
        "7",
        "attempts reset by every stage that fails",
        (
            Edit(
                SessionChange,
                "_note",
                "{**self.session.attempts, move.stage: attempts}",
                "{move.stage: attempts}",
            ),
        ),
        ("times in this phase and counts",),
        BROKEN_CALLS,
    ),
    Mutation(
        "7b",
        "attempts reset by every stage that succeeds, its own too",
        (Edit(SessionLedger, "_set_session", "attempts=kept", "attempts={}"),),
        ("times in this phase and counts",),
    ),
    Mutation(
        "8",
        "a report of an older incarnation accepted",
        (
            Edit(
                SqlRepository,
                "_record",
                "if agent.incarnation == said.incarnation:",
                "if True:",
            ),
        ),
        ("said in its incarnation",),
        LATE_LETTERS,
    ),
    Mutation(
        "9",
        "termination checked after promotion",
        (
            Edit(change, "next_promotion", _CHECK_TERMINATION, ""),
            Edit(
                change,
                "next_promotion",
                "    return None\n",
                f"{_CHECK_TERMINATION}    return None\n",
            ),
        ),
        ("it was promoted when it had ended",),
        DEAF_STORE,
        seed=1,
    ),
    Mutation(
        "10",
        "awaited sessions never expire",
        (Edit(settle, "_moves", "*load.backing_off, *load.awaited)", "*load.backing_off)"),),
        ("should have ended its", "is still PREPARING", "is still CREATING"),
    ),
    Mutation(
        "11",
        "exits after our own stop counted",
        (
            Edit(
                SessionChange,
                "follow",
                "            if due is PROMOTE_TO_TERMINATED and",
                "            end = end_of(self.session.kernels)\n"
                "            if due is PROMOTE_TO_TERMINATED and end is not None:\n"
                "                self.session = replace(self.session, result=end.result)\n"
                "            if due is PROMOTE_TO_TERMINATED and",
            ),
        ),
        ("its result went from SUCCESS to FAILURE", "its result went from FAILURE to SUCCESS"),
    ),
    Mutation(
        "12",
        "a stop for an unknown token forgotten",
        (Edit(Agent, "stop", "self._runtime.refuse([*unstarted, *failing])", "pass"),),
        ("and holds nothing",),
        LATE_STARTS,
        seed=1,
    ),
    Mutation(
        "13",
        "a hint lost with no full cycle",
        (
            Edit(
                Coordinator,
                "hint",
                "if key in self._runs:",
                "if int(self._clock.now()) % 10 and key in self._runs:",
            ),
            Edit(
                Cadence,
                "begin",
                "now + self._every_s[key]",
                "now + self._every_s[key] if isinstance(key, str) else float('inf')",
            ),
        ),
        ("has left it", "should have ended its", "still waits"),
        FEW,
    ),
    Mutation(
        "14",
        "a start repeated with a fresh token after a manager crash",
        (
            Edit(
                SqlRepository,
                "_begin_to_lead",
                "    await self.refresh()\n",
                "    from tests.simulation.mutations import mint_again\n"
                "    await self._write(lambda tx: mint_again(tx, self._ids))\n"
                "    await self.refresh()\n",
            ),
        ),
        ("and holds nothing",),
        DYING,
    ),
    Mutation(
        "15",
        "the round-robin cursor differs after a restart",
        (
            Edit(
                SqlRepository,
                "refresh",
                "last_agent_id=cursors.get(name)",
                "last_agent_id=None",
            ),
        ),
        ("its last kernel is remembered on None",),
        DYING,
    ),
    Mutation(
        "15b",
        "the attempts differ after a restart",
        (
            Edit(
                writer,
                "read_live",
                "load_sessions(tx, live_ids(tx))",
                "__import__('dataclasses').replace(s, attempts={})"
                " for s in load_sessions(tx, live_ids(tx))",
            ),
        ),
        ("is remembered as",),
        DYING,
        seed=2,
    ),
    Mutation(
        "15c",
        "the leftovers differ after a restart",
        (
            Edit(
                writer,
                "read_live",
                "live.put_hold(hold_of(row))",
                "if row.leftover_since is None:\n            live.put_hold(hold_of(row))",
            ),
        ),
        ("is remembered as",),
        DYING,
    ),
    Mutation(
        "16",
        "an exit code of 0 is forgotten",
        (
            Edit(
                reports,
                "_record_one",
                "=report.exit_code,\n            reason=report.reason,",
                "=report.exit_code or None,\n            reason=report.reason,",
            ),
        ),
        ("ended with code 0, which is not recorded",),
    ),
    Mutation(
        "17",
        "a failed session is retried twice",
        (
            Edit(
                ChangeSet,
                "_retry",
                "entries.append(Entry(spec, follower))",
                "entries.append(Entry(spec, follower))\n"
                "        twin = new_session(\n"
                "            spec, self._ids, self._now, again=session\n"
                "        )\n"
                "        entries.append(Entry(spec, twin))",
            ),
        ),
        ("and is retried 2 times",),
    ),
    Mutation(
        "18",
        "--retries is ignored",
        (Edit(ChangeSet, "_retry", "if not failed:", "if True:"),),
        ("and is retried 0 times",),
    ),
    Mutation(
        "19",
        "a silent agent is given up with no grace",
        (Edit(Coordinator, "_watch", ">= grace_s", ">= 0"),),
        ("is GONE after",),
    ),
    Mutation(
        "20",
        "an agent that is cut off stops nothing",
        (Edit(Contact, "_look", "self._cut_off()", "pass"),),
        ("which has heard of no manager for",),
        CUT_OFF,
    ),
    Mutation(
        "21",
        "--force is ignored",
        (
            Edit(
                SessionChange,
                "request_termination",
                "replace(self.session, force=force)",
                "replace(self.session, force=False)",
            ),
        ),
        ("it was to be killed, and is only stopped",),
        seed=1,
    ),
    Mutation(
        "21b",
        "--force is ignored by agents",
        (Edit(Agent, "stop", "force=kernel.force", "force=False"),),
        ("after it was to be killed",),
        replace(CROWD, sessions=200),
        seed=4,
    ),
    Mutation(
        "22",
        "dependencies are ignored",
        _lined_up_unless("session.held"),
        ("it is SCHEDULED, ",),
    ),
    Mutation(
        "23",
        "what is held back is placed",
        (
            *_lined_up_unless("session.unmet"),
            Edit(changes, "_held_back", "change.session.held", "False"),
        ),
        ("while it is held back",),
    ),
    Mutation(
        "23b",
        "a place in an array that is left is given to nobody",
        (
            Edit(
                array_places,
                "_with_room",
                "before.has_array_place and not after.has_array_place",
                "False",
            ),
        ),
        ("waits for a place",),
    ),
    Mutation(
        "23c",
        "a task without a place is placed",
        (
            Edit(queue, "_is_kept_back", " or session.array_waits", ""),
            Edit(changes, "_held_back", "change.session.array_waits", "False"),
        ),
        ("without a place in its array",),
    ),
    Mutation(
        "24",
        "the begin time is ignored",
        (Edit(Queue, "put", "session.begin_at or 0.0", "0.0"),),
        ("its begin time",),
    ),
    Mutation(
        "25",
        "late writes of a manager that was replaced are taken",
        (
            Edit(writer, "check_leases", "if lost:", "if False:"),
            Edit(SqlRepository, "_check_leases", "if others:", "if False:"),
        ),
        ("is LOST after",),
        REPLACED,
    ),
)
"""The number, where there is one, is that of the list that this is to cover."""
