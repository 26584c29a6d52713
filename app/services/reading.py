"""Fetches what values refer to: events by seq, results of loop iterations, stored values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from app.engine.encoding import dumps, loads
from app.engine.entry import Entry
from app.engine.events import Event, StepDone, StepRouted, StepScheduled, StepStarted
from app.engine.ports import BlobStore, EventLog
from app.engine.references import ARTIFACT, NAMED, REF, Place, is_reference, opened, place_of, whole
from app.engine.values import ValueNeeded, Values, Wanted
from app.errors import BadRequestError, NotFoundError
from app.services.cache import Lru
from app.services.large import digest, key_of
from app.services.weighted import Weighted

#: Bytes of JSON that parsed values may have together; parsed they take several times as much.
PARSED_BYTES = 16_777_216
#: Bytes of encoded values, and of the items of large collections, kept at once.
ENCODED_BYTES = 134_217_728


class MissingValueError(NotFoundError):
    """The log refers to something that is not there, or not what it was any more."""

    code = "missing_value"


class Reader:
    """Reads immutable facts of the log and remembers the recent ones.

    *most* bounds in bytes what the results of a loop may be together when they are read at once.
    """

    def __init__(
        self,
        log: EventLog,
        blobs: BlobStore | None = None,
        *,
        events: int = 1024,
        most: int = 104_857_600,
    ) -> None:
        self._log = log
        self._blobs = blobs
        self._most = most
        self._events: Lru[tuple[int, int], Event] = Lru(events)
        self._parsed: Weighted[Place, Any] = Weighted(PARSED_BYTES)
        self._encoded: Weighted[tuple[Place, bool], Sequence[bytes]] = Weighted(ENCODED_BYTES)

    def events(self, wanted: Iterable[tuple[int, int]]) -> Mapping[tuple[int, int], Event]:
        """The events at these (execution_id, seq), in one query for those not remembered."""
        found: dict[tuple[int, int], Event] = {}
        missing: list[tuple[int, int]] = []
        for place in dict.fromkeys(wanted):
            event = self._events.get(place)
            if event is None:
                missing.append(place)
            else:
                found[place] = event
        if missing:
            for place, entry in self._log.entries(missing).items():
                found[place] = entry.event
                self._events.put(place, entry.event)
        return found

    def remember(self, entries: Iterable[Entry]) -> None:
        """Keep those of *entries*, which are on disk, that others refer to: the next step reads them."""
        for entry in entries:
            if not isinstance(entry.event, StepStarted | StepScheduled | StepRouted):
                self._events.put((entry.execution_id, entry.seq), entry.event)

    # ------------------------------------------------------------------ what decisions need
    def fetch(self, execution_id: int, wanted: Wanted, values: Values) -> None:
        """Put what is *wanted* into *values*. Raises ``MissingValueError``."""
        if wanted.loop is not None:
            step, visit, _ = wanted.loop
            results = self.iterations(execution_id, step, visit)
            self._check_together(step, results)
            values.loops[wanted.loop] = results
        elif wanted.refs:
            places = {ref: _own(execution_id, place_of(ref)) for ref in wanted.refs}
            found = self._values(places.values())
            values.stored.update({ref: found[place] for ref, place in places.items()})
        else:
            found_events = self.events([(execution_id, wanted.seq)])
            if (execution_id, wanted.seq) not in found_events:
                raise MissingValueError(f"event {wanted.seq} of execution {execution_id} is gone")
            values.events[wanted.seq] = found_events[execution_id, wanted.seq]

    def result(self, execution_id: int, seq: int) -> Any:
        """The result that the end of a step at *seq* carries, read through references."""
        found = self.events([(execution_id, seq)])
        values = Values({seq: event for (_, seq), event in found.items()})
        while True:
            try:
                return whole(values.result(seq))
            except ValueNeeded as needed:
                self.fetch(execution_id, needed.wanted, values)

    # ------------------------------------------------------------------ whole values
    def resolved(self, execution_id: int, value: Any) -> Any:
        """*value*, or what it refers to, whole. Raises ``MissingValueError``."""
        if is_reference(value):
            _own(execution_id, place_of(value[REF]))
        return whole(opened(value, self._load))

    def many(self, values: Iterable[Any]) -> list[Any]:
        """Each of *values*, or what it refers to; one query for all that one execution keeps."""
        listed = list(values)
        places = {
            value[REF]["ref"]: place_of(value[REF]) for value in listed if is_reference(value)
        }
        found = self._values(places.values())
        return [
            found[places[value[REF]["ref"]]] if is_reference(value) else value for value in listed
        ]

    def iterations(self, execution_id: int, step: str, visit: int) -> list[Any]:
        """The results of a loop's iterations by index as their events carry them, some by reference.

        Of a failed one ``{status, error}``.
        """
        results: list[Any] = []
        for entry in self._log.iterations(execution_id, step, visit):
            event = entry.event
            if isinstance(event, StepDone):
                results.append(event.result)
            else:
                results.append({"status": "error", "error": dict(getattr(event, "error", {}))})
        return results

    def loop_results(self, execution_id: int, step: str, visit: int) -> list[Any]:
        """The results of a loop's iterations by index, whole.

        Raises ``BadRequestError`` where they are too large together to be read at once.
        """
        results = self.iterations(execution_id, step, visit)
        self._check_together(step, results)
        return self.many(results)

    def _check_together(self, step: str, results: Iterable[Any]) -> None:
        size = sum(value["_size_bytes"] for value in results if is_reference(value))
        if size > self._most:
            raise BadRequestError(
                f"the results of loop {step!r} have {size} bytes together, more than {self._most} "
                "(setting CALLBOARD_RESULT_BYTES)",
                remedy="let the iterations write to a table or to files, and return less",
            )

    def item(self, place: Place, index: int) -> bytes:
        """Item *index* of the collection at *place*, as JSON. Raises ``MissingValueError``.

        A large collection is parsed once, not once for each of its iterations.
        """

        def items() -> tuple[Sequence[bytes], int]:
            parts = [dumps(item) for item in loads(self._text(place))]
            # What Python adds to bytes, and to their place in a list.
            return parts, sum(map(len, parts)) + 48 * len(parts)

        found = self._encoded.get((place, True), items)
        if not 0 <= index < len(found):
            raise MissingValueError(f"{place.ref} has no item {index}")
        return found[index]

    def text(self, place: Place) -> bytes:
        """The value at *place* as JSON. Raises ``MissingValueError``."""

        if place.name.startswith(NAMED):
            return self._text(place)  # what is under a name may be another one tomorrow

        def whole_text() -> tuple[Sequence[bytes], int]:
            text = self._text(place)
            return (text,), len(text)

        return self._encoded.get((place, False), whole_text)[0]

    # ------------------------------------------------------------------ where they are kept
    def _load(self, reference: Mapping[str, Any]) -> Any:
        place = place_of(reference[REF])
        loop = place.loop
        if loop is not None:
            return self.loop_results(place.execution_id, *loop)
        return self._values([place])[place]

    def _values(self, places: Iterable[Place]) -> dict[Place, Any]:
        """The values at all of *places*. Raises ``MissingValueError``."""
        found: dict[Place, Any] = {}
        missing: dict[int, list[Place]] = {}
        for place in dict.fromkeys(places):
            value = self._parsed.peek(place)
            if value is None:
                missing.setdefault(place.execution_id, []).append(place)
            else:
                found[place] = value
        for execution_id, wanted in missing.items():
            kept = self._log.values(execution_id, [place.name for place in wanted])
            for place in wanted:
                if place.name in kept:
                    found[place] = value = kept[place.name]
                    self._parsed.put(place, value, len(dumps(value)))
                else:
                    text = self._blob(place)
                    found[place] = value = loads(text)
                    self._parsed.put(place, value, len(text))
        return found

    def _text(self, place: Place) -> bytes:
        loop = place.loop
        if loop is not None:
            return dumps(self.loop_results(place.execution_id, *loop))
        kept = self._log.values(place.execution_id, [place.name])
        return dumps(kept[place.name]) if place.name in kept else self._blob(place)

    def _blob(self, place: Place) -> bytes:
        self._check_artifact(place)
        data = None if self._blobs is None else self._blobs.get(key_of(place))
        if data is None:
            raise MissingValueError(
                f"the value {place.ref} is gone",
                remedy="is the blob store the one it was written to? see CALLBOARD_BLOBS",
            )
        if digest(data) != place.name.rpartition("/")[2]:
            raise MissingValueError(
                f"the value {place.ref} is damaged: its digest is {digest(data)}",
                remedy="restore it from a backup of the blob store",
            )
        return data

    def _check_artifact(self, place: Place) -> None:
        """Artifacts may be larger than what is ever held at once."""
        if self._blobs is None or not place.name.startswith(ARTIFACT):
            return
        size = self._blobs.size(key_of(place)) or 0
        if size > self._most:
            raise BadRequestError(
                f"{place.ref} has {size} bytes, more than the {self._most} that are read at once "
                "(setting CALLBOARD_RESULT_BYTES)",
                remedy="download it: GET /api/artifacts?ref=…",
            )


def _own(execution_id: int, place: Place) -> Place:
    """*place*, where it belongs to the execution. Raises ``MissingValueError`` for another's.

    The log of an execution refers to its own values alone: whatever names another's was made up.
    """
    if place.execution_id != execution_id:
        raise MissingValueError(f"execution {execution_id} has no value {place.ref}")
    return place
