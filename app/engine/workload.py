"""What an execution begins with: the playbook's workload, and what was given over it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from app.engine.templates.sandbox import NOW
from app.engine.templates.scope import Scope
from app.engine.templates.template import compile_text, has_template, render
from app.errors import TemplateError


def merged(
    defaults: Mapping[str, Any], given: Mapping[str, Any], names: Mapping[str, Any], *, now: float
) -> dict[str, Any]:
    """*given* over *defaults*, whose templates are rendered: once, and in their order.

    They see the keys before them, what was given, *names* (of the execution) and ``now()``. One that
    names anything else, or cannot be rendered, stays the text that it is: it may be meant for later.
    What was given is never rendered.
    """
    scope = Scope(workload={**defaults, **given}, local={**names, NOW: now})
    for key, value in defaults.items():
        if key not in given:
            workload = {**scope.workload, key: _rendered(value, scope)}
            scope = replace(scope, workload=workload)
    return dict(scope.workload)


def _rendered(value: Any, scope: Scope) -> Any:
    if isinstance(value, str):
        return _text(value, scope) if has_template(value) else value
    if isinstance(value, Mapping):
        return {key: _rendered(part, scope) for key, part in value.items()}
    return [_rendered(part, scope) for part in value] if isinstance(value, list) else value


def _text(text: str, scope: Scope) -> Any:
    try:
        needs = compile_text(text).needs
        missing = [name for name in needs.names | needs.workload if name not in scope]
        return text if missing or needs.everything else render(text, scope)
    except TemplateError:
        return text
