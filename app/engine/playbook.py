"""A playbook as the engine sees it: parsed once, never changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from app.engine.graph import Graph
from app.engine.template import Needs


@dataclass(frozen=True, slots=True)
class Rule:
    """``when`` something holds of an outcome, ``do`` this. ``when`` None always holds (``else``)."""

    when: Any
    do: str = ""
    attempts: int = 3
    delay: float = 0.0
    backoff: str = "none"
    max_delay: float | None = None
    jitter: bool = False
    to: str | None = None
    set: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Task:
    """One tool call. ``config`` is the tool's part of the YAML with its templates unrendered."""

    name: str
    kind: str
    config: Mapping[str, Any]
    queue: str = "io"
    rules: tuple[Rule, ...] = ()
    set: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Arc:
    """An edge of the graph. ``names_failure``: its condition speaks of failure, so it may catch one."""

    step: str
    when: Any = None
    set: Mapping[str, Any] = field(default_factory=dict)
    names_failure: bool = False


@dataclass(frozen=True, slots=True)
class Loop:
    """Runs the step once per item of ``items``. ``max_in_flight`` may be a template or None."""

    items: Any
    iterator: str
    parallel: bool = False
    max_in_flight: Any = None


@dataclass(frozen=True, slots=True)
class Step:
    """A node of the graph; ``tasks`` has one element for a single tool, more for a sequence.

    ``needs`` are the names its tool templates use; ``raw`` is its YAML (JSON data), which a worker
    parses again.
    """

    name: str
    tasks: tuple[Task, ...]
    sequence: bool = False
    arcs: tuple[Arc, ...] = ()
    inclusive: bool = False
    loop: Loop | None = None
    set: Mapping[str, Any] = field(default_factory=dict)
    input: Mapping[str, Any] = field(default_factory=dict)
    timeout: float | None = None
    pool: str | None = None
    needs: Needs = field(default_factory=Needs)
    raw: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """The tool (actor) that runs the step; a sequence goes to the actor of its first task."""
        return self.tasks[0].kind

    @property
    def queue(self) -> str:
        """``cpu`` where any of its tools computes, else ``io``."""
        return "cpu" if any(task.queue == "cpu" for task in self.tasks) else self.tasks[0].queue


@dataclass(frozen=True, slots=True)
class Playbook:
    """All of it. ``path`` is what it is registered and called under."""

    name: str
    path: str
    steps: Mapping[str, Step]
    entry: str
    workload: Mapping[str, Any]
    graph: Graph
    kind: str = "Playbook"
    meta: Mapping[str, Any] = field(default_factory=dict)
