"""What a report becomes in the log."""

from __future__ import annotations

from dataclasses import replace

from app.engine.events import (
    AttemptFailed,
    AttemptInterrupted,
    Event,
    StepDone,
    StepFailed,
    StepKey,
    StepParked,
)
from app.engine.ports import Clock, LogTransaction
from app.errors import BadRequestError
from app.services.large import Storage
from app.wire import Report

#: Seconds that an attempt may be put off; more would be a mistake, and no date holds it.
LONGEST_WAIT = 31_536_000.0


class Endings:
    """Events of how attempts ended. One that cannot be kept as it is ends its step all the same."""

    def __init__(self, storage: Storage, clock: Clock) -> None:
        self._storage = storage
        self._clock = clock

    def event(self, tx: LogTransaction, report: Report, worker: str) -> Event:
        """The event; values that are too large inline are kept in *tx* beside the log."""
        place = {"attempt": report.attempt, "worker": worker}
        key = _key(report)
        if report.outcome == "interrupted":
            return AttemptInterrupted(*key, **place)  # type: ignore[arg-type]  # an int and a text, in order
        if report.outcome == "done":
            done = StepDone(
                *key,
                report.attempt,
                report.result,
                report.ctx,
                report.tail,
                worker,
                report.duration_ms,
            )
            try:
                return self._storage.lighten(tx, report.execution_id, done, report.selected)
            except BadRequestError as exc:
                error = {"kind": "schema", "message": str(exc), "retryable": False}
                return StepFailed(
                    *key, report.attempt, error, None, report.tail, worker, report.duration_ms
                )
        if report.outcome == "parked":
            return self._parked(tx, report, worker)
        error = report.error or {
            "kind": "unknown",
            "message": "the worker gave no reason",
            "retryable": False,
        }
        if report.retry_in is not None:
            at = self._due(report.retry_in)
            return AttemptFailed(*key, report.attempt, error, at, worker, report.duration_ms)
        failed = StepFailed(
            *key, report.attempt, error, report.ctx, report.tail, worker, report.duration_ms
        )
        return self._failed(tx, report, failed)

    def _failed(self, tx: LogTransaction, report: Report, failed: StepFailed) -> Event:
        try:
            return self._storage.lighten(tx, report.execution_id, failed)
        except BadRequestError:
            # What it set cannot be kept; why it failed matters more.
            return replace(failed, ctx=None)

    def _parked(self, tx: LogTransaction, report: Report, worker: str) -> Event:
        key = _key(report)
        at = None if report.retry_in is None else self._due(report.retry_in)
        parked = StepParked(
            *key,
            attempt=report.attempt,
            progress=report.progress,
            call=report.call,
            resume_at=at,
            tail=report.tail,
            worker=worker,
            duration_ms=report.duration_ms,
        )
        try:
            return self._storage.lighten(tx, report.execution_id, parked)
        except BadRequestError as exc:
            error = {"kind": "schema", "message": str(exc), "retryable": False}
            return StepFailed(*key, report.attempt, error, None, report.tail, worker)

    def _due(self, seconds: float) -> float:
        """The moment *seconds* from now; a wait that makes no sense is none, or the longest."""
        return self._clock() + min(seconds if seconds > 0 else 0.0, LONGEST_WAIT)


def _key(report: Report) -> StepKey:
    return StepKey(report.step, report.visit, report.iteration)
