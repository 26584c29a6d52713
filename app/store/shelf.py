"""Where the log in memory keeps its events, and a transaction on it.

Events are kept as the rows Postgres would hold, payload as JSON text, so no caller can reach into
the log through an object it handed in or got back.
"""

from __future__ import annotations

import itertools
import threading
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from app.engine import encoding
from app.engine.ahead import NotAsAssumedError, Standing
from app.engine.entry import Entry, event_from
from app.engine.events import (
    EXECUTION_ENDS,
    STEP_ENDS,
    Event,
    ExecutionPaused,
    ExecutionResumed,
    ExecutionStarted,
    StepKey,
)
from app.engine.ports import AttemptState, Clock, Draft, ExecutionSummary
from app.store.keys import duplicate, keys_of, not_locked, start_key_of
from app.store.rows import END_OF, FENCES, RUNNING, STATUS, Row, message_of, row_of, stored_event
from app.store.unread import Unread


@dataclass(frozen=True, slots=True)
class Stored:
    """A row with what the log gave it."""

    row: Row
    event_id: int
    at: datetime

    def entry(self, execution_id: int) -> Entry:
        payload = encoding.loads(self.row.payload)
        event = event_from(self.row.type, self.row._asdict(), payload, execution_id=execution_id)
        return Entry(execution_id, self.row.seq, event, self.event_id, self.at)


