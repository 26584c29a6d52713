"""Runs a case by the engine alone: one thread, no log, no broker, no clock, no tool that does a thing.

Steps run through the real ``TaskSequence``, so templates, policy rules and jumps are the real ones;
what their tools give comes from a ``Script``. Children of the case run in the same way.
"""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from app.actors import steps
from app.actors.sequence import Outcome, TaskSequence
from app.engine.children import Caller, CallName, Target, ending
from app.engine.children import Outcome as Child
from app.engine.encoding import loads
from app.engine.events import (
    NO_LOOP,
    AttemptFailed,
    ChildEnded,
    ChildStarted,
    Event,
    ExecutionFailed,
    LoopDone,
    StepDone,
    StepFailed,
    StepParked,
    StepScheduled,
)
from app.engine.iteration import loop_names
from app.engine.language.parse import parse
from app.engine.names import execution_names
from app.engine.playbook import Playbook, Step
from app.engine.ports import CatalogEntry, Pointer
from app.engine.references import Place, whole
from app.engine.templates.scope import Scope
from app.services.large import Storage
from app.services.opening import opening
from app.settings import load
from app.tools import Context
from app.wire import Resume
from app.wiring import ToolKinds
from tests.conformance.case import Case
from tests.conformance.ended import Ended, line_of
from tests.conformance.script import Late, Script
from tests.engine.driver import EXECUTION, Run

SETTINGS = load({}).settings
#: Nothing calls it.
NO_SERVER = "http://server.test"
#: The time at which every case begins.
NOW = 1_767_225_600.0


