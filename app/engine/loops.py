"""What a loop goes over, and how many of its iterations run at once."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from app.engine.language.checks import whole
from app.engine.playbook import Loop
from app.engine.templates.scope import Scope
from app.engine.templates.template import render


def collection(value: Any) -> list[Any]:
    """The items of a loop. Raises ``ValueError`` for what cannot be gone over."""
    if isinstance(value, str):
        value = _collection_in_text(value)
    if isinstance(value, Mapping):
        return [{"key": key, "value": item} for key, item in value.items()]
    if isinstance(value, list | tuple):
        return list(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return list(range(value))
    raise ValueError(f"'in' gave {value!r}, which did not evaluate to an iterable")


def _collection_in_text(text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return [part.strip() for part in re.split(r"[,\n]", text) if part.strip()]
    return value if isinstance(value, list | dict) else [value]


def frame_of(loop: Loop, scope: Scope) -> tuple[int, dict[str, Any]]:
    """How many frames of a cursor may be open, and its frame settings, rendered.

    Raises ``ValueError`` for what is not a positive whole number, and ``TemplateError``.
    """
    assert loop.cursor is not None
    frame = loop.cursor.frame
    bodies = _count(loop.max_in_flight, scope, "max_in_flight") or 1
    rows = _count(frame.row_concurrency, scope, "row_concurrency")
    # Without a bound on its rows, a frame alone may use what max_in_flight allows.
    frames = bodies if rows or not frame.by_row else 1
    return frames, {
        "max_rows": _count(frame.max_rows, scope, "max_rows"),
        "row_concurrency": rows or bodies,
        "by_row": frame.by_row,
    }


def _count(raw: Any, scope: Scope, name: str) -> int | None:
    """A positive whole number from a number or a template; None where there is none."""
    value = None if raw is None else render(raw, scope)
    if value is None:
        return None
    count = whole(value)
    if count is None:
        raise ValueError(f"{name} gave {value!r}, which is not a positive whole number")
    return count


def window(loop: Loop, scope: Scope, default: int) -> int:
    """How many iterations may run at once; *default* where the loop does not say.

    Raises ``ValueError`` for what is not a positive whole number, and ``TemplateError``.
    """
    if not loop.parallel:
        return 1
    if loop.max_in_flight is None:
        return default
    count = _count(loop.max_in_flight, scope, "max_in_flight")
    if count is None:
        raise ValueError("max_in_flight gave nothing")
    return count
