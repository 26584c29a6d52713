"""The SQL of the log. Written out where its plan matters more than its looks.

Every look-up of a step key goes through the partial index of its unique key, one row each, so its
cost does not grow with the length of the execution. LATERAL with LIMIT is what keeps the planner
to that: it cannot turn such a join around into a scan, whatever statistics say. They are missing
or stale exactly when an execution grows fast.
"""

# ruff: noqa: S608 (every part put into these texts is a constant of ours; values are parameters)

from __future__ import annotations

from app.engine.events import EXECUTION_ENDS, STEP_ENDS
from app.store.rows import FENCES


def _list(types: tuple[str, ...]) -> str:
    return ", ".join(f"'{name}'" for name in types)


_COLUMNS = """e.seq, e.type, e.step, e.visit, e.iteration, e.attempt, e.worker, e.status, e.error,
    e.duration_ms, e.idempotency_key, e.payload, e.event_id, e.created_at, e.execution_id"""

BEGIN = "BEGIN"
COMMIT = "COMMIT"
NOT_DURABLE = "SET LOCAL synchronous_commit = off"

# A volatile function in the select list runs after the sort: locks are taken in ascending order.
LOCK = "SELECT pg_advisory_xact_lock(id) FROM unnest(%s::bigint[]) AS k(id) ORDER BY id"

# Without a list Postgres takes 40 µs less.
LOCK_ONE = "SELECT pg_advisory_xact_lock(%s)"

# The same, and the commit need not wait for the disk: for a transaction without BEGIN, to which SET
# LOCAL does not apply.
LOCK_NOT_DURABLE = """
SELECT pg_advisory_xact_lock(id), set_config('synchronous_commit', 'off', true)
FROM unnest(%s::bigint[]) AS k(id) ORDER BY id
"""
LOCK_ONE_NOT_DURABLE = """
SELECT pg_advisory_xact_lock(%s), set_config('synchronous_commit', 'off', true)
"""

# The ids whose lock was free.
TRY_LOCK = "SELECT id FROM unnest(%s::bigint[]) AS k(id) WHERE pg_try_advisory_xact_lock(id)"

# Its snapshot must be younger than the lock, so it is a statement of its own.
HEADS = """
SELECT k.id, coalesce(e.seq, 0), x.status, x.catalog_id, x.parent_execution_id,
    x.paused_at IS NOT NULL
FROM unnest(%s::bigint[]) AS k(id)
LEFT JOIN LATERAL (
    SELECT seq FROM noetl.event WHERE execution_id = k.id ORDER BY seq DESC LIMIT 1
) e ON true
LEFT JOIN LATERAL (
    SELECT status, catalog_id, parent_execution_id, paused_at
    FROM noetl.execution WHERE execution_id = k.id LIMIT 1
) x ON true
"""

# One parameter, whatever the number of rows: to encode it costs half of what an array per column
# does. Its keys are the fields of ``rows.Row`` and the columns before them.
_INSERT_ROWS = """
INSERT INTO noetl.event (
    execution_id, catalog_id, parent_execution_id, seq, type, step, visit, iteration, attempt,
    worker, status, error, duration_ms, idempotency_key, payload
)
SELECT r.* FROM json_to_recordset(%s::json) AS r(
    execution_id bigint, catalog_id bigint, parent_execution_id bigint, seq int, type text,
    step text, visit int, iteration int, attempt int, worker text, status text, error text,
    duration_ms float8, idempotency_key text, payload jsonb)
"""
INSERT = _INSERT_ROWS

# All of them, if so many executions stand as the last parameter says; else none. Its snapshot must
# be younger than the lock, too.
INSERT_AS_ASSUMED = f"""{_INSERT_ROWS}
WHERE %s = (
    SELECT count(*)
    FROM json_to_recordset(%s::json) AS k(execution_id bigint, seq int, key text)
    LEFT JOIN LATERAL (
        SELECT seq, idempotency_key FROM noetl.event
        WHERE execution_id = k.execution_id ORDER BY seq DESC LIMIT 1
    ) e ON true
    WHERE coalesce(e.seq, 0) = k.seq AND (k.key IS NULL OR k.key = e.idempotency_key)
)
RETURNING 1
"""

