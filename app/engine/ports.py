"""What the use cases need from the outside world. `store`, `brokers` and the memory twins provide it."""

from __future__ import annotations

from collections.abc import Callable, Container, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from app.engine.ahead import NOTHING, Ahead
from app.engine.entry import Entry
from app.engine.events import Event, StepKey
from app.errors import CallboardError

#: A pointer message above this size is a bug: something other than a pointer is in it.
MAX_POINTER_BYTES = 1024


class DuplicateEventError(CallboardError):
    """One of the unique keys U1 to U9 refused an event; ``key`` names it. Nothing was written."""

    code = "duplicate"
    status = 409

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


class Pointer(NamedTuple):
    """Where to look: everything a step message carries."""

    execution_id: int
    step: str
    visit: int
    iteration: int
    attempt: int

    @property
    def key(self) -> StepKey:
        return StepKey(self.step, self.visit, self.iteration)


@dataclass(frozen=True, slots=True)
class Draft:
    """An event to be appended. *idempotency_key* makes a repeated report one row (U2)."""

    event: Event
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class AttemptState:
    """What the log says of one step key: enough to fence a claim or a report.

    ``attempt`` is the newest scheduled one (0: never scheduled), ``queue`` where it was sent;
    ``started_by`` the worker that claimed that newest attempt and ``started_key`` the idempotency
    key of its claim; ``fenced`` says the newest attempt failed, expired or was interrupted;
    ``ended`` is the type of the event that ended the key and ``ended_key`` its idempotency key.
    ``scheduled_seq`` is the seq of the newest ``step.scheduled``, and ``scheduled`` its payload.
    """

    attempt: int = 0
    queue: str = ""
    scheduled_seq: int = 0
    started_by: str | None = None
    started_key: str | None = None
    fenced: bool = False
    ended: str | None = None
    ended_key: str | None = None
    scheduled: Mapping[str, Any] = field(default_factory=dict, compare=False)


class ExecutionSummary(NamedTuple):
    """One row of the list of executions. ``status`` is RUNNING, COMPLETED, FAILED or CANCELLED."""

    execution_id: int
    catalog_id: int
    path: str
    version: int
    status: str
    started_at: datetime
    ended_at: datetime | None = None
    error: str | None = None
    parent_execution_id: int | None = None
    paused_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ExecutionFilter:
    """What to list, newest first. ``before`` is the cursor: the execution_id of the last row seen."""

    status: str | None = None
    path: str | None = None
    started_after: datetime | None = None
    started_before: datetime | None = None
    before: int | None = None
    parent_execution_id: int | None = None
    limit: int = 50
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Overdue:
    """Attempts of one queue that are due and that nobody claimed; the oldest for ``seconds``."""

    queue: str
    count: int
    seconds: float


class LogTransaction(Protocol):
    """The log, with the executions it was opened for locked until the end of the transaction."""

    @property
    def held(self) -> Container[int]:
        """The executions that are locked."""

    def read(self, execution_id: int, *, after: int = 0) -> list[Entry]:
        """The events with seq > *after*, in order."""

    def last_seq(self, execution_id: int) -> int:
        """The seq of the newest event; 0 where there is none."""

    def ended(self, execution_ids: Iterable[int]) -> dict[int, str]:
        """The type of the end event of each of these executions that has ended."""

    def paused(self, execution_ids: Iterable[int]) -> frozenset[int]:
        """Those of these executions that are paused."""

    def attempts(
        self, keys: Iterable[tuple[int, StepKey]]
    ) -> dict[tuple[int, StepKey], AttemptState]:
        """What the log says of each (execution_id, key); one entry for every key asked for."""

    def under(self, execution_id: int, idempotency_key: str) -> Entry | None:
        """The event that was appended with that key (U2)."""

    def append(self, execution_id: int, drafts: Sequence[Draft]) -> list[Entry]:
        """Append in order with the next seqs; visible to others after the transaction commits.

        Raises ``DuplicateEventError`` (and the transaction is lost) where a unique key refuses: at
        once, with the next read, or at the latest on leaving the transaction. The summary row of
        the execution is written along with its first and its last event. What the store adds to
        an entry (``event_id``, ``at``) is known to later reads only.
        """

    def begin(self, execution_id: int) -> None:
        """Take in an execution that nobody else can know of yet, so that it may be appended to."""

    def meanwhile(self, call: Callable[[], object]) -> None:
        """Have *call* done while the commit is under way, at the latest before this returns.

        Whether there will be one nobody knows then, and the log cannot be read. It must not fail.
        """

    def store_value(self, execution_id: int, name: str, value: Any, *, source_step: str) -> None:
        """Keep a value too large for the event in ``transient``, in the same transaction."""


