"""An execution as one line of JSON, with all that is known of it: for whoever removes it."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from typing import Any

from app.engine.custody import Custody
from app.engine.encoding import dumps
from app.engine.entry import Entry, payload_of
from app.engine.output import Kept, Selection
from app.engine.ports import BlobStore, EventLog, ExecutionSummary
from app.engine.references import REF, Place, place_of
from app.engine.retention import RetentionStore
from app.errors import BadRequestError, ConflictError, NotFoundError, UnavailableError
from app.services.large import key_of

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

    def __init__(
        self,
        events: EventLog,
        store: RetentionStore | None,
        custody: Custody,
        blobs: BlobStore | None,
    ) -> None:
        self._log = events
        self._store = store
        self._custody = custody
        self._blobs = blobs

    def line(self, execution_id: int) -> Iterator[bytes]:
        """The line, piece by piece, with its end. Raises ``NotFoundError``.

        ``{format, execution, events, values, variables, output, blobs}``: ``values`` are results too
        large for their events by name, ``blobs`` names all that the blob store has of it, and what
        is referred to. The line breaks off, without its end, where the execution is removed, or one
        that has ended gets another event, while it is read.
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
        last = yield from self._events(execution_id, blobs)
        yield b'],"values":{'
        yield from _joined(self._values(execution_id, blobs))
        yield b'},"variables":{'
        rows = self._custody.variables.rows(execution_id)
        yield from _joined(dumps(row.name) + b":" + dumps(row.value) for row in rows)
        yield b'},"output":['
        yield from _joined(self._output(execution_id))
        yield b'],"blobs":' + dumps(self._stored(execution_id, blobs))
        self._check(summary, last)
        yield b"}\n"

    def _check(self, summary: ExecutionSummary, last: int) -> None:
        """Raise where what was read since *summary* may be less than there was."""
        execution_id = summary.execution_id
        now = self._log.summary(execution_id)
        if now is None:
            raise NotFoundError(f"execution {execution_id} was removed while it was read")
        # What runs goes on, and the line tells it up to where it was read.
        if summary.ended_at is None:
            return
        if now != summary or self._log.read(execution_id, after=last, limit=1):
            raise ConflictError(f"execution {execution_id} changed while it was read")

    def _events(
        self, execution_id: int, blobs: dict[str, Mapping[str, Any]]
    ) -> Generator[bytes, None, int]:
        """The events, with commas between; the seq of the last one."""
        after = 0
        while entries := self._log.read(execution_id, after=after, limit=PAGE):
            for entry in entries:
                event = _event(entry)
                _note(event["payload"], execution_id, blobs)
                yield b"," + dumps(event) if entry.seq > 1 else dumps(event)
            after = entries[-1].seq
        return after

    def _stored(
        self, execution_id: int, noted: Mapping[str, Mapping[str, Any]]
    ) -> list[Mapping[str, Any]]:
        """All that goes from the blob store with the execution, and what is *noted* beside that."""
        store = self._blobs
        if store is None:
            return list(noted.values())
        places = [Place(execution_id, name) for name in store.names(execution_id)]
        found = {place.ref: place for place in places}
        # Of earlier versions, or with a very long name: known by what refers to it.
        found |= {ref: place_of(ref) for ref in noted if ref not in found}
        told = []
        for ref, place in found.items():
            size = store.size(key_of(place))
            blob = {"ref": ref, "store": store.kind, "size": size}
            told.append(noted[ref] if size is None and ref in noted else blob)
        return told

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
