"""A log that others look on at."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from app.engine.ahead import NOTHING, Ahead
from app.engine.entry import Entry
from app.engine.events import StepKey
from app.engine.ports import (
    AttemptState,
    Draft,
    EventLog,
    ExecutionFilter,
    ExecutionSummary,
    LogTransaction,
    Overdue,
    Pointer,
)


class ObservedLog:
    """An ``EventLog`` that hands everything on, and tells *listener* what transactions committed."""

    def __init__(self, log: EventLog, listener: Callable[[Sequence[Entry]], None]) -> None:
        self._log = log
        self._listener = listener

    @contextmanager
    def transaction(
        self,
        execution_ids: Iterable[int],
        *,
        durable: bool = True,
        ahead: Ahead = NOTHING,
        waits: bool = True,
    ) -> Iterator[LogTransaction]:
        with self._log.transaction(execution_ids, durable=durable, ahead=ahead, waits=waits) as tx:
            observed = _ObservedTransaction(tx)
            yield observed
        if observed.appended:
            self._listener(observed.appended)

    def read(
        self,
        execution_id: int,
        *,
        after: int = 0,
        limit: int | None = None,
        types: Sequence[str] | None = None,
        newest_first: bool = False,
    ) -> list[Entry]:
        return self._log.read(
            execution_id, after=after, limit=limit, types=types, newest_first=newest_first
        )

    def entries(self, seqs: Iterable[tuple[int, int]]) -> dict[tuple[int, int], Entry]:
        return self._log.entries(seqs)

    def iterations(self, execution_id: int, step: str, visit: int) -> list[Entry]:
        return self._log.iterations(execution_id, step, visit)

    def done(self, execution_id: int, keys: Iterable[StepKey]) -> dict[StepKey, Entry]:
        return self._log.done(execution_id, keys)

    def values(self, execution_id: int, names: Iterable[str]) -> dict[str, Any]:
        return self._log.values(execution_id, names)

    def count(self, execution_id: int) -> int:
        return self._log.count(execution_id)

    def summary(self, execution_id: int) -> ExecutionSummary | None:
        return self._log.summary(execution_id)

    def started_under(self, key: str) -> ExecutionSummary | None:
        return self._log.started_under(key)

    def executions(self, query: ExecutionFilter) -> list[ExecutionSummary]:
        return self._log.executions(query)

    def count_by_status(self) -> dict[str, int]:
        return self._log.count_by_status()

    def open_executions(self, *, limit: int = 1000, after: int = 0) -> list[int]:
        return self._log.open_executions(limit=limit, after=after)

    def unclaimed(
        self, *, older_than: float, limit: int = 1000, after: int = 0
    ) -> list[tuple[Pointer, str, str]]:
        return self._log.unclaimed(older_than=older_than, limit=limit, after=after)

    def overdue(self, *, older_than: float, limit: int = 1000) -> list[Overdue]:
        return self._log.overdue(older_than=older_than, limit=limit)

    def abandoned(self, *, lease: float, limit: int = 1000) -> list[tuple[Pointer, str]]:
        return self._log.abandoned(lease=lease, limit=limit)

    def untold(self, *, limit: int = 1000) -> list[int]:
        return self._log.untold(limit=limit)

    def orphans(self, *, limit: int = 1000) -> list[int]:
        return self._log.orphans(limit=limit)


class _ObservedTransaction:
    def __init__(self, tx: LogTransaction) -> None:
        self._tx = tx
        self.appended: list[Entry] = []

    @property
    def held(self) -> Container[int]:
        return self._tx.held

    def read(self, execution_id: int, *, after: int = 0) -> list[Entry]:
        return self._tx.read(execution_id, after=after)

    def last_seq(self, execution_id: int) -> int:
        return self._tx.last_seq(execution_id)

    def ended(self, execution_ids: Iterable[int]) -> dict[int, str]:
        return self._tx.ended(execution_ids)

    def paused(self, execution_ids: Iterable[int]) -> frozenset[int]:
        return self._tx.paused(execution_ids)

    def attempts(
        self, keys: Iterable[tuple[int, StepKey]]
    ) -> dict[tuple[int, StepKey], AttemptState]:
        return self._tx.attempts(keys)

    def under(self, execution_id: int, idempotency_key: str) -> Entry | None:
        return self._tx.under(execution_id, idempotency_key)

    def append(self, execution_id: int, drafts: Sequence[Draft]) -> list[Entry]:
        entries = self._tx.append(execution_id, drafts)
        self.appended += entries
        return entries

    def begin(self, execution_id: int) -> None:
        self._tx.begin(execution_id)

    def meanwhile(self, call: Callable[[], object]) -> None:
        self._tx.meanwhile(call)

    def store_value(self, execution_id: int, name: str, value: Any, *, source_step: str) -> None:
        self._tx.store_value(execution_id, name, value, source_step=source_step)
