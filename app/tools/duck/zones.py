"""Times with a zone on their way from DuckDB.

Its Python client makes them with a package that we do without, so they are fetched as text.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, time
from typing import Any

import duckdb
import orjson

#: What the names of all such types have in them.
_ZONED = "WITH TIME ZONE"
_PLAIN: dict[str, type[datetime | time]] = {
    "TIMESTAMP WITH TIME ZONE": datetime,
    "TIME WITH TIME ZONE": time,
}


def are_zoned(kinds: Sequence[str]) -> bool:
    """Whether one of these types has times with a zone in it."""
    return any(_ZONED in kind for kind in kinds)


def as_text(
    connection: duckdb.DuckDBPyConnection, query: str, params: Any, kinds: Sequence[str]
) -> None:
    """Run *query* again, with the columns that hold such times as text (``restored`` reads it)."""
    names = [f"c{number}" for number in range(len(kinds))]
    values = [
        f"CAST({name} AS VARCHAR)" if kind in _PLAIN
        else f"to_json({name})::VARCHAR" if _ZONED in kind
        else name
        for name, kind in zip(names, kinds, strict=True)
    ]  # fmt: skip
    # The newline ends a comment that the query may end with.
    columns, given = ", ".join(values), ", ".join(names)
    connection.execute(
        f"SELECT {columns} FROM ({query}\n) AS zoned({given})",  # noqa: S608 (as the playbook wrote it)
        params,
    )


def restored(records: Sequence[Sequence[Any]], kinds: Sequence[str]) -> list[list[Any]]:
    """The records that ``as_text`` gave, with times in ISO 8601."""
    return [
        [_restored(value, kind) for value, kind in zip(record, kinds, strict=True)]
        for record in records
    ]


def _restored(value: Any, kind: str) -> Any:
    if value is None or _ZONED not in kind:
        return value
    if kind not in _PLAIN:
        return orjson.loads(value)
    try:
        return _PLAIN[kind].fromisoformat(value).isoformat()
    except ValueError:
        return value  # infinity, and years that Python does not know
