"""The workloads. To add one, add a class here and name it in ``ALL``."""

from __future__ import annotations

from dataclasses import dataclass, replace
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
    #: ms (one execution), ms/step, or a rate: steps/s, children/s, iterations/s.
    unit: ClassVar[str] = "ms"
    shape: ClassVar[str] = "chain"
    together: ClassVar[bool] = False
    #: Its client asks over HTTP whether it ended, which costs the API; otherwise the log is asked.
    asks_over_http: ClassVar[bool] = False
    #: What the project promises: the most, or for a rate the least.
    goal: ClassVar[float] = 0.0
    #: The goal is for the ratio to the floor, not for the figure itself.
    is_goal_a_ratio: ClassVar[bool] = False
    #: Seconds until a round counts as failed.
    patience: ClassVar[float] = 120.0

    steps: int = 1
    executions: int = 1

    @property
    def heading(self) -> str:
        """The title with its numbers."""
        return self.title.format(steps=self.steps, executions=self.executions)

    @property
    def path(self) -> str:
        """Catalog path of the playbook that is executed."""
        return f"bench/{self.name.lower()}"

    @property
    def playbooks(self) -> tuple[str, ...]:
        """All that must be registered."""
        return (self.playbook(),)

    @property
    def timed_from(self) -> str | None:
        """The step whose end begins the time, by the log; None for the whole execution."""
        return None

    def baseline(self) -> Workload | None:
        """What the engine itself runs in the floor's place; None where the floor is the bare hops."""
        return None

    def playbook(self) -> str:
        """A chain of ``steps`` steps."""
        name = self.path.removeprefix("bench/")
        lines = [
            f"- {{step: s{number}, {TOOL}, next: {{arcs: [{{step: s{number + 1}}}]}}}}"
            for number in range(self.steps - 1)
        ]
        return HEAD % (name, name) + "\n".join([*lines, f"- {{step: s{self.steps - 1}, {TOOL}}}"])

    @property
    def size(self) -> int:
        """Steps of a whole round."""
        return self.steps * self.executions

    @property
    def ran(self) -> int:
        """Steps that a whole round ran, timed or not: what it used is divided by them."""
        return self.size

    @property
    def is_rate(self) -> bool:
        """More is better."""
        return self.unit.endswith("/s")


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
    asks_over_http: ClassVar[bool] = True
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
        return HEAD % (name, name) + (
            f"- {{step: each, {_loop(width)}, {TOOL}, next: {{arcs: [{{step: join}}]}}}}\n"
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
class Parent(Workload):
    """Sub-playbooks: one loop that starts ``steps`` children and waits for each of them."""

    name: ClassVar[str] = "W5"
    title: ClassVar[str] = "{steps} sub-playbooks waited for"
    unit: ClassVar[str] = "children/s"
    shape: ClassVar[str] = "children"
    together: ClassVar[bool] = True
    goal: ClassVar[float] = 150.0

    @property
    def playbooks(self) -> tuple[str, ...]:
        return (HEAD % ("child", "child") + f"- {{step: s0, {TOOL}}}", self.playbook())

    def playbook(self) -> str:
        tool = "tool: {kind: playbook, path: bench/child, return_result: true, on_failure: fail}"
        return HEAD % ("w5", "w5") + f"- {{step: each, {_loop(self.steps)}, {tool}}}"


@dataclass(frozen=True, slots=True)
class Loop(Workload):
    """A wide loop, and nothing after it: what 10,000 iterations cost in time and memory."""

    name: ClassVar[str] = "W6"
    title: ClassVar[str] = "loop of {steps} in parallel"
    unit: ClassVar[str] = "iterations/s"
    shape: ClassVar[str] = "loop"
    together: ClassVar[bool] = True
    goal: ClassVar[float] = 1_500.0
    patience: ClassVar[float] = 600.0

    def playbook(self) -> str:
        return HEAD % ("w6", "w6") + f"- {{step: each, {_loop(self.steps)}, {TOOL}}}"


@dataclass(frozen=True, slots=True)
class Growing(Workload):
    """A chain in which each step leaves ``step_bytes`` in the context; nothing reads them later.

    Its baseline is the same chain that leaves empty texts.
    """

    name: ClassVar[str] = "W7"
    title: ClassVar[str] = "chain of {steps} that adds 250 kB a step"
    unit: ClassVar[str] = "ms/step"
    goal: ClassVar[float] = 1.5
    is_goal_a_ratio: ClassVar[bool] = True

    step_bytes: int = 250_000

    @property
    def path(self) -> str:
        return f"bench/{self.name.lower()}-{self.step_bytes}"

    def baseline(self) -> Workload | None:
        return replace(self, step_bytes=0)

    def playbook(self) -> str:
        name = self.path.removeprefix("bench/")
        return HEAD % (name, name) + "\n".join(self._growing(None))

    def _growing(self, then: str | None) -> list[str]:
        """The steps that fill the context. Random digits: a database would compress others."""
        code = f"import os\\nreturn {{'text': os.urandom({self.step_bytes // 2}).hex()}}"
        tool = f'tool: {{kind: python, code: "{code}"}}'
        names = [f"g{number}" for number in range(self.steps)]
        return [
            f"- {{step: {name}, {tool}, set: {{ctx.v_{name}: '{{{{ {name}.text }}}}'}}"
            + (f", next: {{arcs: [{{step: {following}}}]}}}}" if following else "}")
            for name, following in zip(names, [*names[1:], then], strict=True)
        ]


@dataclass(frozen=True, slots=True)
class Grown(Growing):
    """Steps that add nothing, behind as many that filled the context; only they are timed."""

    name: ClassVar[str] = "W7b"
    title: ClassVar[str] = "{steps} steps that add nothing, after those"

    @property
    def ran(self) -> int:
        return 2 * self.size

    @property
    def timed_from(self) -> str | None:
        return f"g{self.steps - 1}"

    def playbook(self) -> str:
        chain = super(Growing, self).playbook()
        head, tail = chain.split("workflow:\n")
        return f"{head}workflow:\n" + "\n".join([*self._growing("s0"), tail])


def _loop(width: int) -> str:
    spec = f"{{mode: parallel, max_in_flight: {width}}}"
    return f"loop: {{in: '{{{{ range({width}) }}}}', iterator: i, spec: {spec}}}"


@dataclass(frozen=True, slots=True)
class Plan:
    """A workload, how often it is measured, and how often it is run before, with memory watched."""

    workload: Workload
    rounds: int
    warm_up: int = 1


FULL = (
    Plan(Single(executions=100), rounds=5),
    Plan(Chain(steps=20, executions=5), rounds=5),
    Plan(Wide(steps=1_001), rounds=5),
    Plan(Crowd(steps=5, executions=300), rounds=5),
    Plan(Parent(steps=200), rounds=5),
    Plan(Loop(steps=10_000), rounds=2),
    Plan(Growing(steps=20, executions=2), rounds=3),
    Plan(Grown(steps=20, executions=2), rounds=3),
)
QUICK = (
    Plan(Single(executions=50), rounds=2),
    Plan(Chain(steps=20, executions=2), rounds=2),
    Plan(Wide(steps=301), rounds=2),
    Plan(Crowd(steps=5, executions=60), rounds=2),
    Plan(Parent(steps=60), rounds=2),
    Plan(Loop(steps=1_000), rounds=2),
    Plan(Growing(steps=20), rounds=2),
    Plan(Grown(steps=20), rounds=2),
)
#: Enough to see that everything works; its times say nothing.
TINY = (
    Plan(Single(executions=3), rounds=1),
    Plan(Chain(steps=3), rounds=1),
    Plan(Wide(steps=6), rounds=1),
    Plan(Crowd(steps=2, executions=3), rounds=1),
    Plan(Parent(steps=3), rounds=1),
    Plan(Loop(steps=8), rounds=1),
    Plan(Growing(steps=2), rounds=1),
    Plan(Grown(steps=2), rounds=1),
)
