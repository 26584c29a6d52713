"""The workloads. To add one, add a class here and name it in ``ALL``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

HEAD = "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {name: %s, path: bench/%s}\nworkflow:\n"
TOOL = "tool: {kind: python, code: return 1}"


@dataclass(frozen=True, slots=True)
class Workload:
    """Executions of one playbook. ``executions`` are submitted at once, or one by one where not ``together``.

    ``steps`` is the number of steps of each execution, all of them trivial python steps.
    ``shape`` and ``steps`` are the floor's plan.
    """

    name: ClassVar[str] = ""
    title: ClassVar[str] = ""
    #: ms (one execution), ms/step or steps/s.
    unit: ClassVar[str] = "ms"
    shape: ClassVar[str] = "chain"
    together: ClassVar[bool] = False
    #: Its client asks over HTTP whether it ended, which costs the API; otherwise the log is asked.
    asks_over_http: ClassVar[bool] = False
    #: What the project promises: the most, or for steps/s the least.
    goal: ClassVar[float] = 0.0

    steps: int = 1
    executions: int = 1

    def playbook(self) -> str:
        """A chain of ``steps`` steps."""
        name = self.name.lower()
        lines = [
            f"- {{step: s{number}, {TOOL}, next: {{arcs: [{{step: s{number + 1}}}]}}}}"
            for number in range(self.steps - 1)
        ]
        return HEAD % (name, name) + "\n".join([*lines, f"- {{step: s{self.steps - 1}, {TOOL}}}"])

    @property
    def size(self) -> int:
        """Steps of a whole round."""
        return self.steps * self.executions


@dataclass(frozen=True, slots=True)
class Single(Workload):
    """Latency: one step, one execution after the other, until its client knows that it ended."""

    name: ClassVar[str] = "W1"
    title: ClassVar[str] = "one step, submit to result known"
    asks_over_http: ClassVar[bool] = True
    goal: ClassVar[float] = 8.0


@dataclass(frozen=True, slots=True)
class Chain(Workload):
    """The cost of a hop: steps that each wait for the one before."""

    name: ClassVar[str] = "W2"
    title: ClassVar[str] = "chain of {steps}"
    unit: ClassVar[str] = "ms/step"
    goal: ClassVar[float] = 5.0


@dataclass(frozen=True, slots=True)
class Wide(Workload):
    """Throughput inside one execution: a parallel loop, and one step after all of it."""

    name: ClassVar[str] = "W3"
    title: ClassVar[str] = "loop of {steps} - 1 in parallel, join"
    unit: ClassVar[str] = "steps/s"
    shape: ClassVar[str] = "wide"
    together: ClassVar[bool] = True
    goal: ClassVar[float] = 900.0

    def playbook(self) -> str:
        name, width = self.name.lower(), self.steps - 1
        spec = f"{{mode: parallel, max_in_flight: {width}}}"
        loop = f"{{in: '{{{{ range({width}) }}}}', iterator: i, spec: {spec}}}"
        return HEAD % (name, name) + (
            f"- {{step: each, loop: {loop}, {TOOL}, next: {{arcs: [{{step: join}}]}}}}\n"
            f"- {{step: join, {TOOL}}}"
        )


@dataclass(frozen=True, slots=True)
class Crowd(Workload):
    """Throughput over executions: many chains at once."""

    name: ClassVar[str] = "W4"
    title: ClassVar[str] = "{executions} chains of {steps} at once"
    unit: ClassVar[str] = "steps/s"
    together: ClassVar[bool] = True
    goal: ClassVar[float] = 600.0


@dataclass(frozen=True, slots=True)
class Plan:
    """A workload, how often it is measured, and how often it is run before."""

    workload: Workload
    rounds: int
    warm_up: int = 1


FULL = (
    Plan(Single(executions=100), rounds=5),
    Plan(Chain(steps=20, executions=5), rounds=5),
    Plan(Wide(steps=1_001), rounds=5),
    Plan(Crowd(steps=5, executions=300), rounds=5),
)
QUICK = (
    Plan(Single(executions=50), rounds=2),
    Plan(Chain(steps=20, executions=2), rounds=2),
    Plan(Wide(steps=301), rounds=2),
    Plan(Crowd(steps=5, executions=60), rounds=2),
)
#: Enough to see that everything works; its times say nothing.
TINY = (
    Plan(Single(executions=3), rounds=1, warm_up=0),
    Plan(Chain(steps=3), rounds=1, warm_up=0),
    Plan(Wide(steps=6), rounds=1, warm_up=0),
    Plan(Crowd(steps=2, executions=3), rounds=1, warm_up=0),
)
