"""What a loop goes over, and how many of its iterations run at once."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from app.engine.language.checks import whole
from app.engine.playbook import Loop
from app.engine.templates.scope import Scope
from app.engine.templates.template import render, shorten

#: The largest number that a loop counts to: a list of its iterations is made.
MAX_COUNT = 1_000_000
#: The largest number of a loop's settings.
MAX_NUMBER = 2_147_483_647


def collection(value: Any) -> list[Any]:
    """The items of a loop. Raises ``ValueError`` for what cannot be gone over."""
    if isinstance(value, str):
        value = _collection_in_text(value)
    if isinstance(value, Mapping):
        return [{"key": key, "value": item} for key, item in value.items()]
    if isinstance(value, list | tuple):
        return list(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        if value > MAX_COUNT:
            raise ValueError(f"'in' counts to {_shown(value)}; the most is {MAX_COUNT}")
        return list(range(value))
    raise ValueError(f"'in' gave {_shown(value)}, which did not evaluate to an iterable")


def _collection_in_text(text: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return [part.strip() for part in re.split(r"[,\n]", text) if part.strip()]
    return value if isinstance(value, list | dict) else [value]


def frame_of(loop: Loop, scope: Scope, most: int) -> tuple[int, dict[str, Any]]:
    """How many frames of a cursor may be open, and its frame settings, rendered.

    *most* is the limit of frames, and of rows of one, that run at once.
    Raises ``ValueError`` for what is not a positive whole number, and ``TemplateError``.
    """
    assert loop.cursor is not None
    frame = loop.cursor.frame
    bodies = _count(loop.max_in_flight, scope, "max_in_flight") or 1
    rows = _count(frame.row_concurrency, scope, "row_concurrency")
    # Without a bound on its rows, a frame alone may use what max_in_flight allows.
    frames = bodies if rows or not frame.by_row else 1
    return min(frames, most), {
        "max_rows": _count(frame.max_rows, scope, "max_rows"),
        "row_concurrency": min(rows or bodies, most),
        "by_row": frame.by_row,
    }


def _count(raw: Any, scope: Scope, name: str) -> int | None:
    """A positive whole number from a number or a template; None where there is none."""
    value = None if raw is None else render(raw, scope)
    if value is None:
        return None
    count = whole(value)
    if count is None or count > MAX_NUMBER:
        what = f"which is not a whole number from 1 to {MAX_NUMBER}"
        raise ValueError(f"{name} gave {_shown(value)}, {what}")
    return count


def _shown(value: Any) -> str:
    """*value* for a message, which must not be as large as the data."""
    return shorten(repr(value))


def window(loop: Loop, scope: Scope, most: int) -> int:
    """How many iterations may run at once, *most* at the most and where the loop does not say.

    Raises ``ValueError`` for what is not a positive whole number, and ``TemplateError``.
    """
    if not loop.parallel:
        return 1
    if loop.max_in_flight is None:
        return most
    count = _count(loop.max_in_flight, scope, "max_in_flight")
    if count is None:
        raise ValueError("max_in_flight gave nothing")
    # All of a window is scheduled in one transaction.
    return min(count, most)
