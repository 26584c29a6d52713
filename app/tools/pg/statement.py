"""One SQL statement on a Postgres connection: its parameters in, its rows out as JSON data."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import psycopg
from psycopg.types.json import Jsonb

from app.errors import ToolError
from app.tools.pg.connections import Connection
from app.tools.statements import named_parameters, outline, takes_parameters
from app.tools.values import Gathered

#: Rows that are fetched at once where a result may be large.
FETCH = 1000
CHANGING = ("INSERT", "UPDATE", "DELETE", "MERGE", "COPY", "CREATE TABLE AS", "REFRESH")
_READS = re.compile(r"\s*\(*\s*(select|values|table|with)\b", re.IGNORECASE)
_WRITES = re.compile(r"\b(insert|update|delete|merge|into)\b", re.IGNORECASE)
_COPIES = re.compile(r"\s*copy\b.*\b(from\s+stdin|to\s+stdout)\b", re.IGNORECASE | re.DOTALL)
_PLACEHOLDER = re.compile(r"%s|%\(\w+\)s")

#: Makes what a statement's rows are gathered in, given its columns.
Gather = Callable[[list[str]], Gathered]


@dataclass(frozen=True, slots=True)
class Shape:
    """What *statement* looks like to us: is it sure to return rows, and does it copy from here?"""

    reads: bool
    copies: bool
    numbered: bool


@lru_cache(maxsize=256)
def shape(statement: str) -> Shape:
    """The shape of *statement*, as far as its words tell."""
    words = outline(statement)
    reads = bool(_READS.match(words)) and not _WRITES.search(words)
    return Shape(reads, bool(_COPIES.match(words)), takes_parameters(statement))


def execute(connection: Connection, statement: str, params: Any, gather: Gather) -> dict[str, Any]:
    """Run *statement*: ``{status, rows, row_count, columns, affected_rows, message}``.

    Raises ``psycopg.Error``, and ``ToolError`` where the rows are too many.
    """
    about = shape(statement)
    if about.copies:
        raise ToolError(
            "COPY from stdin and to stdout have no place to go in a step; load rows with the key "
            "copy, or move data with the transfer tool",
            kind="schema",
        )
    cursor, text, bound = _prepared(connection, statement, params, numbered=about.numbered)
    with cursor:
        if about.reads:
            return _streamed(cursor, text, bound, gather)
        cursor.execute(text, bound)
        message = cursor.statusmessage or ""
        count = max(cursor.rowcount, 0)
        found = gather(_columns(cursor))
        if cursor.description is not None:
            found.take(cursor.fetchall())
    affected = count if message.startswith(CHANGING) else 0
    return _result(found, count=count, affected=affected, message=message)


def _streamed(cursor: psycopg.Cursor[Any], text: str, bound: Any, gather: Gather) -> dict[str, Any]:
    """The same for a statement that is sure to return rows: they never are all in memory twice, and
    no more of them than the limit."""
    found: Gathered | None = None
    batch: list[Any] = []
    # Closed even where the rows are too many: a cursor that has more to give keeps the connection.
    with closing(cast("Generator[Any]", cursor.stream(text, bound, size=FETCH))) as stream:
        for row in stream:
            batch.append(row)
            if len(batch) == FETCH:
                found = found or gather(_columns(cursor))
                found.take(batch)
                batch = []
    found = found or gather(_columns(cursor))
    found.take(batch)
    return _result(found, count=found.seen, affected=0, message=f"SELECT {found.seen}")


def _columns(cursor: psycopg.Cursor[Any]) -> list[str]:
    return [column.name for column in cursor.description or ()]


def _result(found: Gathered, *, count: int, affected: int, message: str) -> dict[str, Any]:
    return {
        "status": "success",
        "rows": found.rows,
        "row_count": len(found.rows) if found.truncated else count,
        "columns": found.columns,
        "affected_rows": affected,
        "message": message,
        **found.truncation(),
    }


def _prepared(
    connection: Connection, statement: str, params: Any, *, numbered: bool
) -> tuple[psycopg.Cursor[Any], str, Any]:
    """A cursor, and what to give it: of params only what the statement asks for."""
    if not params:
        return connection.cursor(), statement, None
    if numbered and not isinstance(params, Mapping):
        return psycopg.RawCursor(connection), statement, bound(params)
    if _PLACEHOLDER.search(statement):
        return connection.cursor(), statement, bound(params)
    if isinstance(params, Mapping):
        text, names = named_parameters(statement, frozenset(params))
        if names:
            values = [_parameter(params[name]) for name in names]
            return psycopg.RawCursor(connection), text, values
    return connection.cursor(), statement, None


def bound(params: Any) -> Any:
    """*params* as psycopg takes them."""
    if isinstance(params, Mapping):
        return {key: _parameter(value) for key, value in params.items()}
    return [_parameter(value) for value in params]


def _parameter(value: Any) -> Any:
    """Mappings, and lists of more than plain values, are JSON; a plain list is an array."""
    nested = isinstance(value, list) and any(isinstance(item, dict | list) for item in value)
    return Jsonb(value) if nested or isinstance(value, Mapping) else value
