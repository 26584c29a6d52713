"""The hot look-ups go through the index made for them, whatever Postgres knows of the tables."""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

import pytest

from app.store import statements
from app.store.database import Database

KEYS = {"event_u3_scheduled", "event_u4_step_end", "event_u7_started", "event_fences"}

EXPECTED: dict[str, tuple[str, set[str]]] = {
    "attempts": (statements.ATTEMPTS, KEYS),
    "heads": (statements.HEADS, {"event_pkey", "execution_pkey"}),
    "entries": (statements.ENTRIES, {"event_pkey"}),
    "under": (statements.UNDER, {"event_u2_idempotency"}),
    "as assumed": (statements.INSERT_AS_ASSUMED, {"event_pkey"}),
    "one as assumed": (statements.INSERT_ONE_AS_ASSUMED, {"event_pkey"}),
    "iterations": (statements.ITERATIONS, {"event_u4_step_end"}),
}


def plan(pool: Database, statement: str) -> str:
    """The plan that a prepared statement keeps, as text."""
    numbers = itertools.count(1)
    numbered = re.sub(r"%\(\w+\)s|%s", lambda _: f"${next(numbers)}", statement)
    with pool.raw() as connection:
        rows = connection.execute(f"EXPLAIN (GENERIC_PLAN, COSTS OFF) {numbered}".encode())
        return "\n".join(line for (line,) in rows)


def check(text: str, indexes: set[str]) -> None:
    used = set(re.findall(r"using (\w+)", text)) | set(
        re.findall(r"(?<!Function )Scan on (\w+_\w+)", text)
    )
    assert used == indexes, text
    assert "Seq Scan" not in text
    assert "Bitmap" not in text
    assert "Sort Key: e" not in text


@pytest.mark.parametrize("turns", [0, 3, 60, 4000])
@pytest.mark.parametrize("name", EXPECTED)
def test_with_one_execution_however_long(pool: Database, name: str, turns: int) -> None:
    statement, indexes = EXPECTED[name]
    if turns:
        fill(pool, turns)
    check(plan(pool, statement), indexes)
    with pool.raw() as connection:
        connection.execute("ANALYZE noetl.event")
    check(plan(pool, statement), indexes)


@pytest.mark.parametrize("statement", [statements.UNCLAIMED, statements.ABANDONED])
@pytest.mark.parametrize("short", [0, 3000])
def test_a_sweep_asks_per_event_even_where_most_executions_are_short(
    pool: Database, statement: str, short: int
) -> None:
    if short:
        fill(pool, 500)
        with pool.raw() as connection:
            connection.execute(
                "INSERT INTO noetl.event (execution_id, seq, type, payload)"
                " SELECT n, 1, 'execution.started', '{}' FROM generate_series(2, %s) AS n",
                [short],
            )
            connection.execute("ANALYZE noetl.event")
    found = plan(pool, statement)
    assert set(re.findall(r"using (event\w+)", found)) <= KEYS, found
    assert not re.search("Anti|Hash|Merge|Materialize|Seq Scan|Bitmap", found), found
    assert re.search(r"Index Cond: \(+status = 'RUNNING'::text\)", found), found


def fill(pool: Database, count: int) -> None:
    """One execution whose step a was scheduled, claimed and ended *count* times in a loop."""
    with pool.raw() as connection:
        connection.execute(
            """
            INSERT INTO noetl.event
                (execution_id, seq, type, step, visit, iteration, attempt, payload)
            SELECT 1, 3 * i + n, t, 'a', 1, i, 1, '{}' FROM generate_series(0, %s) AS i,
                unnest(ARRAY['step.scheduled', 'step.started', 'step.done'])
                WITH ORDINALITY AS u(t, n)
            """,
            [count],
        )


def buffers(node: dict[str, Any]) -> int:
    return int(node["Shared Hit Blocks"]) + int(node["Shared Read Blocks"])


def test_the_cost_of_a_fence_does_not_grow_with_the_execution(pool: Database) -> None:
    costs = []
    for count in (100, 20_000):
        with pool.raw() as connection:
            connection.execute("ALTER TABLE noetl.event DISABLE TRIGGER USER")
            connection.execute("TRUNCATE noetl.event")
        fill(pool, count)
        keys = [
            {"execution_id": 1, "step": "a", "visit": 1, "iteration": number}
            for number in range(40, 60)
        ]
        with pool.raw() as connection:
            explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statements.ATTEMPTS}"
            row = connection.execute(explain.encode(), [json.dumps(keys)]).fetchone()
        assert row is not None
        costs.append(buffers(row[0][0]["Plan"]))
    # A deeper tree may cost a page per look-up more; a scan would cost hundreds.
    assert costs[1] <= costs[0] + 20 * 4, costs
