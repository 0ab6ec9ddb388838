"""Backups: one SQLite file each, whatever database the store is in.

Those of a SQLite store are the pages of its file; those of a PostgreSQL store have the same rows.
Either can be looked through with `sokovan db check FILE`, and restored into either database.
"""

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from sqlalchemy import Connection, create_engine, delete, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from sokovan.config import StoreConfig
from sokovan.domain.errors import HomeError, IllegalStateError, SokovanError, StoreDamagedError
from sokovan.store.copying import (
    Mend,
    Tell,
    as_it_is,
    copy_rows,
    counts_of,
    differences,
    digests,
)
from sokovan.store.files import aside, copy_sqlite, keep_aside, whole_file
from sokovan.store.opening import FILE, open_store
from sokovan.store.ownership import alone, closing, reading
from sokovan.store.schema import check_version, prepare, require_head
from sokovan.store.sqlite import open_sqlite
from sokovan.store.tables import metadata, scaling_groups

Counts = Mapping[str, int]
"""How many rows there are, by table."""
Finish = Callable[[Connection], None]
_FAST = StoreConfig(synchronous="NORMAL")
"""Of files that do not count before they are whole."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore has done: rows by table, and where the store is that was there before."""

    counts: Counts
    kept: Path | None


def back_up(
    home: Path, config: StoreConfig, file: Path, *, force: bool = False, tell: Tell = print
) -> Counts:
    """Write the store of a home into a file, as it is between two transactions.

    A server may run meanwhile.

    Raises:
        HomeError: There is no store, or the file cannot be written.
        IllegalStateError: The file exists, and `force` is not given.
        SchemaTooNewError: A newer version wrote the store.
        SchemaTooOldError: An older one did; only a SQLite store can be backed up all the same.
        StoreDamagedError: It is no store, or damaged.
        StoreUnavailableError: It cannot be read.
    """
    if file.resolve() == (home / FILE).resolve():
        raise IllegalStateError(f"{file} is the store itself; name another file")
    with whole_file(file, force=force) as part:
        if config.url:
            with closing(open_store(home, config)) as engine, reading(engine) as source:
                require_head(source)
                return _copied(source, part, tell)
        copy_sqlite(home / FILE, part)
        with _opened(part) as connection:
            check_version(connection)
            return counts_of(connection)


def restore_file(home: Path, backup: Path, *, now: float, finish: Finish) -> Restored:
    """Put a backup in the place of a home's SQLite file; what was there is kept aside.

    Args:
        home: Its lock is held, and nobody has its store open.
        backup: The file.
        now: Seconds since the epoch.
        finish: Looks through what is to be restored, at this version's schema, and may change it;
            what it raises leaves the home as it is.
    """
    path, kept = home / FILE, None
    with whole_file(path, force=True) as part:
        counts = _make_ready(backup, part, finish, _fencing_of_file(path))
        if path.exists():
            kept = aside(path, "before-restore", now)
            keep_aside(path, kept)
    return Restored(counts, kept)


def restore_database(
    home: Path,
    config: StoreConfig,
    backup: Path,
    *,
    now: float,
    finish: Finish,
    mend: Mend = as_it_is,
    tell: Tell = print,
) -> Restored:
    """Put the rows of a backup in the place of those in PostgreSQL, in one transaction.

    What was there is kept as a file in the home. The arguments are those of `restore_file`.
    """
    kept = None
    with (
        closing(open_store(home, replace(config, synchronous="FULL"))) as engine,
        tempfile.TemporaryDirectory(prefix=".restore-", dir=home) as directory,
    ):
        prepare(engine)
        with reading(engine) as target:
            fencing = _fencing_of(target)
        part = Path(directory) / FILE
        part.touch(0o600)
        _make_ready(backup, part, finish, fencing)
        with alone(engine) as target, _opened(part) as source:
            if any(counts_of(target).values()):
                kept = aside(home / FILE, "before-restore", now)
                with whole_file(kept) as old:
                    _copied(target, old, tell)
            for table in metadata.sorted_tables:
                target.execute(delete(table))
            counts = copy_rows(source, target, mend=mend, tell=tell)
            prove(digests(source, mend=mend, tell=tell), digests(target, tell=tell))
    return Restored(counts, kept)


def prove(one: Mapping[str, str], other: Mapping[str, str]) -> None:
    """Make sure that a copy has what was copied.

    Raises:
        StoreDamagedError: It has something else.
    """
    if found := differences(one, other):
        raise StoreDamagedError(
            f"the copy is not what was copied, and was taken back: {'; '.join(found)}"
        )


def fence(connection: Connection, others: Mapping[str, int]) -> None:
    """Let nobody who has driven a group before take itself for its driver; free the groups.

    Args:
        connection: To the store that is to be used from now on.
        others: The fencing tokens of the store that was used so far, by group.
    """
    for name, token in _fencing_of(connection).items():
        connection.execute(
            update(scaling_groups)
            .where(scaling_groups.c.name == name)
            .values(fencing_token=max(token, others.get(name, 0)) + 1, lease_holder=None)
        )


def _fencing_of(connection: Connection) -> dict[str, int]:
    columns = select(scaling_groups.c.name, scaling_groups.c.fencing_token)
    return {row.name: row.fencing_token for row in connection.execute(columns)}


def _fencing_of_file(path: Path) -> dict[str, int]:
    """Return those of a store that may be damaged, or not there."""
    if not path.exists():
        return {}
    try:
        with closing(open_sqlite(path, _FAST)) as engine, reading(engine) as connection:
            return _fencing_of(connection)
    except (DBAPIError, SokovanError):  # restored because the store is beyond reading, perhaps
        return {}


def _copied(source: Connection, part: Path, tell: Tell) -> dict[str, int]:
    """Write all rows into a new SQLite file, and prove that they are there."""
    with closing(open_sqlite(part, _FAST)) as engine:
        prepare(engine)
        with alone(engine) as target:
            counts = copy_rows(source, target, tell=tell)
            prove(digests(source, tell=tell), digests(target, tell=tell))
    return counts


def _make_ready(
    backup: Path, part: Path, finish: Finish, fencing: Mapping[str, int]
) -> dict[str, int]:
    """Copy a backup, bring the copy to this version's schema, and make it fit to be used."""
    if not backup.is_file():
        raise HomeError(f"there is no backup {backup}")
    copy_sqlite(backup, part)
    with _opened(part) as connection:
        check_version(connection)
    with closing(open_sqlite(part, _FAST)) as engine:
        prepare(engine)
        with alone(engine) as connection:
            finish(connection)
            fence(connection, fencing)
            return counts_of(connection)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Connection]:
    """Read a SQLite file that is nobody else's."""
    engine = create_engine(f"sqlite:///{path}", poolclass=NullPool)
    with closing(engine), reading(engine) as connection:
        yield connection
