"""Removes old executions from Postgres: the only place that deletes events.

The order is: lock, look, delete and note the ids, commit. What lies outside of the log (blobs,
output, tokens) is removed after that, and the notes last; so a crash at any point leaves either an
execution as it was, or a note that says what is still to be done.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from app.engine.ports import ExecutionSummary
from app.engine.retention import Member
from app.store.database import Database
from app.store.ids import first_id_at
from app.store.statements import BEGIN, COMMIT, NOT_DURABLE

_SUMMARY = """x.execution_id, x.catalog_id, x.path, x.version, x.status, x.started_at, x.ended_at,
    x.error, x.parent_execution_id, x.paused_at"""

# Along the primary key from the oldest on, and no further than a page.
_IS_TOP = """(x.parent_execution_id IS NULL OR NOT EXISTS (
    SELECT FROM noetl.execution p WHERE p.execution_id = x.parent_execution_id OFFSET 0))"""

_TOPS = f"""
SELECT {_SUMMARY} FROM noetl.execution x
WHERE x.execution_id > %s AND x.execution_id < %s AND {_IS_TOP}
ORDER BY x.execution_id LIMIT %s
"""  # noqa: S608 (constants of ours)

_FAMILY = f"""
WITH RECURSIVE f(id, depth) AS (
    SELECT %s::bigint, 0
    UNION ALL
    SELECT c.execution_id, f.depth + 1 FROM f
    JOIN noetl.execution c ON c.parent_execution_id = f.id AND c.parent_execution_id IS NOT NULL
)
SELECT {_SUMMARY}, coalesce(e.seq, 0) FROM f
JOIN noetl.execution x ON x.execution_id = f.id
LEFT JOIN LATERAL (
    SELECT seq FROM noetl.event WHERE execution_id = f.id ORDER BY seq DESC LIMIT 1
) e ON true
ORDER BY f.depth DESC, f.id
"""  # noqa: S608 (the same)

_NAMES = "SELECT var_name FROM noetl.transient WHERE execution_id = %s ORDER BY var_name"

_OLDEST_KEPT = f"""
SELECT x.execution_id FROM noetl.execution x
WHERE x.path = %s AND x.status <> 'RUNNING' AND {_IS_TOP}
ORDER BY x.path DESC, x.execution_id DESC OFFSET %s LIMIT 1
"""  # noqa: S608 (the same)

# The trigger on the table refuses any other deletion.
_ALLOWED = "SET LOCAL callboard.prune = 'on'"
#: An execution of a million events takes longer than a statement may otherwise.
_PATIENT = "SET LOCAL statement_timeout = '10min'"
# Whoever holds a lock is at work on that execution: it is left for another time.
_LOCK = "SELECT id FROM unnest(%s::bigint[]) AS k(id) WHERE pg_try_advisory_xact_lock(id)"

# Its snapshot is younger than the locks. A retry is begun under the lock of the one before.
# taking: running retries, and by steps what each was a retry of, and who started it.
# above: each of the locked ones, and by steps who started it. OFFSET 0: by the primary key.
_LOOK = """
WITH RECURSIVE taking(id) AS (
    SELECT r.execution_id FROM noetl.execution r
    JOIN LATERAL (
        SELECT payload FROM noetl.event WHERE execution_id = r.execution_id AND seq = 1 LIMIT 1
    ) s ON s.payload ->> 'retry_of' IS NOT NULL
    WHERE r.status = 'RUNNING'
    UNION
    SELECT u.id FROM taking t
    JOIN LATERAL (
        SELECT x.parent_execution_id FROM noetl.execution x WHERE x.execution_id = t.id OFFSET 0
    ) p ON true
    JOIN LATERAL (
        SELECT payload FROM noetl.event WHERE execution_id = t.id AND seq = 1 LIMIT 1
    ) s ON true
    CROSS JOIN LATERAL (
        VALUES (p.parent_execution_id), ((s.payload ->> 'retry_of')::bigint)
    ) u(id)
    WHERE u.id IS NOT NULL
), above(below, id, up, status, ended_at) AS (
    SELECT k.id, x.* FROM unnest(%(ids)s::bigint[]) AS k(id)
    JOIN LATERAL (
        SELECT execution_id, parent_execution_id, status, ended_at FROM noetl.execution
        WHERE execution_id = k.id OFFSET 0
    ) x ON true
    UNION
    SELECT a.below, x.* FROM above a
    JOIN LATERAL (
        SELECT execution_id, parent_execution_id, status, ended_at FROM noetl.execution
        WHERE execution_id = a.up OFFSET 0
    ) x ON true
), held AS MATERIALIZED (
    SELECT below AS id FROM above WHERE status = 'RUNNING' OR id IN (SELECT id FROM taking)
)
SELECT k.id FROM unnest(%(ids)s::bigint[], %(events)s::int[]) AS k(id, events)
JOIN above a ON a.below = k.id AND a.id = k.id AND a.ended_at < %(before)s
JOIN LATERAL (
    SELECT seq FROM noetl.event WHERE execution_id = k.id ORDER BY seq DESC LIMIT 1
) e ON e.seq = k.events
WHERE k.id NOT IN (SELECT id FROM held)
"""

# What an execution started must go with it or before it; so is whoever started that, and so on.
_HOLDING = """
SELECT DISTINCT c.parent_execution_id FROM noetl.execution c
WHERE c.parent_execution_id = ANY(%(ids)s) AND c.parent_execution_id IS NOT NULL
    AND c.execution_id <> ALL(%(ids)s)
