"""Accepting submissions: all of one or none, once for each creation id.

Those that meet in one commit are written together: what a statement costs is hardly more for many
rows than for one.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from sokovan.domain.access import Caller
from sokovan.domain.errors import CreationConflictError, InvalidRequestError
from sokovan.domain.sessions import SessionId, SessionSpec, SessionWithKernels
from sokovan.domain.values import replace
from sokovan.identity import IdSource
from sokovan.store.audit import Note
from sokovan.store.edits import Again
from sokovan.store.engine import Transaction
from sokovan.store.resolving import with_dependencies
from sokovan.store.rows import spec_text
from sokovan.store.submissions import (
    Entry,
    Known,
    insert_sessions,
    known_creations,
    new_session,
)

Refusal = CreationConflictError | InvalidRequestError


@dataclass(frozen=True, slots=True)
class Submission:
    """What is submitted at once.

    Attributes:
        specs: The sessions.
        by: Who asked.
        again: Which session `specs`, of one, is submitted again from.
    """

    specs: Sequence[SessionSpec]
    by: Caller | None = None
    again: Again | None = None

    @property
    def depends_on_others(self) -> bool:
        """Whether any of its sessions waits for others."""
        return any(spec.depends_on for spec in self.specs)

    def note(self, made: Sequence[SessionWithKernels]) -> Note:
        """Return what is to be written down of it, when these are its new sessions."""
        ids = " ".join(session.session_id for session in made)
        if self.again is None:
            return Note(self.by, "submit", ids)
        return Note(self.by, "redo", ids, f"again, of {self.again.session_id}")


@dataclass(slots=True)
class Accepted:
    """What became of a submission.

    Attributes:
        answer: The session id for each of its specs, of those known before included.
        made: The new sessions.
        failed: Those of them that a dependency has failed already, with the reason in words.
    """

    answer: list[SessionId]
    failed: dict[SessionId, str]
    made: list[SessionWithKernels] = field(default_factory=list)


def in_turn(submissions: Iterable[Submission]) -> Iterator[list[Submission]]:
    """Split submissions into what can be accepted at once: what depends on others is alone.

    What is known of these by then may end it at once, and others because of it.
    """
    for depends, group in groupby(submissions, lambda one: one.depends_on_others):
        if depends:
            yield from ([one] for one in group)
        else:
            yield [*group]


def accept(
    tx: Transaction, submissions: Sequence[Submission], ids: IdSource, now: float
) -> list[Accepted | Refusal]:
    """Write submissions, one as if after the other; one that depends on others is to be alone.

    Returns:
        For each what became of it, or why nothing of it was written: a creation id was used before
        for something else; a dependency does not exist, or leads back to its own session.
    """
    known = known_creations(tx, [spec for one in submissions for spec in one.specs])
    outcomes: list[Accepted | Refusal] = []
    unwritten: list[tuple[Accepted, list[Entry]]] = []
    for one in submissions:
        try:
            accepted, entries, named = _accept(tx, one, known, ids, now)
        except (CreationConflictError, InvalidRequestError) as refusal:
            outcomes.append(refusal)
            continue
        known |= named
        unwritten.append((accepted, entries))
        outcomes.append(accepted)
    made = iter(insert_sessions(tx, [entry for _, entries in unwritten for entry in entries]))
    for accepted, entries in unwritten:
        accepted.made = [next(made) for _ in entries]
    return outcomes


def _accept(
    tx: Transaction, submission: Submission, known: Known, ids: IdSource, now: float
) -> tuple[Accepted, list[Entry], Known]:
    """Find out what a submission becomes, and what its creation ids stand for from now on."""
    answer: list[SessionId] = []
    entries: list[Entry] = []
    named: Known = {}
    for spec in submission.specs:
        if spec.creation_id is None:
            session = new_session(spec, ids, now)
            answer.append(session.session_id)
            entries.append(Entry(spec, session))
            continue
        text = spec_text(spec)
        again = submission.again
        told_by = again.digest if again else hashlib.sha256(text.encode()).hexdigest()
        key = spec.owner, spec.creation_id
        before = known.get(key) or named.get(key)
        if before is None:
            session = new_session(spec, ids, now)
            before = named[key] = session.session_id, told_by
            entries.append(Entry(spec, session, told_by, text))
        elif before[1] != told_by:
            raise CreationConflictError(
                f"creation_id {spec.creation_id!r} was used for session {before[0]}, which was"
                " submitted differently; use another one for a new session",
                field="creation_id",
            )
        answer.append(before[0])
    entries, failed = with_dependencies(tx, submission.specs, answer, entries)
    return Accepted(answer, failed), entries, named


def rehearse(
    tx: Transaction, submitted: Sequence[SessionSpec], now: float
) -> tuple[list[SessionWithKernels], dict[SessionId, str]]:
    """Return the sessions that a submission would become, and write nothing.

    Their ids are `#0`, `#1` and so on, and their numbers are behind all others. Creation ids do not
    matter.

    Returns:
        The sessions, and those of them that a dependency has failed already, with the reason.

    Raises:
        InvalidRequestError: A dependency does not exist, or leads back to its own session.
    """
    ids = _Positions()
    entries = [Entry(spec, new_session(spec, ids, now)) for spec in submitted]
    answer = [entry.session.session_id for entry in entries]
    entries, failed = with_dependencies(tx, submitted, answer, entries)
    made = [replace(entry.session, number=BEHIND_ALL + n) for n, entry in enumerate(entries)]
    return made, failed


BEHIND_ALL = 2**60
"""A number that no accepted session has."""


class _Positions(IdSource):
    """Names sessions by their position in the submission; mints nothing."""

    def __init__(self) -> None:
        super().__init__()
        self._next = 0

    def session_id(self) -> SessionId:
        self._next += 1
        return SessionId(f"#{self._next - 1}")
