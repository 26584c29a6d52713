"""A list of executions reads one stretch of the right index, whatever Postgres knows of the table."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from sqlalchemy import text
from sqlalchemy.dialects import postgresql

from app.engine.ports import ExecutionFilter
from app.store.database import Database
from app.store.listing import statement

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)

INDEXES = {
    "execution_pkey": ExecutionFilter(),
    "execution_status": ExecutionFilter(status="RUNNING"),
    "execution_path": ExecutionFilter(path="p7"),
    "execution_path_status": ExecutionFilter(path="p7", status="RUNNING"),
    "execution_parent": ExecutionFilter(parent_execution_id=5),
}
TIMES: list[dict[str, datetime | int]] = [
    dict(itertools.chain(*chosen))
    for chosen in itertools.product(
        ({}.items(), {"started_after": NOON}.items()),
        ({}.items(), {"started_before": NOON}.items()),
        ({}.items(), {"before": 2**60}.items()),
    )
]


def plan(pool: Database, query: ExecutionFilter) -> str:
    dialect = postgresql.dialect(paramstyle="pyformat")  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped
    numbers = itertools.count(1)
    compiled = str(statement(query).compile(dialect=dialect))
    sql = re.sub(r"%\(\w+\)s", lambda _: f"${next(numbers)}", compiled)
    with pool.raw() as connection:
        explain = f"EXPLAIN (GENERIC_PLAN, COSTS OFF) {sql}".encode()
        return "\n".join(row[0] for row in connection.execute(explain, prepare=False))


def fill(pool: Database, count: int) -> None:
    with pool.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO noetl.execution SELECT n, 1, 'p' || n % 10, 1, 'COMPLETED', n / 100,"
                " now() FROM generate_series(1, :count) AS n"
            ),
            {"count": count},
        )


@pytest.mark.parametrize("rows", [0, 20, 5000])
@pytest.mark.parametrize("index", INDEXES)
def test_lists(pool: Database, index: str, rows: int) -> None:
    fill(pool, rows)
    for analyze in (False, True):
        if analyze:
            with pool.raw() as connection:
                connection.execute("ANALYZE noetl.execution")
        for times in TIMES:
            found = plan(pool, replace(INDEXES[index], **times))  # type: ignore[arg-type]  # a table of keyword arguments
            assert re.findall(r"Scan.* using (\w+)", found) == [index], found
            assert not re.search("Sort|Filter|Seq Scan|Bitmap", found), found
