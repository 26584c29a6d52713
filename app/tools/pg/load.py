"""Loads rows into a Postgres table by COPY: appended, in place of the old ones, or merged by key.

All in one transaction, so that a step that fails leaves the table as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import psycopg
from psycopg import sql
from psycopg.copy import LibpqWriter
from pydantic import BaseModel, Field, field_validator

from app.errors import ToolError
from app.tools.pg.connections import Connection
from app.tools.pg.names import matched, table_name
from app.tools.transfers.records import table_of
from app.tools.transfers.stream import lines

Mode = Literal["append", "insert", "replace", "upsert"]
#: Rows that are written at once.
BATCH = 1000


class Copy(BaseModel):
    """Rows, and the table they go to."""

    table: str = Field(min_length=1, description="The table, also as `schema.table`.")
    rows: list[Any] = Field(description="The rows: mappings, or lists in the order of columns.")
    columns: list[str] | None = Field(None, description="The columns; else the rows' keys.")
    mode: Mode = Field("append", description="append, replace or upsert.")
    keys: list[str] = Field(
        default_factory=list, description="What makes a row unique, to upsert; the primary key."
    )

    @field_validator("mode", mode="before")
    @classmethod
    def _lower(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value


@dataclass(frozen=True, slots=True)
class Into:
    """A table, and what becomes of the rows it has.

    *as_json* are the columns whose values come as JSON: where the table has an array, they are made
    into one.
    """

    table: sql.Identifier
    mode: str = "append"
    keys: Sequence[str] = ()
    as_json: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class _Field:
    """A column of the table; *array* is its type where it is one and gets JSON."""

    name: str
    array: str | None = None


def copy_rows(connection: Connection, copy: Copy) -> int:
    """Load the rows of *copy*; how many there were. Raises ``psycopg.Error`` and ``ToolError``."""
    columns, records = table_of(copy.rows, copy.columns)
    if not columns:
        raise ToolError("copy has neither rows nor columns; give columns", kind="schema")
    as_json = frozenset(
        name
        for number, name in enumerate(columns)
        if any(isinstance(record[number], list) for record in records)
    )
    into = Into(table_name(copy.table), copy.mode, copy.keys, as_json)
    with loading(connection, into, columns) as write:
        for start in range(0, len(records), BATCH):
            write(b"".join(lines(records[start : start + BATCH])))
    return len(records)


@contextmanager
def loading(
    connection: Connection,
    into: Into,
    columns: Sequence[str],
    writer: type[LibpqWriter] = LibpqWriter,
) -> Iterator[Callable[[bytes], None]]:
    """A function that takes rows in CSV (see ``transfers.stream``), committed when the block ends.

    An exception in the block undoes everything. Raises ``psycopg.Error``, and ``ToolError`` for
    columns that the table does not have.
    """
    with connection.transaction(), connection.cursor() as cursor:
        fields = _fields(cursor, into, columns)
        names = [field.name for field in fields]
        keys = _keys(cursor, into, names)
        is_staged = into.mode == "upsert" or any(field.array for field in fields)
        if is_staged:
            cursor.execute(_stage(into, fields))
        if into.mode == "replace":
            cursor.execute(sql.SQL("TRUNCATE {}").format(into.table))
        statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv, ENCODING 'UTF8')")
        target = _STAGE if is_staged else into.table
        with cursor.copy(statement.format(target, _listed(names)), writer=writer(cursor)) as copy:
            yield copy.write
        if is_staged:
            cursor.execute(_insert(into, fields, keys))


_STAGE = sql.Identifier("pg_temp", "callboard_transfer")
_TYPES = """
    SELECT attname::text, CASE WHEN typcategory = 'A' THEN format_type(atttypid, atttypmod) END
    FROM pg_attribute JOIN pg_type ON pg_type.oid = atttypid
    WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""


def _fields(cursor: psycopg.Cursor[Any], into: Into, wanted: Sequence[str]) -> list[_Field]:
    name = into.table.as_string(None)
    cursor.execute(_TYPES, [name])
    arrays = dict(cursor.fetchall())
    # A source that had nothing did not tell its columns, either.
    wanted = wanted or list(arrays)
    found = matched(wanted, list(arrays), name)
    return [
        _Field(name, arrays[name] if given in into.as_json else None)
        for given, name in zip(wanted, found, strict=True)
    ]


_PRIMARY_KEY = """
    SELECT attname::text
    FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY (indkey)
    WHERE indrelid = %s::regclass AND indisprimary
"""


def _keys(cursor: psycopg.Cursor[Any], into: Into, names: Sequence[str]) -> list[str]:
    """The columns by which rows are the same: those given, else the table's primary key."""
    if into.mode != "upsert":
        return []
    keys = into.keys
    if not keys:
        cursor.execute(_PRIMARY_KEY, [into.table.as_string(None)])
        keys = [name for (name,) in cursor.fetchall()]
    if not keys:
        raise ToolError(
            "mode upsert needs keys, the columns of a unique index: the table has no primary key",
            kind="schema",
        )
    return matched(keys, names, "what is loaded")


def _stage(into: Into, fields: Sequence[_Field]) -> sql.Composed:
    # The types of the table, without its constraints: those of columns that are not loaded would
    # refuse every row. The number tells which of two rows with the same key came last.
    columns = [
        sql.SQL("NULL::jsonb AS {}" if field.array else "{}").format(sql.Identifier(field.name))
        for field in fields
    ]
    return sql.SQL(
        "CREATE TEMP TABLE callboard_transfer ON COMMIT DROP AS SELECT {} FROM {} WITH NO DATA; "
        "ALTER TABLE pg_temp.callboard_transfer "
        "ADD COLUMN callboard_row bigint GENERATED ALWAYS AS IDENTITY"
    ).format(sql.SQL(", ").join(columns), into.table)


def _insert(into: Into, fields: Sequence[_Field], keys: Sequence[str]) -> sql.Composed:
    names = [field.name for field in fields]
    insert = sql.SQL("INSERT INTO {} ({}) SELECT {} FROM {}").format(
        into.table,
        _listed(names),
        sql.SQL(", ").join(map(_value, fields)),
        _latest(keys) if keys else _STAGE,
    )
    if not keys:
        return insert + sql.SQL(" ORDER BY callboard_row")
    others = [sql.Identifier(name) for name in names if name not in keys]
    updates = sql.SQL(", ").join(sql.SQL("{0} = excluded.{0}").format(name) for name in others)
    action = sql.SQL("DO UPDATE SET {}").format(updates) if others else sql.SQL("DO NOTHING")
    return insert + sql.SQL(" ON CONFLICT ({}) {}").format(_listed(keys), action)


def _latest(keys: Sequence[str]) -> sql.Composed:
    return sql.SQL(
        "(SELECT DISTINCT ON ({keys}) * FROM {stage} ORDER BY {keys}, callboard_row DESC) AS latest"
    ).format(keys=_listed(keys), stage=_STAGE)


def _value(field: _Field) -> sql.Composable:
    name = sql.Identifier(field.name)
    if field.array is None:
        return name
    return sql.SQL(
        "CASE jsonb_typeof({name}) WHEN 'array' "
        "THEN ARRAY(SELECT jsonb_array_elements_text({name}))::{type} END"
    ).format(name=name, type=sql.SQL(field.array))


def _listed(names: Sequence[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, names))
