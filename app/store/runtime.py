"""The registry of live processes on Postgres; its clock is the database's."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Boolean, Select, delete, func, literal_column, select, true
from sqlalchemy.dialects.postgresql import insert

from app.engine.ports import RuntimeEntry
from app.store.database import Database
from app.store.tables import runtime as r

_COLUMNS = (
    r.c.name,
    r.c.kind,
    r.c.status,
    r.c.uri,
    r.c.labels,
    r.c.capacity,
    r.c.runtime,
    r.c.runtime_id,
    r.c.heartbeat,
    r.c.created_at,
    r.c.updated_at,
)
# A row that this statement inserted was never updated by any transaction.
_INSERTED = literal_column("(xmax = 0)", Boolean).label("inserted")


class PostgresRuntime:
    """Processes in ``noetl.runtime``; see ``RuntimeRegistry``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def beat(self, entry: RuntimeEntry) -> tuple[RuntimeEntry, bool]:
        told = {
            "status": entry.status,
            "uri": entry.uri,
            "labels": dict(entry.labels),
            "capacity": entry.capacity,
            "runtime": dict(entry.runtime),
        }
        now = func.clock_timestamp()
        statement = insert(r).values(name=entry.name, kind=entry.kind, **told)
        upsert = statement.on_conflict_do_update(
            constraint="runtime_kind_name", set_={**told, "heartbeat": now, "updated_at": now}
        )
        with self._database.connect() as connection:
            *columns, inserted = connection.execute(upsert.returning(*_COLUMNS, _INSERTED)).one()
        return RuntimeEntry(*columns), inserted

    def remove(self, kind: str, name: str) -> bool:
        statement = delete(r).where(r.c.kind == kind, r.c.name == name)
        with self._database.connect() as connection:
            return connection.execute(statement).rowcount > 0

    def entries(
        self, *, kind: str | None = None, status: str | None = None, name: str | None = None
    ) -> list[RuntimeEntry]:
        query: Select[Any] = select(*_COLUMNS).order_by(r.c.kind, r.c.name)
        for column, value in ((r.c.kind, kind), (r.c.status, status), (r.c.name, name)):
            query = query.where(true() if value is None else column == value)
        with self._database.connect() as connection:
            return [_entry(row) for row in connection.execute(query)]

    def now(self) -> datetime:
        with self._database.connect() as connection:
            now: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
        return now

    def prune(self, *, older_than: float) -> int:
        silent = func.clock_timestamp() - func.make_interval(0, 0, 0, 0, 0, 0, older_than)
        with self._database.connect() as connection:
            return connection.execute(delete(r).where(r.c.heartbeat < silent)).rowcount


def _entry(row: tuple[Any, ...]) -> RuntimeEntry:
    return RuntimeEntry(*row)
