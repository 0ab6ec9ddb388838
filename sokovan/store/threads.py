"""One writer with group commit, and a reader beside it, each on a thread of its own.

All writing goes through one connection. The writer takes what has queued up while the last commit
was on its way to the disk and commits it together, with one fsync for all. When one of them fails,
they are done again, each in a savepoint of its own, and only that one is left out; joint jobs say
of each what it has come to, and need not be done again.
"""

import asyncio
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import groupby
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine

from sokovan.domain.errors import CommitUnknownError
from sokovan.store.engine import Job, JointJob, KeptConnection, Transaction, begun, committing
from sokovan.store.news import News
from sokovan.store.trouble import as_unavailable, is_nobodys_fault, is_trouble

T = TypeVar("T")

JOBS_PER_COMMIT_MAX = 256


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
        stopping, kept = False, KeptConnection(self.engine)
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
                self._commit(batch, kept)
        kept.close()

    def _commit(self, batch: "list[_Queued]", kept: KeptConnection, *, apart: bool = False) -> None:
        """Run jobs and commit them; `apart` has the error of one undo only its own part.

        To keep them apart costs two statements for each, and hardly ever does a job fail: it is
        done when one has.
        """
        try:
            with self.around_commit(len(batch)), committing(self.engine, kept) as connection:
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
                    self._commit(batch, kept, apart=True)
                    return
                for queued in batch:  # nothing was committed; whose fault it is shows one by one
                    self._commit([queued], kept)
                return
            for queued in batch:
                queued.fail(error)
        self._deliver(batch)

    def _read_loop(self) -> None:
        while (queued := self._reads.get()) is not None:
            try:
                with begun(self.engine, reads_only=True) as connection:
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
        """What is the same for jobs that can be done in one go; itself, if it is no such job."""
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
        self._error = as_unavailable(error) if is_trouble(error) else error
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
    for kind, group in groupby(batch, lambda queued: queued if apart else queued.kind):
        if isinstance(kind, _Queued):
            yield kind.run(connection, apart=apart)
        else:
            yield _run_together([*group], connection)


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
