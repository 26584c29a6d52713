"""Compares what is shown of an execution with what its log says, and lists what differs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from app.engine.decide import Limits, decide
from app.engine.entry import Entry
from app.engine.events import ChildStarted, LoopDone, StepDone
from app.engine.ports import EventLog, ExecutionSummary
from app.engine.references import FIELDS, REF, is_reference
from app.engine.state import NEW, Execution
from app.engine.values import Values
from app.errors import CallboardError
from app.services.audit import Audit, Discrepancy, carried
from app.services.catalog import CatalogService
from app.services.executions import Executions, StatusView
from app.services.large import size_of
from app.services.reading import Reader
from app.services.replaying import BrokenFoldError, entries, evolved

#: What the summary says of each end.
SHOWN = {
    "execution.completed": "COMPLETED",
    "execution.failed": "FAILED",
    "execution.cancelled": "CANCELLED",
}


@dataclass(frozen=True, slots=True)
class Verified:
    """How a look at everything shown of an execution ended; ``events`` is how many were read."""

    execution_id: int
    path: str
    version: int
    status: str
    events: int
    findings: Sequence[Discrepancy]


@dataclass(frozen=True, slots=True)
class Sources:
    """What is compared with each other."""

    log: EventLog
    catalog: CatalogService
    executions: Executions
    reader: Reader


class Verification:
    """One look at one execution."""

    def __init__(self, execution_id: int, sources: Sources) -> None:
        self.execution_id = execution_id
        self.log = sources.log
        self.catalog = sources.catalog
        self.executions = sources.executions
        self.reader = sources.reader
        self.audit = Audit()
        self.state: Execution | None = NEW
        #: The fold as far as the status endpoint had come when it was asked.
        self.seen: Execution | None = None

    def find(self, code: str, message: str, seq: int = 0) -> None:
        self.audit.found.append(Discrepancy(code, message, seq))

    def run(self) -> Verified:
        # The status is asked first: the log only grows, so it can be compared at its version.
        view = self._status()
        counted = self._follow(view.state.version if view else None)
        summary = self.log.summary(self.execution_id)
        if summary is not None and summary.status != "RUNNING" and self.audit.ended is None:
            # It ended while it was read; its end was committed with the summary.
            counted = self._follow(view.state.version if view else None) or counted
        self._compare_summary(summary)
        if view is not None:
            self._compare_status(view, counted)
            if not view.state.is_running:
                self._compare_result(view)
        self._decides_nothing()
        event = self.audit.started.event if self.audit.started else None
        path = summary.path if summary else getattr(event, "path", "")
        version = summary.version if summary else getattr(event, "version", 0)
        status = summary.status if summary else "UNKNOWN"
        found = self.audit.found
        return Verified(self.execution_id, path, version, status, self.audit.seq, found)

    # ------------------------------------------------------------------ the log
    def _follow(self, version: int | None) -> Counted | None:
        """Read what was not read yet; what was counted up to event *version*."""
        counted = None
        try:
            for entry in entries(self.log, self.execution_id, after=self.audit.seq):
                self.audit.see(entry)
                self._fold(entry)
                self._read_through(entry)
                self._look_for_child(entry)
                if entry.seq == version:
                    self.seen, counted = self.state, Counted.of(self.audit)
        except CallboardError as exc:
            self.find("unreadable", f"the log cannot be read: {exc.message}", self.audit.seq + 1)
        return counted

    def _fold(self, entry: Entry) -> None:
        if self.state is None:
            return
        try:
            self.state = evolved(self.state, entry)
        except BrokenFoldError as exc:
            self.find("fold", exc.message, entry.seq)
            self.state = None

    def _read_through(self, entry: Entry) -> None:
        """Every value kept outside the log is there, and as large as it was."""
        for what, value in carried(entry):
            if not is_reference(value):
                continue
            try:
                stored = self.reader.resolved(self.execution_id, value)
            except CallboardError as exc:
                self.find("value-missing", f"{what}: {exc.message}", entry.seq)
                continue
            if isinstance(stored, dict):
                stored = {key: item for key, item in stored.items() if key not in FIELDS}
            if (size := size_of(stored)) != value["_size_bytes"]:
                told = f"{what} ({value[REF]['name']}) has {size} bytes"
                said = f"the event says {value['_size_bytes']}"
                self.find("value-changed", f"{told}, {said}", entry.seq)

    def _look_for_child(self, entry: Entry) -> None:
        """A sub-playbook that was started has a log of its own, which names this one."""
        event = entry.event
        if not isinstance(event, ChildStarted):
            return
        child = self.log.summary(event.child_execution_id)
        if child is None:
            told = f"{event.key} started execution {event.child_execution_id}"
            self.find("child", f"{told}, which does not exist", entry.seq)
        elif child.parent_execution_id != self.execution_id or child.path != event.path:
            told = f"{event.key} started {event.path} as {child.execution_id}"
            said = f"that is {child.path} of {child.parent_execution_id}"
            self.find("child", f"{told}, and {said}", entry.seq)

    # ------------------------------------------------------------------ what is shown
    def _status(self) -> StatusView | None:
        try:
            return self.executions.status(self.execution_id)
        except (CallboardError, AssertionError, LookupError, TypeError, ValueError) as exc:
            self.find("status", f"its status cannot be shown: {exc}")
            return None

    def _compare_summary(self, summary: ExecutionSummary | None) -> None:
        if summary is None:
            self.find("summary", "the log has events, and the list of executions has no row")
            return
        for name, shown, said in self._summary_pairs(summary):
            if shown != said:
                self.find("summary", f"the list shows {name} {shown!r}, the log says {said!r}")

    def _summary_pairs(self, summary: ExecutionSummary) -> Iterator[tuple[str, Any, Any]]:
        started, ended = self.audit.started, self.audit.ended
        if started is not None:
            for name in ("catalog_id", "path", "version", "parent_execution_id"):
                yield name, getattr(summary, name), getattr(started.event, name)
            yield "started_at", summary.started_at, started.at
        # Without an end in the log, an end that came after the reading is no contradiction.
        yield "status", summary.status, SHOWN[ended.event.type] if ended else "RUNNING"
        if ended is not None:
            yield "ended_at", summary.ended_at, ended.at
            yield "error", summary.error, _message(getattr(ended.event, "error", None))

    def _compare_status(self, view: StatusView, counted: Counted | None) -> None:
        state, seen = view.state, self.seen
        if seen is None or counted is None:
            if self.state is not None:
                self.find("fold", f"the status is at event {state.version}, which the log lacks")
            return
        if seen != state:
            names = [
                f.name for f in fields(state) if getattr(seen, f.name) != getattr(state, f.name)
            ]
            what = ", ".join(names)
            self.find("fold", f"folding it from the start gives another state: {what} differ")
        for step in view.steps:
            expected = _expected(step.name, seen, counted)
            shown = (step.status, step.visit, step.total, step.ended, step.failed)
            for what, is_, should in zip(_ROW, shown, expected, strict=True):
                if should is not None and is_ != should:
                    told = f"step {step.name!r} is shown with {what} {is_!r}"
                    self.find("status", f"{told}, the log says {should!r}")
        if view.final_step != counted.final_step:
            told = f"the final step is shown as {view.final_step!r}"
            self.find("status", f"{told}, the log says {counted.final_step!r}")

    def _compare_result(self, view: StatusView) -> None:
        """The result shown is what the event carries, read through its reference."""
        name = view.final_step
        if name is None:
            return
        seq = view.state.step(name).result_seq
        try:
            shown = self.executions.result(self.execution_id, name)
            entry = self.log.read(self.execution_id, after=seq - 1, limit=1)[0]
            own = self._own_result(entry, shown)
        except (CallboardError, LookupError, TypeError) as exc:
            self.find("result", f"the result of {name!r} cannot be read: {exc}", seq)
            return
        if shown != own:
            self.find("result", f"the result shown of {name!r} is not that of its event", seq)

    def _own_result(self, entry: Entry, shown: Any) -> Any:
        """What the result of *entry* must be; a loop's is only counted here."""
        event = entry.event
        if isinstance(event, StepDone):
            return self.reader.resolved(self.execution_id, event.result)
        if isinstance(event, LoopDone):
            return shown if len(shown["results"]) == event.success + event.failed else None
        return {"status": "error", "error": dict(getattr(event, "error", None) or {})}

    def _decides_nothing(self) -> None:
        state = self.state
        if state is None or state.is_running or not state.version:
            return
        try:
            playbook = self.catalog.playbook(state.catalog_id)
        except CallboardError as exc:
            self.find("playbook", f"its playbook cannot be read: {exc.message}")
            return
        more = decide(self.execution_id, playbook, state, Values(), Limits())
        if more:
            told = ", ".join(event.type for event in more)
            self.find("decides-on", f"it has ended, and yet would go on: {told}")


