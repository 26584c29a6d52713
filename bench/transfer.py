"""``python -m bench.transfer``: a million rows through the transfer tool, its time and its memory.

The tool runs in this process, Postgres in its own (with fsync, as ``callboard up`` runs it). Memory
is the most that this process ever held, Python and the libraries included, and what it held before
the first row.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from app.embedded.postgres import EmbeddedPostgres
from app.settings import load
from app.tools import Context, load_tool

ROWS = 1_000_000
TABLE = "(id bigint PRIMARY KEY, name text, amount numeric(12, 2), at timestamptz, about jsonb)"
FILL = """
    INSERT INTO source SELECT i, CASE WHEN mod(i, 7) > 0 THEN 'name of ' || i END, i / 7.0,
    timestamptz '2026-01-01' + i * interval '1 second', jsonb_build_object('n', i)
    FROM generate_series(1, %s) AS i
"""


@dataclass(frozen=True, slots=True)
class Run:
    """What a transfer took. Memory in MiB."""

    name: str
    rows: int
    seconds: float
    mib: float
    before: float
    after: float


def measure(rows: int, modes: Sequence[str]) -> Iterator[Run]:
    """Transfer *rows* rows between two tables, once for each of *modes*."""
    with _prepared(rows) as (context, url):
        for mode in modes:
            before = _peak()
            result = _transfer(context, url, mode)
            yield Run(
                f"postgres → postgres, {mode}",
                result["rows_transferred"],
                result["duration_ms"] / 1000,
                result["bytes"] / 2**20,
                before,
                _peak(),
            )


@contextmanager
def _prepared(rows: int) -> Iterator[tuple[Context, str]]:
    with tempfile.TemporaryDirectory() as folder, EmbeddedPostgres(Path(folder) / "pg") as server:
        with psycopg.connect(server.url, autocommit=True) as connection:
            for name in ("source", "target"):
                connection.execute(f"CREATE TABLE {name} {TABLE}".encode())
            connection.execute(FILL, [rows])
        workspace = Path(folder) / "workspace"
        yield Context(1, "bench", 1, -1, 1, load({}).settings, 600.0, workspace), server.url


def _transfer(context: Context, url: str, mode: str) -> dict[str, Any]:
    tool = load_tool("transfer")
    side = {"type": "postgres", "auth": {"url": url}}
    config = {
        "source": {**side, "query": "SELECT * FROM source ORDER BY id"},
        "target": {**side, "table": "target"},
        "mode": mode,
        "keys": ["id"],
    }
    result: dict[str, Any] = tool.run(tool.input.model_validate(config), context)
    return result


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Measure, and print a line for each run."""
    parser = argparse.ArgumentParser(prog="python -m bench.transfer", description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--modes", nargs="+", default=["append", "replace", "upsert"])
    given = parser.parse_args()
    for run in measure(given.rows, given.modes):
        rate = run.rows / run.seconds
        print(
            f"{run.name}: {run.rows:,} rows ({run.mib:.0f} MiB) in {run.seconds:.1f} s, "
            f"{rate:,.0f} rows/s; at most {run.after:.0f} MiB of memory ({run.before:.0f} before)"
        )


if __name__ == "__main__":
    main()
