"""The names that a worker needs to run a step."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from app.engine.language.checks import rendered
from app.engine.language.looping import CLAIM_NAMES
from app.engine.language.source import texts
from app.engine.language.tasks import Kinds
from app.engine.playbook import Cursor, Step, Task
from app.engine.programs import needs_of_program
from app.engine.templates.analysis import Needs
from app.engine.templates.template import compile_condition, compile_text, has_template
from app.errors import TemplateError

#: How code asks for all names at once.
_WHOLE_CONTEXT = re.compile(r"\b(variables|context|workload)\b")


def needs_of_step(step: Step, kinds: Kinds) -> Needs:
    """What the templates of its input, its tools and their rules, and its cursor name."""
    needs = _in_templates(step.input)
    for task in step.tasks:
        needs |= _of_task(task, kinds)
    if step.loop is not None and step.loop.cursor is not None:
        needs |= _of_cursor(step.loop.cursor, kinds)
    return needs


def needs_of_keychain(entries: Iterable[Mapping[str, Any]]) -> Needs:
    """What the templates of a keychain's entries name."""
    return _in_templates(list(entries))


def _of_task(task: Task, kinds: Kinds) -> Needs:
    needs = Needs()
    verbatim = kinds[task.kind].verbatim
    for key, value in task.config.items():
        if key not in verbatim:
            needs |= _in_templates(value)
            continue
        if any(_WHOLE_CONTEXT.search(text) for _, text in texts(value)):
            needs |= Needs(everything=True)
        if key == "code" and isinstance(value, str):
            needs |= needs_of_program(value)
    needs |= _in_templates(task.set)
    for rule in task.rules:
        needs |= _in_templates(rule.set) | _in_condition(rule.when)
    return needs


def _of_cursor(cursor: Cursor, kinds: Kinds) -> Needs:
    frame = cursor.frame
    needs = _of_task(cursor.task, kinds)
    needs |= _in_templates([frame.max_rows, frame.row_concurrency, frame.max_attempts])
    return Needs(needs.names - CLAIM_NAMES, needs.workload, needs.everything)


def _in_templates(data: Any) -> Needs:
    needs = Needs()
    for _, text in rendered(data):
        if has_template(text):
            try:
                needs |= compile_text(text).needs
            except TemplateError:
                continue  # found and reported where the text was checked
    return needs


def _in_condition(when: Any) -> Needs:
    try:
        condition = compile_condition(when)
    except TemplateError:
        return Needs()  # the same
    return condition.needs if condition else Needs()
