"""Steps and arcs that cannot come to anything."""

from __future__ import annotations

from collections.abc import Iterator

from app.engine.language.lint import places
from app.engine.language.source import Path, Source
from app.engine.playbook import Arc, Playbook, Step
from app.errors import Finding

_TRUE = frozenset({"true", "{{true}}", "{{1}}", "1", "yes"})
_FALSE = frozenset({"false", "{{false}}", "{{0}}", "0", "no"})


def routes(playbook: Playbook, source: Source) -> Iterator[Finding]:
    """Unreachable steps, arcs that are never taken, joins that no token can reach."""
    where = {str(raw.get("step")): path for path, raw in places.steps(source)}
    for step in playbook.steps.values():
        yield from _dead_arcs(step, source, where.get(step.name, ()))
    entered = _entered(playbook)
    for name in playbook.steps:
        if name not in entered and name != playbook.executor.final_step:
            yield _never(playbook, name, source, where.get(name, ()))


def _never(playbook: Playbook, name: str, source: Source, path: Path) -> Finding:
    graph, entry = playbook.graph, playbook.entry
    place: Path = (*path, "step")
    if not graph.reaches(entry, name):
        message = f"no arc leads from {entry!r} to the step {name!r}, so it never runs."
        hint = "Add an arc to it, or remove the step."
        return places.finding(source, place, "unreachable-step", message, hint)
    if graph.is_join(name):
        message = f"the join {name!r} never fires: none of the arcs to it is ever taken."
        return places.finding(source, place, "join-never", message, "See the warnings of its arcs.")
    message = f"the step {name!r} never runs: no arc to it is ever taken."
    return places.finding(
        source, place, "unreachable-step", message, "See the warnings of its arcs."
    )


def _dead_arcs(step: Step, source: Source, path: Path) -> Iterator[Finding]:
    for number, arc in enumerate(step.arcs):
        if _constant(arc) is False:
            message = f"the condition of this arc to {arc.step!r} never holds."
            yield places.finding(
                source, places.arc(source, path, number), "arc-never", message, "Remove the arc."
            )
        elif arc not in takeable(step):
            message = (
                f"step {step.name!r} never takes this arc to {arc.step!r}: "
                "an arc before it always holds, and the mode is exclusive."
            )
            hint = "Put the arc without condition last, or use 'mode: inclusive'."
            yield places.finding(
                source, places.arc(source, path, number), "arc-never", message, hint
            )


def takeable(step: Step) -> list[Arc]:
    """The arcs that may be taken at all, as far as constants tell."""
    taken: list[Arc] = []
    decided = False
    for arc in step.arcs:
        constant = _constant(arc)
        # After a failure only arcs that speak of it count, so nothing before hides them.
        if constant is not False and (not decided or arc.names_failure):
            taken.append(arc)
        decided = decided or (constant is True and not step.inclusive)
    return taken


def _constant(arc: Arc) -> bool | None:
    """Whether its condition always or never holds; None where that depends."""
    if arc.when is None or arc.when is True:
        return True
    text = str(arc.when).replace(" ", "").lower()
    return True if text in _TRUE else False if text in _FALSE else None


def _entered(playbook: Playbook) -> set[str]:
    """The steps that can be entered, along arcs that can be taken."""
    seen, open_ = {playbook.entry}, [playbook.entry]
    while open_:
        step = playbook.steps.get(open_.pop())
        for arc in takeable(step) if step else ():
            if arc.step not in seen:
                seen.add(arc.step)
                open_.append(arc.step)
    return seen & set(playbook.steps)
