"""Which database a home has: the one of `store.url`, else a file of its own."""

import time
from pathlib import Path

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from sokovan.clock import SystemClock
from sokovan.config import DATABASE_FILE, StoreConfig, without_password
from sokovan.domain.errors import ConfigError, HomeError, StoreUnavailableError
from sokovan.home import write_private
from sokovan.store.postgresql import open_postgresql, parse
from sokovan.store.schema import prepare
from sokovan.store.sqlite import open_sqlite
from sokovan.store.trouble import is_postgresql, will_stay

log = structlog.get_logger(__name__)

FILE = "sokovan.db"
LOOK_EVERY_S = 0.5


def remember(home: Path, config: StoreConfig, url: str) -> None:
    """Have this home use a database from now on.

    Raises:
        ConfigError: `url` is no address, has a password that everybody could read, or the settings
            name another one.
        HomeError: The home has sessions of its own in a file, which would be left behind.
    """
    check_said(url, "--db")
    if config.url == url:
        return
    kept = home / DATABASE_FILE
    if config.url and not kept.exists():
        raise ConfigError("store.url: the settings name another database than --db; take one out")
    if (home / FILE).exists():
        raise HomeError(
            f"the home {home} has a store of its own, {FILE}, which would be left behind; take it"
            f" along with `sokovan db move --to URL`, or choose another --home"
        )
    write_private(kept, url + "\n")


def check_said(url: str, option: str) -> None:
    """Make sure that an address may be given on a command line.

    Raises:
        ConfigError: It is no address, or has a password.
    """
    parse(url)
    if without_password(url) != url:
        raise ConfigError(
            f"{option}: everybody on this machine can read a password that is on a command line;"
            " put it into ~/.pgpass or PGPASSWORD, or write store.url into config.toml"
        )


def open_store(home: Path, config: StoreConfig) -> Engine:
    """Return an engine for the store of a home.

    Raises:
        ConfigError: `store.url` is no address, or the driver is not installed.
    """
    if config.url:
        return open_postgresql(config.url, config)
    file = home / FILE
    if file.exists():
        file.chmod(0o600)  # an older version let others read it, and it has secrets now
    return open_sqlite(file, config)


def open_existing(home: Path, config: StoreConfig) -> Engine:
    """Return an engine for the store of a home, which is there already.

    Raises:
        HomeError: There is none.
        ConfigError: `store.url` is no address, or the driver is not installed.
    """
    if not config.url and not (home / FILE).exists():
        raise HomeError(f"there is no store {home / FILE}: no server has run for this home yet")
    return open_store(home, config)


def name_of(home: Path, config: StoreConfig) -> str:
    """Say in words where the store of a home is, without a password."""
    if config.url:
        return parse(config.url).set(drivername="postgresql").render_as_string(hide_password=True)
    return str(home / FILE)


def open_prepared(home: Path, config: StoreConfig) -> Engine:
    """Return an engine for the store of a home, once it is there and has this version's schema.

    A PostgreSQL that is away is waited for, as it may start later than this machine's services.

    Raises:
        ConfigError: `store.url` is no address, or the driver is not installed.
        SchemaTooNewError: A newer Sokovan wrote the store.
        StoreDamagedError: Another program did.
        StoreUnavailableError: It cannot be opened, and waiting was no use.
    """
    engine, clock, said = open_store(home, config), SystemClock(), ""
    until = clock.now() + config.wait_s
    while True:
        try:
            prepare(engine)
        except StoreUnavailableError as error:
            cause = error.__cause__
            assert isinstance(cause, DBAPIError)
            if not is_postgresql(cause) or will_stay(cause) or clock.now() >= until:
                engine.dispose()
                raise
            if error.message != said:
                said = error.message
                log.warning("waiting for the database", why=said, wait_s=config.wait_s)
            time.sleep(LOOK_EVERY_S)
        else:
            return engine
