"""Statements about many rows, whose text is made once for each database and goes to its driver.

SQLAlchemy takes longer to get a statement and each of its rows ready than the database takes to run
it. What every session passes through several times is therefore written here once for both
databases: SQLite is given what changes row after row, in one call, and what is new many rows at a
time; PostgreSQL all rows as one JSON text, in one round trip, and very many new ones by COPY.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from sqlite3 import SQLITE_LIMIT_VARIABLE_NUMBER
from typing import Any, NamedTuple

from sqlalchemy import Connection, Dialect, Select, Table, delete, text
from sqlalchemy import Delete as SqlDelete
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.exc import DBAPIError

from sokovan.store.parts import dumps

Row = Mapping[str, Any]
ROWS_AT_ONCE = 64
"""So many rows SQLite is given with one statement, a power of two; more take longer again."""
COPIED_FROM = 100
"""PostgreSQL is given so many rows or more by COPY, and need not take a large JSON text apart."""
_TAKE_NUMBERS = "SELECT nextval(pg_get_serial_sequence(%s, %s)) FROM generate_series(1, %s)"


class Bulk:
    """A statement that takes any number of values or rows at once."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def run(self, connection: Connection, given: Sequence[Any]) -> Any:
        """Execute it.

        Raises:
            DBAPIError: As SQLAlchemy raises it.
        """
        dialect = connection.dialect
        written = self._texts.get(dialect.name)
        if written is None:
            make: Callable[[Dialect], str] = getattr(self, f"_for_{dialect.name}")
            written = self._texts[dialect.name] = make(dialect)
        cursor = connection.connection.cursor()
        try:
            return self._execute(cursor, dialect.name, written, given)
        except dialect.loaded_dbapi.Error as error:
            raise _as_raised(connection, cursor, written, error) from error
        finally:
            cursor.close()

    def _execute(self, cursor: DBAPICursor, database: str, written: str, given: Any) -> Any:
        send(cursor, written, getattr(self, f"_to_{database}")(given))
        return self._result(cursor)

    def _result(self, cursor: DBAPICursor) -> Any:
        return cursor.rowcount


def send(cursor: DBAPICursor, written: str, passed: Any) -> None:
    """Have the driver execute a statement, for one set of parameters or for each of a list."""
    if isinstance(passed, list):
        cursor.executemany(written, passed)
    else:
        cursor.execute(written, passed)


def stream(cursor: Any, written: str, rows: Iterable[tuple[Any, ...]]) -> None:
    """Have psycopg execute a COPY, and give it rows."""
    with cursor.copy(written) as copy:
        for row in rows:
            copy.write_row(row)


def _as_raised(
    connection: Connection, cursor: DBAPICursor, written: str, error: Any
) -> BaseException:
    """Return what SQLAlchemy would have raised; a connection that is lost is used no more."""
    dialect = connection.dialect
    is_lost = dialect.is_disconnect(error, connection.connection.dbapi_connection, cursor)
    raised: BaseException = DBAPIError.instance(
        written,
        None,
        error,
        dialect.loaded_dbapi.Error,
        connection_invalidated=is_lost,
        dialect=dialect,
    )
    if is_lost:
        connection.invalidate(error)
    return raised


class _ByValues(Bulk):
    """A statement about the rows in which a column has one of many values, or several of text do.

    Args:
        statement: Without parameters of its own.
        columns: `table.column`; where there are several, each value is a tuple.
    """

    def __init__(self, statement: Select[Any] | SqlDelete, *columns: Any) -> None:
        super().__init__()
        self._statement = statement
        self._columns = [f"{column.table.name}.{column.name}" for column in columns]
        self._given = [f"given{n}" for n in range(len(columns))]

    def _for_sqlite(self, dialect: Dialect) -> str:
        if len(self._columns) == 1:
            wanted = "value"
        else:
            parts = range(len(self._columns))
            wanted = ", ".join(f"json_extract(value, '$[{n}]')" for n in parts)
        return self._where(dialect, f"IN (SELECT {wanted} FROM json_each(:given0))")

    def _for_postgresql(self, dialect: Dialect) -> str:
        if len(self._columns) == 1:
            return self._where(dialect, "= ANY(:given0)")
        wanted = ", ".join(f"CAST(:{name} AS text[])" for name in self._given)
        return self._where(dialect, f"IN (SELECT * FROM unnest({wanted}))")

    def _where(self, dialect: Dialect, condition: str) -> str:
        names = ", ".join(self._columns)
        named = names if len(self._columns) == 1 else f"({names})"
        compiled = self._statement.where(text(f"{named} {condition}")).compile(dialect=dialect)
        assert set(compiled.params) <= set(self._given), "the statement has parameters of its own"
        return str(compiled)

    def _to_sqlite(self, values: Sequence[Any]) -> Any:
        return (dumps(list(values)),)

    def _to_postgresql(self, values: Sequence[Any]) -> Any:
        columns = [values] if len(self._columns) == 1 else zip(*values, strict=True)
        return {name: list(column) for name, column in zip(self._given, columns, strict=True)}


class Among(_ByValues):
    """Reads the rows of a query in which a column has one of many values, or several of text do.

    A row is a tuple with the columns as attributes.
    """

    def __init__(self, query: Select[Any], *columns: Any) -> None:
        super().__init__(query, *columns)
        selected = [(column.name, Any) for column in query.selected_columns]
        self._as_row = NamedTuple("_Row", selected)._make

    def _result(self, cursor: DBAPICursor) -> Any:
        return list(map(self._as_row, cursor.fetchall()))


