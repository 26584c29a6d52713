"""What a worker says of an attempt that has ended: without secrets, and in what the log can hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from app.actors.printing import clean
from app.actors.rendering import shown
from app.actors.sequence import Outcome
from app.engine.masking import Masker
from app.errors import BadRequestError, CallboardError
from app.services.large import size_of
from app.wire import Report


def report_of(
    place: Mapping[str, Any], outcome: Outcome, *, reason: str | None, most: int
) -> Report:
    """The report of the attempt at *place* (its pointer, key, duration and tail).

    *reason* is why it was stopped, if it was; a result of more than *most* bytes is a failure.
    """
    if reason == "shutdown" and outcome.error is not None:
        return Report(**place, outcome="interrupted")
    if outcome.progress is not None:
        return _parked(place, outcome, most)
    unfit = _unfit({"result": outcome.result, "ctx": outcome.ctx}, most)
    ctx = None if unfit else dict(outcome.ctx) or None
    error = outcome.error or unfit
    if error is None:
        selected = dict(outcome.selected) or None
        return Report(**place, outcome="done", result=outcome.result, selected=selected, ctx=ctx)
    return Report(
        **place,
        outcome="failed",
        error=printable(dict(error)),
        ctx=ctx,
        retry_in=outcome.retry_in,
    )


def _parked(place: Mapping[str, Any], outcome: Outcome, most: int) -> Report:
    unfit = _unfit({"progress": outcome.progress, "call": outcome.call}, most)
    if unfit is not None:
        return Report(**place, outcome="failed", error=printable(unfit))
    return Report(
        **place,
        outcome="parked",
        progress=dict(outcome.progress or {}),
        call=dict(outcome.call) if outcome.call else None,
        retry_in=outcome.retry_in,
    )


def _unfit(result: Any, most: int) -> dict[str, Any] | None:
    """Why *result* cannot be kept; None where it can."""
    try:
        size = size_of(result)
    except BadRequestError as exc:
        message = f"the result is not plain JSON data: {exc}"
        return {"kind": "schema", "message": message, "retryable": False}
    if size <= most:
        return None
    message = (
        f"the result of {size} bytes is above the limit of {most} (setting CALLBOARD_RESULT_BYTES)"
    )
    return {"kind": "resource", "message": message, "retryable": False}


def masked(outcome: Outcome, masker: Masker) -> Outcome:
    """*outcome* without the secrets that its attempt was told."""
    if not masker:
        return outcome
    data = masker.data
    return replace(
        outcome,
        result=data(outcome.result),
        error=data(outcome.error),
        ctx=data(outcome.ctx),
        progress=data(outcome.progress),
        call=data(outcome.call),
        selected=data(outcome.selected),
    )


def explained(outcome: Outcome, masker: Masker) -> Outcome:
    """*outcome* with what the failed task was given in ``error.rendered``, masked and bounded."""
    if outcome.error is None or outcome.given is None:
        return outcome
    rendered = shown(outcome.given, masker)
    if rendered is None:
        return outcome
    return replace(outcome, error={**outcome.error, "rendered": rendered}, given=None)


def failed_instead(report: Report, reason: CallboardError) -> Report:
    """The failure that stands for a report the control plane does not take."""
    error = {"kind": "internal", "message": f"the report was refused: {reason}", "retryable": False}
    nothing: dict[str, Any] = {
        "result": None,
        "ctx": None,
        "tail": None,
        "output": [],
        "retry_in": None,
    }
    return report.model_copy(update={**nothing, "outcome": "failed", "error": printable(error)})


def printable(value: Any) -> Any:
    """*value* with what text in JSON and Postgres cannot hold (NUL, lone surrogates) replaced."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, Mapping):
        return {printable(str(key)): printable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [printable(item) for item in value]
    return (
        value if value is None or isinstance(value, bool | int | float) else printable(str(value))
    )
