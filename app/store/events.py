"""The event log on Postgres: append under the execution's lock, read by seq."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import orjson
import psycopg

from app.engine import encoding
from app.engine.entry import Entry, event_from
from app.engine.events import (
    EXECUTION_ENDS,
    ExecutionPaused,
    ExecutionResumed,
    ExecutionStarted,
    StepDone,
    StepKey,
)
from app.engine.ports import (
    NOTHING,
    Ahead,
    AttemptState,
    Draft,
    ExecutionFilter,
    ExecutionSummary,
    LogTransaction,
    Overdue,
    Pointer,
)
from app.store import listing, statements
from app.store.database import Database
from app.store.failures import translation
from app.store.keys import duplicate, not_locked
from app.store.pipelined import Call, Pipelined, Statement
from app.store.rows import END_OF, RUNNING, STATUS, Row, row_of, stored_event
from app.store.tables import KEYS

#: Events of each of several executions that come along with their locks; who wants more reads them.
MOST_NEWS = 500


@dataclass(frozen=True, slots=True)
class _Head:
    """Where an execution stands. Read under its lock, so nobody else can change it."""

    seq: int
    status: str | None
    catalog_id: int | None
    parent_execution_id: int | None
    paused: bool = False

    def after(self, drafts: Sequence[Draft]) -> _Head:
        """Where it stands when *drafts* are appended."""
        head = replace(self, seq=self.seq + len(drafts))
        for draft in drafts:
            event = draft.event
            if isinstance(event, ExecutionStarted):
                parent = event.parent_execution_id
                head = _Head(head.seq, RUNNING, event.catalog_id, parent)
            elif event.type in EXECUTION_ENDS and head.status is not None:
                head = replace(head, status=STATUS[event.type])
            elif isinstance(event, ExecutionPaused | ExecutionResumed):
                head = replace(head, paused=isinstance(event, ExecutionPaused))
        return head


class PostgresTransaction:
    """An open transaction that holds the locks of its executions; see ``LogTransaction``.

    What is appended is gathered, and written by one statement together with the commit, or before
    something is read.
    """

    def __init__(self, connection: Pipelined, heads: dict[int, _Head], found: Found) -> None:
        self.connection = connection
        self._heads = heads
        self._found = found
        self._gathered: list[tuple[int, _Head, Row]] = []
        #: The executions of the statement that is being written.
        self._writing: tuple[int, ...] = ()
        self._wrote = False
        self._lost: Exception | None = None

    @property
    def held(self) -> Container[int]:
        return self._heads.keys()

    def read(self, execution_id: int, *, after: int = 0) -> list[Entry]:
        self._write()
        known = self._found.read(execution_id, after)
        if (
            known is not None
            and not self._wrote
            and after + len(known) == self.last_seq(execution_id)
        ):
            return known
        return _read(self.connection, execution_id, after=after)

    def last_seq(self, execution_id: int) -> int:
        return self._head(execution_id).seq

    def ended(self, execution_ids: Iterable[int]) -> dict[int, str]:
        states = {i: self._head(i).status for i in execution_ids}
        return {i: END_OF[status] for i, status in states.items() if status in END_OF}

    def paused(self, execution_ids: Iterable[int]) -> frozenset[int]:
        return frozenset(i for i in execution_ids if self._head(i).paused)

    def attempts(
        self, keys: Iterable[tuple[int, StepKey]]
    ) -> dict[tuple[int, StepKey], AttemptState]:
        self._write()
        wanted = list(dict.fromkeys(keys))
        if not wanted:
            return {}
        if not self._wrote and self._found.attempts.keys() >= set(wanted):
            return {key: self._found.attempts[key] for key in wanted}
        rows = self.connection.execute(statements.ATTEMPTS, [_keys(wanted)])
        return {key: _attempt_state(row) for key, row in zip(wanted, rows, strict=True)}

    def under(self, execution_id: int, idempotency_key: str) -> Entry | None:
        self._write()
        rows = self.connection.execute(statements.UNDER, [execution_id, idempotency_key])
        return next(iter(_entries(rows)), None)

    def append(self, execution_id: int, drafts: Sequence[Draft]) -> list[Entry]:
        head = self._head(execution_id)
        if not drafts:
            return []
        rows = [row_of(seq, draft) for seq, draft in enumerate(drafts, head.seq + 1)]
        after = head.after(drafts)
        self._gathered += ((execution_id, after, row) for row in rows)
        self._heads[execution_id] = after
        return [
            Entry(execution_id, row.seq, stored_event(draft.event, row))
            for draft, row in zip(drafts, rows, strict=True)
        ]

    def begin(self, execution_id: int) -> None:
        # Its id was made by the caller a moment ago: no other process can ask for its lock.
        self._refuse_if_lost()
        self._heads.setdefault(execution_id, _Head(0, None, None, None))

    def store_value(self, execution_id: int, name: str, value: Any, *, source_step: str) -> None:
        self._head(execution_id)
        text = encoding.dumps(value).decode()
        with self._losing():
            self.connection.execute(statements.STORE_VALUE, [execution_id, name, text, source_step])
        self._wrote = True

    def finish(self) -> None:
        """Write and commit, or say again what lost the transaction where earlier writes were lost with it."""
        if self._lost is None:
            with self._losing():
                self.connection.together([*self._inserts(), _COMMIT])
        elif self._wrote or self._gathered:
            raise self._lost

    def _write(self) -> None:
        """Have all that was appended in the database, so that it can be read there."""
        self._refuse_if_lost()
        if self._gathered:
            with self._losing():
                self.connection.together(self._inserts())
            self._wrote = True

    def _inserts(self) -> list[Call]:
        """What inserts all that was gathered, and the projection's row along with first and last events."""
        if not self._gathered:
            return []
        self._writing = tuple(dict.fromkeys(execution_id for execution_id, _, _ in self._gathered))
        rows = [
            {
                "execution_id": execution_id,
                "catalog_id": head.catalog_id,
                "parent_execution_id": head.parent_execution_id,
                **row.encodable(),
            }
            for execution_id, head, row in self._gathered
        ]
        projected = [
            Call(_PROJECTED[row.type], (execution_id, row.seq))
            for execution_id, _, row in self._gathered
            if row.type in _PROJECTED
        ]
        self._gathered = []
        return [Call(_INSERT, (orjson.dumps(rows).decode(),)), *projected]

    @contextmanager
    def _losing(self) -> Iterator[None]:
        """Remember what Postgres refused: it would answer a later COMMIT by rolling back."""
        try:
            yield
        except psycopg.errors.UniqueViolation as exc:
            self._lost = duplicate(KEYS[exc.diag.constraint_name or ""], self._refused(exc))
            raise self._lost from exc
        except psycopg.Error as exc:
            self._lost = translation(exc)
            raise self._lost from exc

    def _refused(self, exc: psycopg.errors.UniqueViolation) -> int:
        """The execution whose event broke the key: the key's first column, where it is one of ours."""
        named = _FIRST_COLUMN.search(exc.diag.message_detail or "")
        execution_id = int(named[1]) if named else 0
        return execution_id if execution_id in self._writing else self._writing[0]

    def _refuse_if_lost(self) -> None:
        if self._lost is not None:
            raise self._lost

    def _head(self, execution_id: int) -> _Head:
        self._refuse_if_lost()
        try:
            return self._heads[execution_id]
        except KeyError:
            raise not_locked(execution_id) from None


