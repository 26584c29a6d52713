"""Events as clients read them: NoETL's words and shapes beside ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.engine.entry import Entry, payload_of
from app.engine.ports import ExecutionSummary
from app.engine.references import REF, is_reference
from app.wire import EventRow

#: Our event type to NoETL's, where it has one, and the status shown.
WORDS: Mapping[str, tuple[str, str]] = {
    "execution.started": ("playbook.initialized", "STARTED"),
    "execution.paused": ("execution.paused", "PAUSED"),
    "execution.resumed": ("execution.resumed", "STARTED"),
    "step.scheduled": ("command.issued", "PENDING"),
    "step.started": ("command.started", "STARTED"),
    "step.done": ("call.done", "COMPLETED"),
    "step.parked": ("step.parked", "PENDING"),
    "child.started": ("child.started", "STARTED"),
    "child.ended": ("child.ended", "COMPLETED"),
    "frame.opened": ("frame.dispatched", "STARTED"),
    "attempt.failed": ("attempt.failed", "FAILED"),
    "attempt.expired": ("attempt.expired", "FAILED"),
    "attempt.interrupted": ("attempt.interrupted", "CANCELLED"),
    "attempt.late": ("attempt.late", "CANCELLED"),
    "step.failed": ("call.error", "FAILED"),
    "step.skipped": ("step.skipped", "SKIPPED"),
    "step.cancelled": ("step.cancelled", "CANCELLED"),
    "step.routed": ("step.routed", "COMPLETED"),
    "ctx.updated": ("ctx.updated", "CONTEXT"),
    "loop.started": ("loop.started", "STARTED"),
    "loop.done": ("loop.done", "COMPLETED"),
    "execution.completed": ("playbook.completed", "COMPLETED"),
    "execution.failed": ("playbook.failed", "FAILED"),
    "execution.cancelled": ("execution.cancelled", "CANCELLED"),
}
_OURS = {theirs: ours for ours, (theirs, _) in WORDS.items()}


def our_types(word: str) -> list[str]:
    """The event types of ours that *word* of either vocabulary means."""
    return [_OURS.get(word, word)]


def event_row(entry: Entry, summary: ExecutionSummary) -> EventRow:
    """*entry* of the execution *summary*, in both vocabularies."""
    event = entry.event
    theirs, status = WORDS.get(event.type, (event.type, "COMPLETED"))
    step = getattr(event, "step", None)
    duration_ms = getattr(event, "duration_ms", None)
    context = payload_of(event)
    if "child_execution_id" in context:  # ids are text: JavaScript knows no number as large
        context["child_execution_id"] = str(context["child_execution_id"])
    result = _result(context, event.type)
    return EventRow(
        execution_id=str(entry.execution_id),
        event_id=entry.event_id,
        event_type=theirs,
        type=event.type,
        seq=entry.seq,
        node_id=str(getattr(event, "key", step or summary.path)),
        node_name=step or summary.path,
        status=_status(status, context),
        created_at=entry.at,
        timestamp=entry.at,
        context=context,
        result=result,
        error=_message(context.get("error")),
        catalog_id=str(summary.catalog_id),
        parent_execution_id=_text(summary.parent_execution_id),
        duration=None if duration_ms is None else duration_ms / 1000,
        step=step,
        visit=getattr(event, "visit", None),
        iteration=getattr(event, "iteration", None),
        attempt=getattr(event, "attempt", None),
        worker=getattr(event, "worker", None),
    )


def _result(context: dict[str, Any], type_: str) -> dict[str, Any] | None:
    """Take the result out of *context*, in NoETL's form."""
    if type_ == "step.done":
        value = context.pop("result", None)
        if is_reference(value):
            reference = {
                **value[REF],
                "store": value.get("_store"),
                "bytes": value.get("_size_bytes"),
            }
            return {"status": "ok", "reference": reference, "context": value.get("_preview") or {}}
        return {"status": "ok", "context": {"data": value}}
    if type_ in {"step.failed", "attempt.failed", "execution.failed"}:
        return {"status": "error", "context": {"error": context.get("error")}}
    return None


def _status(status: str, context: Mapping[str, Any]) -> str:
    # Some events end well or badly, and say so by carrying an error.
    return "FAILED" if status == "COMPLETED" and context.get("error") else status


def _message(error: Any) -> str | None:
    if not error:
        return None
    return str(error.get("message", error)) if isinstance(error, Mapping) else str(error)


def _text(value: int | None) -> str | None:
    return None if value is None else str(value)
