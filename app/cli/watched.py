"""From the events of a running execution to the rows that people see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

from app.cli.progress import Progress, Row
from app.engine.entry import Entry
from app.engine.events import (
    NO_LOOP,
    AttemptExpired,
    AttemptFailed,
    ChildEnded,
    ChildStarted,
    FrameOpened,
    LoopDone,
    LoopStarted,
    StepCancelled,
    StepDone,
    StepFailed,
    StepParked,
    StepScheduled,
    StepSkipped,
)


class Watched:
    """Feeds *shown* from events, each at a constant cost however wide a loop is."""

    def __init__(self, shown: Progress) -> None:
        self._shown = shown
        self._rows: dict[str, Row] = {}
        self._began: dict[str, datetime] = {}
        #: Cursor loops whose tool runs once per frame, not per row.
        self._by_frame: set[str] = set()
        #: How many units of work ended, iterations counted one by one.
        self.steps = 0

    def see(self, entry: Entry) -> None:
        """Show what *entry* says."""
        event = entry.event
        if isinstance(event, StepDone | StepFailed) and event.tail:
            self._shown.output(event.step, event.tail)
        row = self._after(entry)
        if row is not None:
            self._rows[row.name] = row
            self._shown.update(row)

    def _after(self, entry: Entry) -> Row | None:  # noqa: C901, PLR0911, PLR0912 (one case per event type)
        event = entry.event
        match event:
            case LoopStarted():
                self._begin(event.step, entry.at)
                return self._loop(event)
            case FrameOpened():
                row = self._row(event.step)
                by_frame = event.step in self._by_frame and event.rows > 0
                return replace(row, total=row.total + (1 if by_frame else event.rows))
            case StepScheduled(iteration=-1, attempt=1):
                self._begin(event.step, entry.at)
                return Row(event.step, visit=event.visit)
            case StepScheduled(iteration=-1):
                return replace(self._row(event.step), status="running", error=None, note=None)
            case ChildStarted():
                return self._called(entry, event)
            case ChildEnded(iteration=-1):
                return replace(self._row(event.step), note=None)
            case StepParked(iteration=-1) if event.resume_at is not None:
                until = datetime.fromtimestamp(event.resume_at, UTC)
                note = f"waits until {until:%H:%M:%S} UTC"
                return replace(self._row(event.step), note=note)
            case AttemptFailed(iteration=-1):
                return replace(
                    self._row(event.step), status="retrying", error=_message(event.error)
                )
            case AttemptExpired(iteration=-1):
                return replace(self._row(event.step), status="retrying", error=event.reason)
            case StepDone() | StepFailed() if event.key.is_claim:
                return None
            case StepDone() | StepFailed():
                return self._ended(entry, event)
            case LoopDone():
                status = "failed" if event.failed else "done"
                row = replace(self._row(event.step), status=status, error=_message(event.error))
                return replace(
                    row,
                    total=event.total,
                    ended=event.total,
                    growing=False,
                    seconds=self._took(event.step, entry.at),
                    note=None,
                )
            case StepSkipped(iteration=-1):
                return Row(event.step, "skipped", max(1, event.visit), note=event.reason)
            case StepCancelled(iteration=-1):
                return replace(self._row(event.step), status="cancelled")
            case _:
                return None

    def _loop(self, event: LoopStarted) -> Row:
        frame = event.frame
        if frame is not None and not frame["by_row"]:
            self._by_frame.add(event.step)
        return Row(event.step, visit=event.visit, total=event.size, growing=frame is not None)

    def _called(self, entry: Entry, event: ChildStarted) -> Row:
        """A sub-playbook has begun, for the step itself, inside its tools, or in its loop."""
        row = self._row(event.step)
        if event.iteration == NO_LOOP and not event.resumes:
            self._begin(event.step, entry.at)
            row = Row(event.step, visit=event.visit)
        does = "waits for" if event.waits else "started"
        return replace(row, note=f"{does} execution {event.child_execution_id} ({event.path})")

    def _ended(self, entry: Entry, event: StepDone | StepFailed) -> Row:
        self.steps += 1
        failed = isinstance(event, StepFailed)
        row = self._row(event.step)
        if event.iteration != NO_LOOP:
            return replace(row, ended=row.ended + 1, failed=row.failed + failed)
        error = _message(event.error) if isinstance(event, StepFailed) else None
        status = "failed" if failed else "done"
        took = self._took(event.step, entry.at)
        return replace(row, status=status, error=error, seconds=took, note=None)

    def _row(self, name: str) -> Row:
        return self._rows.get(name) or Row(name)

    def _begin(self, name: str, at: datetime | None) -> None:
        if at is not None:
            self._began[name] = at

    def _took(self, name: str, at: datetime | None) -> float | None:
        began = self._began.get(name)
        return (at - began).total_seconds() if began is not None and at is not None else None


def _message(error: object) -> str | None:
    if isinstance(error, Mapping):
        return " ".join(str(error.get("message", error)).split())
    return None
