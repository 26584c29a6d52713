"""Looks on while a run goes: folds every event as it is committed, and remembers who did what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from app.engine.entry import Entry
from app.engine.events import EXECUTION_ENDS, ExecutionStarted, StepFailed, StepKey, StepScheduled
from app.engine.ports import Pointer
from app.engine.state import NEW, Execution, evolve
from app.services.audit import Audit

if TYPE_CHECKING:
    from app.simulation.processes import Process


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that must not be. ``execution_id`` and ``seq`` say which event shows it, 0 for none."""

    code: str
    message: str
    execution_id: int = 0
    seq: int = 0

    def __str__(self) -> str:
        place = f" [{self.execution_id}/{self.seq}]" if self.execution_id else ""
        return f"{self.code}: {self.message}{place}"


@dataclass(slots=True)
class Watch:
    """What is known of a run from outside of it."""

    #: The events of an execution as the log has them.
    read: Callable[[int], Sequence[Entry]]
    found: list[Finding] = field(default_factory=list)
    #: Executions that a client was told are accepted, and those that an operator meddled with.
    accepted: set[int] = field(default_factory=set)
    meddled: set[int] = field(default_factory=set)
    open: set[int] = field(default_factory=set)
    #: How often each unit of work was run by a worker.
    runs: Counter[tuple[int, StepKey]] = field(default_factory=Counter)
    #: How often it was scheduled.
    scheduled: Counter[tuple[int, StepKey]] = field(default_factory=Counter)
    events: int = 0
    #: Root executions of which a step lost so many workers that it was given up.
    exhausted: set[int] = field(default_factory=set)
    roots: dict[int, int] = field(default_factory=dict)
    #: The fold after each event, by execution; the first is that before any.
    _audits: dict[int, Audit] = field(default_factory=dict)
    _states: dict[int, list[Execution]] = field(default_factory=dict)

    def find(self, code: str, message: str, execution_id: int = 0, seq: int = 0) -> None:
        self.found.append(Finding(code, message, execution_id, seq))

    def ran(self, pointer: Pointer) -> None:
        """A worker runs this attempt."""
        self.runs[pointer.execution_id, pointer.key] += 1

    # ------------------------------------------------------------------ the log
    def committed(self, entries: Sequence[Entry]) -> None:
        """Take events into account that are in the log now."""
        for entry in entries:
            self.events += 1
            self._note(entry)
            self._audit(entry)
            states = self._states.setdefault(entry.execution_id, [NEW])
            if entry.seq != len(states):
                self.find("seq-gap", f"came after {len(states) - 1}", entry.execution_id, entry.seq)
                continue
            try:
                states.append(evolve(states[-1], entry.event, entry.seq))
            except (AssertionError, LookupError, TypeError, ValueError) as exc:
                self.find("fold", f"{type(exc).__name__}: {exc}", entry.execution_id, entry.seq)
                states.append(states[-1])

    def _note(self, entry: Entry) -> None:
        event, execution_id = entry.event, entry.execution_id
        if isinstance(event, ExecutionStarted):
            self.open.add(execution_id)
            parent = event.parent_execution_id or event.retry_of or execution_id
            self.roots.setdefault(execution_id, self.roots.get(parent, execution_id))
        elif event.type in EXECUTION_ENDS:
            self.open.discard(execution_id)
        elif isinstance(event, StepScheduled):
            self.scheduled[execution_id, event.key] += 1
        elif isinstance(event, StepFailed) and event.error.get("kind") == "lost":
            self.exhausted.add(self.roots.get(execution_id, execution_id))

    def _audit(self, entry: Entry) -> None:
        audit = self._audits.get(entry.execution_id)
        if audit is None:
            audit = self._audits[entry.execution_id] = Audit()
        audit.see(entry)
        for told in audit.found:
            self.find(told.code, told.message, entry.execution_id, told.seq)

    def lost(self, execution_id: int, seq: int) -> None:
        """The events from *seq* on were lost."""
        del self._states[execution_id][seq:]
        audit = self._audits[execution_id] = Audit()
        for entry in self.read(execution_id):
            audit.see(entry)

    def state(self, execution_id: int) -> Execution:
        """The fold of all events of an execution."""
        return self._states.get(execution_id, [NEW])[-1]

    # ------------------------------------------------------------------ the live state
    def compare(self, process: Process, execution_id: int) -> None:
        """What a process remembers equals the fold of the log up to there."""
        known = process.control.advance.known(execution_id)
        if known is None:
            return
        states = self._states.get(execution_id, [NEW])
        if known.version >= len(states):
            said = f"{process.name} knows event {known.version}, which the log lacks"
            self.find("live-state", said, execution_id, known.version)
        elif known != states[known.version]:
            said = f"{process.name} remembers another state than the log says"
            self.find("live-state", said, execution_id, known.version)
