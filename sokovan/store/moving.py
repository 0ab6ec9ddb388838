"""The store of a home in the other database: all rows, with their numbers, proven to be the same.

Killed at any moment, the home has one whole store, the old one or the new one; to move again goes
on from there.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from sqlalchemy import Connection, Engine

from sokovan.config import DATABASE_FILE, StoreConfig
from sokovan.domain.errors import ConfigError, IllegalStateError
from sokovan.home import write_private
from sokovan.store.backups import Counts, prove
from sokovan.store.copying import Mend, Tell, as_it_is, copy_rows, counts_of, digests
from sokovan.store.files import aside, keep_aside, remove, synchronise, whole_file
from sokovan.store.opening import FILE, check_said, open_existing
from sokovan.store.ownership import alone, closing, reading
from sokovan.store.postgresql import open_postgresql
from sokovan.store.schema import prepare, require_head
from sokovan.store.sqlite import open_sqlite

TO_FILE = "file"
"""In place of an address: the file in the home."""


@dataclass(frozen=True, slots=True)
class Moved:
    """What a move has done: rows by table, digests by table, and where the old store is kept."""

    counts: Counts
    digests: Mapping[str, str]
    kept: Path | None


def check_target(home: Path, config: StoreConfig, to: str) -> None:
    """Make sure that a home may be moved to where `to` says.

    Raises:
        ConfigError: It is no address, has a password, or the settings would still name the
            database of today.
        IllegalStateError: The store is there already.
    """
    if to != TO_FILE:
        check_said(to, "--to")
    if (config.url or TO_FILE) == to:
        raise IllegalStateError("the store is there already; there is nothing to move")
    if config.url and not (home / DATABASE_FILE).exists():
        raise ConfigError(
            "store.url: the settings name the database, and would go on doing so; write the address"
            f" into the file {home / DATABASE_FILE} instead, and try again"
        )


def move_store(
    home: Path,
    config: StoreConfig,
    to: str,
    *,
    now: float,
    mend: Mend = as_it_is,
    tell: Tell = print,
) -> Moved:
    """Copy the store of a home, prove the copy, and have the home use it.

    Args:
        home: Its lock is held.
        config: Says where the store is.
        to: The address of a PostgreSQL database, or `file`.
        now: Seconds since the epoch.
        mend: Changes texts that PostgreSQL cannot keep.
        tell: Is told of each step.

    Raises:
        AlreadyRunningError: A manager is connected to either database.
        IllegalStateError: Something is there already that is not the same.
        StoreDamagedError: PostgreSQL cannot keep some rows, or the copy differs.
        StoreUnavailableError: One of the databases cannot be used.
    """
    check_target(home, config, to)
    with closing(open_existing(home, config)) as engine, alone(engine) as source:
        require_head(source)
        if to == TO_FILE:
            moved = _to_file(home, source, tell)
            remove(home / DATABASE_FILE)
            return moved
        durable = replace(config, url=to, synchronous="FULL")
        with closing(open_postgresql(to, durable)) as other:
            moved = _to_database(source, other, mend, tell)
        write_private(home / DATABASE_FILE, to + "\n")
        synchronise(home / DATABASE_FILE)
    return moved if config.url else replace(moved, kept=put_aside(home, now))


def put_aside(home: Path, now: float) -> Path:
    """Keep the file that a home has used so far under another name."""
    path = home / FILE
    kept = aside(path, "moved", now)
    keep_aside(path, kept)
    remove(path)
    return kept


def _to_database(source: Connection, engine: Engine, mend: Mend, tell: Tell) -> Moved:
    prepare(engine)
    with alone(engine) as target:
        counts = counts_of(target)
        is_new = not any(counts.values())
        if is_new:
            counts = copy_rows(source, target, mend=mend, tell=tell)
        said = digests(source, mend=mend, tell=tell)
        _compare(said, digests(target, tell=tell), is_new=is_new)
    return Moved(counts, said, None)


def _to_file(home: Path, source: Connection, tell: Tell) -> Moved:
    path = home / FILE
    said = digests(source, tell=tell)
    if path.exists():
        with closing(open_sqlite(path, StoreConfig())) as engine, reading(engine) as target:
            require_head(target)
            _compare(said, digests(target, tell=tell), is_new=False)
            return Moved(counts_of(target), said, None)
    with whole_file(path) as part, closing(open_sqlite(part, StoreConfig())) as engine:
        prepare(engine)
        with alone(engine) as target:
            counts = copy_rows(source, target, tell=tell)
            _compare(said, digests(target, tell=tell), is_new=True)
    return Moved(counts, said, None)


def _compare(ours: Mapping[str, str], theirs: Mapping[str, str], *, is_new: bool) -> None:
    """Make sure that both stores are the same; one of before may be what a killed move has left."""
    if is_new:
        prove(ours, theirs)
    elif differing := [name for name, said in ours.items() if theirs[name] != said]:
        raise IllegalStateError(
            f"there is another store already, which differs in {', '.join(differing)}; name an"
            " empty database, or move away what is there"
        )
