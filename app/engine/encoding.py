"""Values to JSON text and back, exactly: what cannot come back as it went in is refused."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import orjson

from app.errors import BadRequestError

_OPTIONS = orjson.OPT_PASSTHROUGH_DATACLASS
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")

#: A number with a positive exponent, or text that looks like one.
_LARGE = re.compile(rb"[0-9]e[0-9+]")


def dumps(value: Any) -> bytes:
    """*value* as JSON. Raises ``BadRequestError`` that says which part is not JSON.

    Not JSON are NaN and infinities (orjson would write null), whole numbers beyond 64 bits (it
    would read them back as floats), and the character NUL (Postgres stores none).
    """
    try:
        text = orjson.dumps(value, default=_plain, option=_OPTIONS)
    except TypeError as exc:
        raise BadRequestError(
            f"the value cannot be stored as JSON: {exc}",
            remedy="return text, numbers, booleans, null, lists and objects with text keys",
        ) from exc
    # Both searches are one pass over bytes; the slow look happens only where something was found.
    if b"null" in text and (where := _not_finite(value)) is not None:
        raise BadRequestError(
            f"the value cannot be stored as JSON: {where} is not a finite number",
            remedy="replace NaN and infinities, for instance by null",
        )
    if b"\\u0000" in text and _NUL.search(text):
        raise BadRequestError(
            "the value cannot be stored: a text in it holds the character NUL",
            remedy="strip it, or encode binary data as base64",
        )
    if _LARGE.search(text):
        return orjson.dumps(_spelled_out(value), default=_plain, option=_OPTIONS)
    return text


def loads(text: bytes | str) -> Any:
    """The inverse of ``dumps``."""
    return orjson.loads(text)


def _spelled_out(value: Any) -> Any:
    """*value* with floats from 1e16 on written as digits and ``.0``.

    Postgres keeps the digits of a number and drops its exponent, so 1e17 would come back as a
    whole number, and 6.073751732245395e16 as one that is not even equal.
    """
    if isinstance(value, float):
        return orjson.Fragment(f"{value:.1f}") if abs(value) >= 1e16 else value
    if isinstance(value, Mapping):
        return {name: _spelled_out(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_spelled_out(part) for part in value]
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"type {type(value).__name__} is not JSON")


def _not_finite(value: Any) -> str | None:
    """The path of the first NaN or infinity in *value*, such as ``value.rows[3].price``."""
    todo: list[tuple[str, Any]] = [("value", value)]
    while todo:
        path, part = todo.pop()
        if isinstance(part, float):
            if not math.isfinite(part):
                return path
        elif isinstance(part, Mapping):
            todo.extend((f"{path}.{name}", item) for name, item in part.items())
        elif isinstance(part, list | tuple):
            todo.extend((f"{path}[{index}]", item) for index, item in enumerate(part))
    return None
