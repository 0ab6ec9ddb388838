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
_POSTGRESQL = {
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
    text = str(error.orig).strip()
    words = next((words for sign, words in _SQLITE.items() if sign in text), text)
    if (state := sqlstate_of(error)) is not None:
        words = _POSTGRESQL.get(state) or _POSTGRESQL.get(state[:2]) or text
    elif is_postgresql(error):
        words = f"PostgreSQL cannot be reached; try again ({' '.join(text.split())[:200]})"
    return StoreUnavailableError(f"the store cannot be written: {words}")


def is_away(error: BaseException) -> bool:
    """Say whether there is nobody to answer: whatever is asked next would fail like this."""
    if not isinstance(error, DBAPIError) or not is_postgresql(error):
        return False
    state = sqlstate_of(error)
    return state is None or (state.startswith(_ENDS_A_CONNECTION) and state != "57014")


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