# The same for one execution, 0.14 ms faster. Where it has no event, its newest has the seq 0. A key
# that is "" is not compared.
INSERT_ONE_AS_ASSUMED = f"""{_INSERT_ROWS}
WHERE coalesce((
    SELECT seq = %(seq)s AND (%(key)s::text = '' OR idempotency_key = %(key)s) FROM noetl.event
    WHERE execution_id = %(id)s ORDER BY seq DESC LIMIT 1
), %(seq)s = 0)
RETURNING 1
"""

# Each says the type again: what stands there may be another event than was to be written.
OPEN_EXECUTION = """
INSERT INTO noetl.execution (
    execution_id, catalog_id, path, version, status, parent_execution_id, started_at
)
SELECT execution_id, catalog_id, payload ->> 'path', (payload ->> 'version')::int, status,
    parent_execution_id, created_at
FROM noetl.event
WHERE execution_id = %(id)s AND seq = %(seq)s AND type = 'execution.started'
"""

CLOSE_EXECUTION = f"""
UPDATE noetl.execution x SET status = e.status, ended_at = e.created_at, error = e.error
FROM noetl.event e
WHERE x.execution_id = %(id)s AND e.execution_id = %(id)s AND e.seq = %(seq)s
    AND e.type IN ({_list(EXECUTION_ENDS)})
"""

PAUSE_EXECUTION = """
UPDATE noetl.execution x SET paused_at = e.created_at
FROM noetl.event e
WHERE x.execution_id = %(id)s AND e.execution_id = %(id)s AND e.seq = %(seq)s
    AND e.type = 'execution.paused'
"""

RESUME_EXECUTION = """
UPDATE noetl.execution x SET paused_at = NULL
FROM noetl.event e
WHERE x.execution_id = %(id)s AND e.execution_id = %(id)s AND e.seq = %(seq)s
    AND e.type = 'execution.resumed'
"""

# Its conditions are those of the unique index, so one row is read whatever the log holds.
STARTED_UNDER = """
SELECT execution_id FROM noetl.event
WHERE idempotency_key = %s AND type = 'execution.started' AND idempotency_key IS NOT NULL
"""

# Its conditions are those of the unique index U2.
UNDER = f"""
SELECT {_COLUMNS} FROM noetl.event e
WHERE e.execution_id = %s AND e.idempotency_key = %s AND e.idempotency_key IS NOT NULL
"""

READ = f"SELECT {_COLUMNS} FROM noetl.event e WHERE e.execution_id = %(id)s"

NEWS = f"""
SELECT {_COLUMNS} FROM unnest(%s::bigint[], %s::int[]) AS k(id, seq)
JOIN LATERAL (
    SELECT * FROM noetl.event WHERE execution_id = k.id AND seq > k.seq ORDER BY seq LIMIT %s
) e ON true
ORDER BY k.id, e.seq
"""

ENTRIES = f"""
SELECT {_COLUMNS} FROM unnest(%s::bigint[], %s::int[]) AS k(id, seq)
JOIN LATERAL (
    SELECT * FROM noetl.event WHERE execution_id = k.id AND seq = k.seq LIMIT 1
) e ON true
"""

ITERATIONS = f"""
SELECT {_COLUMNS} FROM noetl.event e
WHERE e.execution_id = %s AND e.step = %s AND e.visit = %s AND e.iteration >= 0
  AND e.type IN ('step.done', 'step.failed')
ORDER BY e.execution_id, e.step, e.visit, e.iteration
"""

_KEY = """e.execution_id = k.execution_id AND e.step = k.step
      AND e.visit = k.visit AND e.iteration = k.iteration"""

