"""A folded state as plain data that later versions can compare with, whatever fields they add.

A field at its default is left out: a version that adds one folds older logs to the same data. Where
a later version keeps the same facts in another shape, this module is the place to give them back
the shape that the files have.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any

import orjson

from app.engine.events import StepKey
from app.engine.state import Execution


def form(value: Any) -> Any:
    """*value* as JSON data in one order."""
    if is_dataclass(value) and not isinstance(value, type):
        given = ((item, getattr(value, item.name)) for item in fields(value))
        return {item.name: form(kept) for item, kept in given if kept != _default(item)}
    if isinstance(value, StepKey):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): form(kept) for key, kept in sorted(value.items(), key=_by_text)}
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, list | tuple):
        return [form(item) for item in value]
    # More bits than JSON's numbers have: the set of the iterations that ended.
    return hex(value) if type(value) is int and value >> 63 else value


def digest(state: Execution) -> str:
    """A few letters that stand for the whole state."""
    text = orjson.dumps(form(state), option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(text).hexdigest()[:12]


def _default(item: Field[Any]) -> Any:
    return item.default if item.default_factory is MISSING else item.default_factory()


def _by_text(pair: tuple[Any, Any]) -> str:
    return str(pair[0])
