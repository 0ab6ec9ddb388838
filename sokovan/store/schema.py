"""Bringing a store to the schema that this version works with."""

from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text
from sqlalchemy.exc import DBAPIError

from sokovan.domain.errors import SchemaTooNewError, SchemaTooOldError, StoreDamagedError
from sokovan.store.postgresql import be_patient
from sokovan.store.tables import metadata
from sokovan.store.trouble import as_unavailable

STEPS = ("0001", "0002", "0003", "0004", "0005")
"""Those in `migrations/versions`, in order."""
HEAD = STEPS[-1]


def prepare(engine: Engine) -> None:
    """Create the schema in an empty store, or bring an older one up to date.

    Raises:
        SchemaTooNewError: A newer Sokovan wrote this store; it is left as it is.
        StoreDamagedError: Another program did, or it does not say which version.
        StoreUnavailableError: The store cannot be opened or written.
    """
    try:
        with engine.begin() as connection:
            be_patient(connection)
            found = version_of(connection)
            if found is None:
                metadata.create_all(connection)
                connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32))"))
                connection.execute(text("INSERT INTO alembic_version VALUES (:v)"), {"v": HEAD})
            elif found > HEAD:
                raise _too_new(found)
            elif found < HEAD:
                upgrade(connection)
    except DBAPIError as error:
        raise as_unavailable(error) from error


def require_head(connection: Connection) -> None:
    """Make sure that a store is one of this version; change nothing.

    Raises:
        SchemaTooNewError: A newer Sokovan wrote it.
        SchemaTooOldError: An older one did, or it is empty.
    """
    found = version_of(connection)
    if found is None or found < HEAD:
        raise SchemaTooOldError(
            f"the store has schema {found or 'none'}, this version needs {HEAD}; bring it up"
            " to date with `sokovan db upgrade`, or start the server, which does that"
        )
    if found > HEAD:
        raise _too_new(found)


def check_version(connection: Connection) -> str:
    """Return which step of the schema a store is at, if this version can bring it up to date.

    Raises:
        SchemaTooNewError: A newer Sokovan wrote it.
        StoreDamagedError: It is no store.
    """
    found = version_of(connection)
    if found is None:
        raise StoreDamagedError("this is no store of Sokovan: it is empty")
    if found > HEAD:
        raise _too_new(found)
    return found


def upgrade(connection: Connection) -> None:
    """Run the steps that are missing."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _too_new(found: str) -> SchemaTooNewError:
    return SchemaTooNewError(
        f"the store has schema {found}, this version knows up to {HEAD}:"
        " a newer Sokovan has used it; install that version again"
    )


def version_of(connection: Connection) -> str | None:
    """Read which step of the schema a store is at; `None` when there is nothing in it.

    Raises:
        StoreDamagedError: It does not say, or it is not a store.
    """
    tables = inspect(connection).get_table_names()
    if "alembic_version" not in tables:
        if tables:
            raise StoreDamagedError(
                f"this is no store of Sokovan: it has tables ({', '.join(sorted(tables)[:5])}), but"
                " no version; it is left as it is, move it away or choose another --home"
            )
        return None
    found = connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all()
    if len(found) == 1 and isinstance(found[0], str) and (found[0] in STEPS or found[0] > HEAD):
        version: str = found[0]
        return version
    raise StoreDamagedError(
        f"the store does not say which schema it has, but {str(found)[:80]};"
        " restore it from a backup"
    )
