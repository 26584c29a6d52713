"""A plan as text for people: every step with where it leads, then what it touches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from app.engine.plans.plan import Branch, Fork, Plan, PlannedArc, PlannedStep
from app.engine.plans.touches import Child, Touches

#: Text longer than this is cut; JSON shows it whole.
WIDEST = 88
#: Names shown of a list; then how many more there are.
MOST = 12


def outline(plan: Plan) -> str:
    """The plan as lines of text."""
    lines = [*_head(plan), ""]
    number = len(str(len(plan.levels)))
    for level, names in enumerate(plan.levels, 1):
        for place, name in enumerate(names):
            shown = str(level) if place == 0 else ""
            lines += _step(plan, plan.steps[name], shown.rjust(number + 1))
    lines += _apart(plan, " " * number + "-")
    for title, told in (("At the same time", _forks(plan)), ("Touches", _touches(plan))):
        found = list(told)
        if found:
            lines += ["", title, *(f"  {line}" for line in found)]
    return "\n".join(line.rstrip() for line in lines)


def _head(plan: Plan) -> Iterator[str]:
    title = plan.path if plan.name == plan.path else f"{plan.name} ({plan.path})"
    yield title
    if plan.desc:
        yield f"  {_cut(plan.desc)}"
    facts = [f"begins at {plan.entry}", _count(len(plan.steps), "step")]
    if plan.final_step:
        facts.append(f"finally {plan.final_step}")
    if plan.queues:
        facts.append(f"{'queue' if len(plan.queues) == 1 else 'queues'} {', '.join(plan.queues)}")
    yield f"  {' · '.join(facts)}"
    if plan.workload:
        yield f"  workload: {_names(plan.workload)}"
    if plan.requires:
        yield f"  requires: {_names(plan.requires)}"
    yield f"  limits: {_limits(plan)}"


def _limits(plan: Plan) -> str:
    limits = plan.limits
    told = [f"{limits['max_visits']} visits of a step", f"{limits['max_attempts']} lost attempts"]
    if limits["timeout"] is not None:
        told.insert(0, f"{limits['timeout']:g} s in all")
    if limits["no_next_is_error"]:
        told.append("a branch that leads nowhere is an error")
    return ", ".join(told)


def _apart(plan: Plan, mark: str) -> Iterator[str]:
    """The steps outside the levels: the final one, and those that nothing leads to."""
    final = plan.steps.get(plan.final_step or "")
    if final is not None and final.level == 0:
        yield from _step(plan, final, mark, "finally, when nothing else runs")
    for name in plan.unreached:
        yield from _step(plan, plan.steps[name], mark, "never runs: no path leads here")


# ---------------------------------------------------------------------- a step
def _step(plan: Plan, step: PlannedStep, number: str, note: str = "") -> Iterator[str]:
    tools = " → ".join(task.kind for task in step.tasks)
    yield f"{number}  {' · '.join(part for part in (step.name, tools, step.queue, note) if part)}"
    inside = " " * (len(number) + 4)
    for line in (*_facts(step), *_arcs(plan, step)):
        yield inside + _cut(line)


def _facts(step: PlannedStep) -> Iterator[str]:
    if step.joins:
        yield f"joins {_names(step.joins)}"
    if step.guard is not None:
        yield f"only when {step.guard}"
    for rule in step.admit:
        yield f"admission: {rule}"
    if step.loop is not None:
        most = "one at a time" if step.loop.window == "1" else f"up to {step.loop.window} at once"
        yield f"for each {step.loop.iterator} in {step.loop.over}, {most} ({step.loop.mode})"
    for task in step.tasks:
        label = f"{task.name}: " if len(step.tasks) > 1 else ""
        for rule in task.policy:
            yield f"{label}{rule}"
    if step.timeout is not None:
        yield f"timeout {step.timeout:g} s"
    sets = dict.fromkeys((*step.sets, *(key for task in step.tasks for key in task.sets)))
    if sets:
        yield f"sets {_names(tuple(sets))}"
    if step.selects:
        yield f"keeps at hand {_names(step.selects)}"
    told = [f"{word} {_names(names)}" for word, names in _named(step.touches)]
    if told:
        yield f"uses {'; '.join(told)}"


def _arcs(plan: Plan, step: PlannedStep) -> Iterator[str]:
    if len(step.arcs) > 1 and step.inclusive:
        yield "then all that hold:"
    for place, arc in enumerate(step.arcs):
        last = place == len(step.arcs) - 1
        sets = f"  sets {_names(arc.sets)}" if arc.sets else ""
        yield f"{'└' if last else '├'}{_head_of(arc)} {arc.step}{_when(step, place, arc)}{sets}"
    if not step.arcs and step.level and step.name != plan.final_step:
        yield "└■"


def _head_of(arc: PlannedArc) -> str:
    return "↺" if arc.back else "■" if arc.ends else "▶"


def _when(step: PlannedStep, place: int, arc: PlannedArc) -> str:
    failure = "  also after a failure" if arc.failure else ""
    if arc.when is not None:
        return f"  when {arc.when}{failure}"
    return "  otherwise" if place and not step.inclusive else ""


# ---------------------------------------------------------------------- the whole
def _forks(plan: Plan) -> Iterator[str]:
    for fork in plan.forks:
        yield f"after {fork.step}: {_side_by_side(fork)}"


def _side_by_side(fork: Fork) -> str:
    shown = [_branch(branch) for branch in fork.branches[:MOST]]
    if len(fork.branches) > MOST:
        shown.append(f"{len(fork.branches) - MOST} more")
    joined = f", joined at {_names(fork.joins)}" if fork.joins else ""
    return f"{' ∥ '.join(shown)}{joined}"


def _branch(branch: Branch) -> str:
    names = list(branch.steps[:3])
    more = branch.count - len(names)
    return " ‣ ".join([*names, f"{more} more"] if more else names)


def _touches(plan: Plan) -> Iterator[str]:
    rows = dict(_named(plan.touches))
    if plan.keychain:
        rows["keychain"] = plan.keychain
    width = max(map(len, rows), default=0)
    for word, names in rows.items():
        users = _users(plan, word)
        for name in names:
            steps = users.get(name, [])
            yield f"{word.ljust(width)}  {name}{f'  in {_names(steps)}' if steps else ''}"
    if any(task.kind in _OPAQUE for step in plan.steps.values() for task in step.tasks):
        yield "what programs and SQL reach by themselves is not known before they run"


#: Kinds that run text which may reach anything.
_OPAQUE = frozenset({"python", "shell", "script", "duckdb", "ducklake", "container", "agent"})


def _users(plan: Plan, word: str) -> dict[str, list[str]]:
    users: dict[str, list[str]] = {}
    for step in plan.steps.values():
        for name in dict(_named(step.touches)).get(word, ()):
            users.setdefault(name, []).append(step.name)
    return users


def _named(found: Touches) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each kind of thing touched, where there is one, with the names."""
    rows = (
        ("credential", found.credentials),
        ("keychain", found.keychain),
        ("host", found.hosts),
        ("file", found.files),
        ("playbook", tuple(_child(child) for child in found.children)),
    )
    yield from ((word, names) for word, names in rows if names)


def _child(child: Child) -> str:
    version = f" version {child.version}" if child.version else ""
    return f"{child.path}{version} ({'waits for it' if child.waits else 'does not wait'})"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _names(names: Sequence[str]) -> str:
    more = len(names) - MOST
    return ", ".join([*names[:MOST], f"{more} more"] if more > 0 else names)


def _cut(text: str) -> str:
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 1]}…"
