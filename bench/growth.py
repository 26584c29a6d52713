"""What an append, a read and a prune cost when the log is 10⁴, 10⁵, 10⁶ and 10⁷ events long.

    python -m bench.growth [--most N] [--url URL] [--out FILE]

Fills the log step by step (see ``bench.filler``) and measures at each size, on one connection:
time (median and 95 %), blocks of table and indexes that Postgres touched, and bytes of WAL. The
time is that of this machine and of what else it does; the blocks are those of the method.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import structlog

from app.engine.events import (
    Event,
    ExecutionCompleted,
    ExecutionStarted,
    StepDone,
    StepKey,
    StepScheduled,
    StepStarted,
)
from app.engine.ports import Draft, ExecutionFilter
from app.store.database import Database
from app.store.events import PostgresLog
from app.store.ids import Snowflake
from app.store.retention import PostgresRetention
from bench.filler import fill
from bench.listing import fresh

SIZES = (10_000, 100_000, 1_000_000, 10_000_000)
#: Events of an execution in the filled log.
LENGTH = 21
TURNS = 400
#: Executions that are removed in one transaction, and how many of those.
BATCH = 20
PRUNES = 10
KEY = StepKey("s0", 1, -1)


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one operation: ms, blocks touched (of them read from outside shared buffers), WAL bytes.

    ``pages`` are those that the WAL holds whole (up to 8 KiB each), as each must once after a
    checkpoint.
    """

    name: str
    median_ms: float
    p95_ms: float
    blocks: float
    blocks_read: float
    wal: float
    pages: float


@dataclass(frozen=True, slots=True)
class Size:
    """What is on disk before anything is measured, bytes. ``indexes`` by name."""

    events: int
    executions: int
    table: int
    indexes: dict[str, int]
    levels: dict[str, int]


