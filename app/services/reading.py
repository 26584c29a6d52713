"""Fetches what values refer to: events by seq, results of loop iterations, stored values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from app.engine.events import Event, StepDone
from app.engine.ports import EventLog
from app.engine.values import REF, Values, Wanted, is_reference
from app.errors import CallboardError
from app.services.cache import Lru
from app.services.large import size_of

#: Stored values above this size are read each time: a cache of them could fill the memory.
CACHED_BYTES = 1_048_576


class MissingValueError(CallboardError):
    """The log refers to something that is not there: rows were removed by hand."""

    code = "missing_value"


class Reader:
    """Reads immutable facts of the log and remembers the recent ones."""

    def __init__(self, log: EventLog, *, events: int = 4096, stored: int = 64) -> None:
        self._log = log
        self._events: Lru[tuple[int, int], Event] = Lru(events)
        self._stored: Lru[tuple[int, str], Any] = Lru(stored)

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

    def stored(self, execution_id: int, name: str) -> Any:
        """A value kept outside the log. Raises ``MissingValueError``."""
        place = (execution_id, name)
        value = self._stored.get(place)
        if value is None:
            values = self._log.values(execution_id, [name])
            if name not in values:
                raise MissingValueError(f"the value {name!r} of execution {execution_id} is gone")
            value = values[name]
            if size_of(value) <= CACHED_BYTES:
                self._stored.put(place, value)
        return value

    def fetch(self, execution_id: int, wanted: Wanted, values: Values) -> None:
        """Put what is *wanted* into *values*. Raises ``MissingValueError``."""
        if wanted.loop is not None:
            values.loops[wanted.loop] = self.loop_results(
                execution_id, wanted.loop.step, wanted.loop.visit
            )
        elif wanted.name is not None:
            values.stored[wanted.name] = self.stored(execution_id, wanted.name)
        else:
            found = self.events([(execution_id, wanted.seq)])
            if (execution_id, wanted.seq) not in found:
                raise MissingValueError(f"event {wanted.seq} of execution {execution_id} is gone")
            values.events[wanted.seq] = found[execution_id, wanted.seq]

    def loop_results(self, execution_id: int, step: str, visit: int) -> list[Any]:
        """The results of a loop's iterations by index; of a failed one ``{status, error}``."""
        results = []
        for entry in self._log.iterations(execution_id, step, visit):
            event = entry.event
            if isinstance(event, StepDone):
                results.append(self.resolved(execution_id, event.result))
            else:
                results.append({"status": "error", "error": dict(getattr(event, "error", {}))})
        return results

    def resolved(self, execution_id: int, value: Any) -> Any:
        """*value*, or what it refers to."""
        if not is_reference(value):
            return value
        stored = self.stored(execution_id, value[REF]["name"])
        return {**stored, **value} if isinstance(stored, dict) else stored
