"""How long a list of executions takes with a million of them, for every combination of filters.

    python -m bench.listing [--executions N] [--url URL] [--plans]

Fills a fresh database by SQL, times each question (median of 50) and prints the plans.
"""

from __future__ import annotations

import argparse
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy.dialects import postgresql

from app.embedded.postgres import EmbeddedPostgres
from app.engine.ports import ExecutionFilter
from app.store.database import Database
from app.store.events import PostgresLog
from app.store.ids import first_id_at
from app.store.listing import statement
from app.store.migrations import upgrade

#: The first execution; the others follow every 30 seconds.
BEGIN = datetime(2025, 1, 1, tzinfo=UTC)
GAP = 30_000
TURNS = 50
CEILING = 20.0

# One in 1,000 runs, 5 in 100 failed, 1 in 100 was cancelled. Half are of one path, the others of
# 100 paths, and one in 50,000 of a path that is never used otherwise.
_EXECUTIONS = """
CREATE TEMPORARY TABLE filled AS
SELECT n, (%(first)s + (n * %(gap)s::bigint << 23) + 5)::bigint AS id,
    to_timestamp(%(begin)s + n * %(gap)s::bigint / 1000.0) AS started_at,
    CASE WHEN n %% 1000 = 1 THEN 'RUNNING' WHEN n %% 20 = 3 THEN 'FAILED'
         WHEN n %% 100 = 11 THEN 'CANCELLED' ELSE 'COMPLETED' END AS status,
    CASE WHEN n %% 50000 = 11 THEN 'rare/path' WHEN n %% 8 >= 4 THEN 'common/path'
         ELSE 'path/' || (n %% 200) END AS path,
    CASE WHEN n %% 10 = 9 THEN %(first)s + ((n - n %% 1000) * %(gap)s::bigint << 23) + 5 END AS parent
FROM generate_series(0, %(count)s - 1) AS n
"""
_PROJECTION = """
INSERT INTO noetl.execution
SELECT id, 1, path, 1, status, parent, started_at,
    CASE WHEN status <> 'RUNNING' THEN started_at + interval '1 second' END,
    CASE WHEN status = 'FAILED' THEN 'it broke' END
FROM filled ORDER BY n
"""
_FIRST_EVENTS = """
INSERT INTO noetl.event
    (execution_id, seq, catalog_id, type, status, payload, created_at, parent_execution_id)
SELECT id, 1, 1, 'execution.started', 'RUNNING', jsonb_build_object('path', path, 'version', 1,
    'catalog_id', 1, 'workload', '{}'::jsonb), started_at, parent FROM filled ORDER BY n
"""
_LAST_EVENTS = """
INSERT INTO noetl.event (execution_id, seq, catalog_id, type, status, step, visit, iteration,
    attempt, worker, payload, created_at)
SELECT id, 2, 1, CASE WHEN status = 'RUNNING' THEN 'step.scheduled' ELSE 'execution.'
    || lower(status) END, status, CASE WHEN status = 'RUNNING' THEN 'a' END,
    CASE WHEN status = 'RUNNING' THEN 1 END, CASE WHEN status = 'RUNNING' THEN -1 END,
    CASE WHEN status = 'RUNNING' THEN 1 END, NULL,
    '{"tool": "noop", "queue": "default.io", "reads": {}}', started_at FROM filled ORDER BY n
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """A question, its median and slowest time in ms, and how many rows it gave."""

    name: str
    median: float
    slowest: float
    rows: int


def fill(database: Database, count: int) -> None:
    """Put *count* executions of two events each into the empty *database*."""
    values = {
        "first": first_id_at(BEGIN),
        "begin": BEGIN.timestamp(),
        "gap": GAP,
        "count": count,
    }
    with database.raw() as connection:
        connection.execute("SET statement_timeout = 0")
        connection.execute("SET synchronous_commit = off")
        connection.execute(_EXECUTIONS, values)
        for query in (_PROJECTION, _FIRST_EVENTS, _LAST_EVENTS):
            connection.execute(query)
        connection.execute("DROP TABLE filled")
        connection.execute("VACUUM ANALYZE noetl.execution")
        connection.execute("VACUUM ANALYZE noetl.event")


def filters(count: int) -> dict[str, ExecutionFilter]:
    """Every combination of filters, common and rare, at both ends of the list."""

    def at(share: float) -> datetime:
        return BEGIN + timedelta(milliseconds=GAP * count * share)

    hour = timedelta(hours=1)
    middle = first_id_at(at(0.5))
    rare = ExecutionFilter(path="rare/path", status="CANCELLED")
    parent = first_id_at(BEGIN) + (count // 2000 * 1000 * GAP << 23) + 5
    return {
        "no filter": ExecutionFilter(),
        "no filter, page 200": ExecutionFilter(offset=10_000),
        "cursor in the middle": ExecutionFilter(before=middle),
        "limit 500": ExecutionFilter(limit=500),
        "status COMPLETED (94 %)": ExecutionFilter(status="COMPLETED"),
        "status CANCELLED (1 %)": ExecutionFilter(status="CANCELLED"),
        "status RUNNING (0.1 %)": ExecutionFilter(status="RUNNING"),
        "status RUNNING, cursor in the middle": ExecutionFilter(status="RUNNING", before=middle),
        "path, common (50 %)": ExecutionFilter(path="common/path"),
        "path, one of 100": ExecutionFilter(path="path/75"),
        "path, rare (0.002 %)": ExecutionFilter(path="rare/path"),
        "path, unknown": ExecutionFilter(path="no/such/path"),
        "path common, status FAILED": ExecutionFilter(path="common/path", status="FAILED"),
        "path one of 100, status RUNNING": ExecutionFilter(path="path/1", status="RUNNING"),
        "path rare, status CANCELLED": rare,
        "path rare, status FAILED (no row)": replace(rare, status="FAILED"),
        "one hour in the middle": ExecutionFilter(
            started_after=at(0.5), started_before=at(0.5) + hour
        ),
        "before the middle": ExecutionFilter(started_before=at(0.5)),
        "after the middle": ExecutionFilter(started_after=at(0.5)),
        "first hour": ExecutionFilter(started_before=BEGIN + hour),
        "status RUNNING, before the middle": ExecutionFilter(
            status="RUNNING", started_before=at(0.5)
        ),
        "status CANCELLED, one hour": ExecutionFilter(
            status="CANCELLED", started_after=at(0.5), started_before=at(0.5) + hour
        ),
        "path common, first hour": ExecutionFilter(path="common/path", started_before=BEGIN + hour),
        "path rare, after the middle": ExecutionFilter(path="rare/path", started_after=at(0.5)),
        "path rare, status CANCELLED, before the middle": replace(rare, started_before=at(0.5)),
        "path common, status FAILED, one hour, cursor": ExecutionFilter(
            path="common/path",
            status="FAILED",
            started_after=at(0.5),
            started_before=at(0.5) + hour,
            before=first_id_at(at(0.5) + hour / 2),
        ),
        "status RUNNING, nine tenths of the time": ExecutionFilter(
            status="RUNNING", started_after=at(0.05), started_before=at(0.95)
        ),
        "path rare, nine tenths of the time": ExecutionFilter(
            path="rare/path", started_after=at(0.05), started_before=at(0.95)
        ),
        "path rare, status FAILED, nine tenths (no row)": ExecutionFilter(
            path="rare/path", status="FAILED", started_after=at(0.05), started_before=at(0.95)
        ),
        "parent (100 children)": ExecutionFilter(parent_execution_id=parent),
        "parent, status RUNNING (no row)": ExecutionFilter(
            parent_execution_id=parent, status="RUNNING"
        ),
    }


def measure(name: str, ask: Callable[[], Any]) -> Measured:
    """Ask *TURNS* times, after a few to warm up: prepared statements start at the fifth."""
    for _ in range(6):
        answer = ask()
    times = []
    for _ in range(TURNS):
        begin = time.perf_counter()
        ask()
        times.append((time.perf_counter() - begin) * 1000)
    return Measured(name, statistics.median(times), max(times), len(answer))


def plan(database: Database, query: ExecutionFilter) -> str:
    """EXPLAIN ANALYZE of the plan that the prepared statement of this list keeps."""
    dialect = postgresql.dialect(paramstyle="pyformat")  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped
    compiled = statement(query).compile(dialect=dialect)
    names = re.findall(r"%\((\w+)\)s", str(compiled))
    sql = re.sub(r"%\(\w+\)s", "{}", str(compiled)).format(
        *(f"${number}" for number in range(1, len(names) + 1))
    )
    values = ", ".join(f"'{compiled.params[name]}'" for name in names)
    with database.raw() as connection:
        connection.execute(f"PREPARE listing AS {sql}".encode())
        rows = connection.execute(
            f"EXPLAIN (ANALYZE, COSTS OFF, SUMMARY OFF) EXECUTE listing ({values})".encode()
        ).fetchall()
        connection.execute("DEALLOCATE listing")
    return "\n".join(line for (line,) in rows)


def others(log: PostgresLog) -> dict[str, Callable[[], Any]]:
    """What else must not depend on how many executions have ended."""
    return {
        "open_executions(limit=1000)": log.open_executions,
        "unclaimed(limit=1000)": lambda: log.unclaimed(older_than=20),
        "abandoned(limit=1000)": lambda: log.abandoned(lease=15),
        "count_by_status()": log.count_by_status,
    }


def report(database: Database, count: int, *, plans: bool) -> bool:
    """Print the table; whether every list stayed below the ceiling."""
    log = PostgresLog(database)
    queries = filters(count)
    results = [measure(name, partial(log.executions, query)) for name, query in queries.items()]
    print(f"\n{count:,} executions; median and slowest of {TURNS}, in ms, Python included\n")
    print("| list | rows | median | slowest |\n|---|---:|---:|---:|")
    for one in results:
        print(f"| {one.name} | {one.rows} | {one.median:.2f} | {one.slowest:.2f} |")
    print("\n| also | rows | median | slowest |\n|---|---:|---:|---:|")
    for name, ask in others(log).items():
        one = measure(name, ask)
        print(f"| {one.name} | {one.rows} | {one.median:.2f} | {one.slowest:.2f} |")
    if plans:
        for name, query in queries.items():
            print(f"\n{name}:\n```\n{plan(database, query)}\n```")
    return all(one.median < CEILING for one in results)


@contextmanager
def fresh(url: str | None) -> Iterator[str]:
    """URL of a migrated database: the given one, or one on a Postgres of our own."""
    if url is not None:
        upgrade(url)
        yield url
        return
    with (
        tempfile.TemporaryDirectory(prefix="callboard-bench-") as folder,
        EmbeddedPostgres(Path(folder) / "postgres") as server,
    ):
        upgrade(server.url)
        yield server.url


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--executions", type=int, default=1_000_000, metavar="N")
    parser.add_argument("--url", help="an empty database to use instead of an embedded one")
    parser.add_argument("--plans", action="store_true", help="print every plan too")
    arguments = parser.parse_args()
    with fresh(arguments.url) as url:
        database = Database(url, application_name="callboard bench")
        try:
            begin = time.perf_counter()
            fill(database, arguments.executions)
            print(f"filled in {time.perf_counter() - begin:.0f} s")
            fits = report(database, arguments.executions, plans=arguments.plans)
        finally:
            database.close()
    print(f"\nevery list below {CEILING:.0f} ms: {'yes' if fits else 'NO'}")
    return 0 if fits else 1


if __name__ == "__main__":
    raise SystemExit(main())
