"""What databases hold, as JSON data.

Decimals become numbers, dates and times ISO 8601 text, UUIDs, ranges, addresses and intervals their
text, bytes base64 text, tuples and sets lists. NaN and infinities become the text that Postgres'
own ``to_json`` gives them: NaN, Infinity, -Infinity. Whole numbers beyond 64 bits become floats.
"""

from __future__ import annotations

import base64
import decimal
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, time
from typing import Any

import orjson

from app.errors import ToolError

#: Below this many rows the result is measured where it is stored anyway.
WORTH_MEASURING = 10_000
_SIMPLE = (str, bool, type(None))
_LARGEST, _SMALLEST = 2**64 - 1, -(2**63)


def plain(value: Any) -> Any:  # noqa: PLR0911 (one return per kind of value)
    """*value* as JSON data."""
    if isinstance(value, _SIMPLE):
        return value
    if isinstance(value, (int, float, decimal.Decimal)):
        return _number(value)
    match value:
        case datetime() | date() | time():
            return value.isoformat()
        case bytes() | bytearray() | memoryview():
            return base64.b64encode(value).decode()
        case Mapping():
            return {str(key): plain(item) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [plain(item) for item in value]
        case _:
            return str(value)


def rows(columns: Sequence[str], records: Iterable[Sequence[Any]]) -> list[dict[str, Any]]:
    """Each record as a mapping from column to JSON data."""
    return [
        {column: plain(value) for column, value in zip(columns, record, strict=True)}
        for record in records
    ]


def check_size(found: Sequence[Any], limit: int) -> None:
    """Raise ``ToolError`` (kind resource) where these rows are more than *limit* bytes of JSON."""
    if len(found) < WORTH_MEASURING:
        return
    size = len(orjson.dumps(found))
    if size > limit:
        raise ToolError(
            f"the query returned {len(found)} rows of {size} bytes, more than the {limit} allowed; "
            "select less, or raise CALLBOARD_RESULT_BYTES",
            kind="resource",
        )


def _number(value: float | decimal.Decimal) -> float | str:
    if isinstance(value, int) and _SMALLEST <= value <= _LARGEST:
        return value
    number = float(value)
    if math.isfinite(number):
        return number
    if math.isnan(number):
        return "NaN"
    return "Infinity" if number > 0 else "-Infinity"
