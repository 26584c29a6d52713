"""Reads the log of an execution with a mind of its own, and objects to what must never be there."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from app.engine.events import (
    EXECUTION_ENDS,
    NO_LOOP,
    AttemptLate,
    ChildStarted,
    Event,
    ExecutionCompleted,
    ExecutionFailed,
    FrameOpened,
    LoopDone,
    LoopStarted,
    StepCancelled,
    StepDone,
    StepFailed,
    StepKey,
    StepRouted,
    StepScheduled,
    StepSkipped,
)
from app.engine.playbook import Playbook

Visit = tuple[str, int]
#: What begins a visit of a step, or says that there will be none.
Begin = StepScheduled | LoopStarted | ChildStarted | StepSkipped
NO_ARC = "no arc led here"


@dataclass
class LoopAudit:
    """One entry into a loop, counted."""

    window: int
    size: int
    cursor: bool
    by_row: bool = True
    per_frame: int = 0
    claims_out: set[int] = field(default_factory=set)
    #: First index and size of each frame.
    frames: list[tuple[int, int]] = field(default_factory=list)
    out: set[int] = field(default_factory=set)
    done: set[int] = field(default_factory=set)
    failed: int = 0
    #: The last claim gave nothing, and no frame has closed since.
    idle: bool = False


@dataclass
class Audit:
    """What the log has told so far. ``check`` reads all of it."""

    playbook: Playbook
    seq: int = 0
    ended_at: dict[Visit, int] = field(default_factory=dict)
    newest: dict[str, int] = field(default_factory=dict)
    running: set[str] = field(default_factory=set)
    waiting: set[str] = field(default_factory=set)
    unrouted: set[Visit] = field(default_factory=set)
    led: dict[Visit, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    failing: bool = False
    end: Event | None = None
    #: Steps that ran, and those that were asked and did not.
    ran: set[str] = field(default_factory=set)
    declined: set[str] = field(default_factory=set)
    #: The final step began because nothing else could; and it has run.
    closing: bool = False
    final_ran: bool = False
    loops: dict[Visit, LoopAudit] = field(default_factory=dict)

    def check(self, log: list[Event]) -> None:
        for self.seq, event in enumerate(log, 1):
            assert self.end is None or isinstance(event, AttemptLate), "something after the end"
            self.read(event)
        assert self.end is not None
        assert sum(event.type in EXECUTION_ENDS for event in log) == 1
        self.at_the_end(log)

    def read(self, event: Event) -> None:
        if isinstance(event, StepScheduled | LoopStarted | ChildStarted | StepSkipped):
            self.begins(event)
        if isinstance(event, LoopStarted):
            self.enters(event)
        if isinstance(event, StepScheduled | ChildStarted | StepDone | StepFailed | FrameOpened):
            self.in_loop(event)
        if isinstance(event, StepRouted):
            self.routed(event)
        if isinstance(event, StepDone | StepFailed | LoopDone | StepSkipped | StepCancelled):
            self.ends(event)
        if event.type in EXECUTION_ENDS:
            self.end = event
            self.closes(event)

    # ------------------------------------------------------------------ order
    def begins(self, event: Begin) -> None:
        """Each visit is led to by an arc that an ended step took, once."""
        again = isinstance(event, StepScheduled) and event.attempt > 1
        if again or (isinstance(event, ChildStarted) and event.resumes):
            return
        final = self.playbook.executor.final_step
        if not isinstance(event, StepSkipped):
            assert not self.failing or event.step == final, f"{event} after a failure"
        if not isinstance(event, LoopStarted) and event.iteration != NO_LOOP:
            return
        if event.source is None:
            first = event.step == self.playbook.entry and self.seq == 2
            assert first or event.step == final, f"nothing led to {event}"
            assert first or not (self.running or self.unrouted or self.waiting) or self.failing
            self.closing |= not first
        else:
            self.follows(event, (event.source, event.source_visit))
        if not isinstance(event, StepSkipped):
            self.running.add(event.step)
            assert event.visit == self.newest.get(event.step, 0) + 1
            self.newest[event.step] = event.visit
        self.waiting.discard(event.step)

    def follows(self, event: Begin, source: Visit) -> None:
        step = self.playbook.steps[source[0]]
        assert source in self.ended_at, f"{event} before {source} has ended"
        assert event.step in {arc.step for arc in step.arcs}
        self.unrouted.discard(source)
        if isinstance(event, StepSkipped) and event.reason == NO_ARC:
            assert not self.newest.get(event.step)
            assert not self.led[source][event.step]
            return
        self.leads(source, event.step)
        self.joins(event, source)
        previous = (event.step, event.visit - 1)
        if event.visit > 1:
            later = self.ended_at[source] > self.ended_at[previous] or source == previous
            assert later, f"{event} again, led to by what had ended before it"
            assert self.playbook.graph.reaches(event.step, source[0])

    def leads(self, source: Visit, target: str) -> None:
        """An arc leads to one visit; a token that waited led there when it began to wait."""
        led = self.led[source]
        if target not in self.waiting or not led[target]:
            led[target] += 1
        assert led[target] == 1, f"{source} led to {target} twice"
        assert len(led) == 1 or self.playbook.steps[source[0]].inclusive

    def joins(self, event: Begin, source: Visit) -> None:
        """A join begins when no live step can still lead to it in this turn."""
        graph = self.playbook.graph
        if not graph.is_join(event.step):
            return
        live = self.running | self.waiting | {name for name, _ in self.unrouted - {source}}
        early = [name for name in live - {event.step} if graph.leads_to(name, event.step)]
        assert not early, f"{event} although {early} may still lead there"

    def routed(self, event: StepRouted) -> None:
        source = (event.step, event.visit)
        assert source in self.ended_at or event.error is not None or event.taken
        self.unrouted.discard(source)
        self.failing |= not event.handled
        assert set(event.waiting) <= set(event.taken)
        for target in event.waiting:
            self.leads(source, target)
            self.waiting.add(target)

    # ------------------------------------------------------------------ ends
    def ends(self, event: StepDone | StepFailed | LoopDone | StepSkipped | StepCancelled) -> None:
        if event.key.iteration != NO_LOOP:
            return
        if isinstance(event, LoopDone):
            self.loop_ends(event)
        visit = (event.step, event.visit)
        assert visit not in self.ended_at
        if isinstance(event, StepDone | StepFailed | LoopDone):
            self.final_ran |= event.step == self.playbook.executor.final_step
            self.ran.add(event.step)
        elif isinstance(event, StepSkipped) and event.reason != NO_ARC:
            self.declined.add(event.step)
        self.ended_at[visit] = self.seq
        self.newest[event.step] = event.visit
        self.running.discard(event.step)
        self.waiting.discard(event.step)
        if not isinstance(event, StepCancelled) and getattr(event, "walks_on", True):
            self.unrouted.add(visit)

    def closes(self, event: Event) -> None:
        """An execution ends by itself when nothing is out, and after its final step."""
        final = self.playbook.executor.final_step
        if isinstance(event, ExecutionCompleted):
            assert not (self.running | self.waiting)
            assert not self.unrouted
            assert not self.failing
            assert final is None or self.final_ran, "the final step did not run"
        if isinstance(event, ExecutionFailed) and event.error.get("kind") != "timeout":
            assert self.failing
            busy = {name for name in self.running if not self.idles(name)}
            assert not busy, f"failed while {busy} ran"
            assert final is None or self.final_ran, "the final step did not run"

    def idles(self, name: str) -> bool:
        """A loop of which nothing is out."""
        loop = self.loops.get((name, self.newest[name]))
        return loop is not None and not loop.out and not loop.claims_out

    def at_the_end(self, log: list[Event]) -> None:
        """What only the whole log shows of an execution that completed."""
        if not isinstance(self.end, ExecutionCompleted):
            return
        executor = self.playbook.executor
        for event in log:
            if isinstance(event, StepRouted):
                lost = {name for name in event.taken if name in self.playbook.steps}
                lost -= self.ran | self.declined
                assert not lost, f"{event} led to {lost}, which never ran"
        for name in self.ran - {"end", executor.final_step}:
            step = self.playbook.steps[name]
            # Where an arc leads to the end, or to what ran, the log need not say that it was taken.
            leads = {arc.step for arc in step.arcs} & {"end", *self.ran, *self.declined}
            assert leads or step.quiet or not executor.no_next_is_error, f"{name} ends in nothing"

    # ------------------------------------------------------------------ loops
    def in_loop(
        self, event: StepScheduled | ChildStarted | StepDone | StepFailed | FrameOpened
    ) -> None:
        visit = (event.step, event.visit)
        if isinstance(event, FrameOpened):
            self.frame(self.loops[visit], event)
        elif event.iteration != NO_LOOP:
            loop = self.loops[visit]
            if isinstance(event, StepScheduled | ChildStarted):
                if event.attempt == 1 and not (isinstance(event, ChildStarted) and event.resumes):
                    self.goes_out(loop, event.key)
            else:
                self.comes_back(loop, event)

    def enters(self, event: LoopStarted) -> None:
        frame = event.frame or {"by_row": True, "row_concurrency": 0}
        self.loops[event.step, event.visit] = LoopAudit(
            event.window,
            event.size,
            event.frame is not None,
            by_row=frame["by_row"],
            per_frame=frame["row_concurrency"],
        )

    def frame(self, loop: LoopAudit, event: FrameOpened) -> None:
        assert loop.cursor
        size = event.rows if loop.by_row else min(event.rows, 1)
        if size:
            loop.frames.append((loop.size, size))
            loop.size += size
        open_ = [start for start, size in loop.frames if not self.complete(loop, start, size)]
        loop.idle = not event.rows and bool(open_)
        assert len(open_) <= loop.window, "more frames are open than the window lets"

    @staticmethod
    def complete(loop: LoopAudit, start: int, size: int) -> bool:
        return loop.done.issuperset(range(start, start + size))

    def goes_out(self, loop: LoopAudit, key: StepKey) -> None:
        if key.is_claim:
            assert not loop.claims_out, "two claims at once"
            assert not loop.idle, "asks again although nothing has changed"
            loop.claims_out.add(key.iteration)
            return
        assert 0 <= key.iteration < loop.size
        assert key.iteration not in loop.out | loop.done
        loop.out.add(key.iteration)
        if not loop.cursor:
            assert len(loop.out) <= loop.window, "more iterations than the window lets"
            return
        start, size = next(f for f in loop.frames if f[0] <= key.iteration < f[0] + f[1])
        assert len(loop.out & set(range(start, start + size))) <= loop.per_frame

    def comes_back(self, loop: LoopAudit, event: StepDone | StepFailed) -> None:
        if event.key.is_claim:
            loop.claims_out.discard(event.iteration)
            return
        assert event.iteration not in loop.done
        loop.out.discard(event.iteration)
        loop.done.add(event.iteration)
        for start, size in loop.frames:
            if start <= event.iteration < start + size and self.complete(loop, start, size):
                loop.idle = False
        loop.failed += isinstance(event, StepFailed)

    def loop_ends(self, event: LoopDone) -> None:
        loop = self.loops[event.step, event.visit]
        assert not loop.out
        assert not loop.claims_out
        assert event.total == loop.size == len(loop.done)
        assert event.failed == loop.failed
        assert event.success == loop.size - loop.failed
        assert (event.error is not None) >= bool(loop.failed)
