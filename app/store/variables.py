"""Variables on Postgres, in the table where large results are kept too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, delete, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from app.engine.variables import RESERVED, Variable, VariableDraft
from app.store.database import Database
from app.store.tables import transient as t

_NOW = func.clock_timestamp()
_COLUMNS = (
    t.c.var_name,
    t.c.var_value,
    t.c.var_type,
    t.c.source_step,
    t.c.created_at,
    t.c.accessed_at,
    t.c.access_count,
    t.c.expires_at,
)
#: Large results have names of their own form.
_IS_VARIABLE = func.strpos(t.c.var_name, RESERVED) == 0
_IS_THERE = or_(t.c.expires_at.is_(None), t.c.expires_at > _NOW)


class PostgresVariables:
    """Variables in ``noetl.transient``; see ``VariableStore``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, execution_id: int, drafts: Sequence[VariableDraft]) -> None:
        statement = insert(t).values(execution_id=execution_id)
        columns = ("var_value", "var_type", "source_step", "expires_at")
        upsert = statement.on_conflict_do_update(
            constraint="transient_pkey",
            set_={name: statement.excluded[name] for name in columns},
            where=_IS_VARIABLE,
        )
        # Always in one order: two writers would lock each other's rows otherwise.
        rows = [_row(draft) for draft in sorted(drafts, key=lambda draft: draft.name)]
        with self._database.begin() as connection:
            for row in rows:
                connection.execute(upsert, {"execution_id": execution_id, **row})

    def rows(self, execution_id: int) -> list[Variable]:
        query: Select[Any] = select(*_COLUMNS).order_by(t.c.var_name)
        with self._database.connect() as connection:
            found = connection.execute(query.where(*_of(execution_id), _IS_THERE))
            return [Variable(*row) for row in found]

    def read(self, execution_id: int, name: str) -> Variable | None:
        statement = (
            update(t)
            .where(*_of(execution_id, name), _IS_THERE)
            .values(accessed_at=_NOW, access_count=t.c.access_count + 1)
            .returning(*_COLUMNS)
        )
        with self._database.connect() as connection:
            row = connection.execute(statement).one_or_none()
        return None if row is None else Variable(*row)

    def delete(self, execution_id: int, name: str | None = None) -> int:
        # Expired ones go along, uncounted.
        there = delete(t).where(*_of(execution_id, name)).returning(_IS_THERE)
        with self._database.connect() as connection:
            return sum(bool(is_there) for (is_there,) in connection.execute(there))


def _of(execution_id: int, name: str | None = None) -> list[ColumnElement[bool]]:
    where = [t.c.execution_id == execution_id, _IS_VARIABLE]
    return where if name is None else [*where, t.c.var_name == name]


def _row(draft: VariableDraft) -> dict[str, Any]:
    return {
        "var_name": draft.name,
        "var_value": draft.value,
        "var_type": draft.type,
        "source_step": draft.source_step,
        "expires_at": draft.expires_at,
    }
