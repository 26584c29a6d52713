"""Numbers and names that contradict each other."""

from __future__ import annotations

from collections.abc import Iterator

from app.engine.language.lint import places
from app.engine.language.source import Path, Source
from app.engine.playbook import Playbook, Step
from app.errors import Finding

#: Longer waits of a single tool are written into the log, and no timeout runs meanwhile.
_HELD = 5.0


def values(playbook: Playbook, source: Source) -> Iterator[Finding]:
    """Iterators that hide names, windows without effect, retries that come too late."""
    for path, raw in places.steps(source):
        step = playbook.steps.get(str(raw.get("step")))
        if step is not None:
            yield from _loop(playbook, step, source, path)
            yield from _retries(step, source, path)


def _loop(playbook: Playbook, step: Step, source: Source, path: Path) -> Iterator[Finding]:
    loop = step.loop
    if loop is None:
        return
    hidden = "workload key" if loop.iterator in playbook.workload else None
    hidden = "step" if loop.iterator in playbook.steps else hidden
    if hidden:
        place: Path = (*path, "loop", "iterator")
        message = f"the iterator {loop.iterator!r} hides the {hidden} of that name in this step."
        hint = "Give the iterator a name of its own."
        yield places.finding(source, place, "iterator-hides", message, hint)
    if not loop.parallel and loop.cursor is None and loop.max_in_flight not in (None, 1, "1"):
        place = (*path, "loop", "spec", "max_in_flight")
        message = "max_in_flight has no effect: the loop is sequential, one item at a time."
        hint = "Add 'mode: parallel', or remove max_in_flight."
        yield places.finding(source, place, "window-unused", message, hint)


def _retries(step: Step, source: Source, path: Path) -> Iterator[Finding]:
    if step.timeout is None:
        return
    for task, (place, _) in zip(step.tasks, places.tools(*_raw(source, path)), strict=False):
        for number, rule in enumerate(task.rules):
            held = len(step.tasks) > 1 or rule.delay <= _HELD
            if rule.do == "retry" and held and rule.delay >= step.timeout:
                where: Path = (*place, "spec", "policy", "rules", number, "then", "delay")
                message = (
                    f"the retry comes after {rule.delay:g} s, but the step may take "
                    f"{step.timeout:g} s in all, so it never comes."
                )
                hint = "Make the delay shorter or the timeout longer."
                yield places.finding(source, where, "retry-too-late", message, hint)


def _raw(source: Source, path: Path) -> tuple[dict[str, object], Path]:
    data = source.data
    for part in path:
        data = data[part]
    return data, path