class EventLog(Protocol):
    """The append-only truth. Implementations: ``store.events`` (Postgres) and ``store.memory``."""

    def transaction(
        self,
        execution_ids: Iterable[int],
        *,
        durable: bool = True,
        ahead: Ahead = NOTHING,
        waits: bool = True,
    ) -> AbstractContextManager[LogTransaction]:
        """Lock these executions (in ascending order) and commit on leaving, or roll back on an error.

        Where it does not *wait*, those that somebody else has locked are left out (see ``held``).

        What is named in *ahead* costs no round trip of its own when it is read. Where it assumes how
        things stand, ``NotAsAssumedError`` is raised for whatever is to be read all the same, and at
        the latest on leaving if they stand otherwise.

        ``durable=False`` lets the commit return before it is on disk: only for events whose loss
        is harmless (claims). Raises ``UnavailableError`` where the database does not answer.
        """

    def read(
        self,
        execution_id: int,
        *,
        after: int = 0,
        limit: int | None = None,
        types: Sequence[str] | None = None,
        newest_first: bool = False,
    ) -> list[Entry]:
        """Events with seq > *after* (or < *after* when newest_first and after > 0), without a lock."""

    def entries(self, seqs: Iterable[tuple[int, int]]) -> dict[tuple[int, int], Entry]:
        """The events at these (execution_id, seq); missing ones are absent."""

    def iterations(self, execution_id: int, step: str, visit: int) -> list[Entry]:
        """The ``step.done`` and ``step.failed`` events of a loop's iterations, ordered by index."""

    def done(self, execution_id: int, keys: Iterable[StepKey]) -> dict[StepKey, Entry]:
        """The ``step.done`` of each of these keys that has one."""

    def values(self, execution_id: int, names: Iterable[str]) -> dict[str, Any]:
        """Values kept by ``store_value``; missing ones are absent."""

    def count(self, execution_id: int) -> int:
        """How many events the execution has."""

    def summary(self, execution_id: int) -> ExecutionSummary | None: ...

    def started_under(self, key: str) -> ExecutionSummary | None:
        """The execution whose ``execution.started`` was appended with that idempotency key (U9)."""

    def executions(self, query: ExecutionFilter) -> list[ExecutionSummary]:
        """Newest first."""

    def count_by_status(self) -> dict[str, int]: ...

    def open_executions(self, *, limit: int = 1000, after: int = 0) -> list[int]:
        """Ids of executions without an end, ascending, above *after*."""

    def unclaimed(
        self, *, older_than: float, limit: int = 1000, after: int = 0
    ) -> list[tuple[Pointer, str, str]]:
        """(pointer, tool, queue) of attempts that were due more than *older_than* seconds ago
        (database clock) and that nobody claimed, in executions with ids above *after* that are open
        and not paused, ascending by execution."""

    def overdue(self, *, older_than: float, limit: int = 1000) -> list[Overdue]:
        """The same by queue, ordered by its name; not more than *limit* attempts are counted."""

    def abandoned(self, *, lease: float, limit: int = 1000) -> list[tuple[Pointer, str]]:
        """(pointer, worker) of claimed, unfinished newest attempts of open executions whose worker
        has no ``runtime`` heartbeat within *lease* seconds (and claimed longer ago than that)."""

    def untold(self, *, limit: int = 1000) -> list[int]:
        """Ended executions whose waiting step, in a running one, was not told of that."""

    def orphans(self, *, limit: int = 1000) -> list[int]:
        """Running executions whose waiting step was ended with its failed or cancelled execution."""


class BlobStore(Protocol):
    """Bytes by key, for values too large for the log's own database.

    A key holds its content's digest, so whatever is put under one twice is the same. Every method
    raises ``UnavailableError`` where the store does not answer.
    """

    @property
    def kind(self) -> str:
        """What a reference calls it: disk, s3, gcs, azure or memory."""

    def put(self, key: str, data: bytes) -> None:
        """Keep *data*; on disk, and whole, when this returns."""

    def put_stream(self, key: str, pieces: Iterable[bytes]) -> None:
        """As ``put``, holding no more than a few *pieces*; nothing is kept where they raise."""

    def get(self, key: str) -> bytes | None:
        """What was put under *key*; None where nothing was."""

    def get_stream(self, key: str) -> Generator[bytes, None, None] | None:
        """The same, piece by piece; to be read to its end, or closed."""

    def size(self, key: str) -> int | None:
        """The bytes kept under *key*; None where there are none."""

    def delete(self, key: str) -> None:
        """Forget *key*; one that is not known is no error."""

    def names(self, execution_id: int) -> list[str]:
        """What follows *execution_id* and a slash in the keys that begin so, in any order.

        A name that the store keeps only the digest of, as it is very long, is left out.
        """

    def delete_all(self, execution_id: int) -> None:
        """Forget every key that begins with *execution_id* and a slash."""


