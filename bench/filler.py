"""Fills the log with executions that have ended, quickly, for whoever measures what a long log costs.

    python -m bench.filler URL --events N --executions N

The events are those that the engine writes: one execution of each length runs in this process, on
the memory twins, and its rows are copied under other ids and times. So a filled execution can be
opened, verified, retried and pruned as any other.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
import structlog

from app.engine.encoding import dumps, loads
from app.engine.entry import Entry
from app.engine.events import ExecutionStarted
from app.engine.ports import CatalogEntry, Draft
from app.local import follow, local_plane
from app.settings import load
from app.store.catalog import PostgresCatalog
from app.store.database import Database, libpq_url
from app.store.ids import first_id_at
from app.store.rows import Row, row_of

#: Events of each step, and of an execution besides: its start, its last step's way out, its end.
PER_STEP, AROUND = 3, 3
#: Bytes that are handed to Postgres at once.
PIECE = 1 << 20

PLAYBOOK = (
    "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {{name: filled, path: {path}}}\nworkflow:\n"
)
_EVENTS = """
COPY noetl.event (execution_id, catalog_id, seq, type, step, visit, iteration, attempt, worker,
    status, error, duration_ms, idempotency_key, payload, created_at) FROM STDIN
"""
_EXECUTIONS = """
COPY noetl.execution (execution_id, catalog_id, path, version, status, started_at, ended_at)
FROM STDIN
"""


@dataclass(frozen=True, slots=True)
class Filled:
    """What was added, in how many seconds; the ids of the executions are between two."""

    executions: int
    events: int
    seconds: float
    first_id: int
    last_id: int


@dataclass(frozen=True, slots=True)
class Model:
    """An execution to be copied: each of its rows as text for COPY, with places for id and time."""

    entry: CatalogEntry
    rows: tuple[str, ...]


def fill(
    database_url: str,
    *,
    events: int,
    executions: int,
    days: float = 90.0,
    until: datetime | None = None,
) -> Filled:
    """Add *executions* that ended well, with *events* in all, or as near as whole steps come.

    They are of equal length but for one step, evenly over the *days* (of 24 hours) before *until*,
    by default a day ago. They are chains of one trivial step after the other: three events, and three
    a step. The database must be migrated. Ends with VACUUM ANALYZE, as autovacuum would.
    Raises ``ValueError`` for less than one step in each execution.
    """
    began = time.perf_counter()
    least = (AROUND + PER_STEP) * executions
    if executions < 1 or events < least:
        raise ValueError(f"{executions} executions have {least} events at least")
    steps, longer = divmod((events - AROUND * executions) // PER_STEP, executions)
    models = [_model(database_url, size) for size in ((steps, steps + 1) if longer else (steps,))]
    end = until or datetime.now(UTC) - timedelta(days=1)
    begin = end - timedelta(days=days)
    moments = [begin + timedelta(days=days) * (n / executions) for n in range(executions)]
    ids = [first_id_at(moment) + n % 4096 for n, moment in enumerate(moments)]
    # The longer ones lie evenly among the others.
    which = [(n + 1) * longer // executions - n * longer // executions for n in range(executions)]
    filled = [(models[w], i, m) for w, i, m in zip(which, ids, moments, strict=True)]
    with psycopg.connect(libpq_url(database_url), autocommit=True) as connection:
        connection.execute("SET statement_timeout = 0")
        _copy(connection, _EVENTS, (_event_rows(*one) for one in filled))
        _copy(connection, _EXECUTIONS, (_execution_row(*one) for one in filled))
        connection.execute("VACUUM ANALYZE noetl.event")
        connection.execute("VACUUM ANALYZE noetl.execution")
    count = sum(len(model.rows) for model, _, _ in filled)
    return Filled(executions, count, time.perf_counter() - began, ids[0], ids[-1])


def _model(database_url: str, steps: int) -> Model:
    """An execution of a chain of *steps*, as the engine writes it, its playbook registered."""
    path = f"bench/filled/{steps}"
    text = PLAYBOOK.format(path=path) + "\n".join(_chain(steps))
    with TemporaryDirectory(prefix="cb-fill-") as folder:
        settings = load({}, home=Path(folder)).settings
        with local_plane(settings) as (plane, _, ports):
            local = plane.catalog.register(text)
            started = plane.executions.start(catalog_id=local.catalog_id)
            entries: list[Entry] = []
            follow(ports, started.execution_id, entries.append)
    database = Database(database_url, pool_size=1, application_name="callboard filler")
    try:
        entry = PostgresCatalog(database).add(path, local.kind, text, meta=local.meta)
    finally:
        database.close()
    rows = tuple(_row(number, each, entry) for number, each in enumerate(entries, 1))
    return Model(entry, rows)


def _chain(steps: int) -> Iterator[str]:
    for number in range(steps):
        onward = f", next: {{arcs: [{{step: s{number + 1}}}]}}" if number < steps - 1 else ""
        yield f"- {{step: s{number}, tool: {{kind: noop, result: {{n: {number}}}}}{onward}}}"


def _row(seq: int, entry: Entry, catalog: CatalogEntry) -> str:
    """The event as COPY reads it; ``{id}`` and ``{at}`` stand for what differs."""
    row: Row = row_of(seq, Draft(entry.event, _key(entry)))
    payload = loads(row.payload)
    if isinstance(entry.event, ExecutionStarted):
        payload |= {"catalog_id": catalog.catalog_id, "version": catalog.version}
    columns = [
        catalog.catalog_id,
        *row[: row._fields.index("payload")],
        dumps(payload).decode(),
    ]
    text = "\t".join(_text(value) for value in columns).replace("{", "{{").replace("}", "}}")
    return f"{{id}}\t{text}\t{{at}}\n"


def _key(entry: Entry) -> str | None:
    """A key as long as those of claims and reports, which are hashes of what they are of."""
    kind = {"step.started": "claim", "step.done": "report"}.get(entry.event.type)
    return kind and f"{kind}:{entry.seq:032x}"


def _text(value: Any) -> str:
    if value is None:
        return r"\N"
    text = str(value)
    for plain, escaped in (("\\", "\\\\"), ("\t", "\\t"), ("\n", "\\n"), ("\r", "\\r")):
        text = text.replace(plain, escaped)
    return text


def _event_rows(model: Model, execution_id: int, moment: datetime) -> str:
    """Ten milliseconds lie between one event and the next."""
    return "".join(
        row.format(id=execution_id, at=_at(moment, number)) for number, row in enumerate(model.rows)
    )


def _execution_row(model: Model, execution_id: int, moment: datetime) -> str:
    entry, ended = model.entry, _at(moment, len(model.rows) - 1)
    columns: Sequence[Any] = (
        execution_id,
        entry.catalog_id,
        entry.path,
        entry.version,
        "COMPLETED",
        _at(moment, 0),
        ended,
    )
    return "\t".join(map(_text, columns)) + "\n"


def _at(moment: datetime, number: int) -> str:
    return (moment + timedelta(milliseconds=10 * number)).isoformat()


def _copy(connection: psycopg.Connection[Any], statement: str, rows: Iterable[str]) -> None:
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        held, size = [], 0
        for row in rows:
            held.append(row)
            size += len(row)
            if size >= PIECE:
                copy.write("".join(held))
                held, size = [], 0
        copy.write("".join(held))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("url", help="of a migrated database")
    parser.add_argument("--events", type=int, default=1_000_000, metavar="N")
    parser.add_argument("--executions", type=int, default=100_000, metavar="N")
    parser.add_argument("--days", type=float, default=90.0, help="over which they lie")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    filled = fill(
        options.url, events=options.events, executions=options.executions, days=options.days
    )
    print(
        f"{filled.events:,} events of {filled.executions:,} executions in {filled.seconds:.0f} s,"
        f" ids {filled.first_id} to {filled.last_id}"
    )


if __name__ == "__main__":
    main()
