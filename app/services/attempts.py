"""The attempts of a unit of work, told from the log: who had it, since when, how it ended."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from app.engine.entry import Entry
from app.engine.events import (
    NO_LOOP,
    AttemptExpired,
    AttemptFailed,
    AttemptInterrupted,
    AttemptLate,
    ChildEnded,
    ChildStarted,
    StepCancelled,
    StepDone,
    StepFailed,
    StepKey,
    StepParked,
    StepScheduled,
    StepStarted,
)

#: The types of events that attempts are told from.
TYPES = (
    "step.scheduled",
    "step.started",
    "step.done",
    "step.failed",
    "step.parked",
    "step.cancelled",
    "attempt.failed",
    "attempt.expired",
    "attempt.interrupted",
    "attempt.late",
    "child.started",
    "child.ended",
)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt. ``outcome`` is scheduled, running, or how it ended: done, failed, retry,
    expired, interrupted, parked, child, cancelled.

    ``due`` is when it may be claimed. ``resumes`` is when the next one is due; ``child`` the
    sub-playbook that it waits for. ``late``: its worker reported after it had lost the attempt.
    """

    number: int
    outcome: str = "scheduled"
    queue: str = ""
    due: datetime | None = None
    worker: str | None = None
    started: datetime | None = None
    ended: datetime | None = None
    duration_ms: float | None = None
    error: Mapping[str, Any] | None = None
    resumes: datetime | None = None
    child: int | None = None
    tail: str | None = None
    late: bool = False


@dataclass(frozen=True, slots=True)
class History:
    """The attempts of one unit of work, in their order."""

    key: StepKey
    attempts: tuple[Attempt, ...] = ()

    @property
    def last(self) -> Attempt | None:
        return self.attempts[-1] if self.attempts else None

    @property
    def is_over(self) -> bool:
        return self.last is not None and self.last.outcome in {"done", "failed", "cancelled"}

    def put(self, attempt: Attempt) -> History:
        """With *attempt* in place of the one of its number, or behind the others."""
        kept = tuple(one for one in self.attempts if one.number != attempt.number)
        return replace(self, attempts=(*kept, attempt))

    def numbered(self, number: int) -> Attempt:
        found = (one for one in self.attempts if one.number == number)
        return next(found, Attempt(number))


@dataclass(slots=True)
class Histories:
    """Told from events in order. Of iterations that ended well nothing is kept: there are many."""

    _entries: dict[StepKey, list[Entry]] = field(default_factory=dict)

    def see(self, entry: Entry) -> None:
        """Take the next event into account."""
        event = entry.event
        key = getattr(event, "key", None)
        if not isinstance(key, StepKey):
            return
        if isinstance(event, StepDone) and key.iteration != NO_LOOP:
            self._entries.pop(key, None)
        elif isinstance(event, StepScheduled | ChildStarted):
            self._entries.setdefault(key, []).append(entry)
        elif key in self._entries:  # else it is a late report of one that ended well
            self._entries[key].append(entry)

    def of(self, step: str, visit: int) -> list[History]:
        """Those of one visit, by iteration."""
        keys = sorted(key for key in self._entries if key[:2] == (step, visit))
        return [_history(key, self._entries[key]) for key in keys]


def _history(key: StepKey, entries: Iterable[Entry]) -> History:
    history = History(key)
    for entry in entries:
        event, at = entry.event, entry.at or datetime.fromtimestamp(0, UTC)
        number = getattr(event, "attempt", None)
        if number is None:  # a cancelled step: whatever attempt was the last
            number = history.last.number if history.last else 0
        attempt = _after(history.numbered(number), event, at)
        if attempt is not None:
            history = history.put(attempt)
    return history


def _after(attempt: Attempt, event: Any, at: datetime) -> Attempt | None:
    """*attempt* after *event*; None where the event says nothing of it."""
    match event:
        case StepScheduled():
            due = max(at, _moment(event.not_before) or at)
            return replace(attempt, queue=event.queue, due=due)
        case StepStarted():
            return replace(attempt, outcome="running", worker=event.worker, started=at)
        case ChildStarted():
            if not event.waits:
                return None
            started = attempt.started or at
            return replace(
                attempt, outcome="child", child=event.child_execution_id, started=started
            )
        case AttemptLate():
            return replace(attempt, late=True)
        case _:
            return _ended(attempt, event, at)


def _ended(attempt: Attempt, event: Any, at: datetime) -> Attempt | None:  # noqa: PLR0911 (one case per event type)
    worker = getattr(event, "worker", None) or attempt.worker
    took = getattr(event, "duration_ms", None)
    attempt = replace(attempt, worker=worker, ended=at, duration_ms=took)
    match event:
        case StepDone():
            return replace(attempt, outcome="done", tail=event.tail)
        case StepFailed():
            return replace(attempt, outcome="failed", error=event.error, tail=event.tail)
        case AttemptFailed():
            resumes = _moment(event.retry_at)
            return replace(attempt, outcome="retry", error=event.error, resumes=resumes)
        case AttemptExpired():
            return replace(attempt, outcome="expired", error={"message": event.reason})
        case AttemptInterrupted():
            return replace(attempt, outcome="interrupted")
        case StepParked():
            resumes = _moment(event.resume_at)
            return replace(attempt, outcome="parked", resumes=resumes, tail=event.tail)
        case ChildEnded():
            return replace(attempt, child=event.child_execution_id)
        case StepCancelled():
            return replace(attempt, outcome="cancelled")
        case _:
            return None


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
