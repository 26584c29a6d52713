"""A playbook as the engine sees it: parsed once, never changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from app.engine.graph import Graph
from app.engine.templates.analysis import Needs


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
class Frame:
    """What a cursor claims at once, and how its rows are worked on; each may be a template.

    ``max_rows`` is what the claim sees as ``__frame_max_rows``. ``row_concurrency`` bounds how many
    rows of one frame run at once. ``by_row``: the body runs once per row, otherwise once per frame.
    ``max_attempts``: how often a body that failed is tried, the first time included.
    """

    max_rows: Any = 100
    row_concurrency: Any = None
    by_row: bool = True
    max_attempts: Any = 1


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a loop gets its rows: ``task`` is run again and again until it gives none."""

    task: Task
    frame: Frame = field(default_factory=Frame)


@dataclass(frozen=True, slots=True)
class Loop:
    """Runs the step once per item of ``items``, or of what ``cursor`` claims.

    ``max_in_flight`` may be a template or None. With a cursor it bounds the open frames.
    ``is_wide``: more than one iteration may be in flight.
    """

    items: Any
    iterator: str
    parallel: bool = False
    max_in_flight: Any = None
    cursor: Cursor | None = None

    @property
    def is_wide(self) -> bool:
        return self.parallel or self.cursor is not None


@dataclass(frozen=True, slots=True)
class AdmitRule:
    """``when`` something holds before a step begins, it may (``allow``) or may not begin."""

    when: Any = None
    allow: bool = True


@dataclass(frozen=True, slots=True)
class Step:
    """A node of the graph; ``tasks`` has one element for a single tool, more for a sequence.

    ``needs`` are the names its tool templates use; ``raw`` is its YAML (JSON data) in today's form,
    which a worker parses again. ``admit`` are rules asked in order before it begins; ``guard`` is
    the older ``when`` of a step: false means the step is passed over and its arcs are followed.
    ``quiet``: where no arc matches, its branch ends without a word. ``output_select`` names parts
    of a large result (name: dotted path) that stay readable without fetching it.
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
    admit: tuple[AdmitRule, ...] = ()
    guard: Any = None
    quiet: bool = False
    output_select: Mapping[str, str] = field(default_factory=dict)
    needs: Needs = field(default_factory=Needs)
    raw: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """The tool (actor) that runs the step; a sequence goes to the actor of its first task."""
        return self.tasks[0].kind

    @property
    def calls_directly(self) -> bool:
        """It starts a sub-playbook and does nothing else: the orchestrator can do that alone."""
        task = self.tasks[0]
        return task.kind == "playbook" and not (self.sequence or task.rules or task.set)

    @property
    def queue(self) -> str:
        """``cpu`` where any of its tools computes, else ``io``."""
        return "cpu" if any(task.queue == "cpu" for task in self.tasks) else self.tasks[0].queue


@dataclass(frozen=True, slots=True)
class Executor:
    """What holds for a whole execution.

    ``final_step`` runs once when nothing else runs or can, also after a failure. With
    ``no_next_is_error`` a branch may end at ``end`` or at the final step only. ``timeout`` is in
    seconds. ``max_visits`` bounds how often one step is entered. ``profile`` is local, distributed
    or auto; ``tools``, ``features`` and ``credentials`` are what the playbook says it requires.
    """

    final_step: str | None = None
    no_next_is_error: bool = False
    timeout: float | None = None
    max_visits: int | None = None
    profile: str = "auto"
    tools: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    credentials: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Playbook:
    """All of it. ``path`` is what it is registered and called under.

    ``keychain`` are its entries as written; templates in them are for the worker alone, and
    ``keychain_needs`` are the names that these use.
    """

    name: str
    path: str
    steps: Mapping[str, Step]
    entry: str
    workload: Mapping[str, Any]
    graph: Graph
    kind: str = "Playbook"
    meta: Mapping[str, Any] = field(default_factory=dict)
    executor: Executor = field(default_factory=Executor)
    keychain: tuple[Mapping[str, Any], ...] = ()
    keychain_needs: Needs = field(default_factory=Needs)

    def is_wide(self, name: str | None) -> bool:
        """Whether the step of that name is a loop with many iterations in flight."""
        step = self.steps.get(name or "")
        return step is not None and step.loop is not None and step.loop.is_wide

    def leads_wide(self, name: str | None) -> bool:
        """Whether the step *name* is such a loop, or an arc of it leads to one, or the end of all
        does; None: the beginning.
        """
        step = None if name is None else self.steps.get(name)
        nexts = [self.entry] if step is None else [step.name, *(arc.step for arc in step.arcs)]
        return any(self.is_wide(target) for target in (*nexts, self.executor.final_step))
