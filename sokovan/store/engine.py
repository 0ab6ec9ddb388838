"""How statements reach the database: one writer with group commit, readers beside it.

All writing goes through one connection. A `Writer` takes what has queued up while the last commit
was on its way to the disk and commits it together, with one fsync for all. When one of them fails,
they are done again, each in a savepoint of its own, and only that one is left out.
"""

import asyncio
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from itertools import groupby
from typing import Any, Generic, Protocol, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from sokovan.domain.errors import CommitUnknownError
from sokovan.store.bulk import Bulk
from sokovan.store.news import News
from sokovan.store.postgresql import MARK, read_back
from sokovan.store.trouble import as_unavailable, is_nobodys_fault, is_trouble, undoes_a_commit

A = TypeVar("A")
T = TypeVar("T")

JOBS_PER_COMMIT_MAX = 256
IDS_PER_STATEMENT_MAX = 5000
"""Databases limit the parameters of one statement."""


class Transaction:
    """A connection inside a transaction, and what is to happen once it is durable."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.hooks: list[Callable[[], None]] = []
        self.news = News()

    def execute(self, statement: Any, parameters: Any = None) -> Any:
        """Execute a statement, once or for each of a list of parameters."""
        if isinstance(statement, Bulk):
            return statement.run(self.connection, parameters)
        return self.connection.execute(statement, parameters)

    def after_commit(self, hook: Callable[[], None]) -> None:
        """Have `hook` run after the commit, before anybody hears of it."""
        self.hooks.append(hook)


Job = Callable[[Transaction], T]


class JointJob(Generic[A, T]):
    """A job that is done in one go with others of its kind that meet it in a commit.

    Args:
        do: Given what each of them asks for; returns for each its result, or the error that it has
            come to before anything of it was written.
        asked: What this one asks for.
    """

    def __init__(
        self, do: Callable[[Transaction, Sequence[A]], Sequence[T | Exception]], asked: A
    ) -> None:
        self.do = do
        self.asked = asked

    def __call__(self, tx: Transaction) -> T:
        """Do it alone."""
        (outcome,) = self.do(tx, [self.asked])
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


class Database(Protocol):
    """Runs jobs in transactions."""

    async def write(self, job: Job[T]) -> T:
        """Run `job`, commit it, and return its result."""
        ...

    async def read(self, job: Job[T]) -> T:
        """Run `job`, which only reads, and return its result."""
        ...

    def close(self) -> None:
        """Finish what was begun, and let go of the database."""
        ...


@contextmanager
def committing(engine: Engine) -> Iterator[Connection]:
    """Begin a transaction, and commit it at the end unless something is raised.

    Raises:
        CommitUnknownError: The commit failed, and the database does not say whether it was made.
            Whatever else is raised: nothing was written.
    """
    with _begun(engine) as connection:
        begun = connection.get_transaction()
        assert begun is not None
        try:
            yield connection
        except BaseException:
            begun.rollback()
            raise
        mark = connection.info.get(MARK)
        try:
            begun.commit()
        except DBAPIError as error:
            with suppress(DBAPIError):
                begun.rollback()
            if undoes_a_commit(error):
                raise
            if mark is None or (was_made := read_back(engine, mark)) is None:
                raise CommitUnknownError(as_unavailable(error).message) from error
            if not was_made:
                raise as_unavailable(error) from error


def _begun(engine: Engine, *, reads_only: bool = False) -> Connection:
    """Return a connection with a transaction; one that was lost meanwhile is made anew, once."""
    try:
        return _begun_once(engine, reads_only=reads_only)
    except DBAPIError as error:
        if not error.connection_invalidated:
            raise
    return _begun_once(engine, reads_only=reads_only)


def _begun_once(engine: Engine, *, reads_only: bool) -> Connection:
    connection = engine.connect().execution_options(reads_only=reads_only)
    try:
        connection.begin()
    except BaseException:
        connection.close()
        raise
    return connection


class InlineDatabase:
    """Runs everything at once on the calling thread; for tests and the simulator."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    async def write(self, job: Job[T]) -> T:
        """Run and commit `job`."""
        return self.write_now(job)

    async def read(self, job: Job[T]) -> T:
        """Run `job`."""
        return self.write_now(job)

    def write_now(self, job: Job[T], *, tells: bool = True) -> T:
        """Run and commit `job` outside any event loop; `tells` whoever waits for the commit."""
        try:
            with committing(self.engine) as connection:
                transaction = self.begun(connection)
                result = job(transaction)
        except DBAPIError as error:
            if not is_trouble(error):
                raise
            raise as_unavailable(error) from error
        for hook in transaction.hooks if tells else ():
            hook()
        return result

    def begun(self, connection: Connection) -> Transaction:
        """Return what a job is given."""
        return Transaction(connection)

    def close(self) -> None:
        """Let go of the database."""
        self.engine.dispose()


