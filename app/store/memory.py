"""The ports of the store in dicts: for ``callboard run``, for tests, and as their definition."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from app.engine import encoding
from app.engine.ahead import NOTHING, Ahead
from app.engine.entry import Entry
from app.engine.events import (
    STEP_ENDS,
    ExecutionCancelled,
    ExecutionStarted,
    StepKey,
    StepScheduled,
)
from app.engine.ports import (
    CatalogEntry,
    Clock,
    ExecutionFilter,
    ExecutionSummary,
    LogTransaction,
    Overdue,
    Pointer,
    RuntimeEntry,
)
from app.errors import UnavailableError
from app.store.ids import first_id_at
from app.store.rows import RUNNING
from app.store.shelf import Assuming, MemoryTransaction, Shelf

#: Seconds to wait for an execution's lock; Postgres is told to wait as long.
LOCK_TIMEOUT = 10.0


class MemoryRuntime:
    """Processes that beat, by *clock*; see ``RuntimeRegistry``."""

    def __init__(self, *, clock: Clock = time.time) -> None:
        self._clock = clock
        self._guard = threading.Lock()
        self._entries: dict[tuple[str, str], RuntimeEntry] = {}
        self._ids = itertools.count(1)

    def beat(self, entry: RuntimeEntry) -> tuple[RuntimeEntry, bool]:
        now = datetime.fromtimestamp(self._clock(), UTC)
        with self._guard:
            known = self._entries.get((entry.kind, entry.name))
            kept = replace(
                _own(entry),
                runtime_id=known.runtime_id if known else next(self._ids),
                heartbeat=now,
                created_at=known.created_at if known else now,
                updated_at=now,
            )
            self._entries[entry.kind, entry.name] = kept
        return _own(kept), known is None

    def remove(self, kind: str, name: str) -> bool:
        with self._guard:
            return self._entries.pop((kind, name), None) is not None

    def entries(
        self, *, kind: str | None = None, status: str | None = None, name: str | None = None
    ) -> list[RuntimeEntry]:
        with self._guard:
            known = [self._entries[key] for key in sorted(self._entries)]
        return [
            _own(entry)
            for entry in known
            if kind in {None, entry.kind}
            and status in {None, entry.status}
            and name in {None, entry.name}
        ]

    def now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)

    def prune(self, *, older_than: float) -> int:
        with self._guard:
            silent = [key for key, e in self._entries.items() if self._silent(e, older_than)]
            for key in silent:
                del self._entries[key]
        return len(silent)

    def beats(self, name: str, *, lease: float) -> bool:
        """Whether the worker *name* gave a sign of life within *lease* seconds."""
        with self._guard:
            entry = self._entries.get(("worker_pool", name))
            return entry is not None and not self._silent(entry, lease)

    def _silent(self, entry: RuntimeEntry, seconds: float) -> bool:
        assert entry.heartbeat is not None
        return self._clock() - entry.heartbeat.timestamp() >= seconds


class MemoryLog:
    """The log in dicts; see ``EventLog``. *runtime* says which workers are alive."""

    def __init__(self, runtime: MemoryRuntime | None = None, *, clock: Clock = time.time) -> None:
        self._runtime = runtime or MemoryRuntime(clock=clock)
        self._shelf = Shelf(clock)
        self._locks: dict[int, threading.Lock] = {}

    @contextmanager
    def transaction(
        self,
        execution_ids: Iterable[int],
        *,
        durable: bool = True,  # noqa: ARG002 (nothing here outlives the process)
        ahead: Ahead = NOTHING,
        waits: bool = True,
    ) -> Iterator[LogTransaction]:
        ids = []
        with ExitStack() as held:
            for execution_id in sorted(set(execution_ids)):
                lock = self._locks.setdefault(execution_id, threading.Lock())
                if not lock.acquire(timeout=LOCK_TIMEOUT if waits else 0):
                    if not waits:
                        continue
                    raise UnavailableError(f"execution {execution_id} is locked for too long")
                held.callback(lock.release)
                ids.append(execution_id)
            opened: MemoryTransaction
            if ahead.assumed:
                opened = assuming = Assuming(self._shelf, ids)
                assuming.assumed = ahead.assumed
            else:
                opened = MemoryTransaction(self._shelf, ids)
            yield opened
            opened.finish()

    @property
    def shelf(self) -> Shelf:
        """Where its events are."""
        return self._shelf

    @contextmanager
    def unless_locked(self, execution_ids: Iterable[int]) -> Iterator[list[int]]:
        """Lock those of these executions that nobody else holds; which they are."""
        with ExitStack() as held:
            locked = []
            for execution_id in sorted(set(execution_ids)):
                lock = self._locks.setdefault(execution_id, threading.Lock())
                if lock.acquire(blocking=False):
                    held.callback(lock.release)
                    locked.append(execution_id)
            yield locked

    def read(
        self,
        execution_id: int,
        *,
        after: int = 0,
        limit: int | None = None,
        types: Sequence[str] | None = None,
        newest_first: bool = False,
    ) -> list[Entry]:
        if newest_first:
            rows = self._shelf.rows(execution_id)
            rows = rows[: after - 1 if after else None][::-1]
        else:
            rows = self._shelf.rows(execution_id, after=after)
        wanted = (s for s in rows if types is None or s.row.type in types)
        return [s.entry(execution_id) for s in itertools.islice(wanted, limit)]

    def entries(self, seqs: Iterable[tuple[int, int]]) -> dict[tuple[int, int], Entry]:
        found = {}
        for execution_id, seq in seqs:
            rows = self._shelf.book(execution_id).rows
            if 0 < seq <= len(rows):
                found[execution_id, seq] = rows[seq - 1].entry(execution_id)
        return found

    def iterations(self, execution_id: int, step: str, visit: int) -> list[Entry]:
        ended = self._shelf.iterations(execution_id, step, visit)
        return [ended[iteration].entry(execution_id) for iteration in sorted(ended)]

    def done(self, execution_id: int, keys: Iterable[StepKey]) -> dict[StepKey, Entry]:
        ends = ((key, self._shelf.of_key(execution_id, key)) for key in keys)
        return {
            key: stored.entry(execution_id)
            for key, rows in ends
            for stored in rows
            if stored.row.type == "step.done"
        }

    def values(self, execution_id: int, names: Iterable[str]) -> dict[str, Any]:
        kept = self._shelf.book(execution_id).values
        return {name: encoding.loads(kept[name]) for name in names if name in kept}

    def count(self, execution_id: int) -> int:
        return len(self._shelf.book(execution_id).rows)

    def summary(self, execution_id: int) -> ExecutionSummary | None:
        return self._shelf.book(execution_id).summary

    def started_under(self, key: str) -> ExecutionSummary | None:
        execution_id = self._shelf.started_under(key)
        return None if execution_id is None else self.summary(execution_id)

    def executions(self, query: ExecutionFilter) -> list[ExecutionSummary]:
        found = [row for row in self._shelf.summaries() if _matches(row, query)]
        found.sort(key=lambda row: row.execution_id, reverse=True)
        return found[query.offset : query.offset + query.limit]

    def count_by_status(self) -> dict[str, int]:
        return dict(Counter(row.status for row in self._shelf.summaries()))

    def open_executions(self, *, limit: int = 1000, after: int = 0) -> list[int]:
        rows = self._shelf.summaries()
        running = sorted(row.execution_id for row in rows if row.status == RUNNING)
        return [i for i in running if i > after][:limit]

    def unclaimed(
        self, *, older_than: float, limit: int = 1000, after: int = 0
    ) -> list[tuple[Pointer, str, str]]:
        found = [
            (pointer, event.tool, event.queue)
            for pointer, event, since in self._due()
            if since >= older_than and pointer.execution_id > after
        ]
        return found[:limit]

    def overdue(self, *, older_than: float, limit: int = 1000) -> list[Overdue]:
        ages: dict[str, list[float]] = {}
        late = [(event.queue, since) for _, event, since in self._due() if since >= older_than]
        for queue, since in late[:limit]:
            ages.setdefault(queue, []).append(since)
        return [Overdue(queue, len(ages[queue]), max(ages[queue])) for queue in sorted(ages)]

    def _due(self) -> list[tuple[Pointer, StepScheduled, float]]:
        """Attempts that nobody claimed and the seconds since they were due, by execution."""
        found = []
        now = self._shelf.now().timestamp()
        for execution_id, key, state, rows in self._shelf.running():
            if not state.attempt or state.started_by or state.fenced or state.ended:
                continue
            if self._is_paused(execution_id):
                continue
            stored = next(s for s in rows if s.row.seq == state.scheduled_seq)
            event = stored.entry(execution_id).event
            assert isinstance(event, StepScheduled)
            due = max(stored.at.timestamp(), event.not_before or 0.0)
            found.append((Pointer(execution_id, *key, state.attempt), event, now - due))
        return sorted(found, key=lambda item: item[0].execution_id)

    def _is_paused(self, execution_id: int) -> bool:
        summary = self._shelf.book(execution_id).summary
        return summary is not None and summary.paused_at is not None

    def abandoned(self, *, lease: float, limit: int = 1000) -> list[tuple[Pointer, str]]:
        found = []
        latest = self._shelf.now() - timedelta(seconds=lease)
        for execution_id, key, state, rows in self._shelf.running():
            worker = state.started_by
            if worker is None or state.fenced or state.ended:
                continue
            claim = next(
                s for s in reversed(rows) if s.row.type == "step.started" and s.row.worker == worker
            )
            if claim.at <= latest and not self._runtime.beats(worker, lease=lease):
                found.append((Pointer(execution_id, *key, state.attempt), worker))
        return found[:limit]

    def untold(self, *, limit: int = 1000) -> list[int]:
        known = {row.execution_id: row for row in self._shelf.summaries()}
        found = []
        for _, _, state, rows in self._shelf.running():
            told = {stored.row.attempt for stored in rows if stored.row.type == "child.ended"}
            for stored in rows:
                if stored.row.type != "child.started" or state.ended or stored.row.attempt in told:
                    continue
                payload = encoding.loads(stored.row.payload)
                child = known.get(payload["child_execution_id"])
                if payload["waits"] and child is not None and child.status != RUNNING:
                    found.append(child.execution_id)
        return sorted(found)[:limit]

    def orphans(self, *, limit: int = 1000) -> list[int]:
        known = {row.execution_id: row for row in self._shelf.summaries()}
        found = []
        for row in known.values():
            parent = known.get(row.parent_execution_id or 0)
            if row.status != RUNNING or parent is None or parent.status in {RUNNING, "COMPLETED"}:
                continue
            caller = self._caller(row.execution_id)
            if caller is None:
                continue
            key = StepKey(caller["step"], caller["visit"], caller["iteration"])
            ends = [stored.row.type for stored in self._shelf.of_key(parent.execution_id, key)]
            end = self._shelf.rows(parent.execution_id, after=0)[-1].entry(0).event
            if isinstance(end, ExecutionCancelled) and not end.cascade:
                continue
            if not {*STEP_ENDS} & {*ends} - {"step.cancelled"}:
                found.append(row.execution_id)
        return sorted(found)[:limit]

    def _caller(self, execution_id: int) -> Mapping[str, Any] | None:
        first = self._shelf.rows(execution_id, after=0)[0].entry(execution_id).event
        return first.caller if isinstance(first, ExecutionStarted) else None


class MemoryCatalog:
    """Resources in a list; see ``Catalog``."""

    def __init__(self, *, clock: Clock = time.time) -> None:
        self._clock = clock
        self._guard = threading.Lock()
        self._entries: list[CatalogEntry] = []

    def add(self, path: str, kind: str, content: str, *, meta: Mapping[str, Any]) -> CatalogEntry:
        encoding.dumps((path, kind, content))
        with self._guard:
            entry = CatalogEntry(
                catalog_id=len(self._entries) + 1,
                path=path,
                version=1 + sum(known.path == path for known in self._entries),
                kind=kind,
                content=content,
                meta=_copy(meta),
                created_at=datetime.fromtimestamp(self._clock(), UTC),
            )
            self._entries.append(entry)
        return _given(entry)

    def get(self, catalog_id: int) -> CatalogEntry | None:
        found = [e for e in self._all() if e.catalog_id == catalog_id]
        return _given(found[0]) if found else None

    def find(self, path: str, version: int | None = None) -> CatalogEntry | None:
        found = [e for e in self._all() if e.path == path and version in {None, e.version}]
        return _given(found[-1]) if found else None

    def newest(self, path: str) -> int | None:
        found = self.find(path)
        return None if found is None else found.catalog_id

    def entries(
        self, *, kind: str | None = None, path: str | None = None, limit: int = 1000
    ) -> list[CatalogEntry]:
        if path is None:
            newest = {entry.path: entry for entry in self._all()}
            found = [newest[name] for name in sorted(newest)]
        else:
            found = [entry for entry in self._all() if entry.path == path]
        return [_given(entry) for entry in found if kind in {None, entry.kind}][:limit]

    def _all(self) -> list[CatalogEntry]:
        with self._guard:
            return list(self._entries)


def _matches(row: ExecutionSummary, query: ExecutionFilter) -> bool:
    after, before = query.started_after, query.started_before
    return (
        query.status in {None, row.status}
        and query.path in {None, row.path}
        and query.parent_execution_id in {None, row.parent_execution_id}
        and (after is None or row.execution_id >= first_id_at(after))
        and (before is None or row.execution_id < first_id_at(before))
        and (query.before is None or row.execution_id < query.before)
    )


def _copy(value: Any) -> Any:
    return encoding.loads(encoding.dumps(value))


def _own(entry: RuntimeEntry) -> RuntimeEntry:
    return replace(entry, labels=_copy(entry.labels), runtime=_copy(entry.runtime))


def _given(entry: CatalogEntry) -> CatalogEntry:
    return entry._replace(meta=_copy(entry.meta))
