"""Reads a log the way a sceptic does: counts for itself what events say, without the engine's fold."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from app.engine.entry import Entry
from app.engine.events import (
    EXECUTION_ENDS,
    NO_LOOP,
    STEP_ENDS,
    ChildEnded,
    ChildStarted,
    CtxUpdated,
    ExecutionPaused,
    ExecutionResumed,
    ExecutionStarted,
    LoopDone,
    LoopStarted,
    OfStep,
    StepDone,
    StepFailed,
    StepKey,
    StepParked,
    StepScheduled,
    StepSkipped,
    StepStarted,
)

#: What may follow the end of an execution: kept for the record, and changing nothing.
AUDIT_ONLY = frozenset({"attempt.late"})
#: What an operator's pause holds back: everything that begins work, or decides what begins.
_HELD_BACK = frozenset(
    {
        "step.scheduled",
        "step.started",
        "step.skipped",
        "step.routed",
        "child.started",
        "loop.started",
        "frame.opened",
        "ctx.updated",
        "execution.completed",
    }
)
#: Types that say which source led to a step.
_LED = ("step.scheduled", "child.started", "loop.started")
_STATUS = {
    "step.done": "done",
    "step.failed": "failed",
    "step.skipped": "skipped",
    "step.cancelled": "cancelled",
}


@dataclass(frozen=True, slots=True)
class Discrepancy:
    """One thing that is not as it must be. ``seq`` is the event that shows it, 0 for none."""

    code: str
    message: str
    seq: int = 0


@dataclass(slots=True)
class LoopCount:
    """Iterations of one entry into a loop that ended."""

    success: int = 0
    failed: int = 0

    @property
    def ended(self) -> int:
        return self.success + self.failed


@dataclass(slots=True)
class Audit:
    """What the events so far say. Feed it every event in order, then read ``found`` and the counts."""

    seq: int = 0
    started: Entry | None = None
    ended: Entry | None = None
    paused: bool = False
    found: list[Discrepancy] = field(default_factory=list)
    visits: dict[str, int] = field(default_factory=dict)
    #: How the newest visit of a step ended; absent while it runs.
    outcome: dict[str, str] = field(default_factory=dict)
    loops: defaultdict[tuple[str, int], LoopCount] = field(
        default_factory=lambda: defaultdict(LoopCount)
    )
    #: The step whose result an event carries, and the names of ctx that one sets, by seq.
    results: dict[int, str] = field(default_factory=dict)
    ctx: dict[int, frozenset[str]] = field(default_factory=dict)
    _loop_starts: dict[int, tuple[str, int]] = field(default_factory=dict)
    _finished: set[StepKey] = field(default_factory=set)
    _attempts: dict[StepKey, int] = field(default_factory=dict)
    _claimed: set[tuple[StepKey, int]] = field(default_factory=set)

    @property
    def final_step(self) -> str | None:
        """The step whose result is the newest."""
        newest = max(self.results, default=0)
        return self.results.get(newest)

    def see(self, entry: Entry) -> None:
        """Take the next event into account."""
        for code, message in self._complaints(entry):
            self.found.append(Discrepancy(code, message, entry.seq))
        self._count(entry)
        self.seq = entry.seq

    # ------------------------------------------------------------------ what is wrong with it
    def _complaints(self, entry: Entry) -> Iterator[tuple[str, str]]:
        event = entry.event
        if entry.seq != self.seq + 1:
            missing = f"{self.seq + 1} to {entry.seq - 1}"
            yield "seq-gap", f"after event {self.seq} comes {entry.seq}: {missing} missing"
        if (self.seq == 0) != isinstance(event, ExecutionStarted):
            yield (
                "start",
                f"event {entry.seq} is {event.type}; the first is execution.started, alone",
            )
        if self.ended is not None and event.type not in AUDIT_ONLY:
            what = "ends it again" if event.type in EXECUTION_ENDS else "is no audit event"
            code = "second-end" if event.type in EXECUTION_ENDS else "after-end"
            yield code, f"{event.type} comes after the end (event {self.ended.seq}) and {what}"
        if self.paused and event.type in _HELD_BACK:
            yield "while-paused", f"{event.type} comes while the execution is paused"
        if event.type in STEP_ENDS and (key := _key(event)) in self._finished:
            yield "step-ended-twice", f"{key} ends again with {event.type}"
        if isinstance(event, StepScheduled):
            yield from self._complaints_of_schedule(event)
        elif isinstance(event, StepStarted | StepDone) and event.attempt > self._attempts.get(
            event.key, 0
        ):
            yield (
                "not-scheduled",
                f"{event.type} of {event.key}, attempt {event.attempt}, which nobody scheduled",
            )
        if isinstance(event, StepStarted) and (event.key, event.attempt) in self._claimed:
            yield "claimed-twice", f"attempt {event.attempt} of {event.key} is claimed again"
        if isinstance(event, LoopDone):
            yield from self._complaints_of_loop(event)
        if event.type in _LED or isinstance(event, StepSkipped):
            yield from self._complaints_of_source(event)

    def _complaints_of_schedule(self, event: StepScheduled) -> Iterator[tuple[str, str]]:
        if event.attempt <= self._attempts.get(event.key, 0):
            yield "scheduled-twice", f"attempt {event.attempt} of {event.key} is scheduled again"
        for name, seq in event.reads.items():
            if not self._holds(name, seq):
                held = "holds no such value" if 0 < seq <= self.seq else "is not before it"
                yield "reads", f"{event.key} reads {name!r} from event {seq}, which {held}"
        if event.loop_seq is not None and self._loop_starts.get(event.loop_seq) != event.key[:2]:
            yield "reads", f"{event.key} has its item from event {event.loop_seq}, which holds none"

    def _holds(self, name: str, seq: int) -> bool:
        if name.startswith("ctx."):
            return name.removeprefix("ctx.") in self.ctx.get(seq, ())
        if name == "result" and seq == 0:
            return True  # whoever led here was passed over, and gave nothing
        # A bare ``result`` is that of whichever step led here.
        return seq in self.results and (name == "result" or self.results[seq] == name)

    def _complaints_of_loop(self, event: LoopDone) -> Iterator[tuple[str, str]]:
        counted = self.loops[event.step, event.visit]
        said = (event.success, event.failed)
        if event.total != event.success + event.failed:
            yield "loop-count", f"{event.key}: {event.total} is not {said[0]} + {said[1]}"
        if said != (counted.success, counted.failed):
            told = f"{event.key}: loop.done says {said[0]} good and {said[1]} failed"
            yield "loop-count", f"{told}, the log has {counted.success} and {counted.failed}"

    def _complaints_of_source(self, event: Any) -> Iterator[tuple[str, str]]:
        if (
            event.source is not None
            and StepKey(event.source, event.source_visit) not in self._finished
        ):
            yield "source", f"{event.type} of {event.step}: {event.source} has not ended before it"

    # ------------------------------------------------------------------ what it says
    def _count(self, entry: Entry) -> None:
        event, seq = entry.event, entry.seq
        if isinstance(event, ExecutionStarted):
            self.started = self.started or entry
        elif event.type in EXECUTION_ENDS:
            self.ended = self.ended or entry
        elif isinstance(event, ExecutionPaused | ExecutionResumed):
            self.paused = isinstance(event, ExecutionPaused)
        elif isinstance(event, StepScheduled | ChildStarted):
            # A sub-playbook is begun without a message to a worker.
            self._attempts[event.key] = max(event.attempt, self._attempts.get(event.key, 0))
        elif isinstance(event, StepStarted):
            self._claimed.add((event.key, event.attempt))
        elif isinstance(event, CtxUpdated):
            self.ctx[seq] = frozenset(event.values)
        if isinstance(event, LoopStarted):
            self._loop_starts[seq] = (event.step, event.visit)
            self._visit(event.step, event.visit)
        elif event.type in {"step.scheduled", "child.started"} and isinstance(event, OfStep):
            self._visit(event.step, event.visit)
        if event.type in STEP_ENDS:
            self._count_end(event, seq)

    def _count_end(self, event: Any, seq: int) -> None:
        key = _key(event)
        self._finished.add(key)
        if isinstance(event, StepDone | StepFailed) and event.ctx:
            self.ctx[seq] = frozenset(event.ctx)
        if key.iteration > NO_LOOP:
            counted = self.loops[key.step, key.visit]
            counted.failed += isinstance(event, StepFailed)
            counted.success += isinstance(event, StepDone)
        elif key.iteration < NO_LOOP:
            # A claim of a cursor: what it gave are the items of the bodies.
            self._loop_starts[seq] = (key.step, key.visit)
        else:
            self._visit(key.step, key.visit)
            failed = isinstance(event, LoopDone) and (event.failed or event.error)
            self.outcome[key.step] = _STATUS.get(event.type, "failed" if failed else "done")
            if isinstance(event, StepDone | StepFailed | LoopDone):
                self.results[seq] = key.step

    def _visit(self, step: str, visit: int) -> None:
        if visit > self.visits.get(step, 0):
            self.visits[step] = visit
            self.outcome.pop(step, None)


def _key(event: Any) -> StepKey:
    key: StepKey = event.key
    return key


def carried(entry: Entry) -> Iterator[tuple[str, Any]]:
    """The values an event carries that may be kept outside the log, each with what it is."""
    event = entry.event
    if isinstance(event, StepDone | ChildEnded):
        yield f"the result of {event.key}", event.result
    if isinstance(event, StepParked):
        yield f"the progress of {event.key}", event.progress
        yield f"the payload of {event.key}", (event.call or {}).get("payload")
    elif isinstance(event, StepDone | StepFailed):
        for name, value in (event.ctx or {}).items():
            yield f"ctx.{name} of {event.key}", value
    elif isinstance(event, LoopStarted):
        yield f"the items of {event.step}", event.items
    elif isinstance(event, CtxUpdated):
        for name, value in event.values.items():
            yield f"ctx.{name} of {event.step}", value
