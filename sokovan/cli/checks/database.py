"""Checks of a PostgreSQL that `store.url` names: does it answer, can it keep what it is given."""

import ipaddress
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import DBAPIError

from sokovan.cli.checks import Finding, Ground, ok, problem, warning
from sokovan.config import StoreConfig, without_password
from sokovan.domain.errors import SchemaTooOldError, SokovanError

LEAST = 130_000
"""The first that says what became of a transaction by its full number."""
GUIDE = "docs/guides/postgresql.md says how to set it up"
_FACTS = text(
    """
    SELECT current_setting('server_version') AS version,
           current_setting('server_version_num')::int AS number,
           current_database() AS name,
           pg_is_in_recovery() AS is_standby,
           current_setting('default_transaction_read_only') = 'on' AS is_read_only,
           current_setting('fsync') = 'on'
             AND current_setting('full_page_writes') = 'on' AS is_safe,
           host(inet_server_addr()) AS address,
           EXISTS (SELECT FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl) AS is_encrypted
    """
)


def database(ground: Ground, config: StoreConfig) -> Iterator[Finding]:
    """Ask the database about itself, as the server would; change nothing."""
    from sokovan.store.postgresql import open_postgresql
    from sokovan.store.trouble import as_unavailable

    shown = without_password(config.url)
    try:
        engine = open_postgresql(config.url, config)
    except SokovanError as error:
        yield problem(f"{shown} cannot be used: {error.message}", GUIDE)
        return
    try:
        with engine.connect().execution_options(reads_only=True) as connection:
            yield from _asked(ground, connection, shown)
    except DBAPIError as error:
        yield problem(f"{shown}: {as_unavailable(error).message}", GUIDE)
    finally:
        engine.dispose()


def _asked(ground: Ground, connection: Connection, shown: str) -> Iterator[Finding]:
    facts = connection.execute(_FACTS).one()
    named = f"{shown}, PostgreSQL {facts.version}"
    if facts.number < LEAST:
        yield problem(f"{named}: this is too old", "use PostgreSQL 13 or newer")
    elif facts.is_standby or facts.is_read_only:
        what = "is a standby" if facts.is_standby else "was made read-only"
        yield problem(
            f"{named}: it {what}, and nothing can be written",
            "name the primary in store.url, or all hosts and ?target_session_attrs=read-write",
        )
    else:
        yield ok(f"{named}, answers and can be written")
    if not facts.is_safe:
        yield problem(
            "PostgreSQL is set up to lose what it was given when the machine crashes",
            "set fsync and full_page_writes to on in postgresql.conf",
        )
    if not (facts.is_encrypted or _is_here(facts.address)):
        yield warning(
            "what is sent to PostgreSQL goes over the network in the clear",
            "add ?sslmode=verify-full to store.url",
        )
    yield from _content(ground, connection)


def _content(ground: Ground, connection: Connection) -> Iterator[Finding]:
    from sokovan.cli.checks.place import behind
    from sokovan.store.engine import Transaction
    from sokovan.store.schema import require_head

    if not inspect(connection).get_table_names():
        yield ok("the database is empty; the first server makes its tables")
        return
    try:
        require_head(connection)
    except SchemaTooOldError as error:
        yield warning(error.message, "sokovan down; the next command starts a server that does it")
    except SokovanError as error:
        yield problem(error.message, GUIDE)
    else:
        yield behind(ground, Transaction(connection)) or ok("the clock is not behind the store")


def _is_here(address: Any) -> bool:
    """Say whether the server is on this machine; it has no address behind a Unix socket."""
    return address is None or ipaddress.ip_address(address).is_loopback
