"""A commit of which it is not known whether it took place: read back, not guessed, nor redone."""

import asyncio

import pytest
from sqlalchemy import event, text

from sokovan.config import StoreConfig
from sokovan.domain.errors import CommitUnknownError
from sokovan.domain.sessions import AgentId
from sokovan.store.engine import InlineDatabase
from sokovan.store.sqlite import open_sqlite
from sokovan.store.threads import ThreadedDatabase
from tests.build import A1, a_repository, a_spec, an_agent_hello, in_memory, placed

SPEC = a_spec(creation_id="mine")


class Doubtful(InlineDatabase):
    """Commits, or does not, and says that it does not know."""

    def __init__(self):
        super().__init__(in_memory().engine)
        self.doubts = []
        """For each of the next writes: whether it is committed in truth."""

    async def write(self, job):
        if not self.doubts:
            return self.write_now(job)
        if self.doubts.pop(0):
            self.write_now(job, tells=False)
        raise CommitUnknownError("nobody knows")


@pytest.mark.parametrize("is_committed", [True, False])
async def test_a_submission_in_doubt_is_one_session_when_it_is_repeated(is_committed):
    database = Doubtful()
    repository = await asyncio.to_thread(a_repository, database=database)

    database.doubts = [is_committed]
    with pytest.raises(CommitUnknownError):
        await repository.submit([SPEC])
    seen = list(repository.live.sessions)
    (session_id,), _ = await repository.submit([SPEC])

    assert seen == ([session_id] if is_committed else [])
    assert list(repository.live.sessions) == [session_id]


async def test_what_is_in_doubt_is_looked_up_before_anything_else_is_written():
    """Also when it cannot be looked up at once: the database may be away for longer."""
    database = Doubtful()
    repository = await asyncio.to_thread(a_repository, "default", database=database)
    await repository.register_agent(an_agent_hello(A1))
    (session_id,), _ = await repository.submit([SPEC])

    database.doubts = [True, False]
    with pytest.raises(CommitUnknownError):
        await placed(repository, session_id)
    assert not list(repository.live.holds_on(AgentId(A1))), "nobody could tell"
    await repository.set_held(session_id, held=True)

    assert len(list(repository.live.holds_on(AgentId(A1)))) == 1
    assert repository.groups["default"].last_agent_id == A1


@pytest.fixture
async def threaded(tmp_path):
    engine = open_sqlite(tmp_path / "x.db", StoreConfig())

    @event.listens_for(engine, "connect")
    def _keep_promises(connection, _record):
        connection.execute("PRAGMA foreign_keys=ON")

    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE t (n INTEGER PRIMARY KEY)"))
        promise = "n INTEGER REFERENCES t (n) DEFERRABLE INITIALLY DEFERRED"
        connection.execute(text(f"CREATE TABLE u ({promise})"))
    database = ThreadedDatabase(engine, asyncio.get_running_loop())
    yield database
    await asyncio.to_thread(database.close)


async def test_jobs_whose_commit_failed_are_not_done_again(threaded):
    done, hooks = [], []

    def job(tx, value):
        done.append(value)
        tx.after_commit(lambda: hooks.append(value))
        tx.execute(text("INSERT INTO u VALUES (:n)"), {"n": value})

    found = await asyncio.gather(
        *(threaded.write(lambda tx, n=n: job(tx, n)) for n in (1, 2)), return_exceptions=True
    )

    assert [type(error) for error in found] == [CommitUnknownError] * 2
    assert done == [1, 2]
    assert not hooks
    assert await threaded.read(lambda tx: list(tx.execute(text("SELECT * FROM u")))) == []
