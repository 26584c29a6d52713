"""The same logs as rows of today's tables: Postgres reads them as the memory twin does."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import psycopg
from psycopg.types.json import Jsonb

from app.engine.ports import ExecutionFilter, ExecutionSummary
from app.services.control import control
from app.settings import load
from app.store.catalog import PostgresCatalog
from app.store.database import Database
from app.store.events import PostgresLog
from tests.golden.files import Recording, recorded
from tests.golden.recording import new_bench, shelves

EVENT = """
INSERT INTO noetl.event (execution_id, event_id, created_at, {columns})
OVERRIDING SYSTEM VALUE VALUES (%s, %s, %s{marks})
"""
EXECUTION_COLUMNS = ExecutionSummary._fields
EXECUTION = f"""
INSERT INTO noetl.execution ({", ".join(EXECUTION_COLUMNS)})
VALUES ({", ".join(["%s"] * len(EXECUTION_COLUMNS))})
"""
#: The log lets nothing go by itself; this is for the next one.
EMPTY = """
ALTER TABLE noetl.event DISABLE TRIGGER USER;
TRUNCATE noetl.event, noetl.execution, noetl.transient, noetl.catalog CASCADE
"""
VALUE = """
INSERT INTO noetl.transient (execution_id, var_name, var_type, var_value, source_step)
VALUES (%s, %s, 'step_result', %s, '')
"""
CATALOG = """
INSERT INTO noetl.catalog (catalog_id, path, version, kind, content, meta, created_at)
OVERRIDING SYSTEM VALUE VALUES (%s, %s, %s, %s, %s, %s, %s)
"""


def put(connection: psycopg.Connection[Any], recording: Recording) -> None:
    """Write every row as it was written then."""
    for entry in recording.catalog:
        connection.execute(CATALOG, (*entry[:5], Jsonb(entry.meta), entry.created_at))
    for execution_id, rows in recording.events.items():
        for stored in rows:
            columns = stored.row._asdict()
            columns["payload"] = Jsonb(orjson.loads(stored.row.payload))
            statement = EVENT.format(columns=", ".join(columns), marks=", %s" * len(columns))
            given = (execution_id, stored.event_id, stored.at, *columns.values())
            connection.execute(statement, given)
    for execution_id, values in recording.values.items():
        for name, text in values.items():
            connection.execute(VALUE, (execution_id, name, Jsonb(orjson.loads(text))))


def test_every_log_is_read_and_verified(database: str, tmp_path: Path) -> None:
    for path in recorded():
        memory, recording = new_bench(tmp_path), Recording.read(path)
        recording.shelve(*shelves(memory))
        with psycopg.connect(database) as connection:
            connection.execute(EMPTY)
            put(connection, recording)
            for row in memory.control.executions.find(ExecutionFilter()):
                known = row._asdict()
                columns = (known[name] for name in EXECUTION_COLUMNS)
                connection.execute(EXECUTION, tuple(columns))
        with closing(Database(database, pool_size=2)) as opened:
            ports = replace(
                memory.ports, events=PostgresLog(opened), catalog=PostgresCatalog(opened)
            )
            plane = control(ports, load({}, eager=False).settings)
            for execution_id in recording.events:
                assert ports.events.read(execution_id) == memory.log(execution_id), path
                assert plane.inspection.verify(execution_id).findings == [], path
