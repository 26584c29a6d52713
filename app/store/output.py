"""What steps print, on Postgres: appended in batches, followed by a cursor."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from app.engine.output import Kept, Printed, Selection
from app.engine.ports import Pointer
from app.store.database import Database
from app.store.statements import BEGIN, COMMIT, NOT_DURABLE

# One writer per execution at a time, until it has committed: so numbers become visible in their
# order, and a reader may go on after the greatest it has seen. A cursor below pg_snapshot_xmin()
# would do as well, but stand still for as long as any transaction of the server, such as one of a
# step, goes on.
_LOCK = """
SELECT pg_advisory_xact_lock(20240102, hashint8(id))
FROM unnest(%s::bigint[]) AS k(id) ORDER BY hashint8(id)
"""

_INSERT = """
INSERT INTO noetl.step_log
    (execution_id, step, visit, iteration, attempt, chunk, stream, text, created_at)
SELECT r.* FROM unnest(%b::bigint[], %b::text[], %b::int[], %b::int[], %b::int[], %b::int[],
    %b::text[], %b::text[], %b::timestamptz[]) AS r
ON CONFLICT DO NOTHING
"""

_READ = """
SELECT id, execution_id, step, visit, iteration, attempt, chunk, stream, text, created_at
FROM noetl.step_log WHERE execution_id = %(id)s"""

_FORGET = "DELETE FROM noetl.step_log WHERE execution_id = ANY(%s)"

_COLUMNS = ("step", "visit", "iteration", "attempt", "stream")


class PostgresOutput:
    """Pieces of output in ``noetl.step_log``; see ``OutputStore``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def append(self, pieces: Sequence[Printed]) -> int:
        if not pieces:
            return 0
        rows = [(*p.pointer, p.index, p.stream, p.text, p.at) for p in pieces]
        ids = sorted({piece.pointer.execution_id for piece in pieces})
        with self._database.raw() as connection:
            with connection.pipeline():
                connection.execute(BEGIN, prepare=False)
                connection.execute(NOT_DURABLE, prepare=False)
                connection.execute(_LOCK, [ids])
                columns = [list(column) for column in zip(*rows, strict=True)]
                inserted = connection.execute(_INSERT, columns)
                connection.execute(COMMIT, prepare=False)
            return inserted.rowcount

    def read(
        self, execution_id: int, which: Selection, *, after: int = 0, limit: int = 1000
    ) -> list[Kept]:
        where = f"{_READ} AND id > %(after)s"
        return self._rows(where, "id", execution_id, which, {"after": after, "limit": limit})

    def newest(self, execution_id: int, which: Selection, *, limit: int) -> list[Kept]:
        return self._rows(_READ, "id DESC", execution_id, which, {"limit": limit})[::-1]

    def forget(self, execution_ids: Iterable[int]) -> None:
        with self._database.raw() as connection, connection.pipeline():
            connection.execute(BEGIN, prepare=False)
            connection.execute(NOT_DURABLE, prepare=False)
            connection.execute(_FORGET, [list(execution_ids)])
            connection.execute(COMMIT, prepare=False)

    def _rows(
        self, sql: str, order: str, execution_id: int, which: Selection, more: dict[str, Any]
    ) -> list[Kept]:
        wanted = {name: getattr(which, name) for name in _COLUMNS}
        parameters = {name: value for name, value in wanted.items() if value is not None}
        conditions = "".join(f" AND {name} = %({name})s" for name in parameters)
        query = f"{sql}{conditions} ORDER BY {order} LIMIT %(limit)s"
        with self._database.raw() as connection:
            cursor = connection.execute(query, {"id": execution_id, **parameters, **more})
            return [_kept(*row) for row in cursor]


def _kept(cursor: int, *row: Any) -> Kept:
    *pointer, index, stream, text, at = row
    assert isinstance(at, datetime)
    return Kept(cursor, Printed(Pointer(*pointer), index, stream, text, at))