class ThreadedDatabase:
    """One thread writes, another reads; the event loop waits for neither.

    Results and commit hooks come back on the event loop, in the order of the commits.

    Attributes:
        around_commit: Entered for each commit, on the writer's thread, with how many jobs it has.
        publish: Given what a transaction has changed, inside of it, on the writer's thread.
    """

    def __init__(self, engine: Engine, loop: asyncio.AbstractEventLoop) -> None:
        self.engine = engine
        self._loop = loop
        self.around_commit: Callable[[int], AbstractContextManager[None]] = _unwatched
        self.publish: Callable[[Connection, News], None] = _unpublished
        self._writes: queue.SimpleQueue[_Queued | None] = queue.SimpleQueue()
        self._gathered: list[_Queued] = []
        self._reads: queue.SimpleQueue[_Queued | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._write_loop, name="store-writer"),
            threading.Thread(target=self._read_loop, name="store-reader"),
        ]
        for thread in self._threads:
            thread.start()

    async def write(self, job: Job[T]) -> T:
        """Run `job` on the writer, committed together with what else is waiting.

        What is asked for within one turn of the event loop is handed over at once, so that it is
        not torn apart into two commits.
        """
        queued = _Queued(job, self._loop.create_future())
        if not self._gathered:
            self._loop.call_soon(self._hand_over)
        self._gathered.append(queued)
        result: T = await queued.future
        return result

    def _hand_over(self) -> None:
        gathered, self._gathered = self._gathered, []
        for queued in gathered:
            self._writes.put(queued)

    async def read(self, job: Job[T]) -> T:
        """Run `job` on the reader."""
        queued = _Queued(job, self._loop.create_future())
        self._reads.put(queued)
        result: T = await queued.future
        return result

    def close(self) -> None:
        """Finish the queued jobs and end both threads."""
        self._writes.put(None)
        self._reads.put(None)
        for thread in self._threads:
            thread.join()
        self.engine.dispose()

    def _write_loop(self) -> None:
        stopping = False
        while not stopping:
            first = self._writes.get()
            batch = [] if first is None else [first]
            stopping = first is None
            while len(batch) < JOBS_PER_COMMIT_MAX and not stopping:
                try:
                    more = self._writes.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    stopping = True
                else:
                    batch.append(more)
            if batch:
                self._commit(batch)

    def _commit(self, batch: "list[_Queued]", *, apart: bool = False) -> None:
        """Run jobs and commit them; `apart` has the error of one undo only its own part.

        To keep them apart costs two statements for each, and hardly ever does a job fail: it is
        done when one has.
        """
        try:
            with self.around_commit(len(batch)), committing(self.engine) as connection:
                news = News()
                for changed in _run_all(batch, connection, apart=apart):
                    news.add(changed)
                if news:
                    self.publish(connection, news)
        except CommitUnknownError as error:  # to do it again might do it twice
            for queued in batch:
                queued.fail(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait must hear of it
            if len(batch) > 1 and not is_nobodys_fault(error):
                if not (apart or is_trouble(error)):
                    self._commit(batch, apart=True)
                    return
                for queued in batch:  # nothing was committed; whose fault it is shows one by one
                    self._commit([queued])
                return
            for queued in batch:
                queued.fail(error)
        self._deliver(batch)

    def _read_loop(self) -> None:
        while (queued := self._reads.get()) is not None:
            try:
                with _begun(self.engine, reads_only=True) as connection:
                    queued.run(connection)
            except Exception as error:  # noqa: BLE001 - whatever it is, the caller must hear of it
                queued.fail(error)
            self._deliver([queued])

    def _deliver(self, batch: "list[_Queued]") -> None:
        def deliver() -> None:
            for queued in batch:
                queued.deliver()

        self._loop.call_soon_threadsafe(deliver)


class _Queued:
    """A job on its way through a thread."""

    def __init__(self, job: Job[Any], future: "asyncio.Future[Any]") -> None:
        self.job = job
        self.future = future
        self._result: Any = None
        self._error: BaseException | None = None
        self._hooks: list[Callable[[], None]] = []

    @property
    def kind(self) -> object:
        """What is the same for jobs that can be done in one go."""
        return self.job.do if isinstance(self.job, JointJob) else self

    def run(self, connection: Connection, *, apart: bool = False) -> News:
        """Run the job; when it is kept `apart`, an error undoes only its own part.

        Returns:
            What it has changed.
        """
        transaction = Transaction(connection)
        self._error = None
        if not apart:
            self._result = self.job(transaction)
        else:
            try:
                with connection.begin_nested():
                    self._result = self.job(transaction)
            except Exception as error:
                if is_trouble(error):
                    raise  # the database itself is in trouble, not this job
                self._error = error
                return News()
        self._hooks = transaction.hooks
        return transaction.news

    def come_to(self, outcome: Any, hooks: list[Callable[[], None]]) -> None:
        """Take what a job that was done with others has come to: its result, or its error."""
        self._error = outcome if isinstance(outcome, Exception) else None
        self._result = outcome
        self._hooks = hooks

    def fail(self, error: BaseException) -> None:
        """Nothing of the job was committed, as far as is known."""
        self._error = self._error or (as_unavailable(error) if is_trouble(error) else error)
        self._hooks = []

    def deliver(self) -> None:
        """On the event loop: run the commit hooks, then let the caller go on."""
        if self._error is None:
            for hook in self._hooks:
                hook()
        if self.future.cancelled():
            return
        if self._error is not None:
            self.future.set_exception(self._error)
        else:
            self.future.set_result(self._result)


def _run_all(batch: Sequence[_Queued], connection: Connection, *, apart: bool) -> Iterator[News]:
    """Run jobs in their order; neighbours that can be done in one go are, unless kept `apart`."""
    for _, group in groupby(batch, lambda queued: queued if apart else queued.kind):
        queued = [*group]
        if len(queued) == 1:
            yield queued[0].run(connection, apart=apart)
        else:
            yield _run_together(queued, connection)


def _run_together(batch: Sequence[_Queued], connection: Connection) -> News:
    transaction = Transaction(connection)
    jobs = [queued.job for queued in batch if isinstance(queued.job, JointJob)]
    outcomes = jobs[0].do(transaction, [job.asked for job in jobs])
    hooks = transaction.hooks
    for queued, outcome in zip(batch, outcomes, strict=True):
        queued.come_to(outcome, hooks)
        if not isinstance(outcome, Exception):
            hooks = []  # the first one's are everybody's
    return transaction.news


def _unwatched(jobs: int) -> AbstractContextManager[None]:
    return nullcontext()


def _unpublished(connection: Connection, news: News) -> None:
    """There is nobody else to be told."""


def in_parts(ids: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Split what one statement cannot take."""
    for first in range(0, len(ids), IDS_PER_STATEMENT_MAX):
        yield ids[first : first + IDS_PER_STATEMENT_MAX]
