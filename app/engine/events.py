"""What can be written into the log: one frozen dataclass per event type.

Adding a type: a dataclass here with its ``type``, a ``case`` in ``evolve``, a row in the decide table.
How they are stored, and found again, is in ``entry``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

#: ``iteration`` of work that is not inside a loop.
NO_LOOP = -1


def claim_iteration(number: int) -> int:
    """The ``iteration`` of the claim *number* (from 0) of a cursor; its own inverse."""
    return -2 - number


class StepKey(NamedTuple):
    """Identity of a unit of work inside one execution, whatever the number of attempts.

    ``visit`` counts from 1 and grows with each re-entry through a back edge; ``iteration`` is the
    loop index from 0, or -1 outside loops; claims of a cursor count down from -2.
    """

    step: str
    visit: int = 1
    iteration: int = NO_LOOP

    @property
    def is_claim(self) -> bool:
        """It asks a cursor for rows."""
        return self.iteration < NO_LOOP

    def __str__(self) -> str:
        visit = f"#{self.visit}" if self.visit > 1 else ""
        if self.is_claim:
            return f"{self.step}{visit}(claim {claim_iteration(self.iteration)})"
        return f"{self.step}{visit}" + (f"[{self.iteration}]" if self.iteration >= 0 else "")


class OfStep:
    """An event about one unit of work."""

    __slots__ = ()
    step: str
    visit: int
    iteration: int

    @property
    def key(self) -> StepKey:
        return StepKey(self.step, self.visit, self.iteration)


@dataclass(frozen=True, slots=True)
class ExecutionStarted:
    """A playbook was accepted for running; ``workload`` is merged once, here.

    ``deadline`` (unix seconds) is when it fails if it still runs. ``depth`` counts the executions
    above it. ``caller`` is there where a step waits for it: the fields of ``engine.children.Caller``.
    ``retry_of`` is an execution that ended badly and whose work this one takes over: what was done
    there is not done again, but for the steps named in ``redo``.
    """

    type: ClassVar[str] = "execution.started"
    catalog_id: int
    path: str
    version: int
    workload: Mapping[str, Any]
    parent_execution_id: int | None = None
    meta: Mapping[str, Any] | None = None
    depth: int = 0
    deadline: float | None = None
    caller: Mapping[str, Any] | None = None
    retry_of: int | None = None
    redo: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class ExecutionPaused:
    """An operator stopped the clockwork: nothing new is scheduled or claimed; what runs may end."""

    type: ClassVar[str] = "execution.paused"
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class ExecutionResumed:
    """It goes on where it was paused."""

    type: ClassVar[str] = "execution.resumed"


@dataclass(frozen=True, slots=True)
class StepScheduled(OfStep):
    """A unit of work is due. ``reads`` says which event (seq) holds each variable it needs.

    ``source``/``source_visit`` name the completion whose arc led here. ``not_before`` delays the
    attempt (unix seconds). ``loop_seq`` is the event that holds its item: the ``loop.started``, or
    the end of the claim that gave the row; ``item`` is the index there (None: all of it). ``queue``
    is the Dramatiq queue ``<pool>.<queue>`` it is sent to. ``tries`` counts the attempts that its
    own policy asked to repeat. ``parked_seq`` and ``child_seq`` say where a parked attempt goes on.
    """

    type: ClassVar[str] = "step.scheduled"
    step: str
    visit: int
    iteration: int
    attempt: int
    tool: str
    queue: str
    reads: Mapping[str, int]
    source: str | None = None
    source_visit: int = 0
    not_before: float | None = None
    loop_seq: int | None = None
    tries: int = 0
    item: int | None = None
    parked_seq: int | None = None
    child_seq: int | None = None


@dataclass(frozen=True, slots=True)
class StepStarted(OfStep):
    """A worker claimed the attempt."""

    type: ClassVar[str] = "step.started"
    step: str
    visit: int
    iteration: int
    attempt: int
    worker: str


@dataclass(frozen=True, slots=True)
class StepDone(OfStep):
    """The unit of work ended well. ``ctx`` holds what its policy rules set for later steps.

    ``tail`` is the end of what it printed, for people. ``taken_from`` is the execution that did the
    work, where this one is a retry of it.
    """

    type: ClassVar[str] = "step.done"
    step: str
    visit: int
    iteration: int
    attempt: int
    result: Any = None
    ctx: Mapping[str, Any] | None = None
    tail: str | None = None
    worker: str | None = None
    duration_ms: float | None = None
    taken_from: int | None = None


@dataclass(frozen=True, slots=True)
class AttemptFailed(OfStep):
    """This attempt failed and a policy asks for another one after ``retry_in`` seconds."""

    type: ClassVar[str] = "attempt.failed"
    step: str
    visit: int
    iteration: int
    attempt: int
    error: Mapping[str, Any]
    retry_at: float
    worker: str | None = None
    duration_ms: float | None = None


@dataclass(frozen=True, slots=True)
class StepParked(OfStep):
    """The worker let go of a step that waits: for a sub-playbook (``call``), or until ``resume_at``.

    ``progress`` is what the next attempt goes on with. ``call`` has the fields of
    ``engine.children.Call``.
    """

    type: ClassVar[str] = "step.parked"
    step: str
    visit: int
    iteration: int
    attempt: int
    progress: Any = None
    call: Mapping[str, Any] | None = None
    resume_at: float | None = None
    tail: str | None = None
    worker: str | None = None
    duration_ms: float | None = None


@dataclass(frozen=True, slots=True)
class ChildStarted(OfStep):
    """The step started a sub-playbook, in the same transaction that began the child's own log.

    ``waits``: the step ends when the child does, or at ``deadline`` (unix seconds). ``resumes``: a
    parked attempt goes on then; otherwise the child's end is the end of the step. ``payload`` is
    handed to the child and not kept here: the child's own first event holds it.
    """

    type: ClassVar[str] = "child.started"
    step: str
    visit: int
    iteration: int
    attempt: int
    child_execution_id: int
    catalog_id: int
    path: str
    version: int
    waits: bool
    resumes: bool = False
    returns: str | None = None
    fails: bool = False
    deadline: float | None = None
    payload: Mapping[str, Any] | None = None
    source: str | None = None
    source_visit: int = 0


@dataclass(frozen=True, slots=True)
class ChildEnded(OfStep):
    """What a parked attempt waited for is there: ``result`` is what its task gives."""

    type: ClassVar[str] = "child.ended"
    step: str
    visit: int
    iteration: int
    attempt: int
    child_execution_id: int
    result: Any = None
    error: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class AttemptExpired(OfStep):
    """The worker that held the attempt stopped beating; the attempt is fenced off."""

    type: ClassVar[str] = "attempt.expired"
    step: str
    visit: int
    iteration: int
    attempt: int
    worker: str | None = None
    reason: str = "the worker stopped beating"


@dataclass(frozen=True, slots=True)
class AttemptInterrupted(OfStep):
    """The worker gave the attempt back while shutting down; this costs no retry."""

    type: ClassVar[str] = "attempt.interrupted"
    step: str
    visit: int
    iteration: int
    attempt: int
    worker: str | None = None


@dataclass(frozen=True, slots=True)
class AttemptLate(OfStep):
    """A report that came after its attempt was fenced off; kept for the audit only."""

    type: ClassVar[str] = "attempt.late"
    step: str
    visit: int
    iteration: int
    attempt: int
    worker: str | None = None
    outcome: str = "done"


@dataclass(frozen=True, slots=True)
class StepFailed(OfStep):
    """The unit of work ended badly: ``error`` has kind, message, retryable and helpers."""

    type: ClassVar[str] = "step.failed"
    step: str
    visit: int
    iteration: int
    attempt: int
    error: Mapping[str, Any]
    ctx: Mapping[str, Any] | None = None
    tail: str | None = None
    worker: str | None = None
    duration_ms: float | None = None


@dataclass(frozen=True, slots=True)
class StepSkipped(OfStep):
    """The step does not run in this turn. ``source`` is the completion that said so.

    ``walks_on``: its arcs are followed all the same (the older ``when`` of a step).
    """

    type: ClassVar[str] = "step.skipped"
    step: str
    visit: int
    iteration: int = NO_LOOP
    source: str | None = None
    source_visit: int = 0
    reason: str = "no arc led here"
    walks_on: bool = False


@dataclass(frozen=True, slots=True)
class StepCancelled(OfStep):
    """The unit of work will not run or not count: its execution was cancelled."""

    type: ClassVar[str] = "step.cancelled"
    step: str
    visit: int
    iteration: int = NO_LOOP


@dataclass(frozen=True, slots=True)
class StepRouted:
    """The arcs of a completion were evaluated, once, and no scheduled or skipped step says so.

    ``taken`` names the targets, ``waiting`` those of them that now hold a token and wait for other
    branches. ``handled`` False: the step failed and no arc caught it, or (with ``error``) routing
    itself failed; the execution fails once everything that runs has ended.
    """

    type: ClassVar[str] = "step.routed"
    step: str
    visit: int
    taken: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    handled: bool = True
    error: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class CtxUpdated:
    """Durable ``set``: ``values`` override workload and results of the same name from here on."""

    type: ClassVar[str] = "ctx.updated"
    step: str
    visit: int
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class LoopStarted:
    """A loop was entered: its collection, frozen. ``window`` bounds how many run at once.

    ``frame`` is there where a cursor gives the rows, then ``items`` is None and ``size`` 0:
    ``max_rows``, ``row_concurrency`` and ``by_row``, rendered; the window bounds how many frames
    are open.
    """

    type: ClassVar[str] = "loop.started"
    step: str
    visit: int
    items: Any = None
    size: int = 0
    window: int = 1
    source: str | None = None
    source_visit: int = 0
    frame: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class FrameOpened:
    """A claim of a cursor gave ``rows`` rows, which are in the event at ``claim_seq``.

    ``error``: what it gave are no rows, so no other claim follows.
    """

    type: ClassVar[str] = "frame.opened"
    step: str
    visit: int
    claim_seq: int
    rows: int
    error: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class LoopDone:
    """Every iteration ended. The results themselves stay in their ``step.done`` events.

    It ends the loop step as ``step.done`` or ``step.failed`` end a plain one, so it shares U4.
    """

    type: ClassVar[str] = "loop.done"
    step: str
    visit: int
    total: int
    success: int
    failed: int
    error: Mapping[str, Any] | None = None

    @property
    def key(self) -> StepKey:
        return StepKey(self.step, self.visit)


@dataclass(frozen=True, slots=True)
class ExecutionCompleted:
    type: ClassVar[str] = "execution.completed"
    final_step: str | None = None


@dataclass(frozen=True, slots=True)
class ExecutionFailed:
    """``error`` has ``message`` and, where steps failed, ``steps``."""

    type: ClassVar[str] = "execution.failed"
    error: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ExecutionCancelled:
    """``cascade``: the executions below it are cancelled with it."""

    type: ClassVar[str] = "execution.cancelled"
    reason: str | None = None
    cascade: bool = True


Event = (
    ExecutionStarted
    | ExecutionPaused
    | ExecutionResumed
    | StepScheduled
    | StepStarted
    | StepDone
    | AttemptFailed
    | StepParked
    | ChildStarted
    | ChildEnded
    | AttemptExpired
    | AttemptInterrupted
    | AttemptLate
    | StepFailed
    | StepSkipped
    | StepCancelled
    | StepRouted
    | CtxUpdated
    | LoopStarted
    | FrameOpened
    | LoopDone
    | ExecutionCompleted
    | ExecutionFailed
    | ExecutionCancelled
)

TYPES: Mapping[str, type[Event]] = {cls.type: cls for cls in Event.__args__}

#: Types that end an execution (U5), and those that end a step key (U4).
EXECUTION_ENDS = ("execution.completed", "execution.failed", "execution.cancelled")
STEP_ENDS = ("step.done", "step.failed", "step.skipped", "step.cancelled", "loop.done")
