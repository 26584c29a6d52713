"""The plan of a playbook: what runs when, where and beside what, known before anything has run.

    explain(playbook, limits) -> Plan

A plan names things and never shows the values of literals: one of them may be a secret.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.engine.decide import Limits
from app.engine.plans import touches
from app.engine.plans.touches import Touches
from app.engine.playbook import Arc, Loop, Playbook, Rule, Step, Task
from app.engine.templates.template import has_template

#: Steps named per parallel branch; ``count`` says how many there are.
NAMED = 50
#: A quoted word of this length in a template is no name that people compare with.
_OPAQUE = re.compile(r"""(['"])[^'"\s]{24,}\1""")


@dataclass(frozen=True, slots=True)
class PlannedTask:
    """One tool call. ``policy`` has a sentence per rule; ``sets`` are names given for later steps."""

    name: str
    kind: str
    policy: tuple[str, ...] = ()
    sets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PlannedArc:
    """Where a step leads. ``back``: to a step that has run in this turn; ``failure``: may catch one."""

    step: str
    when: str | None = None
    sets: tuple[str, ...] = ()
    back: bool = False
    failure: bool = False
    ends: bool = False


@dataclass(frozen=True, slots=True)
class PlannedLoop:
    """``mode`` is sequential, parallel or cursor; ``window`` how many run at once, as written."""

    mode: str
    over: str
    iterator: str
    window: str


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """A step and where it stands. ``level`` counts from 1 along forward arcs; 0: nothing leads here.

    ``queue`` is the Dramatiq queue ``<pool>.<queue>``, None where no worker is needed. ``joins``
    are the steps it waits for where several lead here; ``repeats``: it lies on a cycle.
    """

    name: str
    level: int
    tasks: tuple[PlannedTask, ...]
    queue: str | None
    arcs: tuple[PlannedArc, ...] = ()
    inclusive: bool = False
    joins: tuple[str, ...] = ()
    repeats: bool = False
    loop: PlannedLoop | None = None
    guard: str | None = None
    admit: tuple[str, ...] = ()
    timeout: float | None = None
    sets: tuple[str, ...] = ()
    selects: tuple[str, ...] = ()
    touches: Touches = field(default_factory=Touches)


@dataclass(frozen=True, slots=True)
class Branch:
    """Steps that only this branch of a fork leads to, in order; ``count`` is how many."""

    steps: tuple[str, ...]
    count: int


@dataclass(frozen=True, slots=True)
class Fork:
    """After ``step`` these branches may run at the same time, until ``joins`` wait for several."""

    step: str
    branches: tuple[Branch, ...]
    joins: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """All of it. ``levels`` are names of steps in order; ``unreached`` those no path leads to."""

    name: str
    path: str
    entry: str
    steps: Mapping[str, PlannedStep]
    levels: tuple[tuple[str, ...], ...]
    desc: str = ""
    forks: tuple[Fork, ...] = ()
    cycles: tuple[tuple[str, str], ...] = ()
    unreached: tuple[str, ...] = ()
    final_step: str | None = None
    workload: tuple[str, ...] = ()
    keychain: tuple[str, ...] = ()
    touches: Touches = field(default_factory=Touches)
    queues: tuple[str, ...] = ()
    limits: Mapping[str, Any] = field(default_factory=dict)
    requires: tuple[str, ...] = ()


def explain(playbook: Playbook, limits: Limits | None = None) -> Plan:
    """The plan of *playbook* under *limits*, by default those of an installation as it comes."""
    limits = limits or Limits()
    level = _levels(playbook)
    steps = {
        name: _step(playbook, step, level.get(name, 0), limits)
        for name, step in playbook.steps.items()
    }
    final = playbook.executor.final_step
    reached = touches.of_keychain(playbook)
    for planned in steps.values():
        reached |= planned.touches
    return Plan(
        name=playbook.name,
        path=playbook.path,
        entry=playbook.entry,
        steps=steps,
        levels=_grouped(playbook, level),
        desc=_line(playbook.meta.get("description")),
        forks=tuple(_forks(playbook, level)),
        cycles=tuple(
            (name, arc.step) for name, step in steps.items() for arc in step.arcs if arc.back
        ),
        unreached=tuple(name for name in steps if name not in level and name != final),
        final_step=final,
        workload=tuple(playbook.workload),
        keychain=tuple(_keychain_entry(entry) for entry in playbook.keychain),
        touches=reached,
        queues=tuple(dict.fromkeys(step.queue for step in steps.values() if step.queue)),
        limits=_limits(playbook, limits),
        requires=(*playbook.executor.tools, *playbook.executor.features),
    )


# ---------------------------------------------------------------------- order
def _levels(playbook: Playbook) -> dict[str, int]:
    """The level of each step that a path from the entry leads to: its longest way of forward arcs."""
    graph, entry = playbook.graph, playbook.entry
    reached = [name for name in playbook.steps if name == entry or graph.reaches(entry, name)]
    # Whoever leads further forward comes earlier, so sources are placed before their targets.
    reached.sort(key=lambda name: -graph.forward[graph.index[name]].bit_count())
    level: dict[str, int] = {}
    for name in reached:
        before = [level[source] for source in graph.upstream.get(name, ()) if source in level]
        level[name] = 1 + max(before, default=0)
    return level


def _grouped(playbook: Playbook, level: Mapping[str, int]) -> tuple[tuple[str, ...], ...]:
    groups: list[list[str]] = [[] for _ in range(max(level.values(), default=0))]
    for name in playbook.steps:
        if name in level:
            groups[level[name] - 1].append(name)
    return tuple(tuple(group) for group in groups)


def _forks(playbook: Playbook, level: Mapping[str, int]) -> Iterator[Fork]:
    """Where one step leads to several at once. Bit masks as in ``Graph``: playbooks may be large."""
    graph = playbook.graph
    names = list(graph.index)
    for name, step in playbook.steps.items():
        targets = [t for t in _targets(step, playbook) if name in graph.upstream.get(t, ())]
        if not step.inclusive or len(targets) < 2 or name not in level:
            continue
        below = [1 << graph.index[t] | graph.forward[graph.index[t]] for t in targets]
        once = shared = 0
        for mask in below:
            shared |= once & mask
            once |= mask
        branches = [_branch(mask & ~shared, names, level) for mask in below]
        joins = [
            names[place]
            for place in _bits(shared, NAMED)
            if not any(shared >> graph.index[up] & 1 for up in graph.upstream[names[place]])
        ]
        yield Fork(name, tuple(b for b in branches if b.count), tuple(joins))


def _branch(mask: int, names: Sequence[str], level: Mapping[str, int]) -> Branch:
    named = sorted((names[place] for place in _bits(mask, NAMED)), key=level.__getitem__)
    return Branch(tuple(named), mask.bit_count())


def _bits(mask: int, most: int) -> Iterator[int]:
    """The places of the first *most* bits that are set."""
    for _ in range(min(most, mask.bit_count())):
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest


def _targets(step: Step, playbook: Playbook) -> list[str]:
    return [t for t in dict.fromkeys(arc.step for arc in step.arcs) if t in playbook.steps]


# ---------------------------------------------------------------------- a step
def _step(playbook: Playbook, step: Step, level: int, limits: Limits) -> PlannedStep:
    graph = playbook.graph
    joined = graph.upstream.get(step.name, ()) if graph.is_join(step.name) else ()
    return PlannedStep(
        name=step.name,
        level=level,
        tasks=tuple(_task(task) for task in step.tasks),
        queue=_queue(step, limits),
        arcs=tuple(_arc(playbook, step.name, arc) for arc in step.arcs),
        inclusive=step.inclusive,
        joins=tuple(sorted(joined, key=graph.index.__getitem__)),
        repeats=step.name in graph.in_cycle,
        loop=_loop(step.loop, limits) if step.loop else None,
        guard=None if step.guard is None else _line(step.guard),
        admit=tuple(
            f"{'begins' if rule.allow else 'is passed over'} {_condition(rule.when)}"
            for rule in step.admit
        ),
        timeout=step.timeout,
        sets=tuple(step.set),
        selects=tuple(step.output_select),
        touches=touches.of_step(step),
    )


def _queue(step: Step, limits: Limits) -> str | None:
    # A sub-playbook is started by the orchestrator; nobody holds a slot for it.
    claims = step.loop is not None and step.loop.cursor is not None
    if not claims and all(task.kind == "playbook" for task in step.tasks):
        return None
    return f"{step.pool or limits.pool}.{step.queue}"


def _task(task: Task) -> PlannedTask:
    sets = [*task.set, *(key for rule in task.rules for key in rule.set)]
    return PlannedTask(
        task.name,
        task.kind,
        tuple(_rule(rule) for rule in task.rules),
        tuple(dict.fromkeys(sets)),
    )


def _rule(rule: Rule) -> str:
    action = rule.do or "go on"
    if rule.do == "retry":
        wait = f", {_backoff(rule)}" if rule.delay else ""
        action = f"retry, {rule.attempts} attempts in all{wait}"
    elif rule.do == "jump":
        action = f"jump to {rule.to}"
    return f"{action} {_condition(rule.when)}"


def _backoff(rule: Rule) -> str:
    growth = rule.backoff if rule.backoff in {"linear", "exponential"} else "every"
    most = f" up to {rule.max_delay:g} s" if rule.max_delay is not None else ""
    start = "from " if growth != "every" else ""
    return f"{growth} {start}{rule.delay:g} s{most}{', with jitter' if rule.jitter else ''}"


def _arc(playbook: Playbook, source: str, arc: Arc) -> PlannedArc:
    known = arc.step in playbook.steps
    return PlannedArc(
        step=arc.step,
        when=None if arc.when is None else _line(arc.when),
        sets=tuple(arc.set),
        back=known and source not in playbook.graph.upstream.get(arc.step, ()),
        failure=arc.names_failure,
        ends=not known,
    )


def _loop(loop: Loop, limits: Limits) -> PlannedLoop:
    window = "1" if not loop.parallel else str(limits.loop_window)
    if loop.max_in_flight is not None and (loop.parallel or loop.cursor is not None):
        window = _line(loop.max_in_flight)
    if loop.cursor is not None:
        frame = loop.cursor.frame
        per = "row" if frame.by_row else "frame"
        over = (
            f"what {loop.cursor.task.kind} claims, {_line(frame.max_rows)} rows at once, by {per}"
        )
        return PlannedLoop("cursor", over, loop.iterator, window)
    mode = "parallel" if loop.parallel else "sequential"
    return PlannedLoop(mode, _collection(loop.items), loop.iterator, window)


def _collection(items: Any) -> str:
    """Templates as written; of literals only how many there are."""
    if isinstance(items, str) and has_template(items):
        return _line(items)
    if isinstance(items, Sequence | Mapping) and not isinstance(items, str):
        return f"{len(items)} items"
    return str(items) if isinstance(items, int) else "a literal text"


def _condition(when: Any) -> str:
    return "in any case" if when is None else f"when {_line(when)}"


def _keychain_entry(entry: Mapping[str, Any]) -> str:
    kind = entry.get("kind") or entry.get("type")
    return f"{entry.get('name', '?')} ({kind})" if kind else str(entry.get("name", "?"))


def _limits(playbook: Playbook, limits: Limits) -> dict[str, Any]:
    executor = playbook.executor
    return {
        "timeout": executor.timeout,
        "max_visits": executor.max_visits or limits.max_visits,
        "max_attempts": limits.max_attempts,
        "loop_window": limits.loop_window,
        "no_next_is_error": executor.no_next_is_error,
        "profile": executor.profile,
    }


def _line(value: Any) -> str:
    """*value* as written, on one line; a long quoted word may be a secret and is left out."""
    return "" if value is None else _OPAQUE.sub(r"\1…\1", " ".join(str(value).split()))