class CatalogEntry(NamedTuple):
    """A registered resource. ``version`` counts from 1 per path; ``content`` is the YAML as sent."""

    catalog_id: int
    path: str
    version: int
    kind: str
    content: str
    meta: Mapping[str, Any]
    created_at: datetime


class Catalog(Protocol):
    """Playbooks and other resources, versioned and never changed."""

    def add(self, path: str, kind: str, content: str, *, meta: Mapping[str, Any]) -> CatalogEntry:
        """Register as version MAX + 1 of *path*."""

    def get(self, catalog_id: int) -> CatalogEntry | None: ...

    def find(self, path: str, version: int | None = None) -> CatalogEntry | None:
        """That version, or the newest."""

    def newest(self, path: str) -> int | None:
        """The ``catalog_id`` of the newest version; cheaper than all of it."""

    def entries(
        self, *, kind: str | None = None, path: str | None = None, limit: int = 1000
    ) -> list[CatalogEntry]:
        """The newest version of every path, or every version of *path*; ordered by path."""


@dataclass(frozen=True, slots=True)
class RuntimeEntry:
    """A process that beats. ``kind`` is worker_pool, server_api, orchestrator or scheduler."""

    name: str
    kind: str
    status: str = "ready"
    uri: str = ""
    labels: Mapping[str, Any] = field(default_factory=dict)
    capacity: int | None = None
    runtime: Mapping[str, Any] = field(default_factory=dict)
    runtime_id: int = 0
    heartbeat: datetime | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None


class RuntimeRegistry(Protocol):
    """Who is alive, by the database's clock."""

    def beat(self, entry: RuntimeEntry) -> tuple[RuntimeEntry, bool]:
        """Insert or refresh by (kind, name); True where it was not known before."""

    def remove(self, kind: str, name: str) -> bool: ...

    def entries(
        self, *, kind: str | None = None, status: str | None = None, name: str | None = None
    ) -> list[RuntimeEntry]: ...

    def now(self) -> datetime:
        """The clock that heartbeats are stamped with."""

    def prune(self, *, older_than: float) -> int:
        """Forget entries silent for more than *older_than* seconds; how many."""


class Dispatcher(Protocol):
    """Sends pointers and wakes. Never carries work; losing a message is repaired from the log."""

    def dispatch(self, steps: Sequence[Dispatch]) -> None:
        """Send all of these pointers; returns when the broker holds them. Raises UnavailableError."""

    def wake(self, execution_ids: Iterable[int], *, delay: float = 0.0) -> None:
        """Ask for ``advance`` of these executions, now or after *delay* seconds.

        Many wakes of one that are due become one.
        """

    def calm(self, execution_ids: Iterable[int]) -> None:
        """Drop the wakes of these that are not due yet, as they have ended. Raises nothing: what
        stays comes when it is due, for nothing.
        """

    def tidy(self) -> None:
        """Drop what the broker holds though it was dealt with, as one that was killed may.

        Raises UnavailableError.
        """

    def waited(self, queue: str) -> float:
        """Seconds that a message of *queue* has waited to be fetched, the longest; 0 where none waits."""

    def epoch(self) -> str:
        """Another text than before where the broker lost everything that it held in between.

        Raises UnavailableError.
        """


class Dispatch(NamedTuple):
    """A pointer on its way: the actor (tool kind), its queue, and the delay in seconds.

    ``nonce`` tells a second sending of the same pointer from a duplicate of the first. ``pace`` is
    how many seconds one of its kind takes, where that is known: short ones may travel together.
    """

    pointer: Pointer
    tool: str
    queue: str
    delay: float = 0.0
    nonce: int = 0
    pace: float | None = None


Clock = Callable[[], float]
"""Seconds since the epoch."""

NewId = Callable[[], int]
"""A fresh id that sorts by time and fits a signed 64-bit integer."""
