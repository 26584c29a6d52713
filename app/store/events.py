"""The event log on Postgres: append under the execution's lock, read by seq."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from app.engine.ahead import NOTHING, Ahead
from app.engine.entry import Entry
from app.engine.events import StepDone, StepKey
from app.engine.ports import (
    ExecutionFilter,
    ExecutionSummary,
    LogTransaction,
    Overdue,
    Pointer,
)
from app.store import listing, statements
from app.store.database import Database
from app.store.reading import array, entries_of, read_rows
from app.store.transaction import AssumedTransaction, Opening


class PostgresLog:
    """The append-only truth in Postgres; see ``EventLog``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @contextmanager
    def transaction(
        self,
        execution_ids: Iterable[int],
        *,
        durable: bool = True,
        ahead: Ahead = NOTHING,
        waits: bool = True,
    ) -> Iterator[LogTransaction]:
        if ahead.assumed:
            assumed = AssumedTransaction(self._database, ahead.assumed, durable=durable)
            yield assumed
            assumed.finish()
            return
        opening = Opening(sorted(set(execution_ids)), durable, ahead, waits)
        with self._database.own() as connection:
            opened = opening.on(connection)
            # Left by an error, the connection rolls back when it is returned.
            yield opened
            opened.finish()

    def read(
        self,
        execution_id: int,
        *,
        after: int = 0,
        limit: int | None = None,
        types: Sequence[str] | None = None,
        newest_first: bool = False,
    ) -> list[Entry]:
        with self._database.raw() as connection:
            return read_rows(
                connection,
                execution_id,
                after=after,
                limit=limit,
                types=types,
                newest_first=newest_first,
            )

    def entries(self, seqs: Iterable[tuple[int, int]]) -> dict[tuple[int, int], Entry]:
        wanted = sorted(set(seqs))
        if not wanted:
            return {}
        ids, numbers = zip(*wanted, strict=True)
        with self._database.raw() as connection:
            found = entries_of(connection.execute(statements.ENTRIES, [array(ids), array(numbers)]))
        return {(entry.execution_id, entry.seq): entry for entry in found}

    def iterations(self, execution_id: int, step: str, visit: int) -> list[Entry]:
        with self._database.raw() as connection:
            return entries_of(
                connection.execute(statements.ITERATIONS, [execution_id, step, visit])
            )

    def done(self, execution_id: int, keys: Iterable[StepKey]) -> dict[StepKey, Entry]:
        wanted = list(dict.fromkeys(keys))
        if not wanted:
            return {}
        columns = [list(column) for column in zip(*wanted, strict=True)]
        with self._database.raw() as connection:
            found = entries_of(connection.execute(statements.DONE, [*columns, execution_id]))
        return {entry.event.key: entry for entry in found if isinstance(entry.event, StepDone)}

    def values(self, execution_id: int, names: Iterable[str]) -> dict[str, Any]:
        with self._database.raw() as connection:
            return dict(connection.execute(statements.VALUES, [execution_id, list(names)]))

    def count(self, execution_id: int) -> int:
        with self._database.raw() as connection:
            row = connection.execute(statements.COUNT, [execution_id]).fetchone()
        assert row is not None
        return int(row[0])

    def summary(self, execution_id: int) -> ExecutionSummary | None:
        return listing.summary(self._database, execution_id)

    def started_under(self, key: str) -> ExecutionSummary | None:
        with self._database.raw() as connection:
            row = connection.execute(statements.STARTED_UNDER, [key]).fetchone()
        return None if row is None else self.summary(row[0])

    def executions(self, query: ExecutionFilter) -> list[ExecutionSummary]:
        return listing.executions(self._database, query)

    def count_by_status(self) -> dict[str, int]:
        return listing.count_by_status(self._database)

    def open_executions(self, *, limit: int = 1000, after: int = 0) -> list[int]:
        return listing.open_executions(self._database, limit=limit, after=after)

    def unclaimed(
        self, *, older_than: float, limit: int = 1000, after: int = 0
    ) -> list[tuple[Pointer, str, str]]:
        parameters = [older_than, after, limit]
        with self._database.raw() as connection:
            rows = connection.execute(statements.UNCLAIMED, parameters, prepare=False)
            return [(Pointer(*key), tool, queue) for *key, tool, queue in rows]

    def overdue(self, *, older_than: float, limit: int = 1000) -> list[Overdue]:
        parameters = [older_than, 0, limit]
        with self._database.raw() as connection:
            rows = connection.execute(statements.OVERDUE, parameters, prepare=False)
            return [Overdue(*row) for row in rows]

    def abandoned(self, *, lease: float, limit: int = 1000) -> list[tuple[Pointer, str]]:
        parameters = {"lease": lease, "limit": limit}
        with self._database.raw() as connection:
            rows = connection.execute(statements.ABANDONED, parameters, prepare=False)
            return [(Pointer(*key), worker) for *key, worker in rows]

    def untold(self, *, limit: int = 1000) -> list[int]:
        return self._ids(statements.UNTOLD, limit)

    def orphans(self, *, limit: int = 1000) -> list[int]:
        return self._ids(statements.ORPHANS, limit)

    def _ids(self, sql: str, limit: int) -> list[int]:
        with self._database.raw() as connection:
            return [row[0] for row in connection.execute(sql, [limit], prepare=False)]
