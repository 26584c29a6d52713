"""Rows of the log as the entries and states that they stand for, and parameters of its statements."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import psycopg

from app.engine import encoding
from app.engine.entry import Entry, event_from
from app.engine.events import StepKey
from app.engine.ports import AttemptState
from app.store import statements
from app.store.rows import Row


def array(numbers: Iterable[int]) -> str:
    """*numbers* as Postgres writes an array: psycopg takes ten times as long to encode a list."""
    return "{" + ",".join(map(str, numbers)) + "}"


def encoded_keys(keys: Iterable[tuple[int, StepKey]]) -> str:
    """*keys* as the parameter of ``ATTEMPTS``. Raises ``BadRequestError`` for what no log holds."""
    return encoding.dumps([{"execution_id": i, **key._asdict()} for i, key in keys]).decode()


def read_rows(
    connection: psycopg.Connection[Any],
    execution_id: int,
    *,
    after: int = 0,
    limit: int | None = None,
    types: Sequence[str] | None = None,
    newest_first: bool = False,
) -> list[Entry]:
    sql = [statements.READ]
    if after:
        sql.append("AND e.seq < %(after)s" if newest_first else "AND e.seq > %(after)s")
    if types is not None:
        sql.append("AND e.type = ANY(%(types)s)")
    sql.append("ORDER BY e.seq DESC" if newest_first else "ORDER BY e.seq")
    if limit is not None:
        sql.append("LIMIT %(limit)s")
    parameters = {
        "id": execution_id,
        "after": after,
        "types": list(types or ()),
        "limit": limit,
    }
    return entries_of(connection.execute(" ".join(sql), parameters))


def entries_of(rows: Iterable[tuple[Any, ...]]) -> list[Entry]:
    return [_entry(*row) for row in rows]


def _entry(*values: Any) -> Entry:
    row = Row(*values[: len(Row._fields)])
    event_id, at, execution_id = values[len(Row._fields) :]
    payload: Any = row.payload  # psycopg decoded it
    event = event_from(row.type, row._asdict(), payload, execution_id=execution_id)
    return Entry(execution_id, row.seq, event, event_id, at)


def attempt_state(row: tuple[Any, ...]) -> AttemptState:
    attempt, scheduled, scheduled_seq, started_by, started_key, fenced, ended, ended_key = row
    return AttemptState(
        attempt=attempt or 0,
        queue=scheduled["queue"] if scheduled else "",
        scheduled_seq=scheduled_seq or 0,
        started_by=started_by,
        started_key=started_key,
        fenced=fenced,
        ended=ended,
        ended_key=ended_key,
        scheduled=scheduled or {},
    )
