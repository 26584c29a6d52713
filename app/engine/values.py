"""The values that templates read, found by the seq of the event that carries them.

``decide`` stays pure: where a value is not at hand it raises ``ValueNeeded``, its caller fetches
the value and decides again.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from app.engine.events import (
    CtxUpdated,
    Event,
    ExecutionStarted,
    LoopDone,
    LoopStarted,
    StepDone,
    StepFailed,
    StepKey,
)
from app.engine.template import PassThrough

#: Key that marks a value kept outside the log.
REF = "_ref"
#: The fields of a reference; they stand beside the value's own where it is handed out.
FIELDS = frozenset({REF, "_store", "_size_bytes", "_preview"})


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is missing: the event at ``seq``, the results of a loop's iterations, or a stored value."""

    seq: int = 0
    loop: StepKey | None = None
    name: str | None = None


class ValueNeeded(PassThrough):
    """The decision needs ``wanted``, which its caller has to fetch."""

    def __init__(self, wanted: Wanted) -> None:
        super().__init__(str(wanted))
        self.wanted = wanted


@dataclass(slots=True)
class Values:
    """What was fetched so far for one execution."""

    events: MutableMapping[int, Event] = field(default_factory=dict)
    loops: MutableMapping[StepKey, list[Any]] = field(default_factory=dict)
    stored: MutableMapping[str, Any] = field(default_factory=dict)

    def event(self, seq: int) -> Event:
        found = self.events.get(seq)
        if found is None:
            raise ValueNeeded(Wanted(seq=seq))
        return found

    def workload(self) -> Mapping[str, Any]:
        event = self.event(1)
        assert isinstance(event, ExecutionStarted)
        return event.workload

    def result(self, seq: int) -> Any:
        """The result that the end of a step carries; of a failed one ``{status, error}``."""
        event = self.event(seq)
        match event:
            case StepDone():
                return self.resolve(event.result)
            case StepFailed():
                return {"status": "error", "error": dict(event.error)}
            case LoopDone():
                results = self._loop(event.key) if event.total else []
                stats = {"total": event.total, "success": event.success, "failed": event.failed}
                return {"results": results, "data": results, "stats": stats}
            case _:
                raise TypeError(f"event {seq} ({event.type}) carries no result")

    def ctx(self, seq: int, name: str) -> Any:
        """The value that the event at *seq* gave to ctx.*name*."""
        event = self.event(seq)
        if isinstance(event, CtxUpdated):
            return self.resolve(event.values[name])
        if isinstance(event, StepDone | StepFailed) and event.ctx:
            return self.resolve(event.ctx[name])
        raise TypeError(f"event {seq} ({event.type}) sets no ctx")

    def items(self, seq: int) -> Any:
        """The collection of the loop started at *seq*."""
        event = self.event(seq)
        assert isinstance(event, LoopStarted)
        return self.resolve(event.items)

    def resolve(self, value: Any) -> Any:
        """*value*, or what it refers to. A mapping keeps its reference fields beside its own."""
        if not is_reference(value):
            return value
        name = value[REF]["name"]
        if name not in self.stored:
            raise ValueNeeded(Wanted(name=name))
        stored = self.stored[name]
        return {**stored, **value} if isinstance(stored, dict) else stored

    def _loop(self, key: StepKey) -> list[Any]:
        if key not in self.loops:
            raise ValueNeeded(Wanted(loop=key))
        return self.loops[key]


def is_reference(value: Any) -> bool:
    """A value kept outside the log: ``{_ref: {kind, name, ref}, _store, _size_bytes, _preview}``."""
    return isinstance(value, dict) and value.keys() >= FIELDS and isinstance(value[REF], dict)


def reference(execution_id: int, name: str, size: int, value: Any) -> dict[str, Any]:
    """What stands in the event for a value of *size* bytes stored under *name*."""
    preview = (
        {
            key: item
            for key, item in value.items()
            if isinstance(item, str | int | float | bool) and len(str(item)) < 200
        }
        if isinstance(value, dict)
        else None
    )
    return {
        REF: {
            "kind": "result_ref",
            "name": name,
            "ref": f"noetl://execution/{execution_id}/{name}",
        },
        "_store": "kv",
        "_size_bytes": size,
        "_preview": preview,
    }
