"""Lists of executions, read from their projection ``noetl.execution``."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Select, func, select, tuple_

from app.engine.ports import ExecutionFilter, ExecutionSummary
from app.store.database import Database
from app.store.ids import MAX_ID, first_id_at
from app.store.rows import RUNNING
from app.store.tables import execution as e

_SUMMARY: Select[Any] = select(
    e.c.execution_id,
    e.c.catalog_id,
    e.c.path,
    e.c.version,
    e.c.status,
    e.c.started_at,
    e.c.ended_at,
    e.c.error,
    e.c.parent_execution_id,
    e.c.paused_at,
)


#: The same for one execution, which clients ask for again and again until it has ended.
_ONE = """
SELECT execution_id, catalog_id, path, version, status, started_at, ended_at, error,
    parent_execution_id, paused_at
FROM noetl.execution WHERE execution_id = %s
"""


def summary(database: Database, execution_id: int) -> ExecutionSummary | None:
    """The row of that execution."""
    with database.raw() as connection:
        row = connection.execute(_ONE, [execution_id]).fetchone()
    return None if row is None else ExecutionSummary(*row)


def executions(database: Database, query: ExecutionFilter) -> list[ExecutionSummary]:
    """The rows that match, newest first."""
    with database.connect() as connection:
        return [ExecutionSummary(*row) for row in connection.execute(statement(query))]


def statement(query: ExecutionFilter) -> Select[Any]:
    """The SQL of a list: one stretch of one index, read backwards.

    Every condition on time is one on the id. The stretch is written as a comparison of rows and
    not as equalities, because only an index on these very columns can serve that in order; with
    equalities Postgres may walk the primary key and filter, which is slow where few rows match.
    """
    leading, conditions = _leading(query)
    columns = (*(column for column, _ in leading), e.c.execution_id)
    values = [value for _, value in leading]
    after, before = _bounds(query)
    return (
        _SUMMARY.where(tuple_(*columns) >= tuple_(*values, after))
        .where(tuple_(*columns) < tuple_(*values, before))
        .where(*conditions)
        .order_by(*(column.desc() for column in columns))
        .limit(query.limit)
        .offset(query.offset)
    )


def _leading(query: ExecutionFilter) -> tuple[list[tuple[Any, Any]], list[ColumnElement[bool]]]:
    """The column before the id in the index to use, with its value; and the other conditions."""
    asked = [
        (e.c.parent_execution_id, query.parent_execution_id),
        (e.c.status, query.status),
        (e.c.path, query.path),
    ]
    given = [(column, value) for column, value in asked if value is not None]
    # With status and path it is (path, status, id): one path of it is an index on (status, id).
    # With a parent the others are filters: an execution has few children.
    conditions = [column == value for column, value in given[1:]]
    if query.parent_execution_id is not None:
        conditions.append(e.c.parent_execution_id.is_not(None))
    return given[:1], conditions


def _bounds(query: ExecutionFilter) -> tuple[int, int]:
    """The lowest id to list, and the one above the highest."""
    after = 0 if query.started_after is None else first_id_at(query.started_after)
    before = [MAX_ID]
    if query.started_before is not None:
        before.append(first_id_at(query.started_before))
    if query.before is not None:
        before.append(query.before)
    return after, min(before)


def count_by_status(database: Database) -> dict[str, int]:
    """How many executions are in each status that occurs."""
    query = select(e.c.status, func.count().label("total")).group_by(e.c.status)
    with database.connect() as connection:
        return {row.status: row.total for row in connection.execute(query)}


def open_executions(database: Database, *, limit: int, after: int) -> list[int]:
    """Ids of running executions above *after*, ascending."""
    query = (
        select(e.c.execution_id)
        .where(tuple_(e.c.status, e.c.execution_id) > tuple_(RUNNING, after))
        .where(tuple_(e.c.status, e.c.execution_id) < tuple_(RUNNING, MAX_ID))
        .order_by(e.c.status, e.c.execution_id)
        .limit(limit)
    )
    with database.connect() as connection:
        return list(connection.execute(query).scalars())