ATTEMPTS = f"""
SELECT s.attempt, s.payload, s.seq, t.worker, t.idempotency_key, f.attempt IS NOT NULL,
    d.type, d.idempotency_key
FROM ROWS FROM (json_to_recordset(%s::json)
    AS (execution_id bigint, step text, visit int, iteration int)) WITH ORDINALITY
    AS k(execution_id, step, visit, iteration, position)
LEFT JOIN LATERAL (
    SELECT e.attempt, e.payload, e.seq FROM noetl.event e
    WHERE {_KEY} AND e.type = 'step.scheduled'
    ORDER BY e.attempt DESC LIMIT 1
) s ON true
LEFT JOIN LATERAL (
    SELECT e.attempt, e.worker, e.idempotency_key FROM noetl.event e
    WHERE {_KEY} AND e.attempt <= s.attempt AND e.type = 'step.started'
    ORDER BY e.attempt DESC LIMIT 1
) t ON t.attempt = s.attempt
LEFT JOIN LATERAL (
    SELECT e.attempt FROM noetl.event e
    WHERE {_KEY} AND e.attempt <= s.attempt AND e.type IN ({_list(FENCES)})
    ORDER BY e.attempt DESC LIMIT 1
) f ON f.attempt = s.attempt
LEFT JOIN LATERAL (
    SELECT e.type, e.idempotency_key FROM noetl.event e
    WHERE {_KEY} AND e.type IN ({_list(STEP_ENDS)}) LIMIT 1
) d ON true
ORDER BY k.position
"""

STORE_VALUE = """
INSERT INTO noetl.transient (execution_id, var_name, var_type, var_value, source_step)
VALUES (%s, %s, 'step_result', %s::jsonb, %s)
ON CONFLICT (execution_id, var_name)
DO UPDATE SET var_value = excluded.var_value, source_step = excluded.source_step
"""

DONE = f"""
SELECT {_COLUMNS}
FROM unnest(%s::text[], %s::int[], %s::int[]) AS k(step, visit, iteration)
JOIN LATERAL (
    SELECT * FROM noetl.event e
    WHERE e.execution_id = %s AND e.step = k.step AND e.visit = k.visit
      AND e.iteration = k.iteration AND e.type IN ({_list(STEP_ENDS)}) LIMIT 1
) e ON e.type = 'step.done'
"""

VALUES = """
SELECT var_name, var_value FROM noetl.transient WHERE execution_id = %s AND var_name = ANY(%s)
"""

COUNT = "SELECT count(*) FROM noetl.event WHERE execution_id = %s"


def _some(types: str, *conditions: str) -> str:
    """SQL that is true where an event of these types exists for the key of event ``e``.

    OFFSET 0 makes Postgres ask once per event, through the key's index. It would join otherwise,
    and as most executions are short, choose a join that takes minutes for a long one.
    """
    more = "".join(f" AND o.attempt {condition}" for condition in conditions)
    return f"""EXISTS (
        SELECT FROM noetl.event o
        WHERE o.execution_id = e.execution_id AND o.step = e.step AND o.visit = e.visit
          AND o.iteration = e.iteration AND o.type IN ({types}){more}
        OFFSET 0)"""


_SCHEDULED, _STARTED = "'step.scheduled'", "'step.started'"

# What is outstanding: the newest attempt of a key that has no end and is not fenced off.
_OUTSTANDING = f"""NOT {_some(_list(STEP_ENDS))}
      AND NOT {_some(_list(FENCES), "= e.attempt")}
      AND NOT {_some(_SCHEDULED, "> e.attempt")}"""

