"""The filler's executions are as good as those that ran."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from app.engine.ports import ExecutionFilter
from app.services.control import Control, Ports, control
from app.settings import load
from app.store.catalog import PostgresCatalog
from app.store.database import Database
from app.store.events import PostgresLog
from app.store.ids import Snowflake
from app.store.runtime import PostgresRuntime
from app.wiring import ToolKinds, memory_custody
from bench.filler import fill
from bench.flatness import Outbox


def _plane(database: Database, home: Path) -> Control:
    ports = Ports(
        events=PostgresLog(database),
        catalog=PostgresCatalog(database),
        runtime=PostgresRuntime(database),
        dispatcher=Outbox(),
        kinds=ToolKinds(),
        clock=time.time,
        new_id=Snowflake(),
        custody=memory_custody(),
    )
    return control(ports, load({}, home=home, eager=False).settings)


def test_what_is_filled_in_can_be_opened_and_verified(database: str, tmp_path: Path) -> None:
    filled = fill(database, events=1_000, executions=100)
    pool = Database(database, pool_size=2)
    try:
        plane = _plane(pool, tmp_path)
        rows = plane.executions.find(ExecutionFilter(limit=500))
        assert len(rows) == filled.executions == 100
        assert (rows[-1].execution_id, rows[0].execution_id) == (filled.first_id, filled.last_id)
        for row in (rows[0], rows[-1]):
            assert plane.inspection.verify(row.execution_id).findings == []
            assert plane.executions.status(row.execution_id).state.status == "completed"
        counted = sum(plane.executions.count_events(row.execution_id) for row in rows)
        # Whole steps of three events each.
        assert counted == filled.events
        assert 998 <= filled.events <= 1_000
    finally:
        pool.close()


def test_less_than_a_step_each_is_refused(database: str) -> None:
    with pytest.raises(ValueError, match="600 events at least"):
        fill(database, events=500, executions=100)
