"""An execution as one line of JSON, with all that is known of it: for whoever removes it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from app.engine.custody import Custody
from app.engine.encoding import dumps
from app.engine.entry import Entry, payload_of
from app.engine.output import Kept, Selection
from app.engine.ports import EventLog, ExecutionSummary
from app.engine.references import REF, place_of
from app.engine.retention import RetentionStore
from app.errors import BadRequestError, NotFoundError, UnavailableError

#: Of the form of a line; another form gets another number.
FORMAT = 1
#: Events, and pieces of output, that are held at once.
PAGE = 500
#: Columns of an event, where its type has them.
_COLUMNS = ("step", "visit", "iteration", "attempt", "worker", "duration_ms")
#: Where values are that are not in the blob store.
_INSIDE = frozenset({"log", "kv"})


class Archives:
    """Writes executions out. Secrets are in none of it: tokens of keychains are left out."""

    def __init__(self, events: EventLog, store: RetentionStore | None, custody: Custody) -> None:
        self._log = events
        self._store = store
        self._custody = custody

    def line(self, execution_id: int) -> Iterator[bytes]:
        """The line, piece by piece, with its end. Raises ``NotFoundError``.

        ``{format, execution, events, values, variables, output, blobs}``: ``values`` are results too
        large for their events by name, ``blobs`` names those in the blob store, and artifacts.
        """
        summary = self._log.summary(execution_id)
        if summary is None:
            raise NotFoundError(
                f"there is no execution {execution_id}", remedy="see 'callboard executions'"
            )
        return self._pieces(summary)

    def _pieces(self, summary: ExecutionSummary) -> Iterator[bytes]:
        execution_id = summary.execution_id
        blobs: dict[str, Mapping[str, Any]] = {}
        yield b'{"format":%d,"execution":%b,"events":[' % (FORMAT, dumps(_head(summary)))
        yield from _joined(self._events(execution_id, blobs))
        yield b'],"values":{'
        yield from _joined(self._values(execution_id, blobs))
        yield b'},"variables":{'
        rows = self._custody.variables.rows(execution_id)
        yield from _joined(dumps(row.name) + b":" + dumps(row.value) for row in rows)
        yield b'},"output":['
        yield from _joined(self._output(execution_id))
        yield b'],"blobs":' + dumps(list(blobs.values())) + b"}\n"

    def _events(self, execution_id: int, blobs: dict[str, Mapping[str, Any]]) -> Iterator[bytes]:
        after = 0
        while entries := self._log.read(execution_id, after=after, limit=PAGE):
            for entry in entries:
                event = _event(entry)
                _note(event["payload"], execution_id, blobs)
                yield dumps(event)
            after = entries[-1].seq

    def _values(self, execution_id: int, blobs: dict[str, Mapping[str, Any]]) -> Iterator[bytes]:
        if self._store is None:
            raise UnavailableError("what runs in one process is not archived", remedy="end it")
        variables = {row.name for row in self._custody.variables.rows(execution_id)}
        for name in self._store.value_names(execution_id):
            if name in variables:
                continue
            # One at a time: each may be as large as a blob is at the least.
            for value in self._log.values(execution_id, [name]).values():
                _note(value, execution_id, blobs)
                yield dumps(name) + b":" + dumps(value)

    def _output(self, execution_id: int) -> Iterator[bytes]:
        after = 0
        store = self._custody.output
        while pieces := store.read(execution_id, Selection(), after=after, limit=PAGE):
            yield from (dumps(_piece(kept)) for kept in pieces)
            after = pieces[-1].cursor


def _joined(items: Iterable[bytes]) -> Iterator[bytes]:
    for number, item in enumerate(items):
        yield b"," + item if number else item


def _head(summary: ExecutionSummary) -> dict[str, Any]:
    head = summary._asdict()
    for name in ("started_at", "ended_at", "paused_at"):
        head[name] = head[name] and head[name].isoformat()
    return head


def _event(entry: Entry) -> dict[str, Any]:
    columns = {name: getattr(entry.event, name, None) for name in _COLUMNS}
    return {
        "seq": entry.seq,
        "event_id": entry.event_id,
        "created_at": entry.at and entry.at.isoformat(),
        "type": entry.event.type,
        **{name: value for name, value in columns.items() if value is not None},
        "payload": payload_of(entry.event),
    }


def _piece(kept: Kept) -> dict[str, Any]:
    piece = kept.printed
    place = {
        name: value for name, value in piece.pointer._asdict().items() if name != "execution_id"
    }
    return {
        **place,
        "chunk": piece.index,
        "stream": piece.stream,
        "text": piece.text,
        "created_at": piece.at.isoformat(),
    }


def _note(value: Any, execution_id: int, blobs: dict[str, Mapping[str, Any]]) -> None:
    """Add to *blobs* what *value* refers to, anywhere in it, of the execution's own."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, Mapping):
            waiting.extend(each.values())
            _note_one(each, execution_id, blobs)
        elif isinstance(each, list | tuple):
            waiting.extend(each)


def _note_one(
    value: Mapping[str, Any], execution_id: int, blobs: dict[str, Mapping[str, Any]]
) -> None:
    store = value.get("_store")
    if REF not in value or not isinstance(store, str) or store in _INSIDE:
        return
    try:
        place = place_of(value[REF])
    except BadRequestError:
        return  # a playbook's own data, which looks like a reference and is none
    if place.execution_id == execution_id:
        blobs[place.ref] = {"ref": place.ref, "store": store, "size": value.get("_size_bytes")}