_UNCLAIMED = f"""
FROM noetl.execution x
JOIN LATERAL (
    SELECT e.execution_id, e.step, e.visit, e.iteration, e.attempt,
        e.payload ->> 'tool' AS tool, e.payload ->> 'queue' AS queue,
        greatest(e.created_at, to_timestamp((e.payload ->> 'not_before')::float8)) AS due
    FROM noetl.event e
    WHERE e.execution_id = x.execution_id AND e.type = {_SCHEDULED}
      AND greatest(e.created_at, to_timestamp((e.payload ->> 'not_before')::float8))
          <= clock_timestamp() - make_interval(secs => %s)
      AND NOT {_some(_STARTED, "= e.attempt")}
      AND {_OUTSTANDING}
    OFFSET 0
) e ON true
WHERE x.status = 'RUNNING' AND x.paused_at IS NULL AND x.execution_id > %s
ORDER BY x.execution_id LIMIT %s
"""

UNCLAIMED = f"""
SELECT e.execution_id, e.step, e.visit, e.iteration, e.attempt, e.tool, e.queue {_UNCLAIMED}"""

OVERDUE = f"""
SELECT queue, count(*), extract(epoch FROM clock_timestamp() - min(due))::float8
FROM (SELECT e.queue, e.due {_UNCLAIMED}) u GROUP BY queue ORDER BY queue
"""

ABANDONED = f"""
SELECT e.execution_id, e.step, e.visit, e.iteration, e.attempt, e.worker
FROM noetl.execution x
JOIN LATERAL (
    SELECT e.execution_id, e.step, e.visit, e.iteration, e.attempt, e.worker
    FROM noetl.event e
    WHERE e.execution_id = x.execution_id AND e.type = {_STARTED}
      AND e.created_at <= clock_timestamp() - make_interval(secs => %(lease)s)
      AND {_OUTSTANDING}
      AND NOT EXISTS (
          SELECT FROM noetl.runtime r WHERE r.kind = 'worker_pool' AND r.name = e.worker
          AND r.heartbeat > clock_timestamp() - make_interval(secs => %(lease)s)
          OFFSET 0)
      AND {_some(_SCHEDULED, "= e.attempt")}
    OFFSET 0
) e ON true
WHERE x.status = 'RUNNING'
LIMIT %(limit)s
"""

UNTOLD = f"""
SELECT x.execution_id
FROM noetl.execution p
JOIN LATERAL (
    SELECT (e.payload ->> 'child_execution_id')::bigint AS child FROM noetl.event e
    WHERE e.execution_id = p.execution_id AND e.type = 'child.started'
      AND (e.payload ->> 'waits')::boolean
      AND NOT {_some(_list(STEP_ENDS))}
      AND NOT {_some("'child.ended'", "= e.attempt")}
    OFFSET 0
) c ON true
JOIN noetl.execution x ON x.execution_id = c.child AND x.status <> 'RUNNING'
WHERE p.status = 'RUNNING'
ORDER BY x.execution_id LIMIT %s
"""

# A step that was cancelled with its execution has an end, too; any other end let the child go.
ORPHANS = f"""
SELECT x.execution_id
FROM noetl.execution x
JOIN noetl.execution p ON p.execution_id = x.parent_execution_id
    AND p.status IN ('FAILED', 'CANCELLED')
JOIN LATERAL (
    SELECT payload -> 'caller' AS caller FROM noetl.event
    WHERE execution_id = x.execution_id AND seq = 1 LIMIT 1
) s ON s.caller IS NOT NULL AND jsonb_typeof(s.caller) = 'object'
WHERE x.status = 'RUNNING' AND NOT EXISTS (
    SELECT FROM noetl.event d
    WHERE d.execution_id = p.execution_id AND d.step = s.caller ->> 'step'
      AND d.visit = (s.caller ->> 'visit')::int
      AND d.iteration = (s.caller ->> 'iteration')::int
      AND d.type IN ({_list(STEP_ENDS)}) AND d.type <> 'step.cancelled'
    OFFSET 0) AND NOT EXISTS (
    SELECT FROM noetl.event d
    WHERE d.execution_id = p.execution_id AND d.type = 'execution.cancelled'
      AND NOT (d.payload ->> 'cascade')::boolean
    OFFSET 0)
ORDER BY x.execution_id LIMIT %s
"""