#: What is compared of a step's row.
_ROW = ("status", "visit", "total", "ended", "failed")


@dataclass(frozen=True, slots=True)
class Counted:
    """The counts of an audit at one event."""

    visits: Mapping[str, int]
    outcome: Mapping[str, str]
    loops: Mapping[tuple[str, int], tuple[int, int]]
    final_step: str | None

    @classmethod
    def of(cls, audit: Audit) -> Counted:
        loops = {key: (count.ended, count.failed) for key, count in audit.loops.items()}
        return cls(dict(audit.visits), dict(audit.outcome), loops, audit.final_step)


def _expected(name: str, seen: Execution, counted: Counted) -> tuple[str, int, int, int, int]:
    """The row of the step as the counts have it."""
    state = seen.steps.get(name)
    visit = counted.visits.get(name, 0)
    if not visit:
        # It was never reached: only the fold knows whether something waits for it.
        return ("pending" if state is None else state.status), 0, 0, 0, 0
    status = counted.outcome.get(name, "running")
    if state is None or state.loop is None:
        return status, visit, 0, 0, 0
    ended, failed = counted.loops.get((name, visit), (0, 0))
    return status, visit, state.loop.size, ended, failed


def _message(error: Any) -> str | None:
    if not error:
        return None
    return str(error.get("message", error)) if isinstance(error, Mapping) else str(error)
