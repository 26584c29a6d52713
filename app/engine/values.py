"""The values that templates read, found by the seq of the event that carries them.

``decide`` stays pure: where a value is not at hand it raises ``ValueNeeded``, its caller fetches
the value and decides again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from app.engine.children import CallName, Target
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
from app.engine.references import FIELDS, REF, LoopResults, is_reference, opened, whole
from app.engine.templates.template import PassThrough

__all__ = [
    "FIELDS",
    "REF",
    "ValueNeeded",
    "Values",
    "Wanted",
    "is_reference",
    "rows_of",
    "stats_of",
]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is missing: the event at ``seq``, the results of a loop's iterations, the values that
    ``refs`` (their ``noetl://`` references) name, or the playbook that a sub-playbook call names."""

    seq: int = 0
    loop: StepKey | None = None
    refs: tuple[str, ...] = ()
    call: CallName | None = None


class ValueNeeded(PassThrough):
    """The decision needs ``wanted``, which its caller has to fetch."""

    def __init__(self, wanted: Wanted) -> None:
        super().__init__(str(wanted))
        self.wanted = wanted


@dataclass(slots=True)
class Values:
    """What was fetched so far for one execution, and what else a decision is told.

    ``loops`` are the results of iterations by index, as their events carry them; ``stored`` are
    values by reference. ``now`` is the time in unix seconds; ``new_id`` gives the ids of
    sub-playbooks. A target of None means that nothing is registered under that name.
    """

    events: MutableMapping[int, Event] = field(default_factory=dict)
    loops: MutableMapping[StepKey, list[Any]] = field(default_factory=dict)
    stored: MutableMapping[str, Any] = field(default_factory=dict)
    targets: MutableMapping[CallName, Target | None] = field(default_factory=dict)
    now: float = 0.0
    new_id: Callable[[], int] = lambda: 0

    def target(self, call: CallName) -> Target | None:
        """What *call* leads to."""
        if call not in self.targets:
            raise ValueNeeded(Wanted(call=call))
        return self.targets[call]

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
                key, total = event.key, event.total
                return LoopResults(stats_of(event), lambda: self._loop(key) if total else [])
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
        """The collection of the loop started at *seq*, or the rows that a claim ended with there."""
        event = self.event(seq)
        if isinstance(event, StepDone):
            return rows_of(whole(self.resolve(event.result)))
        assert isinstance(event, LoopStarted)
        return self.resolve(event.items)

    def resolve(self, value: Any) -> Any:
        """*value* as templates read it: what it refers to, where it does, is needed when it is read."""
        return opened(value, self._load)

    def _load(self, reference: Mapping[str, Any]) -> Any:
        ref = reference[REF]["ref"]
        if ref not in self.stored:
            raise ValueNeeded(Wanted(refs=(ref,)))
        return self.stored[ref]

    def _loop(self, key: StepKey) -> list[Any]:
        """The results of a loop's iterations, whole."""
        if key not in self.loops:
            raise ValueNeeded(Wanted(loop=key))
        results = self.loops[key]
        refs = {value[REF]["ref"] for value in results if is_reference(value)}
        if missing := refs - self.stored.keys():
            raise ValueNeeded(Wanted(refs=tuple(sorted(missing))))
        return [self._load(value) if is_reference(value) else value for value in results]


def stats_of(event: LoopDone) -> dict[str, int]:
    """How many iterations there were, and how they ended."""
    return {"total": event.total, "success": event.success, "failed": event.failed}


def rows_of(claimed: Any) -> list[Any]:
    """The rows that the claim of a cursor gave. Raises ``TypeError`` where they are no rows."""
    rows = claimed.get("rows", claimed.get("data")) if isinstance(claimed, Mapping) else claimed
    if rows is None:
        return []
    if not isinstance(rows, list):
        raise TypeError(f"a claim must give rows, not {type(rows).__name__}")
    return rows
