"""What a failed task was given, for people: rendered, without secrets, and not much of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from app.engine.encoding import dumps
from app.engine.masking import MASK, Masker
from app.errors import BadRequestError

#: Bytes that stay with the event, at the most.
MOST = 4096
#: Items of a list or mapping that are looked at, and characters of a text.
ITEMS, CHARACTERS = 32, 1024
#: How deep values are looked into.
DEPTH = 6

#: A template that reads what is confidential may show any part of it: its value is masked whole.
_CONFIDENTIAL = re.compile(
    r"\b(keychain|secrets?|auth|credentials?|passwords?|tokens?)\b", re.IGNORECASE
)
_UNCHANGED = object()


@dataclass(frozen=True, slots=True)
class Given:
    """The configuration of a task, as it was ``written`` and as it was ``rendered``."""

    written: Mapping[str, Any]
    rendered: Mapping[str, Any]


def shown(given: Given, masker: Masker) -> Any:
    """The rendered values that are not what was written, masked; at most ``MOST`` bytes of JSON.

    None where there are none; the beginning of the JSON, as text, where it is longer.
    """
    value = _differing(given.rendered, given.written, masker, DEPTH)
    if value is _UNCHANGED:
        return None
    try:
        text = dumps(value)
    except BadRequestError:
        return None  # what is no JSON cannot be shown as it is
    if len(text) <= MOST:
        return value
    # It is masked already, so a cut splits no secret; the last bytes may be half a character.
    return text[: MOST - 64].decode(errors="ignore") + "…"


def _differing(value: Any, written: Any, masker: Masker, depth: int) -> Any:
    """*value* without what is as *written*; ``_UNCHANGED`` where nothing is left."""
    if value == written:
        return _UNCHANGED
    if isinstance(value, Mapping) and isinstance(written, Mapping) and depth:
        found = dict(_items(value, written, masker, depth))
        return found or _UNCHANGED
    if isinstance(value, list) and isinstance(written, list) and depth:
        pairs = zip(value[:ITEMS], written, strict=False)
        return [
            "(as written)"
            if (kept := _differing(one, its, masker, depth - 1)) is _UNCHANGED
            else kept
            for one, its in pairs
        ]
    if isinstance(written, str) and _CONFIDENTIAL.search(written):
        return MASK
    return _brief(value, masker, depth)


def _items(
    value: Mapping[str, Any], written: Mapping[str, Any], masker: Masker, depth: int
) -> Iterator[tuple[str, Any]]:
    for name, item in islice(value.items(), ITEMS):
        kept = _differing(item, written.get(name), masker, depth - 1)
        if kept is not _UNCHANGED:
            yield masker.text(str(name)), kept


def _brief(value: Any, masker: Masker, depth: int) -> Any:
    """*value* masked, with long texts cut, and only the first items of what has many."""
    if isinstance(value, str):
        return _cut(value, masker)
    if value is None or isinstance(value, bool | int | float):
        return masker.data(value)
    if not isinstance(value, Mapping | list | tuple) or not depth:
        return f"({type(value).__name__})"
    if isinstance(value, Mapping):
        return {
            masker.text(str(name)): _brief(item, masker, depth - 1)
            for name, item in islice(value.items(), ITEMS)
        }
    kept = [_brief(item, masker, depth - 1) for item in value[:ITEMS]]
    return [*kept, f"(and {len(value) - ITEMS} more)"] if len(value) > ITEMS else kept


def _cut(text: str, masker: Masker) -> str:
    """The beginning of *text*, masked.

    A secret that the cut goes through is not recognised: as much as the longest may reach into is
    dropped from the end again.
    """
    if len(text) <= CHARACTERS:
        return masker.text(text)
    beginning = masker.text(text[: CHARACTERS + masker.longest])[: -masker.longest]
    return f"{beginning}… ({len(text)} characters)"