@dataclass(frozen=True, slots=True)
class Found:
    """What was read along with the locks; see ``Ahead``."""

    after: Mapping[int, int]
    entries: Mapping[int, list[Entry]]
    attempts: Mapping[tuple[int, StepKey], AttemptState]

    def read(self, execution_id: int, after: int) -> list[Entry] | None:
        """The events after *after*; None where they were not asked for."""
        if self.after.get(execution_id) != after:
            return None
        return self.entries.get(execution_id, [])


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
        ids = sorted(set(execution_ids))
        listed = _array(ids)
        keys = list(dict.fromkeys(ahead.attempts))
        encoded = _keys(keys)
        with self._database.own() as connection:
            # One round trip; each statement still takes a snapshot of its own, so what those after
            # LOCK read includes whatever the previous holder of the lock committed.
            calls = {"begin": _BEGIN}
            if not durable:
                calls["not durable"] = _NOT_DURABLE
            calls["locked"] = Call(_LOCK if waits else _TRY_LOCK, (listed,))
            calls["heads"] = Call(_HEADS, (listed,))
            if ahead.after:
                calls["news"] = _news(ahead)
            if keys:
                calls["attempts"] = Call(_ATTEMPTS, (encoded,))
            rows = dict(zip(calls, connection.together(calls.values()), strict=True))
            states = {
                key: _attempt_state(row)
                for key, row in zip(keys, rows.get("attempts", ()), strict=True)
            }
            entries: dict[int, list[Entry]] = {}
            for entry in _entries(rows.get("news", ())):
                entries.setdefault(entry.execution_id, []).append(entry)
            found = Found(ahead.after, entries, states)
            held = set(ids) if waits else {row[0] for row in rows["locked"]}
            known = {i: _Head(*rest) for i, *rest in rows["heads"] if i in held}
            opened = PostgresTransaction(connection, known, found)
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
            return _read(
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
            found = _entries(connection.execute(statements.ENTRIES, [_array(ids), _array(numbers)]))
        return {(entry.execution_id, entry.seq): entry for entry in found}

    def iterations(self, execution_id: int, step: str, visit: int) -> list[Entry]:
        with self._database.raw() as connection:
            return _entries(connection.execute(statements.ITERATIONS, [execution_id, step, visit]))

    def done(self, execution_id: int, keys: Iterable[StepKey]) -> dict[StepKey, Entry]:
        wanted = list(dict.fromkeys(keys))
        if not wanted:
            return {}
        columns = [list(column) for column in zip(*wanted, strict=True)]
        with self._database.raw() as connection:
            found = _entries(connection.execute(statements.DONE, [*columns, execution_id]))
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


_BEGIN, _COMMIT, _NOT_DURABLE = (
    Call(Statement(text)) for text in (statements.BEGIN, statements.COMMIT, statements.NOT_DURABLE)
)
_LOCK, _TRY_LOCK, _HEADS, _NEWS, _ATTEMPTS, _INSERT = (
    Statement(text)
    for text in (
        statements.LOCK,
        statements.TRY_LOCK,
        statements.HEADS,
        statements.NEWS,
        statements.ATTEMPTS,
        statements.INSERT,
    )
)
_NEWS_OF_ONE = Statement(f"{statements.READ} AND e.seq > %(after)s ORDER BY e.seq")
#: The statement that keeps the projection in step with an event of this type; of its id and seq.
_PROJECTED = {
    "execution.started": Statement(statements.OPEN_EXECUTION),
    "execution.paused": Statement(statements.PAUSE_EXECUTION),
    "execution.resumed": Statement(statements.RESUME_EXECUTION),
    **dict.fromkeys(EXECUTION_ENDS, Statement(statements.CLOSE_EXECUTION)),
}


#: The first of the values in "Key (execution_id, …)=(1, …) already exists."
_FIRST_COLUMN = re.compile(r"=\((\d+)[,)]")


def _array(numbers: Iterable[int]) -> str:
    """*numbers* as Postgres writes an array: psycopg takes ten times as long to encode a list."""
    return "{" + ",".join(map(str, numbers)) + "}"


def _keys(keys: Iterable[tuple[int, StepKey]]) -> str:
    """*keys* as the parameter of ``ATTEMPTS``. Raises ``BadRequestError`` for what no log holds."""
    return encoding.dumps([{"execution_id": i, **key._asdict()} for i, key in keys]).decode()


def _news(ahead: Ahead) -> Call:
    """What reads the rows of each of these executions after the seq that is known of it."""
    after = ahead.after
    if len(after) != 1 or ahead.most is not None:
        most = MOST_NEWS if ahead.most is None else ahead.most
        return Call(_NEWS, (_array(after), _array(after.values()), most))
    ((execution_id, seq),) = after.items()
    return Call(_NEWS_OF_ONE, (execution_id, seq))


def _read(
    connection: psycopg.Connection[Any],
    execution_id: int,
    *,
    after: int = 0,
    limit: int | None = None,
    types: Sequence[str] | None = None,
    newest_first: bool = False,
) -> list[Entry]:
    sql = [statements.READ]
    if after:
        sql.append("AND e.seq < %(after)s" if newest_first else "AND e.seq > %(after)s")
    if types is not None:
        sql.append("AND e.type = ANY(%(types)s)")
    sql.append("ORDER BY e.seq DESC" if newest_first else "ORDER BY e.seq")
    if limit is not None:
        sql.append("LIMIT %(limit)s")
    parameters = {
        "id": execution_id,
        "after": after,
        "types": list(types or ()),
        "limit": limit,
    }
    return _entries(connection.execute(" ".join(sql), parameters))


def _entries(rows: Iterable[tuple[Any, ...]]) -> list[Entry]:
    return [_entry(*row) for row in rows]


def _entry(*values: Any) -> Entry:
    row = Row(*values[: len(Row._fields)])
    event_id, at, execution_id = values[len(Row._fields) :]
    payload: Any = row.payload  # psycopg decoded it
    event = event_from(row.type, row._asdict(), payload, execution_id=execution_id)
    return Entry(execution_id, row.seq, event, event_id, at)


def _attempt_state(row: tuple[Any, ...]) -> AttemptState:
    attempt, scheduled, scheduled_seq, started_by, started_key, fenced, ended, ended_key = row
    return AttemptState(
        attempt=attempt or 0,
        queue=scheduled["queue"] if scheduled else "",
        scheduled_seq=scheduled_seq or 0,
        started_by=started_by,
        started_key=started_key,
        fenced=fenced,
        ended=ended,
        ended_key=ended_key,
        scheduled=scheduled or {},
    )
