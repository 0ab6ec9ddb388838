"""What a database in trouble means: in words a user can act on, and whether anything was written.

What else a database raises is about one statement, such as a key that exists already.
"""

from typing import TypeGuard

from sqlalchemy.exc import (
    DatabaseError,
    DBAPIError,
    InterfaceError,
    InternalError,
    OperationalError,
)

from sokovan.domain.errors import StoreUnavailableError

_SQLITE = {
    "disk is full": "the disk is full; make room, nothing was half-written",
    "readonly": "the store is read-only; check the permissions of the home directory",
    "locked": "another process has the store locked; try again",
    "disk I/O error": "the disk does not answer properly; nothing was half-written",
    "malformed": "its file is damaged; restore it from a backup, `sokovan db check` says more",
    "not a database": "its file is no database; was it written by another program?",
    "unable to open": "the store cannot be opened; check that the home directory still exists",
}
"""By what SQLite's messages contain."""
TEXT_LENGTH_MAX = 200
_POSTGRESQL = {
    "": "PostgreSQL cannot be reached; try again",
    "08": "the connection to PostgreSQL was lost; nothing is lost, try again",
    "25006": "this PostgreSQL only answers reads: it is a standby, or was made read-only; name the"
    " primary in store.url",
    "25P03": "PostgreSQL has given up a transaction that stood still for too long; try again",
    "28": "PostgreSQL does not let Sokovan in; check the user and the password in store.url",
    "3D000": "there is no such database; make it with createdb, or mend store.url",
    "42501": "this user of PostgreSQL may not do that; let it own the database",
    "53100": "the disk of PostgreSQL is full; make room, nothing was half-written",
    "53300": "PostgreSQL has no connection left; raise its max_connections",
    "53": "PostgreSQL is short of what it needs; nothing was half-written",
    "55P03": "another manager is writing for too long; try again",
    "57014": "PostgreSQL took too long to answer; nothing was half-written, try again",
    "57": "PostgreSQL is shutting down or starting; try again",
    "58": "the disk of PostgreSQL does not answer properly; nothing was half-written",
    "XX": "PostgreSQL reports that it is damaged; restore it from a backup",
}
"""By SQLSTATE, or its class: https://www.postgresql.org/docs/current/errcodes-appendix.html."""
_AT_THE_DOOR = {
    "password authentication failed": "28",
    "authentication failed for user": "28",
    "no password supplied": "28",
    "no pg_hba.conf entry": "28",
    'FATAL:  role "': "28",
    'FATAL:  database "': "3D000",
    "too many clients": "53300",
    "too many connections": "53300",
    "remaining connection slots": "53300",
    "session is not read-write": "25006",
    "session is read-only": "25006",
    "is starting up": "57",
    "is shutting down": "57",
}
"""SQLSTATE by what a refused connection says: there, the driver knows no more than the text."""
_WILL_STAY = ("28", "3D000", "42501")
"""It does not pass by itself."""
_NOBODYS_FAULT = ("25006", "25P03", "28", "3D000", "53300", "55P03", "57014")
_SQLITE_UNDOES_A_COMMIT = ("disk is full", "locked")
_ENDS_A_CONNECTION = ("08", "57")
"""Classes of SQLSTATE that say how the connection ended, and not how the commit did."""


def is_trouble(error: BaseException) -> TypeGuard[DBAPIError]:
    """Say whether the database itself is in trouble: full, locked, away, damaged."""
    return (
        isinstance(error, OperationalError | InterfaceError | InternalError)
        or type(error) is DatabaseError
        or (isinstance(error, DBAPIError) and sqlstate_of(error) == "42501")
    )


def as_unavailable(error: DBAPIError) -> StoreUnavailableError:
    """Say what is wrong with the store in words a user can act on."""
    text = " ".join(str(error.orig).split())
    if is_postgresql(error):
        state = _state_of(error)
        words = _POSTGRESQL.get(state) or _POSTGRESQL.get(state[:2]) or text
        if sqlstate_of(error) is None:
            words += f" ({text[:TEXT_LENGTH_MAX]})"
        return StoreUnavailableError(f"the store cannot be used: {words}")
    words = next((words for sign, words in _SQLITE.items() if sign in text), text)
    return StoreUnavailableError(f"the store cannot be written: {words}")


def is_away(error: BaseException) -> bool:
    """Say whether there is nobody to answer: whatever is asked next would fail like this."""
    if not isinstance(error, DBAPIError) or not is_postgresql(error):
        return False
    state = sqlstate_of(error)
    return state is None or (state.startswith(_ENDS_A_CONNECTION) and state != "57014")


def will_stay(error: DBAPIError) -> bool:
    """Say whether waiting is no use: somebody has to mend the settings, or PostgreSQL's."""
    return is_postgresql(error) and _state_of(error).startswith(_WILL_STAY)


def is_nobodys_fault(error: BaseException) -> bool:
    """Say whether any job would have failed like this, so that they need not be tried alone."""
    if is_away(error):
        return True
    state = sqlstate_of(error) if isinstance(error, DBAPIError) else None
    return state is not None and state.startswith(_NOBODYS_FAULT)


def undoes_a_commit(error: DBAPIError) -> bool:
    """Say whether a commit that failed like that has certainly written nothing."""
    if is_postgresql(error):
        state = sqlstate_of(error)
        return state is not None and not state.startswith(_ENDS_A_CONNECTION)
    return any(sign in str(error.orig) for sign in _SQLITE_UNDOES_A_COMMIT)


def is_postgresql(error: DBAPIError) -> bool:
    """Say whether PostgreSQL, or the way to it, is what failed."""
    return hasattr(error.orig, "sqlstate")


def sqlstate_of(error: DBAPIError) -> str | None:
    """Return PostgreSQL's five characters for what went wrong, if it could still say so."""
    state: str | None = getattr(error.orig, "sqlstate", None)
    return state


def _state_of(error: DBAPIError) -> str:
    """Return the SQLSTATE, as far as it is known; "" where PostgreSQL cannot be reached."""
    if (state := sqlstate_of(error)) is not None:
        return state
    said = str(error.orig)
    return next((state for sign, state in _AT_THE_DOOR.items() if sign in said), "")
