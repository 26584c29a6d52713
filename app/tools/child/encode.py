"""A step's result as JSON, or a refusal that says which value has no JSON form.

Dates and times become ISO 8601 text, ``Decimal`` a number, sets, ranges and dict views lists,
dataclasses and pydantic models mappings, enums their value, numpy values plain ones, data frames
lists of rows, generators lists, and whatever else is left its ``str()``. Bytes, NaN, infinities,
circles, invalid Unicode and what was not awaited are refused.
"""

from __future__ import annotations

import dataclasses
import decimal
import enum
import json
import math
from collections.abc import Mapping, ValuesView
from collections.abc import Set as AbstractSet
from datetime import date, datetime, time
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any

#: As they are now: a program may put others into their modules.
dumps, loads = json.dumps, json.loads
_decode = json.JSONDecoder().raw_decode

_LAZY = (GeneratorType, map, filter, zip, enumerate, reversed)
_UNAWAITED = (CoroutineType, AsyncGeneratorType)


class Refused(Exception):  # noqa: N818 (an outcome, answered by program)
    """The value has no JSON form; ``kind`` is schema or resource."""

    def __init__(self, message: str, *, kind: str = "schema") -> None:
        super().__init__(message)
        self.kind = kind


def encode(value: Any, limit: int) -> bytes:
    """*value* as UTF-8 JSON of at most *limit* bytes."""
    try:
        data = _encode(value).encode()
    except UnicodeEncodeError as exc:
        raise Refused(
            f"the result holds text that is not valid Unicode ({exc.object[exc.start]!r}); "
            "decode it with errors='replace' or use base64"
        ) from exc
    except RecursionError as exc:
        raise Refused("the result is nested too deep, or contains itself") from exc
    except ValueError as exc:
        raise Refused(_why(value, exc)) from exc
    except TypeError as exc:
        raise Refused(f"the result has no JSON form: {exc}; make its keys text") from exc
    if len(data) > limit:
        raise Refused(
            f"the result has {len(data)} bytes, more than the {limit} allowed; write it to a file "
            "or a table and return where it is, or raise CALLBOARD_RESULT_BYTES",
            kind="resource",
        )
    return data


def decoded(data: bytes) -> Any:
    """The JSON of a worker as data: without the blanks around it that ``loads`` looks for."""
    return _decode(data.decode())[0]


def plain(value: Any) -> Any:
    """A simpler form of one value that JSON does not know."""
    match value:
        case datetime() | date() | time():
            return value.isoformat()
        case decimal.Decimal():
            return float(value)
        case bytes() | bytearray() | memoryview():
            raise Refused(
                "the result holds bytes, which have no JSON form; decode them, or use "
                "base64.b64encode(…).decode()"
            )
        case AbstractSet() | ValuesView() | range():
            return list(value)
        case Mapping():
            return dict(value)
        case _:
            return list(value) if isinstance(value, _LAZY) else _object(value)


#: Made once: ``dumps`` makes one at each call.
_encode = json.JSONEncoder(
    default=plain, allow_nan=False, ensure_ascii=False, separators=(",", ":")
).encode


def _object(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, _UNAWAITED):
        raise Refused(
            f"the result holds a {type(value).__name__} that nobody awaited; await it, or give it "
            "to asyncio.run()"
        )
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: getattr(value, item.name) for item in dataclasses.fields(value)}
    for method in ("model_dump", "tolist"):
        convert = getattr(value, method, None)
        if callable(convert) and not isinstance(value, type):
            return convert()
    rows = getattr(value, "to_dict", None)
    if type(value).__name__ == "DataFrame" and callable(rows):
        return rows(orient="records")
    return str(value)


def _why(value: Any, error: ValueError) -> str:
    where = _find_nan(value, "result")
    if where:
        return f"{where} is NaN or infinite, which JSON cannot say; return None or text instead"
    return f"the result has no JSON form: {error}"


def _find_nan(value: Any, path: str) -> str | None:
    if isinstance(value, (float, decimal.Decimal)):
        return None if math.isfinite(value) else path
    items: list[tuple[Any, Any]] = []
    if isinstance(value, Mapping):
        items = list(value.items())
    elif isinstance(value, (list, tuple)):
        items = list(enumerate(value))
    for key, item in items:
        try:
            found = _find_nan(item, f"{path}[{key!r}]")
        except RecursionError:
            return None
        if found:
            return found
    return None
