"""Events as the log holds them: numbered, their fields in columns and a payload.

Field names that are columns of ``noetl.event`` (step, visit, iteration, attempt, worker, error,
duration_ms) are stored there; all others travel in the ``payload`` column.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from datetime import datetime
from typing import Any

from app.engine.events import TYPES, Event
from app.errors import CallboardError

COLUMNS = ("step", "visit", "iteration", "attempt", "worker", "duration_ms")


@dataclass(frozen=True, slots=True)
class Entry:
    """An event as the log holds it. ``seq`` is gap-free from 1 within the execution.

    ``event_id`` and ``at`` are given by the store; both are for people and exporters, never for
    the engine.
    """

    execution_id: int
    seq: int
    event: Event
    event_id: int = 0
    at: datetime | None = None


class UnknownEventError(CallboardError):
    """The log holds an event that this version cannot read: stop, never guess.

    It may be read by another process, or by this one after an upgrade, so nothing is ended for it.
    """

    code = "unknown_event"
    status = 501

    def __init__(self, execution_id: int, seq: int, what: str) -> None:
        super().__init__(
            f"event {seq} of execution {execution_id} {what}; the execution stands still",
            remedy="a newer version wrote it: run that version, or a later one, in every process",
        )


#: The names of the fields of each type, and those of them that are not columns.
_FIELDS = {type_: tuple(field.name for field in fields(cls)) for type_, cls in TYPES.items()}
_PAYLOAD = {
    type_: [name for name in names if name not in COLUMNS] for type_, names in _FIELDS.items()
}


def payload_of(event: Event) -> dict[str, Any]:
    """The fields of *event* that are not columns, without those left at None."""
    names = _PAYLOAD[event.type]
    return {name: value for name in names if (value := getattr(event, name)) is not None}


def event_from(
    type_: str, columns: Mapping[str, Any], payload: Mapping[str, Any], *, execution_id: int = 0
) -> Event:
    """Build the event that a row of the log describes; inverse of columns plus ``payload_of``.

    Fields of the payload that this version does not know are left out: whoever adds one to a known
    type sees to it that readers without it decide the same. Raises ``UnknownEventError``.
    """
    cls = TYPES.get(type_)
    if cls is None:
        what = f"has the type {type_!r}, which this version does not know"
        raise UnknownEventError(execution_id, columns.get("seq", 0), what)
    names = _FIELDS[type_]
    values = {name: columns[name] for name in names if name in COLUMNS and name in columns}
    values.update((name, payload[name]) for name in names if name in payload)
    for name in ("taken", "waiting", "redo"):
        if values.get(name) is not None:
            values[name] = tuple(values[name])
    try:
        return cls(**values)
    except TypeError as exc:
        what = f"is a {type_} without {', '.join(_missing(cls, values))}"
        raise UnknownEventError(execution_id, columns.get("seq", 0), what) from exc


def _missing(cls: type[Event], values: Mapping[str, Any]) -> list[str]:
    """The fields that *cls* cannot be without and that *values* lack."""
    needed = (f.name for f in fields(cls) if f.default is f.default_factory is MISSING)
    return [name for name in needed if name not in values]
