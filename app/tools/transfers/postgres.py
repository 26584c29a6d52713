"""Postgres as a side of a transfer: COPY out of a query, COPY into a table."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import sql
from psycopg.abc import Buffer
from psycopg.copy import LibpqWriter

from app.errors import ToolError
from app.tools.pg.connections import Connection, is_quiet, opened
from app.tools.pg.conninfo import Conninfo, conninfo
from app.tools.pg.errors import classify
from app.tools.pg.load import Into, loading
from app.tools.pg.names import matched, table_name
from app.tools.pg.session import begin, cancel
from app.tools.pg.statement import bound
from app.tools.statements import split
from app.tools.transfers.job import Column, Job, Stream
from app.tools.transfers.records import keys_of
from app.tools.transfers.stream import parsed, pieces

#: DuckDB's types for those of Postgres; what is not here is text.
KINDS = {
    "bool": "BOOLEAN", "int2": "SMALLINT", "int4": "INTEGER", "int8": "BIGINT", "float4": "FLOAT",
    "float8": "DOUBLE", "date": "DATE", "time": "TIME", "timestamp": "TIMESTAMP",
    "timestamptz": "TIMESTAMPTZ", "uuid": "UUID", "bytea": "BLOB", "json": "JSON", "jsonb": "JSON",
    "oid": "BIGINT",
}  # fmt: skip

#: How values are written, whatever the server's own taste: the other side must read them.
UNAMBIGUOUS = (
    b"SET datestyle = 'ISO'; SET intervalstyle = 'postgres'; SET bytea_output = 'hex'; "
    # Then nothing but an error is said while rows are copied in.
    b"SET client_min_messages = 'error'"
)


@contextmanager
def session(
    job: Job, server: Conninfo, side: str, schema: str | None = None
) -> Iterator[Connection]:
    """A connection of this transfer's own: one that waits for a second one of a bounded pool while
    it holds the first would wait for its like forever."""
    try:
        with opened(server.text, job.timeout) as connection:
            stop = lambda: cancel(connection)  # noqa: E731 (it is told apart by its identity)
            with job.stoppable(stop):
                begin(connection, job.context, job.timeout, schema)
                connection.execute(UNAMBIGUOUS)
                yield connection
    except psycopg.Error as exc:
        raise of_side(exc, side, server) from exc


def of_side(exc: psycopg.Error, side: str, server: Conninfo) -> ToolError:
    """The ``ToolError`` for *exc*, with the side it happened on and the row that COPY was at."""
    error = classify(exc, secret=server.password)
    where = exc.diag.context
    told = f" ({where.splitlines()[0][:200]})" if where and where.startswith("COPY") else ""
    return ToolError(
        f"{side}: {error.message}{told}",
        kind=error.kind,
        retryable=error.retryable,
        error_code=error.error_code,
        details=error.details,
        data=error.data,
    )


@dataclass(frozen=True, slots=True)
class PostgresSource:
    """The rows of a query, read in a read-only transaction.

    *portable*: arrays are JSON, as places other than Postgres read them.
    """

    query: str
    auth: Any = field(repr=False)
    params: Any = None
    schema: str | None = None
    portable: bool = False

    @contextmanager
    def opened(self, job: Job) -> Iterator[Stream]:
        server = conninfo(self.auth, job.context)
        with session(job, server, "source", self.schema) as connection:
            connection.read_only = True
            with connection.transaction():
                query = self._query(connection, job)
                with connection.cursor() as cursor:
                    cursor.execute(_first_rows(query, 0))
                    about = list(cursor.description or ())
                    columns = [_column(column, portable=self.portable) for column in about]
                    if self.portable:
                        query = _portable(query, about)
                    rows = _copied(cursor, query, server)
                    try:
                        yield Stream(columns, pieces(rows, job.chunk))
                    finally:
                        # Else the server is still sending when the transaction ends.
                        rows.close()

    def _query(self, connection: Connection, job: Job) -> sql.Composable:
        parts = split(self.query)
        if len(parts) != 1:
            raise ToolError(
                f"source: the query holds {len(parts)} statements; give one", kind="schema"
            )
        text = parts[0]
        if self.params:
            text = psycopg.ClientCursor(connection).mogrify(text, bound(self.params))
        query: sql.Composable = _verbatim(text)
        if job.mapping:
            with connection.cursor() as cursor:
                cursor.execute(_first_rows(query, 0))
                actual = [column.name for column in cursor.description or ()]
            query = _mapped(query, job.mapping, actual)
        return query


def _copied(
    cursor: psycopg.Cursor[Any], query: sql.Composable, server: Conninfo
) -> Generator[bytes | bytearray | memoryview]:
    # The server sends one message for each row. Newlines end the comments a query may end with.
    statement = sql.SQL("COPY ({}\n) TO STDOUT (FORMAT csv, ENCODING 'UTF8')").format(query)
    try:
        with cursor.copy(statement) as copy:
            yield from copy
    except psycopg.Error as exc:
        # Here, where it cannot be taken for an error of the target.
        raise of_side(exc, "source", server) from exc


def _verbatim(text: str) -> sql.SQL:
    return sql.SQL(text)


def _first_rows(query: sql.Composable, count: int) -> sql.Composed:
    return sql.SQL("SELECT * FROM ({}\n) AS source LIMIT {}").format(query, sql.Literal(count))


def _mapped(
    query: sql.Composable, mapping: Mapping[str, str], actual: Sequence[str]
) -> sql.Composed:
    return sql.SQL("SELECT {} FROM ({}\n) AS source").format(
        sql.SQL(", ").join(_value(name, path, actual) for name, path in mapping.items()), query
    )


def _value(name: str, path: str, actual: Sequence[str]) -> sql.Composed:
    # A name with a dot in it is one, where there is such a column.
    first, *rest = [path] if path in actual else keys_of(path)
    (column,) = matched([first], actual, "the source")
    value: sql.Composable = sql.SQL("source.{}").format(sql.Identifier(column))
    if rest:
        value = sql.SQL("to_jsonb({}) #>> {}").format(value, sql.Literal(rest))
    return sql.SQL("{} AS {}").format(value, sql.Identifier(name))


def _column(about: psycopg.Column, *, portable: bool) -> Column:
    known = psycopg.adapters.types.get(about.type_code)
    if known is None or known.name not in {"numeric", *KINDS} or _is_array(about):
        return Column(about.name, "JSON" if portable and _is_array(about) else "VARCHAR")
    if known.name != "numeric":
        return Column(about.name, KINDS[known.name])
    digits, scale = about.precision or 0, about.scale or 0
    fits = 0 <= scale <= digits <= 38 and digits > 0
    return Column(about.name, f"DECIMAL({digits},{scale})" if fits else "DOUBLE")


def _is_array(about: psycopg.Column) -> bool:
    known = psycopg.adapters.types.get(about.type_code)
    return known is not None and known.array_oid == about.type_code


def _portable(query: sql.Composable, columns: Sequence[psycopg.Column]) -> sql.Composed:
    values = []
    for about in columns:
        name = sql.Identifier(about.name)
        form = "to_json(source.{0}) AS {0}" if _is_array(about) else "source.{0}"
        values.append(sql.SQL(form).format(name))
    return sql.SQL("SELECT {} FROM ({}\n) AS source").format(sql.SQL(", ").join(values), query)


class Attentive(LibpqWriter):
    """Ends a COPY as soon as the server refuses a row; else that is heard after the last one.

    Needs ``client_min_messages = 'error'``: whatever the server says then is the reason.
    """

    _is_over = False

    def write(self, data: Buffer) -> None:
        super().write(data)
        if is_quiet(self.connection):
            return
        self._is_over = True
        super().finish()
        raise ToolError(
            "target: the server interrupted the COPY", kind="db_connection", retryable=True
        )

    def finish(self, exc: BaseException | None = None) -> None:
        if not self._is_over:
            super().finish(exc)


@dataclass(frozen=True, slots=True)
class PostgresTarget:
    """A table, loaded in one transaction."""

    table: str
    auth: Any = field(repr=False)
    mode: str = "append"
    keys: Sequence[str] = ()
    schema: str | None = None

    @property
    def place(self) -> dict[str, str]:
        return {"target_table": self.table}

    @contextmanager
    def opened(self, job: Job, columns: Sequence[Column]) -> Iterator[Callable[[bytes], None]]:
        as_json = frozenset(column.name for column in columns if column.is_json)
        into = Into(table_name(self.table, self.schema), self.mode, self.keys, as_json)
        names = [column.name for column in columns]
        with (
            session(job, conninfo(self.auth, job.context), "target") as connection,
            loading(connection, into, names, Attentive) as write,
        ):
            yield write


@dataclass(frozen=True, slots=True)
class PostgresStatement:
    """A statement of the playbook's own that is run for every row, in one transaction.

    It takes ``%s`` in the order of the columns, or ``%(column)s``.
    """

    query: str
    auth: Any = field(repr=False)
    schema: str | None = None

    @property
    def place(self) -> dict[str, str]:
        return {"target_query": self.query}

    @contextmanager
    def opened(self, job: Job, columns: Sequence[Column]) -> Iterator[Callable[[bytes], None]]:
        names = [column.name for column in columns]
        by_name = "%(" in self.query
        with (
            session(job, conninfo(self.auth, job.context), "target", self.schema) as connection,
            connection.transaction(),
            connection.cursor() as cursor,
        ):

            def write(piece: bytes) -> None:
                rows = list(parsed(piece))
                named = [dict(zip(names, row, strict=True)) for row in rows]
                cursor.executemany(self.query, named if by_name else rows)

            yield write
