"""Results of steps for those who look at them: an outline that costs nothing, or the JSON text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from app.engine.encoding import dumps
from app.engine.events import Event, LoopDone, StepDone
from app.engine.references import REF, Place, is_reference, loop_reference, place_of, preview
from app.engine.values import stats_of
from app.errors import NotFoundError
from app.services.executions import Executions
from app.services.reading import Reader


@dataclass(frozen=True, slots=True)
class Outline:
    """What a result is like. ``ref`` is None where the event holds it; ``size`` None for a loop."""

    step: str
    status: str
    visit: int
    ref: str | None
    store: str
    size: int | None
    preview: Any


class Results:
    """Reads results without taking them apart."""

    def __init__(self, executions: Executions, reader: Reader) -> None:
        self._executions = executions
        self._reader = reader

    def outlines(self, execution_id: int) -> Sequence[Outline]:
        """The results there are, in the order in which their steps ended. Raises ``NotFoundError``."""
        self._executions.get(execution_id)
        steps = self._executions.state(execution_id).steps
        ended = sorted((step.result_seq, name) for name, step in steps.items() if step.result_seq)
        found = self._reader.events((execution_id, seq) for seq, _ in ended)
        return [
            self._outline(execution_id, name, steps[name].status, found[execution_id, seq])
            for seq, name in ended
        ]

    def outline(self, execution_id: int, step: str | None = None) -> Outline:
        """Of *step*, by default of the one that ended last. Raises ``NotFoundError``."""
        name, event = self._end(execution_id, step)
        status = self._executions.state(execution_id).step(name).status
        return self._outline(execution_id, name, status, event)

    def text(self, execution_id: int, step: str | None = None) -> bytes:
        """The result of *step* as JSON. Raises ``NotFoundError``."""
        name, event = self._end(execution_id, step)
        if isinstance(event, StepDone) and is_reference(event.result):
            return self._reader.text(place_of(event.result[REF]))
        return dumps(self._executions.result(execution_id, name))

    def resolve(self, ref: str) -> bytes:
        """The value that a ``noetl://`` reference stands for, as JSON.

        Raises ``BadRequestError`` for what is no reference, ``MissingValueError`` for a lost one.
        """
        place: Place = place_of(ref)
        self._executions.get(place.execution_id)
        return self._reader.text(place)

    def _end(self, execution_id: int, step: str | None) -> tuple[str, Event]:
        self._executions.get(execution_id)
        state = self._executions.state(execution_id)
        ended = {name: item.result_seq for name, item in state.steps.items() if item.result_seq}
        name = step or max(ended, key=ended.__getitem__, default=None)
        if name is None or name not in ended:
            what = f"no result of step {step!r}" if step else "no result yet"
            raise NotFoundError(f"execution {execution_id} has {what} (it is {state.status})")
        place = (execution_id, ended[name])
        return name, self._reader.events([place])[place]

    def _outline(self, execution_id: int, name: str, status: str, event: Event) -> Outline:
        visit = getattr(event, "visit", 1)
        if isinstance(event, LoopDone):
            shown = loop_reference(execution_id, event.step, event.visit, stats_of(event))
            ref, stats = shown[REF]["ref"], shown["stats"]
            return Outline(name, status, visit, ref, "log", None, {"stats": stats})
        value = event.result if isinstance(event, StepDone) else _failure(event)
        if is_reference(value):
            ref, size = value[REF]["ref"], value["_size_bytes"]
            return Outline(name, status, visit, ref, value["_store"], size, value["_preview"])
        return Outline(name, status, visit, None, "log", len(dumps(value)), preview(value))


def _failure(event: Event) -> Any:
    return {"status": "error", "error": dict(getattr(event, "error", None) or {})}
