"""The connection is lost exactly at a commit: what became of it is read back, never guessed."""

import asyncio
import signal
import threading

import psycopg
import pytest

from sokovan.client import Client
from sokovan.config import StoreConfig
from sokovan.domain.errors import CommitUnknownError, SokovanError, StoreUnavailableError
from sokovan.store.engine import InlineDatabase
from sokovan.store.postgresql import open_postgresql
from tests.faults.database import Proxy, ended, faults_in, hang_up, home_on, submit
from tests.postgresql import Server

pytestmark = [pytest.mark.real, pytest.mark.faults, pytest.mark.postgres]

MARKED = "the-one-to-be-cut"


LATE = {
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "wal_writer_delay": "10s",
    "autovacuum": "off",
}
"""Nothing of a transaction reaches the disk before its commit, and only tests make any."""


@pytest.fixture(scope="module")
def server():
    found = Server(durable=True, settings=LATE)
    yield found
    found.close()


@pytest.fixture
def proxy(server):
    with Proxy(server.port) as found:
        yield found


def through(proxy: Proxy, server: Server, url: str) -> str:
    return url.replace(str(server.port), str(proxy.port))


def known(url: str, creation_id: str) -> int:
    with psycopg.connect(url) as connection:
        (count,) = connection.execute(
            "SELECT count(*) FROM sessions WHERE creation_id = %s", [creation_id]
        ).fetchone()
    return count


def test_a_submission_whose_commit_was_not_answered_is_found_and_accepted(server, proxy):
    url = server.prepared()
    with home_on(through(proxy, server, url)) as home:
        home.up()
        proxy.cut = (MARKED.encode(), "after")
        with Client(home=home.home, retry_s=0) as client:
            view = submit(client, home, MARKED)

        assert proxy.cuts == 1
        assert known(url, MARKED) == 1
        home.wait_for(lambda: ended(home, view["id"]), "end")
        assert faults_in(url) == ()


def test_a_submission_whose_commit_never_arrived_is_refused_and_then_accepted_once(server, proxy):
    url = server.prepared()
    with home_on(through(proxy, server, url)) as home:
        home.up()
        proxy.cut = (MARKED.encode(), "before")
        with Client(home=home.home, retry_s=0) as client:
            with pytest.raises(SokovanError) as refused:
                submit(client, home, MARKED)
            before = known(url, MARKED)
            view = submit(client, home, MARKED)

        assert proxy.cuts == 1
        assert refused.value.code == "store-unavailable"
        assert before == 0
        assert known(url, MARKED) == 1
        home.wait_for(lambda: ended(home, view["id"]), "end")
        assert faults_in(url) == ()


def test_a_command_does_not_even_notice(server, proxy):
    url = server.prepared()
    with home_on(through(proxy, server, url)) as home:
        home.up()
        proxy.cut = (MARKED.encode(), "before")
        view = submit(home.client, home, MARKED)

        assert proxy.cuts == 1
        home.wait_for(lambda: ended(home, view["id"]), "end")
        assert known(url, MARKED) == 1


def inserting(text):
    def job(tx):
        tx.connection.exec_driver_sql("INSERT INTO kept VALUES (%s)", (text,))
        return text

    return job


@pytest.fixture
def kept(server):
    url = server.empty()
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE kept (text VARCHAR)")
    return url


def written(url):
    with psycopg.connect(url) as connection:
        return [text for (text,) in connection.execute("SELECT text FROM kept").fetchall()]


def test_a_commit_that_was_made_counts_as_made(server, proxy, kept):
    database = InlineDatabase(open_postgresql(through(proxy, server, kept), StoreConfig()))
    proxy.cut = (MARKED.encode(), "after")

    assert asyncio.run(database.write(inserting(MARKED))) == MARKED
    assert proxy.cuts == 1
    assert written(kept) == [MARKED]
    database.close()


def test_a_commit_that_was_not_made_is_an_error_that_says_to_try_again(server, proxy, kept):
    database = InlineDatabase(open_postgresql(through(proxy, server, kept), StoreConfig()))
    proxy.cut = (MARKED.encode(), "before")

    with pytest.raises(StoreUnavailableError, match="try again") as refused:
        asyncio.run(database.write(inserting(MARKED)))

    assert not isinstance(refused.value, CommitUnknownError)
    assert proxy.cuts == 1
    assert written(kept) == []
    database.close()


def held_commit(database, proxy, texts):
    """Write in a thread, and hold its commit back; return the thread and the connection."""

    def write():
        try:
            texts.append(asyncio.run(database.write(inserting(MARKED))))
        except SokovanError as error:
            texts.append(error)

    proxy.cut = (MARKED.encode(), "hold")
    thread = threading.Thread(target=write)
    thread.start()
    return thread, proxy.held.get(timeout=60)


def outcome_after_reuse(server, proxy, kept):
    """Have a crash undo a transaction, and another one commit that has its number, if one can.

    Returns:
        What whoever wrote was told; `None` where the crash came too late to forget the number.
    """
    database = InlineDatabase(open_postgresql(through(proxy, server, kept), StoreConfig()))
    said = []
    thread, connection = held_commit(database, proxy, said)
    (number,) = server.execute("SELECT max(backend_xid::text::bigint) FROM pg_stat_activity")[0]
    server.stop(signal.SIGQUIT)
    server.start()
    with psycopg.connect(kept, autocommit=True) as other:
        last = 0
        while last < number:
            query = "INSERT INTO kept VALUES ('of another') RETURNING pg_current_xact_id()::text"
            last = int(other.execute(query).fetchone()[0])
    hang_up(connection)
    thread.join(60)
    database.close()
    return said[0] if last == number else None


def test_a_number_that_was_given_twice_leaves_it_unknown(server, proxy, kept):
    told = None
    for _ in range(20):
        told = told or outcome_after_reuse(server, proxy, kept)

        assert MARKED not in written(kept)
        if told:
            break

    assert isinstance(told, CommitUnknownError)


def test_after_a_crash_alone_it_is_known_that_nothing_was_written(server, proxy, kept):
    database = InlineDatabase(open_postgresql(through(proxy, server, kept), StoreConfig()))
    said = []
    thread, connection = held_commit(database, proxy, said)
    server.stop(signal.SIGQUIT)
    server.start()
    hang_up(connection)
    thread.join(60)
    database.close()

    assert isinstance(said[0], StoreUnavailableError)
    assert not isinstance(said[0], CommitUnknownError)
    assert written(kept) == []