class Meter:
    """Counts what the server did meanwhile. Nothing else may use it."""

    def __init__(self, url: str, database: Database) -> None:
        self._connection = psycopg.connect(url, autocommit=True)
        self._database = database

    def counts(self) -> tuple[int, int, int, int]:
        """Blocks touched, blocks read, WAL bytes, whole pages in the WAL so far."""
        with self._database.raw() as connection:
            connection.execute("SELECT pg_stat_force_next_flush()")
        with self._database.raw() as connection:
            connection.execute("SELECT 1")
        row = self._connection.execute(
            "SELECT sum(heap_blks_hit + heap_blks_read + idx_blks_hit + idx_blks_read)::bigint,"
            " sum(heap_blks_read + idx_blks_read)::bigint,"
            " (SELECT wal_bytes FROM pg_stat_wal)::bigint, (SELECT wal_fpi FROM pg_stat_wal)"
            " FROM pg_statio_user_tables WHERE schemaname = 'noetl'"
        ).fetchone()
        assert row is not None
        return row

    def measure(self, name: str, turns: Sequence[Callable[[], Any]]) -> Cost:
        """Each of *turns* once, after a tenth of them to warm up."""
        warm, turns = turns[: len(turns) // 10], turns[len(turns) // 10 :]
        for turn in warm:
            turn()
        before, times = self.counts(), []
        for turn in turns:
            began = time.perf_counter()
            turn()
            times.append((time.perf_counter() - began) * 1000)
        touched, read, wal, pages = (
            (a - b) / len(turns) for a, b in zip(self.counts(), before, strict=True)
        )
        p95 = statistics.quantiles(times, n=20)[-1]
        return Cost(name, statistics.median(times), p95, touched, read, wal, pages)

    def size(self) -> Size:
        """What the log takes now."""
        ask = self._connection.execute
        executions = ask("SELECT count(*) FROM noetl.execution").fetchone()
        events = ask("SELECT count(*) FROM noetl.event").fetchone()
        table = ask("SELECT pg_table_size('noetl.event')").fetchone()
        assert executions is not None
        assert events is not None
        assert table is not None
        indexes = ask(
            "SELECT indexrelid::regclass::text, pg_relation_size(indexrelid) FROM pg_index"
            " WHERE indrelid = 'noetl.event'::regclass ORDER BY 1"
        ).fetchall()
        return Size(events[0], executions[0], table[0], dict(indexes), self._levels(indexes))

    def _levels(self, indexes: Sequence[tuple[str, int]]) -> dict[str, int]:
        """Pages from root to leaf of each index, where the server has ``pageinspect``."""
        try:
            self._connection.execute("CREATE EXTENSION IF NOT EXISTS pageinspect")
        except psycopg.Error:
            return {}
        found = {}
        for name, _ in indexes:
            row = self._connection.execute("SELECT level + 1 FROM bt_metap(%s)", [name]).fetchone()
            assert row is not None
            found[name] = row[0]
        return found


def appends(log: PostgresLog) -> list[Callable[[], Any]]:
    """Turns that each write one event in a durable transaction: starts, schedules, claims, ends."""
    new_id = Snowflake()
    turns: list[Callable[[], Any]] = []
    for _ in range(TURNS // 5):
        execution_id = new_id()
        story: tuple[Event, ...] = (
            ExecutionStarted(1, "bench/growth", 1, {}),
            StepScheduled(*KEY, attempt=1, tool="noop", queue="default.io", reads={}),
            StepStarted(*KEY, attempt=1, worker="bench"),
            StepDone(*KEY, attempt=1, result={"n": 1}, worker="bench"),
            ExecutionCompleted(),
        )
        for number, event in enumerate(story):
            draft = Draft(event, f"key:{execution_id}:{number}")
            turns.append(partial(_append, log, execution_id, draft))
    return turns


def _append(log: PostgresLog, execution_id: int, draft: Draft) -> None:
    with log.transaction([execution_id]) as tx:
        if draft.event.type in {"step.started", "step.done"}:
            tx.attempts([(execution_id, KEY)])
        tx.append(execution_id, [draft])


def _prune(store: PostgresRetention, execution_ids: Sequence[int]) -> None:
    members = {each: store.family(each)[0].events for each in execution_ids}
    gone = store.remove(members, ended_before=datetime.now(UTC))
    assert len(gone) == len(members)


def costs(meter: Meter, database: Database, ids: Sequence[int]) -> list[Cost]:
    """All operations; *ids* are executions of the filled log, of which some are removed."""
    log = PostgresLog(database)
    store = PostgresRetention(database)
    batches = [ids[n : n + BATCH] for n in range(0, BATCH * PRUNES, BATCH)]
    chosen = random.Random(1).choices(ids[BATCH * PRUNES :], k=TURNS)
    return [
        meter.measure("append one event", appends(log)),
        meter.measure("read an execution", [partial(log.read, i) for i in chosen]),
        meter.measure("its summary", [partial(log.summary, i) for i in chosen]),
        meter.measure("list 50", [lambda: log.executions(ExecutionFilter())] * TURNS),
        meter.measure("prune 20 executions", [partial(_prune, store, batch) for batch in batches]),
        meter.measure("sweep: unclaimed", [lambda: log.unclaimed(older_than=20)] * 50),
        meter.measure("sweep: abandoned", [lambda: log.abandoned(lease=15)] * 50),
    ]


def run(url: str, most: int, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Fill and measure, size by size."""
    database = Database(url, pool_size=1, application_name="callboard bench")
    meter, rows, there = Meter(url, database), [], 0
    try:
        for events in (size for size in SIZES if size <= most):
            filled = fill(url, events=events - there, executions=(events - there) // LENGTH)
            there = events
            say(f"{events:,}: filled in {filled.seconds:.0f} s")
            with psycopg.connect(url) as connection:
                ids = [
                    row[0]
                    for row in connection.execute(
                        "SELECT execution_id FROM noetl.execution"
                        " WHERE path LIKE 'bench/filled/%' ORDER BY random() LIMIT 2000"
                    )
                ]
            size = meter.size()
            measured = costs(meter, database, ids)
            rows.append({"size": asdict(size), "costs": [asdict(cost) for cost in measured]})
            say(table(size, measured))
    finally:
        database.close()
    return rows


def table(size: Size, measured: Sequence[Cost]) -> str:
    total = size.table + sum(size.indexes.values())
    lines = [
        f"\n{size.events:,} events of {size.executions:,} executions: {total / 2**20:,.0f} MiB,",
        f"{total / size.events:.0f} bytes each, the table {size.table / size.events:.0f} of them\n",
        "| operation | median ms | 95 % ms | blocks | read | WAL bytes | whole pages |",
        "|---|---:|---:|---:|---:|---:|---:|",
        *(
            f"| {c.name} | {c.median_ms:.2f} | {c.p95_ms:.2f} | {c.blocks:.1f} |"
            f" {c.blocks_read:.2f} | {c.wal:.0f} | {c.pages:.2f} |"
            for c in measured
        ),
        "",
        *(
            f"{name}: {bytes_ / size.events:.1f} bytes an event,"
            f" {size.levels.get(name, '?')} levels"
            for name, bytes_ in size.indexes.items()
        ),
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--most", type=int, default=SIZES[-1], help="the greatest size")
    parser.add_argument("--url", help="an empty database to use instead of an embedded one")
    parser.add_argument("--out", type=Path, help="where to write all of it as JSON")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with fresh(options.url) as url:
        rows = run(url, options.most, lambda text: print(text, flush=True))
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