"""

_DELETE = (
    "DELETE FROM noetl.event WHERE execution_id = ANY(%s)",
    "DELETE FROM noetl.transient WHERE execution_id = ANY(%s)",
    "DELETE FROM noetl.execution WHERE execution_id = ANY(%s)",
    "INSERT INTO noetl.pruned (execution_id) SELECT unnest(%s::bigint[]) ON CONFLICT DO NOTHING",
)

_REMOVED = """
SELECT execution_id FROM noetl.pruned WHERE execution_id > %s ORDER BY execution_id LIMIT %s
"""
_FORGET = "DELETE FROM noetl.pruned WHERE execution_id = ANY(%s)"


class PostgresRetention:
    """Old executions in Postgres; see ``RetentionStore``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def tops(self, *, after: int, before: datetime, limit: int) -> list[ExecutionSummary]:
        with self._database.raw() as connection:
            rows = connection.execute(_TOPS, [after, first_id_at(before), limit])
            return [ExecutionSummary(*row) for row in rows]

    def family(self, top: int) -> list[Member]:
        with self._database.raw() as connection:
            rows = connection.execute(_FAMILY, [top])
            return [Member(ExecutionSummary(*row), events) for *row, events in rows]

    def value_names(self, execution_id: int) -> list[str]:
        with self._database.raw() as connection:
            return [row[0] for row in connection.execute(_NAMES, [execution_id])]

    def oldest_kept(self, path: str, keep: int) -> int:
        with self._database.raw() as connection:
            row = connection.execute(_OLDEST_KEPT, [path, keep - 1]).fetchone()
        return 0 if row is None else int(row[0])

    def remove(self, members: Mapping[int, int], *, ended_before: datetime) -> list[int]:
        with self._database.raw() as connection:
            connection.execute(BEGIN, prepare=False)
            connection.execute(_PATIENT, prepare=False)
            ids = [row[0] for row in connection.execute(_LOCK, [sorted(members)])]
            ids = _free(connection, {each: members[each] for each in ids}, ended_before)
            if ids:
                connection.execute(_ALLOWED, prepare=False)
                for statement in _DELETE:
                    connection.execute(statement, [ids])
            connection.execute(COMMIT, prepare=False)
        return ids

    def removed(self, limit: int, *, after: int = 0) -> list[int]:
        with self._database.raw() as connection:
            return [row[0] for row in connection.execute(_REMOVED, [after, limit])]

    def forget(self, execution_ids: Iterable[int]) -> None:
        with self._database.raw() as connection:
            connection.execute(BEGIN, prepare=False)
            # A note that comes back after a power cut is done with once more.
            connection.execute(NOT_DURABLE, prepare=False)
            connection.execute(_FORGET, [list(execution_ids)])
            connection.execute(COMMIT, prepare=False)


def _free(connection: Any, members: Mapping[int, int], ended_before: datetime) -> list[int]:
    """Those of the locked *members* that may go, ascending."""
    parameters = {
        "ids": list(members),
        "events": list(members.values()),
        "before": ended_before,
    }
    ids = {row[0] for row in connection.execute(_LOOK, parameters)}
    # One that stays keeps the one above it, which keeps the next.
    while held := {row[0] for row in connection.execute(_HOLDING, {"ids": sorted(ids)})}:
        ids -= held
    return sorted(ids)
