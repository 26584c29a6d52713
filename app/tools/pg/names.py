"""Names of Postgres tables and columns as playbooks write them, quoted so that nobody breaks out."""

from __future__ import annotations

import re
from collections.abc import Sequence

from psycopg import sql

from app.errors import ToolError

_PART = re.compile(r'\s*(?:"((?:[^"]|"")+)"|([^".\s][^".]*?))\s*(\.|\Z)')
_PLAIN = re.compile(r"[^\W\d][\w$]*\Z")


def table_name(text: str, schema: str | None = None) -> sql.Identifier:
    """``table``, ``schema.table`` or ``"Sch"."Ta.ble"``; *schema* where it names none.

    As in SQL, a name without quotes is in lower case. Raises ``ToolError`` for what is no name.
    """
    parts = _parts(text)
    if schema and len(parts) == 1:
        parts = [*_parts(schema), *parts]
    return sql.Identifier(*parts)


def _parts(text: str) -> list[str]:
    parts: list[str] = []
    position = 0
    more = True
    while more:
        match = _PART.match(text, position)
        if match is None or "\0" in text or len(parts) == 3:
            raise ToolError(
                f'{text!r} is no name of a table; write table, schema.table or "Schema"."Table"',
                kind="schema",
            )
        quoted, bare = match[1], match[2]
        parts.append(quoted.replace('""', '"') if quoted else _folded(bare))
        position, more = match.end(), match[3] == "."
    return parts


def _folded(name: str) -> str:
    return name.lower() if _PLAIN.match(name) else name


def matched(wanted: Sequence[str], actual: Sequence[str], table: str) -> list[str]:
    """The columns of *table* that *wanted* means: the same name, or the only one that differs in
    case alone. Raises ``ToolError`` (kind schema) where there is none."""
    found = [_match(name, actual) for name in wanted]
    missing = [name for name, match in zip(wanted, found, strict=True) if match is None]
    if missing:
        raise ToolError(
            f"{table} has no column {', '.join(missing)}; it has {', '.join(actual)}. Name them with "
            "mapping: {column: where its value is}",
            kind="schema",
        )
    return [name for name in found if name is not None]


def _match(name: str, actual: Sequence[str]) -> str | None:
    if name in actual:
        return name
    alike = [other for other in actual if other.lower() == name.lower()]
    return alike[0] if len(alike) == 1 else None
