"""Where the time of a chain goes, hop by hop, as its own log tells."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import psycopg

#: Milliseconds between the events of one step of a chain, in order. ``created_at`` is the beginning
#: of the transaction that wrote the event.
HOPS = """
SELECT extract(epoch FROM claimed.created_at - scheduled.created_at) * 1000,
    done.duration_ms,
    extract(epoch FROM done.created_at - claimed.created_at) * 1000 - done.duration_ms,
    extract(epoch FROM following.created_at - done.created_at) * 1000
FROM noetl.event scheduled
JOIN noetl.event claimed USING (execution_id, step, visit, iteration, attempt)
JOIN noetl.event done USING (execution_id, step, visit, iteration, attempt)
JOIN LATERAL (
    SELECT created_at FROM noetl.event later
    WHERE later.execution_id = done.execution_id AND later.seq > done.seq ORDER BY seq LIMIT 1
) following ON true
WHERE execution_id = ANY(%s) AND scheduled.type = 'step.scheduled'
    AND claimed.type = 'step.started' AND done.type = 'step.done'
"""
NAMES = (
    "scheduled → claimed   (commit, pointer through JetStream, claim's way to the database)",
    "the step itself       (render, fork, run, answer)",
    "claimed → reported    (claim's commit and answer, report's way to the database)",
    "reported → scheduled  (commit, wake through JetStream, read, decide)",
)


def profile(connection: psycopg.Connection, executions: Sequence[int]) -> str:
    """The median of each hop over all steps of *executions*, as lines of text."""
    rows = connection.execute(HOPS, (list(executions),)).fetchall()
    if not rows:
        return "no step has all of its events"
    medians = [statistics.median(float(row[hop]) for row in rows) for hop in range(len(NAMES))]
    lines = [f"{ms:8.2f} ms  {name}" for ms, name in zip(medians, NAMES, strict=True)]
    return "\n".join(
        [f"hops of {len(rows)} steps, medians:", *lines, f"{sum(medians):8.2f} ms  in all"]
    )
