"""Credentials in ``noetl.credential``, each sealed."""

from __future__ import annotations

from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert

from app.engine.custody import CredentialDraft, CredentialRow
from app.store.database import Database
from app.store.tables import credential as c

_COLUMNS = (
    c.c.id,
    c.c.name,
    c.c.type,
    c.c.data_encrypted,
    c.c.meta,
    c.c.tags,
    c.c.description,
    c.c.scope,
    c.c.created_at,
    c.c.updated_at,
)


class PostgresCredentials:
    """See ``engine.custody.CredentialStore``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, draft: CredentialDraft) -> CredentialRow:
        row = {
            "type": draft.type,
            "data_encrypted": draft.sealed,
            "meta": draft.meta,
            "tags": list(draft.tags),
            "description": draft.description,
            "scope": draft.scope,
        }
        statement = insert(c).values(name=draft.name, **row)
        statement = statement.on_conflict_do_update(
            index_elements=[c.c.name], set_={**row, "updated_at": func.now()}
        )
        with self._database.begin() as connection:
            return _row(connection.execute(statement.returning(*_COLUMNS)).one())

    def named(self, name: str) -> CredentialRow | None:
        return self._one(c.c.name == name)

    def numbered(self, id: int) -> CredentialRow | None:  # noqa: A002 (the port's)
        return self._one(c.c.id == id)

    def rows(self, *, type: str | None = None, q: str | None = None) -> list[CredentialRow]:  # noqa: A002 (the port's)
        query = select(*_COLUMNS).order_by(c.c.name.collate("C"))
        if type is not None:
            query = query.where(c.c.type == type)
        if q:
            text = func.concat_ws(
                "\n", c.c.name, c.c.description, func.array_to_string(c.c.tags, "\n")
            )
            query = query.where(func.strpos(func.lower(text), q.lower()) > 0)
        with self._database.connect() as connection:
            return [_row(row) for row in connection.execute(query)]

    def delete(self, id: int) -> bool:  # noqa: A002 (the port's)
        with self._database.begin() as connection:
            return connection.execute(delete(c).where(c.c.id == id)).rowcount == 1

    def _one(self, condition: Any) -> CredentialRow | None:
        with self._database.connect() as connection:
            row = connection.execute(select(*_COLUMNS).where(condition)).one_or_none()
        return None if row is None else _row(row)


def _row(row: Any) -> CredentialRow:
    id_, name, type_, sealed, meta, tags, *rest = row
    return CredentialRow(id_, name, type_, sealed, meta, tags or [], *rest)
