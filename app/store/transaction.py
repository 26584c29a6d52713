"""Transactions of the log in Postgres: what they append is gathered, and written with the commit."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson
import psycopg

from app.engine import encoding
from app.engine.ahead import Ahead, NotAsAssumedError, Standing
from app.engine.entry import Entry
from app.engine.events import (
    EXECUTION_ENDS,
    ExecutionPaused,
    ExecutionResumed,
    ExecutionStarted,
    StepKey,
)
from app.engine.ports import AttemptState, Draft
from app.store import statements
from app.store.database import Database
from app.store.failures import translation
from app.store.keys import duplicate, not_locked
from app.store.pipelined import Call, Pipelined, Statement
from app.store.reading import array, attempt_state, encoded_keys, entries_of, read_rows
from app.store.rows import END_OF, RUNNING, STATUS, Row, row_of, stored_event
from app.store.tables import KEYS
from app.store.unread import Unread

#: Events of each of several executions that come along with their locks; who wants more reads them.
MOST_NEWS = 500

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
_LOCK_NOT_DURABLE, _LOCK_ONE, _LOCK_ONE_NOT_DURABLE, _INSERT_AS_ASSUMED, _INSERT_ONE_AS_ASSUMED = (
    Statement(text)
    for text in (
        statements.LOCK_NOT_DURABLE,
        statements.LOCK_ONE,
        statements.LOCK_ONE_NOT_DURABLE,
        statements.INSERT_AS_ASSUMED,
        statements.INSERT_ONE_AS_ASSUMED,
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


class Head(NamedTuple):
    """Where an execution stands. Read under its lock, so nobody else can change it."""

    seq: int
    status: str | None
    catalog_id: int | None
    parent_execution_id: int | None
    paused: bool = False

    def after(self, drafts: Sequence[Draft]) -> Head:
        """Where it stands when *drafts* are appended."""
        head = self._replace(seq=self.seq + len(drafts))
        for draft in drafts:
            event = draft.event
            if isinstance(event, ExecutionStarted):
                parent = event.parent_execution_id
                head = Head(head.seq, RUNNING, event.catalog_id, parent)
            elif event.type in EXECUTION_ENDS and head.status is not None:
                head = head._replace(status=STATUS[event.type])
            elif isinstance(event, ExecutionPaused | ExecutionResumed):
                head = head._replace(paused=isinstance(event, ExecutionPaused))
        return head


class _Gathering:
    """What two kinds of transaction have in common: heads, and rows that are still to be written."""

    def __init__(self, heads: dict[int, Head]) -> None:
        self._heads = heads
        self._gathered: list[tuple[int, Head, Row]] = []
        #: The executions of the statement that is being written.
        self._writing: tuple[int, ...] = ()
        self._lost: Exception | None = None
        self._meanwhile: Callable[[], object] | None = None

    @property
    def held(self) -> Container[int]:
        return self._heads.keys()

    def last_seq(self, execution_id: int) -> int:
        return self._head(execution_id).seq

    def ended(self, execution_ids: Iterable[int]) -> dict[int, str]:
        states = {i: self._head(i).status for i in execution_ids}
        return {i: END_OF[status] for i, status in states.items() if status in END_OF}

    def paused(self, execution_ids: Iterable[int]) -> frozenset[int]:
        return frozenset(i for i in execution_ids if self._head(i).paused)

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
        self._heads.setdefault(execution_id, Head(0, None, None, None))

    def meanwhile(self, call: Callable[[], object]) -> None:
        self._meanwhile = call

    def _rows(self) -> tuple[str, list[Call]]:
        """All that was gathered, as JSON, and what writes the projection's rows along with first and
        last events.
        """
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
        return orjson.dumps(rows).decode(), projected

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

    def _head(self, execution_id: int) -> Head:
        self._refuse_if_lost()
        try:
            return self._heads[execution_id]
        except KeyError:
            raise not_locked(execution_id) from None


class PostgresTransaction(_Gathering):
    """An open transaction that holds the locks of its executions; see ``LogTransaction``.

    What is appended is written by one statement together with the commit, or before something is read.
    """

    def __init__(self, connection: Pipelined, heads: dict[int, Head], found: Found) -> None:
        super().__init__(heads)
        self.connection = connection
        self._found = found
        self._wrote = False

    def read(self, execution_id: int, *, after: int = 0) -> list[Entry]:
        self._write()
        known = self._found.read(execution_id, after)
        if (
            known is not None
            and not self._wrote
            and after + len(known) == self.last_seq(execution_id)
        ):
            return known
        return read_rows(self.connection, execution_id, after=after)

    def attempts(
        self, keys: Iterable[tuple[int, StepKey]]
    ) -> dict[tuple[int, StepKey], AttemptState]:
        self._write()
        wanted = list(dict.fromkeys(keys))
        if not wanted:
            return {}
        if not self._wrote and self._found.attempts.keys() >= set(wanted):
            return {key: self._found.attempts[key] for key in wanted}
        rows = self.connection.execute(statements.ATTEMPTS, [encoded_keys(wanted)])
        return {key: attempt_state(row) for key, row in zip(wanted, rows, strict=True)}

    def under(self, execution_id: int, idempotency_key: str) -> Entry | None:
        self._write()
        rows = self.connection.execute(statements.UNDER, [execution_id, idempotency_key])
        return next(iter(entries_of(rows)), None)

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
                self.connection.together([*self._inserts(), _COMMIT], meanwhile=self._meanwhile)
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
        """What inserts all that was gathered."""
        if not self._gathered:
            return []
        rows, projected = self._rows()
        return [Call(_INSERT, (rows,)), *projected]


class AssumedTransaction(Unread, _Gathering):
    """A transaction that goes by what is *assumed* and asks Postgres once, at its end.

    There its locks are taken, and what was appended is written if all executions stand as assumed. In
    the statement that writes, not before it: between the two nobody could know.
    """

    def __init__(
        self, database: Database, assumed: Mapping[int, Standing], *, durable: bool
    ) -> None:
        super().__init__({i: _assumed_head(standing) for i, standing in assumed.items()})
        self._database = database
        self._assumed = assumed
        self._durable = durable

    def finish(self) -> None:
        """Write and commit. Raises ``NotAsAssumedError``, also where nothing is to be written: then
        nobody has compared.
        """
        self._refuse_if_lost()
        if not self._gathered:
            raise NotAsAssumedError("nothing follows from it")
        rows, projected = self._rows()
        # What is sent together is one transaction without being told so, and undone by itself.
        calls = [*_as_assumed(rows, self._assumed, durable=self._durable), *projected]
        with self._database.own() as connection, self._losing():
            _, written, *_ = connection.together(calls, meanwhile=self._meanwhile)
        if not written:
            raise NotAsAssumedError("it is longer, or shorter")


def _as_assumed(rows: str, assumed: Mapping[int, Standing], *, durable: bool) -> list[Call]:
    """What takes the locks, and what inserts *rows* if all stand as *assumed*."""
    if len(assumed) == 1:
        ((execution_id, standing),) = assumed.items()
        place = (execution_id,)
        return [
            Call(_LOCK_ONE if durable else _LOCK_ONE_NOT_DURABLE, place),
            Call(_INSERT_ONE_AS_ASSUMED, (rows, standing.seq, standing.key or "", *place)),
        ]
    standings = [
        {"execution_id": i, "seq": standing.seq, "key": standing.key}
        for i, standing in assumed.items()
    ]
    return [
        Call(_LOCK if durable else _LOCK_NOT_DURABLE, (array(sorted(assumed)),)),
        Call(_INSERT_AS_ASSUMED, (rows, len(assumed), orjson.dumps(standings).decode())),
    ]


def _assumed_head(standing: Standing) -> Head:
    status = RUNNING if standing.seq else None
    return Head(
        standing.seq, status, standing.catalog_id, standing.parent_execution_id, standing.paused
    )


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


@dataclass(frozen=True, slots=True)
class Opening:
    """How a transaction of some executions begins; see ``EventLog.transaction``."""

    ids: Sequence[int]
    durable: bool
    ahead: Ahead
    waits: bool

    def on(self, connection: Pipelined) -> PostgresTransaction:
        """Begin it there, in one round trip.

        Each statement still takes a snapshot of its own, so what those after LOCK read includes whatever
        the previous holder of the lock committed.
        """
        listed, keys = array(self.ids), list(dict.fromkeys(self.ahead.attempts))
        encoded = encoded_keys(keys)
        calls = {"begin": _BEGIN}
        if not self.durable:
            calls["not durable"] = _NOT_DURABLE
        calls["locked"] = Call(_LOCK if self.waits else _TRY_LOCK, (listed,))
        calls["heads"] = Call(_HEADS, (listed,))
        if self.ahead.after:
            calls["news"] = _news(self.ahead)
        if keys:
            calls["attempts"] = Call(_ATTEMPTS, (encoded,))
        rows = dict(zip(calls, connection.together(calls.values()), strict=True))
        states = {
            key: attempt_state(row) for key, row in zip(keys, rows.get("attempts", ()), strict=True)
        }
        entries: dict[int, list[Entry]] = {}
        for entry in entries_of(rows.get("news", ())):
            entries.setdefault(entry.execution_id, []).append(entry)
        held = set(self.ids) if self.waits else {row[0] for row in rows["locked"]}
        heads = {i: Head(*rest) for i, *rest in rows["heads"] if i in held}
        return PostgresTransaction(connection, heads, Found(self.ahead.after, entries, states))


def _news(ahead: Ahead) -> Call:
    """What reads the rows of each of these executions after the seq that is known of it."""
    after = ahead.after
    if len(after) != 1 or ahead.most is not None:
        most = MOST_NEWS if ahead.most is None else ahead.most
        return Call(_NEWS, (array(after), array(after.values()), most))
    ((execution_id, seq),) = after.items()
    return Call(_NEWS_OF_ONE, (execution_id, seq))
