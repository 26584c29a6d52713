"""Starts work: attempts for workers, iterations of loops, claims of cursors, sub-playbooks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.engine.children import Call, Caller, Outcome, Target, call_of, ending
from app.engine.events import (
    NO_LOOP,
    ChildEnded,
    ChildStarted,
    FrameOpened,
    LoopDone,
    LoopStarted,
    StepFailed,
    StepKey,
    StepParked,
    StepRouted,
    StepScheduled,
    claim_iteration,
)
from app.engine.ledger import Ledger
from app.engine.loops import collection, frame_of, window
from app.engine.names import Origin
from app.engine.playbook import Step
from app.engine.references import whole
from app.engine.state import Child, Due, StepState
from app.engine.templates.template import render
from app.errors import TemplateError


class Outgoing(Ledger):
    """The part of a decision that sends work out and takes note of what came back."""

    def begin(self, step: Step, visit: int, source: Origin | None) -> None:
        """Start a visit of *step* that may begin."""
        if step.loop is not None:
            self.enter_loop(step, visit, source)
        elif step.calls_directly:
            self.call(step, StepKey(step.name, visit), source)
        else:
            reads = self.names.reads(step, source)
            self.schedule(step, StepKey(step.name, visit), 1, reads, source=source)

    def refuse(self, key: StepKey, source: Origin | None, error: Mapping[str, Any]) -> None:
        """End work that could not begin."""
        if source is not None:
            self.add(StepRouted(*source, taken=(key.step,)))
        self.add(StepFailed(*key, 0, {"retryable": False, **error}))

    # ------------------------------------------------------------------ attempts
    def schedule(
        self,
        step: Step,
        key: StepKey,
        attempt: int,
        reads: Mapping[str, int],
        *,
        source: Origin | None = None,
        not_before: float | None = None,
    ) -> None:
        task = step.loop.cursor.task if key.is_claim and step.loop and step.loop.cursor else None
        seq, item = self.place(key)
        resume = self.state.resumes.get(key)
        self.add(
            StepScheduled(
                *key,
                attempt=attempt,
                tool=task.kind if task else step.kind,
                queue=f"{step.pool or self.limits.pool}.{task.queue if task else step.queue}",
                reads=reads,
                source=source[0] if source else None,
                source_visit=source[1] if source else 0,
                not_before=not_before,
                loop_seq=seq,
                item=item,
                tries=self.state.tries.get(key, 0),
                parked_seq=resume.parked_seq if resume else None,
                child_seq=resume.child_seq if resume else None,
            )
        )

    def place(self, key: StepKey) -> tuple[int | None, int | None]:
        """Where the item of an iteration is: the event that holds it, and the index there."""
        loop = self.state.step(key.step).loop
        if loop is None or key.iteration == NO_LOOP:
            return None, None
        return (loop.started_seq, None) if key.is_claim else loop.item_of(key.iteration)

    def try_again(self, due: Due) -> None:
        """Schedule the attempt after one that was lost or asked for it, or fail the step at its limit."""
        step = self.step(due.key.step)
        lost = self.state.lost.get(due.key, 0)
        if lost >= self.limits.max_attempts:
            message = f"{due.key} lost its worker {lost} times (setting CALLBOARD_MAX_ATTEMPTS)"
            error = {"kind": "lost", "message": message, "retryable": True}
            self.add(StepFailed(*due.key, due.attempt - 1, error))
            return
        reads = self.names.reads(step, self.state.step(step.name).source)
        self.schedule(step, due.key, due.attempt, reads, not_before=due.not_before)

    # ------------------------------------------------------------------ loops
    def enter_loop(self, step: Step, visit: int, source: Origin | None) -> None:
        assert step.loop is not None
        scope = self.names.before(source)
        try:
            if step.loop.cursor is not None:
                width, frame = frame_of(step.loop, scope, self.limits.loop_window)
                items = None
            else:
                width, frame = window(step.loop, scope, self.limits.loop_window), None
                items = collection(render(step.loop.items, scope))
                self.check_storable(items, "in")
        except (TemplateError, ValueError) as exc:
            message = f"loop of step {step.name!r}: {exc}"
            error = {"kind": "template", "message": message}
            self.refuse(StepKey(step.name, visit), source, error)
            return
        size = 0 if items is None else len(items)
        origin, since = source or (None, 0)
        self.add(LoopStarted(step.name, visit, items, size, width, origin, since, frame))
        self.advance_loop(step)

    def advance_loop(self, step: Step) -> None:
        """Count claimed rows, top up the window, or end the loop once every iteration has ended."""
        if self.state.step(step.name).loop is None:
            return
        self.open_frame(step.name)
        if not self.state.failed or step.name == self.playbook.executor.final_step:
            self.start_iterations(step)
            self.claim(step)
        state = self.state.step(step.name)
        if state.loop is not None and state.loop.is_over:
            self.end_loop(step.name, state)

    def start_iterations(self, step: Step) -> None:
        state = self.state.step(step.name)
        assert state.loop is not None
        reads: Mapping[str, int] | None = None
        for index, _, _ in list(state.loop.startable()):
            key = StepKey(step.name, state.visit, index)
            if step.calls_directly:
                self.call(step, key, state.source)
                continue
            reads = self.names.reads(step, state.source) if reads is None else reads
            self.schedule(step, key, 1, reads)

    def claim(self, step: Step) -> None:
        """Ask the cursor for its next rows, where it may be asked."""
        state = self.state.step(step.name)
        if state.loop is None or not state.loop.may_claim():
            return
        assert state.loop.cursor is not None
        number = claim_iteration(state.loop.cursor.claims)
        key = StepKey(step.name, state.visit, number)
        self.schedule(step, key, 1, self.names.reads(step, state.source))

    def open_frame(self, name: str) -> None:
        """Take note of how many rows the last claim gave."""
        state = self.state.step(name)
        cursor = state.loop.cursor if state.loop else None
        if cursor is None or not cursor.claimed_seq:
            return
        seq = cursor.claimed_seq
        try:
            rows = len(self.values.items(seq))
        except TypeError as exc:
            error = {"kind": "schema", "message": str(exc), "retryable": False}
            self.add(FrameOpened(name, state.visit, seq, 0, error))
            return
        self.add(FrameOpened(name, state.visit, seq, rows))

    def end_loop(self, name: str, state: StepState) -> None:
        loop = state.loop
        assert loop is not None
        error = None
        if loop.first_error is not None:
            first = loop.first_error.get("message", "")
            what = f"{loop.failed} of {loop.size} iterations failed; the first"
            message = f"{what if loop.failed else 'the claim failed'}: {first}"
            error = {**loop.first_error, "message": message}
        success = loop.ended - loop.failed
        self.add(LoopDone(name, state.visit, loop.size, success, loop.failed, error))

    # ------------------------------------------------------------------ sub-playbooks
    def call(self, step: Step, key: StepKey, source: Origin | None) -> None:
        """Start the sub-playbook of a step that is nothing else; no worker is needed for that."""
        try:
            scope = self.names.inside(step, key, source)
            config = dict(render(step.tasks[0].config, scope))
            config["workload"] = {**(config.get("workload") or {}), **render(step.input, scope)}
            self.check_storable(config, "input")
            call = call_of(config)
        except (TemplateError, ValueError) as exc:
            error = {"kind": "schema", "message": f"sub-playbook of step {key}: {exc}"}
            self.refuse(key, self.origin_of(key, source), error)
            return
        target = self.target_of(call)
        if isinstance(target, Target):
            self.start_child(Caller(*key, 1, call.returns, fails=call.fails), call, target, source)
        else:
            self.refuse(key, self.origin_of(key, source), target)

    @staticmethod
    def origin_of(key: StepKey, source: Origin | None) -> Origin | None:
        """An iteration was routed with its loop."""
        return source if key.iteration == NO_LOOP else None

    def target_of(self, call: Call) -> Target | dict[str, Any]:
        """The playbook that *call* names, or the error that keeps it from being started."""
        if self.state.depth >= self.limits.max_depth:
            limit = f"{self.limits.max_depth} levels (setting CALLBOARD_MAX_DEPTH)"
            return {"kind": "limit", "message": f"sub-playbooks nest deeper than {limit}"}
        target = self.values.target(call.name)
        if target is None:
            message = f"no playbook is registered under {call.name}"
            return {"kind": "not_found", "message": message}
        return target

    def start_child(
        self, caller: Caller, call: Call, target: Target, source: Origin | None = None
    ) -> None:
        inside = caller.iteration != NO_LOOP or caller.resumes
        origin = (None, 0) if inside or source is None else source
        timed = call.waits and call.timeout is not None
        self.add(
            ChildStarted(
                *caller.key,
                attempt=caller.attempt,
                child_execution_id=self.values.new_id(),
                catalog_id=target.catalog_id,
                path=target.path,
                version=target.version,
                waits=call.waits,
                resumes=caller.resumes,
                returns=caller.returns,
                fails=caller.fails,
                deadline=self.values.now + (call.timeout or 0.0) if timed else None,
                payload=call.payload,
                source=origin[0],
                source_visit=origin[1],
            )
        )

    def start_parked(self, key: StepKey, seq: int) -> None:
        """Start the sub-playbook that a parked attempt asks for."""
        event = self.values.event(seq)
        assert isinstance(event, StepParked)
        assert event.call is not None
        payload = whole(self.values.resolve(event.call["payload"]))
        call = Call(**{**event.call, "payload": payload})
        target = self.target_of(call)
        if isinstance(target, Target):
            caller = Caller(*key, event.attempt, call.returns, resumes=True, fails=call.fails)
            self.start_child(caller, call, target)
            return
        error = {"retryable": False, **target}
        self.add(ChildEnded(*key, event.attempt, 0, error=error))

    def settle(self, child: Child) -> None:
        """End the waiting of a step that does not wait, or has waited long enough."""
        late = child.deadline is not None and self.values.now >= child.deadline
        if child.waits and not late:
            return
        status = "timeout" if child.waits else "started"
        self.add(ending(child.caller, Outcome(child.execution_id, child.path, status)))
