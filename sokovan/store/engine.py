"""How statements reach the database: jobs inside transactions, and what follows a commit."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Generic, Protocol, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from sokovan.domain.errors import CommitUnknownError
from sokovan.store.bulk import Bulk
from sokovan.store.news import News
from sokovan.store.postgresql import MARK, read_back
from sokovan.store.trouble import as_unavailable, is_trouble, undoes_a_commit

A = TypeVar("A")
T = TypeVar("T")

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


class KeptConnection:
    """A connection for one transaction after the other, as long as none of them fails.

    To be lent one anew takes longer than many a transaction.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._connection: Connection | None = None

    def begin(self) -> Connection:
        """Return the connection with a transaction; one that was lost meanwhile is made anew."""
        if self._connection is not None:
            try:
                self._connection.begin()
            except BaseException as error:
                self.close()
                if not (isinstance(error, DBAPIError) and error.connection_invalidated):
                    raise
        if self._connection is None:
            self._connection = begun(self._engine)
        return self._connection

    def close(self) -> None:
        """Give the connection back; the next transaction has another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


@contextmanager
def committing(engine: Engine, kept: KeptConnection | None = None) -> Iterator[Connection]:
    """Begin a transaction, and commit it at the end unless something is raised.

    Args:
        engine: Of the database.
        kept: Whose connection is used again afterwards, unless something is raised.

    Raises:
        CommitUnknownError: The commit failed, and the database does not say whether it was made.
            Whatever else is raised: nothing was written.
    """
    lent = kept or KeptConnection(engine)
    was_undisturbed = False
    try:
        connection = lent.begin()
        transaction = connection.get_transaction()
        assert transaction is not None
        try:
            yield connection
        except BaseException:
            transaction.rollback()
            raise
        mark = connection.info.get(MARK)
        try:
            transaction.commit()
            was_undisturbed = True
        except DBAPIError as error:
            with suppress(DBAPIError):
                transaction.rollback()
            if undoes_a_commit(error):
                raise
            if mark is None or (was_made := read_back(engine, mark)) is None:
                raise CommitUnknownError(as_unavailable(error).message) from error
            if not was_made:
                raise as_unavailable(error) from error
    finally:
        if lent is not kept or not was_undisturbed:
            lent.close()


def begun(engine: Engine, *, reads_only: bool = False) -> Connection:
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
                transaction = self.transaction_on(connection)
                result = job(transaction)
        except DBAPIError as error:
            if not is_trouble(error):
                raise
            raise as_unavailable(error) from error
        for hook in transaction.hooks if tells else ():
            hook()
        return result

    def transaction_on(self, connection: Connection) -> Transaction:
        """Return what a job is given."""
        return Transaction(connection)

    def close(self) -> None:
        """Let go of the database."""
        self.engine.dispose()


def in_parts(ids: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Split what one statement cannot take."""
    for first in range(0, len(ids), IDS_PER_STATEMENT_MAX):
        yield ids[first : first + IDS_PER_STATEMENT_MAX]