class Delete(_ByValues):
    """Removes the rows in which a column has one of many values; returns how many there were."""

    def __init__(self, table: Table, key: str) -> None:
        super().__init__(delete(table), table.c[key])


class Insert(Bulk):
    """Adds rows to a table; returns their numbers where that is asked for.

    Args:
        table: Where to.
        numbered: The column that the database fills with numbers by itself.
        returns_numbers: Whether to return these, in the order of the rows.
    """

    def __init__(self, table: Table, *, numbered: str = "", returns_numbers: bool = False) -> None:
        super().__init__()
        self._table = table
        self._columns = [c.name for c in table.columns if c.name != numbered]
        self._values = itemgetter(*self._columns)
        self._numbered = numbered if returns_numbers else ""

    def _result(self, cursor: DBAPICursor) -> Any:
        return [number for (number,) in cursor.fetchall()] if self._numbered else None

    def _execute(self, cursor: DBAPICursor, database: str, written: str, given: Any) -> Any:
        if database == "sqlite":
            return self._add(cursor, written, given)
        if len(given) >= COPIED_FROM:
            return self._copy(cursor, given)
        return super()._execute(cursor, database, written, given)

    def _add(self, cursor: Any, written: str, rows: Sequence[Row]) -> Any:
        """Add many rows with each of a few statements, which are always the same ones.

        Row after row takes a third longer, and between two of them this thread gives way to the
        others, and waits until it has its turn again.
        """
        most = cursor.connection.getlimit(SQLITE_LIMIT_VARIABLE_NUMBER) // len(self._columns) or 1
        size, at = ROWS_AT_ONCE, 0
        place = "(" + ", ".join("?" * len(self._columns)) + ")"
        while at < len(rows):
            while size > min(len(rows) - at, most):
                size //= 2
            values = chain.from_iterable(map(self._values, rows[at : at + size]))
            send(cursor, f"{written} {', '.join([place] * size)}", tuple(values))
            at += size
        if not self._numbered:
            return None
        cursor.execute("SELECT last_insert_rowid()")
        ((last,),) = cursor.fetchall()
        return range(last - len(rows) + 1, last + 1)  # nobody else writes meanwhile

    def _copy(self, cursor: Any, rows: Sequence[Row]) -> Any:
        """Stream rows in; their numbers, where they are to be returned, are taken beforehand."""
        names, numbers = self._columns, None
        values: Iterable[tuple[Any, ...]] = map(self._values, rows)
        if self._numbered:
            send(cursor, _TAKE_NUMBERS, (self._table.name, self._numbered, len(rows)))
            numbers = [number for (number,) in cursor.fetchall()]
            names = [self._numbered, *names]
            values = ((number, *row) for number, row in zip(numbers, values, strict=True))
        stream(cursor, f"COPY {self._table.name} ({_listed(names)}) FROM STDIN", values)
        return numbers

    def _for_sqlite(self, dialect: Dialect) -> str:
        return f"INSERT INTO {self._table.name} ({_listed(self._columns)}) VALUES"

    def _for_postgresql(self, dialect: Dialect) -> str:
        names = _listed(self._columns)
        source = _recordset(dialect, {name: self._table.c[name] for name in self._columns})
        returning = f" RETURNING {self._numbered}" if self._numbered else ""
        return f"INSERT INTO {self._table.name} ({names}) SELECT {names} FROM {source}{returning}"

    def _to_postgresql(self, rows: Sequence[Row]) -> Any:
        return {"given": dumps(rows)}


class Update(Bulk):
    """Sets columns of rows by their key, which each has as `at_id`; returns how many there were.

    Args:
        table: What to change.
        key: The column that `at_id` is compared with.
        columns: What to set.
        guard: A column that must still be what a row has as `at_seq`.
    """

    def __init__(
        self, table: Table, key: str, columns: Iterable[str], *, guard: str | None = None
    ) -> None:
        super().__init__()
        self._table = table
        self._columns = list(columns)
        self._at = {"at_id": key} | ({} if guard is None else {"at_seq": guard})
        self._values = itemgetter(*self._columns, *self._at)

    def _for_sqlite(self, dialect: Dialect) -> str:
        changes = ", ".join(f'"{name}" = ?' for name in self._columns)
        where = " AND ".join(f"{column} = ?" for column in self._at.values())
        return f"UPDATE {self._table.name} SET {changes} WHERE {where}"

    def _for_postgresql(self, dialect: Dialect) -> str:
        table = self._table.name
        changes = ", ".join(f'"{name}" = given."{name}"' for name in self._columns)
        where = " AND ".join(f"{table}.{c} = given.{name}" for name, c in self._at.items())
        named = {name: self._table.c[name] for name in self._columns}
        named |= {name: self._table.c[column] for name, column in self._at.items()}
        return f"UPDATE {table} SET {changes} FROM {_recordset(dialect, named)} WHERE {where}"

    def _to_sqlite(self, rows: Sequence[Row]) -> Any:
        return list(map(self._values, rows))

    def _to_postgresql(self, rows: Sequence[Row]) -> Any:
        return {"given": dumps(rows)}


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _recordset(dialect: Dialect, columns: Mapping[str, Any]) -> str:
    """Return rows, in the order in which they were given, with columns like those of tables."""
    types = ", ".join(f'"{name}" {c.type.compile(dialect=dialect)}' for name, c in columns.items())
    return f"json_to_recordset(CAST(%(given)s AS json)) AS given({types})"
