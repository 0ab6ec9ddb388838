"""What a PostgreSQL in trouble means, and how long it is waited for; without any PostgreSQL."""

import psycopg
import pytest
from sqlalchemy.exc import OperationalError

from sokovan.clock import ManualClock
from sokovan.config import StoreConfig, without_password
from sokovan.domain.errors import ConfigError
from sokovan.store.opening import remember
from sokovan.store.patience import PatientConnection
from sokovan.store.postgresql import open_postgresql, parse
from sokovan.store.trouble import as_unavailable, is_nobodys_fault, will_stay


def refused(text):
    """What the driver raises when it cannot connect."""
    return OperationalError(None, None, psycopg.OperationalError(f"connection failed: {text}"))


def failed(kind):
    """What the driver raises when a statement fails."""
    return OperationalError("SELECT", None, kind("as it was"))


@pytest.mark.parametrize(
    ("text", "says", "stays"),
    [
        ('FATAL:  password authentication failed for user "u"', "check the user", True),
        ("fe_sendauth: no password supplied", "check the user", True),
        ('FATAL:  no pg_hba.conf entry for host "h"', "check the user", True),
        ('FATAL:  role "u" does not exist', "check the user", True),
        ('FATAL:  database "d" does not exist', "make it with createdb", True),
        ("FATAL:  sorry, too many clients already", "max_connections", False),
        ("FATAL:  the database system is starting up", "try again", False),
        ("session is not read-write", "name the primary", False),
        ("Connection refused", "cannot be reached; try again", False),
    ],
)
def test_a_connection_that_is_refused_says_what_to_do(text, says, stays):
    error = refused(text)

    assert says in as_unavailable(error).message
    assert will_stay(error) is stays
    assert is_nobodys_fault(error)


@pytest.mark.parametrize(
    ("kind", "is_all"),
    [
        (psycopg.errors.LockNotAvailable, True),
        (psycopg.errors.QueryCanceled, True),
        (psycopg.errors.AdminShutdown, True),
        (psycopg.errors.ReadOnlySqlTransaction, True),
        (psycopg.errors.DiskFull, False),
        (psycopg.errors.UndefinedTable, False),
    ],
)
def test_what_would_fail_like_this_for_any_job_is_not_tried_one_by_one(kind, is_all):
    assert is_nobodys_fault(failed(kind)) is is_all


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:hush@h:5/d", "postgresql://u:***@h:5/d"),
        ("postgresql://u:hu:s/h@@h,g:6/d", "postgresql://u:***@h,g:6/d"),
        ("postgresql://u@h/d?password=hush&sslmode=require", None),
        ("postgresql://u@h/d?sslpassword=hush", None),
        ("postgresql://h:5432/d", "postgresql://h:5432/d"),
        ("postgresql:///d", "postgresql:///d"),
    ],
)
def test_an_address_is_shown_without_its_password(url, shown):
    assert without_password(url) == (shown or url.replace("hush", "***"))


def test_settings_do_not_show_a_password_by_accident():
    assert "hush" not in repr(StoreConfig(url="postgresql://u:hush@h/d"))


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("postgresql://u@h:5/d", "h", 5),
        ("postgresql://u@h,g:6/d?target_session_attrs=read-write", "h,g", "5432,6"),
        ("postgresql://u@[::1]:5,[::2]/d", "::1,::2", "5,5432"),
        ("postgres:///d?host=/var/run/postgresql", "/var/run/postgresql", None),
    ],
)
def test_an_address_is_written_as_everywhere_in_postgresqls_world(url, host, port):
    engine = open_postgresql(url, StoreConfig())

    (_, options) = engine.dialect.create_connect_args(engine.url)

    assert (options["host"], options.get("port")) == (host, port)


@pytest.mark.parametrize("url", ["mysql://h/d", "h", "postgresql://h:x/d", "", "postgresql:"])
def test_what_is_no_address_is_refused(url):
    with pytest.raises(ConfigError, match="no address of a database"):
        parse(url)


def test_a_password_on_the_command_line_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="pgpass"):
        remember(tmp_path, StoreConfig(), "postgresql://u:hush@h/d")

    assert list(tmp_path.iterdir()) == []


class Silent:
    """What a connection is, as far as patience asks."""

    clock = ManualClock(0.0)
    finished = False

    @property
    def pgconn(self):
        return self

    def finish(self):
        self.finished = True


def conversation():
    heard = yield "read"
    while heard != "the end":
        heard = yield "read"
    return "answer"


def test_who_hears_something_now_and_then_waits_on():
    connection = Silent()
    waiting = PatientConnection._impatient(connection, conversation(), 5.0)
    next(waiting)

    for _ in range(10):
        connection.clock.advance(4.0)
        waiting.send("a part")
    with pytest.raises(StopIteration) as end:
        waiting.send("the end")

    assert end.value.value == "answer"
    assert not connection.finished


def test_who_hears_nothing_for_too_long_hangs_up():
    connection = Silent()
    waiting = PatientConnection._impatient(connection, conversation(), 5.0)
    next(waiting)
    connection.clock.advance(4.0)
    waiting.send("")
    connection.clock.advance(1.5)

    with pytest.raises(psycopg.OperationalError, match=r"silent for 5 s"):
        waiting.send("")

    assert connection.finished