@dataclass
class Alone(Run):
    """The driver of the pure engine, with steps that are really run."""

    script: Script = field(default_factory=lambda: Script({}))
    #: Playbooks that calls find, every version of them in order.
    library: tuple[Playbook, ...] = ()
    calls: list[ChildStarted] = field(default_factory=list)
    depth: int = 0
    #: As a store of blobs.
    kind: ClassVar[str] = "memory"

    def begin(self) -> Alone:
        self.values.now, self.values.new_id = NOW, itertools.count(101).__next__
        for version, playbook in enumerate(self.library, start=1):
            target = Target(version, playbook.path, version)
            for pinned in (version, None):
                self.values.targets[CallName(playbook.path, None, pinned)] = target
        path, kind, meta = self.playbook.path, self.playbook.kind, self.playbook.meta
        entry = CatalogEntry(1, path, 1, kind, "", meta, datetime.now(UTC))
        started = opening(EXECUTION, entry, self.playbook, self.payload, now=NOW, depth=self.depth)
        self.append(started)
        self.decide()
        return self

    # ------------------------------------------------------------------ the log
    def append(self, event: Event, selected: Any = None) -> None:
        storage = Storage(blobs=self)  # type: ignore[arg-type]  # it only puts blobs
        super().append(storage.lighten(self, EXECUTION, event, selected))  # type: ignore[arg-type]  # it only stores values
        if isinstance(event, ChildStarted) and event.waits:
            self.calls.append(event)
        if isinstance(event, LoopDone):
            self.values.loops[event.key] = self._iterations(event.key)

    def store_value(self, execution_id: int, name: str, value: Any, **_: Any) -> None:
        """As a transaction of the log does."""
        self.values.stored[Place(execution_id, name).ref] = value

    def put(self, key: str, data: bytes) -> None:
        """As a store of blobs does."""
        execution_id, _, name = key.partition("/")
        self.store_value(int(execution_id), name, loads(data))

    def decide(self) -> list[Event]:
        events = super().decide()
        while self.calls:
            self._answer(self.calls.pop(0))
            events += super().decide()
        return events

    def _answer(self, event: ChildStarted) -> None:
        """Run the child to its end, and tell who waits for it."""
        child = Alone(
            self.library[event.version - 1],
            payload=dict(event.payload or {}),
            script=self.script,
            library=self.library,
            depth=self.depth + 1,
        )
        child.begin().finish()
        if child.state.is_running:
            self.values.now = child.values.now
            return
        status, result = child.state.status, child.result(event.returns or None)
        outcome = Child(event.child_execution_id, event.path, status, result, child.error)
        caller = (*event.key, event.attempt, event.returns or "", event.resumes, event.fails)
        self.append(ending(Caller(*caller), outcome))

    # ------------------------------------------------------------------ a step
    def complete(self, scheduled: StepScheduled) -> None:
        self.out.remove(scheduled)
        try:
            outcome = self._run(scheduled)
        except Late as late:
            self.values.now += late.seconds
            return
        self.append(_end(scheduled, outcome), outcome.selected)

    def _run(self, scheduled: StepScheduled) -> Outcome:
        pointer = Pointer(EXECUTION, *scheduled.key, scheduled.attempt)
        step = steps._work_of(self.playbook.steps[scheduled.step], pointer)
        scope, resume = self._scope(step, scheduled), self._resume(scheduled)
        context = Context(*pointer, SETTINGS, timeout=60.0, workspace=Path())
        outcome = TaskSequence(step, scope, context, time.monotonic() + 60, resume).run()
        return steps._tried_again(step, pointer, scope, outcome)

    def _resume(self, scheduled: StepScheduled) -> Resume | None:
        if scheduled.parked_seq is None:
            return None
        parked = self.values.event(scheduled.parked_seq)
        ended = self.values.event(scheduled.child_seq or scheduled.parked_seq)
        assert isinstance(parked, StepParked)
        if not isinstance(ended, ChildEnded):
            return Resume(progress=parked.progress)
        child = {"result": ended.result, "error": ended.error}
        return Resume(progress=parked.progress, child=child)

    def _scope(self, step: Step, scheduled: StepScheduled) -> Scope:
        """Exactly what a worker is told: the values that the step's templates name."""
        reads = scheduled.reads.items()
        ctx = {
            name[4:]: self.values.ctx(seq, name[4:]) for name, seq in reads if name[:4] == "ctx."
        }
        results = {name: self.values.result(seq) for name, seq in reads if name[:4] != "ctx."}
        local = {**execution_names(EXECUTION, self.state), "_tries": scheduled.tries, "now_at": NOW}
        if scheduled.key.is_claim:
            loop = self.values.event(scheduled.loop_seq or 0)
            local["__frame_max_rows"] = (getattr(loop, "frame", None) or {}).get("max_rows")
        elif step.loop and scheduled.loop_seq and scheduled.iteration != NO_LOOP:
            items = self.values.items(scheduled.loop_seq)
            item = items if scheduled.item is None else items[scheduled.item]
            local |= loop_names(step.loop, item, scheduled.iteration, len(items))
        needs, workload = step.needs, self.values.workload()
        named = workload.keys() if needs.everything else needs.names | needs.workload
        return Scope({n: workload[n] for n in workload if n in named}, results, ctx, local)

    # ------------------------------------------------------------------ what it came to
    def result(self, step: str | None) -> Any:
        """The result of *step*, by default of the one that ended last; None where it has none."""
        seqs = {name: one.result_seq for name, one in self.state.steps.items() if one.result_seq}
        seq = seqs.get(step, 0) if step else max(seqs.values(), default=0)
        return whole(self.values.result(seq)) if seq else None

    @property
    def error(self) -> str | None:
        last = self.log[-1]
        return str(last.error["message"]) if isinstance(last, ExecutionFailed) else None

    def variables(self) -> dict[str, Any]:
        ctx = {name: self.values.ctx(seq, name) for name, seq in self.state.ctx.items()}
        return {**self.values.workload(), **ctx}


def _end(scheduled: StepScheduled, outcome: Outcome) -> Event:
    """The event that a report of *outcome* becomes."""
    place = (*scheduled.key, scheduled.attempt)
    if outcome.progress is not None:
        return StepParked(*place, outcome.progress, outcome.call, resume_at=outcome.retry_in)
    if outcome.error is None:
        return StepDone(*place, outcome.result, outcome.ctx or None)
    if outcome.retry_in is not None:
        return AttemptFailed(*place, outcome.error, retry_at=NOW + outcome.retry_in)
    return StepFailed(*place, outcome.error, outcome.ctx or None)


def run(case: Case, script: Script) -> Ended:
    """Run *case* to its end. *script* must stand in for the tools already."""
    playbook = parse(case.playbook, ToolKinds(), name=case.name)
    library = tuple(parse(child, ToolKinds()) for child in case.children)
    done = Alone(playbook, payload=case.given(NO_SERVER), script=script, library=library)
    done.begin().finish()
    assert not script.unused(), f"outcomes that nothing asked for: {script.unused()}"
    lines = tuple(text for event in done.log if (text := line_of(event)))
    return Ended(done.state.status.upper(), done.error, lines, done.variables(), done.result)
