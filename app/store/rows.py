"""An event as a row, and back. Shared by both stores, so that they hold exactly the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from app.engine import encoding
from app.engine.entry import event_from, payload_of
from app.engine.events import NO_LOOP, Event
from app.engine.ports import Draft

#: Types that fence an attempt off without ending its step.
FENCES = ("attempt.failed", "attempt.expired", "attempt.interrupted", "step.parked")

RUNNING = "RUNNING"

#: The event that brought an ended execution into its status.
END_OF = {
    "COMPLETED": "execution.completed",
    "FAILED": "execution.failed",
    "CANCELLED": "execution.cancelled",
}

#: The column ``status``, for people and dashboards; the engine never reads it.
STATUS: Mapping[str, str] = {
    "execution.started": RUNNING,
    "execution.paused": "PAUSED",
    "execution.resumed": RUNNING,
    "step.scheduled": "PENDING",
    "step.started": RUNNING,
    "step.done": "COMPLETED",
    "step.parked": "PENDING",
    "child.started": RUNNING,
    "child.ended": "COMPLETED",
    "frame.opened": RUNNING,
    "attempt.failed": "FAILED",
    "attempt.expired": "FAILED",
    "attempt.interrupted": "CANCELLED",
    "attempt.late": "CANCELLED",
    "step.failed": "FAILED",
    "step.skipped": "SKIPPED",
    "step.cancelled": "CANCELLED",
    "step.routed": "COMPLETED",
    "ctx.updated": "CONTEXT",
    "loop.started": RUNNING,
    "loop.done": "COMPLETED",
    "execution.completed": "COMPLETED",
    "execution.failed": "FAILED",
    "execution.cancelled": "CANCELLED",
}


class Row(NamedTuple):
    """The columns of an event that its writer decides; ``payload`` is JSON text."""

    seq: int
    type: str
    step: str | None
    visit: int | None
    iteration: int | None
    attempt: int | None
    worker: str | None
    status: str
    error: str | None
    duration_ms: float | None
    idempotency_key: str | None
    payload: str

    def encodable(self) -> dict[str, Any]:
        """Itself for ``orjson``, by column."""
        return {**self._asdict(), "payload": orjson.Fragment(self.payload)}


def row_of(seq: int, draft: Draft) -> Row:
    """The row of *draft*. Raises ``BadRequestError`` where its payload is not JSON."""
    event = draft.event
    step = getattr(event, "step", None)
    worker = getattr(event, "worker", None)
    duration = getattr(event, "duration_ms", None)
    error = message_of(event)
    for text in (step, worker, error, draft.idempotency_key):
        # A column takes what JSON takes: neither the character NUL nor half a surrogate pair.
        if text and ("\0" in text or not text.isascii()):
            encoding.dumps(text)
    return Row(
        seq=seq,
        type=event.type,
        step=step,
        visit=getattr(event, "visit", None),
        # Every event of a step has one: the unique keys do not see rows with a null in them.
        iteration=getattr(event, "iteration", NO_LOOP) if step is not None else None,
        attempt=getattr(event, "attempt", None),
        worker=worker,
        status=STATUS[event.type],
        error=error,
        duration_ms=None if duration is None else float(duration),
        idempotency_key=draft.idempotency_key,
        payload=encoding.dumps(payload_of(event)).decode(),
    )


def stored_event(event: Event, row: Row) -> Event:
    """*event* as a reader will find it: a tuple inside it comes back as a list, for instance."""
    payload = encoding.loads(row.payload)
    if payload == payload_of(event):
        return event
    return event_from(row.type, row._asdict(), payload)


def message_of(event: Event) -> str | None:
    """The text for the column ``error``; the whole error stays in the payload."""
    error = getattr(event, "error", None)
    if not error:
        return None
    return str(error.get("message", error)) if isinstance(error, Mapping) else str(error)