@dataclass(slots=True)
class Book:
    """Events of one execution, and what finds them again."""

    rows: list[Stored] = field(default_factory=list)
    taken: set[tuple[object, ...]] = field(default_factory=set)
    by_key: defaultdict[StepKey, list[Stored]] = field(default_factory=lambda: defaultdict(list))
    #: The ends of a loop's iterations by (step, visit), then by index.
    loops: defaultdict[tuple[str, int], dict[int, Stored]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    values: dict[str, bytes] = field(default_factory=dict)
    summary: ExecutionSummary | None = None

    def add(self, stored: Stored) -> None:
        row = stored.row
        self.rows.append(stored)
        self.taken.update(keys_of(row))
        if row.step is not None and row.visit is not None and row.iteration is not None:
            self.by_key[StepKey(row.step, row.visit, row.iteration)].append(stored)
            if row.iteration >= 0 and row.type in {"step.done", "step.failed"}:
                self.loops[row.step, row.visit][row.iteration] = stored

    def of_key(self, key: StepKey) -> Sequence[Stored]:
        """The events of *key*, oldest first, at a cost that does not grow with the book."""
        return self.by_key.get(key, ())


class Shelf:
    """The committed events of all executions. Every method is atomic."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._guard = threading.RLock()
        self._books: dict[int, Book] = {}
        self._starts: dict[str, int] = {}
        self._ids = itertools.count(1)

    def now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)

    def store(self, row: Row) -> Stored:
        """*row* with the next event id and the time."""
        return Stored(row, next(self._ids), self.now())

    def commit(self, staged: Mapping[int, Book]) -> None:
        """Make what a transaction staged visible, all at once."""
        with self._guard:
            self._take_start_keys(staged)
            for execution_id, changes in staged.items():
                if not changes.rows and not changes.values:
                    continue
                book = self._books.setdefault(execution_id, Book())
                for stored in changes.rows:
                    book.add(stored)
                book.values.update(changes.values)
                book.summary = changes.summary or book.summary

    def _take_start_keys(self, staged: Mapping[int, Book]) -> None:
        """Take them all, or raise and take none: another transaction was quicker."""
        starts = {
            key: execution_id
            for execution_id, changes in staged.items()
            for stored in changes.rows
            if (key := start_key_of(stored.row)) is not None
        }
        for key, execution_id in starts.items():
            if key in self._starts:
                raise duplicate("U9", execution_id)
        self._starts.update(starts)

    def started_under(self, key: str) -> int | None:
        """The execution that was started under *key*."""
        with self._guard:
            return self._starts.get(key)

    def rows(self, execution_id: int, *, after: int = 0) -> list[Stored]:
        """The events with seq > *after*: seq counts from 1 without a gap, so it is the index."""
        with self._guard:
            return self.book(execution_id).rows[after:]

    def of_key(self, execution_id: int, key: StepKey) -> list[Stored]:
        with self._guard:
            return list(self.book(execution_id).of_key(key))

    def iterations(self, execution_id: int, step: str, visit: int) -> dict[int, Stored]:
        with self._guard:
            return dict(self.book(execution_id).loops.get((step, visit), {}))

    def summaries(self) -> list[ExecutionSummary]:
        with self._guard:
            return [book.summary for book in self._books.values() if book.summary is not None]

    def remove(self, execution_ids: Iterable[int]) -> None:
        """Forget these executions, and the keys they were started under."""
        with self._guard:
            gone = {each for each in execution_ids if self._books.pop(each, None) is not None}
            self._starts = {key: each for key, each in self._starts.items() if each not in gone}

    def running(self) -> Iterator[tuple[int, StepKey, AttemptState, Sequence[Stored]]]:
        """Every step key of every running execution with its state and its events."""
        for summary in self.summaries():
            if summary.status != RUNNING:
                continue
            with self._guard:
                keys = [(k, list(s)) for k, s in self.book(summary.execution_id).by_key.items()]
            for key, stored in keys:
                yield summary.execution_id, key, attempt_state(stored), stored

    def book(self, execution_id: int) -> Book:
        """The book of that execution; an empty one that is not kept where there is none."""
        with self._guard:
            return self._books.get(execution_id) or Book()


class MemoryTransaction:
    """What a transaction wants to append, until it commits; see ``LogTransaction``."""

    def __init__(self, shelf: Shelf, ids: Iterable[int]) -> None:
        self._shelf = shelf
        self._staged = {execution_id: Book() for execution_id in ids}
        self._lost: Exception | None = None
        self._wrote = False
        self._meanwhile: Callable[[], object] = int

    @property
    def held(self) -> Container[int]:
        return self._staged.keys()

    def read(self, execution_id: int, *, after: int = 0) -> list[Entry]:
        own = [stored for stored in self._own(execution_id).rows if stored.row.seq > after]
        known = self._shelf.rows(execution_id, after=after)
        return [stored.entry(execution_id) for stored in (*known, *own)]

    def last_seq(self, execution_id: int) -> int:
        own = self._locked(execution_id).rows
        return own[-1].row.seq if own else len(self._shelf.book(execution_id).rows)

    def ended(self, execution_ids: Iterable[int]) -> dict[int, str]:
        states = {i: self._summary(i, self._locked(i)) for i in execution_ids}
        return {
            i: END_OF[summary.status]
            for i, summary in states.items()
            if summary is not None and summary.status in END_OF
        }

    def paused(self, execution_ids: Iterable[int]) -> frozenset[int]:
        summaries = {i: self._summary(i, self._locked(i)) for i in execution_ids}
        return frozenset(i for i, row in summaries.items() if row is not None and row.paused_at)

    def attempts(
        self, keys: Iterable[tuple[int, StepKey]]
    ) -> dict[tuple[int, StepKey], AttemptState]:
        return {
            (i, key): attempt_state(
                [*self._shelf.of_key(i, key), *self._own(i).of_key(StepKey(*key))]
            )
            for i, key in keys
        }

    def under(self, execution_id: int, idempotency_key: str) -> Entry | None:
        rows = (*self._shelf.rows(execution_id), *self._own(execution_id).rows)
        found = (stored for stored in rows if stored.row.idempotency_key == idempotency_key)
        return next((stored.entry(execution_id) for stored in found), None)

    def append(self, execution_id: int, drafts: Sequence[Draft]) -> list[Entry]:
        own = self._locked(execution_id)
        known = self._shelf.book(execution_id)
        first = self.last_seq(execution_id) + 1
        rows = [row_of(seq, draft) for seq, draft in enumerate(drafts, first)]
        entries = []
        for draft, row in zip(drafts, rows, strict=True):
            start = start_key_of(row)
            for key in keys_of(row):
                started = key == ("U9", start) and self._is_taken(str(start))
                if key in own.taken or key in known.taken or started:
                    self._lost = duplicate(str(key[0]), execution_id)
                    raise self._lost
            stored = self._shelf.store(row)
            own.add(stored)
            event = stored_event(draft.event, row)
            entry = Entry(execution_id, row.seq, event, stored.event_id, stored.at)
            own.summary = _summary_after(self._summary(execution_id, own), entry)
            entries.append(entry)
        self._wrote = self._wrote or bool(drafts)
        return entries

    def _is_taken(self, start: str) -> bool:
        """Whether an execution was started under that key, in this transaction or before."""
        staged = any(("U9", start) in book.taken for book in self._staged.values())
        return staged or self._shelf.started_under(start) is not None

    def begin(self, execution_id: int) -> None:
        self._own(execution_id)
        self._staged.setdefault(execution_id, Book())

    def meanwhile(self, call: Callable[[], object]) -> None:
        self._meanwhile = call

    def store_value(self, execution_id: int, name: str, value: Any, *, source_step: str) -> None:
        own = self._locked(execution_id)
        encoding.dumps((name, source_step))
        own.values[name] = encoding.dumps(value)
        self._wrote = True

    def finish(self) -> None:
        """Commit, or say again what lost the transaction where earlier writes were lost with it."""
        if self._lost is None:
            self._meanwhile()
            self._shelf.commit(self._staged)
        elif self._wrote:
            raise self._lost

    def _own(self, execution_id: int) -> Book:
        if self._lost is not None:
            raise self._lost
        return self._staged.get(execution_id) or Book()

    def _locked(self, execution_id: int) -> Book:
        if self._lost is not None:
            raise self._lost
        if execution_id not in self._staged:
            raise not_locked(execution_id)
        return self._staged[execution_id]

    def _summary(self, execution_id: int, own: Book) -> ExecutionSummary | None:
        return own.summary or self._shelf.book(execution_id).summary


class Assuming(Unread, MemoryTransaction):
    """A transaction that goes by where executions are ``assumed`` to stand, and reads nothing."""

    assumed: Mapping[int, Standing]

    def append(self, execution_id: int, drafts: Sequence[Draft]) -> list[Entry]:
        self._compare()
        return super().append(execution_id, drafts)

    def finish(self) -> None:
        if self._lost is not None:
            raise self._lost
        if not self._wrote:
            raise NotAsAssumedError("nothing follows from it")
        self._compare()
        super().finish()

    def _compare(self) -> None:
        for execution_id, standing in self.assumed.items():
            rows = self._shelf.book(execution_id).rows
            key = rows[-1].row.idempotency_key if rows else None
            if len(rows) != standing.seq or standing.key not in {None, key}:
                raise NotAsAssumedError(f"execution {execution_id} has {len(rows)} events")


def attempt_state(events: Sequence[Stored]) -> AttemptState:
    """What the events of one step key say of it."""
    rows = [stored.row for stored in events]
    scheduled = max(
        (row for row in rows if row.type == "step.scheduled"),
        key=lambda row: row.attempt or 0,
        default=None,
    )
    attempt = 0 if scheduled is None else scheduled.attempt or 0
    payload = {} if scheduled is None else encoding.loads(scheduled.payload)
    newest = [row for row in rows if row.attempt == attempt and scheduled is not None]
    started = next((row for row in newest if row.type == "step.started"), None)
    ended = next((row for row in rows if row.type in STEP_ENDS), None)
    return AttemptState(
        attempt=attempt,
        queue=payload.get("queue", ""),
        scheduled_seq=0 if scheduled is None else scheduled.seq,
        started_by=None if started is None else started.worker,
        started_key=None if started is None else started.idempotency_key,
        fenced=any(row.type in FENCES for row in newest),
        ended=None if ended is None else ended.type,
        ended_key=None if ended is None else ended.idempotency_key,
        scheduled=payload,
    )


def _summary_after(summary: ExecutionSummary | None, entry: Entry) -> ExecutionSummary | None:
    """The execution's row in lists, once *entry* is appended."""
    event: Event = entry.event
    assert entry.at is not None
    if isinstance(event, ExecutionStarted):
        return ExecutionSummary(
            execution_id=entry.execution_id,
            catalog_id=event.catalog_id,
            path=event.path,
            version=event.version,
            status=RUNNING,
            started_at=entry.at,
            parent_execution_id=event.parent_execution_id,
        )
    if summary is None:
        return None
    if isinstance(event, ExecutionPaused | ExecutionResumed):
        at = entry.at if isinstance(event, ExecutionPaused) else None
        return summary._replace(paused_at=at)
    if event.type in EXECUTION_ENDS:
        return summary._replace(
            status=STATUS[event.type], ended_at=entry.at, error=message_of(event)
        )
    return summary
