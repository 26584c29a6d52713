"""Drives the pure engine through a whole execution: no broker, no store, no clock."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.engine.children import Target
from app.engine.decide import Limits, decide
from app.engine.events import (
    AttemptExpired,
    Event,
    ExecutionStarted,
    StepDone,
    StepFailed,
    StepKey,
    StepScheduled,
)
from app.engine.language.parse import parse
from app.engine.playbook import Playbook
from app.engine.state import NEW, Execution, evolve
from app.engine.values import ValueNeeded, Values
from app.errors import Complaint

EXECUTION = 1


@dataclass(frozen=True)
class FakeKind:
    """What the parser asks of a tool."""

    queue: str = "io"
    verbatim: frozenset[str] = frozenset()

    def complaints(self, config: Mapping[str, Any]) -> Sequence[Complaint]:
        """Anything goes."""
        return ()

    def schema(self) -> dict[str, Any]:
        """The same."""
        return {}


KINDS = {"python": FakeKind("cpu", frozenset({"code"})), "noop": FakeKind(), "http": FakeKind()}
KINDS |= {"playbook": FakeKind(), "postgres": FakeKind()}

Outcomes = Callable[[StepScheduled], Any]
Pick = Callable[[int], int]


class Failed(Exception):  # noqa: N818 (an outcome, given back rather than raised)
    """Given back by an outcome function: the attempt fails with this message."""


class Lost(Exception):  # noqa: N818 (an outcome, given back rather than raised)
    """Given back by an outcome function: the worker dies."""


def playbook_of(text: str) -> Playbook:
    """A playbook from its workflow, with the head filled in."""
    head = (
        ""
        if "apiVersion" in text
        else "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {name: t}\n"
    )
    return parse(head + text, KINDS)


@dataclass
class Run:
    """One execution: the log so far, its fold, and the work that is out."""

    playbook: Playbook
    outcomes: Outcomes = lambda scheduled: {}
    payload: dict[str, Any] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    log: list[Event] = field(default_factory=list)
    state: Execution = NEW
    values: Values = field(default_factory=Values)
    out: list[StepScheduled] = field(default_factory=list)
    #: Playbooks that calls find, by path.
    targets: dict[str, Target] = field(default_factory=dict)
    deadline: float | None = None

    def begin(self) -> Run:
        workload = {**self.playbook.workload, **self.payload}
        self.values.new_id = itertools.count(101).__next__
        self.append(ExecutionStarted(1, self.playbook.path, 1, workload, deadline=self.deadline))
        self.decide()
        return self

    def append(self, event: Event) -> None:
        self.log.append(event)
        seq = len(self.log)
        self.values.events[seq] = event
        self.state = evolve(self.state, event, seq)
        if isinstance(event, StepScheduled):
            self.out.append(event)

    def decide(self) -> list[Event]:
        events = self.decision()
        for event in events:
            self.append(event)
        return events

    def decision(self) -> list[Event]:
        while True:
            try:
                return decide(EXECUTION, self.playbook, self.state, self.values, self.limits)
            except ValueNeeded as needed:
                wanted = needed.wanted
                if wanted.call is not None:
                    self.values.targets[wanted.call] = self.targets.get(str(wanted.call.path))
                    continue
                assert wanted.loop is not None
                self.values.loops[wanted.loop] = self._iterations(wanted.loop)

    def _iterations(self, loop: StepKey) -> list[Any]:
        ended = [
            event
            for event in self.log
            if isinstance(event, StepDone | StepFailed)
            and (event.step, event.visit) == (loop.step, loop.visit)
            and event.iteration >= 0
        ]
        ended.sort(key=lambda event: event.iteration)
        return [event.result if isinstance(event, StepDone) else None for event in ended]

    def complete(self, scheduled: StepScheduled) -> None:
        """Append how this attempt ended, without deciding."""
        self.out.remove(scheduled)
        outcome = self.outcomes(scheduled)
        if isinstance(outcome, Failed):
            error = {"kind": "test", "message": str(outcome), "retryable": False}
            self.append(StepFailed(*scheduled.key, scheduled.attempt, error))
        elif isinstance(outcome, Lost):
            self.append(AttemptExpired(*scheduled.key, scheduled.attempt))
        else:
            self.append(StepDone(*scheduled.key, scheduled.attempt, outcome))

    def finish(self, pick: Pick = lambda count: 0, *, most: int = 20_000) -> Run:
        """Complete what is out, one at a time in the order *pick* chooses, to the end."""
        for _ in range(most):
            if not self.state.is_running or not self.out:
                break
            self.complete(self.out[pick(len(self.out))])
            self.decide()
        return self

    # ------------------------------------------------------------------ what tests look at
    def order(self) -> list[str]:
        """The work scheduled, as 'step#visit[iteration]'."""
        return [str(event.key) for event in self.log if isinstance(event, StepScheduled)]

    def of(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.log if isinstance(event, kind)]


def run(text: str, outcomes: Outcomes = lambda scheduled: {}, **kwargs: Any) -> Run:
    """A whole execution of the playbook in *text*."""
    return Run(playbook_of(text), outcomes, **kwargs).begin().finish()
