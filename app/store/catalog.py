"""The catalog on Postgres: every version of every playbook, never changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import func, insert, select, text

from app.engine.ports import CatalogEntry
from app.store.database import Database
from app.store.tables import catalog as c

# One writer per path at a time, so that two registrations never ask for the same version.
_LOCK = text("SELECT pg_advisory_xact_lock(20240101, hashtext(:path))")

# Asked for with every start.
_NEWEST_OF = "SELECT catalog_id FROM noetl.catalog WHERE path = %s ORDER BY version DESC LIMIT 1"
_ROW = "SELECT catalog_id, path, version, kind, content, meta, created_at FROM noetl.catalog"

_COLUMNS = (
    c.c.catalog_id,
    c.c.path,
    c.c.version,
    c.c.kind,
    c.c.content,
    c.c.meta,
    c.c.created_at,
)

_versions = c.alias()
_NEWEST = (
    select(func.max(_versions.c.version)).where(_versions.c.path == c.c.path).scalar_subquery()
)


class PostgresCatalog:
    """Resources in ``noetl.catalog``; see ``Catalog``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, path: str, kind: str, content: str, *, meta: Mapping[str, Any]) -> CatalogEntry:
        newest = select(func.coalesce(func.max(c.c.version), 0) + 1).where(c.c.path == path)
        row = {"path": path, "kind": kind, "content": content, "meta": dict(meta)}
        with self._database.begin() as connection:
            connection.execute(_LOCK, {"path": path})
            statement = insert(c).values(version=newest.scalar_subquery(), **row)
            return _entry(connection.execute(statement.returning(*_COLUMNS)).one())

    def get(self, catalog_id: int) -> CatalogEntry | None:
        return self._one(f"{_ROW} WHERE catalog_id = %s", catalog_id)

    def find(self, path: str, version: int | None = None) -> CatalogEntry | None:
        if version is not None:
            return self._one(f"{_ROW} WHERE path = %s AND version = %s", path, version)
        return self._one(f"{_ROW} WHERE path = %s ORDER BY version DESC LIMIT 1", path)

    def newest(self, path: str) -> int | None:
        with self._database.raw() as connection:
            row = connection.execute(_NEWEST_OF, [path]).fetchone()
        return None if row is None else int(row[0])

    def entries(
        self, *, kind: str | None = None, path: str | None = None, limit: int = 1000
    ) -> list[CatalogEntry]:
        query = select(*_COLUMNS).order_by(c.c.path, c.c.version).limit(limit)
        query = query.where(c.c.version == _NEWEST if path is None else c.c.path == path)
        if kind is not None:
            query = query.where(c.c.kind == kind)
        with self._database.connect() as connection:
            return [_entry(row) for row in connection.execute(query)]

    def _one(self, query: str, *values: int | str) -> CatalogEntry | None:
        # As an execution is decided, too: through the connection of its transaction.
        with self._database.raw() as connection:
            row = connection.execute(query.encode(), values).fetchone()
        return None if row is None else _entry(row)


def _entry(row: tuple[Any, ...]) -> CatalogEntry:
    return CatalogEntry(*row)
