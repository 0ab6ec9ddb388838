"""Every row of one store into another, whatever databases they are, and the proof that they agree.

Both are at this version's schema. The proof is a digest over all rows of each table in the order of
its key, as the database gives them back.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Float,
    Integer,
    String,
    Table,
    func,
    inspect,
    select,
    text,
)
from sqlalchemy.exc import DBAPIError

from sokovan.domain.errors import StoreDamagedError
from sokovan.store.tables import metadata

Row = tuple[Any, ...]
Mend = Callable[[str], str]
"""Makes a text one that the other database can keep."""
Tell = Callable[[str], None]
"""Is told what is being done."""

ROWS_AT_ONCE = 2000
NAMED_MAX = 10
"""So many rows at most are named that the other database cannot keep."""
_RANGES = {Integer: 2**31, BigInteger: 2**63}
NUL, IN_PLACE_OF_NUL = "\x00", "\N{REPLACEMENT CHARACTER}"


def as_it_is(value: str) -> str:
    """Leave a text alone."""
    return value


def without_nul(value: str) -> str:
    """Return a text with U+FFFD for each NUL, which PostgreSQL cannot keep."""
    return value.replace(NUL, IN_PLACE_OF_NUL)


def copy_rows(
    source: Connection, target: Connection, *, mend: Mend = as_it_is, tell: Tell = print
) -> dict[str, int]:
    """Copy all rows into a store that has none, with their numbers; return how many, by table.

    Raises:
        StoreDamagedError: Rows are not of the types that their columns have, or have texts that
            PostgreSQL cannot keep. Nothing may be committed then.
    """
    is_postgresql = target.dialect.name == "postgresql"
    put = _put_by_copy if is_postgresql else _put_by_insert
    counts: dict[str, int] = {}
    unfit: list[str] = []
    for table in metadata.sorted_tables:
        tell(f"copying {table.name}")
        rows = rows_of(source, table, mend)
        counts[table.name] = put(target, table, _fit(table, rows, unfit) if is_postgresql else rows)
    if unfit:
        more = "" if len(unfit) < NAMED_MAX else ", and perhaps more"
        raise StoreDamagedError(
            f"PostgreSQL cannot keep this: {'; '.join(unfit)}{more}; nothing was copied"
        )
    if is_postgresql:
        _number_behind(target)
    return counts


def digests(connection: Connection, *, mend: Mend = as_it_is, tell: Tell = print) -> dict[str, str]:
    """Return a digest of all rows of each table: count and contents."""
    found = {}
    for table in metadata.sorted_tables:
        tell(f"comparing {table.name}")
        digest, count = hashlib.sha256(), 0
        for row in rows_of(connection, table, mend):
            digest.update(repr(row).encode())
            count += 1
        found[table.name] = f"{count} rows, sha256 {digest.hexdigest()}"
    return found


def differences(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """Say in which tables two stores differ."""
    return [
        f"{name}: {said} here, {other.get(name)} there"
        for name, said in one.items()
        if said != other.get(name)
    ]


def counts_of(connection: Connection) -> dict[str, int]:
    """Return how many rows each table has; an older store lacks some tables."""
    there = set(inspect(connection).get_table_names())
    return {
        table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
        for table in metadata.sorted_tables
        if table.name in there
    }


def rows_of(connection: Connection, table: Table, mend: Mend = as_it_is) -> Iterator[Row]:
    """Yield the rows of a table in the order of its key, a few at a time."""
    reals = [i for i, column in enumerate(table.c) if isinstance(column.type, Float)]
    texts = [] if mend is as_it_is else _texts_of(table)
    streaming = {"stream_results": True, "yield_per": ROWS_AT_ONCE}
    query = select(table).order_by(*table.primary_key.columns)
    for found in connection.execute(query, execution_options=streaming):
        row = list(found)
        for i in reals:
            if row[i] == 0.0:
                row[i] = 0.0  # SQLite has no negative zero
        for i in texts:
            if isinstance(row[i], str):
                row[i] = mend(row[i])
        yield tuple(row)


def _texts_of(table: Table) -> list[int]:
    return [i for i, column in enumerate(table.c) if isinstance(column.type, String)]


# --- what PostgreSQL is strict about ------------------------------------------------------------


def _fit(table: Table, rows: Iterator[Row], unfit: list[str]) -> Iterator[Row]:
    """Yield rows that PostgreSQL takes; name those that it does not, and pass no others then."""
    judges = [(column, _judge_of(column)) for column in table.c]
    keys = [i for i, column in enumerate(table.c) if column.primary_key]
    for row in rows:
        faults = [
            f"{column.name} {fault}"
            for (column, judge), value in zip(judges, row, strict=True)
            if (fault := judge(value)) is not None
        ]
        if faults and len(unfit) < NAMED_MAX:
            key = " ".join(repr(row[i]) for i in keys)
            unfit.append(f"{table.name} {key}: {', '.join(faults)}")
        if not unfit:
            yield row


def _judge_of(column: Column[Any]) -> Callable[[Any], str | None]:
    kind: type = float if isinstance(column.type, Float) else str
    if isinstance(column.type, Boolean):
        kind = bool
    elif isinstance(column.type, Integer):
        kind = int
    most = next((n for of, n in _RANGES.items() if type(column.type) is of), 2**63)
    length = getattr(column.type, "length", None)

    def judge(value: Any) -> str | None:
        if value is None:
            return None if column.nullable else "is missing"
        if type(value) is not kind:
            return f"is no {kind.__name__}"
        if isinstance(value, str):
            if NUL in value:
                return "has a NUL character"
            if length is not None and len(value) > length:
                return f"is longer than {length} characters"
        elif isinstance(value, int) and not -most <= value < most:
            return "is too large a number"
        return None

    return judge


# --- writing -------------------------------------------------------------------------------------


def _names(target: Connection, table: Table) -> tuple[str, str]:
    quote = target.dialect.identifier_preparer.quote
    return quote(table.name), ", ".join(quote(column.name) for column in table.c)


def _put_by_insert(target: Connection, table: Table, rows: Iterator[Row]) -> int:
    name, columns = _names(target, table)
    places = ", ".join("?" * len(table.c))
    statement = f"INSERT INTO {name} ({columns}) VALUES ({places})"
    count = 0
    while part := list(islice(rows, ROWS_AT_ONCE)):
        target.exec_driver_sql(statement, part)
        count += len(part)
    return count


def _put_by_copy(target: Connection, table: Table, rows: Iterator[Row]) -> int:
    name, columns = _names(target, table)
    cursor = target.connection.cursor()
    driver = target.dialect.dbapi
    assert driver is not None
    count = 0
    try:
        with cursor.copy(f"COPY {name} ({columns}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)
                count += 1
    except driver.Error as error:
        raise DBAPIError.instance(
            f"COPY {name}", None, error, driver.Error, dialect=target.dialect
        ) from error
    finally:
        cursor.close()
    return count


def _number_behind(target: Connection) -> None:
    """Have PostgreSQL give the numbers that follow the last one that was copied."""
    for table in metadata.sorted_tables:
        column = table.autoincrement_column
        if column is None:
            continue
        last = target.execute(select(func.max(column))).scalar()
        if last is not None:
            named = {"table": table.name, "column": column.name, "last": last}
            target.execute(
                text("SELECT setval(pg_get_serial_sequence(:table, :column), :last)"), named
            )
