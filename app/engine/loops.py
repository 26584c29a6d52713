"""What a loop goes over, and how many of its iterations run at once."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from app.engine.playbook import Loop
from app.engine.scope import Scope
from app.engine.template import render


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


def window(loop: Loop, scope: Scope, default: int) -> int:
    """How many iterations may run at once; *default* where the loop does not say.

    Raises ``ValueError`` for what is not a positive whole number, and ``TemplateError``.
    """
    if not loop.parallel:
        return 1
    if loop.max_in_flight is None:
        return default
    value = render(loop.max_in_flight, scope)
    try:
        count = int(value)
    except (TypeError, ValueError):
        count = 0
    if count < 1:
        raise ValueError(f"max_in_flight gave {value!r}, which is not a positive whole number")
    return count
