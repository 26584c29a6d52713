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
from dataclasses import dataclass, field
from datetime import date, datetime, time
from typing import Any

import orjson

from app.errors import ToolError

#: Smaller results are not measured here.
WORTH_MEASURING = 1000
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


@dataclass(slots=True)
class Gathered:
    """The rows of a result as they arrive, batch by batch: mappings, or lists where *as_lists*.

    More than *most* are counted and dropped; more than *limit* bytes of JSON raise ``ToolError``.
    """

    columns: list[str]
    limit: int
    most: int | None = None
    as_lists: bool = False
    rows: list[Any] = field(default_factory=list)
    seen: int = 0
    _bytes: int = 0

    def take(self, records: Sequence[Sequence[Any]]) -> None:
        """Add a batch."""
        self.seen += len(records)
        if self.most is not None:
            records = records[: max(self.most - len(self.rows), 0)]
        if self.as_lists:
            new: list[Any] = [[plain(value) for value in record] for record in records]
        else:
            new = rows(self.columns, records)
        self.rows += new
        # A small result is measured where it is kept, in any case.
        if len(self.rows) >= WORTH_MEASURING:
            self._bytes += len(orjson.dumps(new))
            if self._bytes > self.limit:
                raise ToolError(
                    f"the first {len(self.rows)} rows of the query have {self._bytes} bytes of JSON, "
                    f"more than the {self.limit} allowed; select less, set max_rows, or raise "
                    "CALLBOARD_RESULT_BYTES",
                    kind="resource",
                )

    @property
    def truncated(self) -> bool:
        return self.seen > len(self.rows)

    def truncation(self) -> dict[str, Any]:
        """What tells that rows are missing; nothing where none are."""
        if not self.truncated:
            return {}
        about = {"reason": "max_rows", "max_rows": self.most, "total_rows": self.seen}
        return {"truncated": True, "truncation": about}


def _number(value: float | decimal.Decimal) -> float | str:
    if isinstance(value, int) and _SMALLEST <= value <= _LARGEST:
        return value
    number = float(value)
    if math.isfinite(number):
        return number
    if math.isnan(number):
        return "NaN"
    return "Infinity" if number > 0 else "-Infinity"
