"""How statements reach the database: commits together, errors apart, results in order."""

import asyncio
import threading

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from sokovan.config import StoreConfig
from sokovan.domain.errors import StoreUnavailableError
from sokovan.store.engine import InlineDatabase, JointJob
from sokovan.store.sqlite import open_sqlite
from sokovan.store.threads import ThreadedDatabase


@pytest.fixture
async def database(tmp_path):
    engine = open_sqlite(tmp_path / "x.db", StoreConfig())
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE t (n INTEGER PRIMARY KEY)"))
    database = ThreadedDatabase(engine, asyncio.get_running_loop())
    yield database
    await asyncio.to_thread(database.close)


def inserting(number, hooks=None):
    def job(tx):
        if hooks is not None:
            tx.after_commit(lambda: hooks.append(number))
        tx.execute(text("INSERT INTO t VALUES (:n)"), {"n": number})
        return number

    return job


def numbers(tx):
    return list(tx.execute(text("SELECT n FROM t ORDER BY n")).scalars())


class Blocking:
    """A job that holds up the writer, so that what comes after it is committed together."""

    def __init__(self):
        self._begun, self._go_on = threading.Event(), threading.Event()

    def __call__(self, tx):
        self._begun.set()
        assert self._go_on.wait(10)

    async def holds_up(self, database):
        asked = asyncio.create_task(database.write(self))
        assert await asyncio.to_thread(self._begun.wait, 10)
        return asked

    async def lets_go(self):
        await asyncio.sleep(0)  # what was asked for is begun
        await asyncio.sleep(0)  # and handed over
        self._go_on.set()


async def test_results_and_hooks_come_in_the_order_of_the_jobs(database):
    hooks = []

    found = await asyncio.gather(*(database.write(inserting(n, hooks)) for n in range(10)))

    assert found == hooks == list(range(10))
    assert await database.read(numbers) == list(range(10))


async def test_an_error_undoes_only_its_own_part_of_a_common_commit(database):
    hooks, blocking = [], Blocking()
    first = await blocking.holds_up(database)
    jobs = [database.write(inserting(n, hooks)) for n in (1, 1, 2)]
    together = asyncio.gather(*jobs, return_exceptions=True)
    await blocking.lets_go()
    await first

    one, error, two = await together

    assert (one, two) == (1, 2)
    assert isinstance(error, IntegrityError)
    assert hooks == [1, 2]
    assert await database.read(numbers) == [1, 2]


async def test_an_error_of_a_job_alone_is_raised_to_whoever_asked(database):
    await database.write(inserting(1))

    with pytest.raises(IntegrityError):
        await database.write(inserting(1))


async def test_a_part_that_the_database_refuses_does_not_fail_the_others(database):
    hooks, blocking = [], Blocking()
    first = await blocking.holds_up(database)
    together = asyncio.gather(
        database.write(inserting(1, hooks)),
        database.write(lambda tx: tx.execute(text("SELECT * FROM nowhere"))),
        return_exceptions=True,
    )
    await blocking.lets_go()
    await first

    done, refused = await together

    assert not isinstance(done, Exception)
    assert isinstance(refused, StoreUnavailableError)
    assert hooks == [1]
    assert await database.read(numbers) == [1]


async def test_a_failed_read_is_raised_to_whoever_asked_and_reading_goes_on(database):
    with pytest.raises(StoreUnavailableError):
        await database.read(lambda tx: tx.execute(text("SELECT * FROM nowhere")))

    assert await database.read(numbers) == []


async def test_a_store_that_cannot_be_opened_to_read_is_opened_as_soon_as_it_can(tmp_path):
    store = tmp_path / "x.db"
    store.mkdir()
    database = ThreadedDatabase(open_sqlite(store, StoreConfig()), asyncio.get_running_loop())

    with pytest.raises(StoreUnavailableError):
        await database.read(lambda tx: tx.execute(text("SELECT 1")).scalar_one())
    store.rmdir()

    assert await database.read(lambda tx: tx.execute(text("SELECT 1")).scalar_one()) == 1
    await asyncio.to_thread(database.close)


async def test_what_was_asked_for_is_done_though_nobody_waits_for_it(database):
    hooks = []
    asked = asyncio.create_task(database.write(inserting(1, hooks)))
    await asyncio.sleep(0)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked

    await database.write(inserting(2, hooks))

    assert hooks == [1, 2]
    assert await database.read(numbers) == [1, 2]


async def test_closing_finishes_what_was_begun(tmp_path):
    engine = open_sqlite(tmp_path / "x.db", StoreConfig())
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE t (n INTEGER PRIMARY KEY)"))
    database = ThreadedDatabase(engine, asyncio.get_running_loop())
    asked = [asyncio.create_task(database.write(inserting(n))) for n in range(5)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    await asyncio.to_thread(database.close)

    assert [await task for task in asked] == list(range(5))


async def test_an_inline_database_says_what_is_wrong_in_words_to_act_on(tmp_path):
    database = InlineDatabase(open_sqlite(tmp_path / "nowhere" / "x.db", StoreConfig()))

    with pytest.raises(StoreUnavailableError, match="check that the home directory still exists"):
        await database.write(numbers)


class Joint:
    """Inserts numbers, all that meet with one statement; refuses odd ones, and knows how often."""

    def __init__(self, hooks=None):
        self.done, self._hooks = [], [] if hooks is None else hooks

    def __call__(self, tx, asked):
        self.done.append(asked)
        kept = [number for number in asked if number % 2 == 0]
        if kept:
            tx.execute(text("INSERT INTO t VALUES (:n)"), [{"n": number} for number in kept])
        tx.after_commit(lambda: self._hooks.extend(kept))
        return [number if number % 2 == 0 else ValueError(number) for number in asked]


async def test_joint_jobs_that_meet_are_done_in_one_go_and_refused_one_by_one(database):
    hooks, blocking = [], Blocking()
    joint = Joint(hooks)
    first = await blocking.holds_up(database)
    together = asyncio.gather(
        *(database.write(JointJob(joint, number)) for number in (1, 2, 4)),
        database.write(inserting(5, hooks)),
        database.write(JointJob(joint, 6)),
        return_exceptions=True,
    )
    await blocking.lets_go()
    await first

    refused, *done = await together

    assert isinstance(refused, ValueError)
    assert done == [2, 4, 5, 6]
    assert joint.done == [[1, 2, 4], [6]], "what another job stands between is not moved"
    assert hooks == [2, 4, 5, 6]
    assert await database.read(numbers) == [2, 4, 5, 6]


async def test_joint_jobs_are_done_one_by_one_when_the_database_refuses_them_together(database):
    await database.write(inserting(4))
    blocking, joint = Blocking(), Joint()
    first = await blocking.holds_up(database)
    together = asyncio.gather(
        *(database.write(JointJob(joint, number)) for number in (2, 4, 6)), return_exceptions=True
    )
    await blocking.lets_go()
    await first

    two, known, six = await together

    assert (two, six) == (2, 6)
    assert isinstance(known, IntegrityError)
    assert await database.read(numbers) == [2, 4, 6]


async def test_a_joint_job_may_be_alone(database):
    joint = Joint()

    assert await database.write(JointJob(joint, 2)) == 2
    with pytest.raises(ValueError, match="3"):
        await database.write(JointJob(joint, 3))
